"""Receivers that read another residual stream than the model's: edits at the taps where they compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from circuitspec.engine.execution.interventions import Edit
from circuitspec.engine.execution.taps import Tap
from circuitspec.engine.levels.residual_stream import Stream
from circuitspec.graph.edges import Receiver
from circuitspec.hypothesis_file.grammar.components import Logits, Mixer, Mlp

CHUNK = 2**22  # numbers: fewer make products slow, more are fresh pages each time


@dataclass(frozen=True)
class ProjectionSlices:
    """Slices of one projection that are computed together, and for each the group of its receiver.

    They all read the same stream, or each one of its own.
    """

    units: tuple[int, ...]
    groups: tuple[int, ...]


@dataclass(frozen=True)
class ReceiverLayout:
    """Where the receivers of one place compute (a layer's attention, its MLP, the final norm), by number of group."""

    logits: tuple[int, ...]
    mlps: tuple[tuple[int, int], ...]  # layer, group
    mixers: tuple[tuple[int, int], ...]
    projections: Mapping[Tap, tuple[ProjectionSlices, ...]]

    @classmethod
    def of(cls, groups: Sequence[Sequence[Receiver]], stream: Stream) -> ReceiverLayout:
        """Groups of receivers, each of which reads one stream."""
        logits, mlps, mixers = [], [], []
        units: dict[Tap, dict[int, list[int]]] = {}
        for number, receiver in ((g, receiver) for g, group in enumerate(groups) for receiver in group):
            match receiver.component:
                case Logits():
                    logits.append(number)
                case Mlp(layer):
                    mlps.append((layer, number))
                case Mixer(layer):
                    mixers.append((layer, number))
                case _:
                    for slot in stream.ports(receiver):
                        units.setdefault(slot.tap, {}).setdefault(number, []).append(slot.unit)
        return cls(
            tuple(logits),
            tuple(mlps),
            tuple(mixers),
            {tap: tuple(_bundles(by_group)) for tap, by_group in units.items()},
        )


def _bundles(units: Mapping[int, Sequence[int]]) -> Iterator[ProjectionSlices]:
    """Of one projection's slices by group: those of each group that has several, and all others together."""
    for group, shared in units.items():
        if len(shared) > 1:
            yield ProjectionSlices(tuple(sorted(shared)), (group,) * len(shared))
    if single := sorted((shared[0], group) for group, shared in units.items() if len(shared) == 1):
        yield ProjectionSlices(tuple(unit for unit, _ in single), tuple(group for _, group in single))


@dataclass(frozen=True)
class Reads:
    """What the receivers of one place read, by group.

    streams: the residual streams `[row, pos, group, d_model]`, asked for when the place is reached; where there are
        more than groups, nobody here reads the others.
    at: for each group bool `[row, pos]`, where it reads that; elsewhere it reads the model's own. None: everywhere.
    """

    layout: ReceiverLayout
    streams: Callable[[], Tensor]
    at: tuple[Tensor | None, ...]


def single(stream: Stream, receivers: tuple[Receiver, ...], read: Tensor, at: Tensor | None = None) -> Reads:
    """Receivers that read one residual stream `[row, pos, d_model]`."""
    return Reads(ReceiverLayout.of([receivers], stream), lambda: read.unsqueeze(2), (at,))


def edits_of(stream: Stream, reads: Mapping[Tap, Sequence[Reads]]) -> dict[Tap, Edit]:
    """The edits that make receivers compute from what they are to read; `reads` by the tap of the own stream."""
    edits: dict[Tap, list[Edit]] = {}
    attention: dict[Tap, list[Reads]] = {}
    for read in (read for here in reads.values() for read in here):
        for number in read.layout.logits:
            final = Tap(stream.shape.n_layers, "final")
            edits.setdefault(final, []).append(_whole(read, number, lambda x: x))
        for layer, number in read.layout.mlps:
            tap, compute = _mlp(stream, layer)
            edits.setdefault(tap, []).append(_whole(read, number, compute))
        for layer, number in read.layout.mixers:
            entering = partial(stream.entering_attention, layer)
            edits.setdefault(Tap(layer, "attn_in"), []).append(_whole(read, number, entering))
        for tap in read.layout.projections:
            attention.setdefault(tap, []).append(read)
    for tap, here in attention.items():
        edits[tap] = [_ports(stream, tap, tuple(here))]
    return {tap: in_turn(those) for tap, those in edits.items()}


def unread(stream: Stream, reads: Mapping[Tap, Sequence[Reads]]) -> frozenset[Tap]:
    """The projections of which `edits_of` replaces every slice at every position."""
    replaced: dict[Tap, set[int]] = {}
    for read in (read for here in reads.values() for read in here):
        for tap, bundles in read.layout.projections.items():
            everywhere = (u for b in bundles for u, g in zip(b.units, b.groups, strict=True) if read.at[g] is None)
            replaced.setdefault(tap, set()).update(everywhere)
    return frozenset(tap for tap, units in replaced.items() if len(units) == tap.units(stream.shape))


def in_turn(edits: Sequence[Edit]) -> Edit:
    """One edit after the other (at one tap receivers may read different streams, each at positions of its own)."""
    if len(edits) == 1:
        return edits[0]

    def edit(own: Tensor) -> Tensor:
        for one in edits:
            own = one(own)
        return own

    return edit


def _mlp(stream: Stream, layer: int) -> tuple[Tap, Callable[[Tensor], Tensor]]:
    if stream.mlp_shares_its_input:  # its input is the stream itself: its output is computed anew instead
        return Tap(layer, "mlp"), lambda read: stream.mlp_output(layer, read)
    return Tap(layer, "mlp_in"), lambda read: stream.entering_mlp(layer, read)


def _whole(read: Reads, group: int, compute: Callable[[Tensor], Tensor]) -> Edit:
    def edit(own: Tensor) -> Tensor:
        new, at = compute(read.streams()[:, :, group]), read.at[group]
        return new if at is None else torch.where(at.unsqueeze(-1), new, own)

    return edit


def _ports(stream: Stream, tap: Tap, reads: Sequence[Reads]) -> Edit:
    """The edit of a projection's output, in which every receiver has a slice."""
    units = tap.units(stream.shape)

    def edit(own: Tensor) -> Tensor:
        rows, positions, channels = own.shape
        sliced = own.view(rows * positions, units, channels // units)
        for read in reads:
            streams = read.streams().flatten(0, 1)  # [token, group, d_model]
            for bundle in read.layout.projections[tap]:
                chosen, at = list(bundle.units), [read.at[g] for g in bundle.groups]
                everywhere = all(one is None for one in at)
                in_place = everywhere and len(chosen) == units
                new = sliced if in_place else sliced.new_empty(len(sliced), len(chosen), channels // units)
                _project(stream, tap, bundle, streams, new)
                if not everywhere:
                    true = torch.ones(rows, positions, dtype=torch.bool, device=own.device)
                    mask = torch.stack([true if one is None else one for one in at], -1).flatten(0, 1)
                    new = torch.where(mask.unsqueeze(-1), new, sliced[:, chosen])
                if not in_place:
                    sliced[:, chosen] = new
        return own

    return edit


def _project(stream: Stream, tap: Tap, bundle: ProjectionSlices, streams: Tensor, out: Tensor) -> None:
    """Put what a bundle computes of its streams into `out` `[token, unit, width]`."""
    units, chosen, first = tap.units(stream.shape), list(bundle.units), bundle.groups[0]
    if set(bundle.groups) == {first}:
        most = 2 * len(chosen) > units  # to copy weights is more than to compute some that are not needed
        projection = stream.projection(tap, range(units) if most else chosen)
        for few in _chunks(streams):
            projected = projection.of_one(stream.entering(tap, streams[few, first]))
            out[few] = projected[:, chosen] if most else projected
    else:
        projection = stream.projection(tap, chosen)
        for few in _chunks(streams):
            projection.of_each(_entering(stream, tap, streams[few], bundle.groups), out=out[few])


def _entering(stream: Stream, tap: Tap, streams: Tensor, groups: Sequence[int]) -> Tensor:
    """What enters a tap's projection of some of the streams, `[token, one of groups, channel]`."""
    last = groups[-1] + 1
    if list(groups) == list(range(last)) and 2 * last > streams.shape[1]:  # to norm a few more is less than to copy
        return stream.entering(tap, streams)[:, :last]
    return stream.entering(tap, streams[:, list(groups)])


def _chunks(streams: Tensor) -> Iterator[slice]:
    """Some tokens at a time, so that what is computed of them is reused memory and not fresh pages."""
    step = max(1, CHUNK // (streams.shape[1] * streams.shape[2]))
    return (slice(start, start + step) for start in range(0, len(streams), step))
