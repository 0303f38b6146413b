"""What a name can stand for: the components of a transformer, and patterns of them.

Each value knows its `kind` (a row of `component_kinds`) and the `place` in which the model computes it; what is a fact
of the kind is asked of the row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from circuitspec.hypothesis_file.grammar.component_kinds import (
    AFTER_ALL_LAYERS,
    ATTENTION,
    ATTENTION_PATTERN,
    DICTIONARY_ERROR,
    EXPERT,
    EXPERT_NEURON,
    FEATURE,
    HEAD,
    INPUT,
    KV_HEAD,
    LOGITS,
    MIXER,
    MLP,
    NEURON,
    OTHER_FEATURES,
    RESID,
    RESID_MID,
    ROUTING,
    SHARED_EXPERT,
    SHARED_NEURON,
    ComponentKind,
    Counts,
    parts_of,
    unit_number,
)

Place: TypeAlias = tuple[int, int]
"""A layer and a number within it; -1 comes before all layers, `AFTER_ALL_LAYERS` after them."""


@dataclass(frozen=True)
class Input:
    """The embeddings that enter the first block."""

    kind: ClassVar[ComponentKind] = INPUT

    @property
    def place(self) -> Place:
        return -1, 0


@dataclass(frozen=True)
class Logits:
    """The output."""

    kind: ClassVar[ComponentKind] = LOGITS

    @property
    def place(self) -> Place:
        return AFTER_ALL_LAYERS, 0


@dataclass(frozen=True)
class Head:
    """One attention head: its slice of the input of the output projection."""

    layer: int
    head: int
    kind: ClassVar[ComponentKind] = HEAD

    @property
    def place(self) -> Place:
        return self.layer, self.head


@dataclass(frozen=True)
class AttentionPattern:
    """What one attention head attends to: at each query position, the weights of all positions up to it."""

    layer: int
    head: int
    kind: ClassVar[ComponentKind] = ATTENTION_PATTERN

    @property
    def place(self) -> Place:
        return self.layer, self.head


@dataclass(frozen=True)
class AttentionLayer:
    """All attention heads of a layer."""

    layer: int
    kind: ClassVar[ComponentKind] = ATTENTION

    @property
    def place(self) -> Place:
        return self.layer, 0


@dataclass(frozen=True)
class KvHead:
    """One key/value head of a grouped-query layer."""

    layer: int
    head: int
    kind: ClassVar[ComponentKind] = KV_HEAD

    @property
    def place(self) -> Place:
        return self.layer, self.head


@dataclass(frozen=True)
class Mixer:
    """What mixes the tokens of a layer without attention heads, by a recurrent state or a convolution: its output."""

    layer: int
    kind: ClassVar[ComponentKind] = MIXER

    @property
    def place(self) -> Place:
        return self.layer, 0


@dataclass(frozen=True)
class Mlp:
    """The MLP of a layer: its output."""

    layer: int
    kind: ClassVar[ComponentKind] = MLP

    @property
    def place(self) -> Place:
        return self.layer, 0


@dataclass(frozen=True)
class Neuron:
    """One hidden unit of an MLP: its entry in the input of the output projection."""

    layer: int
    index: int
    kind: ClassVar[ComponentKind] = NEURON

    @property
    def place(self) -> Place:
        return self.layer, self.index


@dataclass(frozen=True)
class Expert:
    """One expert of an MLP that is made of them: what it adds to the tokens that it serves, times its weight."""

    layer: int
    index: int
    kind: ClassVar[ComponentKind] = EXPERT

    @property
    def place(self) -> Place:
        return self.layer, self.index


@dataclass(frozen=True)
class SharedExpert:
    """The expert of an MLP that serves every token: what the MLP adds beside the chosen ones."""

    layer: int
    kind: ClassVar[ComponentKind] = SHARED_EXPERT

    @property
    def place(self) -> Place:
        return self.layer, 0


@dataclass(frozen=True)
class ExpertNeuron:
    """One hidden unit of an expert: its entry in the input of the expert's output projection, times its weight."""

    layer: int
    expert: int
    index: int
    kind: ClassVar[ComponentKind] = EXPERT_NEURON

    @property
    def place(self) -> Place:
        return self.layer, unit_number(self.expert, self.index)


