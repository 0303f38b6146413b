"""What can be patched at node level, and the names of a hypothesis as such components of one model."""

from __future__ import annotations

from typing import TypeAlias, TypeGuard

from circuitspec.diagnostics.diagnostic import Diagnostic
from circuitspec.graph.dictionary_nodes import names_features, placed, unknown
from circuitspec.graph.shape import ModelShape
from circuitspec.hypothesis_file.grammar.component_kinds import ComponentKind
from circuitspec.hypothesis_file.grammar.components import (
    IN_LAYERS,
    WHOLE,
    Component,
    Pattern,
    Range,
    all_of,
)
from circuitspec.hypothesis_file.grammar.components import Ablatable as Ablatable
from circuitspec.hypothesis_file.grammar.components import NodeComponent as NodeComponent
from circuitspec.hypothesis_file.grammar.names import Name, format_name
from circuitspec.hypothesis_file.yaml.source import SourceText

Place: TypeAlias = tuple[str | int, ...]
"""A path into the hypothesis file."""


def is_node(component: Component) -> TypeGuard[NodeComponent]:
    """Whether it can be patched at node level."""
    return component.kind.is_patched


def is_ablatable(component: Component) -> TypeGuard[Ablatable]:
    """Whether something can be said to lie outside a set of such components, so that it can be free or ablated."""
    return component.kind.has_outside


def nodes_of(component: Component, shape: ModelShape) -> tuple[Component, ...]:
    """The component, or those of which it is all of a layer's: an attention layer is all of its heads, or its mixer."""
    kind = component.kind.stands_for
    if kind is None:
        return (component,)
    either = (one for one in IN_LAYERS if one is kind or one.in_place_of is kind)
    return tuple(found for one in either for found in all_of(one, component.place[0], shape.counts))


def wholes_with_outside(shape: ModelShape) -> tuple[Ablatable, ...]:
    """All heads and MLPs of a model, layer by layer: what together adds all there is to its embeddings, no part taken
    by itself.
    """
    kinds = sorted((k for k in IN_LAYERS if k.has_outside and k.part_of is None), key=lambda kind: kind.rank)
    found = [one for layer in range(shape.n_layers) for kind in kinds for one in all_of(kind, layer, shape.counts)]
    return tuple(one for one in found if is_ablatable(one))


def examples(*, with_outside: bool) -> str:
    """`heads (a9.h6), attention layers (a9), ... and input`: what can be patched, or of that what has an outside."""
    by_word: dict[str, list[str]] = {}
    for kind in (*IN_LAYERS, *WHOLE):
        node = kind.stands_for or kind
        if node.has_outside if with_outside else node.is_patched:
            by_word.setdefault(kind.plural, []).append(kind.example)
    *others, last = (word if word in own else f"{word} ({', '.join(own)})" for word, own in by_word.items())
    return f"{', '.join(others)} and {last}"


def expand(
    name: Name, shape: ModelShape, source: SourceText, place: Place, problems: list[Diagnostic]
) -> tuple[NodeComponent, ...]:
    """The components of a model of this shape that a name stands for; an attention layer is all of its heads.

    What it cannot stand for goes to `problems`, and nothing is returned: CS220 for what the model does
    not have, CS221 for what is not patched at node level, CS225 for what this family does not compute, CS246 for
    features that a dictionary does not have, CS247 for those of one that is not at hand.
    """
    if names_features(name.target) and shape.dictionary(name.target.dictionary) is None:
        problems.append(unknown(name.target, source.span(place)))
        return ()
    if not names_features(name.target) and _why_absent(name.target, shape, source, place, problems):
        return ()
    expanded: list[NodeComponent] = []
    for component in existing(name, shape, source, place, problems):
        if _why_absent(component, shape, source, place, problems):
            return ()
        nodes = [one for one in nodes_of(component, shape) if is_node(one)]
        if not nodes:
            problems.append(
                Diagnostic(
                    "CS221",
                    f"{format_name(component)} cannot be patched at node level",
                    source.span(place),
                    hint=f"nodes are {examples(with_outside=False)}",
                )
            )
            return ()
        expanded += nodes
    return tuple(expanded)


def _why_absent(
    target: Component | Pattern, shape: ModelShape, source: SourceText, place: Place, problems: list[Diagnostic]
) -> bool:
    """CS225 for what this family does not compute in that layer (of several layers, in the first)."""
    layers = target.layers if isinstance(target, Pattern) else target.place[0]
    layer = layers if isinstance(layers, int) else _first_with(target.kind, layers, shape)
    absent = target.kind.why_absent(shape.counts, layer)
    if absent is not None:
        reason, hint = absent
        said = f"the model has no {format_name(target)}: its {reason}"
        problems.append(Diagnostic("CS225", said, source.span(place), hint=hint))
    return absent is not None


def _in_another_layer(target: Component | Pattern, shape: ModelShape) -> bool:
    """Whether other layers of the model have components of this kind, and this one has not."""
    layers = target.layers if isinstance(target, Pattern) else target.place[0]
    return isinstance(layers, int) and 0 <= layers < shape.n_layers and not target.kind.in_layer(shape.counts, layers)


def _first_with(kind: ComponentKind, layers: Range, shape: ModelShape) -> int:
    """The first of these layers that has components of the kind; the first of all, where none has."""
    first, last = layers.first or 0, shape.n_layers - 1 if layers.last is None else layers.last
    return next((layer for layer in range(first, last + 1) if kind.in_layer(shape.counts, layer)), first)


def existing(
    name: Name, shape: ModelShape, source: SourceText, place: Place, problems: list[Diagnostic]
) -> tuple[Component, ...]:
    """The components that a name stands for, attention layers whole; CS220 for those the model does not have.

    CS246 for features that a dictionary does not have.
    """
    target = name.target
    if names_features(target) and shape.dictionary(target.dictionary) is not None:
        found = placed(target, shape, source.span(place))
        if isinstance(found, Diagnostic):
            problems.append(found)
            return ()
        return found
    if isinstance(target, Pattern):
        if has_none(target, shape):
            problems.append(_absent(target, "", shape, source, place))
            return ()
        if _in_another_layer(target, shape) and _why_absent(target, shape, source, place, problems):
            return ()
        try:
            return target.expand(shape.counts)
        except ValueError as error:
            problems.append(_absent(target, str(error), shape, source, place))
            return ()
    if _in_another_layer(target, shape) and _why_absent(target, shape, source, place, problems):
        return ()
    if not target.kind.exists(shape.counts, *target.place):
        problems.append(_absent(target, "", shape, source, place))
        return ()
    return (target,)


def has_none(target: Component | Pattern, shape: ModelShape) -> bool:
    """Whether the model has no component at all of this kind: no MLPs, no neurons."""
    return target.kind.in_layers and target.kind.per_layer(shape.counts) == 0


def _absent(what: Component | Pattern, reason: str, shape: ModelShape, source: SourceText, place: Place) -> Diagnostic:
    hint = what.kind.extent(shape.counts)
    return Diagnostic("CS220", f"the model has no {format_name(what)}", source.span(place), label=reason, hint=hint)
