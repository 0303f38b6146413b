"""Taps: the module inputs and outputs at which components are read and patched.

All heads of a layer share one tap, so that one intervention per layer and kind is enough however many
heads are patched (one per head costs about a quarter more time).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, total_ordering
from math import gcd
from typing import Literal, TypeAlias, assert_never, get_args

from circuitspec.graph.edges import Reader, Sender
from circuitspec.graph.nodes import NodeComponent
from circuitspec.graph.shape import DictionarySite, LatentWidths, ModelShape
from circuitspec.hypothesis_file.grammar.component_kinds import (
    ATTENTION_PATTERN,
    EXPERT,
    EXPERT_NEURON,
    HEAD,
    INPUT,
    KV_HEAD,
    LOGITS,
    MIXER,
    MLP,
    NEURON,
    RESID,
    RESID_MID,
    ROUTING,
    SHARED_EXPERT,
    SHARED_NEURON,
    ComponentKind,
    parts_of,
)
from circuitspec.hypothesis_file.grammar.components import DictionaryError, Feature, OtherFeatures
from circuitspec.models.families.architecture import Architecture, FusedQKV, LatentQKV, Port

TapKind = Literal[
    "embed",
    "resid",
    "attn_in",
    "qkv",
    "q",
    "k",
    "v",
    "latent",
    "kv_up",
    "pattern",
    "z",
    "z_scaled",
    "attn_added",
    "mixer",
    "beside",
    "resid_mid",
    "mlp_in",
    "routing",
    "neurons",
    "shared_neurons",
    "expert_neurons",
    "experts",
    "mlp",
    "mlp_added",
    "per_layer",
    "final",
    "features",
    "error",
]

# in the order in which a block computes them ("embed" comes before layer 0, "final" after the last)
_ORDER: tuple[TapKind, ...] = get_args(TapKind)


@total_ordering
@dataclass(frozen=True)
class Tap:
    """One tensor of the forward pass, `[row, pos, channel]`; taps are ordered as the model computes them.

    `embed` is the token embeddings, `resid` the block's input, `attn_in` that after the norm before the attention, or
    before the mixer, `resid_mid` the residual stream between attention and MLP, `qkv` or `q`, `k` and `v` the
    projections (before norm and rotation; of `q` with the gates, where heads have some; where keys and values come of
    a latent, `latent` is that with what is rotated of keys behind it, and `kv_up` what is made of it, head after head
    the other part of its key and its value), `z` the heads' outputs side by side, `attn_added` what is added to the
    residual stream of the attention, `mixer` what a mixer adds in its place, `mlp_in` what enters the MLP (after its
    norm), `neurons` the input of the MLP's output projection, `shared_neurons` that of the expert for every token,
    `mlp` the MLP's output, `mlp_added` what is added to the residual stream of it (both after a post norm, where there
    is one), and `final` the input of the last norm; of z and neurons what enters a norm over all of them, where there
    is one. Of few families: `beside` is what is added beside the attention, `per_layer` what is added of inputs that a
    layer has of its own.
    Seven are no place in the model: `z_scaled`, z over the divisor of the norm after the attention
    (`engine.levels.residual_stream`); `pattern`, what the heads attend to, head after head, `[row, query pos,
    head * key pos]`; `routing`, the weights of all experts, zero for those that are not chosen, `[row, pos, expert]`;
    `expert_neurons`, what each expert's output projection reads, times its weight, `[row, pos, expert * d_expert]`;
    `experts`, what each of them adds, the shared one last, `[row, pos, expert * d_model]` (all four in
    `engine.execution.worked_out`); and `features` and `error` of a `dictionary`: by what its directions are multiplied
    in the value that it takes apart, and what they leave of it (`engine.execution.compiler`).
    """

    layer: int
    kind: TapKind
    dictionary: str = ""

    def path(self, architecture: Architecture) -> str:
        """The pyvene string component, e.g. `model.layers[3].self_attn.o_proj.input`."""
        match self.kind:
            case "embed":
                return architecture.embedding()
            case "attn_in":
                return architecture.attn_in(self.layer)
            case "mixer":
                return architecture.mixer_out(self.layer)
            case "resid":
                return architecture.resid_in(self.layer)
            case "resid_mid":
                path = architecture.resid_mid(self.layer)
                if path is None:
                    raise ValueError(f"{architecture.title} has no residual stream between attention and MLP")
                return path
            case "qkv":
                return f"{architecture.port('k', self.layer)}.output"
            case "q" | "k" | "v":
                return f"{architecture.port(self.kind, self.layer)}.output"
            case "latent":
                return architecture.latent(self.layer)
            case "kv_up":
                return f"{architecture.port('v', self.layer)}.output"
            case "z":
                return architecture.z(self.layer)
            case "routing":
                return f"{architecture.router(self.layer)}.output"
            case "shared_neurons":
                return architecture.shared_neurons(self.layer)
            case "z_scaled" | "pattern" | "expert_neurons" | "experts" | "features" | "error":
                raise ValueError(f"{self.kind} is worked out, no module computes it")
            case "attn_added":
                return architecture.attn_added(self.layer)
            case "beside":
                return architecture.beside_attention(self.layer)
            case "per_layer":
                return architecture.per_layer_added(self.layer)
            case "neurons":
                return architecture.neurons(self.layer)
            case "mlp_in":
                return architecture.mlp_in(self.layer)
            case "mlp":
                return architecture.mlp_out(self.layer)
            case "mlp_added":
                return architecture.mlp_added(self.layer)
            case "final":
                return architecture.resid_final()
            case _:
                assert_never(self.kind)

    def units(self, shape: ModelShape) -> int:
        """Into how many equal slices the last dimension falls."""
        match self.kind:
            case "z" | "z_scaled" | "pattern":
                return shape.n_heads
            case "q":
                return shape.n_heads * shape.slices_of_head
            case "k" | "v":
                return shape.n_kv_heads * shape.slices_of_head
            case "qkv":
                return shape.n_heads + 2 * shape.n_kv_heads
            case "latent" | "kv_up":
                return self.width(shape) // self._unit(shape)
            case "neurons":
                return shape.d_mlp
            case "shared_neurons" | "expert_neurons":
                return self.width(shape)
            case "experts":
                return shape.n_experts + shape.has_shared
            case "features":
                return self._site(shape).n_features or 0
            case _:
                return 1

    def width(self, shape: ModelShape) -> int:
        """The number of channels."""
        match self.kind:
            case "q":
                return shape.n_heads * shape.d_query_of(self.layer) * (2 if shape.query_gates else 1)
            case "k" | "v":
                return shape.n_kv_heads * shape.d_head_of(self.layer)
            case "z" | "z_scaled" | "qkv":
                return self.units(shape) * shape.d_head_of(self.layer)
            case "latent":
                widths = _latent(shape)
                return widths.latent + widths.rotated
            case "kv_up":
                return shape.n_heads * (_latent(shape).unrotated + shape.d_head)
            case "neurons":
                return shape.d_mlp
            case "shared_neurons":
                return shape.d_shared
            case "expert_neurons":
                return shape.n_experts * shape.d_expert
            case "routing":
                return shape.n_experts
            case "experts":
                return self.units(shape) * shape.d_model
            case "pattern":
                raise ValueError("how wide a pattern is depends on the prompts")
            case "features":
                return self._site(shape).n_features or 0
            case "error":
                return self.explained(shape)[1].width(shape)
            case _:
                return shape.d_model

    def _unit(self, shape: ModelShape) -> int:
        """How many channels a slice of `latent` and `kv_up` has, whose parts differ in width: what divides them all."""
        widths = _latent(shape)
        if self.kind == "latent":
            return gcd(widths.latent, widths.rotated)
        return gcd(widths.unrotated, shape.d_head)

    def __lt__(self, other: Tap) -> bool:
        return self._order < other._order

    @property
    def _order(self) -> tuple[int, int, str]:
        return self.layer, _ORDER.index(self.kind), self.dictionary

    def _site(self, shape: ModelShape) -> DictionarySite:
        found = shape.dictionary(self.dictionary)
        assert found is not None, f"the model was given no dictionary {self.dictionary}"
        return found

    def explained(self, shape: ModelShape) -> tuple[Tap, Tap]:
        """Of features and errors: the tap that their dictionary reads, and the one whose value it takes apart."""
        site = self._site(shape)
        read = site.place.kind
        kinds: Mapping[str, TapKind] = {"attention": "attn_added", "mlp": "mlp" if shape.plain_sum else "mlp_added"}
        written = Tap(self.layer, kinds.get(read, read))  # type: ignore[arg-type]
        if read == "attention" and self.layer in shape.mixers:
            written = Tap(self.layer, "mixer")
        if read == "resid" and self.layer == shape.n_layers:  # what leaves the last block
            written = Tap(self.layer, "final")
        return (Tap(self.layer, "mlp_in") if site.reads_input else written), written

    def acts_at(self, architecture: Architecture) -> tuple[Tap, ...]:
        """The taps of modules at which this one is read and patched: itself, unless it is worked out of others."""
        if self.kind in ("expert_neurons", "experts"):
            return (Tap(self.layer, "mlp"),)
        if self.kind != "pattern":
            return (self,)
        values: TapKind = "v"
        if isinstance(architecture.qkv, FusedQKV | LatentQKV):
            values = "qkv" if isinstance(architecture.qkv, FusedQKV) else "kv_up"
        return Tap(self.layer, values), Tap(self.layer, "z")


@dataclass(frozen=True)
class Slot:
    """A slice of a tap."""

    tap: Tap
    unit: int


def _latent(shape: ModelShape) -> LatentWidths:
    assert shape.latent is not None, "keys and values of this model come of no latent"
    return shape.latent


def port_slots(port: Port, layer: int, head: int, architecture: Architecture, shape: ModelShape) -> tuple[Slot, ...]:
    """Where a head's query, or a key-value head's key or value, is computed: slices of outputs of projections.

    One slice, but of a pair of heads, of which each has one, and where keys and values come of a latent: then they are
    those of all heads.
    """
    if shape.latent is None:
        first = _port_slot(port, layer, head, architecture, shape)
        if not shape.paired_heads:
            return (first,)
        return first, Slot(first.tap, first.unit + first.tap.units(shape) // 2)
    if port == "q":
        return (Slot(Tap(layer, "q"), head),)
    own = [slot for one in range(shape.n_heads) for slot in _made_of_latent(port, layer, one, shape)]
    return (*(_rotated(layer, shape) if port == "k" else ()), *own)


def own_slots(port: Port, layer: int, head: int, architecture: Architecture, shape: ModelShape) -> tuple[Slot, ...]:
    """Where the query of a head is computed, or the key or the value that it reads; a value's slices side by side."""
    if shape.latent is None:
        number = head if port == "q" else head // (shape.n_heads // shape.n_kv_heads)
        return port_slots(port, layer, number, architecture, shape)
    if port == "q":
        return (Slot(Tap(layer, "q"), head),)
    return (*(_rotated(layer, shape) if port == "k" else ()), *_made_of_latent(port, layer, head, shape))


