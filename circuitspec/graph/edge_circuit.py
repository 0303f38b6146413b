"""Which edges of the model a hypothesis keeps at edge level, and how many it ablates."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.edges import (
    Edge,
    Receiver,
    Sender,
    Writer,
    count_edges,
    every_receiver,
    inputs_of,
    is_between,
    is_writer,
    owners,
    precedes,
    receivers,
    senders,
    senders_before,
)
from circuitspec.graph.nodes import Place
from circuitspec.graph.paths import DeclaredPath, Impossible, cuttable, edges_of, instead_of, merged
from circuitspec.graph.paths import everywhere as acting_everywhere
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Between, Head, Input, KvHead
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.hypothesis_file.yaml.source import SourceText

Kept = Mapping[Receiver, Mapping[Sender, Where]]
"""Edges by receiver and sender, each with the positions at which it is kept."""


@dataclass(frozen=True)
class EdgeCircuit:
    """The edges that a hypothesis keeps.

    `declared` are those of its paths, `free` those that are kept because one end is outside the claim,
    `impossible` the pairs that its paths name and between which there is no edge.
    """

    shape: ModelShape
    declared: Kept
    free: Kept
    impossible: tuple[Impossible, ...]

    @cached_property
    def kept(self) -> Kept:
        return _joined(self.declared, self.free)

    @property
    def n_edges(self) -> int:
        """All edges of the model."""
        return count_edges(self.shape)

    @property
    def n_declared(self) -> int:
        return sum(len(by_sender) for by_sender in self.declared.values())

    @property
    def n_kept(self) -> int:
        return sum(len(by_sender) for by_sender in self.kept.values())


def edge_circuit(graph: CircuitGraph, text: SourceText, *, everywhere: bool = False) -> EdgeCircuit:
    """The edges of the hypothesis's paths, and those that are kept for the sake of free components.

    With `everywhere` (`positions: all`) components act at all positions but where a path says otherwise. An edge with
    a free end is kept where its other end is free too, a part of the circuit, `input` or `logits`; at the positions
    of a head or MLP that is a part of the circuit and sends, else everywhere. Raises CS226 for what cannot send or
    receive, CS227 for a hop without a single edge.
    """
    problems = whole_components(graph, text)
    paths = [acting_everywhere(path) for path in graph.paths] if everywhere else graph.paths
    found = [edges_of(path, graph.shape) for path in paths]
    for path, (_, missing) in zip(paths, found, strict=True):
        problems += [*cuttable(path, text), *(hopless(path, graph.shape, text) if missing else ())]
    if problems:
        raise CircuitspecError(*problems)
    declared = merged([edge for edges, _ in found for edge in edges])
    impossible = tuple(dict.fromkeys(one for _, missing in found for one in missing))
    free = free_edges(graph, _members(graph, everywhere=everywhere))
    return EdgeCircuit(graph.shape, declared, free, impossible)


def whole_components(graph: CircuitGraph, text: SourceText) -> list[Diagnostic]:
    """CS226 for members and free components of which no edges lead away: neurons, residual streams."""
    found: list[tuple[str, Place, str]] = []
    for member in graph.members:
        if not (member.component.kind.sends or member.component.kind.reads):
            place: Place = ("circuit", "groups", member.group)
            found.append((format_name(member.component), place, instead_of(member.component)))
    found += [(format_name(c), ("circuit", "free"), instead_of(c)) for c in graph.free if not is_writer(c)]
    return [
        Diagnostic(
            "CS226",
            f"{name} has no edges: they lie between heads, MLPs, input and logits",
            text.span(place),
            hint=f"{instead}, or write `level: node`",
        )
        for name, place, instead in sorted(found)[:10]
    ]


def hopless(path: DeclaredPath, shape: ModelShape, text: SourceText) -> list[Diagnostic]:
    """CS227 for every two neighbouring hops of a path between which there is no edge."""
    found = []
    for senders_, readers in zip(path.hops, path.hops[1:], strict=False):
        edges, impossible = edges_of(DeclaredPath(path.text, path.place, (senders_, readers)), shape)
        if impossible and not edges:
            one = impossible[0]
            more = f" (and {len(impossible) - 1} more)" if len(impossible) > 1 else ""
            found.append(
                Diagnostic(
                    "CS227",
                    f"there is no edge from {one.sender} to {one.receiver}: {one.sender} {one.reason}{more}",
                    text.span(path.place),
                    hint="order the hops as the model computes them, and give both ends a common position",
                )
            )
    return found


def free_edges(graph: CircuitGraph, members: Mapping[Sender | KvHead, Where]) -> Kept:
    """The edges between free components, and between them and these members, `input` and `logits`.

    Those between free components and from `input` are kept at all positions, whatever is declared: with nothing
    declared they are what is kept.
    """
    shape = graph.shape
    free = frozenset(c for c in graph.free if is_writer(c))
    if not free:
        return {}
    inside: dict[Sender | KvHead, Where] = {Input(): Where.everywhere(), **members}
    inside |= dict.fromkeys(free, Where.everywhere())
    order = senders(shape)
    found: dict[Receiver, dict[Sender, Where]] = {}
    for receiver in receivers(shape):
        ends = owners(receiver, shape)
        is_free = any(end in free for end in ends)
        is_inside = any(end in inside for end in ends) or receiver.component in inside
        if not (is_free or is_inside or receiver.at_logits):
            continue
        for sender in order[: senders_before(receiver, shape)]:
            if sender in inside and (is_free or sender in free):
                found.setdefault(receiver, {})[sender] = inside[sender]
    return found


def outside(circuit: EdgeCircuit, graph: CircuitGraph) -> tuple[Writer, ...]:
    """Heads and MLPs that are neither parts of the circuit nor free, and from which no kept edge leads away."""
    sending = {sender for by_sender in circuit.kept.values() for sender in by_sender}
    known = {*sending, *_members(graph), *graph.free}
    return tuple(s for s in senders(graph.shape) if is_writer(s) and s not in known)


def kept_with(
    circuit: EdgeCircuit, graph: CircuitGraph, components: frozenset[Writer], *, everywhere: bool = False
) -> Kept:
    """The kept edges, and those that would be kept besides were these components free.

    Keys and values belong to kv heads: what a restored head reads by them, heads that share them read too.
    """
    members = _members(graph, everywhere=everywhere)
    return _joined(circuit.kept, free_edges(replace(graph, free=graph.free | components), members))


def reads_of(components: Collection[Writer], graph: CircuitGraph) -> tuple[Edge, ...]:
    """The edges, at all positions, on which parts of the circuit, free components and the logits read each of these."""
    inside = {*_members(graph), *graph.free}
    found = []
    for receiver in receivers(graph.shape):
        ends = owners(receiver, graph.shape)
        if receiver.at_logits or receiver.component in inside or any(end in inside for end in ends):
            found += [Edge(c, receiver, Where.everywhere()) for c in components if precedes(c, receiver, graph.shape)]
    return tuple(found)


def outside_edges(graph: CircuitGraph) -> Kept:
    """What is kept with nothing declared: the edges between free components, from `input` and to `logits`."""
    return free_edges(graph, {})


def live_receivers(
    kept: Kept | None,
    shape: ModelShape,
    ablated: Kept | None = None,
    measured: Collection[Writer] = (),
) -> frozenset[Receiver]:
    """The receivers on which the logits, and what is measured inside components, depend when `kept` edges alone (or
    all but `ablated` ones) carry own values.

    What the others read makes no difference: all that is computed from it is ablated everywhere it goes. Where a norm
    follows the attention, or one is over the queries of all heads, what a head adds depends on the other heads of its
    layer: all are needed, or none.
    """
    order = senders(shape)
    dead: set[Receiver] = set()
    unneeded: dict[Sender, int] = {sender: place for place, sender in enumerate(order)}  # in order, with its place

    def need(sender: Sender) -> None:
        unneeded.pop(sender, None)
        if isinstance(sender, Head) and shape.heads_hang_together:
            for head in range(shape.n_heads):
                unneeded.pop(Head(sender.layer, head), None)

    for component in measured:
        need(component)
    for receiver in reversed(receivers(shape)):
        if not unneeded:
            return every_receiver(shape) - dead
        if not receiver.at_logits and all(owner in unneeded for owner in owners(receiver, shape)):
            dead.add(receiver)
            continue
        before = senders_before(receiver, shape)
        if kept is not None:
            carried = [s for s in kept.get(receiver, {}) if unneeded.get(s, before) < before]
        else:
            cut = (ablated or {}).get(receiver, {})
            early = [s for s, place in unneeded.items() if place < before]
            carried = [s for s in early if s not in cut or not cut[s].is_everywhere]
        for sender in carried:
            need(sender)
    return every_receiver(shape) - dead


def unfed(circuit: EdgeCircuit, graph: CircuitGraph) -> tuple[str, ...]:
    """Heads and MLPs with a kept edge going out and none coming in: they give the source's values."""
    sending = {sender for by_sender in circuit.declared.values() for sender in by_sender if is_writer(sender)}
    found = []
    for sender in sending:
        if not any(circuit.kept.get(receiver) for receiver in inputs_of(sender, (), graph.shape)):
            found.append(sender)
    return tuple(format_name(s) for s in senders(graph.shape) if s in found)


