"""The edges that a hypothesis file declares, expanded the plain way and apart from the code under test.

Only the grammar of names is shared. Edges are the oracle's (`tests/oracle/edge.py`), of a model of sequential blocks
without grouped queries, each with the roles at which it lies: `None` is every position.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from circuitspec.hypothesis_file.grammar.component_kinds import ComponentKind
from circuitspec.hypothesis_file.grammar.components import Component, Head, Input, Logits, Mlp, Pattern, Range
from circuitspec.hypothesis_file.grammar.names import GroupRef, PathItem, Port, parse_name, parse_path
from circuitspec.hypothesis_file.schema.blocks import CircuitSpec

Writer: TypeAlias = tuple[str | int, ...]
Edge: TypeAlias = tuple[Writer, Writer]
Roles: TypeAlias = frozenset[str] | None

FINAL: Writer = ("final",)
INPUT: Writer = ("input",)


@dataclass(frozen=True)
class Size:
    """Layers, heads a layer, and whether there are MLPs."""

    layers: int
    heads: int
    mlps: bool = True

    @property
    def writers(self) -> list[Writer]:
        """All components that write, in model order."""
        found = [INPUT]
        for layer in range(self.layers):
            found += [("head", layer, h) for h in range(self.heads)]
            found += [("mlp", layer)] if self.mlps else []
        return found

    @property
    def edges(self) -> list[Edge]:
        readers: list[Writer] = []
        readers += [(port, layer, h) for layer in range(self.layers) for h in range(self.heads) for port in "qkv"]
        readers += [("mlp_in", layer) for layer in range(self.layers) if self.mlps]
        return [(s, r) for s in self.writers for r in (*readers, FINAL) if precedes(s, r)]


def precedes(sender: Writer, receiver: Writer) -> bool:
    """Whether the sender has written when the receiver reads."""
    if sender == INPUT or receiver == FINAL:
        return True
    if sender[0] == "head" and receiver[0] == "mlp_in":
        return sender[1] <= receiver[1]  # type: ignore[operator]
    return sender[1] < receiver[1]  # type: ignore[operator]


def expand_paths(paths: Iterable[str], circuit: CircuitSpec, size: Size) -> dict[Edge, Roles]:
    """Every edge between neighbouring hops, and where: at the sender's positions, and of a query or an MLP also at its
    own. Pairs that the order of layers or their positions keep apart are left out."""
    found: dict[Edge, Roles] = {}
    for text in paths:
        for one, other in parse_path(text).edges():
            for sender, writes_at, _ in stops(one, circuit, size):
                for component, acts_at, ports in stops(other, circuit, size):
                    for receiver in receivers_of(component, ports):
                        own = receiver[0] in ("q", "mlp_in")
                        roles = _meet(writes_at, acts_at) if own else writes_at
                        if precedes(sender, receiver) and roles != frozenset():
                            edge = (sender, receiver)
                            found[edge] = _join(found[edge], roles) if edge in found else roles
    return found


def declared_edges(circuit: CircuitSpec, size: Size) -> dict[Edge, Roles]:
    """The edges along the `paths` of a circuit."""
    return expand_paths(circuit.paths, circuit, size)


def free_edges(circuit: CircuitSpec, size: Size) -> dict[Edge, Roles]:
    """Edges with a free component at one end, and one that is free or belongs to the circuit at the other."""
    free = {writer for text in circuit.free for writer in _writers(parse_name(text).target, size)}
    members: dict[Writer, Roles] = {}
    for name in circuit.groups:
        for writer, roles, _ in stops(GroupRef(name), circuit, size):
            members[writer] = _join(members[writer], roles) if writer in members else roles
    for text in circuit.paths:
        for hop in parse_path(text).hops:
            for item in hop:
                for writer, roles, _ in stops(item, circuit, size):
                    members.setdefault(writer, roles)
    members |= {INPUT: None, ("logits",): None}
    known = free | members.keys()
    found: dict[Edge, Roles] = {}
    for sender, receiver in size.edges:
        ends = sender, _owner(receiver)
        if free & {*ends} and known >= {*ends}:
            found[sender, receiver] = None if sender in free else members[sender]
    return found


def at_positions(
    edges: Mapping[Edge, Roles], places: Mapping[str, int], everywhere: Iterable[int]
) -> dict[Edge, list[int]]:
    """The roles of edges as the token positions that they have in one prompt."""
    whole = list(everywhere)
    return {e: whole if roles is None else sorted(places[role] for role in roles) for e, roles in edges.items()}


def stops(item: PathItem, circuit: CircuitSpec, size: Size) -> list[tuple[Writer, Roles, tuple[Port, ...]]]:
    """The components that an item of a path stands for, where each acts, and the inputs by which the path enters it."""
    if isinstance(item, GroupRef):
        group = circuit.groups[item.group]
        at: tuple[str, ...] = (group.at,) if isinstance(group.at, str) else group.at or ()
        names = [parse_name(text) for text in group.nodes]
        return [(w, frozenset(n.positions or at) or None, item.ports) for n in names for w in _writers(n.target, size)]
    if item.positions:
        return [(w, frozenset(item.positions), item.ports) for w in _writers(item.target, size)]
    found = []
    for writer in _writers(item.target, size):
        own = [r for g in circuit.groups for w, r, _ in stops(GroupRef(g), circuit, size) if w == writer]
        roles: Roles = None
        for i, one in enumerate(own):
            roles = one if i == 0 else _join(roles, one)
        found.append((writer, roles, item.ports))
    return found


def _writers(target: Component | Pattern, size: Size) -> list[Writer]:
    """The components that a name stands for, `logits` among them."""
    match target:
        case Input():
            return [INPUT]
        case Logits():
            return [("logits",)]
        case Head(layer, head):
            return [("head", layer, head)]
        case Mlp(layer):
            return [("mlp", layer)]
        case Pattern(ComponentKind(name="head" | "mlp" as kind), layers, members):
            indices = (layers,) if members is None else (layers, members)
            named = [writer for writer in size.writers if writer[0] == kind]
            return [w for w in named if all(_within(i, j) for i, j in zip(w[1:], indices, strict=True))]
        case _:
            raise ValueError(f"no edges lead to {target}")


def _within(index: str | int, wanted: int | Range) -> bool:
    assert isinstance(index, int)
    if isinstance(wanted, int):
        return index == wanted
    return (wanted.first or 0) <= index and (wanted.last is None or index <= wanted.last)


def receivers_of(component: Writer, ports: tuple[Port, ...]) -> list[Writer]:
    """What a component reads by: these inputs of a head, or all of them."""
    kind, *where = component
    if kind == "head":
        return [(port, *where) for port in ports or ("q", "k", "v")]
    return [FINAL] if kind == "logits" else [("mlp_in", *where)]


def _owner(receiver: Writer) -> Writer:
    kind, *where = receiver
    return ("logits",) if kind == "final" else ("mlp", *where) if kind == "mlp_in" else ("head", *where)


def _meet(one: Roles, other: Roles) -> Roles:
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _join(one: Roles, other: Roles) -> Roles:
    return None if one is None or other is None else one | other
