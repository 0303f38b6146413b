"""Claims that nothing is idle: every node makes a difference without some subset K of the rest."""

from __future__ import annotations

from dataclasses import replace

from circuitspec.analysis.claims.claim_kind import Bars, figure, measure_head
from circuitspec.analysis.claims.claim_result import ClaimPart, ClaimResult, Judgement, together
from circuitspec.analysis.claims.kinds.subset_claims import PlannedSubsets, SubsetClaims, part_means, subset_part
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.wording import plural
from circuitspec.engine.records import Records, RunsExperiments
from circuitspec.experiments.circuits.subset_runs import Cuts, Trials, minimal_trials
from circuitspec.hypothesis_file.schema.claims.minimal_block import Minimal

_MOST_NODES = 40  # of a picture; all are in the table


class MinimalClaims(SubsetClaims[Minimal]):
    """The effect of a node v is |F(circuit without K and v) - F(circuit without K)|, as a share of the anchors' gap."""

    measure = "effect"
    counted = "node"
    untried = "a node without effect may have one under a subset that was not tried"

    def trials(self, claim: Minimal, cuts: Cuts) -> Trials:
        return minimal_trials(cuts, claim.subsets)

    def found(self, planned: PlannedSubsets, records: Records, runner: RunsExperiments) -> tuple[Trials, Records]:
        from circuitspec.analysis.claims.subset_search import NodeSearch

        metric = planned.claim.metric
        scale = records[planned.clean][metric] - records[planned.corrupt][metric]
        assert isinstance(planned.claim, Minimal)
        return NodeSearch(planned.trials, metric, planned.claim.at_least, scale, runner, records).settle()

    def judged(self, claim: Minimal, planned: PlannedSubsets, records: Records, n: int) -> Judgement:
        from circuitspec.analysis.claims.many_run_claims import listed
        from circuitspec.analysis.claims.subset_search import effects

        found = effects(planned, planned.trials.removals, records)
        names = {one.node.name: one.name for one in planned.trials.removals}
        parts = []
        for one in found:
            part = subset_part(one, planned, records, len(found))
            parts.append(replace(part, note=f"without {listed(one.taken) if one.drawn else names[one.name]}"))
        weakest = min(found, key=lambda one: one.size.value)
        said = f"{weakest.name} {parts[found.index(weakest)].note}"
        notes = self.notes(planned, records, len(found))
        return Judgement(*together(tuple(parts), n), parts=tuple(parts), found=said, notes=notes, n=n)

    def describe(self, planned: PlannedSubsets) -> str:
        return "the circuit without each of its nodes and a subset"

    def measured(self, claim: ClaimResult) -> str:
        return f"effect on {claim.metric}"

    def said(self, claim: ClaimResult) -> str:
        """`effect on logit_diff 0.02 [0.01, 0.03], the smallest of 12 nodes (...)`."""
        main = self.main_estimate(claim)
        least = next((part for part in claim.parts if part.estimate == main), claim.parts[0])
        smallest = f"{figure(least)}, the smallest of {plural(len(claim.parts), 'node')}"
        return self.with_found(f"{self.measured(claim)} {smallest}", claim)

    def main_estimate(self, claim: ClaimResult) -> Estimate | None:
        """The weakest node's."""
        return min(_known(claim), key=lambda estimate: estimate.value, default=None)

    def rows(self, planned: PlannedSubsets, claim: ClaimResult, records: Records) -> list[list[str]]:
        head = ["node v", f"{claim.metric}: circuit less K", "less K and v", measure_head(claim)]
        return [head, *([_of(part), *part_means(part), figure(part)] for part in claim.parts)]

    def picture(self, claim: ClaimResult) -> Bars | None:
        """What each node adds, the weakest first."""
        known = sorted(
            (part for part in claim.parts if part.estimate is not None),
            key=lambda part: part.estimate.value if part.estimate is not None else 0.0,
        )
        if not known:
            return None
        shown = tuple(known[:_MOST_NODES])
        note = "Without the K that shows most of it; the weakest first, shaded what the claim asks of every node."
        if len(shown) < len(claim.parts):
            note += f" {len(shown)} of {plural(len(claim.parts), 'node')}; all are in the table."
        return Bars(
            title=f"Claim {claim.index + 1}, minimal: what each node adds",
            series="nodes",
            quantity=f"effect on {claim.metric} (share of clean - corrupt)",
            parts=shown,
            note=note,
        )


def _known(claim: ClaimResult) -> list[Estimate]:
    return [part.estimate for part in claim.parts if part.estimate is not None]


def _of(part: ClaimPart) -> str:
    return f"{part.name}, K: {part.note.removeprefix('without ')}"
