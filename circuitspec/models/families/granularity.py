"""What can be patched in a model of a family, and in which tensor. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from circuitspec.models.families.architecture import Architecture, FusedQKV


@dataclass(frozen=True)
class Granularity:
    """One size of component: what it is called, how one is written, and the pyvene components it is a part of.

    `tensors` are those of layer `layer`; they are empty where the family has none, and `why_not` says why.
    """

    name: str
    example: str
    tensors: tuple[str, ...]
    why_not: str = ""


def granularities(architecture: Architecture, layer: int = 0) -> tuple[Granularity, ...]:
    """Every size of component, those that the family does not have among them."""
    a = architecture
    keys = tuple(f"{a.port(port, layer)}.output" for port in ("k", "v"))
    middle = a.resid_mid(layer)
    return (
        Granularity("head", f"a{layer}.h0", (a.z(layer),)),
        Granularity("attention layer", f"a{layer}", (a.z(layer),)),
        Granularity("MLP", f"m{layer}", (a.mlp_out(layer),)),
        Granularity("neuron", f"m{layer}.n0", (a.neurons(layer),)),
        Granularity("key-value head", f"a{layer}.kv0", keys[:1] if isinstance(a.qkv, FusedQKV) else keys),
        Granularity("residual stream", f"r{layer}", (a.resid_in(layer),)),
        Granularity(
            "residual stream, mid-block",
            f"r{layer}.mid",
            () if middle is None else (middle,),
            "attention and MLP both read the block's input" if middle is None else "",
        ),
        Granularity("input", "input", (a.resid_in(0),)),
    )