def named_in_paths(graph: CircuitGraph, *, everywhere: bool = False) -> dict[Between, Where]:
    """Heads, mixers, key-value heads and MLPs in paths, and where they act there (`everywhere`: `positions: all`)."""
    found: dict[Between, Where] = {}
    for path in graph.paths:
        for hop in (acting_everywhere(path) if everywhere else path).hops:
            for stop in hop:
                if is_between(stop.component):
                    found[stop.component] = found.get(stop.component, Where.at()) | stop.where
    return found


def _members(graph: CircuitGraph, *, everywhere: bool = False) -> dict[Sender | KvHead, Where]:
    """The parts of the circuit, in groups or else named in paths, and where they act (`everywhere`: `positions: all`).

    A kv head is one as the receiver that it is: the heads that read it are parts only where they are named. `input`
    is none, in a group or not: everything may read it, whatever paths start there.
    """
    found: dict[Sender | KvHead, Where] = {}
    found.update(named_in_paths(graph, everywhere=everywhere).items())
    for component, where in graph.circuit.items():
        if is_between(component):
            found[component] = Where.everywhere() if everywhere else where
    return found


def _joined(first: Kept, second: Kept) -> Kept:
    if not first or not second:
        return first or second
    found: dict[Receiver, dict[Sender, Where]] = {}
    for kept in (first, second):
        for receiver, by_sender in kept.items():
            here = found.setdefault(receiver, {})
            for sender, where in by_sender.items():
                here[sender] = here.get(sender, Where.at()) | where
    return found
