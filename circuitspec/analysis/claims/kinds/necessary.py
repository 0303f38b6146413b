"""Claims that the task is not done without the circuit."""

from __future__ import annotations

from circuitspec.analysis.claims.kinds.bases.circuit_claims import CircuitClaims, PlannedOfCircuit
from circuitspec.experiments.planner import Planning
from circuitspec.hypothesis_file.schema.claims.necessary_block import Necessary


class NecessaryClaims(CircuitClaims[Necessary]):
    """The circuit is ablated, and little of the behaviour is left."""

    knocks_out = True
    patched = "circuit"

    def plan(self, claim: Necessary, planning: Planning) -> PlannedOfCircuit:
        return self.planned(claim, planning.whole.knocked_out, "circuit ablated", planning)

    def patched_set(self, claim: Necessary) -> str:
        return "the circuit"