@dataclass(frozen=True)
class SharedNeuron:
    """One hidden unit of the expert that serves every token."""

    layer: int
    index: int
    kind: ClassVar[ComponentKind] = SHARED_NEURON

    @property
    def place(self) -> Place:
        return self.layer, self.index


@dataclass(frozen=True)
class Routing:
    """What the router of an MLP chooses: the weight of each of its experts, zero for those that are not chosen."""

    layer: int
    kind: ClassVar[ComponentKind] = ROUTING

    @property
    def place(self) -> Place:
        return self.layer, 0


@dataclass(frozen=True)
class Resid:
    """The residual stream that enters a block, or with `mid` between its attention and its MLP."""

    layer: int
    mid: bool = False

    @property
    def kind(self) -> ComponentKind:
        return RESID_MID if self.mid else RESID

    @property
    def place(self) -> Place:
        return self.layer, 0


UNPLACED = AFTER_ALL_LAYERS + 1
"""The layer of a feature whose dictionary is not known."""


@dataclass(frozen=True)
class Feature:
    """One feature of a dictionary (SAE, transcoder) known under a name, which says in which layer."""

    dictionary: str
    index: int
    layer: int = field(default=UNPLACED, compare=False)
    kind: ClassVar[ComponentKind] = FEATURE

    @property
    def place(self) -> Place:
        return self.layer, self.index


@dataclass(frozen=True)
class OtherFeatures:
    """All features of a dictionary but some: all of them, where none is named."""

    dictionary: str
    named: frozenset[int] = frozenset()
    layer: int = field(default=UNPLACED, compare=False)
    kind: ClassVar[ComponentKind] = OTHER_FEATURES

    @property
    def place(self) -> Place:
        return self.layer, 0


@dataclass(frozen=True)
class DictionaryError:
    """What a dictionary's features leave of the value that they are to explain."""

    dictionary: str
    layer: int = field(default=UNPLACED, compare=False)
    kind: ClassVar[ComponentKind] = DICTIONARY_ERROR

    @property
    def place(self) -> Place:
        return self.layer, 0


OfDictionary: TypeAlias = Feature | OtherFeatures | DictionaryError
"""Parts of the value at a dictionary's place."""

OF_DICTIONARY = (Feature, OtherFeatures, DictionaryError)

Component: TypeAlias = (
    Input
    | Logits
    | Head
    | AttentionPattern
    | AttentionLayer
    | KvHead
    | Mixer
    | Mlp
    | Neuron
    | Expert
    | SharedExpert
    | ExpertNeuron
    | SharedNeuron
    | Routing
    | Resid
    | OfDictionary
)

Ablatable: TypeAlias = Head | Mixer | Mlp | Neuron | Expert | SharedExpert | ExpertNeuron | SharedNeuron | OfDictionary
"""Components that together write all that a model adds to its embeddings, and parts of the values that dictionaries
take apart. What is outside a circuit is made of them."""

NodeComponent: TypeAlias = Ablatable | AttentionPattern | KvHead | Routing | Resid | Input
"""Components that can be patched. The outside of an attention pattern, a routing, a key-value head, a residual stream
or the input is not defined."""

Writer: TypeAlias = Head | Mixer | Mlp
"""What adds to the residual stream and reads it."""

Sender: TypeAlias = Input | Writer | Feature
"""What adds to the residual stream: the embeddings, every head or mixer, every MLP; and on paths single features."""

Reader: TypeAlias = Writer | KvHead | Logits | Feature
"""What reads the residual stream, by one input or several."""

Between: TypeAlias = Writer | KvHead
"""Ends of edges that lie within the model."""

