"""Claims that the circuit alone does the task."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from circuitspec.analysis.claims.kinds.bases.circuit_claims import CircuitClaims, PlannedOfCircuit
from circuitspec.diagnostics.diagnostic import Diagnostic
from circuitspec.experiments.levels.node_level import without_outside
from circuitspec.experiments.planner import Planning, sources_in_words
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.hypothesis_file.schema.blocks import AblationSpec
from circuitspec.hypothesis_file.schema.claims.sufficient_block import Sufficient
from circuitspec.hypothesis_file.yaml.source import Path_, SourceText


class SufficientClaims(CircuitClaims[Sufficient]):
    """Everything outside the circuit is ablated, and what is left recovers the behaviour."""

    claims_sufficiency = True
    patched = "complement"
    nothing_patched = "the declared circuit and the free components leave nothing to ablate"

    def refused(
        self, claim: Sufficient, place: Path_, ablation: AblationSpec, graph: CircuitGraph, text: SourceText
    ) -> Iterable[Diagnostic]:
        """CS224: every member of the circuit must have an outside."""
        return without_outside(graph, place, text) if ablation.level == "node" else ()

    def plan(self, claim: Sufficient, planning: Planning) -> PlannedOfCircuit:
        run = planning.whole.circuit
        if claim.sources is None:
            return self.planned(claim, run, "circuit", planning)
        sourced = replace(run, readings=planning.with_sources(run.readings, claim.sources))
        return self.planned(claim, sourced, f"circuit, {sources_in_words(claim.sources)}", planning)

    def patched_set(self, claim: Sufficient) -> str:
        return "everything outside the circuit"
