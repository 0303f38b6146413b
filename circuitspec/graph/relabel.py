"""Circuits of the same shape made of other components of the same layers: any at random, and one node more."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from random import Random
from types import MappingProxyType
from typing import TypeAlias, TypeVar

from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.members import Member
from circuitspec.graph.nodes import Ablatable, is_ablatable
from circuitspec.graph.paths import Stop
from circuitspec.hypothesis_file.grammar.component_kinds import HEAD, MLP
from circuitspec.hypothesis_file.grammar.components import (
    AttentionPattern,
    Component,
    Feature,
    Head,
    KvHead,
    OtherFeatures,
    all_of,
    sort_key,
)

_T = TypeVar("_T")


Exchange: TypeAlias = Mapping[Component, Component]
"""Which component takes the place of which, of its own layer and kind; those that are not named stay."""


class NoExchange(Exception):
    """Every feature that could take a place was drawn for another."""


def exchange(
    graph: CircuitGraph,
    dice: Random,
    *,
    whole_groups: bool,
    layers: Collection[int] | None = None,
    alike: Mapping[Feature, Sequence[Feature]] = MappingProxyType({}),
) -> Exchange:
    """The heads of every layer exchanged at random, and neurons (or experts) of every MLP of which it has some.

    Free components stay, and so do MLPs, of which a layer has but one. With `whole_groups` key-value heads are
    exchanged too, and query heads go with theirs, so that edges stay edges. Of some `layers` alone, if they are given.
    The place of a feature is taken by one of those that are `alike`, each by another. Raises NoExchange where a draw
    leaves none for one of them.
    """
    of: dict[Component, Component] = {}
    for layer in range(graph.shape.n_layers) if layers is None else sorted(layers):
        of |= _heads_by_group(graph, layer, dice) if whole_groups else _heads(graph, layer, dice)
        of |= _units_of_mlp(graph, layer, dice)
    heads = [(one, other) for one, other in of.items() if isinstance(one, Head) and isinstance(other, Head)]
    of |= {AttentionPattern(*one.place): AttentionPattern(*other.place) for one, other in heads}
    return of | _features(graph, alike, dice)


def enlarged(graph: CircuitGraph, dice: Random, inside: Collection[Component] = ()) -> CircuitGraph | None:
    """The circuit and one more component, which does in groups and paths what a random node of its layer does.

    None where no layer of the circuit has a component outside of it; `inside` are those in it beside its groups'.
    """
    places = [(member, others) for member in graph.members if (others := _outside(graph, member, inside))]
    if not places:
        return None
    member, others = _one_of(places, dice)
    added = _one_of(others, dice)

    def doubled(hop: tuple[Stop, ...]) -> tuple[Stop, ...]:
        same = [replace(stop, component=added) for stop in hop if stop.component == member.component]
        return (*hop, *same)

    paths = tuple(replace(path, hops=tuple(doubled(hop) for hop in path.hops)) for path in graph.paths)
    return replace(graph, members=(*graph.members, replace(member, component=added)), paths=paths)


def _outside(graph: CircuitGraph, member: Member, inside: Collection[Component]) -> list[Ablatable]:
    """The components that could take a node's place: of its kind and layer, neither free nor in the circuit."""
    component = member.component
    if not (is_ablatable(component) and component.kind.has_members):
        return []
    same = all_of(component.kind, component.layer, graph.shape.counts)
    taken = {*graph.free, *graph.circuit, *inside}
    return [c for c in same if is_ablatable(c) and c not in taken]


def _heads(graph: CircuitGraph, layer: int, dice: Random) -> dict[Component, Component]:
    heads = [one for one in all_of(HEAD, layer, graph.shape.counts) if isinstance(one, Head)]
    return _permuted([head for head in heads if head not in graph.free], dice)


def _heads_by_group(graph: CircuitGraph, layer: int, dice: Random) -> dict[Component, Component]:
    if layer in graph.shape.mixers:
        return {}
    size = graph.shape.n_heads // graph.shape.n_kv_heads
    members = [[Head(layer, g * size + i) for i in range(size)] for g in range(graph.shape.n_kv_heads)]
    movable = [g for g, heads in enumerate(members) if not any(head in graph.free for head in heads)]
    of: dict[Component, Component] = {}
    for group, target in {**{g: g for g in range(len(members))}, **_permuted(movable, dice)}.items():
        of[KvHead(layer, group)] = KvHead(layer, target)
        if group in movable:
            of |= dict(zip(members[group], _in_random_order(members[target], dice), strict=True))
        else:
            of |= _permuted([head for head in members[group] if head not in graph.free], dice)
    return of


def _units_of_mlp(graph: CircuitGraph, layer: int, dice: Random) -> dict[Component, Component]:
    kinds = {c.kind.name: c.kind for c in graph.circuit if c.kind.part_of is MLP and c.place[0] == layer}
    of: dict[Component, Component] = {}
    for kind in (kinds[name] for name in sorted(kinds) if kinds[name].has_members):
        units = all_of(kind, layer, graph.shape.counts)
        of |= _permuted([unit for unit in units if unit not in graph.free], dice)
    return of


def _features(
    graph: CircuitGraph, alike: Mapping[Feature, Sequence[Feature]], dice: Random
) -> dict[Component, Component]:
    """The features drawn in the place of each, and all others of a dictionary in that of all but the circuit's."""
    of: dict[Component, Component] = {}
    for feature in _in_random_order(sorted(alike, key=sort_key), dice):
        left = [one for one in alike[feature] if one not in of.values()]
        if not left:
            raise NoExchange
        of[feature] = _one_of(left, dice)
    for one in graph.universe:
        if isinstance(one, OtherFeatures) and one.named:
            own = (Feature(one.dictionary, number, one.layer) for number in one.named)
            named = frozenset(found.place[1] for found in (of.get(feature, feature) for feature in own))
            of[one] = replace(one, named=named)
    return of


def _permuted(things: Sequence[_T], dice: Random) -> dict[_T, _T]:
    return dict(zip(things, _in_random_order(things, dice), strict=True))


def _in_random_order(things: Sequence[_T], dice: Random) -> list[_T]:
    """By numbers drawn for each, which every version of Python draws alike (shuffling may change)."""
    keys: list[tuple[float, int]] = [(dice.random(), place) for place in range(len(things))]
    return [things[place] for _, place in sorted(keys)]


def _one_of(things: Sequence[_T], dice: Random) -> _T:
    return things[int(dice.random() * len(things))]
