"""Entries of a file that are about values on paths: by a component, or by how a path begins. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.experiments.experiment import Reading, Sent
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.edges import Receiver, Sender, inputs_of, is_reader
from circuitspec.graph.paths import Stop, read_path
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.names import is_group_name, parse_name
from circuitspec.hypothesis_file.yaml.source import Path_, SourceText


@dataclass(frozen=True)
class PathLink:
    """A step of a path from a component on: who sends, and which input reads it."""

    sender: Sender
    where: Where
    receiver: Receiver


@dataclass(frozen=True)
class PathEntry:
    """A key of the file laid over the model: hops of stops, a single one where it names a group or component.

    A key that names some of a value's positions is not about that value.
    """

    key: str
    hops: tuple[tuple[Stop, ...], ...]
    shape: ModelShape

    def fits(self, chain: Sequence[PathLink]) -> bool:
        """Whether a path that begins with these links begins as the entry says."""
        if len(self.hops) > len(chain) + 1:
            return False
        for number, hop in enumerate(self.hops):
            reader = chain[number - 1].receiver if number else None
            sender = chain[number] if number < len(chain) else None
            fitting = [stop for stop in hop if self._is(stop, reader, sender)]
            if not fitting or (sender is not None and not (sender.where & ~_named(fitting, sender.where)).is_nowhere):
                return False
        return True

    def _is(self, stop: Stop, reader: Receiver | None, sender: PathLink | None) -> bool:
        """Whether a stop is what reads by this input and sends on by this link."""
        if sender is not None and not (stop.component == sender.sender and stop.where.meets(sender.where)):
            return False
        if reader is None:
            return True
        return is_reader(stop.component) and reader in inputs_of(stop.component, stop.ports, self.shape)

    @property
    def rank(self) -> tuple[int, int]:
        """How much it says: hops, and hops whose inputs are named."""
        return len(self.hops), sum(any(stop.ports for stop in hop) for hop in self.hops)


def _named(stops: Iterable[Stop], where: Where) -> Where:
    """The positions that stops name of a value; without written positions all of them, of a value everywhere."""
    named = Where.at()
    for stop in stops:
        named |= stop.where if stop.written or not where.is_everywhere else Where.everywhere()
    return named


def split(start: Sent, receiver: Receiver, rest: tuple[PathLink, ...], entries: Iterable[PathEntry]) -> list[Sent]:
    """The start of a path at several positions as several, where entries are about some of these positions.

    What paths send from several positions is one value where all else is the same. A value that is computed stays one.
    """
    pieces = [start.where]
    for entry in () if start.inputs else entries:
        named = _named((stop for stop in entry.hops[0] if stop.component == start.component), start.where)
        some = start.where & named
        if some.is_nowhere or not entry.fits((PathLink(start.component, some, receiver), *rest)):
            continue
        pieces = [part for piece in pieces for part in (piece & named, piece & ~named) if not part.is_nowhere]
    return [replace(start, where=piece) for piece in pieces]


def path_entry(key: str, graph: CircuitGraph, text: SourceText, place: Path_, problems: list[Diagnostic]) -> PathEntry:
    """A key in this model; CS220 in `problems` for what the model does not have.

    A component without positions stands for all of its values; one on a path for that at the path's positions.
    """
    if "->" in key:
        hops = read_path(key, graph.members, graph.shape, text, place, problems).hops
    else:  # the first hop of a path
        hops = read_path(f"{key} -> logits", graph.members, graph.shape, text, place, problems).hops[:1]
        if not is_group_name(key) and not parse_name(key).positions:
            hops = tuple(tuple(replace(stop, where=Where.everywhere()) for stop in hop) for hop in hops)
    return PathEntry(key, hops, graph.shape)


def best_of(entries: Iterable[PathEntry], chain: Sequence[PathLink]) -> tuple[PathEntry, ...]:
    """The entries that fit and say the most, several only where they say as much."""
    fitting = [entry for entry in entries if entry.fits(chain)]
    most = max((entry.rank for entry in fitting), default=None)
    return tuple(entry for entry in fitting if entry.rank == most)


def with_sources(
    readings: frozenset[Reading], sources: Mapping[str, str], graph: CircuitGraph, text: SourceText, place: Path_
) -> frozenset[Reading]:
    """The readings with the starts of paths at their values in sources of their own, by entries at `place` of the file.

    Raises CS239 for two entries that say as much of one value, and not the same; CS244 for one that is about none.
    """
    problems: list[Diagnostic] = []
    entries = [path_entry(key, graph, text, (*place, key), problems) for key in sources]
    if problems:
        raise CircuitspecError(*problems)
    used: set[str] = set()

    def read(given: frozenset[Reading], rest: tuple[PathLink, ...]) -> frozenset[Reading]:
        return frozenset(
            replace(
                one,
                senders=frozenset(
                    sent(part, one.receiver, rest)
                    for whole in one.senders
                    for part in split(whole, one.receiver, rest, entries)
                ),
            )
            for one in given
        )

    def sent(one: Sent, receiver: Receiver, rest: tuple[PathLink, ...]) -> Sent:
        chain = (PathLink(one.component, one.where, receiver), *rest)
        if one.inputs:
            return replace(one, inputs=read(one.inputs, chain))
        found = best_of(entries, chain)
        used.update(entry.key for entry in entries if entry.fits(chain))
        if len({sources[entry.key] for entry in found}) > 1:
            problems.append(two_entries(found[0].key, found[1].key, text, place))
        return replace(one, prompts=sources[found[0].key]) if found else one

    changed = read(readings, ())
    problems += [
        Diagnostic(
            "CS244",
            f"no path starts as {key} does, so that it has no source",
            text.span((*place, key), key=True),
            hint="name the start of a path, at all of its positions, or a path from its start on: A -> B<q>",
        )
        for key in sources
        if key not in used
    ]
    if problems:
        raise CircuitspecError(*dict.fromkeys(problems))
    return changed


def two_entries(one: str, other: str, text: SourceText, place: Path_) -> Diagnostic:
    """CS239."""
    return Diagnostic(
        "CS239",
        f"{one} and {other} are about one value, and do not say the same of it",
        text.span((*place, other), key=True),
        hint="name the path further on in one of them, or with the input: A -> B<q>",
    )
