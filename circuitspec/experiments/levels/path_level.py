"""Experiments at path level: values travel along given paths, with everything else frozen.

One path with its hops is path patching (Wang et al. 2022, appendix B). A set of paths in which a component may be
kept on one path and ablated on another is a treeified hypothesis (Goldowsky-Dill et al. 2023): a component's value
depends on the rest of the path on which it is seen.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.experiments.experiment import Experiment, PathRule, Reading, Sent, Source, Variant
from circuitspec.graph.dictionary_nodes import clash
from circuitspec.graph.edges import Reader, Receiver, Sender, inputs_of, is_reader, is_sender, owners, precedes, sharing
from circuitspec.graph.paths import DeclaredPath, Stop, reads_at
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import (
    Component,
    Feature,
    Head,
    Input,
    KvHead,
    Logits,
    Mlp,
    sort_key,
)
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.hypothesis_file.yaml.source import SourceText

_Key = TypeVar("_Key")


def along(paths: Sequence[DeclaredPath], shape: ModelShape, text: SourceText) -> frozenset[Reading]:
    """What arrives at the ends of these paths, each taken by itself from its first hop to its last.

    An end that nothing reaches, for its position, reads what it does in the base run; nothing if that is all of them.
    Raises CS229 where a component is to have two values at once.
    """
    values = _Values(paths, shape, linked=False)
    readings = values.joined(reading for number in range(len(paths)) for reading in values.at_open_end(number))
    if not any(reading.senders for reading in readings):
        return frozenset()
    _check(readings, paths, shape, text)
    return readings


def into(receiver: Receiver, senders: frozenset[Sent], where: Where, shape: ModelShape) -> frozenset[Reading]:
    """What an open path brings into one receiver; a key or value acts for all heads that read it."""
    return frozenset(Reading(receiver, senders, where, head=head) for head in _heads(receiver.component, shape))


def path_set(paths: Sequence[DeclaredPath], shape: ModelShape, text: SourceText) -> frozenset[Reading]:
    """What arrives at the logits along a set of paths; a path that starts where another one ends continues that one.

    Raises CS228 for components at which a path ends and from which none goes on to the logits, CS229 where a
    component is to have two values at once.
    """
    values = _Values(paths, shape, linked=True)
    problems = [
        Diagnostic(
            "CS228",
            f"this path ends at {', '.join(lost)}, and no declared path goes on from there",
            text.span(path.place),
            hint="continue it: add a path that starts there and leads to logits",
        )
        for number, path in enumerate(paths)
        if (lost := values.lost(number))
    ]
    if problems:
        raise CircuitspecError(*problems)
    arriving = [reading for number in range(len(paths)) for reading in values.at_end(number)]
    readings = values.joined(reading for reading in arriving if reading.at_logits)
    _check(readings, paths, shape, text)
    return readings


def overruled(paths: Sequence[DeclaredPath], shape: ModelShape) -> tuple[str, ...]:
    """Components with a path into them that adds nothing, as another one starts there before the same rest of a path.

    The start has the component's whole value, whatever reached it by the other path.
    """
    values = _Values(paths, shape, linked=True)
    values.joined(reading for number in range(len(paths)) for reading in values.at_end(number))
    return tuple(format_name(component) for component in sorted(values.overruled, key=sort_key))


def travelling(
    base: Variant,
    source: Source,
    readings: frozenset[Reading],
    paths: Iterable[DeclaredPath],
    *,
    through: Sequence[str] | None,
    keep: bool = False,
) -> Experiment:
    """The base run into which the source's values travel by `readings`; with `keep`, all else is the source's instead.

    `through` is the file's: MLPs unless it says otherwise.
    """
    named = {c for path in paths for c in path.components}
    mlps = frozenset(c for c in named if isinstance(c, Mlp))
    passing = through is None or "mlp" in through
    features = frozenset(c for c in named if isinstance(c, Feature))
    rule = PathRule("source" if keep else "base", passing, mlps if passing else frozenset(), features)
    if keep and not readings:
        readings = frozenset({Reading(Receiver(Logits()), frozenset())})
    return Experiment(base, source if readings else None, readings=readings, rule=rule if readings else None)


def nothing_kept(source: Source, paths: Iterable[DeclaredPath], through: Sequence[str] | None) -> Experiment:
    """The run in which every path is ablated."""
    return travelling("clean", source, frozenset(), paths, through=through, keep=True)


@dataclass
class _Values:
    """What arrives where along paths (which are known by their numbers); each place is worked out once.

    With `linked`, a path that starts at a component at which others end continues those; otherwise every path
    starts with its own first hop.
    """

    paths: Sequence[DeclaredPath]
    shape: ModelShape
    linked: bool
    overruled: set[Sender] = field(default_factory=set)  # whose computed value gave way to a start everywhere
    _arriving: dict[tuple[int, int, Stop], tuple[Reading, ...]] = field(default_factory=dict)
    _sent: dict[tuple[int, int, Stop], tuple[Sent, ...]] = field(default_factory=dict)

    def at_end(self, path: int) -> list[Reading]:
        """What the last hop of a path reads of it."""
        last = len(self.paths[path].hops) - 1
        return [reading for stop in self.paths[path].hops[last] for reading in self._arrives(path, last, stop)]

    def at_open_end(self, path: int) -> list[Reading]:
        """What the ends of a path read where it is not continued, and which heads act on it at which positions."""
        last = len(self.paths[path].hops) - 1
        found = []
        for stop in self.paths[path].hops[last]:
            arriving = {reading.receiver: reading for reading in self._arrives(path, last, stop)}
            for receiver in _receivers(stop, self.shape) if self._before(path, last, stop) else ():
                reading = arriving.get(receiver) or Reading(receiver, frozenset(), reads_at(stop, receiver))
                acting = stop.where if receiver.port in ("k", "v") else Where.everywhere()
                found += [replace(reading, acting=acting, head=head) for head in _heads(stop.component, self.shape)]
        return found

    def lost(self, path: int) -> list[str]:
        """The components before the logits at which a path ends for good."""
        ends = [end for end in self._reached[path] if end.component != Logits()]
        starts = [start for leading in self._leading for start in leading]
        lost = [end.component for end in ends if not any(self._same(end, start) for start in starts)]
        return [format_name(component) for component in dict.fromkeys(lost)]

    def _arrives(self, path: int, hop: int, stop: Stop) -> tuple[Reading, ...]:
        """What the inputs of a stop (not on the first hop) read of the hop before."""
        if (path, hop, stop) not in self._arriving:
            sent = [value for start in self._before(path, hop, stop) for value in self._values(path, hop - 1, start)]
            readings = []
            for receiver in _receivers(stop, self.shape):
                where = reads_at(stop, receiver)
                meeting = [value for value in sent if value.where.meets(where)]
                if meeting:
                    readings.append(Reading(receiver, self._combined(meeting), where))
            self._arriving[path, hop, stop] = tuple(readings)
        return self._arriving[path, hop, stop]

    def _values(self, path: int, hop: int, stop: Stop) -> tuple[Sent, ...]:
        """The values with which a stop sends to the next hop, each at positions of its own; none if none reach it."""
        if (path, hop, stop) not in self._sent:
            assert is_sender(stop.component)
            ends = self._ends(stop) if hop == 0 and self.linked else []
            found: dict[Where, list[Reading]] = {}
            if hop > 0:
                found[stop.where] = [*self._arrives(path, hop, stop)]
            for other, end in ends:
                arriving = self._arrives(other, len(self.paths[other].hops) - 1, end)
                found.setdefault(stop.where & end.where, []).extend(arriving)
            if hop == 0 and not ends:
                self._sent[path, hop, stop] = (Sent(stop.component, stop.where),)
            else:
                self._sent[path, hop, stop] = tuple(
                    Sent(stop.component, where, self.joined(inputs)) for where, inputs in found.items() if inputs
                )
        return self._sent[path, hop, stop]

    def _ends(self, start: Stop) -> list[tuple[int, Stop]]:
        """Where paths end that a path from `start` continues."""
        return [(path, end) for path, ends in enumerate(self._reached) for end in ends if self._same(end, start)]

    @cached_property
    def _reached(self) -> list[list[Stop]]:
        """Of the last hop of each path, the stops to which it leads: past stops of the hops before, in model order."""
        found = []
        for path in self.paths:
            reached = list(path.hops[0])
            for hop in path.hops[1:]:
                reached = [stop for stop in hop if any(self._precedes(start, stop) for start in reached)]
            found.append(reached)
        return found

    @cached_property
    def _leading(self) -> list[list[Stop]]:
        """Of the first hop of each path, the stops from which it leads to its end."""
        found = []
        for path in self.paths:
            leading = list(path.hops[-1])
            for hop in reversed(path.hops[:-1]):
                leading = [start for start in hop if any(self._precedes(start, stop) for stop in leading)]
            found.append(leading)
        return found

    def _before(self, path: int, hop: int, stop: Stop) -> list[Stop]:
        """The stops of the hop before that come before this one in the model."""
        return [start for start in self.paths[path].hops[hop - 1] if self._precedes(start, stop)]

    def _precedes(self, start: Stop, stop: Stop) -> bool:
        receiver = _receivers(stop, self.shape)[0]  # heads read by q, k and v at once
        return is_sender(start.component) and precedes(start.component, receiver, self.shape)

    def _same(self, end: Stop, start: Stop) -> bool:
        if not end.where.meets(start.where):
            return False
        return start.component in (sharing(end.component, self.shape) or (end.component,))

    def joined(self, readings: Iterable[Reading]) -> frozenset[Reading]:
        """One reading for each receiver and its positions, and at open ends for each head that acts on it."""
        found: dict[Reading, set[frozenset[Sent]]] = {}
        for reading in readings:
            found.setdefault(replace(reading, senders=frozenset()), set()).add(reading.senders)
        acting: dict[Reading, Where] = {}
        for place, groups in found.items():
            senders = _united(groups) or self._combined(itertools.chain(*groups))
            key = replace(place, senders=senders, acting=Where.at())
            acting[key] = acting.get(key, Where.at()) | place.acting
        return frozenset(replace(key, acting=here) for key, here in acting.items())

    def _combined(self, senders: Iterable[Sent]) -> frozenset[Sent]:
        """One value for each component and its positions: a path's start dominates, inputs of several paths add up."""
        starts: dict[Sender, Where] = {}
        computed: dict[tuple[Sender, Where], set[frozenset[Reading]]] = {}
        for sent in senders:
            if sent.inputs:
                computed.setdefault((sent.component, sent.where), set()).add(sent.inputs)
            else:
                starts[sent.component] = starts.get(sent.component, Where.at()) | sent.where
        found = {Sent(component, where) for component, where in starts.items()}
        for (component, where), groups in computed.items():
            left = where & ~starts[component] if component in starts else where
            if left.is_nowhere:
                self.overruled.add(component)
            else:
                found.add(Sent(component, left, _united(groups) or self.joined(itertools.chain(*groups))))
        return frozenset(found)


