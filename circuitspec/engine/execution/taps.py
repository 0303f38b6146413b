"""Taps: the module inputs and outputs at which components are read and patched.

All heads of a layer share one tap, so that one intervention per layer and kind is enough however many
heads are patched (one per head costs about a quarter more time).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import total_ordering
from typing import Literal, assert_never, get_args

from circuitspec.graph.nodes import NodeComponent
from circuitspec.graph.shape import ModelShape
from circuitspec.hypothesis_file.grammar.components import Head, Input, KvHead, Mlp, Neuron, Resid
from circuitspec.models.families.architecture import Architecture, FusedQKV, Port

TapKind = Literal[
    "embed",
    "resid",
    "qkv",
    "q",
    "k",
    "v",
    "z",
    "z_scaled",
    "attn_added",
    "resid_mid",
    "mlp_in",
    "neurons",
    "mlp",
    "mlp_added",
    "final",
]

# in the order in which a block computes them ("embed" comes before layer 0, "final" after the last)
_ORDER: tuple[TapKind, ...] = get_args(TapKind)


@total_ordering
@dataclass(frozen=True)
class Tap:
    """One tensor of the forward pass, `[row, pos, channel]`; taps are ordered as the model computes them.

    `embed` is the token embeddings, `resid` the block's input, `resid_mid` the residual stream between attention and
    MLP, `qkv` or `q`, `k` and `v` the projections (before norm and rotation), `z` the heads' outputs side by side,
    `attn_added` what is added to the residual stream of the attention, `mlp_in` what enters the MLP (after its norm),
    `neurons` the input of the MLP's output projection, `mlp` the MLP's output, `mlp_added` what is added to the
    residual stream of it (both after a post norm, where there is one), and `final` the input of the last norm.
    `z_scaled` is the one that is no place in the model: z over the divisor of the norm after the attention
    (`engine.stream`).
    """

    layer: int
    kind: TapKind

    def path(self, architecture: Architecture) -> str:
        """The pyvene string component, e.g. `model.layers[3].self_attn.o_proj.input`."""
        match self.kind:
            case "embed":
                return architecture.embedding()
            case "resid":
                return architecture.resid_in(self.layer)
            case "resid_mid":
                path = architecture.resid_mid(self.layer)
                if path is None:
                    raise ValueError(f"{architecture.title} has no residual stream between attention and MLP")
                return path
            case "qkv":
                return f"{architecture.port('k', self.layer)}.output"
            case "q" | "k" | "v":
                return f"{architecture.port(self.kind, self.layer)}.output"
            case "z":
                return architecture.z(self.layer)
            case "z_scaled":
                raise ValueError("scaled z is worked out, no module computes it")
            case "attn_added":
                return architecture.attn_added(self.layer)
            case "neurons":
                return architecture.neurons(self.layer)
            case "mlp_in":
                return architecture.mlp_in(self.layer)
            case "mlp":
                return architecture.mlp_out(self.layer)
            case "mlp_added":
                return architecture.mlp_added(self.layer)
            case "final":
                return architecture.resid_final()
            case _:
                assert_never(self.kind)

    def units(self, shape: ModelShape) -> int:
        """Into how many equal slices the last dimension falls."""
        match self.kind:
            case "z" | "z_scaled" | "q":
                return shape.n_heads
            case "k" | "v":
                return shape.n_kv_heads
            case "qkv":
                return shape.n_heads + 2 * shape.n_kv_heads
            case "neurons":
                return shape.d_mlp
            case _:
                return 1

    def width(self, shape: ModelShape) -> int:
        """The number of channels."""
        match self.kind:
            case "z" | "z_scaled" | "q" | "k" | "v" | "qkv":
                return self.units(shape) * shape.d_head
            case "neurons":
                return shape.d_mlp
            case _:
                return shape.d_model

    def __lt__(self, other: Tap) -> bool:
        return (self.layer, _ORDER.index(self.kind)) < (other.layer, _ORDER.index(other.kind))


@dataclass(frozen=True)
class Slot:
    """A slice of a tap."""

    tap: Tap
    unit: int


def slots_of(component: NodeComponent, architecture: Architecture, shape: ModelShape) -> tuple[Slot, ...]:
    """Where a component is patched (node level, design section 3).

    One slice for all but key-value heads, which are their key and their value. Patching those changes
    every query head that reads them.
    """
    match component:
        case Head(layer, head):
            return (Slot(Tap(layer, "z"), head),)
        case Mlp(layer):
            return (Slot(Tap(layer, "mlp"), 0),)
        case Neuron(layer, index):
            return (Slot(Tap(layer, "neurons"), index),)
        case Resid(layer, mid):
            return (Slot(Tap(layer, "resid_mid" if mid else "resid"), 0),)
        case Input():
            return (Slot(Tap(0, "resid"), 0),)
        case KvHead(layer, head):
            return tuple(port_slot(port, layer, head, architecture, shape) for port in ("k", "v"))
        case _:
            assert_never(component)


def port_slot(port: Port, layer: int, head: int, architecture: Architecture, shape: ModelShape) -> Slot:
    """Where a head's query, or a key-value head's key or value, is computed: its slice of a projection's output."""
    qkv = architecture.qkv
    if not isinstance(qkv, FusedQKV):
        return Slot(Tap(layer, port), head)
    place = ("q", "k", "v").index(port)
    if qkv.layout == "per head":
        return Slot(Tap(layer, "qkv"), 3 * head + place)
    before = (0, shape.n_heads, shape.n_heads + shape.n_kv_heads)[place]
    return Slot(Tap(layer, "qkv"), before + head)


def all_taps(architecture: Architecture, shape: ModelShape) -> frozenset[Tap]:
    """Every tap that some component of this model is patched at."""
    kinds: list[TapKind] = ["resid", "z", "mlp"]
    kinds += ["neurons"] if shape.has_mlps else []
    kinds += ["qkv"] if isinstance(architecture.qkv, FusedQKV) else ["k", "v"]
    kinds += ["resid_mid"] if architecture.resid_mid(0) is not None else []
    return frozenset(Tap(layer, kind) for layer in range(shape.n_layers) for kind in kinds)
