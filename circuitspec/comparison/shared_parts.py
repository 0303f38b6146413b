"""What two circuits share: nodes, nodes at positions, groups, edges; each beside what random circuits would share.

Positions are compared by their names, and different names are taken for different tokens. "Every position" is every
name that either circuit uses, and the rest of the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy

from circuitspec.analysis.statistics.wording import plural
from circuitspec.comparison.chance_overlap import Chance, Counted, LayerPool, drawn_chances, exact_chance, jaccard
from circuitspec.comparison.compared_circuits import ComparedCircuit
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.edges import Edge, Receiver, Sender, format_receiver, owners
from circuitspec.graph.nodes import NodeComponent
from circuitspec.graph.relabel import Exchange
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.component_kinds import ATTENTION_PATTERN, HEAD, KV_HEAD, NEURON, ComponentKind
from circuitspec.hypothesis_file.grammar.components import OF_DICTIONARY, Component, Head, Neuron, sort_key
from circuitspec.hypothesis_file.grammar.names import format_name

Level = Literal["nodes", "nodes at positions", "same group", "matched groups", "edges", "edges by component"]

ELSEWHERE = ""  # the positions that no name stands for
_Entry = tuple[NodeComponent, str]


@dataclass(frozen=True)
class Overlap:
    """How many parts of one level each circuit has, and how many both; what random circuits would share."""

    level: Level
    first: int
    second: int
    shared: int
    chance: Chance

    @property
    def jaccard(self) -> float:
        return jaccard(self.first, self.second, self.shared)

    @property
    def of_first(self) -> float | None:
        """The share of the first circuit's parts that the second has; None where it has none."""
        return self.shared / self.first if self.first else None

    @property
    def of_second(self) -> float | None:
        return self.shared / self.second if self.second else None


@dataclass(frozen=True)
class GroupMatch:
    """A group and the one that it is matched with, if any, in nodes at positions: how many each has, and both."""

    first: str | None
    second: str | None
    size_first: int
    size_second: int
    shared: int


