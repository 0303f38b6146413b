"""Declarations that contain one another: the same activation would be declared twice, in two sizes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from circuitspec.diagnostics.diagnostic import Diagnostic
from circuitspec.graph.dictionary_nodes import clash, is_of_dictionary
from circuitspec.graph.edges import shared_by, sharing
from circuitspec.graph.nodes import NodeComponent, Place
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import IN_LAYERS, WHOLE, Component, Feature, aspects, wholes_of
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.hypothesis_file.yaml.source import SourceText


@dataclass(frozen=True)
class Declared:
    """A component as one entry of the file declares it; `entry` is that entry as written there."""

    component: NodeComponent
    where: Where
    entry: str
    place: Place


def overlaps(declared: Iterable[Declared], shape: ModelShape, source: SourceText) -> list[Diagnostic]:
    """CS223 for every two entries that declare the same activation.

    A component twice, a key-value head and a head that reads it, a head and its attention pattern, and `input` and r0
    overlap where their positions meet; a neuron and its MLP do at any positions, since an MLP is taken apart or it is
    not. So do features and what else their dictionary's place is, or all its features.
    """
    first: dict[Component, list[Declared]] = {}
    found: dict[tuple[Place, Place], Diagnostic] = {}
    units: dict[Component, Declared] = {}  # by their whole
    declared = tuple(declared)
    of_dictionaries = [one for one in declared if is_of_dictionary(one.component)]
    no_features = [one for one in declared if not isinstance(one.component, Feature)]
    for one in declared:
        candidates = [o for key in _same(one.component, shape) for o in first.get(key, ()) if o.where.meets(one.where)]
        for whole in wholes_of(one.component):
            candidates += first.get(whole, [])
            units.setdefault(whole, one)
        if one.component in units:
            candidates.append(units[one.component])
        if of_dictionaries:
            against = no_features if isinstance(one.component, Feature) else of_dictionaries
            candidates += [other for other in against if other.place < one.place and _clash(one, other, shape)]
        for other in candidates:
            found.setdefault((other.place, one.place), _overlap(one, other, shape, source))
        first.setdefault(one.component, []).append(one)
    return list(found.values())


def _clash(one: Declared, other: Declared, shape: ModelShape) -> bool:
    """A stream may be declared at some positions, and features of it at others."""
    apart = (one.component.kind.is_stream or other.component.kind.is_stream) and not one.where.meets(other.where)
    return not apart and clash(one.component, other.component, shape)


def _same(component: NodeComponent, shape: ModelShape) -> Iterator[Component]:
    """The component, and those that hold some of the same activations."""
    yield component
    yield from shared_by(component, shape)
    yield from sharing(component, shape)
    begins_as = component.kind.begins_as
    if begins_as is not None and component.place == (0, 0):
        yield WHOLE[begins_as]
    yield from (IN_LAYERS[kind](0, 0) for kind in IN_LAYERS if kind.begins_as is component.kind)
    yield from aspects(component)


def _overlap(one: Declared, other: Declared, shape: ModelShape, source: SourceText) -> Diagnostic:
    hint = "keep one of the two, or give them different positions"
    if one.component == other.component:
        message = f"{format_name(one.component)} is declared twice, by {other.entry} and by {one.entry}"
    else:
        relation = "is the same as"
        smaller = next((b for a, b in ((one, other), (other, one)) if a.component in wholes_of(b.component)), None)
        if smaller is not None:
            relation = "is part of" if smaller is one else "contains"
            hint = f"keep one of the two: {smaller.component.kind.whole_or_units}"
        elif clash(one.component, other.component, shape):
            relation, hint = "overlaps with", "keep one of the two: features, or what they are features of"
        elif other.component in shared_by(one.component, shape):
            relation = "reads"
        elif one.component in shared_by(other.component, shape):
            relation = "is read by"
        elif one.component in aspects(other.component):
            relation = "comes of" if one.component.kind.aspect_of is None else "makes"
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
        hint=hint,
    )
