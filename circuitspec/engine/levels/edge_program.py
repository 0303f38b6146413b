"""Edge level in one forward: every receiver reads its own mixture of this run's and the source's senders.

With D(s) = what sender s adds to the residual stream in the source run, less what it adds in this one, a receiver
reads the model's own stream plus the sum of D over its ablated senders, at their positions.

Where ablated senders add nothing (zeros), it reads the sum of what the kept ones add. That is the same but for
rounding, which matters: with all that is large taken off again, what is left of a stream would be its rounding error,
and a norm makes that as large as anything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.execution.compiler import Actions
from circuitspec.engine.execution.interventions import Edit
from circuitspec.engine.execution.taps import Tap
from circuitspec.engine.levels.receiver_reads import Reads, ReceiverLayout, edits_of, in_turn, unread
from circuitspec.engine.levels.residual_stream import Stream
from circuitspec.experiments.experiment import Experiment, Sent
from circuitspec.graph.edges import Receiver, Sender, receivers, sender_index, senders, senders_before
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Input, Mixer, Mlp

# of the largest number on the stream: what senders add, worked out one by one, adds up to it but for rounding
_OFF = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 5e-2, torch.bfloat16: 1e-1}


@dataclass(frozen=True)
class _Place:
    """The receivers that read the stream at one tap, grouped by what they read.

    `layout` says where they compute. `where[group, sender]` is the number of the Where at which a sender is ablated for
    a group, -1 for none. `whole` are the groups that compute anew at all tokens, whatever they read. `attended` is how
    many layers' attention (or mixer) was added to the stream by then. `begins` are later places whose sums are begun
    here, as far as senders have computed: one more group costs next to nothing, another pass over all senders much.
    """

    layout: ReceiverLayout
    where: Tensor
    whole: frozenset[int]
    attended: int
    begins: tuple[Tap, ...] = ()


class EdgeProgram:
    """An experiment's edges, laid out for one model once for all batches."""

    def __init__(self, experiment: Experiment, stream: Stream) -> None:
        self._stream = stream
        shape = stream.shape
        sent = {s.component for reading in experiment.readings for s in reading.senders}
        self.to_zeros = experiment.source is not None and experiment.source.row.is_zero
        if self.to_zeros:
            sent = set(senders(shape))
        self.senders: tuple[Sender, ...] = tuple(sorted(sent, key=lambda s: sender_index(s, shape)))
        number = {sender: i for i, sender in enumerate(self.senders)}
        wheres = {s.where for reading in experiment.readings for s in reading.senders} | {Where.everywhere()}
        self.wheres: tuple[Where, ...] = tuple(sorted(wheres, key=Where.canonical))
        named = {where: i for i, where in enumerate(self.wheres)}
        # attention inputs compute together, MLPs and the logits by themselves, also where all read the same
        grouped: dict[Tap, dict[tuple[bool, frozenset[Sent]], list[Receiver]]] = {}
        for reading in sorted(experiment.readings, key=lambda r: self._order(r.receiver)):
            key = (reading.receiver.port is not None, reading.senders)
            grouped.setdefault(stream.read_tap(reading.receiver), {}).setdefault(key, []).append(reading.receiver)
        senders_of = {reading.receiver: reading.senders for reading in experiment.readings}
        own_stream, replaced = self._replaced(senders_of)
        for receiver in own_stream:
            senders_of[receiver] = frozenset()
            grouped[stream.read_tap(receiver)].setdefault((True, frozenset()), []).append(receiver)
        self.places: dict[Tap, _Place] = {}
        for tap, alike in grouped.items():
            groups = list(alike.values())
            if 2 * len(groups) > sum(map(len, groups)):  # to sum anew is less than to copy
                groups = sorted([[one] for own in groups for one in own], key=lambda own: self._order(own[0]))
            before = max(senders_before(r, shape) for own in groups for r in own)
            count = sum(1 for s in self.senders if sender_index(s, shape) < before)
            where = torch.full((len(groups), count), -1, dtype=torch.long)
            for g, own in enumerate(groups):
                for one in senders_of[own[0]]:
                    where[g, number[one.component]] = named[one.where]
            layers = {s.layer for s in senders(shape)[:before] if isinstance(s, Head | Mixer)}
            attended = 1 + max(layers, default=-1)
            whole = {g for g, own in enumerate(groups) if all(self._among(r, replaced) for r in own)}
            self.places[tap] = _Place(ReceiverLayout.of(groups, stream), where, frozenset(whole), attended)
        first: Tap | None = None
        for tap in sorted(self.places):
            place = self.places[tap]
            if place.layout.projections:
                first = tap
            elif first is not None:
                self.places[first] = replace(self.places[first], begins=(*self.places[first].begins, tap))

    def _replaced(self, touched: Collection[Receiver]) -> tuple[list[Receiver], frozenset[Tap]]:
        """Projections that edits replace altogether, with those of their receivers that read the model's own stream.

        Where most slices are replaced, the others are computed anew too, so that the model need not compute any.
        """
        by_tap: dict[Tap, list[Receiver]] = {}
        for receiver in receivers(self._stream.shape):
            for tap in self._projections(receiver):
                by_tap.setdefault(tap, []).append(receiver)
        most = {tap for tap, here in by_tap.items() if 2 * sum(r in touched for r in here) > len(here)}
        anew = [r for tap in by_tap if tap in most for r in by_tap[tap] if r not in touched]
        return list(dict.fromkeys(anew)), frozenset(most)

    def _projections(self, receiver: Receiver) -> tuple[Tap, ...]:
        """Those that compute it: none for what enters an MLP, and the logits."""
        slots = () if receiver.port is None else self._stream.ports(receiver)
        return tuple(dict.fromkeys(slot.tap for slot in slots))

    def _among(self, receiver: Receiver, replaced: Collection[Tap]) -> bool:
        taps = self._projections(receiver)
        return bool(taps) and all(tap in replaced for tap in taps)

    def _order(self, receiver: Receiver) -> tuple[Tap, Tap, int]:
        """By place, and there as the projections compute them: rounding is then the same in every run."""
        place = self._stream.read_tap(receiver)
        if receiver.port is None:
            return place, place, 0
        slot = self._stream.ports(receiver)[0]
        return place, slot.tap, slot.unit

    def actions(self, columns: Mapping[Where, Tensor], source: Mapping[Tap, Tensor]) -> Actions:
        """The edits of one forward, to be run before those of another are asked for.

        columns: bool `[row, pos]` for each of `wheres`. source: the source's values, as `Stream.kept_as` names them.
        """
        return _Forward(self, self._stream, columns, source).actions()


