"""What can be patched at node level, and the names of a hypothesis as such components of one model."""

from __future__ import annotations

from typing import TypeAlias

from circuitspec.diagnostics.diagnostic import Diagnostic
from circuitspec.graph.shape import ModelShape
from circuitspec.hypothesis_file.grammar.components import (
    AttentionLayer,
    Component,
    Head,
    Input,
    KvHead,
    Mlp,
    Neuron,
    Pattern,
    Resid,
)
from circuitspec.hypothesis_file.grammar.names import Name, format_name
from circuitspec.hypothesis_file.yaml.source import Source

Ablatable: TypeAlias = Head | Mlp | Neuron
"""Components that together write all that a model adds to its embeddings. What is outside a circuit is made of them."""

NodeComponent: TypeAlias = Ablatable | KvHead | Resid | Input
"""Components that can be patched. The outside of a key-value head, a residual stream or the input is not defined."""

Place: TypeAlias = tuple[str | int, ...]
"""A path into the hypothesis file."""

WORDS: dict[type[NodeComponent], str] = {
    Head: "heads",
    Mlp: "MLPs",
    Neuron: "neurons",
    KvHead: "key-value heads",
    Resid: "residual streams",
    Input: "input",
}


def expand(
    name: Name, shape: ModelShape, source: Source, place: Place, problems: list[Diagnostic]
) -> tuple[NodeComponent, ...]:
    """The components of a model of this shape that a name stands for; an attention layer is all of its heads.

    What it cannot stand for goes to `problems`, and nothing is returned: CS220 for what the model does
    not have, CS221 for what is not patched at node level, CS225 for what this family does not compute.
    """
    expanded: list[NodeComponent] = []
    for component in existing(name, shape, source, place, problems):
        match component:
            case Resid(mid=True) if not shape.has_resid_mid:
                problems.append(
                    Diagnostic(
                        "CS225",
                        f"the model has no {format_name(component)}: its attention and MLP both read the block's input",
                        source.span(place),
                        hint=f"write r{component.layer} (what both read) or r{component.layer + 1} (after both)",
                    )
                )
                return ()
            case Head() | Mlp() | Neuron() | KvHead() | Resid() | Input():
                expanded.append(component)
            case AttentionLayer(layer):
                expanded += [Head(layer, head) for head in range(shape.n_heads)]
            case _:
                problems.append(
                    Diagnostic(
                        "CS221",
                        f"{format_name(component)} cannot be patched at node level",
                        source.span(place),
                        hint="nodes are heads (a9.h6), attention layers (a9), MLPs (m3), neurons (m1.n42), "
                        "key-value heads (a9.kv2), residual streams (r5, r5.mid) and input",
                    )
                )
                return ()
    return tuple(expanded)


def existing(
    name: Name, shape: ModelShape, source: Source, place: Place, problems: list[Diagnostic]
) -> tuple[Component, ...]:
    """The components that a name stands for, attention layers whole; CS220 for those the model does not have."""
    target = name.target
    if isinstance(target, Pattern):
        if target.kind in ("mlp", "neuron") and not shape.has_mlps:
            problems.append(_absent(target, "", shape, source, place))
            return ()
        try:
            return target.expand(shape.n_layers, shape.n_heads, shape.n_kv_heads, shape.d_mlp)
        except ValueError as error:
            problems.append(_absent(target, str(error), shape, source, place))
            return ()
    if not _exists(target, shape):
        problems.append(_absent(target, "", shape, source, place))
        return ()
    return (target,)


def _exists(component: Component, shape: ModelShape) -> bool:
    match component:
        case Head(layer, head):
            return layer < shape.n_layers and head < shape.n_heads
        case KvHead(layer, head):
            return layer < shape.n_layers and head < shape.n_kv_heads
        case Neuron(layer, index):
            return layer < shape.n_layers and index < shape.d_mlp
        case Mlp(layer):
            return layer < shape.n_layers and shape.has_mlps
        case AttentionLayer(layer) | Resid(layer):
            return layer < shape.n_layers
        case _:
            return True


def _absent(what: Component | Pattern, reason: str, shape: ModelShape, source: Source, place: Place) -> Diagnostic:
    kind = what.kind if isinstance(what, Pattern) else type(what).__name__.lower()
    last = shape.n_layers - 1
    match kind:
        case "mlp" | "neuron" if not shape.has_mlps:
            hint = "it has attention only"
        case "mlp":
            hint = f"its {shape.n_layers} MLPs are m0 to m{last} (counted from 0)"
        case "neuron":
            neurons = f"{shape.d_mlp} neurons, n0 to n{shape.d_mlp - 1}"
            hint = f"its {shape.n_layers} MLPs are m0 to m{last}, each with {neurons} (counted from 0)"
        case "resid" | "resid_mid":
            hint = f"its residual streams are r0 (the input) to r{last} (entering the last block)"
        case "kv" | "kvhead":
            hint = (
                f"its {shape.n_layers} layers are a0 to a{last}, each with {shape.n_kv_heads} key-value heads, "
                f"kv0 to kv{shape.n_kv_heads - 1}"
            )
        case _:
            hint = (
                f"its {shape.n_layers} layers are a0 to a{last}, each with {shape.n_heads} heads, "
                f"h0 to h{shape.n_heads - 1} (counted from 0)"
            )
    return Diagnostic("CS220", f"the model has no {format_name(what)}", source.span(place), label=reason, hint=hint)
