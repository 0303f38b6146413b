"""What compared circuits were measured to do: recovered performance on each file's prompts, and how far their outputs
lie apart, prompt by prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from circuitspec.analysis.claims.claim_result import ClaimResult
from circuitspec.analysis.statistics import stats
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.proportions import share_of
from circuitspec.analysis.statistics.scores import mean_of
from circuitspec.analysis.statistics.wording import number
from circuitspec.comparison.circuit_runs import CircuitRuns, NotCompared
from circuitspec.engine.records import Records
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.planner import CLEAN, Plan, PlannedClaim
from circuitspec.hypothesis_file.schema.claims.sufficient_block import Sufficient

FARTHEST = 3  # prompts that are named, of those on which two circuits lie farthest apart
LEAST = 0.01  # nats: outputs that lie closer than this are the same for all purposes
NEAR = 0.1  # recovered performance may differ by so much, and circuits still be said to do as well as each other


@dataclass(frozen=True)
class CircuitFigure:
    """One run: what it recovers of the metric (None and a `reason` where there is no ratio), the metric's mean, and the
    KL of its outputs from the whole model's (None where that was not measured)."""

    what: str
    recovered: Estimate | None
    reason: str
    mean: float
    kl: float | None


@dataclass(frozen=True)
class SetFigure:
    """As `CircuitFigure`, of a set of two circuits: kept with all else ablated, or `taken_out` of the whole model."""

    first: str
    second: str
    taken_out: bool
    figure: CircuitFigure


@dataclass(frozen=True)
class OutputsApart:
    """How the outputs of two circuits lie apart: KL of either's from the other's (nats, mean over prompts), and the
    share of prompts on which both put the same token first. By prompt, and the prompts that are farthest apart."""

    first: str
    second: str
    forth: Estimate
    back: Estimate
    same_top: Estimate
    by_prompt: tuple[float, ...]  # KL(first || second)
    farthest: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class OnPrompts:
    """All that was measured on the prompts of these files (by letter): of files that have the same prompts, ablation
    and anchor once."""

    owners: tuple[str, ...]
    n: int
    metric: str
    method: str
    clean: float
    anchor: float
    circuits: tuple[CircuitFigure, ...]
    sets: tuple[SetFigure, ...]
    apart: tuple[OutputsApart, ...]
    left_out: tuple[NotCompared, ...]


@dataclass(frozen=True)
class Unlike:
    """Two circuits that recover as much as each other on some prompts, and do different things there (CS474)."""

    message: str
    detail: str


@dataclass(frozen=True)
class MeasuredCircuits:
    """What was measured on each file's prompts, and what that says against reading equal figures as equal circuits."""

    prompts: tuple[OnPrompts, ...]
    unlike: tuple[Unlike, ...]
    experiments: int
    stored: int
    forwards: float
    seconds: float


def plan_of(runs: CircuitRuns, metric: str, *, sets: bool) -> Plan:
    """The runs of circuits (and of `sets` of theirs) as claims of sufficiency, so that they are estimated as those."""
    labels: dict[Experiment, str] = {CLEAN: "clean"}
    labels.setdefault(runs.anchor, "anchor")
    for name, run in runs.circuits.items():
        labels.setdefault(run, name)
    for one in runs.sets if sets else ():
        labels.setdefault(one.run, f"{one.what} of {one.first} and {one.second}")
    claim = Sufficient(metric=metric, at_least=0.0)
    distinct = dict.fromkeys(runs.runs if sets else runs.circuits.values())
    claims = [PlannedClaim(i, claim, run, CLEAN, runs.anchor) for i, run in enumerate(distinct)]
    circuit = next(iter(distinct), CLEAN)
    return Plan(labels, CLEAN, runs.anchor, circuit, tuple(claims))


def figures(
    runs: CircuitRuns, plan: Plan, judged: Sequence[ClaimResult], records: Records, metric: str
) -> tuple[tuple[CircuitFigure, ...], tuple[SetFigure, ...]]:
    """What each run recovers."""
    claims = {planned.patched: claim for planned, claim in zip(plan.claims, judged, strict=True)}

    def figure(what: str, run: Experiment) -> CircuitFigure:
        values, claim = records[run], claims[run]
        kl = mean_of(values["kl"]) if "kl" in values else None
        reason = claim.reason if claim.estimate is None else ""
        return CircuitFigure(what, claim.estimate, reason, mean_of(values[metric]), kl)

    circuits = tuple(figure(name, run) for name, run in runs.circuits.items())
    sets = tuple(SetFigure(one.first, one.second, one.taken_out, figure(one.what, one.run)) for one in runs.sets)
    return circuits, sets


def outputs_apart(
    first: str, second: str, values: Mapping[str, NDArray[np.float64]], texts: Sequence[str]
) -> OutputsApart:
    """From `forth`, `back` and `same_top`, `[prompt]` each, and the prompts' texts."""
    forth = values["forth"]
    order = np.argsort(-forth, kind="stable")[:FARTHEST]
    same = share_of(values["same_top"] > 0.5)
    assert same is not None  # there are prompts
    return OutputsApart(
        first,
        second,
        stats.mean(forth, what="the KL between two circuits"),
        stats.mean(values["back"], what="the KL between two circuits"),
        same,
        tuple(map(float, forth)),
        tuple((float(forth[i]), texts[i]) for i in order),
    )


def unlike_circuits(found: OnPrompts) -> list[Unlike]:
    """The pairs that recover as much as each other, with outputs farther from each other than from the model's."""
    told = {one.what: one for one in found.circuits}
    alike = []
    for one in found.apart:
        first, second = told[one.first], told[one.second]
        if first.recovered is None or second.recovered is None or first.kl is None or second.kl is None:
            continue
        difference = first.recovered.value - second.recovered.value
        if abs(difference) > NEAR or min(one.forth.value, one.back.value) <= max(first.kl, second.kl, LEAST):
            continue
        alike.append(
            Unlike(
                f"{one.first} and {one.second} recover as much {found.metric} on the prompts of "
                f"{' and '.join(found.owners)}, and do different things",
                f"recovered {number(first.recovered.value)} and {number(second.recovered.value)}; KL "
                f"{number(min(one.forth.value, one.back.value))} nats from each other, {number(first.kl)} and "
                f"{number(second.kl)} from the model",
            )
        )
    return alike


def pairs_of(runs: CircuitRuns) -> tuple[tuple[str, str], ...]:
    """The circuits whose outputs are held against each other, two by two."""
    return tuple(combinations(runs.circuits, 2))
