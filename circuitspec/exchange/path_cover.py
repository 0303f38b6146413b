"""Edges -> few paths that mean exactly them: senders with the same receivers (or the reverse) share a path."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from circuitspec.exchange.edge_lists import EdgeList, Mask, Size
from circuitspec.graph.edges import Receiver, Sender, Writer, is_writer
from circuitspec.hypothesis_file.grammar.component_kinds import ATTENTION, HEAD, MLP, ComponentKind
from circuitspec.hypothesis_file.grammar.components import Head, Input, KvHead, Mlp, Pattern, Range, sort_key
from circuitspec.hypothesis_file.grammar.names import PORTS, Name, Port, format_name


def paths_of(edges: EdgeList) -> list[str]:
    """Paths `A, B -> C<q>, D` between whose hops lie these edges and no others, in model order.

    Either senders that reach the same receivers are put together, or receivers that are reached by the same senders,
    whichever is shorter to write.
    """
    size = edges.size
    by_senders = [_path(rows, columns, size) for rows, columns in _alike(edges.kept)]
    by_receivers = [_path(rows, columns, size) for columns, rows in _alike(edges.kept.T)]
    return min(by_senders, by_receivers, key=lambda paths: sum(map(len, paths)))


def names_of(components: Iterable[Writer], size: Size) -> list[str]:
    """Names and patterns that together mean these components, in model order."""
    found = list(components)
    layers: dict[int, list[int]] = {}
    for one in found:
        if isinstance(one, Head):
            layers.setdefault(one.layer, []).append(one.head)
    items = [*_heads(Head, layers, size, ()), *_mlps([c.layer for c in found if isinstance(c, Mlp)], size)]
    return [text for _, text in sorted(items)]


def _alike(kept: Mask) -> Iterator[tuple[list[int], list[int]]]:
    """The rows that are alike, and the columns in which they hold: each row that holds anything, once."""
    groups: dict[bytes, list[int]] = {}
    for row in np.flatnonzero(kept.any(axis=1)).tolist():
        groups.setdefault(kept[row].tobytes(), []).append(row)
    for rows in groups.values():
        yield rows, np.flatnonzero(kept[rows[0]]).tolist()


def _path(rows: Sequence[int], columns: Sequence[int], size: Size) -> str:
    writers = _writers([size.senders[row] for row in rows], size)
    return f"{', '.join(writers)} -> {', '.join(_readers([size.receivers[column] for column in columns], size))}"


def _writers(senders: Sequence[Sender], size: Size) -> list[str]:
    first = ["input"] if Input() in senders else []
    return first + names_of([one for one in senders if is_writer(one)], size)


def _readers(receivers: Sequence[Receiver], size: Size) -> list[str]:
    """Heads by the inputs that are named: `a5` for all of all its heads, `a5.h3<q,v>`, `m3`, `logits`."""
    shared = size.n_kv_heads < size.n_heads
    ports: dict[tuple[_HeadKind, int, int], list[Port]] = {}
    mlps: list[int] = []
    last: list[str] = []
    for receiver in receivers:
        match receiver.component:
            case KvHead(layer, head) if receiver.port is not None:
                ports.setdefault((KvHead if shared else Head, layer, head), []).append(receiver.port)
            case Head(layer, head) if receiver.port is not None:
                ports.setdefault((Head, layer, head), []).append(receiver.port)
            case Mlp(layer):
                mlps.append(layer)
            case _:
                last = ["logits"]
    alike: dict[tuple[_HeadKind, tuple[Port, ...]], dict[int, list[int]]] = {}
    for (kind, layer, head), found in ports.items():
        named = tuple(port for port in PORTS if port in found)
        if named == (PORTS[1:] if kind is KvHead else None if shared else PORTS):
            named = ()
        alike.setdefault((kind, named), {}).setdefault(layer, []).append(head)
    items = [item for (kind, named), layers in alike.items() for item in _heads(kind, layers, size, named)]
    return [text for _, text in sorted([*items, *_mlps(mlps, size)])] + last


_HeadKind: TypeAlias = type[Head] | type[KvHead]
_Item: TypeAlias = tuple[tuple[int, int, int, str], str]
"""Where in the model a name starts, and the name."""


def _heads(
    kind: _HeadKind, layers: Mapping[int, Sequence[int]], size: Size, ports: tuple[Port, ...]
) -> Iterator[_Item]:
    """Heads of one kind, given by layer, as rectangles of layers and heads."""
    count = size.n_heads if kind is Head else size.n_kv_heads
    runs: dict[tuple[int, int], list[int]] = {}
    for layer, members in layers.items():
        for run in _runs(members):
            runs.setdefault(run, []).append(layer)
    for (first, last), where in runs.items():
        for top, bottom in _runs(where):
            layer_index = _index(top, bottom, size.n_layers, size)
            member_index = _index(first, last, count, size)
            whole = kind is Head and (first, last) == (0, count - 1) and not size.inferred
            yield (
                sort_key(kind(top, first)),
                _name(kind.kind, layer_index, None if whole else member_index, ports),
            )


def _mlps(layers: Sequence[int], size: Size) -> Iterator[_Item]:
    for first, last in _runs(layers):
        yield sort_key(Mlp(first)), _name(MLP, _index(first, last, size.n_layers, size), None, ())


@lru_cache(maxsize=8_192)
def _name(kind: ComponentKind, layers: int | Range, members: int | Range | None, ports: tuple[Port, ...]) -> str:
    if kind is HEAD and members is None:
        kind = ATTENTION
    return format_name(Name(Pattern(kind, layers, members), ports))


def _index(first: int, last: int, count: int, size: Size) -> int | Range:
    if first == last:
        return first
    return Range() if (first, last) == (0, count - 1) and not size.inferred else Range(first, last)


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Different numbers as stretches without a gap: (first, last)."""
    if not numbers:
        return
    first, *ordered = sorted(numbers)
    last = first
    for number in ordered:
        if number != last + 1:
            yield first, last
            first = number
        last = number
    yield first, last
