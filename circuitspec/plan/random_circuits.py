"""Random circuits of the same size and layer profile as the hypothesis's, and their runs (Shi et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from random import Random
from typing import TypeVar

from circuitspec.diagnostics import CircuitspecError, Diagnostic
from circuitspec.graph.circuit import CircuitGraph
from circuitspec.graph.edge_circuit import Kept
from circuitspec.graph.edges import Receiver
from circuitspec.graph.nodes import Place
from circuitspec.graph.relabel import Exchange, enlarged, exchange
from circuitspec.plan import edge_level
from circuitspec.plan.experiment import Experiment, Reading, Sent, Site
from circuitspec.plan.whole import Whole
from circuitspec.spec.components import Component
from circuitspec.spec.source import Source as SourceText

_C = TypeVar("_C", bound=Component)
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
    graph: CircuitGraph, own: Whole, count: int, seed: int, text: SourceText, place: Place
) -> RandomCircuits:
    """Independent draws from all circuits with the same components of each layer exchanged, but for the circuit itself.

    Raises CS430 where there are hardly any: the circuit has all heads of its layers, or only MLPs.
    """
    dice, edges = Random(seed), own.edges is not None
    pairs: list[tuple[Experiment, Experiment]] = []
    in_vain = 0
    while len(pairs) < count:
        of = exchange(graph, dice, whole_groups=edges)
        drawn, without = _drawn(graph, own, of)
        if drawn != own.circuit:
            pairs.append((drawn, without))
            in_vain = 0
            continue
        in_vain += 1
        if in_vain == _TRIES:
            raise CircuitspecError(
                Diagnostic(
                    "CS430",
                    "there are no random circuits to compare with: heads exchanged within layers give the same circuit",
                    text.span(place),
                    hint="the circuit leaves out no head of its layers: claim `minimal` instead",
                )
            )
    return RandomCircuits(tuple(kept for kept, _ in pairs), tuple(out for _, out in pairs))


def _drawn(graph: CircuitGraph, own: Whole, of: Exchange) -> tuple[Experiment, Experiment]:
    """The circuit of the components that take the places of its own: kept alone, and knocked out."""
    source = own.circuit.source
    if own.circuit.level != "edge" or own.edges is None or source is None or not graph.measured:
        return exchanged(own.circuit, of), exchanged(own.knocked_out, of)
    # heads inside which something is measured stay where they are, and so do the receivers that this depends on
    kept, declared = (_edges_in_place(edges, of) for edges in (own.edges.kept, own.edges.declared))
    return (
        edge_level.keeping(kept, source, graph.shape, graph.measured),
        edge_level.ablating(declared, source, graph.shape, graph.measured),
    )


def _edges_in_place(edges: Kept, of: Exchange) -> Kept:
    return {
        _receiver_in_place(receiver, of): {_in_place(sender, of): where for sender, where in by_sender.items()}
        for receiver, by_sender in edges.items()
    }


def exchanged(experiment: Experiment, of: Exchange) -> Experiment:
    """The same experiment on the components that take the places of its own.

    Components change places within layers, so that what comes before what stays as it is.
    """
    sites = frozenset(Site(_in_place(site.component, of), site.where) for site in experiment.sites)
    sets: dict[frozenset[Sent], frozenset[Sent]] = {}  # edges of thousands of receivers share a few of them
    known: dict[Reading, Reading] = {}

    def sent(senders: frozenset[Sent]) -> frozenset[Sent]:
        if senders not in sets:
            sets[senders] = frozenset(
                Sent(_in_place(one.component, of), one.where, frozenset(map(read, one.inputs))) for one in senders
            )
        return sets[senders]

    def read(reading: Reading) -> Reading:
        if reading not in known:
            receiver = _receiver_in_place(reading.receiver, of)
            head = None if reading.head is None else _in_place(reading.head, of)
            known[reading] = replace(reading, receiver=receiver, senders=sent(reading.senders), head=head)
        return known[reading]

    return replace(experiment, sites=sites, readings=frozenset(map(read, experiment.readings)))


def _receiver_in_place(receiver: Receiver, of: Exchange) -> Receiver:
    return replace(receiver, component=_in_place(receiver.component, of))


def _in_place(component: _C, of: Exchange) -> _C:
    found = of.get(component, component)
    assert isinstance(found, type(component))
    return found


def enlarged_circuits(
    graph: CircuitGraph,
    run_of: Callable[[CircuitGraph], Experiment],
    count: int,
    seed: int,
    inside: Collection[Component] = (),
) -> tuple[Experiment, ...]:
    """Runs of the circuit with a random component more, in the role of one of its nodes of the same layer.

    None where no layer of the circuit has a component outside of it; `inside` are those in it beside its groups'.
    """
    dice = Random(seed)
    graphs = (enlarged(graph, dice, inside) for _ in range(count))
    return tuple(run_of(larger) for larger in graphs if larger is not None)
