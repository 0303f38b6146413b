"""The IOI paper's own numbers (Wang et al. 2022, figure 20): the circuit without its two negative heads."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from circuitspec.analysis.circuit_effects.negative_components import negative_components
from circuitspec.analysis.claims.verdict import judge
from circuitspec.analysis.statistics.split_sample import halves
from circuitspec.analysis.warnings.negative_warnings import NEGATIVE_WARNINGS
from circuitspec.analysis.warnings.path_warnings import PATH_WARNINGS
from circuitspec.analysis.warnings.score_warnings import SCORE_WARNINGS
from circuitspec.engine.records import Records
from circuitspec.experiments.experiment import Experiment, Site, Source
from circuitspec.experiments.follow_ups.restorations import Restorations
from circuitspec.experiments.levels.node_level import restored
from circuitspec.experiments.planner import Plan, PlannedClaim
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head
from circuitspec.hypothesis_file.schema.claims.sufficient_block import Sufficient
from tests.analysis.support import around, warned

N = 100
NEGATIVE = (Head(10, 7), Head(11, 10))
CLEAN, ABLATED = Experiment("clean"), Experiment("abc")
CIRCUIT = Experiment(
    "clean", Source("mean_per_template", "abc"), frozenset(Site(h, Where.everywhere()) for h in (*NEGATIVE, Head(0, 5)))
)
# Mean logit differences: of the model 3.56; of the circuit without both negative heads, with either, and with both
MODEL = 3.56
WITHOUT: dict[frozenset[Head], float] = {
    frozenset(NEGATIVE): 4.07,
    frozenset({Head(11, 10)}): 3.13,
    frozenset({Head(10, 7)}): 3.27,
    frozenset(): 2.62,
}


def evenly(mean: float) -> np.ndarray:
    """Prompts whose mean is this on either half, of which one chooses negative components and one judges them."""
    parts, values = halves(np.zeros(N, dtype=np.int64)), np.zeros(N)
    for half in (parts.search, parts.judge):
        values[half] = around(mean, N // 2, 1.0)
    return values


class Paper:
    """Runs whose means are the paper's; prompts differ, and each run adds something of its own to each."""

    def run(self, experiments: Iterable[Experiment]) -> Records:
        values = {}
        for experiment in experiments:
            ablated = frozenset(site.component for site in experiment.sites)
            prompts = evenly(WITHOUT[frozenset(h for h in NEGATIVE if h in ablated)])
            values[experiment] = {"logit_diff": prompts}
        return Records(values, np.zeros(N, dtype=np.int64))


def test_leaving_out_both_negative_heads_is_warned_of() -> None:
    claim = PlannedClaim(0, Sufficient(metric="logit_diff", at_least=0.8), CIRCUIT, CLEAN, ABLATED)
    labels = {CLEAN: "clean", ABLATED: "all ablated", CIRCUIT: "circuit"}
    plan = Plan(labels=labels, clean=CLEAN, corrupt=ABLATED, circuit=CIRCUIT, claims=(claim,))
    paper = Paper()
    anchors = {CLEAN: {"logit_diff": evenly(MODEL)}, ABLATED: {"logit_diff": evenly(0.0)}}
    records = Records(anchors, np.zeros(N, dtype=np.int64)).merged(paper.run([CIRCUIT]))
    chosen = (*NEGATIVE, Head(0, 5))
    outside = Restorations(chosen, lambda components: restored(CIRCUIT, components))

    finding, plan, records = negative_components(plan, records, "logit_diff", chosen, None, paper, outside)
    assert finding is not None
    left_out, above = warned(
        (*NEGATIVE_WARNINGS, *SCORE_WARNINGS, *PATH_WARNINGS),
        plan,
        records,
        claims=judge(plan, records),
        negatives=finding,
    )

    assert (left_out.code, above.code) == ("CS401", "CS402")
    effects = {c["component"]: c["effect"] for c in left_out.data["components"]}  # type: ignore[attr-defined]
    # restoring a head alone leaves the other one out
    assert effects == {"a10.h7": pytest.approx(3.13 - 4.07), "a11.h10": pytest.approx(3.27 - 4.07)}
    assert left_out.data["recovered_declared"]["value"] == pytest.approx(4.07 / 3.56)  # type: ignore[index, call-overload]
    assert left_out.data["recovered_restored"]["value"] == pytest.approx(2.62 / 3.56)  # type: ignore[index, call-overload]
    assert above.message.startswith("recovered logit_diff is above 100 %: 1.14 [")
