"""Nodes of dictionaries: the features of one, its error, and what of the model they take apart."""

from __future__ import annotations

from collections.abc import Collection, Sequence
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


def unfit_on_paths(
    hops: Sequence[Sequence[Component]], span: Span | None, shape: ModelShape | None
) -> list[Diagnostic]:
    """CS248 for the features on a path that cannot stand there; without a `shape` none can.

    A feature is reached where its dictionary reads the residual stream: one of the stream, or a transcoder, which reads
    what an MLP reads. What it sends is its share of what is added to the stream there, which behind a norm of the heads
    together is no sum of shares.
    """
    found = []
    for number, hop in enumerate(hops):
        for feature in dict.fromkeys(one for one in hop if isinstance(one, Feature)):
            name, site = format_name(feature), None if shape is None else shape.dictionary(feature.dictionary)
            if shape is None:
                said = (
                    "here edges are cut between heads and MLPs, and features are parts of values that these add up to"
                )
                hint = "claim `path` of it, which is patched by itself; or name heads and MLPs"
            elif site is None:
                found.append(unknown(feature, span))
                continue
            elif number > 0 and (reads := _reads_no_stream(site)):
                said = f"its dictionary reads {reads}, and not the residual stream"
                hint = "end the path at the heads or the MLP; or name features of the stream, or of a transcoder"
            elif site.place.kind == "z" and not shape.plain_sum:
                said = "what heads add stands behind a norm of them all, so that no feature of theirs adds by itself"
                hint = f"take a dictionary of a{site.place.layer}, which is what comes out of the norm"
            else:
                continue
            found.append(Diagnostic("CS248", f"{name} cannot stand on this path: {said}", span, hint=hint))
    return found


def _reads_no_stream(site: DictionarySite) -> str:
    """What a dictionary reads in place of the stream; nothing where it reads that, or was not read itself yet."""
    match site.place.kind:
        case "mlp":
            return "" if site.reads_input or site.n_features is None else f"what the MLP {site.place} adds"
        case "z" | "attention":
            return f"what the heads of layer {site.place.layer} compute"
        case _:
            return ""


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
