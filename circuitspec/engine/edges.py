"""Edge level in one forward: every receiver reads its own mixture of this run's and the source's senders.

With D(s) = what sender s adds to the residual stream in the source run, less what it adds in this one, a receiver
reads the model's own stream plus the sum of D over its ablated senders, at their positions (design section 5, item 6).

Where ablated senders add nothing (zeros), it reads the sum of what the kept ones add. That is the same but for
rounding, which matters: with all that is large taken off again, what is left of a stream would be its rounding error,
and a norm makes that as large as anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from circuitspec.diagnostics import CircuitspecError, Diagnostic
from circuitspec.engine.interventions import Edit
from circuitspec.engine.reads import Reads, edits_of, in_turn
from circuitspec.engine.stream import Stream
from circuitspec.engine.taps import Tap
from circuitspec.graph.edges import Receiver, Sender, sender_index, senders, senders_before
from circuitspec.graph.where import Where
from circuitspec.plan.experiment import Experiment, Sent
from circuitspec.spec.components import Head, Input, Mlp

# of the largest number on the stream: what senders add, worked out one by one, adds up to it but for rounding
_OFF = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 5e-2, torch.bfloat16: 1e-1}


@dataclass(frozen=True)
class _Place:
    """The receivers that read the stream at one tap, grouped by what they read.

    `where[group, sender]` is the number of the Where at which a sender is ablated for a group, -1 for none. `attended`
    is how many layers' attention was added to the stream by then.
    """

    groups: tuple[tuple[Receiver, ...], ...]
    where: Tensor
    attended: int


class EdgeProgram:
    """An experiment's edges, laid out for one model once for all batches."""

    def __init__(self, experiment: Experiment, stream: Stream) -> None:
        self._stream = stream
        shape = stream.shape
        sent = {s.component for reading in experiment.readings for s in reading.senders}
        self.to_zeros = experiment.source is not None and experiment.source.kind == "zero"
        if self.to_zeros:
            sent = set(senders(shape))
        self.senders: tuple[Sender, ...] = tuple(sorted(sent, key=lambda s: sender_index(s, shape)))
        number = {sender: i for i, sender in enumerate(self.senders)}
        wheres = {s.where for reading in experiment.readings for s in reading.senders}
        self.wheres: tuple[Where, ...] = tuple(sorted(wheres, key=Where.canonical))
        named = {where: i for i, where in enumerate(self.wheres)}
        # attention inputs compute together, MLPs and the logits by themselves, also where all read the same
        grouped: dict[Tap, dict[tuple[bool, frozenset[Sent]], list[Receiver]]] = {}
        for reading in sorted(experiment.readings, key=lambda r: self._order(r.receiver)):
            key = (reading.receiver.port is not None, reading.senders)
            grouped.setdefault(stream.read_tap(reading.receiver), {}).setdefault(key, []).append(reading.receiver)
        by_receiver = {reading.receiver: reading for reading in experiment.readings}
        self.places: dict[Tap, _Place] = {}
        for tap, groups in grouped.items():
            before = max(senders_before(r, shape) for own in groups.values() for r in own)
            count = sum(1 for s in self.senders if sender_index(s, shape) < before)
            where = torch.full((len(groups), count), -1, dtype=torch.long)
            for g, own in enumerate(groups.values()):
                for one in by_receiver[own[0]].senders:
                    where[g, number[one.component]] = named[one.where]
            attended = sum(1 for s in senders(shape)[:before] if isinstance(s, Head) and s.head == 0)
            self.places[tap] = _Place(tuple(tuple(own) for own in groups.values()), where, attended)

    def _order(self, receiver: Receiver) -> tuple[Tap, Tap, int]:
        """By place, and there as the projections compute them: rounding is then the same in every run."""
        place = self._stream.read_tap(receiver)
        if receiver.port is None:
            return place, place, 0
        slot = self._stream.port(receiver)
        return place, slot.tap, slot.unit

    def edits(self, columns: Mapping[Where, Tensor], source: Mapping[Tap, Tensor]) -> dict[Tap, Edit]:
        """The edits of one forward.

        columns: bool `[row, pos]` for each of `wheres`. source: the source's values, as `Stream.kept_as` names them.
        """
        return _Forward(self, self._stream, columns, source).edits()


