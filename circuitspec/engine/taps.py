"""Taps: the module inputs and outputs at which components are read and patched.

All heads of a layer share one tap, so that one intervention per layer and kind is enough however many
heads are patched (one per head costs about a quarter more time).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from typing import Literal

from circuitspec.graph.shape import ModelShape
from circuitspec.models.architecture import Architecture
from circuitspec.spec.names import Head, Mlp

TapKind = Literal["resid", "z", "mlp"]


@dataclass(frozen=True, order=True)
class Tap:
    """One tensor of the forward pass: the block input, all heads' z, or the MLP's output of a layer."""

    layer: int
    kind: TapKind

    def path(self, architecture: Architecture) -> str:
        """The pyvene string component, e.g. `model.layers[3].self_attn.o_proj.input`."""
        match self.kind:
            case "resid":
                return architecture.resid_in(self.layer)
            case "z":
                return architecture.z(self.layer)
            case "mlp":
                return architecture.mlp_out(self.layer)

    def units(self, shape: ModelShape) -> int:
        """Into how many equal slices the last dimension falls: one per head, otherwise one."""
        return shape.n_heads if self.kind == "z" else 1


@dataclass(frozen=True)
class Slot:
    """A component's place: a tap and the index of its slice."""

    tap: Tap
    unit: int


@singledispatch
def slot_of(component: object) -> Slot:
    """Where a component is patched (node level, design section 3)."""
    raise TypeError(f"{component!r} has no place in a node-level run")


@slot_of.register
def _(component: Head) -> Slot:
    return Slot(Tap(component.layer, "z"), component.head)


@slot_of.register
def _(component: Mlp) -> Slot:
    return Slot(Tap(component.layer, "mlp"), 0)


def all_taps(shape: ModelShape) -> frozenset[Tap]:
    """Every head's and MLP's tap."""
    kinds: tuple[TapKind, ...] = ("z", "mlp")
    return frozenset(Tap(layer, kind) for layer in range(shape.n_layers) for kind in kinds)
