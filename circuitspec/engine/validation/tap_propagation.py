"""What must follow, exactly, when a tap is given another run's values, whatever else is patched in that forward.

Giving the input of a model another run's values makes all of it the other run, whether or not any other
patch works; so each tap is followed to the next tensor that its values alone decide, and what is added to the residual
stream to the stream after it. That stream is the sum: nothing scales a block's output on its way but the
multipliers that the family's entry names, and nothing else is added but what it names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, assert_never

import torch
from torch import Tensor

from circuitspec.engine.execution.taps import Tap, TapKind, added_by_attention, value_channels
from circuitspec.graph.shape import ModelShape
from circuitspec.models.families.architecture import Architecture

Columns = Literal["all", "first"]


@dataclass(frozen=True)
class Handover:
    """The tap at which to look, the values that must be there, and how large the terms of them are.

    `magnitude`, of the same shape, is the scale of what rounding can do to each value. At a prompt's
    `first` token only, or at `all` of them. Of each of some `shares`, which are equal slices, at most all of the value
    must be there, and nothing else; or, if they are `scaled`, any multiple of it.
    """

    read: Tap
    expected: Tensor  # [row, pos, channel]
    magnitude: Tensor
    columns: Columns = "all"
    shares: int = 0
    scaled: bool = False

    def reached(self, actual: Tensor) -> Tensor:
        """What must be there where `actual` is; the same, unless it is told up to shares."""
        if not self.shares:
            return self.expected
        split = (*self.expected.shape[:-1], self.shares, -1)
        whole, part = self.expected.reshape(split), actual.reshape(split)
        size = (whole * whole).sum(-1, keepdim=True).clamp_min(1e-30)
        share = (whole * part).sum(-1, keepdim=True) / size
        share = share if self.scaled else share.clamp(0, 1)
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
            readers = _readers(layer, shape)
            return tuple(_first_value(tap, reader, used, other, architecture, shape) for reader in readers)
        case "z":
            return same(Tap(layer, "attn_added"), other), sums(layer, used, architecture, shape)[0]
        case "mixer":
            return (sums(layer, used, architecture, shape)[0],)
        case "mlp":
            added = added_by_mlp(layer, architecture)
            normed = () if added == tap else (same(added, other),)
            summed = sums(layer, used, architecture, shape)
            return (*normed, *(due for due in summed[-1:] if due.read == after(layer, shape)))
        case "resid" | "resid_mid" | "q" | "k" | "embed" | "final" | "shared_neurons":
            return ()
        case (
            "attn_in"
            | "z_scaled"
            | "pattern"
            | "routing"
            | "experts"
            | "expert_neurons"
            | "attn_added"
            | "beside"
            | "mlp_in"
            | "mlp_added"
            | "per_layer"
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
            gated = {Tap(layer, "q")} if shape.query_gates else set()
            return frozenset(gated | {Tap(reader, "z") for reader in _readers(layer, shape)})
        case "latent":
            return frozenset({Tap(layer, "z"), Tap(layer, "kv_up")})
        case "z" | "mlp" | "mixer":
            return terms(layer, architecture, shape)
        case _:
            return frozenset()


def sums(layer: int, used: Values, architecture: Architecture, shape: ModelShape) -> tuple[Handover, ...]:
    """The residual stream after a block's attention and after its MLP: what came in, and what each of them adds.

    One sum where both are added at once; of several streams the first alone, since the next layer mixes them.
    """
    before, end = used[Tap(layer, "resid")], after(layer, shape)
    by = architecture.residual_multiplier
    attention, mlp = used[added_by_attention(layer, shape)] * by, used[added_by_mlp(layer, architecture)] * by
    if not shape.has_resid_mid:
        return (_summed(end, before, attention, mlp),)
    middle, beyond = Tap(layer, "resid_mid"), architecture.beyond
    if beyond is None:
        return _summed(middle, before, attention), _summed(end, used[middle], mlp)
    beside = [] if beyond.beside is None else [used[Tap(layer, "beside")]]
    first = _summed(middle, before, attention, *beside, times=beyond.middle_scale)
    if beyond.several:
        return (first,)
    own = [] if beyond.per_layer is None else [used[Tap(layer, "per_layer")]]
    return first, _summed(end, used[middle], mlp, *own, times=beyond.scalars[layer] if beyond.scalars else 1.0)


def beside_stream(architecture: Architecture, shape: ModelShape) -> tuple[Tap, ...]:
    """What reaches layers past the stream that their blocks are given, and is no component: inputs of their own."""
    if architecture.beyond is None or architecture.beyond.per_layer is None:
        return ()
    return tuple(Tap(layer, "per_layer") for layer in range(shape.n_layers))


def past(stream: Tap, architecture: Architecture, shape: ModelShape) -> tuple[Tap, ...]:
    """What a run must be given beside its residual stream at one place, so that the rest follows: all that comes past
    it. Inputs of later layers, and what heads give that read keys and values computed before.
    """
    if architecture.beyond is None:
        return ()
    begun = stream.layer + (stream.kind == "resid_mid")  # the first layer whose attention is still to come
    own = (tap for tap in beside_stream(architecture, shape) if tap.layer >= stream.layer)
    readers = (layer for layer in range(begun, shape.n_layers) if shape.keys_of(layer) < begun)
    return (*own, *(Tap(layer, "z") for layer in readers))


def terms(layer: int, architecture: Architecture, shape: ModelShape) -> frozenset[Tap]:
    """What `sums` is about: the streams of a block, and what is added to them."""
    taps = {Tap(layer, "resid"), added_by_attention(layer, shape), added_by_mlp(layer, architecture)}
    taps |= set() if architecture.several_streams else {after(layer, shape)}
    beyond = architecture.beyond
    if beyond is not None:
        taps |= {Tap(layer, "per_layer")} if beyond.per_layer is not None else set()
        taps |= {Tap(layer, "beside")} if beyond.beside is not None else set()
    return frozenset(taps | {Tap(layer, "resid_mid")} if shape.has_resid_mid else taps)


def added_by_mlp(layer: int, architecture: Architecture) -> Tap:
    """Where it is read what an MLP adds to the residual stream."""
    return Tap(layer, "mlp" if architecture.mlp_post_norm is None else "mlp_added")


def streams(shape: ModelShape) -> tuple[Tap, ...]:
    """Every residual stream that can be patched, in the order in which they are computed; and the last of all.

    None where there are several.
    """
    if not shape.has_streams:
        return ()
    middle: tuple[TapKind, ...] = ("resid", "resid_mid") if shape.has_resid_mid else ("resid",)
    return (*(Tap(layer, kind) for layer in range(shape.n_layers) for kind in middle), Tap(shape.n_layers, "final"))


def after(layer: int, shape: ModelShape) -> Tap:
    """The residual stream that a block hands on."""
    return Tap(layer + 1, "final" if layer + 1 == shape.n_layers else "resid")


def same(read: Tap, run: Values) -> Handover:
    """What a run has there."""
    return Handover(read, run[read], run[read].abs())


def _readers(layer: int, shape: ModelShape) -> tuple[int, ...]:
    """The layers whose heads read the keys and values of this one."""
    return tuple(reader for reader in range(shape.n_layers) if shape.keys_of(reader) == layer)


def _first_value(
    tap: Tap, reader: int, used: Values, other: Values, architecture: Architecture, shape: ModelShape
) -> Handover:
    """A prompt's first token attends to itself alone, so that each head's output is its value there.

    At most that, where a head may attend to nothing; times its gate, where it has one. Of a pair of heads it is both
    values side by side, normed.
    """
    z = Tap(reader, "z")
    if shape.latent is None:
        given = architecture.clipped(other[tap])
        slices = given.view(*given.shape[:2], shape.slices_of_head, shape.n_kv_heads, -1)
        values = slices.transpose(2, 3).flatten(-2)  # [row, pos, kv head, d_head]
        heads = values.repeat_interleave(shape.n_heads // shape.n_kv_heads, -2)
    else:
        found = [value_channels(tap.layer, head, architecture, shape) for head in range(shape.n_heads)]
        given = architecture.clipped(other[found[0][0]])
        heads = torch.stack([given[..., channels] for _, _, channels in found], -2)
    if shape.query_gates:
        heads = heads * torch.sigmoid(gates(used[Tap(tap.layer, "q")], shape))
    heads = heads.flatten(-2)
    if architecture.beyond is not None and architecture.beyond.values_normed:
        return _rescaled(z, heads, other[z], shape.n_heads)
    shares = shape.n_heads if architecture.has_sinks or shape.paired_heads else 0
    return Handover(z, heads, heads.abs(), "first", shares, shape.paired_heads)


def gates(queries: Tensor, shape: ModelShape) -> Tensor:
    """The gate of each head, `[row, pos, head, d_head]`, in what the projection of queries gives."""
    return queries.view(*queries.shape[:2], shape.n_heads, 2, shape.d_head)[..., 1, :]


def _rescaled(read: Tap, direction: Tensor, run: Tensor, n_heads: int) -> Handover:
    """What a run has at each row's first token, in which each head's part has the direction of its value."""
    split, own = (one.reshape(*one.shape[:-1], n_heads, -1) for one in (direction, run))
    length = split.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(run.dtype).tiny)
    expected = (split * (own.norm(dim=-1, keepdim=True) / length)).flatten(-2)
    return Handover(read, expected, expected.abs(), "first")


def _summed(read: Tap, *added: Tensor, times: float = 1.0) -> Handover:
    wide = [times * (term.double() if term.device.type != "mps" else term.float()) for term in added]
    expected, magnitude = wide[0].clone(), wide[0].abs()
    for term in wide[1:]:
        expected, magnitude = expected + term, magnitude + term.abs()
    return Handover(read, expected, magnitude)
