"""Plans and records made by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from circuitspec.analysis.claims.kinds.bases.circuit_claims import PlannedOfCircuit
from circuitspec.analysis.warnings.all_warnings import find_warnings
from circuitspec.analysis.warnings.evidence import Evidence, EvidenceWarning, WarningKind
from circuitspec.engine.records import Records
from circuitspec.experiments.experiment import Experiment, Site, Source
from circuitspec.experiments.planner import Plan
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head
from circuitspec.hypothesis_file.schema.claims.necessary_block import Necessary
from circuitspec.hypothesis_file.schema.claims.sufficient_block import Sufficient

MEANS = Source("mean_per_template", "abc")

CLEAN = Experiment("clean")
CORRUPT = Experiment("abc")
CIRCUIT = Experiment(
    "clean", MEANS, frozenset({Site(Head(0, 1), Where.everywhere()), Site(Head(3, 1), Where.at("END"))})
)
KNOCKED_OUT = Experiment("clean", MEANS, frozenset({Site(Head(3, 1), Where.except_at("END"))}))

PATCHED = {"sufficient": CIRCUIT, "necessary": KNOCKED_OUT}


def make_plan(*claims: Sufficient | Necessary) -> Plan:
    labels = {CLEAN: "clean", CORRUPT: "corrupt", CIRCUIT: "circuit", KNOCKED_OUT: "circuit ablated"}
    planned = (PlannedOfCircuit(i, claim, PATCHED[claim.kind], CLEAN, CORRUPT) for i, claim in enumerate(claims))
    return Plan(labels=labels, clean=CLEAN, corrupt=CORRUPT, circuit=CIRCUIT, claims=tuple(planned))


def make_records(
    values: Mapping[Experiment, Mapping[str, ArrayLike]], templates: Sequence[int] | None = None
) -> Records:
    """Records from lists; a single template unless told."""
    arrays = {run: {m: np.asarray(v, dtype=np.float64) for m, v in by.items()} for run, by in values.items()}
    n = len(next(iter(next(iter(arrays.values())).values())))
    return Records(arrays, np.asarray(templates if templates is not None else [0] * n, dtype=np.int64))


def around(mean: float, n: int = 100, spread: float = 0.4) -> np.ndarray:
    """`n` values with exactly this mean, evenly spread over mean ± spread, in a fixed shuffled order."""
    offsets = np.linspace(-spread, spread, n)
    return mean + np.random.default_rng(n + round(1000 * abs(mean))).permutation(offsets)


def evidence(plan: Plan | None = None, records: Records | None = None, **found: Any) -> Evidence:
    """Evidence of what is given alone: of no claims and two prompts, where these are not."""
    prompts = found.get("prompts")
    zeros = [0.0] * (2 if prompts is None else len(prompts.prompts))
    records = make_records({CLEAN: {"logit_diff": zeros}}) if records is None else records
    return Evidence(make_plan() if plan is None else plan, records, **{"claims": (), **found})


def warned(kinds: Sequence[WarningKind], *given: Any, **found: Any) -> tuple[EvidenceWarning, ...]:
    """What these kinds of warnings find in such evidence."""
    return find_warnings(evidence(*given, **found), kinds)