IN_LAYERS: Mapping[ComponentKind, Callable[[int, int], Component]] = {
    HEAD: Head,
    ATTENTION_PATTERN: AttentionPattern,
    ATTENTION: lambda layer, _: AttentionLayer(layer),
    MLP: lambda layer, _: Mlp(layer),
    NEURON: Neuron,
    EXPERT: Expert,
    SHARED_EXPERT: lambda layer, _: SharedExpert(layer),
    EXPERT_NEURON: lambda layer, number: ExpertNeuron(layer, *parts_of(number)),
    SHARED_NEURON: SharedNeuron,
    ROUTING: lambda layer, _: Routing(layer),
    KV_HEAD: KvHead,
    RESID: lambda layer, _: Resid(layer),
    RESID_MID: lambda layer, _: Resid(layer, mid=True),
    MIXER: lambda layer, _: Mixer(layer),
}
"""The kinds of which a layer has one or several, and the component of a layer and a number there."""

WHOLE: Mapping[ComponentKind, Component] = {INPUT: Input(), LOGITS: Logits()}
"""The kinds of which a model has one."""


@dataclass(frozen=True)
class Range:
    """Indices `first` to `last`, both included; without bounds all there are (`*`)."""

    first: int | None = None
    last: int | None = None


Indices: TypeAlias = int | Range


@dataclass(frozen=True)
class Pattern:
    """Components of one kind by layer and, where a layer has several, by index within the layer."""

    kind: ComponentKind
    layers: Indices
    members: Indices | None = None
    units: Indices | None = None  # of each of the members, where these have some

    def matches(self, component: Component) -> bool:
        """Whether `component` is one of those meant."""
        layer, member = component.place
        if component.kind != self.kind or not _within(layer, self.layers):
            return False
        if self.kind.per_member is not None:
            member, unit = parts_of(member)
            if self.units is not None and not _within(unit, self.units):
                return False
        return self.members is None or _within(member, self.members)

    def _unit_numbers(self, counts: Counts) -> tuple[int, ...]:
        assert self.kind.per_member is not None
        members, within = (Range() if one is None else one for one in (self.members, self.units))
        outer = _indices(members, counts.n_experts or 0, "experts a layer")
        units = tuple(_indices(within, self.kind.per_member(counts), f"{self.kind.plural} each"))
        return tuple(unit_number(member, unit) for member in outer for unit in units)

    def at_layer(self, layer: int) -> Component:
        """One of the components meant in a layer (the first, where all of them are)."""
        first = _first(self.members)
        return IN_LAYERS[self.kind](layer, first if self.units is None else unit_number(first, _first(self.units)))

    def expand(self, counts: Counts) -> tuple[Component, ...]:
        """The components meant in a model of this size, in model order.

        Raises ValueError where the pattern names a layer or member that the model does not have, or
        where the count it needs is not known.
        """
        make, layers = IN_LAYERS[self.kind], tuple(_indices(self.layers, counts.n_layers, "layers"))
        if isinstance(self.layers, Range):
            layers = tuple(layer for layer in layers if self.kind.in_layer(counts, layer))
        if self.members is None:
            return tuple(make(layer, 0) for layer in layers)
        if self.kind.per_member is not None:
            numbers = self._unit_numbers(counts)
            return tuple(make(layer, number) for layer in layers for number in numbers)
        count = self.kind.per_layer(counts)
        if count is None:
            raise ValueError(f"how many {self.kind.name} members a layer has was not given")
        members = tuple(_indices(self.members, count, f"{self.kind.name} members a layer"))
        return tuple(make(layer, member) for layer in layers for member in members)


