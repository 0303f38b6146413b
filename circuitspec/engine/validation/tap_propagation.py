"""What must follow, exactly, when a tap is given another run's values, whatever else is patched in that forward.

Giving the input of a model another run's values makes all of it the other run, whether or not any other
patch works; so each tap is followed to the next tensor that its values alone decide, and what is added to the residual
stream to the stream after it. That stream is the sum: nothing scales a block's output on its way but the
multiplier that the family's entry names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, assert_never

import torch
from torch import Tensor

from circuitspec.engine.execution.taps import Tap, TapKind, value_channels
from circuitspec.graph.shape import ModelShape
from circuitspec.models.families.architecture import Architecture

Columns = Literal["all", "first"]


@dataclass(frozen=True)
class Handover:
    """The tap at which to look, the values that must be there, and how large the terms of them are.

    `magnitude`, of the same shape, is the scale of what rounding can do to each value. At a prompt's
    `first` token only, or at `all` of them. Of each of some `shares`, which are equal slices, at most all of the value
    must be there, and nothing else.
    """

    read: Tap
    expected: Tensor  # [row, pos, channel]
    magnitude: Tensor
    columns: Columns = "all"
    shares: int = 0

    def reached(self, actual: Tensor) -> Tensor:
        """What must be there where `actual` is; the same, unless it is told up to shares."""
        if not self.shares:
            return self.expected
        split = (*self.expected.shape[:-1], self.shares, -1)
        whole, part = self.expected.reshape(split), actual.reshape(split)
        size = (whole * whole).sum(-1, keepdim=True).clamp_min(1e-30)
        share = ((whole * part).sum(-1, keepdim=True) / size).clamp(0, 1)
        return (share * whole).view_as(self.expected)


Values = Mapping[Tap, Tensor]


def handovers(
    tap: Tap, used: Values, other: Values, architecture: Architecture, shape: ModelShape
) -> tuple[Handover, ...]:
    """What `tap`, given the `other` run's values, must lead to in a forward that went on with the values `used`.

    `used` holds, of the tap's block, what was patched in and what was computed elsewhere. None for the residual stream,
    after which everything is the other run (`onward`, or compare logits), for keys alone, whose work depends on the
    queries, and for neurons of an expert, beside which others add to the MLP.
    """
    layer = tap.layer
    match tap.kind:
        case "neurons":
            return (same(Tap(layer, "mlp"), other),)
        case "qkv":
            return (same(Tap(layer, "z"), other),)
        case "v" | "latent" | "kv_up":
            return (_first_value(tap, other, architecture, shape),)
        case "z":
            return same(Tap(layer, "attn_added"), other), sums(layer, used, architecture, shape)[0]
        case "mlp":
            added = added_by_mlp(layer, architecture)
            normed = () if added == tap else (same(added, other),)
            return (*normed, sums(layer, used, architecture, shape)[-1])
        case "resid" | "resid_mid" | "q" | "k" | "embed" | "final" | "shared_neurons":
            return ()
        case (
            "z_scaled"
            | "pattern"
            | "routing"
            | "experts"
            | "expert_neurons"
            | "attn_added"
            | "mlp_in"
            | "mlp_added"
            | "features"
            | "error"
        ):
            raise ValueError(f"nothing is patched at {tap.kind}")
        case _:
            assert_never(tap.kind)


def reads(tap: Tap, architecture: Architecture, shape: ModelShape) -> frozenset[Tap]:
    """The taps that `handovers` looks at or needs to know for this one."""
    layer = tap.layer
    match tap.kind:
        case "neurons":
            return frozenset({Tap(layer, "mlp")})
        case "qkv" | "v" | "kv_up":
            return frozenset({Tap(layer, "z")})
        case "latent":
            return frozenset({Tap(layer, "z"), Tap(layer, "kv_up")})
        case "z" | "mlp":
            return terms(layer, architecture, shape)
        case _:
            return frozenset()


def sums(layer: int, used: Values, architecture: Architecture, shape: ModelShape) -> tuple[Handover, ...]:
    """The residual stream after a block's attention and after its MLP: what came in, and what each of them adds.

    One sum where both are added at once.
    """
    before, end = used[Tap(layer, "resid")], after(layer, shape)
    by = architecture.residual_multiplier
    attention, mlp = used[Tap(layer, "attn_added")] * by, used[added_by_mlp(layer, architecture)] * by
    if not shape.has_resid_mid:
        return (_summed(end, before, attention, mlp),)
    middle = Tap(layer, "resid_mid")
    return _summed(middle, before, attention), _summed(end, used[middle], mlp)


def terms(layer: int, architecture: Architecture, shape: ModelShape) -> frozenset[Tap]:
    """What `sums` is about: the streams of a block, and what is added to them."""
    taps = {Tap(layer, "resid"), Tap(layer, "attn_added"), added_by_mlp(layer, architecture), after(layer, shape)}
    return frozenset(taps | {Tap(layer, "resid_mid")} if shape.has_resid_mid else taps)


def added_by_mlp(layer: int, architecture: Architecture) -> Tap:
    """Where it is read what an MLP adds to the residual stream."""
    return Tap(layer, "mlp" if architecture.mlp_post_norm is None else "mlp_added")


def streams(shape: ModelShape) -> tuple[Tap, ...]:
    """Every residual stream that can be patched, in the order in which they are computed; and the last of all."""
    middle: tuple[TapKind, ...] = ("resid", "resid_mid") if shape.has_resid_mid else ("resid",)
    return (*(Tap(layer, kind) for layer in range(shape.n_layers) for kind in middle), Tap(shape.n_layers, "final"))


def after(layer: int, shape: ModelShape) -> Tap:
    """The residual stream that a block hands on."""
    return Tap(layer + 1, "final" if layer + 1 == shape.n_layers else "resid")


def same(read: Tap, run: Values) -> Handover:
    """What a run has there."""
    return Handover(read, run[read], run[read].abs())


def _first_value(tap: Tap, other: Values, architecture: Architecture, shape: ModelShape) -> Handover:
    """A prompt's first token attends to itself alone, so that each head's output is its value there.

    At most that, where a head may attend to nothing.
    """
    found = [value_channels(tap.layer, head, architecture, shape) for head in range(shape.n_heads)]
    given = architecture.clipped(other[found[0][0]])
    heads = torch.cat([given[..., channels] for _, _, channels in found], -1)
    return Handover(
        Tap(tap.layer, "z"), heads, heads.abs(), "first", shares=shape.n_heads if architecture.has_sinks else 0
    )


def _summed(read: Tap, *added: Tensor) -> Handover:
    wide = [term.double() if term.device.type != "mps" else term.float() for term in added]
    expected, magnitude = wide[0].clone(), wide[0].abs()
    for term in wide[1:]:
        expected, magnitude = expected + term, magnitude + term.abs()
    return Handover(read, expected, magnitude)
