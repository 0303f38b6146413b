"""Declarations that contain one another: the same activation would be declared twice, in two sizes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from circuitspec.diagnostics.diagnostic import Diagnostic
from circuitspec.graph.nodes import NodeComponent, Place
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Input, KvHead, Mlp, Neuron, Resid
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.hypothesis_file.yaml.source import Source


@dataclass(frozen=True)
class Declared:
    """A component as one entry of the file declares it; `entry` is that entry as written there."""

    component: NodeComponent
    where: Where
    entry: str
    place: Place


def overlaps(declared: Iterable[Declared], shape: ModelShape, source: Source) -> list[Diagnostic]:
    """CS223 for every two entries that declare the same activation.

    A component twice, a key-value head and a head that reads it, and `input` and r0 overlap where their
    positions meet; a neuron and its MLP do at any positions, since an MLP is taken apart or it is not.
    """
    first: dict[NodeComponent, list[Declared]] = {}
    found: dict[tuple[Place, Place], Diagnostic] = {}
    taken_apart: dict[int, Declared] = {}
    for one in declared:
        candidates = [o for key in _same(one.component, shape) for o in first.get(key, ()) if o.where.meets(one.where)]
        match one.component:
            case Neuron(layer):
                candidates += first.get(Mlp(layer), [])
                taken_apart.setdefault(layer, one)
            case Mlp(layer) if layer in taken_apart:
                candidates.append(taken_apart[layer])
        for other in candidates:
            found.setdefault((other.place, one.place), _overlap(one, other, source))
        first.setdefault(one.component, []).append(one)
    return list(found.values())


def _same(component: NodeComponent, shape: ModelShape) -> Iterator[NodeComponent]:
    """The component, and those that hold some of the same activations."""
    yield component
    group = shape.n_heads // shape.n_kv_heads
    match component:
        case Head(layer, head):
            yield KvHead(layer, head // group)
        case KvHead(layer, head):
            yield from (Head(layer, h) for h in range(head * group, (head + 1) * group))
        case Input():
            yield Resid(0)
        case Resid(0, False):
            yield Input()


def _overlap(one: Declared, other: Declared, source: Source) -> Diagnostic:
    if one.component == other.component:
        message = f"{format_name(one.component)} is declared twice, by {other.entry} and by {one.entry}"
    else:
        relation = {
            (Neuron, Mlp): "is part of",
            (Mlp, Neuron): "contains",
            (Head, KvHead): "reads",
            (KvHead, Head): "is read by",
        }.get((type(one.component), type(other.component)), "is the same as")
        message = (
            f"declarations overlap: {format_name(one.component)} {relation} {format_name(other.component)}, "
            "which is declared too"
        )
    span = source.span(other.place)
    return Diagnostic(
        "CS223",
        message,
        source.span(one.place),
        label="" if span is None else f"{other.entry} is on line {span.line}",
        hint="keep one of the two, or give them different positions"
        if {type(one.component), type(other.component)} != {Neuron, Mlp}
        else "keep one of the two: an MLP is declared whole or neuron by neuron",
    )
