"""Claims about how one part acts on another: through a third alone, or directly as well."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from circuitspec.analysis.claims.claim_kind import INVERTED, NOT_APART
from circuitspec.analysis.claims.claim_result import ClaimResult, Judgement
from circuitspec.analysis.claims.kinds.bases.path_claims import PathPatching
from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.records import Records
from circuitspec.experiments.experiment import CLEAN_VALUES, Experiment
from circuitspec.experiments.levels import path_level
from circuitspec.experiments.planner import CLEAN, Measure, PlannedClaim, Planning, passing_label
from circuitspec.graph.edge_circuit import hopless
from circuitspec.graph.paths import DeclaredPath
from circuitspec.hypothesis_file.schema.claim_block import OfPath
from circuitspec.hypothesis_file.schema.claims.mediation_block import Mediation

if TYPE_CHECKING:
    from circuitspec.analysis.claims.means_error import MeansError
    from circuitspec.analysis.statistics.scores import Gap


@dataclass(frozen=True)
class PlannedMediation(PlannedClaim):
    """The direct path patched, against the run with both paths patched, which is its far anchor.

    A share says something only of an effect that is part of what breaks the behaviour as a whole: `broken` is the run
    with everything ablated, or on the corrupt prompts. Of `paths` the direct one comes first.
    """

    measure: Measure = "direct share"
    broken: Experiment = field(kw_only=True)

    between_behaviours: ClassVar[bool] = False

    @property
    def more_runs(self) -> tuple[Experiment, ...]:
        return (self.broken,)

    @property
    def falls(self) -> bool:
        return self.patched.base == "clean"

    @property
    def behaviour(self) -> tuple[Experiment, Experiment]:
        return CLEAN, self.broken

    def dead_hops(self, number: int, found: list[Diagnostic]) -> list[Diagnostic]:
        assert isinstance(self.claim, OfPath)
        return [_without_direct(problem, *_ends(self.claim.of)) for problem in found] if number == 0 else found


class MediationClaims(PathPatching[Mediation, PlannedMediation]):
    """The effect of patching A -> C, as a share of that of patching A -> C and A -> B -> C together."""

    def plan(self, claim: Mediation, planning: Planning) -> PlannedMediation:
        place = (*planning.place, "of")
        mediated = planning.read(claim.of, place)
        start, _, end = mediated.hops
        direct = DeclaredPath(claim.of, place, (start, end))
        first, last = _ends(claim.of)
        if problems := hopless(direct, planning.graph.shape, planning.text):
            raise CircuitspecError(*(_without_direct(problem, first, last) for problem in problems))
        noising = claim.direction == "noising"
        base = "clean" if noising else planning.corrupt()
        values = planning.source if noising else CLEAN_VALUES
        through = self.through(claim, planning)

        def run(*paths: DeclaredPath) -> Experiment:
            readings = path_level.along(paths, planning.graph.shape, planning.text)
            return path_level.travelling(base, values, readings, [mediated], through=through)

        alone, both = run(direct), run(direct, mediated)
        done = ("noised" if noising else "denoised") + passing_label(through)
        broken = planning.anchor if noising else Experiment(base)
        planning.name_anchor(broken)
        planning.name(alone, f"{first} -> {last} (not {claim.of}) {done}")
        planning.name(both, f"{first} -> {last} and {claim.of} {done}")
        anchors = (CLEAN, both) if noising else (both, broken)
        return PlannedMediation(planning.index, claim, alone, *anchors, broken=broken, paths=(direct, mediated))

    def no_ratio(self, planned: PlannedMediation, records: Records, between: Gap) -> str:
        """Where nothing is broken, paths could take no share of it; of an effect that improves the metric they can."""
        from circuitspec.analysis.statistics.scores import Anchors, gap

        behaviour = gap(records, between.metric, Anchors(*planned.behaviour))
        if behaviour.state != "sound":
            return NOT_APART if behaviour.state == "zero" else INVERTED
        return "both paths together have no effect to take a share of" if between.state == "zero" else ""

    def decide(self, planned: PlannedMediation, records: Records, between: Gap, error: MeansError | None) -> Judgement:
        nothing = _next_to_nothing(planned, records, between)
        return Judgement("INCONCLUSIVE", nothing) if nothing else super().decide(planned, records, between, error)

    def patched_set(self, claim: Mediation) -> str:
        first, last = _ends(claim.of)
        return f"{first} -> {last}, beside {claim.of}"

    def measured(self, claim: ClaimResult) -> str:
        return f"direct share of the effect on {claim.metric}"


def _ends(path: str) -> tuple[str, str]:
    return path.partition(" -> ")[0], path.rpartition(" -> ")[2]


def _next_to_nothing(planned: PlannedMediation, records: Records, both: Gap) -> str:
    """Why no share is taken of the effect of both paths together: it is hardly any of what breaks the behaviour.

    KL falls off with the square and is never negative, so that its interval alone does not tell an effect from none.
    """
    from circuitspec.analysis.statistics.scores import MATERIAL, Anchors, gap

    whole = gap(records, both.metric, Anchors(*planned.behaviour)).difference.value
    if abs(both.difference.value) >= MATERIAL * abs(whole):
        return ""
    return (
        f"both paths together change {both.metric} by {both.difference.value:.2g}, next to nothing of the "
        f"{whole:.2g} by which all of it changes"
    )


def _without_direct(problem: Diagnostic, first: str, last: str) -> Diagnostic:
    """CS227 for a mediation whose direct path cannot exist, so that there is nothing to compare."""
    return replace(
        problem,
        message=f"mediation compares with the direct path {first} -> {last}, which cannot exist: {problem.message}",
        hint="that all goes through the middle then needs no claim: claim `path` of the whole path instead",
    )
