"""What must follow, exactly, when one tap alone is given another run's values.

Giving the input of a model another run's values makes all of it the other run, whether or not any other
patch works; so each tap is followed to the next tensor that its values alone decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, assert_never

from torch import Tensor

from circuitspec.engine.taps import Tap
from circuitspec.graph.shape import ModelShape

Columns = Literal["all", "first"]


@dataclass(frozen=True)
class Handover:
    """The tap at which to look, the values that must be there, and how large the terms of them are.

    `magnitude`, of the same shape, is the scale of what rounding can do to each value. At a prompt's
    `first` token only, or at `all` of them.
    """

    read: Tap
    expected: Tensor  # [row, pos, channel]
    magnitude: Tensor
    columns: Columns = "all"


Values = Mapping[Tap, Tensor]


def handover(tap: Tap, own: Values, other: Values, shape: ModelShape) -> Handover | None:
    """What `tap`, given the `other` run's values in the `own` run, must lead to.

    None for the residual stream, after which everything is the other run (compare logits), and for keys
    alone, whose work depends on the queries. Both runs must have every tap recorded, and `final`.
    """
    layer = tap.layer
    match tap.kind:
        case "neurons":
            return _same(Tap(layer, "mlp"), other)
        case "qkv":
            return _same(Tap(layer, "z"), other)
        case "v":
            return _first_value(tap, other, shape)
        case "z":
            return _sum_with_attention(layer, own, other, shape)
        case "mlp":
            return _sum_with_mlp(layer, own, other, shape)
        case "resid" | "resid_mid" | "q" | "k" | "embed" | "final":
            return None
        case "z_scaled" | "attn_added" | "mlp_in" | "mlp_added":
            raise ValueError(f"nothing is patched at {tap.kind}")
        case _:
            assert_never(tap.kind)


def reads(tap: Tap, shape: ModelShape) -> frozenset[Tap]:
    """The taps that `handover` looks at for this one."""
    match tap.kind:
        case "neurons":
            return frozenset({Tap(tap.layer, "mlp")})
        case "qkv" | "v":
            return frozenset({Tap(tap.layer, "z")})
        case "z" if shape.has_resid_mid:
            return frozenset({Tap(tap.layer, "resid_mid")})
        case "z" | "mlp":
            return frozenset({after(tap.layer, shape)})
        case _:
            return frozenset()


def after(layer: int, shape: ModelShape) -> Tap:
    """The residual stream that a block hands on."""
    return Tap(layer + 1, "final" if layer + 1 == shape.n_layers else "resid")


def _same(read: Tap, other: Values) -> Handover:
    return Handover(read, other[read], other[read].abs())


def _first_value(tap: Tap, other: Values, shape: ModelShape) -> Handover:
    """A prompt's first token attends to itself alone, so that each head's output is its value there."""
    values = other[tap].view(*other[tap].shape[:2], shape.n_kv_heads, shape.d_head)
    heads = values.repeat_interleave(shape.n_heads // shape.n_kv_heads, -2).flatten(-2)
    return Handover(Tap(tap.layer, "z"), heads, heads.abs(), "first")


def _sum_with_attention(layer: int, own: Values, other: Values, shape: ModelShape) -> Handover:
    """The stream of the own run, plus what the other run's attention added to its own."""
    before = Tap(layer, "resid")
    if shape.has_resid_mid:
        read = Tap(layer, "resid_mid")
        return _summed(read, (own[before], other[read]), (other[before],))
    read, mlp = after(layer, shape), Tap(layer, "mlp")
    return _summed(read, (own[before], own[mlp], other[read]), (other[before], other[mlp]))


def _sum_with_mlp(layer: int, own: Values, other: Values, shape: ModelShape) -> Handover:
    read, mlp = after(layer, shape), Tap(layer, "mlp")
    if shape.has_resid_mid:
        middle = Tap(layer, "resid_mid")
        return _summed(read, (own[middle], other[read]), (other[middle],))
    return _summed(read, (own[read], other[mlp]), (own[mlp],))


def _summed(read: Tap, plus: tuple[Tensor, ...], minus: tuple[Tensor, ...]) -> Handover:
    terms = [*plus, *(-term for term in minus)]
    wide = [term.double() if term.device.type != "mps" else term.float() for term in terms]
    expected, magnitude = wide[0].clone(), wide[0].abs()
    for term in wide[1:]:
        expected, magnitude = expected + term, magnitude + term.abs()
    return Handover(read, expected, magnitude)
