"""Path level: one forward for each set of senders, with everything else frozen (Wang et al. 2022, appendix B).

A pass holds every head at its frozen value but for the senders, so that what a receiver reads in it is what came along
the direct paths from them. A sender in the middle of a path computes its value in the pass itself, from inputs that
earlier passes brought.

Where a norm follows the attention (Gemma 2 and 3, OLMo 2) it is the layer's addition to the stream that is held, and a
sender changes its own share of that alone, as at edge level: its z over the norm's divisor in the run that its value is
from (`Stream.scaled`). Heads that compute have the divisor that all senders of the pass and the frozen z of the others
give; so all paths together are the run itself (not in OLMo 2, where queries and keys are normed too: up to its z a head
computes by itself).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.execution.compiler import Actions
from circuitspec.engine.execution.interventions import Edit, Swap
from circuitspec.engine.execution.taps import Tap
from circuitspec.engine.execution.worked_out.readout import Readout
from circuitspec.engine.levels.held_features import HeldFeatures, Pass, encoded_at, with_features
from circuitspec.engine.levels.path_ends import Ends, Run
from circuitspec.engine.levels.receiver_reads import Reads, edits_of, single
from circuitspec.engine.levels.residual_stream import Stream
from circuitspec.experiments.experiment import Experiment, HopPass, Reading, Sent, hop_passes, is_open
from circuitspec.experiments.levels.path_level import side_by_side
from circuitspec.graph.edges import Receiver, Sender, inputs_of
from circuitspec.graph.edges import senders as all_senders
from circuitspec.graph.paths import spoken
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Feature, Head, Input, Mixer, Mlp
from circuitspec.hypothesis_file.grammar.names import format_name

Senders = frozenset[Sent]


def value_taps(experiment: Experiment, stream: Stream) -> frozenset[Tap]:
    """Where the values of all senders are read: the input, all heads' z, what mixers, MLPs (and normed attention) add.

    And the features of the dictionaries of which some are on the paths.
    """
    assert experiment.rule is not None
    shape = stream.shape
    layers, mixers = range(shape.n_layers), {Tap(layer, "mixer") for layer in shape.mixers}
    heads = {Tap(layer, "z") for layer in shape.layers_with_heads}
    added = {Tap(layer, "attn_added") for layer in shape.layers_with_heads} if stream.post_normed else set()
    mlps = {stream.recorded_at(Mlp(layer)) for layer in layers} if shape.has_mlps else set()
    features = {stream.recorded_at(feature) for feature in experiment.rule.features}
    return frozenset({Tap(0, "resid")} | heads | mixers | added | mlps | features)


def base_taps(experiment: Experiment, stream: Stream) -> frozenset[Tap]:
    """What is to be recorded of the base run: all values, and the streams that are read of it."""
    return value_taps(experiment, stream) | reads_of(experiment, stream).get((frozenset(), None), frozenset())


def taps_of_variant(experiment: Experiment, prompts: str, stream: Stream) -> frozenset[Tap]:
    """What a path-level experiment takes of the run on a variant: values that start there, and what is frozen before
    components, as far as these read."""
    found: set[Tap] = set()
    for (senders, frozen), read in reads_of(experiment, stream).items():
        if frozen == prompts:
            last = max(map(blocks_before, read))
            found |= {tap for tap in value_taps(experiment, stream) if blocks_before(tap) <= last}
            found |= read if not senders else {Tap(first_layer(senders), "resid")}
        for sent in senders:
            if sent.prompts == prompts and not sent.inputs:
                found.add(stream.recorded_at(sent.component))
    return frozenset(found)


def blocks_before(tap: Tap) -> int:
    """How many blocks must have been computed where a tap is passed."""
    return tap.layer if tap.kind in ("resid", "final") else tap.layer + 1


def first_layer(senders: Senders) -> int:
    """The first layer in which some sender writes."""
    return min((_layer(sent.component) for sent in senders), default=0)


def reads_of(experiment: Experiment, stream: Stream) -> dict[HopPass, frozenset[Tap]]:
    """The streams that are read of each pass."""
    found: dict[HopPass, set[Tap]] = {}

    def read(readings: frozenset[Reading], frozen: str | None) -> None:
        for reading in readings:
            found.setdefault((reading.senders, frozen), set()).add(stream.read_tap(reading.receiver))

    read(experiment.readings, None)
    for sent in {sent for senders, _ in hop_passes(experiment) for sent in senders if sent.inputs}:
        read(sent.inputs, sent.prompts)
        taps = {stream.read_tap(receiver) for receiver in _inputs(sent.component, stream.shape)}
        found.setdefault((frozenset(), sent.prompts), set()).update(taps)  # what its other inputs read is frozen
    return {one: frozenset(taps) for one, taps in found.items()}


@dataclass
class _Shares:
    """What a layer's post norm divides by in a pass: z `[row, pos, n_heads * d_head]` of its senders, frozen ones else.

    computed: bool `[row, pos, head]`, where a sender's value was computed and not taken from a run.
    """

    z: Tensor
    computed: Tensor

    def put(self, head: int, heads: int, z: Tensor, at: Tensor, *, computed: bool) -> None:
        """A head's z `[row, pos, d_head]` where `at`, bool `[row, pos]`, says."""
        changed = _split(self.z.clone(), heads)
        changed[:, :, head] = torch.where(at.unsqueeze(-1), z, changed[:, :, head])
        self.z = changed.flatten(-2)
        self.computed[:, :, head] = torch.where(at, torch.full_like(at, computed), self.computed[:, :, head])


