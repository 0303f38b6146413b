"""Random circuits of the same size and layer profile as the hypothesis's, and their runs (Shi et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from circuitspec.diagnostics import CircuitspecError, Diagnostic
from circuitspec.graph.circuit import CircuitGraph
from circuitspec.graph.nodes import Place
from circuitspec.graph.relabel import enlarged, shuffled
from circuitspec.plan.experiment import Experiment
from circuitspec.plan.whole import Whole
from circuitspec.spec.source import Source as SourceText

_TRIES = 100  # draws in which something other than the circuit itself must come up


@dataclass(frozen=True)
class RandomCircuits:
    """Random circuits, as often as they were drawn: each kept alone, and each knocked out of the model."""

    kept: tuple[Experiment, ...]
    knocked_out: tuple[Experiment, ...]

    @property
    def n_different(self) -> int:
        return len(set(self.kept))


def random_circuits(
    graph: CircuitGraph,
    whole_of: Callable[[CircuitGraph], Whole],
    count: int,
    seed: int,
    text: SourceText,
    place: Place,
) -> RandomCircuits:
    """Independent draws from all circuits with the same components of each layer exchanged, but for the circuit itself.

    Raises CS430 where there are hardly any: the circuit has all heads of its layers, or only MLPs.
    """
    own, dice = whole_of(graph), Random(seed)
    pairs: list[tuple[Experiment, Experiment]] = []
    for drawn in _others(graph, own, whole_of, dice):
        if drawn is None:
            raise CircuitspecError(
                Diagnostic(
                    "CS430",
                    "there are no random circuits to compare with: heads exchanged within layers give the same circuit",
                    text.span(place),
                    hint="the circuit leaves out no head of its layers: claim `minimal` instead",
                )
            )
        pairs.append((drawn.circuit, drawn.knocked_out))
        if len(pairs) == count:
            break
    return RandomCircuits(tuple(kept for kept, _ in pairs), tuple(out for _, out in pairs))


def _others(
    graph: CircuitGraph, own: Whole, whole_of: Callable[[CircuitGraph], Whole], dice: Random
) -> Iterator[Whole | None]:
    """Circuits other than the own one, one after the other; None where none turns up."""
    while True:
        for _ in range(_TRIES):
            drawn = whole_of(shuffled(graph, dice, whole_groups=own.edges is not None))
            if drawn.circuit != own.circuit:
                yield drawn
                break
        else:
            yield None


def enlarged_circuits(
    graph: CircuitGraph, whole_of: Callable[[CircuitGraph], Whole], count: int, seed: int
) -> tuple[Experiment, ...]:
    """Runs of the circuit with a random component more, in the role of one of its nodes of the same layer.

    None where no layer of the circuit has a component outside of it.
    """
    dice = Random(seed)
    graphs = (enlarged(graph, dice) for _ in range(count))
    return tuple(whole_of(larger).circuit for larger in graphs if larger is not None)