def value_channels(
    layer: int, head: int, architecture: Architecture, shape: ModelShape
) -> tuple[Tap, tuple[int, ...], slice]:
    """The tap of the value that a head reads, and there the units of the value, and its channels."""
    slots = own_slots("v", layer, head, architecture, shape)
    tap, units = slots[0].tap, tuple(slot.unit for slot in slots)
    width = tap.width(shape) // tap.units(shape)
    return tap, units, slice(units[0] * width, (units[-1] + 1) * width)


def _rotated(layer: int, shape: ModelShape) -> tuple[Slot, ...]:
    """What is rotated of all keys: what stands behind the latent."""
    tap = Tap(layer, "latent")
    first = tap.units(shape) * _latent(shape).latent // tap.width(shape)
    return tuple(Slot(tap, unit) for unit in range(first, tap.units(shape)))


def _made_of_latent(port: Port, layer: int, head: int, shape: ModelShape) -> tuple[Slot, ...]:
    """What of a head's key, or its value, is made of the latent."""
    tap = Tap(layer, "kv_up")
    each = tap.units(shape) // shape.n_heads
    of_key = each * _latent(shape).unrotated // (_latent(shape).unrotated + shape.d_head)
    units = range(of_key) if port == "k" else range(of_key, each)
    return tuple(Slot(tap, head * each + unit) for unit in units)


