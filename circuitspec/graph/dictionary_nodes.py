"""Nodes of dictionaries: the features of one, its error, and what of the model they take apart."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeGuard

from circuitspec.diagnostics.diagnostic import Diagnostic, Span
from circuitspec.graph.shape import DictionarySite, ModelShape
from circuitspec.hypothesis_file.grammar.component_kinds import HEAD, INPUT, MLP, NEURON, RESID, RESID_MID
from circuitspec.hypothesis_file.grammar.components import (
    OF_DICTIONARY,
    Component,
    DictionaryError,
    Feature,
    FeaturePattern,
    OfDictionary,
    OtherFeatures,
    Pattern,
)
from circuitspec.hypothesis_file.grammar.names import format_name


def is_of_dictionary(component: object) -> TypeGuard[OfDictionary]:
    """Whether it is a part of the value that a dictionary takes apart."""
    return isinstance(component, OF_DICTIONARY)


def names_features(target: Component | Pattern) -> TypeGuard[OfDictionary | FeaturePattern]:
    """Whether a name stands for such parts."""
    return isinstance(target, (*OF_DICTIONARY, FeaturePattern))


def placed(
    target: OfDictionary | FeaturePattern, shape: ModelShape, span: Span | None
) -> tuple[OfDictionary, ...] | Diagnostic:
    """The parts that a name stands for, each knowing its layer; CS246 for a feature that its dictionary does not have.

    CS247 where the model was given no such dictionary.
    """
    site = shape.dictionary(target.dictionary)
    if site is None:
        return unknown(target, span)
    layer = site.place.layer
    match target:
        case DictionaryError():
            return (DictionaryError(site.name, layer),)
        case OtherFeatures():
            if target.named:
                said = f"{format_name(target)} is what reports call the features that a circuit does not name"
                return Diagnostic("CS247", said, span, hint=f"write sae:{site.name}.f* for all features")
            return (OtherFeatures(site.name, layer=layer),)
        case Feature():
            numbers = frozenset({target.index})
        case FeaturePattern():
            numbers = target.numbers
    if site.n_features is not None and max(numbers) >= site.n_features:
        return Diagnostic(
            "CS246",
            f"the dictionary {site.name} has no feature {max(numbers)}",
            span,
            hint=f"its {site.n_features:,} features are f0 to f{site.n_features - 1}",
        )
    return tuple(Feature(site.name, number, layer) for number in sorted(numbers))


def unknown(target: OfDictionary | FeaturePattern, span: Span | None) -> Diagnostic:
    """CS247: of a dictionary that the model was not given."""
    said = f"{format_name(target)} cannot be used here: features are nodes that are verified"
    return Diagnostic("CS247", said, span, hint="verify the hypothesis: circuitspec verify FILE")


def takes_apart(site: DictionarySite, component: Component) -> bool:
    """Whether a dictionary's parts are parts of this component, or of what it adds up to with others of its layer."""
    kind = component.kind
    layer = component.place[0]
    match site.place.kind:
        case "resid":
            return (kind is RESID and layer == site.place.layer) or (kind is INPUT and site.place.layer == 0)
        case "resid_mid":
            return kind is RESID_MID and layer == site.place.layer
        case "mlp":
            return kind in (MLP, NEURON) and layer == site.place.layer
        case _:
            return kind is HEAD and layer == site.place.layer


def in_universe(site: DictionarySite, named: Collection[Component]) -> tuple[OfDictionary, ...]:
    """The parts of a dictionary's value of which a hypothesis that names some of them (`named`) says something.

    Features by themselves where they are named, and the others together, if there are any. `sae:NAME.f*` is all
    features, and as something free all that are not named. The error where it is named, or does not stay.
    """
    own = [one for one in named if is_of_dictionary(one) and one.dictionary == site.name]
    layer = site.place.layer
    features = sorted((one for one in own if isinstance(one, Feature)), key=lambda one: one.index)
    whole, error = OtherFeatures(site.name, layer=layer), DictionaryError(site.name, layer)
    others = OtherFeatures(site.name, frozenset(one.index for one in features), layer)
    left = [whole] if whole in own else [] if len(features) == site.n_features else [others]
    return (*features, *left, *([error] if error in own or not site.error_stays else []))


def clash(one: Component, other: Component, shape: ModelShape) -> bool:
    """Whether one is a part of the other: a feature of all features together, or of what its dictionary takes apart."""
    return any(_is_in(*pair, shape) for pair in ((one, other), (other, one)))


def _is_in(part: Component, whole: Component, shape: ModelShape) -> bool:
    site = shape.dictionary(part.dictionary) if is_of_dictionary(part) else None
    if site is None or not is_of_dictionary(part):
        return False
    if isinstance(whole, OtherFeatures) and isinstance(part, Feature):
        return whole.dictionary == part.dictionary
    return takes_apart(site, whole)
