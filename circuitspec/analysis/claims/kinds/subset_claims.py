"""Claims about subsets of the circuit: completeness and minimality (Wang et al. 2022, section 4).

Subsets are searched for on one half of the prompts, and every figure comes from the other.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, TypeVar

from circuitspec.analysis.claims.claim_kind import ClaimKind, Searched
from circuitspec.analysis.claims.claim_result import MIN_PROMPTS, ClaimPart, ClaimResult, Judgement, part_of, too_few
from circuitspec.analysis.statistics.wording import number, plural
from circuitspec.engine.records import Records, RunsExperiments
from circuitspec.experiments.circuits.subset_runs import Cuts, Trials, cuts_of, refuse_parts
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.levels import node_level
from circuitspec.experiments.planner import CLEAN, Measure, PlannedClaim, Planning
from circuitspec.hypothesis_file.schema.claim_block import ClaimBlock

if TYPE_CHECKING:
    from circuitspec.analysis.claims.means_error import MeansError
    from circuitspec.analysis.claims.subset_search import Difference
    from circuitspec.analysis.statistics.scores import Gap

C = TypeVar("C", bound=ClaimBlock)


@dataclass(frozen=True)
class PlannedSubsets(PlannedClaim):
    """The subsets of the circuit that are tried; `patched` is the circuit's own run."""

    trials: Trials = field(kw_only=True)

    holds_means: ClassVar[bool] = True
    searches: ClassVar[bool] = True

    @property
    def more_runs(self) -> tuple[Experiment, ...]:
        return self.trials.runs

    @property
    def most_searched(self) -> int:
        return self.trials.most_runs


class SubsetClaims(ClaimKind[C, PlannedSubsets]):
    """What claims of completeness and minimality have in common."""

    needs_circuit = True
    several = True
    halves_prompts = True
    has_sequence = False
    measure: ClassVar[Measure]
    counted: ClassVar[str]
    """What there is a figure for: each subset, each node."""
    untried: ClassVar[str]
    """What is to be said of the subsets that were not tried."""

    @abstractmethod
    def trials(self, claim: C, cuts: Cuts) -> Trials:
        """The subsets that are known beforehand."""

    @abstractmethod
    def found(self, planned: PlannedSubsets, records: Records, runner: RunsExperiments) -> tuple[Trials, Records]:
        """The subsets that are judged, and their runs."""

    @abstractmethod
    def judged(self, claim: C, planned: PlannedSubsets, records: Records, n: int) -> Judgement:
        """What it comes to on the half of the prompts on which nothing was searched for."""

    def plan(self, claim: C, planning: Planning) -> PlannedSubsets:
        graph, whole, ablation = planning.graph, planning.whole, planning.ablation
        refuse_parts(claim, planning.index, graph, planning.text)
        kept = node_level.circuit_positions(ablation, graph)
        edges = None if whole.edges is None else whole.edges.kept
        trials = self.trials(claim, cuts_of(graph, planning.source, kept, edges, pinned=ablation.positions == "all"))
        planning.name_anchor(planning.anchor)
        planning.name(whole.circuit, "circuit")
        for run, label in trials.labels.items():
            planning.name(run, label)
        ends = (CLEAN, planning.anchor)
        return PlannedSubsets(planning.index, claim, whole.circuit, *ends, self.measure, trials=trials)

    def search(self, planned: PlannedSubsets, records: Records, runner: RunsExperiments) -> Searched[PlannedSubsets]:
        from circuitspec.analysis.statistics.scores import Anchors, gap

        if planned.trials.settled:
            return Searched(planned, {}, records)
        if gap(records, planned.claim.metric, Anchors(planned.clean, planned.corrupt)).state == "zero":
            found, measured = _first_of_each(planned.trials), records
        else:
            found, measured = self.found(planned, records, runner)
        return Searched(replace(planned, trials=found), found.labels, measured)

    def decide(self, planned: PlannedSubsets, records: Records, between: Gap, error: MeansError | None) -> Judgement:
        from circuitspec.analysis.statistics.scores import Anchors, gap
        from circuitspec.analysis.statistics.split_sample import halves

        divided = halves(records.templates)
        n = divided.n_judge
        if n < MIN_PROMPTS:
            also = f"the other {divided.n_search} are searched on, so that the file needs {2 * MIN_PROMPTS}"
            return Judgement("INCONCLUSIVE", f"{too_few(n)}: {also}", n=n)
        ends = (planned.clean, planned.corrupt)
        judged = {run: {m: v[divided.judge] for m, v in records[run].items()} for run in ends}
        own = gap(Records(judged, records.templates[divided.judge]), planned.claim.metric, Anchors(*ends))
        if own.state != "sound":
            said = f"the clean and corrupt runs do not differ on the {n} prompts that are judged on"
            return Judgement("INCONCLUSIVE", said, n=n)
        return self.judged(planned.claim, planned, records, n)  # type: ignore[arg-type]

    def alike(self, claim: ClaimResult) -> bool:
        return bool(claim.parts)

    def notes(self, planned: PlannedSubsets, records: Records, count: int) -> tuple[str, ...]:
        """How it was judged."""
        from circuitspec.analysis.claims.subset_search import ALPHA
        from circuitspec.analysis.statistics.split_sample import halves
        from circuitspec.analysis.statistics.stats import LEVEL

        divided, search = halves(records.templates), planned.trials.search
        tried = [f"{search.random} random"] if search.random else []
        tried = ["each group", *tried] if search.groups else tried
        if search.greedy:
            tried.append(f"greedily, up to {search.greedy} nodes one by one, {search.candidates} tried at a time")
        return (
            f"subsets were searched for ({', '.join(tried) or 'none'}) on {plural(divided.n_search, 'prompt')} and "
            f"judged on the other {divided.n_judge}, from which all figures come: the worst of many looks worse than "
            "it is",
            f"each interval is at {LEVEL:.0%} by itself; the claim holds if all lie inside the bound, and a "
            f"{self.counted} refutes it only with an interval widened for all {count} (Bonferroni, "
            f"{1 - ALPHA / count:.2%})",
            self.untried,
        )


def subset_part(one: Difference, planned: PlannedSubsets, records: Records, tests: int) -> ClaimPart:
    """The figure of one subset or node, of so many."""
    from circuitspec.analysis.claims.many_run_claims import confirmed
    from circuitspec.analysis.claims.subset_search import corrected
    from circuitspec.analysis.statistics.out_of_range import run_out_of_range
    from circuitspec.analysis.statistics.scores import Anchors

    part = part_of(one.name, one.size, planned.claim.at_least, planned.claim.at_most, "")
    part = replace(part, nodes=one.taken, means=(one.before, one.after))
    anchors = Anchors(planned.clean, planned.corrupt)
    for run in one.runs:
        if outside := run_out_of_range(run, records, planned.claim.metric, anchors):
            return replace(part, status="INCONCLUSIVE", reason=outside)
    return confirmed(part, tests, partial(corrected, planned, records, one, tests))


def part_means(part: ClaimPart) -> list[str]:
    """The means that a figure compares, as cells."""
    return [number(value) for value in part.means]


def _first_of_each(trials: Trials) -> Trials:
    first = {one.node: one for one in reversed(trials.removals)}
    return replace(trials, removals=tuple(reversed(first.values())), settled=True)