def _port_slot(port: Port, layer: int, head: int, architecture: Architecture, shape: ModelShape) -> Slot:
    qkv = architecture.qkv
    if not isinstance(qkv, FusedQKV):
        return Slot(Tap(layer, port), head)
    place = ("q", "k", "v").index(port)
    if qkv.layout == "per head":
        queries = shape.n_heads // shape.n_kv_heads  # of one key-value head, then its key and its value
        group, number = divmod(head, queries) if port == "q" else (head, queries + place - 1)
        return Slot(Tap(layer, "qkv"), (queries + 2) * group + number)
    before = (0, shape.n_heads, shape.n_heads + shape.n_kv_heads)[place]
    return Slot(Tap(layer, "qkv"), before + head)


SlotsOf: TypeAlias = Callable[[int, int, Architecture, ModelShape], tuple[Slot, ...]]
"""Where the component of a layer and a number there is patched; the input counts as one of layer -1."""


def _slice(kind: TapKind) -> SlotsOf:
    return lambda layer, member, architecture, shape: (Slot(Tap(layer, kind), member),)


def _neuron_of_expert(layer: int, number: int, shape: ModelShape) -> tuple[Slot, ...]:
    expert, neuron = parts_of(number)
    return (Slot(Tap(layer, "expert_neurons"), expert * shape.d_expert + neuron),)


