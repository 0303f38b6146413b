"""The circuit's run with components outside it no longer ablated: what a search for negative ones goes through."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.levels import edge_level, node_level
from circuitspec.experiments.planner import Plan
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.edge_circuit import kept_with, outside, reads_of
from circuitspec.graph.edges import Edge, Writer, is_writer
from circuitspec.graph.nodes import NodeComponent
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Feature, OtherFeatures, sort_key

FEW = 16  # components outside a circuit of edges: of no more, each is restored, without an estimate


@dataclass(frozen=True)
class Restorations:
    """The ablated components outside a circuit, and the run in which some of them are restored on top of it.

    At node level `places` says where each is ablated. At edge level `edges` are, for each, the ablated edges on which
    it would be read then.
    """

    components: tuple[NodeComponent, ...]
    with_back: Callable[[frozenset[NodeComponent]], Experiment]
    edges: tuple[Edge, ...] = ()
    places: Mapping[NodeComponent, Where] = field(default_factory=dict)


def restorations(
    plan: Plan, graph: CircuitGraph, *, everywhere: bool = False, moved: Mapping[str, Collection[int]] | None = None
) -> Restorations | None:
    """What can be restored on top of the plan's circuit; None at path level, and where nothing is ablated.

    At node level a restored component is patched no longer. With `moved`, features that are ablated together with all
    that no group names are restored one by one: those that are moved, as nothing comes of the others. At edge level it
    has its edges back, as a free component has them: from and to all that is kept, `input` and `logits`, and other
    restored ones; `everywhere` (`positions: all`) at all positions. A component is outside a circuit of edges where no
    kept edge leads away from it.
    """
    circuit = plan.circuit
    if circuit.source is None or circuit.level == "path":
        return None
    if circuit.level == "node":
        places = {one: site.where for site in circuit.sites for one in _single(site.component, moved)}
        ablated = tuple(sorted(places, key=sort_key))
        back = partial(node_level.restored, circuit, shape=graph.shape)
        return Restorations(ablated, back, places=places)
    edges, source = plan.edges, circuit.source
    if edges is None:
        return None

    def with_back(components: frozenset[NodeComponent]) -> Experiment:
        kept = kept_with(edges, graph, _senders(components), everywhere=everywhere)
        return edge_level.keeping(kept, source, graph.shape, graph.measured)

    left = outside(edges, graph)
    return Restorations(left, with_back, reads_of(left, graph))


def _single(component: NodeComponent, moved: Mapping[str, Collection[int]] | None) -> tuple[NodeComponent, ...]:
    """The component, or of many features that are one those that are moved."""
    if moved is None or not isinstance(component, OtherFeatures):
        return (component,)
    numbers = sorted({*moved.get(component.dictionary, ())} - component.named)
    return tuple(Feature(component.dictionary, number, component.layer) for number in numbers)


def _senders(components: Iterable[NodeComponent]) -> frozenset[Writer]:
    return frozenset(c for c in components if is_writer(c))
