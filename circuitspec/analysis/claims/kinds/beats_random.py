"""Claims that the circuit recovers more than random circuits of its size (Shi et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from circuitspec.analysis.claims.claim_kind import ClaimKind, figure, measure_head
from circuitspec.analysis.claims.claim_result import ClaimResult, Judgement, part_of
from circuitspec.analysis.statistics.wording import number
from circuitspec.engine.records import Records
from circuitspec.experiments.circuits.alike_features import Shares, alike_features, compared_prompts, has_features
from circuitspec.experiments.circuits.random_circuits import RandomCircuits, random_circuits
from circuitspec.experiments.circuits.subset_runs import refuse_parts
from circuitspec.experiments.experiment import Experiment, Source, Variant
from circuitspec.experiments.levels import node_level
from circuitspec.experiments.levels.whole_circuit import Whole
from circuitspec.experiments.planner import CLEAN, Measure, Plan, PlannedClaim, Planning
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.nodes import NodeComponent
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Feature
from circuitspec.hypothesis_file.schema.claims.beats_random_block import BeatsRandom
from circuitspec.hypothesis_file.yaml.source import Path_, SourceText

if TYPE_CHECKING:
    from circuitspec.analysis.claims.means_error import MeansError
    from circuitspec.analysis.statistics.scores import Gap
    from circuitspec.engine.attribution.feature_activity import FeatureActivity


@dataclass(frozen=True)
class Drawing:
    """What random circuits are drawn with once it is known how active features are; `positions` are the circuit's."""

    graph: CircuitGraph
    whole: Whole
    positions: Mapping[NodeComponent, Where]
    source: Source
    text: SourceText
    place: Path_


@dataclass(frozen=True)
class PlannedRivals(PlannedClaim):
    """The circuit's own run (`patched`), and those of random circuits, its `rivals`.

    Of a circuit of features these are drawn when the model is at hand (`drawing`, until then).
    """

    measure: Measure = "share beaten"
    rivals: RandomCircuits = field(kw_only=True)
    drawing: Drawing | None = field(default=None, kw_only=True)

    holds_means: ClassVar[bool] = True

    @property
    def more_runs(self) -> tuple[Experiment, ...]:
        return self.rivals.kept

    @property
    def drawn(self) -> tuple[Experiment, ...]:
        return self.rivals.kept

    @property
    def still_drawn(self) -> int:
        return 0 if self.drawing is None else self._of.circuits

    @property
    def wheres(self) -> tuple[Where, ...]:
        """The positions at which it is asked how active features are, before circuits are drawn."""
        if self.drawing is None:
            return ()
        return tuple(dict.fromkeys(w for c, w in self.drawing.positions.items() if isinstance(c, Feature)))

    @property
    def _of(self) -> BeatsRandom:
        assert isinstance(self.claim, BeatsRandom)
        return self.claim

    def with_rivals(self, shares: Shares) -> PlannedRivals:
        """With random circuits of features that are as active. Raises CS430 where there are too few."""
        assert self.drawing is not None
        own, claim = self.drawing, self._of
        alike = alike_features(own.graph, own.positions, shares)
        rivals = random_circuits(
            own.graph,
            own.whole,
            claim.circuits,
            claim.seed,
            own.text,
            own.place,
            knocked_out=False,
            alike=alike,
        )
        return replace(self, rivals=rivals, drawing=None)


class BeatsRandomClaims(ClaimKind[BeatsRandom, PlannedRivals]):
    """The share of random circuits that recover less, and a test that it is more than the claim says."""

    needs_circuit = True
    several = True
    prompts_decide = False  # more random circuits would
    has_sequence = False

    def plan(self, claim: BeatsRandom, planning: Planning) -> PlannedRivals:
        graph, whole, text = planning.graph, planning.whole, planning.text
        refuse_parts(claim, planning.index, graph, text)
        drawing: Drawing | None = None
        if has_features(graph):
            positions = node_level.circuit_positions(planning.ablation, graph)
            drawing = Drawing(graph, whole, positions, planning.source, text, planning.place)
            rivals = RandomCircuits((), ())
        else:
            rivals = random_circuits(graph, whole, claim.circuits, claim.seed, text, planning.place, knocked_out=False)
        planning.name_anchor(planning.anchor)
        planning.name(whole.circuit, "circuit")
        for i, run in enumerate(rivals.kept):
            planning.name(run, f"random circuit {i + 1}")
        anchor = planning.anchor
        return PlannedRivals(planning.index, claim, whole.circuit, CLEAN, anchor, rivals=rivals, drawing=drawing)

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
            f"{test.n} random circuits, {rivals.n_different} of them different: {_exchanged(rivals)}; all else is "
            "ablated as for the circuit itself, and scores are means over the same prompts",
        )
        own = f"p = {_p(test.p_value)}"
        return Judgement(part.status, part.reason, parts=(part,), found=own, notes=notes, n=records.n_prompts)

    def describe(self, planned: PlannedRivals) -> str:
        return f"the circuit and {len(planned.rivals.kept) or planned.still_drawn} random circuits"

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


def with_matched(plan: Plan, activity: Callable[[Sequence[Variant], Sequence[Where]], FeatureActivity]) -> Plan:
    """The plan with random circuits of features, drawn by how active features are on the prompts. Raises CS430."""
    waiting = [one for one in plan.claims if isinstance(one, PlannedRivals) and one.drawing is not None]
    sources = {one.drawing.source for one in waiting if one.drawing is not None}
    if not sources:
        return plan
    (source,) = sources  # a file has one ablation
    found = activity(compared_prompts(source), [where for one in waiting for where in one.wheres])
    drawn = {one.index: one.with_rivals(found.shares) for one in waiting}
    runs = [run for one in drawn.values() for run in one.rivals.kept]
    named = plan.naming({run: f"random circuit {number}" for number, run in enumerate(dict.fromkeys(runs), 1)})
    return replace(named, claims=tuple(drawn.get(one.index, one) for one in plan.claims))


def _exchanged(rivals: RandomCircuits) -> str:
    """What was exchanged for what."""
    if rivals.active is None:
        return "heads of each layer exchanged at random"
    own, others = (f"{100 * share:.3g} %" for share in rivals.active)
    return (
        f"features of each dictionary exchanged for features as active on these prompts, the circuit's at {own} of the "
        f"tokens at their positions, the others at {others}"
    )


def _p(value: float) -> str:
    return f"{value:.2g}"
