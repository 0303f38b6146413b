"""A hypothesis laid over a model: which components are declared where, which are free, which are the rest.

Everything here is arithmetic on names; nothing is run and no torch is imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import networkx as nx

from circuitspec.diagnostics import CircuitspecError, Diagnostic
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.spec.components import AttentionLayer, Component, Head, Mlp, Pattern, sort_key, stage
from circuitspec.spec.hypothesis import CircuitSpec
from circuitspec.spec.names import GroupRef, Name, format_name, parse_name, parse_path
from circuitspec.spec.source import Source

NodeComponent = Head | Mlp
Place = tuple[str | int, ...]  # a path into the hypothesis file
Effect = Literal["positive", "negative", "backup"]


@dataclass(frozen=True)
class Member:
    """A component's part in one group of the circuit."""

    component: NodeComponent
    where: Where
    group: str
    effect: Effect


@dataclass(frozen=True)
class CircuitGraph:
    """The declared circuit within all heads and MLPs of one model.

    `free` components are outside the claim: never ablated, always recomputed. `edges` is the directed
    graph of declared paths between components (and "input", "logits"), with the receiving inputs of
    each edge under `ports`.
    """

    shape: ModelShape
    members: tuple[Member, ...]
    free: frozenset[NodeComponent]
    edges: nx.DiGraph

    @property
    def universe(self) -> tuple[NodeComponent, ...]:
        """Every head and MLP of the model, in model order."""
        nodes: list[NodeComponent] = []
        for layer in range(self.shape.n_layers):
            nodes += [Head(layer, head) for head in range(self.shape.n_heads)]
            nodes.append(Mlp(layer))
        return tuple(nodes)

    @property
    def claimed(self) -> tuple[NodeComponent, ...]:
        """The components about which the hypothesis claims something: all that are not free."""
        return tuple(c for c in self.universe if c not in self.free)

    @property
    def circuit(self) -> Mapping[NodeComponent, Where]:
        """Where each declared component belongs to the circuit, in model order."""
        declared: dict[NodeComponent, Where] = {}
        for member in sorted(self.members, key=lambda m: sort_key(m.component)):
            declared[member.component] = declared.get(member.component, Where.at()) | member.where
        return declared


def lay_out(spec: CircuitSpec, shape: ModelShape, source: Source) -> CircuitGraph:
    """The circuit of a hypothesis in a model of this shape.

    Raises, all at once: CS220 for a component that the model does not have, CS221 for one that node
    level does not patch, CS222 for one that is both free and declared. That a path leads from earlier to
    later components was checked when the file was read.
    """
    problems: list[Diagnostic] = []
    members: list[Member] = []
    for group, block in spec.groups.items():
        at = (block.at,) if isinstance(block.at, str) else (block.at or ())
        for i, text in enumerate(block.nodes):
            place: Place = ("circuit", "groups", group, "nodes", i)
            name = parse_name(text)
            roles = name.positions or at
            where = Where.at(*roles) if roles else Where.everywhere()
            for component in _expand(name, shape, source, place, problems):
                members.append(Member(component, where, group, block.effect))
    free: set[NodeComponent] = set()
    declared = {m.component: m.group for m in members}
    for i, text in enumerate(spec.free):
        place = ("circuit", "free", i)
        found = frozenset(_expand(parse_name(text), shape, source, place, problems))
        for component in sorted(found & set(declared), key=sort_key):
            problems.append(
                Diagnostic(
                    "CS222",
                    f"{format_name(component)} is free here and declared in group {declared[component]}",
                    source.span(place),
                    hint="a component is either part of the claim or outside it: remove it from one of the two",
                )
            )
        free |= found
    edges = _edges(spec, shape, source, members, problems)
    if problems:
        raise CircuitspecError(*problems)
    return CircuitGraph(shape, tuple(members), frozenset(free), edges)


def _expand(
    name: Name, shape: ModelShape, source: Source, place: Place, problems: list[Diagnostic]
) -> Iterator[NodeComponent]:
    """The heads and MLPs that a name stands for; what it cannot stand for goes to `problems`."""
    for component in _members(name, shape, source, place, problems):
        match component:
            case Head() | Mlp():
                yield component
            case AttentionLayer(layer):
                yield from (Head(layer, head) for head in range(shape.n_heads))
            case _:
                problems.append(
                    Diagnostic(
                        "CS221",
                        f"{format_name(component)} is not a head or an MLP",
                        source.span(place),
                        hint="groups and `free` hold heads (a9.h6), whole attention layers (a9) and MLPs (m3)",
                    )
                )
                return


def _members(
    name: Name, shape: ModelShape, source: Source, place: Place, problems: list[Diagnostic]
) -> tuple[Component, ...]:
    if isinstance(name.target, Pattern):
        try:
            return name.target.expand(shape.n_layers, shape.n_heads, shape.n_kv_heads, shape.d_mlp)
        except ValueError as error:
            problems.append(_absent(name.target, str(error), shape, source, place))
            return ()
    component = name.target
    layer, head = getattr(component, "layer", 0), component.head if isinstance(component, Head) else 0
    if layer >= shape.n_layers or head >= shape.n_heads:
        problems.append(_absent(component, "", shape, source, place))
        return ()
    return (component,)


def _absent(what: Component | Pattern, reason: str, shape: ModelShape, source: Source, place: Place) -> Diagnostic:
    return Diagnostic(
        "CS220",
        f"the model has no {format_name(what)}",
        source.span(place),
        label=reason,
        hint=f"its {shape.n_layers} layers are a0 to a{shape.n_layers - 1}, each with {shape.n_heads} heads, "
        f"h0 to h{shape.n_heads - 1} (counted from 0)",
    )


def _edges(
    spec: CircuitSpec, shape: ModelShape, source: Source, members: list[Member], problems: list[Diagnostic]
) -> nx.DiGraph:
    graph = nx.DiGraph()
    by_group: dict[str, list[Component]] = {}
    for member in members:
        by_group.setdefault(member.group, []).append(member.component)
    for i, text in enumerate(spec.paths):
        place = ("circuit", "paths", i)
        for sender, receiver in parse_path(text).edges():
            ends = []
            for item in (sender, receiver):
                if isinstance(item, GroupRef):
                    ends.append(by_group.get(item.group, []))
                else:
                    ends.append(list(_members(item, shape, source, place, problems)))
            pairs = [(s, r) for s in ends[0] for r in ends[1] if _reaches(s, r)]
            for s, r in pairs:
                ports = graph.edges[s, r]["ports"] if graph.has_edge(s, r) else frozenset()
                graph.add_edge(s, r, ports=ports | frozenset(receiver.ports))
    return graph


def _reaches(sender: Component, receiver: Component) -> bool:
    first, second = stage(sender), stage(receiver)
    return first is None or second is None or first < second
