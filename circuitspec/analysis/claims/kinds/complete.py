"""Claims that nothing is missing: without any subset K, the circuit scores like the model without K."""

from __future__ import annotations

from circuitspec.analysis.claims.claim_kind import Cloud, Dot, figure, measure_head
from circuitspec.analysis.claims.claim_result import ClaimPart, ClaimResult, Judgement, together
from circuitspec.analysis.claims.kinds.subset_claims import PlannedSubsets, SubsetClaims, part_means, subset_part
from circuitspec.analysis.statistics.wording import number, plural
from circuitspec.engine.records import Records, RunsExperiments
from circuitspec.experiments.circuits.subset_runs import Cuts, Trials, complete_trials
from circuitspec.hypothesis_file.schema.claims.complete_block import Complete

_NAMED = 6  # nodes of a subset in a table; all of them are in the JSON
_KINDS = ("group, all, nothing", "random", "greedy")


class CompleteClaims(SubsetClaims[Complete]):
    """Incompleteness is |F(circuit without K) - F(model without K)| as a share of what lies between the anchors."""

    measure = "incompleteness"
    counted = "subset"
    untried = "not every subset can be tried: others may be worse"

    def trials(self, claim: Complete, cuts: Cuts) -> Trials:
        return complete_trials(cuts, claim.subsets)

    def found(self, planned: PlannedSubsets, records: Records, runner: RunsExperiments) -> tuple[Trials, Records]:
        from circuitspec.analysis.claims.subset_search import with_worst

        return with_worst(planned.trials, planned.claim.metric, runner, records)

    def judged(self, claim: Complete, planned: PlannedSubsets, records: Records, n: int) -> Judgement:
        from circuitspec.analysis.claims.many_run_claims import listed
        from circuitspec.analysis.claims.subset_search import incompleteness
        from circuitspec.analysis.statistics.scores import MATERIAL

        found = incompleteness(planned, planned.trials.subsets, records)
        parts = tuple(subset_part(one, planned, records, len(found)) for one in found)
        worst = found[0]
        kept = "more" if worst.signed.value > 0 else "less"
        said = f"without {listed(worst.taken) if worst.drawn else worst.name}"
        said += f": the circuit keeps {kept} than the model" if worst.size.value >= MATERIAL else ""
        notes = self.notes(planned, records, len(found))
        return Judgement(*together(parts, n), parts=parts, found=said, notes=notes, n=n)

    def describe(self, planned: PlannedSubsets) -> str:
        return "circuit and model without subsets of the circuit"

    def measured(self, claim: ClaimResult) -> str:
        return f"incompleteness by {claim.metric}"

    def said(self, claim: ClaimResult) -> str:
        """`incompleteness by logit_diff 0.31 [0.25, 0.37], the worst of 19 subsets (...)`."""
        worst = f"{figure(claim.parts[0])}, the worst of {plural(len(claim.parts), 'subset')}"
        return self.with_found(f"{self.measured(claim)} {worst}", claim)

    def rows(self, planned: PlannedSubsets, claim: ClaimResult, records: Records) -> list[list[str]]:
        head = ["K taken out", f"{claim.metric}: model less K", "circuit less K", measure_head(claim)]
        return [head, *([_subset(part), *part_means(part), figure(part)] for part in claim.parts)]

    def picture(self, claim: ClaimResult) -> Cloud | None:
        """F(C without K) over F(M without K); the first part is the worst."""
        if not claim.parts:
            return None
        dots = tuple(Dot(_kind(part), *part.means) for part in claim.parts)
        worst = claim.parts[0]
        model, circuit = worst.means
        said = f"the worst, {worst.name}, has {number(model)} in the model and {number(circuit)} in the circuit"
        note = (
            "A mark is a subset K of the circuit, taken out of both; on the diagonal the circuit does as the model does"
        )
        return Cloud(
            title=f"Claim {claim.index + 1}, complete: circuit and model without K",
            across=f"{claim.metric}: model without K",
            upward=f"{claim.metric}: circuit without K",
            diagonal="circuit = model",
            kinds=_KINDS,
            dots=dots,
            named=f"worst: {worst.name}",
            named_at=(model, circuit),
            alt=f"{claim.metric} of the circuit without K over that of the model without K, for "
            f"{plural(len(claim.parts), 'subset')} K; {said}. Complete is what lies on the diagonal.",
            note=f"{note}. Ringed: {said}.",
        )


def _subset(part: ClaimPart) -> str:
    return f"{part.name}: {_shortened(part.nodes)}" if part.nodes and _kind(part) != _KINDS[0] else part.name


def _kind(part: ClaimPart) -> str:
    if part.name.startswith("random "):
        return "random"
    return "greedy" if part.name == "greedy" else _KINDS[0]


def _shortened(names: tuple[str, ...]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
