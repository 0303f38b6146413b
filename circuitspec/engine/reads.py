"""Receivers that read another residual stream than the model's: edits at the taps where they compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from circuitspec.engine.interventions import Edit
from circuitspec.engine.stream import Stream
from circuitspec.engine.taps import Tap
from circuitspec.graph.edges import Receiver
from circuitspec.spec.components import Logits, Mlp

CHUNK = 2**22  # numbers: fewer make products slow, more are fresh pages each time


@dataclass(frozen=True)
class Reads:
    """What the receivers of one place (a layer's attention, its MLP, the final norm) read, by group.

    streams: the residual streams `[row, pos, group, d_model]`, asked for when the place is reached; where there are
        more than `groups`, nobody here reads the others.
    at: for each group bool `[row, pos]`, where it reads that; elsewhere it reads the model's own. None: everywhere.
    """

    groups: tuple[tuple[Receiver, ...], ...]
    streams: Callable[[], Tensor]
    at: tuple[Tensor | None, ...]


def single(receivers: tuple[Receiver, ...], stream: Tensor, at: Tensor | None = None) -> Reads:
    """Receivers that read one stream `[row, pos, d_model]`."""
    return Reads((receivers,), lambda: stream.unsqueeze(2), (at,))


def edits_of(stream: Stream, reads: Mapping[Tap, Sequence[Reads]]) -> dict[Tap, Edit]:
    """The edits that make receivers compute from what they are to read; `reads` by the tap of the own stream."""
    edits: dict[Tap, list[Edit]] = {}
    attention: dict[Tap, list[Reads]] = {}
    for read in (read for here in reads.values() for read in here):
        taps: dict[Tap, None] = {}
        for number, group in enumerate(read.groups):
            for receiver in group:
                match receiver.component:
                    case Logits():
                        final = Tap(stream.shape.n_layers, "final")
                        edits.setdefault(final, []).append(_whole(read, number, lambda x: x))
                    case Mlp(layer):
                        tap, compute = _mlp(stream, layer)
                        edits.setdefault(tap, []).append(_whole(read, number, compute))
                    case _:
                        taps[stream.port(receiver).tap] = None
        for tap in taps:
            attention.setdefault(tap, []).append(read)
    for tap, here in attention.items():
        edits[tap] = [_ports(stream, tap, tuple(here))]
    return {tap: in_turn(those) for tap, those in edits.items()}


def unread(stream: Stream, reads: Mapping[Tap, Sequence[Reads]]) -> frozenset[Tap]:
    """The projections of which `edits_of` replaces every slice at every position."""
    replaced: dict[Tap, set[int]] = {}
    for read in (read for here in reads.values() for read in here):
        for group, at in zip(read.groups, read.at, strict=True):
            for slot in (stream.port(receiver) for receiver in group if receiver.port is not None and at is None):
                replaced.setdefault(slot.tap, set()).add(slot.unit)
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


def _chunks(streams: Tensor) -> Iterator[slice]:
    """Some tokens at a time, so that what is computed of them is reused memory and not fresh pages."""
    step = max(1, CHUNK // (streams.shape[1] * streams.shape[2]))
    return (slice(start, start + step) for start in range(0, len(streams), step))


def _entering(stream: Stream, layer: int, streams: Tensor, groups: Sequence[int]) -> Tensor:
    """What enters the projections of some of the streams, `[token, one of groups, d_model]`."""
    last = groups[-1] + 1
    if list(groups) == list(range(last)) and 2 * last > streams.shape[1]:  # to norm a few more is less than to copy these
        return stream.entering_attention(layer, streams)[:, :last]
    return stream.entering_attention(layer, streams[:, groups])


def _ports(stream: Stream, tap: Tap, reads: Sequence[Reads]) -> Edit:
    """The edit of a projection's output, in which every receiver has a slice."""
    units = tap.units(stream.shape)

    def edit(own: Tensor) -> Tensor:
        rows, positions, channels = own.shape
        sliced = own.view(rows, positions, units, channels // units)
        for read in reads:
            here = sorted(
                (stream.port(r).unit, g)
                for g, group in enumerate(read.groups)
                for r in group
                if r.port and stream.port(r).tap == tap
            )
            chosen, groups = [unit for unit, _ in here], [g for _, g in here]
            streams = read.streams().flatten(0, 1)  # [token, group, d_model]
            projection = stream.projection(tap, chosen)
            alike = len(set(groups)) == 1
            new = own.new_empty(len(streams), len(chosen), channels // units)
            for few in _chunks(streams):
                if alike:
                    new[few] = projection.of_one(stream.entering_attention(tap.layer, streams[few, groups[0]]))
                else:
                    new[few] = projection.of_each(_entering(stream, tap.layer, streams[few], groups))
            new = new.view(rows, positions, len(chosen), channels // units)
            at = [read.at[g] for g in groups]
            if any(one is not None for one in at):
                everywhere = torch.ones(rows, positions, dtype=torch.bool, device=own.device)
                mask = torch.stack([everywhere if one is None else one for one in at], -1)
                new = torch.where(mask.unsqueeze(-1), new, sliced[:, :, chosen])
            if chosen == list(range(units)):
                sliced.copy_(new)
            else:
                sliced[:, :, chosen] = new
        return own

    return edit