def _key_and_value(layer: int, member: int, architecture: Architecture, shape: ModelShape) -> tuple[Slot, ...]:
    if shape.latent is not None:  # from which both come
        return _all_units(Tap(layer, "latent"), Tap(layer, "latent").units(shape))
    ports: tuple[Port, ...] = ("k", "v")
    return tuple(slot for port in ports for slot in port_slots(port, layer, member, architecture, shape))


@dataclass(frozen=True, kw_only=True)
class KindTaps:
    """The tensors of one kind of component.

    `slots` are where it is patched (node level): one slice for all but key-value heads, which are their key and their
    value; patching those changes every query head that reads them. `written` is where its value is read as a
    sender, `read` where the residual stream that it reads is found (edge and path level).
    """

    slots: SlotsOf | None = None
    written: Callable[[int, Architecture], Tap] | None = None
    read: Callable[[int, ModelShape], Tap] | None = None


TAPS: Mapping[ComponentKind, KindTaps] = {
    INPUT: KindTaps(
        slots=lambda layer, member, architecture, shape: (Slot(Tap(0, "resid"), 0),),
        written=lambda layer, architecture: Tap(0, "resid"),
    ),
    LOGITS: KindTaps(read=lambda layer, shape: Tap(shape.n_layers, "final")),
    HEAD: KindTaps(
        slots=_slice("z"),
        written=lambda layer, architecture: Tap(layer, "z"),
        read=lambda layer, shape: Tap(layer, "resid"),
    ),
    ATTENTION_PATTERN: KindTaps(slots=_slice("pattern")),
    KV_HEAD: KindTaps(slots=_key_and_value, read=lambda layer, shape: Tap(layer, "resid")),
    MIXER: KindTaps(
        slots=_slice("mixer"),
        written=lambda layer, architecture: Tap(layer, "mixer"),
        read=lambda layer, shape: Tap(layer, "resid"),
    ),
    MLP: KindTaps(
        slots=_slice("mlp"),
        written=lambda layer, architecture: Tap(layer, "mlp" if architecture.mlp_post_norm is None else "mlp_added"),
        read=lambda layer, shape: Tap(layer, "resid_mid" if shape.has_resid_mid else "resid"),
    ),
    NEURON: KindTaps(slots=_slice("neurons")),
    EXPERT: KindTaps(slots=_slice("experts")),
    SHARED_EXPERT: KindTaps(
        slots=lambda layer, member, architecture, shape: (Slot(Tap(layer, "experts"), shape.n_experts),)
    ),
    EXPERT_NEURON: KindTaps(slots=lambda layer, number, architecture, shape: _neuron_of_expert(layer, number, shape)),
    SHARED_NEURON: KindTaps(slots=_slice("shared_neurons")),
    ROUTING: KindTaps(slots=_slice("routing")),
    RESID: KindTaps(slots=_slice("resid")),
    RESID_MID: KindTaps(slots=_slice("resid_mid")),
}
"""By the kinds that are patched, send or read. Attention layers are patched as their heads; and parts of what a
dictionary takes apart at taps of their own (`slots_of`)."""


@lru_cache(maxsize=16)
def _all_units(tap: Tap, count: int) -> tuple[Slot, ...]:
    """Shared by all that are most of a tap: a search has hundreds of such, of thousands of features each."""
    return tuple(Slot(tap, unit) for unit in range(count))