def _receivers(stop: Stop, shape: ModelShape) -> tuple[Receiver, ...]:
    if not is_reader(stop.component):
        return ()
    return tuple(inputs_of(stop.component, stop.ports, shape))


def _heads(component: Component, shape: ModelShape) -> tuple[Head | None, ...]:
    """The heads that act at the end of a path: the one that is named, or all that read a key-value head; else none."""
    match component:
        case Head():
            return (component,)
        case KvHead():
            return tuple(head for head in owners(Receiver(component, "k"), shape) if isinstance(head, Head))
        case _:
            return (None,)


def _united(groups: set[frozenset[_Key]]) -> frozenset[_Key] | None:
    """The one group that there is (which needs no work, however deep it goes); None where there are several."""
    return next(iter(groups)) if len(groups) == 1 else None


def _check(readings: frozenset[Reading], paths: Sequence[DeclaredPath], shape: ModelShape, text: SourceText) -> None:
    """CS229: one component or receiver with different values at a common position.

    CS249: a feature, and the component that it is a part of, on the same paths.
    """
    _check_parts(paths, shape, text)
    clashing = [component for component, one, other in side_by_side(readings) if one.meets(other)]
    if clashing:
        raise CircuitspecError(
            *(
                Diagnostic(
                    "CS229",
                    f"{format_name(component)} has different values at overlapping positions before the same rest of a "
                    "path",
                    text.span(next(path.place for path in paths if component in path.components)),
                    hint="give it the same positions in all paths, or positions that share none",
                )
                for component in dict.fromkeys(clashing)
            )
        )