def _kinds(columns: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The distinct rows `[kind, column]` of what these columns `[row]` are side by side, and which one each row is."""
    kind = torch.zeros_like(columns[0], dtype=torch.long)
    for column in columns:  # unlike unique rows, found one by one: several times faster
        _, kind = torch.unique(2 * kind + column, return_inverse=True)
    kinds = torch.empty(int(kind.max()) + 1, len(columns), dtype=torch.bool, device=kind.device)
    kinds[kind] = torch.stack(list(columns), -1)
    return kinds, kind


class _Forward:
    def __init__(
        self, program: EdgeProgram, stream: Stream, columns: Mapping[Where, Tensor], source: Mapping[Tap, Tensor]
    ) -> None:
        self._program, self._stream, self._source = program, stream, source
        kinds, self._kind_of_token = _kinds([columns[where].reshape(-1) for where in program.wheres])
        self._real = kinds[:, program.wheres.index(Where.everywhere())]  # [kind of token]: no padding
        never = torch.zeros(len(kinds), 1, dtype=torch.bool, device=kinds.device)
        self._holds = torch.cat([kinds, never], -1)  # [kind of token, where]; the last one for "not ablated"
        self._rows_positions = next(iter(columns.values())).shape
        # [1 + sender, token, d_model]: the model's own stream where it is being read, then the senders' differences;
        # for zeros what is no sender's, and then what the senders add
        self._terms: Tensor | None = None
        self._own: dict[Tap, Tensor] = {}
        self._mixed: tuple[Tap, Tensor] | None = None
        self._begun: dict[Tap, tuple[Tensor, int]] = {}  # what the first senders give, [token, group, d_model]
        self._masks: dict[Tap, Tensor] = {}

    def actions(self) -> Actions:
        edits: dict[Tap, list[Edit]] = {}
        reads: dict[Tap, tuple[Reads, ...]] = {}
        for tap, place in self._program.places.items():
            edits.setdefault(tap, []).append(self._keeper(tap))
            reads[tap] = (Reads(place.layout, self._reader(tap), self._touched(tap)),)
        numbers = {sender: i for i, sender in enumerate(self._program.senders)}
        for layer in dict.fromkeys(s.layer for s in numbers if isinstance(s, Head)):
            heads = [s.head for s in numbers if isinstance(s, Head) and s.layer == layer]
            edits.setdefault(Tap(layer, "z"), []).append(
                self._after_heads(layer, heads, numbers[Head(layer, heads[0])])
            )
        for sender, number in numbers.items():
            if isinstance(sender, Mixer | Mlp | Input):
                edits.setdefault(self._stream.recorded_at(sender), []).append(self._after(sender, number))
        for tap, edit in edits_of(self._stream, reads).items():
            edits.setdefault(tap, []).append(edit)
        in_order = {tap: in_turn(those) for tap, those in edits.items()}
        return Actions(edits=in_order, unread=unread(self._stream, reads), answers_alone=True)

    def _keeper(self, tap: Tap) -> Edit:
        def keep(own: Tensor) -> Tensor:
            self._own[tap] = own
            return own

        return keep

    def _after(self, sender: Mixer | Mlp | Input, number: int) -> Edit:
        def keep(own: Tensor) -> Tensor:
            term = self._term(own, 1 + number, 2 + number)[0].view(own.shape)
            if self._program.to_zeros:
                self._stream.sent(sender, own, out=term)
            else:
                torch.sub(self._source[self._stream.kept_as(sender)], own, out=term)
                self._stream.sent(sender, term, out=term)
            return own

        return keep

    def _after_heads(self, layer: int, heads: list[int], number: int) -> Edit:
        def keep(z: Tensor) -> Tensor:
            added = self._stream.scaled(layer, z)
            if not self._program.to_zeros:
                added = self._source[self._stream.kept_as(Head(layer, 0))] - added
            self._stream.heads(layer, added, heads, out=self._term(z, 1 + number, 1 + number + len(heads)))
            return z

        return keep

    def _term(self, like: Tensor, first: int, last: int) -> Tensor:
        """Some of the terms, `[term, token, d_model]`."""
        if self._terms is None:
            shape = (1 + len(self._program.senders), len(self._kind_of_token), self._stream.shape.d_model)
            self._terms = self._stream.scratch.take("terms", shape, like)
        return self._terms[first:last]

    def _mask(self, tap: Tap) -> Tensor:
        """bool `[kind of token, group, sender]`"""
        if tap not in self._masks:
            self._masks[tap] = self._holds[:, self._program.places[tap].where.to(self._holds.device)]
        return self._masks[tap]

    def _touched(self, tap: Tap) -> tuple[Tensor | None, ...]:
        """For each group bool `[row, pos]`: where it reads else than the model's own stream; None for everywhere.

        What is read at padding reaches no answer.
        """
        kinds, whole = self._mask(tap).any(-1), self._program.places[tap].whole
        return tuple(
            None if everywhere or group in whole else kinds[self._kind_of_token, group].view(self._rows_positions)
            for group, everywhere in enumerate(kinds[self._real].all(0).tolist())
        )

    def _reader(self, tap: Tap) -> Callable[[], Tensor]:
        def read() -> Tensor:
            if self._mixed is None or self._mixed[0] != tap:
                mixed = self._mix(tap)
                self._mixed = (tap, mixed.view(*self._rows_positions, *mixed.shape[1:]))
            return self._mixed[1]

        return read

    def _mix(self, tap: Tap) -> Tensor:
        """What each group reads, `[token, group, d_model]`, and behind it what is begun here for later ones."""
        place, own = self._program.places[tap], self._own[tap]
        groups, count = place.where.shape
        terms = self._term(own, 0, 1 + count)
        terms[0] = self._beside_senders(tap)
        if self._program.to_zeros and tap == max(self._program.places):
            self._check(terms, own)
        if tap in self._begun:
            begun, first = self._begun.pop(tap)
            late = self._weights(self._shares(tap)[..., first:], own)
            return torch.baddbmm(begun + terms[0].unsqueeze(1), late, terms[1 + first :].transpose(0, 1))
        shares = [nn.functional.pad(self._shares(tap), (1, 0), value=True)]
        shares += [nn.functional.pad(self._shares(later)[..., :count], (1, 0), value=False) for later in place.begins]
        weights = self._weights(torch.cat(shares, 1), own)
        shape = (terms.shape[1], weights.shape[1], terms.shape[2])
        mixed = torch.bmm(weights, terms.transpose(0, 1), out=self._stream.scratch.take("mixed", shape, own))
        after = groups
        for later in place.begins:
            until = after + len(self._program.places[later].where)
            self._begun[later] = (mixed[:, after:until], count)
            after = until
        return mixed

    def _beside_senders(self, tap: Tap) -> Tensor:
        """What every group reads that is no sender's: the model's own stream, and for zeros biases alone."""
        if self._program.to_zeros:
            return self._stream.attention_biases(self._program.places[tap].attended)
        own = self._own[tap]
        return own.reshape(-1, own.shape[-1])

    def _shares(self, tap: Tap) -> Tensor:
        """bool `[kind of token, group, sender]`: whose terms a group reads."""
        mask = self._mask(tap)
        return ~mask if self._program.to_zeros else mask

    def _weights(self, shares: Tensor, like: Tensor) -> Tensor:
        """`[token, group, sender]`"""
        shape = (len(self._kind_of_token), *shares.shape[1:])
        weights = self._stream.scratch.take("weights", shape, like)
        return torch.index_select(shares.to(like.dtype), 0, self._kind_of_token, out=weights)

    def _check(self, terms: Tensor, own: Tensor) -> None:
        """Raise CS503 unless the stream is the sum of what its senders add."""
        total = terms.float().sum(0) if terms.dtype in (torch.float16, torch.bfloat16) else terms.sum(0)
        off, size = float((total - own.reshape(total.shape)).abs().max()), float(own.abs().max())
        if not off <= _OFF[own.dtype] * size:
            raise CircuitspecError(
                Diagnostic(
                    "CS503",
                    f"what embeddings, heads and MLPs add is not the residual stream: off by {off:.2g} of {size:.2g}",
                    hint="ablate to resampled or mean values: for these no stream is added up from its parts",
                )
            )
