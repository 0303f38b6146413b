"""The circuit's run with components outside it no longer ablated: what a search for negative ones goes through."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.levels import edge_level, node_level
from circuitspec.experiments.planner import Plan
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.edge_circuit import kept_with, outside, reads_of
from circuitspec.graph.edges import Edge, Writer, is_writer
from circuitspec.graph.nodes import NodeComponent
from circuitspec.hypothesis_file.grammar.components import sort_key

FEW = 16  # components outside a circuit of edges: of no more, each is restored, without an estimate


@dataclass(frozen=True)
class Restorations:
    """The ablated components outside a circuit, and the run in which some of them are restored on top of it.

    At edge level `edges` are, for each, the ablated edges on which it would be read then.
    """

    components: tuple[NodeComponent, ...]
    with_back: Callable[[frozenset[NodeComponent]], Experiment]
    edges: tuple[Edge, ...] = ()


def restorations(plan: Plan, graph: CircuitGraph, *, everywhere: bool = False) -> Restorations | None:
    """What can be restored on top of the plan's circuit; None at path level, and where nothing is ablated.

    At node level a restored component is patched no longer. At edge level it has its edges back, as a free component
    has them: from and to all that is kept, `input` and `logits`, and other restored ones; `everywhere` (`positions:
    all`) at all positions. A component is outside a circuit of edges where no kept edge leads away from it.
    """
    circuit = plan.circuit
    if circuit.source is None or circuit.level == "path":
        return None
    if circuit.level == "node":
        ablated = tuple(sorted({site.component for site in circuit.sites}, key=sort_key))
        return Restorations(ablated, lambda components: node_level.restored(circuit, components))
    edges, source = plan.edges, circuit.source
    if edges is None:
        return None

    def with_back(components: frozenset[NodeComponent]) -> Experiment:
        kept = kept_with(edges, graph, _senders(components), everywhere=everywhere)
        return edge_level.keeping(kept, source, graph.shape, graph.measured)

    left = outside(edges, graph)
    return Restorations(left, with_back, reads_of(left, graph))


def _senders(components: Iterable[NodeComponent]) -> frozenset[Writer]:
    return frozenset(c for c in components if is_writer(c))
