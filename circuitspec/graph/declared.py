"""Which declared component feeds which: a circuit's paths as one graph from the input to the logits."""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx

from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.edges import is_reader, is_sender, sharing
from circuitspec.graph.nodes import NodeComponent
from circuitspec.graph.paths import DeclaredPath, Stop, edges_of, everywhere, reaches
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar import component_kinds
from circuitspec.hypothesis_file.grammar.components import WHOLE, whole_of

INPUT, LOGITS = component_kinds.INPUT.name, component_kinds.LOGITS.name
"""The ends of a graph of links."""

Node = tuple[NodeComponent, Where]
"""A component at one of its positions, or at all."""


@dataclass(frozen=True)
class DeclaredGraph:
    """Links between the declared components at their positions, and the members to which no path leads, if any.

    A component that no path enters reads the input; if no path ends at the logits, those that none leaves write there
    (`open_ended`).
    """

    links: nx.DiGraph
    unlinked: tuple[Node, ...]
    open_ended: bool


def declared_graph(graph: CircuitGraph, *, all_positions: bool) -> DeclaredGraph:
    """The circuit's paths as links, free components left out: what passes them is part of the link.

    `all_positions`: the ablation says `positions: all`.
    """
    paths = [everywhere(path) if all_positions else path for path in graph.paths]
    links = nx.DiGraph()
    for path in paths:
        for number, (senders, readers) in enumerate(zip(path.hops, path.hops[1:], strict=False)):
            for sender in (one for stop in senders for one in _apart(stop)):
                for reader in (one for stop in readers for one in _apart(stop)):
                    if _linked(sender, reader, path, number, graph.shape):
                        links.add_edge(_node(sender), _node(reader))
    inner = [node for node in links if node not in (INPUT, LOGITS)]
    for component, where in inner:
        through = sharing(component, graph.shape)  # what arrives at a kv head is read by its heads
        links.add_edges_from(((component, where), node) for node in inner if node[0] in through)
    for node in inner:
        if not links.in_degree(node):
            links.add_edge(INPUT, node)
    open_ended = LOGITS not in links
    if open_ended:
        links.add_edges_from((node, LOGITS) for node in inner if not links.out_degree(node))
    members = [
        Stop(member, (), Where.everywhere() if all_positions else where) for member, where in graph.circuit.items()
    ]
    known = [node for stop in members for node in ((one.component, one.where) for one in _apart(stop))]
    linked = {node[0] for node in inner} if all_positions else set()  # there, or at positions written in a path
    lost = tuple(node for node in known if node not in links and node[0] not in linked)
    return DeclaredGraph(links, lost, open_ended)  # type: ignore[arg-type]


def _apart(stop: Stop) -> list[Stop]:
    """A stop at each of its positions."""
    if stop.where.inverted or not stop.where.roles:
        return [stop]
    return [Stop(stop.component, stop.ports, Where.at(role)) for role in sorted(stop.where.roles)]


def _node(stop: Stop) -> object:
    kind = stop.component.kind
    return kind.name if kind in WHOLE else (stop.component, stop.where)


def _linked(sender: Stop, reader: Stop, path: DeclaredPath, hop: int, shape: ModelShape) -> bool:
    first, second = (Stop(whole_of(stop.component), stop.ports, stop.where) for stop in (sender, reader))
    if is_sender(first.component) and is_reader(second.component):
        return bool(edges_of(DeclaredPath(path.text, (*path.place, hop), ((first,), (second,))), shape)[0])
    return reaches(sender.component, reader.component)
