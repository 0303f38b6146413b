"""What follows from the runs made so far about a circuit's own parts, and what more is worth running.

Of components of large circuits, which are not ablated one by one, the screen's backward pass says to first order what
their loss should change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from circuitspec.analysis.circuit_effects.circuit_parts import CircuitParts
from circuitspec.analysis.circuit_effects.component_effects import Ablated, ExaminedPart, ablation_effects
from circuitspec.analysis.circuit_effects.negative_components import Estimates
from circuitspec.analysis.claims.registry import claims_sufficiency
from circuitspec.analysis.statistics import stats
from circuitspec.analysis.statistics.stats import Values
from circuitspec.engine.records import Records
from circuitspec.experiments.circuits.subset_runs import CutNode, EdgeCuts
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.planner import Plan
from circuitspec.graph.edges import is_writer

CALLED_NEGATIVE = 0.05  # of clean - corrupt: what ablating parts must bring for them to be called negative
NEGATIVES_OUT = "negatives inside taken out"
ESTIMATED_OUT = "those that should hurt by estimate taken out"


@dataclass
class Known:
    """What follows from what was run so far."""

    plan: Plan
    records: Records
    parts: CircuitParts
    metric: str

    def first(self, screen: Estimates | None) -> dict[Experiment, str]:
        """What is run before anything is known, with labels."""
        everything = (*self.parts.components, *self.parts.ablated)  # a group of one component is called by its own name
        labels = {self.parts.without(part): f"{part.name} ablated" for part in everything}
        if not self.has_sets:
            return labels
        if self.negative_groups:
            labels[self.circuit_without(*self.negative_groups)] = f"circuit, {NEGATIVES_OUT}"
        doubtful = self.worth_running(self.estimated(screen))
        if doubtful:
            labels[self.circuit_without(*doubtful)] = f"circuit, {ESTIMATED_OUT}"
            labels[self.parts.without(*doubtful)] = f"{ESTIMATED_OUT.removesuffix(' taken out')} ablated"
        return labels

    @property
    def negative_groups(self) -> tuple[ExaminedPart, ...]:
        """Where components are not taken one by one, the groups that are taken out as negative: those declared so."""
        return () if self.parts.thorough else tuple(p for p in self.parts.groups if p.declared == "negative")

    @staticmethod
    def worth_running(estimated: Sequence[Ablated]) -> tuple[ExaminedPart, ...]:
        """The components that should hurt by estimate, if all together should by much."""
        doubtful = [one for one in estimated if one.is_doubtful]
        return (
            tuple(one.part for one in doubtful) if sum(one.drop.value for one in doubtful) <= -CALLED_NEGATIVE else ()
        )

    @property
    def clean(self) -> Values:
        return self.records[self.plan.clean][self.metric]

    @property
    def anchor(self) -> Values:
        return self.records[self.plan.corrupt][self.metric]

    def estimated(self, screen: Estimates | None) -> tuple[Ablated, ...]:
        """The components that are not taken one by one, ablated in the circuit alone, to first order."""
        circuit = self.plan.circuit
        untaken = [part for part in self.parts.members if part not in self.parts.components]
        if screen is None or screen.metric != self.metric or not untaken:
            return ()
        alone = self.records[circuit][self.metric]
        if stats.mean_difference(alone, self.anchor).may_be(0.0):
            return ()
        changes = {part: sum(screen.effects[c] for c in self.parts.section(part)) for part in untaken}
        runs = {part: alone + change for part, change in changes.items()}
        return ablation_effects(runs, alone, self.anchor, whole=self.clean - self.anchor)

    def circuit_without(self, *parts: ExaminedPart) -> Experiment:
        """The circuit alone without these parts: at edge level, without the edges that leave them where they act."""
        edges, circuit = self.plan.edges, self.plan.circuit
        if circuit.level == "node" or edges is None:
            return self.parts.within(circuit, *parts)
        graph = self.parts.graph
        cuts = EdgeCuts((), self.parts.source, edges.kept, graph.shape, graph.measured)
        sections = [(part, self.parts.section(part)) for part in parts]
        return cuts.circuit_without(
            CutNode(component, where, part.name)
            for part, section in sections
            for component, where in section.items()
            if is_writer(component)
        )

    @property
    def has_sets(self) -> bool:
        circuit = self.plan.circuit
        return bool(claims_sufficiency(self.plan)) and circuit.level != "path" and circuit.source is not None
