"""Claims that the circuit recovers more than random circuits of its size (Shi et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from circuitspec.analysis.claims.claim_kind import ClaimKind, figure, measure_head
from circuitspec.analysis.claims.claim_result import ClaimResult, Judgement, part_of
from circuitspec.analysis.statistics.wording import number
from circuitspec.engine.records import Records
from circuitspec.experiments.circuits.random_circuits import RandomCircuits, random_circuits
from circuitspec.experiments.circuits.subset_runs import refuse_parts
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.planner import CLEAN, Measure, PlannedClaim, Planning
from circuitspec.hypothesis_file.schema.claims.beats_random_block import BeatsRandom

if TYPE_CHECKING:
    from circuitspec.analysis.claims.means_error import MeansError
    from circuitspec.analysis.statistics.scores import Gap


@dataclass(frozen=True)
class PlannedRivals(PlannedClaim):
    """The circuit's own run (`patched`), and those of random circuits, its `rivals`."""

    measure: Measure = "share beaten"
    rivals: RandomCircuits = field(kw_only=True)

    holds_means: ClassVar[bool] = True

    @property
    def more_runs(self) -> tuple[Experiment, ...]:
        return self.rivals.kept

    @property
    def drawn(self) -> tuple[Experiment, ...]:
        return self.rivals.kept


class BeatsRandomClaims(ClaimKind[BeatsRandom, PlannedRivals]):
    """The share of random circuits that recover less, and a test that it is more than the claim says."""

    needs_circuit = True
    several = True
    prompts_decide = False  # more random circuits would

    def plan(self, claim: BeatsRandom, planning: Planning) -> PlannedRivals:
        graph, whole, text = planning.graph, planning.whole, planning.text
        refuse_parts(claim, planning.index, graph, text)
        rivals = random_circuits(graph, whole, claim.circuits, claim.seed, text, planning.place, knocked_out=False)
        planning.name_anchor(planning.anchor)
        planning.name(whole.circuit, "circuit")
        for i, run in enumerate(rivals.kept):
            planning.name(run, f"random circuit {i + 1}")
        return PlannedRivals(planning.index, claim, whole.circuit, CLEAN, planning.anchor, rivals=rivals)

    def decide(self, planned: PlannedRivals, records: Records, between: Gap, error: MeansError | None) -> Judgement:
        from circuitspec.analysis.claims.random_circuit_tests import beaten
        from circuitspec.analysis.statistics.out_of_range import run_out_of_range
        from circuitspec.analysis.statistics.scores import Anchors

        claim, rivals = planned.claim, planned.rivals
        assert isinstance(claim, BeatsRandom)
        ends = Anchors(planned.clean, planned.corrupt)
        found = beaten(records, claim.metric, planned.patched, rivals.kept, claim.quantile, claim.at_most_p, ends)
        part = part_of("random circuits", found.share, claim.quantile, None, "")
        if part.status == "INCONCLUSIVE":
            part = replace(part, reason=f"p = {_p(found.test.p_value)} is above {claim.at_most_p:g}")
        lost = [run for run in set(rivals.kept) if run_out_of_range(run, records, claim.metric, ends)]
        if lost:
            said = run_out_of_range(lost[0], records, claim.metric, ends)
            why = f"{len(lost)} of {rivals.n_different} random circuits say nothing, one of them {said}"
            part = replace(part, status="INCONCLUSIVE", reason=why)
        test = found.test
        notes = (
            f"null hypothesis: {test.null}; p = {_p(test.p_value)} (exact binomial test, claimed at most "
            f"{claim.at_most_p:g})",
            f"{test.n} random circuits, {rivals.n_different} of them different: heads of each layer exchanged at "
            "random; all else is ablated as for the circuit itself, and scores are means over the same prompts",
        )
        own = f"p = {_p(test.p_value)}"
        return Judgement(part.status, part.reason, parts=(part,), found=own, notes=notes, n=records.n_prompts)

    def describe(self, planned: PlannedRivals) -> str:
        return f"the circuit and {len(planned.rivals.kept)} random circuits"

    def measured(self, claim: ClaimResult) -> str:
        return f"share of random circuits beaten by {claim.metric}"

    def alike(self, claim: ClaimResult) -> bool:
        return bool(claim.parts)

    def said(self, claim: ClaimResult) -> str:
        return self.with_found(f"beats {figure(claim.parts[0])} of random circuits by {claim.metric}", claim)

    def rows(self, planned: PlannedRivals, claim: ClaimResult, records: Records) -> list[list[str]]:
        """One row: the circuit's mean among those of the random ones."""
        from circuitspec.analysis.statistics.scores import mean_of

        scores = sorted(mean_of(records[run][claim.metric]) for run in planned.rivals.kept)
        own = mean_of(records[planned.patched][claim.metric])
        cells = [number(value) for value in (own, scores[0], scores[len(scores) // 2], scores[-1])]
        head = [claim.metric, "circuit", "random: lowest", "median", "highest", measure_head(claim)]
        return [head, ["random circuits", *cells, figure(claim.parts[0])]]


def _p(value: float) -> str:
    return f"{value:.2g}"