class _Forward:
    def __init__(
        self, program: EdgeProgram, stream: Stream, columns: Mapping[Where, Tensor], source: Mapping[Tap, Tensor]
    ) -> None:
        self._program, self._stream, self._source = program, stream, source
        stacked = torch.stack([columns[where].reshape(-1) for where in program.wheres], -1)  # [token, where]
        kinds, self._kind_of_token = torch.unique(stacked, dim=0, return_inverse=True)
        never = torch.zeros(len(kinds), 1, dtype=torch.bool, device=kinds.device)
        self._holds = torch.cat([kinds, never], -1)  # [kind of token, where]; the last one for "not ablated"
        self._rows_positions = next(iter(columns.values())).shape
        # [token, 1 + sender, d_model]: the model's own stream where it is being read, then the senders' differences;
        # for zeros what is no sender's, and then what the senders add
        self._terms: Tensor | None = None
        self._own: dict[Tap, Tensor] = {}
        self._mixed: tuple[Tap, Tensor] | None = None
        self._masks: dict[Tap, Tensor] = {}

    def edits(self) -> dict[Tap, Edit]:
        edits: dict[Tap, list[Edit]] = {}
        reads: dict[Tap, tuple[Reads, ...]] = {}
        for tap, place in self._program.places.items():
            edits.setdefault(tap, []).append(self._keeper(tap))
            at = tuple(self._touched(tap, g) for g in range(len(place.groups)))
            reads[tap] = (Reads(place.groups, self._reader(tap), at),)
        numbers = {sender: i for i, sender in enumerate(self._program.senders)}
        for layer in dict.fromkeys(s.layer for s in numbers if isinstance(s, Head)):
            heads = [s.head for s in numbers if isinstance(s, Head) and s.layer == layer]
            edits.setdefault(Tap(layer, "z"), []).append(
                self._after_heads(layer, heads, numbers[Head(layer, heads[0])])
            )
        for sender, number in numbers.items():
            if isinstance(sender, Mlp | Input):
                edits.setdefault(self._stream.recorded_at(sender), []).append(self._after(sender, number))
        for tap, edit in edits_of(self._stream, reads).items():
            edits.setdefault(tap, []).append(edit)
        return {tap: in_turn(those) for tap, those in edits.items()}

    def _keeper(self, tap: Tap) -> Edit:
        def keep(own: Tensor) -> Tensor:
            self._own[tap] = own
            return own

        return keep

    def _after(self, sender: Mlp | Input, number: int) -> Edit:
        def keep(own: Tensor) -> Tensor:
            term = self._term(own, 1 + number, 2 + number).view(own.shape)
            if self._program.to_zeros:
                term.copy_(own)
            else:
                torch.sub(self._source[self._stream.kept_as(sender)], own, out=term)
            return own

        return keep

    def _after_heads(self, layer: int, heads: list[int], number: int) -> Edit:
        def keep(z: Tensor) -> Tensor:
            added = self._stream.scaled(layer, z)
            if not self._program.to_zeros:
                added = self._source[self._stream.kept_as(Head(layer, 0))] - added
            contributions = self._stream.heads(layer, added, heads)
            self._term(contributions, 1 + number, 1 + number + len(heads)).copy_(contributions)
            return z

        return keep

    def _term(self, like: Tensor, first: int, last: int) -> Tensor:
        """Some of the terms, `[token, term, d_model]`."""
        if self._terms is None:
            tokens, terms = len(self._kind_of_token), 1 + len(self._program.senders)
            self._terms = like.new_empty(tokens, terms, self._stream.shape.d_model)
        return self._terms[:, first:last]

    def _mask(self, tap: Tap) -> Tensor:
        """bool `[kind of token, group, sender]`"""
        if tap not in self._masks:
            self._masks[tap] = self._holds[:, self._program.places[tap].where.to(self._holds.device)]
        return self._masks[tap]

    def _touched(self, tap: Tap, group: int) -> Tensor | None:
        """bool `[row, pos]`: where a group reads anything else than the model's own stream; None for everywhere."""
        kinds = self._mask(tap)[:, group].any(-1)
        return None if bool(kinds.all()) else kinds[self._kind_of_token].view(self._rows_positions)

    def _reader(self, tap: Tap) -> Callable[[], Tensor]:
        def read() -> Tensor:
            if self._mixed is None or self._mixed[0] != tap:
                groups = len(self._program.places[tap].groups)
                self._mixed = (tap, self._mix(tap).view(*self._rows_positions, groups, -1))
            return self._mixed[1]

        return read

    def _mix(self, tap: Tap) -> Tensor:
        """What each group reads, `[token, group, d_model]`."""
        own, mask = self._own[tap], self._mask(tap)
        terms = self._term(own, 0, 1 + mask.shape[-1])
        if self._program.to_zeros:
            terms[:, 0] = self._stream.attention_biases(self._program.places[tap].attended)
            mask = ~mask
            if tap == max(self._program.places):
                self._check(terms, own)
        else:
            terms[:, 0] = own.reshape(-1, own.shape[-1])
        weights = nn.functional.pad(mask.to(own.dtype), (1, 0), value=1.0)
        return torch.bmm(
            weights.expand(len(terms), -1, -1) if len(weights) == 1 else weights[self._kind_of_token], terms
        )

    def _check(self, terms: Tensor, own: Tensor) -> None:
        """Raise CS503 unless the stream is the sum of what its senders add."""
        total = terms.float().sum(1) if terms.dtype in (torch.float16, torch.bfloat16) else terms.sum(1)
        off, size = float((total - own.reshape(total.shape)).abs().max()), float(own.abs().max())
        if not off <= _OFF[own.dtype] * size:
            raise CircuitspecError(
                Diagnostic(
                    "CS503",
                    f"what embeddings, heads and MLPs add is not the residual stream: off by {off:.2g} of {size:.2g}",
                    hint="ablate to resampled or mean values: for these no stream is added up from its parts",
                )
            )