@dataclass
class Hops:
    """One path-level experiment on one batch.

    run: a forward of the base prompts. source: the source's values at `value_taps`, broadcastable to
    `[row, pos, channel]`. columns: bool `[row, pos]` for a Where. base: the base run's own values at `base_taps`.
    variant: the same of the run on a variant of its own, at `taps_of_variant`. All with what `Stream.with_scaled` adds.
    extra: told of a run that `hop_passes` does not count, before it is made. first: bool `[row, pos]`, each prompt's
    first token.
    """

    experiment: Experiment
    stream: Stream
    run: Run
    source: Mapping[Tap, Tensor]
    columns: Callable[[Where], Tensor]
    base: Mapping[Tap, Tensor]
    extra: Callable[[], None]
    first: Callable[[], Tensor]
    variant: Callable[[str], Mapping[Tap, Tensor]] = lambda name: {}
    _passed: dict[HopPass, tuple[Readout, Mapping[Tap, Tensor]]] = field(default_factory=dict)
    _values: dict[Sent, Tensor] = field(default_factory=dict)

    def readout(self) -> Readout:
        """The result, of the pass that ends at the logits or of the run in which its ends read.

        Raises CS229 where two positions at which a component has different values are one token in some prompt.
        """
        self._check_positions()
        if not is_open(self.experiment):
            (reading,) = self.experiment.readings
            return self._pass(reading.senders)[0]
        ends = Ends(self.stream, self.run, self._arrived, self.columns, self.base, self.extra)
        return ends.readout(self.experiment.readings)

    def _arrived(self, reading: Reading, tap: Tap) -> Tensor:
        return self._pass(reading.senders)[1][tap]

    def _check_positions(self) -> None:
        for component, one, other in side_by_side(self.experiment.readings):
            if bool((self.columns(one) & self.columns(other)).any()):
                raise CircuitspecError(
                    Diagnostic(
                        "CS229",
                        f"{format_name(component)} has different values at {spoken(one)} and at {spoken(other)} before "
                        "the same rest of a path, and in some prompt these are one token",
                        hint="give it the same positions in all paths, or take prompts in which they are apart",
                    )
                )

    @cached_property
    def _read(self) -> Mapping[HopPass, frozenset[Tap]]:
        return reads_of(self.experiment, self.stream)

    def _pass(self, senders: Senders, own: str | None = None) -> tuple[Readout, Mapping[Tap, Tensor]]:
        """What is read, and read streams of the run with these senders, everything else frozen: as in the run on the
        variant `own`, or as the rule says."""
        if (senders, own) not in self._passed:
            record = self._read.get((senders, own), frozenset())
            if not senders and record and (own is not None or self._frozen_is_base):
                frozen = self._frozen(own)
                self._passed[senders, own] = (Readout(torch.empty(0)), {tap: frozen[tap] for tap in record})
            else:
                made = self._made(senders, record, own)
                read, recorded = self.run(made.actions)
                self._passed[senders, own] = (read, made.brought(record, recorded, self.stream, self._left_out))
        return self._passed[senders, own]

    def _left_out(self, tap: Tap) -> Tensor | None:
        """bool `[row, pos, 1]`: where a dictionary says nothing."""
        site = self.stream.shape.dictionary(tap.dictionary)
        return self.first().unsqueeze(-1) if site is not None and site.skips_first else None

    @property
    def _frozen_is_base(self) -> bool:
        return self.experiment.rule is not None and self.experiment.rule.frozen == "base"

    def _frozen(self, own: str | None) -> Mapping[Tap, Tensor]:
        if own is not None:
            return self.variant(own)
        return self.base if self._frozen_is_base else self.source

    def _sent(self, one: Sent) -> Mapping[Tap, Tensor]:
        """The run that the value of a path's start is of."""
        if one.prompts is not None:
            return self.variant(one.prompts)
        return self.source if self._frozen_is_base else self.base

    def _made(self, senders: Senders, record: frozenset[Tap], own: str | None = None) -> Pass:
        frozen, like_base = self._frozen(own), own is None and self._frozen_is_base
        inline, given = self._shared_out(senders)
        reads = self._reads(inline)
        masks: dict[Tap, Tensor] = {}
        values: dict[Tap, Tensor] = {}
        shape = self.stream.shape
        rule = self.experiment.rule
        assert rule is not None
        known = own is not None or Tap(first_layer(senders), "resid") in frozen  # what enters the first that differs
        first = first_layer(senders) if like_base or known else 0
        recorded = frozenset(encoded_at(tap, self.stream) if tap.kind == "features" else tap for tap in record)
        last = max((blocks_before(tap) for tap in recorded), default=shape.n_layers)  # after that, nothing is read
        for tap in sorted({self.stream.kept_as(sender) for sender in all_senders(shape)}):
            if tap.layer < first or blocks_before(tap) > last:
                continue
            is_mlp = tap.kind in ("mlp", "mlp_added")
            passed = rule.through_mlps and is_mlp and Mlp(tap.layer) not in rule.named
            own_input = tap.kind == "resid" and like_base
            if passed or own_input:
                continue
            like = self.base[tap]
            masks[tap] = torch.ones(*like.shape[:2], tap.units(shape), dtype=torch.bool, device=like.device)
            values[tap] = frozen[tap].expand_as(like)
        shares: dict[int, _Shares] = {}
        for tap in masks:
            if tap.kind == "z_scaled":
                shares[tap.layer] = _Shares(frozen[Tap(tap.layer, "z")].expand_as(values[tap]), ~masks[tap])
        for one in given:
            if not isinstance(one.component, Feature):
                self._place(one, self._values.get(one), masks, values, shares)
        for one in inline:
            tap, unit = self._slot(one.component)
            masks[tap][:, :, unit] &= ~self.columns(one.where)
            if tap.kind == "z_scaled":
                shares[tap.layer].computed[:, :, unit] |= self.columns(one.where)
        edits = edits_of(self.stream, reads)
        for layer, shares_of in shares.items():
            changed = {
                s.component.head for s in senders if isinstance(s.component, Head) and _layer(s.component) == layer
            }
            tap = Tap(layer, "z_scaled")
            held = masks.pop(tap), values.pop(tap)
            edits |= self._attention(layer, *held, shares_of, frozen, sorted(changed))
        swaps = {tap: Swap(masks[tap], values[tap]) for tap in masks}
        begun = 0 if like_base else first
        if begun:
            stream = frozen[Tap(begun, "resid")].expand_as(self.base[Tap(0, "resid")])
            edits[Tap(begun, "resid")] = lambda computed: stream
        features = self._held(senders, frozen, first, max(recorded, default=Tap(shape.n_layers, "final")))
        entered = swaps.get(Tap(0, "resid"))
        shares_input = self.stream.mlp_shares_its_input
        swaps, edits = with_features(features.values(), swaps, edits, mlp_shares_its_input=shares_input)
        actions = Actions(
            swaps,
            recorded,
            edits=edits,
            first_block=begun,
            last_block=last if last < shape.n_layers else None,
        )
        started = {Tap(begun, "resid"): stream} if begun else {}
        return Pass(actions, entered, started, features)

    def _held(self, senders: Senders, frozen: Mapping[Tap, Tensor], first: int, last: Tap) -> dict[Tap, HeldFeatures]:
        """The features of the paths, sent or as frozen, where a pass that is read no later than `last` can change them.

        In the order of the model, by the tap that they are written at.
        """
        assert self.experiment.rule is not None
        by_tap: dict[Tap, list[int]] = {}
        for feature in self.experiment.rule.features if senders else ():
            by_tap.setdefault(self.stream.recorded_at(feature), []).append(feature.index)
        found = {}
        for tap, numbers in by_tap.items():
            read, written = tap.explained(self.stream.shape)
            if written.layer < first or written > last:
                continue
            like, indices = self.base[tap], sorted(numbers)
            units = torch.tensor(indices, device=like.device)
            held = frozen[tap].expand_as(like)[..., units]
            weights = held.clone()
            for one in senders:
                if self.stream.recorded_at(one.component) == tap and isinstance(one.component, Feature):
                    value = self._values.get(one)
                    if value is None:
                        value = self._sent(one)[tap].expand_as(like)[..., one.component.index]
                    number = indices.index(one.component.index)
                    weights[..., number] = torch.where(self.columns(one.where), value, weights[..., number])
            own = self.stream.dictionaries[tap.dictionary]
            found[written] = HeldFeatures(read, written, own, units, weights, held, self._left_out(tap))
        return dict(sorted(found.items()))

    def _attention(
        self,
        layer: int,
        mask: Tensor,
        value: Tensor,
        own: _Shares,
        frozen: Mapping[Tap, Tensor],
        changed: Sequence[int],
    ) -> dict[Tap, Edit]:
        """Hold what a layer's normed attention adds, but for the shares of some heads.

        mask: bool `[row, pos, head]`, False where a head computes in this pass. value: scaled z
        `[row, pos, n_heads * d_head]`, of what is sent or frozen. frozen: the run that is held.
        """
        units = self.stream.shape.n_heads
        inline = [head for head in changed if not bool(mask[:, :, head].all())]
        held: list[Tensor] = []

        def keep(z: Tensor) -> Tensor:
            held.append(z)
            return z

        def add(unheld: Tensor) -> Tensor:
            if self.stream.post_normed:
                added = frozen[Tap(layer, "attn_added")].expand_as(unheld)
            else:  # a bias after the norm is no head's, and stays where heads are zero
                added = self.stream.attention(layer, frozen[Tap(layer, "z_scaled")].expand_as(value)).view_as(unheld)
            if not changed:
                return added.clone()
            new = _split(value, units)
            if bool(own.computed.any()):
                together = _split(own.z, units)
                if inline:
                    together = torch.where(mask.unsqueeze(-1), together, _split(held[0], units))
                scaled = _split(self.stream.scaled(layer, together.flatten(-2)), units)
                new = torch.where(own.computed.unsqueeze(-1), scaled, new)
            difference = new.flatten(-2) - frozen[Tap(layer, "z_scaled")]
            return added + self.stream.heads(layer, difference, changed).sum(0).view_as(unheld)

        edits: dict[Tap, Edit] = {Tap(layer, "attn_added"): add}
        return {Tap(layer, "z"): keep, **edits} if inline else edits

    def _place(
        self,
        one: Sent,
        value: Tensor | None,
        masks: dict[Tap, Tensor],
        values: dict[Tap, Tensor],
        shares: Mapping[int, _Shares],
    ) -> None:
        """Put a sender's value at its positions: one that was computed before, else the sent one."""
        tap, unit = self._slot(one.component)
        units = tap.units(self.stream.shape)
        at = self.columns(one.where)
        like = self.base[tap]

        def sent(kept: Tap) -> Tensor:
            return _split(self._sent(one)[kept].expand_as(like), units)[:, :, unit]

        if tap not in masks:
            masks[tap] = torch.zeros(*like.shape[:2], units, dtype=torch.bool, device=like.device)
            values[tap] = like
        if tap.kind == "z_scaled":
            z = sent(Tap(tap.layer, "z")) if value is None else value
            shares[tap.layer].put(unit, units, z, at, computed=value is not None)
        new = sent(tap) if value is None else value
        changed = _split(values[tap].clone(), units)
        changed[:, :, unit] = torch.where(at.unsqueeze(-1), new, changed[:, :, unit])
        values[tap] = changed.flatten(-2)
        masks[tap][:, :, unit] |= at

    def _shared_out(self, senders: Senders) -> tuple[list[Sent], list[Sent]]:
        """Senders that compute their value in the pass itself, and those whose value is at hand.

        Heads that share keys and values can compute at once only if they read the same ones, and heads whose queries
        and keys are normed together not at all; the others' values are worked out in runs of their own.
        """
        inline: list[Sent] = []
        given: list[Sent] = []
        taken: dict[Receiver, tuple[frozenset[Reading], str | None]] = {}
        for one in sorted(senders, key=lambda s: (_layer(s.component), self._slot(s.component), s.where.canonical())):
            if not one.inputs:
                given.append(one)
                continue
            if isinstance(one.component, Feature):
                self._work_out(one)
                given.append(one)
                continue
            wanted = {
                receiver: (frozenset(r for r in one.inputs if r.receiver == receiver), one.prompts)
                for receiver in _inputs(one.component, self.stream.shape)
            }
            alone = self.stream.heads_share_a_norm and isinstance(one.component, Head)
            beside = alone and any(
                isinstance(o.component, Head) and o.component.layer == _layer(one.component) for o in inline
            )
            if beside or any(taken.get(receiver, reads) != reads for receiver, reads in wanted.items()):
                self._work_out(one)
                given.append(one)
            else:
                taken |= wanted
                inline.append(one)
        return inline, given

    def _slot(self, sender: Sender) -> tuple[Tap, int]:
        return self.stream.kept_as(sender), sender.head if isinstance(sender, Head) else 0

    def _work_out(self, one: Sent) -> None:
        """The value of one sender: an MLP's from what it reads, a head's from a run in which it alone computes."""
        if one in self._values:
            return
        tap, unit = self._slot(one.component)
        if isinstance(one.component, Feature):
            value = self._pass(frozenset(), one.prompts)[1][tap][..., one.component.index]
            for reading in one.inputs:
                brought = self._pass(reading.senders, one.prompts)[1][tap][..., one.component.index]
                value = torch.where(self.columns(reading.where), brought, value)
            self._values[one] = value
        elif isinstance(one.component, Mlp):
            ((read,),) = self._reads([one]).values()
            entering = self.stream.entering_mlp(tap.layer, read.streams()[:, :, 0])
            self._values[one] = self.stream.mlp_added(tap.layer, entering)
        elif isinstance(one.component, Head | Mixer):
            self.extra()
            place = Tap(tap.layer, "z") if isinstance(one.component, Head) else tap
            _, recorded = self.run(self._made(frozenset({one}), frozenset({place})).actions)
            self._values[one] = _split(recorded[place], place.units(self.stream.shape))[:, :, unit]

    def _reads(self, inline: Iterable[Sent]) -> dict[Tap, tuple[Reads, ...]]:
        """What the inputs of computing senders read: what passes brought, at their positions, else the frozen run."""
        reads: dict[Tap, dict[Receiver, Reads]] = {}
        for one in inline:
            for receiver in _inputs(one.component, self.stream.shape):
                tap = self.stream.read_tap(receiver)
                read = self._pass(frozenset(), one.prompts)[1][tap]
                for reading in one.inputs:
                    if reading.receiver != receiver:
                        continue
                    brought = self._pass(reading.senders, one.prompts)[1][tap]
                    everywhere = reading.where.is_everywhere
                    at = self.columns(reading.where).unsqueeze(-1)
                    read = brought if everywhere else torch.where(at, brought, read)
                reads.setdefault(tap, {})[receiver] = single(self.stream, (receiver,), read)
            if self.stream.heads_share_a_norm and isinstance(one.component, Head):
                tap = Tap(one.component.layer, "resid")
                frozen = self._pass(frozenset(), one.prompts)[1][tap]
                for receiver in _attention_inputs(one.component.layer, self.stream.shape):
                    reads[tap].setdefault(receiver, single(self.stream, (receiver,), frozen))
        return {tap: tuple(by_receiver.values()) for tap, by_receiver in reads.items()}


def _inputs(component: Sender, shape: ModelShape) -> tuple[Receiver, ...]:
    return () if isinstance(component, Input) else tuple(inputs_of(component, (), shape))


def _attention_inputs(layer: int, shape: ModelShape) -> tuple[Receiver, ...]:
    return tuple(dict.fromkeys(r for head in range(shape.n_heads) for r in inputs_of(Head(layer, head), (), shape)))


def _layer(sender: Sender) -> int:
    return 0 if isinstance(sender, Input) else sender.layer


def _split(value: Tensor, units: int) -> Tensor:
    """`[row, pos, unit, width]`"""
    return value.reshape(*value.shape[:2], units, value.shape[-1] // units)