@dataclass(frozen=True)
class SharedParts:
    """What the circuits of two letters share, and which nodes and edges one alone has. `notes` say what was not
    compared, and why."""

    first: str
    second: str
    overlaps: tuple[Overlap, ...]
    groups: tuple[GroupMatch, ...]
    both: tuple[str, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    edges_both: tuple[str, ...] = ()
    edges_first: tuple[str, ...] = ()
    edges_second: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def shared_parts(first: ComparedCircuit, second: ComparedCircuit) -> SharedParts:
    """Compare two circuits of models of one shape."""
    exact, counted = _nodes(first, second)
    counted = {**counted, **_at_positions(first, second)}
    edges = bool(first.edges and second.edges)
    overlaps = [*([] if exact is None else [exact]), *_drawn(first, counted, whole_groups=_moves_groups(first))]
    if edges:
        overlaps += _drawn(first, _edges(first, second), whole_groups=True)
    shape = first.graph.shape
    own, other = ({(edge.sender, edge.receiver) for edge in one.edges} for one in (first, second))
    parts = (own & other, own - other, other - own) if edges else (set(), set(), set())
    both, only_first, only_second = (
        tuple(f"{format_name(a)} -> {format_receiver(b, shape)}" for a, b in sorted(part, key=_order)) for part in parts
    )
    return SharedParts(
        first.letter,
        second.letter,
        tuple(overlaps),
        _matches(first, second),
        _names(first.kept, second.kept, lambda one, other: one & other),
        _names(first.kept, second.kept, lambda one, other: one & ~other),
        _names(second.kept, first.kept, lambda one, other: one & ~other),
        both,
        only_first,
        only_second,
        tuple(_notes(first, second)),
    )


def _order(edge: tuple[Sender, Receiver]) -> tuple[object, ...]:
    sender, receiver = edge
    return sort_key(sender), sort_key(receiver.component), receiver.port or ""


# -- nodes -------------------------------------------------------------------------------------------------------------


def _nodes(first: ComparedCircuit, second: ComparedCircuit) -> tuple[Overlap | None, dict[Level, Counted]]:
    """Components at any positions: with their exact chance, or to be drawn where some move along with heads."""
    own, other = first.kept.keys(), second.kept.keys()
    sizes = len(own), len(other), len(own & other)
    if any(component.kind in (KV_HEAD, ATTENTION_PATTERN) for component in own):
        return None, {"nodes": Counted(*sizes, lambda of: len({of.get(c, c) for c in own} & other))}
    return Overlap("nodes", *sizes, exact_chance(*_pools(first.graph, own, other), *sizes)), {}


def _pools(
    graph: CircuitGraph, own: Collection[Component], other: Collection[Component]
) -> tuple[tuple[LayerPool, ...], int]:
    """Of the heads of each layer, and of the neurons of each MLP, how many there are, the circuit has and the other has
    of those that are not free; and how many of what stays are shared."""
    found: list[LayerPool] = []
    counts: Mapping[ComponentKind, tuple[int, Callable[[int, int], Component]]] = {
        HEAD: (graph.shape.n_heads, Head),
        NEURON: (graph.shape.d_mlp, Neuron),
    }
    for kind, (count, make) in counts.items():
        for layer in sorted({c.place[0] for c in own if c.kind is kind}):
            free = {c for c in graph.free if c.kind is kind and c.place[0] == layer}
            movable = {make(layer, number) for number in range(count)} - free
            found.append(LayerPool(len(movable), len(movable & {*own}), len(movable & {*other})))
    moving = {c for c in own if c.kind in counts and c not in graph.free}
    return tuple(found), len({*own} & {*other} - moving)


def _entries(kept: Mapping[NodeComponent, Where], roles: Sequence[str]) -> set[_Entry]:
    return {(component, role) for component, where in kept.items() for role in _places(where, roles)}


def _places(where: Where, roles: Sequence[str]) -> list[str]:
    """The names that it stands for, and `ELSEWHERE` where it is more than these."""
    return [role for role in (*roles, ELSEWHERE) if (role in where.roles) != where.inverted]


def _at_positions(first: ComparedCircuit, second: ComparedCircuit) -> dict[Level, Counted]:
    """Nodes at positions, and those of them that are in groups of the same name, and in groups that are matched."""
    roles = sorted(first.roles | second.roles)
    own, other = _entries(first.kept, roles), _entries(second.kept, roles)
    sizes = len(own), len(other)

    def moved(entries: Iterable[_Entry], of: Exchange) -> set[_Entry]:
        return {(_of(of, component), role) for component, role in entries}

    found: dict[Level, Counted] = {
        "nodes at positions": Counted(*sizes, len(own & other), lambda of: len(moved(own, of) & other))
    }
    groups, others = _groups(first, roles), _groups(second, roles)
    counts: dict[Level, _Counts] = {"same group": _in_same} if groups.keys() & others.keys() else {}
    if min(len(groups), len(others)) > 1:  # one tells no roles apart
        counts["matched groups"] = _in_matched
    for level, count in counts.items():

        def after(of: Exchange, count: _Counts = count) -> int:
            return count({name: moved(entries, of) for name, entries in groups.items()}, others)

        found[level] = Counted(*sizes, count(groups, others), after)
    return found


def _of(of: Exchange, component: NodeComponent) -> NodeComponent:
    """What takes the component's place; itself where nothing does."""
    found = of.get(component, component)
    assert isinstance(found, type(component))
    return found


_Groups = Mapping[str, Set[_Entry]]
_Counts = Callable[[_Groups, _Groups], int]


def _groups(one: ComparedCircuit, roles: Sequence[str]) -> dict[str, set[_Entry]]:
    """The nodes at positions of each group."""
    everywhere = one.document.hypothesis.ablation.positions == "all"
    found: dict[str, set[_Entry]] = {}
    for member in one.graph.members:
        where = Where.everywhere() if everywhere else member.where
        found.setdefault(member.group, set()).update((member.component, role) for role in _places(where, roles))
    return found


def _in_same(groups: _Groups, others: _Groups) -> int:
    return sum(len(groups[name] & others[name]) for name in groups.keys() & others.keys())


def _in_matched(groups: _Groups, others: _Groups) -> int:
    return sum(shared for _, _, shared in _matching(groups, others))


def _matching(groups: _Groups, others: _Groups) -> list[tuple[str, str, int]]:
    """Each group with at most one of the others, so that matched groups share as much as they can in all."""
    names, other_names = list(groups), list(others)
    shared = np.array([[len(groups[a] & others[b]) for b in other_names] for a in names])
    pairs = zip(*scipy.optimize.linear_sum_assignment(shared, maximize=True), strict=True)
    return [(names[i], other_names[j], int(shared[i, j])) for i, j in pairs if shared[i, j]]


def _matches(first: ComparedCircuit, second: ComparedCircuit) -> tuple[GroupMatch, ...]:
    roles = sorted(first.roles | second.roles)
    groups, others = _groups(first, roles), _groups(second, roles)
    matched = _matching(groups, others)
    found = [GroupMatch(a, b, len(groups[a]), len(others[b]), shared) for a, b, shared in matched]
    taken = {a for a, _, _ in matched}, {b for _, b, _ in matched}
    found += [GroupMatch(a, None, len(own), 0, 0) for a, own in groups.items() if a not in taken[0]]
    found += [GroupMatch(None, b, 0, len(own), 0) for b, own in others.items() if b not in taken[1]]
    return tuple(found)


def _names(
    kept: Mapping[NodeComponent, Where], other: Mapping[NodeComponent, Where], part: Callable[[Where, Where], Where]
) -> tuple[str, ...]:
    """Nodes with a part of their positions, as files write them: `a9.h6@END`."""
    found = {c: part(where, other.get(c, Where.at())) for c, where in kept.items()}
    ordered = sorted((c for c, where in found.items() if not where.is_nowhere), key=sort_key)
    return tuple(format_name(c) + _at(found[c]) for c in ordered)


def _at(where: Where) -> str:
    if where.is_everywhere:
        return ""
    return f" but at {', '.join(sorted(where.roles))}" if where.inverted else where.canonical()


# -- edges -------------------------------------------------------------------------------------------------------------


def _edges(first: ComparedCircuit, second: ComparedCircuit) -> dict[Level, Counted]:
    """Edges, positions set aside: by the input that reads (q, k, v), and with the inputs of a component as one.

    A key or value input that several heads share is an edge to each of them where inputs are one.
    """
    shape = first.graph.shape

    def by_input(edges: Iterable[Edge]) -> set[_Ends]:
        return {(edge.sender, edge.receiver.component, edge.receiver.port) for edge in edges}

    def by_component(edges: Iterable[Edge]) -> set[_Ends]:
        return {
            (edge.sender, reader, None)
            for edge in edges
            for reader in (owners(edge.receiver, shape) or (edge.receiver.component,))
        }

    found: dict[Level, Counted] = {}
    units: dict[Level, Callable[[Iterable[Edge]], set[_Ends]]] = {"edges": by_input, "edges by component": by_component}
    for level, unit in units.items():
        own, other = unit(first.edges), unit(second.edges)

        def after(of: Exchange, own: set[_Ends] = own, other: set[_Ends] = other) -> int:
            return len({(of.get(a, a), of.get(b, b), port) for a, b, port in own} & other)

        found[level] = Counted(len(own), len(other), len(own & other), after)
    return found


_Ends = tuple[Component, Component, str | None]


# -- chance ------------------------------------------------------------------------------------------------------------


def _drawn(first: ComparedCircuit, counted: Mapping[Level, Counted], *, whole_groups: bool) -> list[Overlap]:
    chances = drawn_chances(first.graph, tuple(counted.values()), _layers(first), whole_groups=whole_groups)
    found = zip(counted.items(), chances, strict=True)
    return [Overlap(level, one.first, one.second, one.shared, chance) for (level, one), chance in found]


def _layers(one: ComparedCircuit) -> frozenset[int]:
    """The layers in which the circuit has components, those of its edges among them."""
    ends = (end for edge in one.edges for end in (edge.sender, edge.receiver.component))
    return frozenset(c.place[0] for c in (*one.kept, *ends) if 0 <= c.place[0] < one.graph.shape.n_layers)


def _moves_groups(one: ComparedCircuit) -> bool:
    """Whether key-value heads move with those that read them; where each head has its own, that draws the same."""
    shape = one.graph.shape
    return shape.n_kv_heads == shape.n_heads or any(component.kind is KV_HEAD for component in one.kept)


# -- what to know ------------------------------------------------------------------------------------------------------


def _notes(first: ComparedCircuit, second: ComparedCircuit) -> Iterable[str]:
    both = (first, second)
    named = [sorted(one.roles) for one in both]
    if all(named) and not first.roles & second.roles:
        each = (f"{one.letter} has {', '.join(roles)}" for one, roles in zip(both, named, strict=True))
        yield f"positions are compared by name, and these share none: {'; '.join(each)}"
    for one in both:
        if not one.edges:
            yield f"edges are not compared: {one.letter} declares no paths with edges"
    if any(isinstance(c, OF_DICTIONARY) for one in both for c in one.kept):
        yield "features of dictionaries are not exchanged at random: what is shared of them counts as given"
    for one, other in (both, both[::-1]):
        units = [c for c in one.kept if c.kind.part_of is not None]
        wholes = {
            c for c in other.kept if any(c.kind is unit.kind.part_of and c.place[0] == unit.place[0] for unit in units)
        }
        for whole in sorted(wholes, key=sort_key):
            apart = f"{other.letter} has {format_name(whole)} whole, and {one.letter} by its units"
            yield f"{apart}: they share no node there"
    free, others = {*first.graph.free}, {*second.graph.free}
    if free != others:
        said = (
            f"{plural(len(alone), 'component')} in {one.letter} alone"
            for one, alone in ((first, free - others), (second, others - free))
            if alone
        )
        yield f"what is free is no part of a circuit, and differs: {', '.join(said)}"
