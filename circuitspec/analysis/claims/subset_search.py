"""Completeness and minimality (Wang et al. 2022, section 4): the search for telling subsets, and what they show.

The worst of many subsets looks worse than it is, and a node's best one better: so subsets are chosen on one half of the
prompts, and every figure that is reported comes from the other half (`halves`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from random import Random

import numpy as np
import scipy
from numpy.typing import NDArray

from circuitspec.analysis.statistics import stats
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.split_sample import halves
from circuitspec.engine.records import Records, RunsExperiments
from circuitspec.experiments.circuits.subset_runs import (
    CutNode,
    Nodes,
    Removal,
    Subset,
    Trials,
    drawn,
    other_groups,
    removal,
    some,
    subset,
)
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.planner import PlannedClaim

ALPHA = 1 - stats.LEVEL
_TAIL = 20  # resamples that should lie beyond the end of an interval

Half = NDArray[np.bool_]


@dataclass(frozen=True)
class Difference:
    """What taking something out does, as a share of clean - corrupt, over the prompts that are judged on.

    `signed` has the direction: of a subset, above zero where the circuit without it keeps more than the model without
    it; of a node, where taking it out raises the score. `before` and `after` are the means that are compared.
    """

    name: str
    taken: tuple[str, ...]  # K
    drawn: bool  # K, at random or by a search, so that only its nodes say what it is
    runs: tuple[Experiment, Experiment]  # before, after
    signed: Estimate
    before: float
    after: float

    @property
    def size(self) -> Estimate:
        return size_of(self.signed)


def size_of(signed: Estimate) -> Estimate:
    """The absolute value, with the interval of all absolute values that the signed interval holds."""
    if signed.low is None or signed.high is None:
        return replace(signed, value=abs(signed.value))
    ends = sorted((abs(signed.low), abs(signed.high)))
    low = 0.0 if signed.low <= 0 <= signed.high else ends[0]
    return replace(signed, value=abs(signed.value), low=low, high=ends[1])


# -- completeness -----------------------------------------------------------------------------------------------------


def with_worst(trials: Trials, metric: str, runner: RunsExperiments, records: Records) -> tuple[Trials, Records]:
    """The subsets, and the worst that a greedy search finds: it takes out node after node, each the worst it tries."""
    half = halves(records.templates).search
    search, cuts = trials.search, trials.cuts
    dice = Random(search.seed)
    taken: Nodes = ()
    worst, kept = -1.0, None
    for _ in range(min(search.greedy, len(cuts.nodes))):
        left = (node for node in cuts.nodes if node not in taken)
        tried = [subset(cuts, "greedy", (*taken, node), True) for node in some(left, search.candidates, dice)]
        measured = runner.run(run for one in tried for run in (one.circuit, one.model))
        worth = [abs(_mean(measured, one.circuit, one.model, metric, half)) for one in tried]
        top = int(np.argmax(worth))
        taken = tried[top].taken
        if worth[top] > worst:
            worst, kept = worth[top], (tried[top], measured)
    known = {frozenset(one.taken) for one in trials.subsets}
    if kept is None or frozenset(kept[0].taken) in known:
        return replace(trials, settled=True), records
    found, measured = kept
    chosen = Records({run: measured[run] for run in (found.circuit, found.model)}, records.templates)
    return replace(trials, subsets=(*trials.subsets, found), settled=True), chosen


def incompleteness(planned: PlannedClaim, subsets: Iterable[Subset], records: Records) -> tuple[Difference, ...]:
    """The difference between circuit and model without each subset, the worst by the other half of prompts first."""
    half, metric = halves(records.templates).search, planned.claim.metric

    def worth(one: Subset) -> float:
        return -abs(_mean(records, one.circuit, one.model, metric, half))

    ordered = sorted(subsets, key=worth)
    return tuple(_difference(planned, records, s.name, s, (s.model, s.circuit)) for s in ordered)


# -- minimality -------------------------------------------------------------------------------------------------------


@dataclass
class NodeSearch:
    """The search, node by node, for a subset K without which the node matters; cheap subsets come first.

    A node is done once its effect is surely at least the bound, by a t interval on the prompts searched on.
    """

    trials: Trials
    metric: str
    at_least: float
    scale: stats.Values  # clean - corrupt, [prompt]
    runner: RunsExperiments
    records: Records
    half: Half = field(init=False)
    tried: dict[CutNode, list[Removal]] = field(init=False)

    def __post_init__(self) -> None:
        self.half = halves(self.records.templates).search
        self.tried = {}
        for one in self.trials.removals:
            self.tried.setdefault(one.node, []).append(one)

    def settle(self) -> tuple[Trials, Records]:
        """The trials with one removal a node, and the runs that these take."""
        search, cuts = self.trials.search, self.trials.cuts
        if search.groups:
            self._try(
                removal(cuts, node, name, taken)
                for node in self._open()
                for name, taken in other_groups(cuts, node).items()
            )
        if search.random:
            subsets = drawn(cuts.nodes, search.random, search.seed)
            self._try(
                removal(cuts, node, f"random {i + 1}", tuple(other for other in taken if other != node), True)
                for node in self._open()
                for i, taken in enumerate(subsets)
            )
        self._grow()
        chosen = tuple(self._best(node) for node in cuts.nodes)
        kept = {run: self.records[run] for one in chosen for run in (one.before, one.after)}
        return replace(self.trials, removals=chosen, settled=True), Records(kept, self.records.templates)

    def _grow(self) -> None:
        """Add nodes to the best subset so far, each the one with which the node matters most."""
        search, cuts, dice = self.trials.search, self.trials.cuts, Random(self.trials.search.seed)
        current = {node: self._best(node) for node in self._open()}
        for _ in range(search.greedy):
            tried = []
            for node, so_far in current.items():
                left = (other for other in cuts.nodes if other != node and other not in so_far.taken)
                tried += [
                    removal(cuts, node, "greedy", (*so_far.taken, other), True)
                    for other in some(left, search.candidates, dice)
                ]
            if not tried:
                return
            self._try(tried)
            by_node: dict[CutNode, list[Removal]] = {}
            for one in tried:
                by_node.setdefault(one.node, []).append(one)
            still = set(self._open())
            current = {node: max(those, key=self._effect) for node, those in by_node.items() if node in still}

    def _try(self, removals: Iterable[Removal]) -> None:
        new = list(removals)
        if not new:
            return
        runs = dict.fromkeys(run for one in new for run in (one.before, one.after))
        self.records = self.records.merged(self.runner.run(run for run in runs if run not in self.records.values))
        for one in new:
            self.tried[one.node].append(one)

    def _open(self) -> list[CutNode]:
        """The nodes that do not surely matter yet."""
        return [node for node in self.trials.cuts.nodes if not self._matters(self._best(node))]

    def _best(self, node: CutNode) -> Removal:
        return max(self.tried[node], key=self._effect)

    def _effect(self, one: Removal) -> float:
        """How large the effect is at least; so a noisy one is not taken for a large one. Below 0 if it may be none."""
        differences = self.records[one.after][self.metric] - self.records[one.before][self.metric]
        stats.require_finite(differences, f"{self.metric} with {one.node.name} taken out")
        here, n = differences[self.half], int(self.half.sum())
        if n < 2:
            return 0.0
        error = float(here.std(ddof=1)) / n**0.5 * float(scipy.stats.t.ppf((1 + stats.LEVEL) / 2, n - 1))
        return float(abs(here.mean()) - error)

    def _matters(self, one: Removal) -> bool:
        return self._effect(one) >= self.at_least * abs(float(self.scale[self.half].mean()))


def effects(planned: PlannedClaim, removals: Iterable[Removal], records: Records) -> tuple[Difference, ...]:
    """What taking each node out does on top of its subset, in the order of the circuit."""
    return tuple(_difference(planned, records, one.node.name, one, (one.before, one.after)) for one in removals)


# -- both -------------------------------------------------------------------------------------------------------------


def widened(tests: int) -> tuple[float, int]:
    """The level of an interval for one of so many figures, and how many resamples it takes to know its ends."""
    return 1 - ALPHA / tests, max(stats.RESAMPLES, round(2 * _TAIL * tests / ALPHA))


def corrected(planned: PlannedClaim, records: Records, found: Difference, tests: int) -> Estimate:
    """The size of a difference with the interval widened for so many of them (Bonferroni)."""
    level, resamples = widened(tests)
    return size_of(_signed(planned, records, found.runs, level=level, resamples=resamples))


def _difference(
    planned: PlannedClaim, records: Records, name: str, of: Subset | Removal, runs: tuple[Experiment, Experiment]
) -> Difference:
    metric, half = planned.claim.metric, halves(records.templates).judge
    before, after = (float(records[run][metric][half].mean()) for run in runs)
    taken = tuple(node.name for node in of.taken)
    return Difference(name, taken, of.drawn, runs, _signed(planned, records, runs), before, after)


def _signed(
    planned: PlannedClaim,
    records: Records,
    runs: tuple[Experiment, Experiment],
    *,
    level: float = stats.LEVEL,
    resamples: int = stats.RESAMPLES,
) -> Estimate:
    """(after - before) / (clean - corrupt), a ratio of means over the prompts that are judged on."""
    half = halves(records.templates).judge
    before, after, clean, corrupt = (
        records[run][planned.claim.metric][half] for run in (*runs, planned.clean, planned.corrupt)
    )
    return stats.recovered(after, before, before + clean - corrupt, level=level, resamples=resamples)


def _mean(records: Records, one: Experiment, other: Experiment, metric: str, half: Half) -> float:
    """The mean difference over these prompts. Raises CS511 for values that are not finite."""
    differences = records[one][metric] - records[other][metric]
    stats.require_finite(differences, f"{metric} with a subset taken out")
    return float(differences[half].mean()) if half.any() else 0.0
