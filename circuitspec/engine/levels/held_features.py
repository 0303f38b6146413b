"""Features of dictionaries in a pass of path level: held or sent, while all else of their place goes on.

A feature that stands on a path is held like a head there: whatever changes the value at its dictionary's place, the
weight by which its direction is multiplied is that of the frozen run, unless it is sent. Where the place is what a
frozen MLP adds, that has the weights of the frozen run in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from circuitspec.dictionaries.dictionary import Dictionary
from circuitspec.engine.execution.compiler import Actions
from circuitspec.engine.execution.interventions import Edit, Swap
from circuitspec.engine.execution.taps import Tap
from circuitspec.engine.levels.receiver_reads import in_turn
from circuitspec.engine.levels.residual_stream import Stream
from circuitspec.graph.edges import Receiver
from circuitspec.hypothesis_file.grammar.components import Mlp

STREAMS = ("resid", "resid_mid", "final")


@dataclass(frozen=True)
class HeldFeatures:
    """Some features of one dictionary, which takes apart what is `written` at a tap, and what they are to be in a pass.

    read: the tap of what the dictionary encodes. units: `[n]`, which features. weights: `[row, pos, n]`, by what their
    directions are multiplied: as in the `frozen` run, or where they are sent that of another run, or computed.
    left_out: bool `[row, pos, 1]`, where the dictionary says nothing; None where it says something of every token.
    """

    read: Tap
    written: Tap
    dictionary: Dictionary
    units: Tensor
    weights: Tensor
    frozen: Tensor
    left_out: Tensor | None = None

    def put_into(self, value: Tensor, read: Tensor) -> Tensor:
        """A value `[row, pos, d_out]` whose features have these weights; `read` is what the dictionary encodes."""
        some = self.dictionary.of_features(self.units)
        own = self.dictionary.weights(read)[..., self.units] if some is None else some.weights(read)
        return self._moved(value, own)

    def put_into_frozen(self, value: Tensor) -> Tensor:
        """The same of a value that is frozen."""
        return self._moved(value, self.frozen)

    def _moved(self, value: Tensor, own: Tensor) -> Tensor:
        decoder = self.dictionary.decoder[self.units]
        change = (self.weights - own).to(decoder.dtype) @ decoder
        if self.left_out is not None:
            change = change.masked_fill(self.left_out, 0.0)
        wide = torch.promote_types(value.dtype, change.dtype)
        return (value.to(wide) + change.to(wide)).to(value.dtype)


def with_features(
    held: Iterable[HeldFeatures], swaps: Mapping[Tap, Swap], edits: Mapping[Tap, Edit], *, mlp_shares_its_input: bool
) -> tuple[dict[Tap, Swap], dict[Tap, Edit]]:
    """The swaps and edits of a pass with these features in what they leave.

    `mlp_shares_its_input`: the MLP's input is the stream itself, and one tap where another model has two.
    """
    new_swaps, new_edits = dict(swaps), dict(edits)
    for one in held:
        turn = [new_edits[one.written]] if one.written in new_edits else []
        if (swap := new_swaps.pop(one.written, None)) is not None:
            if one.written.kind in ("mlp", "mlp_added"):
                new_swaps[one.written] = Swap(swap.mask, one.put_into_frozen(swap.source))
                continue
            turn.append(swap.put_into)
        if one.read == one.written:
            turn.append(partial(_put_in, one.put_into))
        else:
            entering: list[Tensor] = []
            read = Tap(one.read.layer, "resid_mid") if mlp_shares_its_input else one.read
            keep = partial(_kept, entering)
            new_edits[read] = in_turn([new_edits[read], keep]) if read in new_edits else keep
            turn.append(partial(_put_beside, one.put_into, entering))
        new_edits[one.written] = in_turn(turn)
    return new_swaps, new_edits


@dataclass(frozen=True)
class Pass:
    """What a pass does, and by what its streams are told from what is recorded of it.

    entered: the swap of the input. started: the stream with which a pass begins that leaves out the blocks before.
    held: the features of which the pass has other weights than it computes, by the tap that they are written at.
    """

    actions: Actions
    entered: Swap | None
    started: Mapping[Tap, Tensor]
    held: Mapping[Tap, HeldFeatures]

    def brought(
        self,
        wanted: frozenset[Tap],
        recorded: Mapping[Tap, Tensor],
        stream: Stream,
        left_out: Callable[[Tap], Tensor | None],
    ) -> dict[Tap, Tensor]:
        """What is read of it: streams `[row, pos, d_model]`, weights of features `[row, pos, n_features]`.

        Taps record before they patch: where the input is sent or features are held, the stream that is read is worked
        out of what was recorded. A dictionary of the stream reads it before its own features are put in.
        """
        arriving = {**recorded, **{tap: value for tap, value in self.started.items() if tap in recorded}}
        first = Tap(0, "resid")
        if self.entered is not None and first in arriving:
            arriving[first] = self.entered.put_into(arriving[first])

        def going_on(tap: Tap) -> Tensor:
            held = self.held.get(tap) if tap.kind in STREAMS else None
            return arriving[tap] if held is None else held.put_into(arriving[tap], arriving[tap])

        found = {}
        for tap in wanted:
            if tap.kind != "features":
                found[tap] = going_on(tap)
                continue
            place = encoded_at(tap, stream)
            read = tap.explained(stream.shape)[0]
            vectors = arriving[place] if read == place else stream.entering_mlp(tap.layer, going_on(place))
            weights, here = stream.dictionaries[tap.dictionary].weights(vectors), left_out(tap)
            found[tap] = weights if here is None else weights.masked_fill(here, 0.0)
        return found


def encoded_at(tap: Tap, stream: Stream) -> Tap:
    """Where the residual stream is that a dictionary of it reads, or the MLP whose input a transcoder reads."""
    read, _ = tap.explained(stream.shape)
    if read.kind in STREAMS:
        return read
    assert read.kind == "mlp_in", f"the dictionary {tap.dictionary} does not read the residual stream"
    return stream.read_tap(Receiver(Mlp(tap.layer)))


def _put_in(put: Callable[[Tensor, Tensor], Tensor], value: Tensor) -> Tensor:
    return put(value, value)


def _put_beside(put: Callable[[Tensor, Tensor], Tensor], entering: list[Tensor], value: Tensor) -> Tensor:
    """With what the dictionary reads, which came by before."""
    return put(value, entering.pop())


def _kept(entering: list[Tensor], value: Tensor) -> Tensor:
    entering.append(value)
    return value