def _check_parts(paths: Sequence[DeclaredPath], shape: ModelShape, text: SourceText) -> None:
    named = dict.fromkeys(component for path in paths for component in path.components)
    features = [one for one in named if isinstance(one, Feature)]
    wholes = [one for one in named if not isinstance(one, Feature | Input | Logits)]
    problems = [
        Diagnostic(
            "CS249",
            f"{format_name(feature)} is a part of what {format_name(whole)} adds, and both are on one path or claim",
            text.span(next(path.place for path in paths if feature in path.components)),
            hint="keep one of the two, or claim them one by one",
        )
        for feature in features
        for whole in wholes
        if clash(feature, whole, shape)
    ]
    if problems:
        raise CircuitspecError(*sorted(problems, key=lambda problem: problem.message))


def side_by_side(readings: frozenset[Reading]) -> tuple[tuple[Sender | Reader, Where, Where], ...]:
    """Components that send different values from two places before the same rest of a path, or read them there."""
    found: set[tuple[Sender | Reader, Where, Where]] = set()
    seen: set[frozenset[Reading]] = set()

    def visit(group: frozenset[Reading]) -> None:
        if group in seen:
            return
        seen.add(group)
        ends = (((one.receiver, one.head), one.where & one.acting) for one in group)
        found.update((head or receiver.component, a, b) for (receiver, head), a, b in _pairs(ends))
        for one in group:
            found.update(_pairs((sent.component, sent.where) for sent in one.senders))
            for sent in one.senders:
                visit(sent.inputs)

    visit(readings)
    return tuple(sorted(found, key=lambda one: (sort_key(one[0]), one[1].canonical(), one[2].canonical())))


def _pairs(placed: Iterable[tuple[_Key, Where]]) -> list[tuple[_Key, Where, Where]]:
    """Every two places of what has several."""
    wheres: dict[_Key, list[Where]] = {}
    for key, where in placed:
        wheres.setdefault(key, []).append(where)
    return [
        (key, one, other)
        for key, those in wheres.items()
        for one, other in itertools.combinations(sorted(those, key=Where.canonical), 2)
    ]
