"""A comparison as a value: the circuits, what every two of them share, and what they were measured to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from circuitspec.comparison.compared_circuits import ComparedCircuit
from circuitspec.comparison.measured_circuits import MeasuredCircuits
from circuitspec.comparison.shared_parts import SharedParts, shared_parts


@dataclass(frozen=True)
class CircuitFacts:
    """What is said of one circuit: its size, what is free beside it, and how its file ablates the rest."""

    letter: str
    name: str
    file: str
    model: str
    nodes: int
    groups: int
    edges: int
    free: int
    ablation: str


@dataclass(frozen=True)
class CircuitComparison:
    """Circuits of one model, or of models of one shape (`one_model` says which), two by two."""

    circuits: tuple[CircuitFacts, ...]
    one_model: bool
    pairs: tuple[SharedParts, ...]
    measured: MeasuredCircuits | None = None  # None where nothing was run


def compared(
    circuits: Sequence[ComparedCircuit], *, one_model: bool, measured: MeasuredCircuits | None = None
) -> CircuitComparison:
    """What every two circuits share, and what they were `measured` to do, if they were."""
    return CircuitComparison(
        tuple(_facts(one) for one in circuits),
        one_model,
        tuple(shared_parts(*pair) for pair in combinations(circuits, 2)),
        measured,
    )


def _facts(one: ComparedCircuit) -> CircuitFacts:
    hypothesis = one.document.hypothesis
    ablation = hypothesis.ablation
    source = f" from {ablation.source}" if ablation.source else ""
    return CircuitFacts(
        one.letter,
        one.name,
        one.file,
        hypothesis.model.id,
        len(one.kept),
        len(hypothesis.circuit.groups),
        len({(edge.sender, edge.receiver) for edge in one.edges}),
        len(one.graph.free),
        f"{ablation.level} level, {ablation.value}{source}, {ablation.positions} positions",
    )