@dataclass(frozen=True)
class FeaturePattern(Pattern):
    """Features of one dictionary by number."""

    dictionary: str = ""
    numbers: frozenset[int] = frozenset()

    @classmethod
    def of(cls, dictionary: str, numbers: frozenset[int]) -> FeaturePattern:
        return cls(FEATURE, Range(), dictionary=dictionary, numbers=numbers)

    def matches(self, component: Component) -> bool:
        """Whether `component` is one of those meant."""
        of_it = isinstance(component, Feature) and component.dictionary == self.dictionary
        return of_it and component.place[1] in self.numbers

    def at_layer(self, layer: int) -> Component:
        """One of those meant."""
        return Feature(self.dictionary, min(self.numbers))

    def expand(self, counts: Counts) -> tuple[Component, ...]:
        """The features meant; whether the dictionary has as many is not known here."""
        return tuple(Feature(self.dictionary, number) for number in sorted(self.numbers))


def all_of(kind: ComponentKind, layer: int, counts: Counts) -> tuple[Component, ...]:
    """All components of a kind in a layer, none where it computes none. The counts must tell how many there are."""
    if kind.why_absent(counts, layer) is not None:
        return ()
    if kind.per_member is not None:
        return Pattern(kind, layer, Range(), Range()).expand(counts)
    count = (kind.per_layer(counts) or 0) if kind.in_layer(counts, layer) else 0
    return tuple(IN_LAYERS[kind](layer, member) for member in range(count))


def units_of(whole: Component, unit_set: str, counts: Counts) -> tuple[Component, ...]:
    """All units of one set that make up a whole: an MLP's neurons, or its experts with the one that serves all; an
    expert's neurons.
    """
    kinds = [kind for kind in IN_LAYERS if kind.part_of is whole.kind and kind.unit_set == unit_set]
    layer, member = whole.place
    found: list[Component] = []
    for kind in kinds:
        nested = kind.per_member is not None
        found += Pattern(kind, layer, member, Range()).expand(counts) if nested else all_of(kind, layer, counts)
    return tuple(found)


def whole_of(component: Component) -> Component:
    """What a component is one unit of (its MLP, for a neuron); itself, for one that is a whole."""
    kind, (layer, number) = component.kind.part_of, component.place
    if kind is None:
        return component
    return IN_LAYERS[kind](layer, 0 if component.kind.per_member is None else parts_of(number)[0])


def wholes_of(component: Component) -> tuple[Component, ...]:
    """What a component is one unit of, and what that is one unit of: for a neuron of an expert, the expert and its MLP.

    None for a whole.
    """
    found: list[Component] = []
    while (whole := whole_of(component)) != component:
        found.append(whole)
        component = whole
    return tuple(found)


def aspects(component: Component) -> tuple[Component, ...]:
    """What the component is one aspect of, and its own aspects: a head, and what it attends to."""
    own, place = component.kind, component.place
    kinds = [kind for kind in IN_LAYERS if kind is own.aspect_of or (kind.aspect_of is own)]
    return tuple(IN_LAYERS[kind](*place) for kind in kinds)


def sort_key(component: Component) -> tuple[int, int, int, str]:
    """Model order: input, then layer by layer attention before MLP, then logits; features last."""
    layer, member = component.place
    return layer, component.kind.rank, member, component.dictionary if isinstance(component, OF_DICTIONARY) else ""


def stage(component: Component) -> int | None:
    """When a component computes: a sender can reach a receiver directly only at a later stage.

    Heads of one layer share a stage. None for a feature, whose place depends on its dictionary.
    """
    own = component.kind.stage
    return None if own is None else 4 * component.place[0] + own


def _first(wanted: Indices | None) -> int:
    return wanted if isinstance(wanted, int) else (wanted.first or 0) if wanted is not None else 0


def _within(index: int, wanted: Indices) -> bool:
    if isinstance(wanted, int):
        return index == wanted
    return (wanted.first is None or wanted.first <= index) and (wanted.last is None or index <= wanted.last)


def _indices(wanted: Indices, count: int, what: str) -> Iterator[int]:
    first, last = (wanted, wanted) if isinstance(wanted, int) else (wanted.first, wanted.last)
    if last is not None and last >= count:
        raise ValueError(f"index {last} is beyond the model's {count} {what}")
    return iter(range(first or 0, count if last is None else last + 1))
