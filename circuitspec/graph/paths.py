"""Declared paths over a model: which components each hop names, at which positions, and the edges between hops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from circuitspec.diagnostics.diagnostic import Diagnostic
from circuitspec.graph.dictionary_nodes import unfit_on_paths
from circuitspec.graph.edges import (
    Edge,
    Receiver,
    Sender,
    format_receiver,
    inputs_of,
    is_reader,
    is_sender,
    precedes,
    sender_index,
    senders_before,
)
from circuitspec.graph.members import Member
from circuitspec.graph.nodes import Place, existing, nodes_of
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Component, Feature, stage
from circuitspec.hypothesis_file.grammar.names import GroupRef, PathItem, Port, format_name, parse_path
from circuitspec.hypothesis_file.yaml.source import SourceText


@dataclass(frozen=True)
class Stop:
    """A component on a hop: the inputs by which the path enters it (none: all), and the positions at which it acts.

    `written`: the path itself says where (`a5.h5@S2`), so that it holds whatever the ablation says of positions.
    """

    component: Component
    ports: tuple[Port, ...]
    where: Where
    written: bool = False


@dataclass(frozen=True)
class DeclaredPath:
    """A path of the file, laid over the model: groups and patterns as the components that they stand for."""

    text: str
    place: Place
    hops: tuple[tuple[Stop, ...], ...]

    @property
    def components(self) -> frozenset[Component]:
        return frozenset(stop.component for hop in self.hops for stop in hop)


@dataclass(frozen=True)
class Impossible:
    """Two neighbouring stops of a path between which there is no edge, and why."""

    sender: str
    receiver: str
    reason: str
    place: Place
    out_of_order: bool  # rather than at other positions


def read_path(
    text: str,
    members: Sequence[Member],
    shape: ModelShape,
    source: SourceText,
    place: Place,
    problems: list[Diagnostic],
) -> DeclaredPath:
    """A path's text as stops in this model; CS220 in `problems` for what the model does not have.

    A component acts where the path says (`a5.h5@S2`), else where its group does, else everywhere.
    """
    return read_paths([(text, place)], members, shape, source, problems)[0]


def read_paths(
    texts: Sequence[tuple[str, Place]],
    members: Sequence[Member],
    shape: ModelShape,
    source: SourceText,
    problems: list[Diagnostic],
) -> tuple[DeclaredPath, ...]:
    """As `read_path`, for many."""
    declared: dict[Component, Where] = {}
    for member in members:
        known = declared.get(member.component)
        declared[member.component] = member.where if known is None else known | member.where
    all_positions = Where.everywhere()

    def stops(item: PathItem, place: Place) -> list[Stop]:
        if isinstance(item, GroupRef):
            return [Stop(m.component, item.ports, m.where) for m in members if m.group == item.group]
        named = existing(item, shape, source, place, problems)
        found = [one for component in named for one in nodes_of(component, shape)]
        if item.positions:
            where = Where.at(*item.positions)
            return [Stop(c, item.ports, where, written=True) for c in found]
        return [Stop(c, item.ports, declared.get(c, all_positions)) for c in found]

    return tuple(
        DeclaredPath(
            text, place, tuple(tuple(s for item in hop for s in stops(item, place)) for hop in parse_path(text).hops)
        )
        for text, place in texts
    )


def everywhere(path: DeclaredPath) -> DeclaredPath:
    """The path with every component acting at all positions (`positions: all`), but for those written in it."""
    return replace(path, hops=tuple(tuple(map(_pinned, hop)) for hop in path.hops))


def _pinned(stop: Stop) -> Stop:
    return stop if stop.written else replace(stop, where=Where.everywhere())


def reaches(sender: Component, receiver: Component) -> bool:
    """Whether the order of layers lets one component reach the other, edges or not (residual streams, features)."""
    first, second = stage(sender), stage(receiver)
    return first is None or second is None or first < second


def cuttable(path: DeclaredPath, source: SourceText, shape: ModelShape | None = None) -> list[Diagnostic]:
    """CS226 for stops that are no senders and receivers: edges and paths lie between heads, MLPs, input and logits.

    CS248 for features of which nothing can be sent or read in a model of this shape; without a shape for all features,
    as where edges are cut.
    """
    hops = [[stop.component for stop in hop] for hop in path.hops]
    found = unfit_on_paths(hops, source.span(path.place), shape)
    for number, hop in enumerate(path.hops):
        first, last = number == 0, number == len(path.hops) - 1
        for stop in dict.fromkeys(hop):
            kind = stop.component.kind
            if (kind.sends or last) and (kind.reads or first) and (kind.sends or kind.reads):
                continue
            if kind.reads and kind.in_layers:
                said = "keys and values write nothing to the residual stream"
                hint = "name the heads that read them: a path leaves a layer by its heads"
            elif kind.sends or kind.reads:
                said = "a path starts at `input` and ends at `logits`"
                hint = "write it at that end of the path"
            else:
                said = "edges and paths lie between heads, MLPs, input and logits"
                hint = instead_of(stop.component)
            found.append(
                Diagnostic(
                    "CS226",
                    f"{format_name(stop.component)} cannot stand here: {said}",
                    source.span(path.place),
                    hint=hint,
                )
            )
    return found


def instead_of(component: Component) -> str:
    """What to name in place of a component between which and others there are no edges."""
    return component.kind.instead.format(layer=component.place[0])


def edges_of(path: DeclaredPath, shape: ModelShape) -> tuple[tuple[Edge, ...], tuple[Impossible, ...]]:
    """The edges between neighbouring hops, and the pairs of stops between which there is none.

    An edge lies at the sender's positions; the query of a head and an MLP read at their own positions, so that
    there both must meet. Keys, values and logits are read anywhere.
    """
    edges: list[Edge] = []
    impossible: list[Impossible] = []
    for senders, readers in pairwise(path.hops):
        reads = [
            (reader, receiver, reads_at(reader, receiver), _before(receiver, shape))
            for reader in readers
            if is_reader(reader.component)
            for receiver in inputs_of(reader.component, reader.ports, shape)
        ]
        for sender in senders:
            if not is_sender(sender.component):
                continue
            number = None if isinstance(sender.component, Feature) else sender_index(sender.component, shape)
            for reader, receiver, read, before in reads:
                where = sender.where & read
                if number is None or before is None:
                    early = not precedes(sender.component, receiver, shape)
                else:
                    early = number >= before
                if not early and not where.is_nowhere:
                    edges.append(Edge(sender.component, receiver, where))
                    continue
                reason = f"writes at {spoken(sender.where)}, and that reads at {spoken(reader.where)}"
                reason = "does not come before it" if early else reason
                shown = format_receiver(receiver, shape)
                impossible.append(Impossible(format_name(sender.component), shown, reason, path.place, early))
    return tuple(edges), tuple(dict.fromkeys(impossible))


def _before(receiver: Receiver, shape: ModelShape) -> int | None:
    """How many senders come before it, by their numbers; None for a feature, which comes before none of them."""
    return None if isinstance(receiver.component, Feature) else senders_before(receiver, shape)


def reads_at(stop: Stop, receiver: Receiver) -> Where:
    """The positions at which one input of a stop is read: its own for queries and MLPs, otherwise any."""
    return stop.where if receiver.reads_where_it_acts else Where.everywhere()


def spoken(where: Where) -> str:
    """`S2`, `S1 and S2`, `every position`."""
    if where.is_everywhere:
        return "every position"
    names = " and ".join(sorted(where.roles)) or "no position"
    return f"every position but {names}" if where.inverted else names


def merged(edges: Sequence[Edge]) -> Mapping[Receiver, Mapping[Sender, Where]]:
    """Edges by receiver and sender; declared more than once, they lie at the positions of all."""
    found: dict[Receiver, dict[Sender, Where]] = {}
    for edge in edges:
        by_sender = found.setdefault(edge.receiver, {})
        known = by_sender.get(edge.sender)
        by_sender[edge.sender] = edge.where if known is None else known | edge.where
    return found
