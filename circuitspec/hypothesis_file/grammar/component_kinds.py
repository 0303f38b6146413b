"""The kinds of components, a row each: how one is written, how many a layer has, its place in the model's order, what
it sends and reads, and the words for it.

Whatever is a fact of a kind is read from here, by `component.kind` or `pattern.kind`. The values themselves stand in
`components`, and the tensors at which each kind is read and patched in `engine.execution.taps`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Port = Literal["q", "k", "v"]
PORTS: tuple[Port, ...] = ("q", "k", "v")

AFTER_ALL_LAYERS = 10**9


@dataclass(frozen=True)
class Lacking:
    """That some layers have none of the components of a `kind` (by its name): why, and what to write instead.

    `{layer}` stands for the layer in both; all layers where `layers` is None.
    """

    kind: str
    why: str
    instead: str
    layers: frozenset[int] | None = None


@dataclass(frozen=True)
class Counts:
    """How many of everything a model has, a layer where it is in layers. None where it is not known.

    `has_resid_mid`: whether anything lies between attention and MLP; not where both read the block's input. Where MLPs
    are choices among `n_experts`, but in the `dense_layers`, which have `n_neurons`; `has_shared` says whether one more
    expert serves every token; `n_expert_neurons` and `n_shared_neurons` are of one expert each. Layers of `mixers` have
    one mixer of tokens each in place of heads; `no_patterns` is why no head has an attention pattern, if so.
    """

    n_layers: int
    n_heads: int
    n_kv_heads: int | None = None
    n_neurons: int | None = None
    has_resid_mid: bool = True
    n_experts: int | None = None
    has_shared: bool = False
    dense_layers: frozenset[int] = frozenset()
    mixers: frozenset[int] = frozenset()
    no_patterns: str = ""
    absent: tuple[Lacking, ...] = ()  # what the family lacks that others have
    n_expert_neurons: int = 0
    n_shared_neurons: int = 0

    def said_absent(self, kind: str, layer: int) -> tuple[str, str] | None:
        """Why a layer has none of a kind, where the family says so, and what to write."""
        for one in self.absent:
            if one.kind == kind and (one.layers is None or layer in one.layers):
                return one.why.format(layer=layer), one.instead.format(layer=layer)
        return None

    @property
    def attention_only(self) -> bool:
        """Whether its MLPs add nothing but a bias."""
        return self.n_neurons == 0 and not self.n_experts


def _one(counts: Counts) -> int:
    return 1


def _never(counts: Counts, layer: int) -> None:
    return None


def _in_every_layer(counts: Counts, layer: int) -> bool:
    return True


def _layers(counts: Counts) -> str:
    return f"its {counts.n_layers} layers are 0 to {counts.n_layers - 1} (counted from 0)"


@dataclass(frozen=True, eq=False, kw_only=True)
class ComponentKind:
    """What is true of every component of one kind.

    A new kind takes a row here, its value and how it is made in `components` (`IN_LAYERS`), and where it is read and
    patched in `engine.execution.taps` (`TAPS`).
    """

    name: str

    # words; `{layer}` stands for the component's layer
    singular: str
    plural: str
    example: str  # one as it is written
    told_apart: str = ""  # what a list of all kinds adds to `singular`, where another kind is called the same
    drawn_in: str = ""  # the row of a drawing of the circuit

    # grammar: `letter`, the layer's number, and after a dot `suffix`, with a number where a layer has several; after
    # another dot `aspect`, where only one side of such a component is meant
    letter: str = ""  # none where it belongs to no layer
    suffix: str | None = None
    has_members: bool = False
    aspect: str | None = None
    counts_aspects: bool = False  # the number is the aspect's; with `per_member`, both have one
    per_member: Callable[[Counts], int] | None = None  # how many units one member has; numbered as `unit_number` says
    aspect_of: ComponentKind | None = None

    in_some_models: bool = False  # of few families, so that a list of what can be written leaves it out

    # order: by layer, then rank, then number
    rank: int = 0
    stage: int | None = None  # when in its layer: 0 what enters, 1 attention, 2 between, 3 MLP; None if others decide

    # how many a layer of a model has
    per_layer: Callable[[Counts], int | None] = _one  # None where that is not known
    in_layer: Callable[[Counts, int], bool] = _in_every_layer  # whether this layer has so many, and not none
    at_most: Callable[[Counts], int | None] | None = None  # how many it can be then
    extent: Callable[[Counts], str] = _layers  # the same in words
    why_absent: Callable[[Counts, int], tuple[str, str] | None] = (
        _never  # why a layer does not compute it; what to write
    )

    # node level
    is_patched: bool = False
    has_outside: bool = False  # all kinds of which it is true make up what a model adds to its embeddings
    is_stream: bool = False  # its value is the sum of all that came before
    begins_as: ComponentKind | None = None  # the first of them is the one component of that kind
    stands_for: ComponentKind | None = None  # it is all of a layer's components of that kind
    in_place_of: ComponentKind | None = None  # some layers have one of it where others have that kind
    part_of: ComponentKind | None = None  # it is one unit of a component of that kind
    unit_set: str = ""  # kinds of units of one set make up the whole together
    whole_or_units: str = ""  # that such a whole is declared as itself or by its units

    # edge and path level
    sends: bool = False  # it adds to the residual stream
    reads: bool = False  # it reads the residual stream
    ports: tuple[Port, ...] = ()  # by these inputs, where there are several
    reads_through: Mapping[Port, ComponentKind] = field(default_factory=dict)  # inputs that it shares with others of
    # its kind: they are this kind's, of which a layer has one for so many of its own
    reads_where_it_acts: bool = False  # and not at earlier positions too
    instead: str = "name heads and MLPs"  # what to name in place of what neither sends nor reads

    @property
    def title(self) -> str:
        """What a list of all kinds calls it."""
        return self.singular + self.told_apart

    @property
    def in_layers(self) -> bool:
        """Whether each component of this kind belongs to a layer."""
        return bool(self.letter)

    def exists(self, counts: Counts, layer: int, member: int) -> bool:
        """Whether a model of these counts has the component of that layer and number there."""
        if not self.in_layers:
            return True
        if self.per_member is not None:
            outer, unit = parts_of(member)
            return layer < counts.n_layers and outer < (counts.n_experts or 0) and unit < self.per_member(counts)
        count = self.per_layer(counts)
        within = layer < counts.n_layers and (count is None or member < count)
        return within and self.in_layer(counts, layer)


MOST_UNITS = 2**20  # of one member


def unit_number(member: int, unit: int) -> int:
    """The number in its layer of one unit of a member, such as a neuron of an expert."""
    return member * MOST_UNITS + unit


def parts_of(number: int) -> tuple[int, int]:
    """The member and the unit of a `unit_number`."""
    return divmod(number, MOST_UNITS)


# -- how many a model has, in words --------------------------------------------------------------------------------


def _layers_of_heads(counts: Counts) -> str:
    return (
        f"its {counts.n_layers} layers are a0 to a{counts.n_layers - 1}, each with {counts.n_heads} heads, "
        f"h0 to h{counts.n_heads - 1} (counted from 0)"
    )


def _layers_of_kv_heads(counts: Counts) -> str:
    kv_heads = counts.n_kv_heads or counts.n_heads
    return (
        f"its {counts.n_layers} layers are a0 to a{counts.n_layers - 1}, each with {kv_heads} key-value heads, "
        f"kv0 to kv{kv_heads - 1}"
    )


def _mlps(counts: Counts) -> str:
    if counts.attention_only:
        return "it has attention only"
    return f"its {counts.n_layers} MLPs are m0 to m{counts.n_layers - 1} (counted from 0)"


def _mlps_of_neurons(counts: Counts) -> str:
    if not counts.n_neurons:
        return "it has attention only"
    neurons = f"{counts.n_neurons} neurons, n0 to n{counts.n_neurons - 1}"
    if counts.n_experts:
        dense = ", ".join(f"m{layer}" for layer in sorted(counts.dense_layers)) or "none of them"
        mlps = f"its {counts.n_layers} MLPs are m0 to m{counts.n_layers - 1}"
        return f"{mlps}, of which these are no choice among experts and have {neurons}: {dense}"
    return f"its {counts.n_layers} MLPs are m0 to m{counts.n_layers - 1}, each with {neurons} (counted from 0)"


def _streams(counts: Counts) -> str:
    return f"its residual streams are r0 (the input) to r{counts.n_layers - 1} (entering the last block)"


def _if_said(kind: str) -> Callable[[Counts, int], tuple[str, str] | None]:
    return lambda counts, layer: counts.said_absent(kind, layer)


def _no_middle(counts: Counts, layer: int) -> tuple[str, str] | None:
    if counts.has_resid_mid:
        return counts.said_absent("resid_mid", layer)
    return (
        "attention and MLP both read the block's input",
        f"write r{layer} (what both read) or r{layer + 1} (after both)",
    )


def _no_single_neurons(counts: Counts, layer: int) -> tuple[str, str] | None:
    if not counts.n_experts or layer in counts.dense_layers:
        return counts.said_absent("neuron", layer)
    return "MLPs are choices among experts", f"write m{layer} for the whole of one, m{layer}.e0 for one of its experts"


def _experts(counts: Counts) -> str:
    if not counts.n_experts:
        return "its MLPs are not choices among experts"
    experts = f"{counts.n_experts} experts, e0 to e{counts.n_experts - 1}"
    shared = ", and one that serves every token, shared" if counts.has_shared else ""
    return f"its {counts.n_layers} MLPs are m0 to m{counts.n_layers - 1}, each with {experts}{shared} (counted from 0)"


def _no_experts(counts: Counts, layer: int) -> tuple[str, str] | None:
    if counts.n_experts is None:
        return None
    if not counts.n_experts:
        return "MLPs are not choices among experts", f"write m{layer}"
    if layer in counts.dense_layers:
        return f"layer {layer} has one MLP for all tokens", f"write m{layer}, or experts of other layers"
    return None


def _no_shared_expert(counts: Counts, layer: int) -> tuple[str, str] | None:
    if counts.n_experts and not counts.has_shared:
        return "MLPs have no expert that serves every token", f"write m{layer}.e0 for one of its experts"
    return _no_experts(counts, layer)


def _has_heads(counts: Counts, layer: int) -> bool:
    return layer not in counts.mixers


def _no_heads(counts: Counts, layer: int) -> tuple[str, str] | None:
    if _has_heads(counts, layer):
        return None
    with_heads = [f"a{one}" for one in range(counts.n_layers) if _has_heads(counts, one)]
    where = f"; layers with heads are {', '.join(with_heads)}" if with_heads else ""
    return (
        f"layer {layer} mixes tokens without attention heads, and its mixer is one component",
        f"write a{layer} for the whole of it{where}",
    )


def _no_kv_heads(counts: Counts, layer: int) -> tuple[str, str] | None:
    return _no_heads(counts, layer) or counts.said_absent("kv", layer)


def _no_pattern(counts: Counts, layer: int) -> tuple[str, str] | None:
    if counts.no_patterns:
        return counts.no_patterns, f"write a{layer}.h0 for one of its heads"
    return _no_heads(counts, layer) or counts.said_absent("pattern", layer)


def _no_mixer(counts: Counts, layer: int) -> tuple[str, str] | None:
    if layer in counts.mixers:
        return None
    return f"layer {layer} has heads", f"write a{layer} for all of them"


def _neurons_of_experts(counts: Counts) -> str:
    each = f", each of {counts.n_expert_neurons} neurons" if counts.n_experts else ""
    shared = f"; the shared one has {counts.n_shared_neurons}" if counts.has_shared else ""
    return _experts(counts) + each + shared


# -- the kinds -----------------------------------------------------------------------------------------------------

KV_HEAD = ComponentKind(
    name="kv",
    singular="key-value head",
    plural="key-value heads",
    example="a9.kv2",
    drawn_in="layer {layer}",
    letter="a",
    suffix="kv",
    has_members=True,
    rank=2,
    stage=1,
    per_layer=lambda counts: counts.n_kv_heads,
    in_layer=_has_heads,
    at_most=lambda counts: counts.n_heads,
    extent=_layers_of_kv_heads,
    why_absent=_no_kv_heads,
    is_patched=True,
    reads=True,
    ports=("k", "v"),
)
HEAD = ComponentKind(
    name="head",
    singular="head",
    plural="heads",
    example="a9.h6",
    drawn_in="layer {layer}",
    letter="a",
    suffix="h",
    has_members=True,
    rank=4,
    stage=1,
    per_layer=lambda counts: counts.n_heads,
    in_layer=_has_heads,
    extent=_layers_of_heads,
    why_absent=_no_heads,
    is_patched=True,
    has_outside=True,
    sends=True,
    reads=True,
    ports=PORTS,
    reads_through={"k": KV_HEAD, "v": KV_HEAD},
)
ATTENTION_PATTERN = ComponentKind(
    name="pattern",
    singular="attention pattern",
    plural="attention patterns",
    example="a9.h6.pattern",
    drawn_in="layer {layer}",
    letter="a",
    suffix="h",
    has_members=True,
    aspect="pattern",
    aspect_of=HEAD,
    rank=3,
    stage=1,
    per_layer=lambda counts: counts.n_heads,
    in_layer=_has_heads,
    extent=_layers_of_heads,
    why_absent=_no_pattern,
    is_patched=True,
    instead="name its head and the inputs <q> and <k>, which decide what it attends to",
)
ATTENTION = ComponentKind(
    name="attention",
    singular="attention layer",
    plural="attention layers",
    example="a9",
    drawn_in="layer {layer}",
    letter="a",
    rank=1,
    stage=1,
    extent=_layers_of_heads,
    stands_for=HEAD,
    ports=PORTS,
)
MIXER = ComponentKind(
    name="mixer",
    singular="mixer",
    plural="mixers",
    example="a3",
    told_apart=", in place of heads",
    drawn_in="layer {layer}",
    letter="a",
    in_some_models=True,
    rank=4,  # where another layer has heads
    stage=1,
    in_layer=lambda counts, layer: layer in counts.mixers,
    extent=_layers_of_heads,
    why_absent=_no_mixer,
    is_patched=True,
    has_outside=True,
    in_place_of=HEAD,
    sends=True,
    reads=True,
)
MLP = ComponentKind(
    name="mlp",
    singular="MLP",
    plural="MLPs",
    example="m3",
    drawn_in="layer {layer} MLP",
    letter="m",
    rank=6,
    stage=3,
    per_layer=lambda counts: 0 if counts.attention_only else 1,
    extent=_mlps,
    is_patched=True,
    has_outside=True,
    sends=True,
    reads=True,
    reads_where_it_acts=True,
)
NEURON = ComponentKind(
    name="neuron",
    singular="neuron",
    plural="neurons",
    example="m1.n42",
    drawn_in="layer {layer} MLP",
    letter="m",
    suffix="n",
    has_members=True,
    rank=7,
    stage=3,
    per_layer=lambda counts: counts.n_neurons,
    extent=_mlps_of_neurons,
    why_absent=_no_single_neurons,
    is_patched=True,
    has_outside=True,
    part_of=MLP,
    unit_set="neurons",
    whole_or_units="an MLP is declared whole or neuron by neuron",
    instead="name its MLP, m{layer}",
)
EXPERT = ComponentKind(
    name="expert",
    singular="expert",
    plural="experts",
    example="m3.e5",
    drawn_in="layer {layer} MLP",
    letter="m",
    suffix="e",
    has_members=True,
    in_some_models=True,
    rank=12,
    stage=3,
    per_layer=lambda counts: counts.n_experts,
    extent=_experts,
    why_absent=_no_experts,
    is_patched=True,
    has_outside=True,
    part_of=MLP,
    unit_set="experts",
    whole_or_units="an MLP is declared whole or expert by expert",
    instead="name its MLP, m{layer}",
)
SHARED_EXPERT = ComponentKind(
    name="shared",
    singular="shared expert",
    plural="shared experts",
    example="m3.shared",
    drawn_in="layer {layer} MLP",
    letter="m",
    suffix="shared",
    in_some_models=True,
    rank=13,
    stage=3,
    per_layer=lambda counts: int(counts.has_shared),
    extent=_experts,
    why_absent=_no_shared_expert,
    is_patched=True,
    has_outside=True,
    part_of=MLP,
    unit_set="experts",
    whole_or_units="an MLP is declared whole or expert by expert",
    instead="name its MLP, m{layer}",
)
EXPERT_NEURON = ComponentKind(
    name="expert_neuron",
    singular="neuron of an expert",
    plural="neurons of experts",
    example="m3.e5.n7",
    drawn_in="layer {layer} MLP",
    letter="m",
    suffix="e",
    has_members=True,
    aspect="n",
    per_member=lambda counts: counts.n_expert_neurons,
    in_some_models=True,
    rank=14,
    stage=3,
    per_layer=lambda counts: (counts.n_experts or 0) * counts.n_expert_neurons,
    extent=_neurons_of_experts,
    why_absent=_no_experts,
    is_patched=True,
    has_outside=True,
    part_of=EXPERT,
    unit_set="neurons",
    whole_or_units="an expert is declared whole or neuron by neuron",
    instead="name its MLP, m{layer}",
)
SHARED_NEURON = ComponentKind(
    name="shared_neuron",
    singular="neuron of the shared expert",
    plural="neurons of shared experts",
    example="m3.shared.n7",
    drawn_in="layer {layer} MLP",
    letter="m",
    suffix="shared",
    has_members=True,
    aspect="n",
    counts_aspects=True,
    in_some_models=True,
    rank=15,
    stage=3,
    per_layer=lambda counts: counts.n_shared_neurons,
    extent=_neurons_of_experts,
    why_absent=_no_shared_expert,
    is_patched=True,
    has_outside=True,
    part_of=SHARED_EXPERT,
    unit_set="neurons",
    whole_or_units="an expert is declared whole or neuron by neuron",
    instead="name its MLP, m{layer}",
)
ROUTING = ComponentKind(
    name="routing",
    singular="routing",
    plural="routings",
    example="m3.routing",
    drawn_in="layer {layer} MLP",
    letter="m",
    suffix="routing",
    in_some_models=True,
    rank=11,
    stage=3,
    per_layer=lambda counts: None if counts.n_experts is None else min(1, counts.n_experts),
    extent=_experts,
    why_absent=_no_experts,
    is_patched=True,
    instead="name its MLP, m{layer}",
)
INPUT = ComponentKind(
    name="input",
    singular="input",
    plural="input",
    example="input",
    stage=3,
    why_absent=_if_said("input"),
    is_patched=True,
    sends=True,
)
RESID = ComponentKind(
    name="resid",
    singular="residual stream",
    plural="residual streams",
    example="r5",
    drawn_in="into layer {layer}",
    letter="r",
    rank=0,
    stage=0,
    extent=_streams,
    why_absent=_if_said("resid"),
    is_patched=True,
    is_stream=True,
    begins_as=INPUT,
    instead="name the heads and MLPs that write to the stream, or those that read it",
)
RESID_MID = ComponentKind(
    name="resid_mid",
    singular="residual stream",
    plural="residual streams",
    example="r5.mid",
    told_apart=", mid-block",
    drawn_in="mid layer {layer}",
    letter="r",
    suffix="mid",
    rank=5,
    stage=2,
    extent=_streams,
    why_absent=_no_middle,
    is_patched=True,
    is_stream=True,
    instead="name the heads and MLPs that write to the stream, or those that read it",
)
LOGITS = ComponentKind(name="logits", singular="logits", plural="logits", example="logits", stage=0, reads=True)
FEATURE = ComponentKind(
    name="feature",
    singular="feature",
    plural="features",
    example="sae:NAME.f7",
    drawn_in="features",
    rank=8,
    is_patched=True,
    has_outside=True,
    sends=True,
    reads=True,
    reads_where_it_acts=True,
)
OTHER_FEATURES = ComponentKind(
    name="features",
    singular="other features",
    plural="other features",
    example="sae:NAME.f*",
    drawn_in="features",
    rank=9,
    is_patched=True,
    has_outside=True,
    instead="name its features by number, as in sae:NAME.f[3,7]",
)
DICTIONARY_ERROR = ComponentKind(
    name="dictionary_error",
    singular="dictionary's error",
    plural="dictionaries' errors",
    example="sae:NAME.error",
    drawn_in="features",
    rank=10,
    is_patched=True,
    has_outside=True,
    instead="name features of the dictionary, or what writes there",
)
OF_DICTIONARIES = (FEATURE, OTHER_FEATURES, DICTIONARY_ERROR)
"""Parts of the values that dictionaries take apart."""