def slots_of(component: NodeComponent, architecture: Architecture, shape: ModelShape) -> tuple[Slot, ...]:
    """Where a component is patched (node level)."""
    match component:
        case Feature(dictionary, index, layer):
            return (Slot(Tap(layer, "features", dictionary), index),)
        case OtherFeatures(dictionary, named, layer):
            tap = Tap(layer, "features", dictionary)
            every = _all_units(tap, tap.units(shape))
            return tuple(slot for slot in every if slot.unit not in named) if named else every
        case DictionaryError(dictionary, layer):
            return (Slot(Tap(layer, "error", dictionary), 0),)
    slots = TAPS[component.kind].slots
    assert slots is not None, f"{component.kind.plural} are not patched"
    return slots(*component.place, architecture, shape)


def units_of(slots: Sequence[Slot]) -> Mapping[Tap, tuple[int, ...]]:
    """The slices by their taps: of many features of one dictionary it is told once which tap they are of."""
    found: dict[Tap, list[int]] = {}
    last, members = None, list[int]()
    for slot in slots:
        if slot.tap is not last:
            last, members = slot.tap, found.setdefault(slot.tap, [])
        members.append(slot.unit)
    return {tap: tuple(own) for tap, own in found.items()}


def written_at(sender: Sender, architecture: Architecture) -> Tap:
    """Where a sender's value is read; of a feature, with all others of its dictionary."""
    if isinstance(sender, Feature):
        return Tap(sender.layer, "features", sender.dictionary)
    written = TAPS[sender.kind].written
    assert written is not None, f"{sender.kind.plural} do not send"
    return written(sender.place[0], architecture)


def read_at(reader: Reader, shape: ModelShape) -> Tap:
    """Where the residual stream that a component reads is found; of a feature, what is made of it there."""
    if isinstance(reader, Feature):
        return Tap(reader.layer, "features", reader.dictionary)
    read = TAPS[reader.kind].read
    assert read is not None, f"{reader.kind.plural} do not read the residual stream"
    return read(reader.place[0], shape)


def all_taps(architecture: Architecture, shape: ModelShape) -> frozenset[Tap]:
    """Every tensor `[row, pos, channel]` of a module that some component of this model is patched at."""
    given = (
        slot.tap
        for kind, taps in TAPS.items()
        for layer in range(shape.n_layers)
        if taps.slots and kind.why_absent(shape.counts, layer) is None
        for slot in taps.slots(layer, 0, architecture, shape)
    )
    found = {tap for one in given for tap in one.acts_at(architecture)}
    return frozenset(tap for tap in found if tap.units(shape) and tap.kind != "routing")


def added_by_attention(layer: int, shape: ModelShape) -> Tap:
    """Where it is read what the attention of a layer adds to the residual stream, or the mixer in its place."""
    return Tap(layer, "mixer" if layer in shape.mixers else "attn_added")


def label(tap: Tap) -> str:
    """What is patched at a tap, in the words of hypothesis files: `a3`, `r2.mid`, `m1.n*`, `a3.kv* (keys)`."""
    labels: Mapping[TapKind, str] = {
        "embed": "embeddings",
        "resid": f"r{tap.layer}",
        "qkv": f"a{tap.layer} (q, k, v)",
        "k": f"a{tap.layer}.kv* (keys)",
        "v": f"a{tap.layer}.kv* (values)",
        "latent": f"a{tap.layer}.kv0",
        "kv_up": f"a{tap.layer} (k, v)",
        "pattern": f"a{tap.layer}.h*.pattern",
        "z": f"a{tap.layer}",
        "mixer": f"a{tap.layer}",
        "resid_mid": f"r{tap.layer}.mid",
        "neurons": f"m{tap.layer}.n*",
        "shared_neurons": f"m{tap.layer}.shared.n*",
        "expert_neurons": f"m{tap.layer}.e*.n*",
        "experts": f"m{tap.layer}.e*",
        "routing": f"m{tap.layer}.routing",
        "mlp": f"m{tap.layer}",
        "final": "last residual stream",
        "features": f"sae:{tap.dictionary}.f*",
        "error": f"sae:{tap.dictionary}.error",
    }
    return labels[tap.kind]
