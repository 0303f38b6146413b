"""What is said of a model family: which module computes what. Imports no torch.

The families themselves are entries in `sequential_families.py`, `post_norm_families.py` and `parallel_families.py`, put
together in `family_table.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from circuitspec.models.families.expert_layers import Experts

if TYPE_CHECKING:
    from torch import Tensor

Port = Literal["q", "k", "v"]


@dataclass(frozen=True)
class ConfigKeys:
    """What the family's config.json calls each size; None where it has no such key, a number where it is that."""

    n_layers: str = "num_hidden_layers"
    n_heads: str = "num_attention_heads"
    n_kv_heads: str | int | None = "num_key_value_heads"
    d_model: str = "hidden_size"
    d_head: str | None = "head_dim"
    d_mlp: str = "intermediate_size"
    n_vocab: str = "vocab_size"
    max_positions: str = "max_position_embeddings"
    d_mlp_over_d_model: int | None = None  # stands in for an absent or null d_mlp
    d_mlp_of: Callable[[Mapping[str, object], int], int] | None = None  # the true one, of a config and its own d_mlp


@dataclass(frozen=True)
class SeparateQKV:
    """Three projections, paths relative to the block."""

    q: str
    k: str
    v: str


@dataclass(frozen=True)
class FusedQKV:
    """One projection for all three, path relative to the block.

    Outputs are laid out as all of q, then all of k, then all of v (`q|k|v`), or head by head with each head's
    q, k and v side by side (`per head`; where queries share keys and values, a key-value head at a time: its queries,
    then its key and its value).
    """

    module: str
    layout: Literal["q|k|v", "per head"]


@dataclass(frozen=True)
class LatentQKV:
    """Keys and values of all heads from one latent (DeepSeek), paths relative to the block.

    `latent` gives the latent and, behind it, the part of the keys that is rotated, which all heads share. Of the
    latent, after `norm`, `up` makes each head's other part of its key and its value, side by side. Queries are what `q`
    makes of what enters the attention, after the modules of `before_q`, one after the other. `widths` is what
    config.json calls the widths of the latent, of the rotated part of a key, and of the other part.
    """

    q: str
    latent: str
    norm: str
    up: str
    before_q: tuple[str, ...] = ()
    widths: tuple[str, str, str] = ("kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim")


def setting(config: Mapping[str, object], key: str) -> object:
    """What a parsed config.json says under a key, or, with dots, under a key within it; None where it says nothing."""
    found: object = config
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


@dataclass(frozen=True)
class Refusal:
    """A config value under which the table's modules would no longer mean what it says.

    With `others`, it is every other value than this one.
    """

    key: str
    value: object
    reason: str
    others: bool = False

    def applies(self, found: object) -> bool:
        """Whether this is said of what config.json has there; nothing is said where it has none."""
        return found is not None and (found == self.value) != self.others


@dataclass(frozen=True)
class ConfigNumber:
    """A number of the architecture that config.json gives: its field here, its key there, its value if left out.

    `inverse`: the config gives what is divided by, and not what is multiplied with.
    """

    field: str
    key: str
    default: float | None
    inverse: bool = False

    def of(self, config: Mapping[str, object]) -> float | None:
        """The number for a parsed config.json; ValueError where what is written there is none."""
        value = setting(config, self.key)
        value = self.default if value is None else value
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or (self.inverse and not value):
            raise ValueError(f"{self.key} is {value!r}")
        return 1.0 / value if self.inverse else float(value)


@dataclass(frozen=True)
class Variant:
    """What is otherwise in the family's entry where config.json sets a key to a value."""

    key: str
    value: object
    changes: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Mixers:
    """Where a family keeps what mixes tokens in layers without attention heads, by paths from the block.

    Mixers are recurrences with a state (Mamba, the gated delta rule) or short convolutions: a token reads those before
    it, and no part of what it is given is some head's.

    The *output* of `out` is what a mixer adds to the residual stream; `layers` says, of a parsed config.json
    and the number of layers, which have one. What it reads is the output of the block's `attn_norm`.
    """

    out: str
    layers: Callable[[Mapping[str, object], int], frozenset[int]]


def listed_as(*kinds: str, every: int = 0, but: str = "") -> Callable[[Mapping[str, object], int], frozenset[int]]:
    """The layers that `layer_types` calls so.

    Where config.json has no such list, all but those listed under the key `but`; without that one too, all but every
    so many as `full_attention_interval` says, or `every`.
    """

    def layers(config: Mapping[str, object], n_layers: int) -> frozenset[int]:
        listed, others = config.get("layer_types"), config.get(but)
        if isinstance(listed, list | tuple):
            return frozenset(layer for layer, one in enumerate(listed[:n_layers]) if one in kinds)
        if isinstance(others, list | tuple):
            return frozenset(range(n_layers)) - frozenset(others)
        step = config.get("full_attention_interval", every)
        step = step if isinstance(step, int) and step > 0 else every
        return frozenset(layer for layer in range(n_layers) if step and (layer + 1) % step)

    return layers


@dataclass(frozen=True)
class BeyondStream:
    """What else decides what a layer computes and hands on, where the residual stream is not all, or is no plain sum.

    `why_no_edges` says of what single components add why it cannot be told apart. `keys_from` gives for each layer of a
    parsed config.json the layer whose keys and values its heads read: its own, or an earlier one's, so that it computes
    none. `head_widths` and `mlp_widths` give the channels of a head and the neurons of an MLP, layer by layer.

    Paths are from the block. What each layer makes of inputs of its own, which depend on the tokens and not on the
    stream alone, is the output of `per_layer`, and is added after the MLP; what a module `beside` the attention gives
    is added with it. The stream is multiplied by `middle_scale` after the attention, and at the end of the block by its
    buffer `scalar`, of which `scalars` are the values once a model is at hand. `several`: blocks hand on more than one
    stream, of which attention and MLP read what the layer makes of them. `values_normed`: a norm stands after the value
    projection, so that heads are not linear in what it gives.
    """

    why_no_edges: str
    keys_from: Callable[[Mapping[str, object], int], tuple[int, ...]]
    head_widths: Callable[[Mapping[str, object], int], tuple[int, ...]]
    mlp_widths: Callable[[Mapping[str, object], int], tuple[int, ...]]
    per_layer: str | None = None
    beside: str | None = None
    middle_scale: float = 1.0
    scalar: str | None = None
    scalars: tuple[float, ...] = ()
    several: bool = False
    values_normed: bool = False


@dataclass(frozen=True)
class Architecture:
    """Where one family keeps its parts.

    Paths of embeddings, final norm, unembedding and `block` are from the model's root, all others from the block.
    z, the concatenated outputs of the heads, is the *input* of `attn_out`; neurons are the input of `mlp_down`, which
    MLPs that are choices among `experts` do not have (those of layers without a choice have a projection of their own).
    Where a norm over all of them comes first (`head_norm`, `neuron_norm`), they are the input of that. With
    `query_gates` the projection of queries gives every head its query and then its gate, by whose sigmoid the head's
    output is multiplied before it is z. With `paired_heads` head i is made of heads i and i + half of them in
    config.json. Some layers may have `mixers` in place of heads.
    `residual` says how a block adds to the residual stream: attention, then the MLP on the sum (`sequential`), or
    both from the same input (`parallel`). A post norm stands between a component's output and the residual stream;
    where there is one, the stream is not the plain sum of component outputs. `mlp` is the module that computes the MLP;
    several, where the block runs one after the other and no module holds them (or one that also adds the stream); it is
    given tokens in one long row where it is `flat`.

    Numbers of the family that are no weights: what attention and MLP compute is multiplied by `residual_multiplier` as
    it is added to the stream, logits by `logit_multiplier` after the unembedding; queries, keys and values are clipped
    to at most `qkv_clip` in size after their projections. `numbers` says which of them config.json gives, and
    `variants` under which settings the entry is another.
    """

    family: str  # `model_type` in config.json
    title: str
    keys: ConfigKeys
    token_embedding: str
    final_norm: str
    unembedding: str
    block: str
    attn_norm: str | None
    qkv: SeparateQKV | FusedQKV | LatentQKV
    attn_out: str
    mlp_norm: str | None
    mlp: str | tuple[str, ...]
    mlp_down: str | None
    position_embedding: str | None = None
    flat_mlp: bool = False
    position_offset: int = 0  # rows of the position embeddings before that of the first token
    attn_post_norm: str | None = None
    mlp_post_norm: str | None = None
    residual: Literal["sequential", "parallel"] = "sequential"
    joint_qk_norm: bool = False  # one norm over the queries of all heads, and one over their keys
    weight_layout: Literal["out,in", "in,out"] = "out,in"  # of the projections in the block
    attention: Literal["eager"] | None = None  # the one implementation that computes the family's own attention
    residual_multiplier: float = 1.0
    logit_multiplier: float = 1.0
    qkv_clip: float | None = None
    numbers: tuple[ConfigNumber, ...] = ()
    variants: tuple[Variant, ...] = ()
    experts: Experts | None = None
    mixers: Mixers | None = None
    head_norm: str | None = None  # over the heads of a layer, before they are projected
    neuron_norm: str | None = None  # over the neurons of an MLP, before they are projected
    query_gates: bool = False
    paired_heads: bool = False
    beyond: BeyondStream | None = None
    has_sinks: bool = False  # heads may attend to nothing: the weights of the tokens sum to less than one
    refused: tuple[Refusal, ...] = ()

    def of(self, config: Mapping[str, object]) -> Architecture:
        """The family's architecture under the settings of a parsed config.json; ValueError for what is no number."""
        found = self
        for variant in self.variants:
            if setting(config, variant.key) == variant.value:
                found = replace(found, **dict(variant.changes))
        numbers: dict[str, Any] = {number.field: number.of(config) for number in self.numbers}
        return replace(found, **numbers)

    def path(self, relative: str, layer: int) -> str:
        """Path from the model's root of a module named relative to its block, e.g. `model.layers[3].mlp`."""
        return f"{self.block.format(layer=layer)}.{relative}"

    def embedding(self) -> str:
        """pyvene component: the token embeddings, (batch, position, d_model)."""
        return f"{self.token_embedding}.output"

    def z(self, layer: int) -> str:
        """pyvene component: (batch, position, n_heads * d_head), head h at channels h*d_head to (h+1)*d_head."""
        return f"{self.path(self.head_norm or self.attn_out, layer)}.input"

    def mixer_out(self, layer: int) -> str:
        """pyvene component: what a mixer adds to the residual stream, (batch, position, d_model)."""
        if self.mixers is None:
            raise ValueError(f"{self.title} has no mixers")
        return f"{self.path(self.mixers.out, layer)}.output"

    def attn_in(self, layer: int) -> str:
        """pyvene component: what enters the attention or the mixer, after its norm, (batch, position, d_model)."""
        if self.attn_norm is None:
            raise ValueError(f"no norm stands before the attention of {self.title}")
        return f"{self.path(self.attn_norm, layer)}.output"

    def attn_added(self, layer: int) -> str:
        """pyvene component: what the attention adds to the residual stream, (batch, position, d_model)."""
        return f"{self.path(self.attn_post_norm or self.attn_out, layer)}.output"

    @property
    def mlp_modules(self) -> tuple[str, ...]:
        """The modules that compute the MLP one after the other, from the block."""
        return (self.mlp,) if isinstance(self.mlp, str) else self.mlp

    def mlp_in(self, layer: int) -> str:
        """pyvene component: what enters the MLP, after its norm, (batch, position, d_model)."""
        return f"{self.path(self.mlp_modules[0], layer)}.input"

    def mlp_added(self, layer: int) -> str:
        """pyvene component: what the MLP adds to the residual stream, (batch, position, d_model)."""
        return f"{self.path(self.mlp_post_norm or self.mlp_modules[-1], layer)}.output"

    def mlp_out(self, layer: int) -> str:
        """pyvene component: what the MLP computes, (batch, position, d_model)."""
        return f"{self.path(self.mlp_modules[-1], layer)}.output"

    @property
    def neurons_down(self) -> str | None:
        """The output projection of MLPs, from the block; of those of layers without a choice among experts."""
        return self.mlp_down if self.experts is None else self.experts.dense_down

    def neurons(self, layer: int) -> str:
        """pyvene component: (batch, position, d_mlp); in a gated MLP, gate times up."""
        if self.neurons_down is None:
            raise ValueError(f"the MLPs of {self.title} have no neurons")
        return f"{self.path(self.neuron_norm or self.neurons_down, layer)}.input"

    def shared_neurons(self, layer: int) -> str:
        """pyvene component: the neurons of the expert that serves every token, (batch, position, d_shared)."""
        if self.experts is None or self.experts.shared_down is None:
            raise ValueError(f"{self.title} has no expert that serves every token")
        return f"{self.path(self.experts.shared_down, layer)}.input"

    def router(self, layer: int) -> str:
        """Path of the module that chooses experts; ValueError in families without."""
        if self.experts is None:
            raise ValueError(f"{self.title} has no experts")
        return self.path(self.experts.router, layer)

    def per_layer_added(self, layer: int) -> str:
        """pyvene component: what is added of a layer's own inputs, (batch, position, d_model)."""
        if self.beyond is None or self.beyond.per_layer is None:
            raise ValueError(f"layers of {self.title} have no inputs of their own")
        return f"{self.path(self.beyond.per_layer, layer)}.output"

    def beside_attention(self, layer: int) -> str:
        """pyvene component: what is added beside the attention, (batch, position, d_model)."""
        if self.beyond is None or self.beyond.beside is None:
            raise ValueError(f"{self.title} adds nothing beside the attention")
        return f"{self.path(self.beyond.beside, layer)}.output"

    def resid_in(self, layer: int) -> str:
        """pyvene component: the residual stream entering the block, (batch, position, d_model).

        Where there are several, what attention and MLP of the layer read and add to.
        """
        if self.several_streams and self.attn_norm is not None:
            return f"{self.path(self.attn_norm, layer)}.input"
        return f"{self.block.format(layer=layer)}.input"

    def resid_mid(self, layer: int) -> str | None:
        """pyvene component: the residual stream between attention and MLP; None where no module receives it."""
        if self.residual == "parallel":
            return None
        return f"{self.path(self.mlp_norm or self.mlp_modules[0], layer)}.input"

    def resid_final(self) -> str:
        """pyvene component: the residual stream after the last block, before the final norm."""
        return f"{self.final_norm}.input"

    def port(self, port: Port, layer: int) -> str:
        """Path of the projection that computes a receiver's q, k or v (one path for all three where it is fused).

        Of keys and values from a latent, that which gives the values and a part of the keys.
        """
        match self.qkv:
            case FusedQKV(module):
                return self.path(module, layer)
            case LatentQKV(up=up) if port != "q":
                return self.path(up, layer)
            case separate:
                return self.path(getattr(separate, port), layer)

    def latent(self, layer: int) -> str:
        """pyvene component: the latent of all keys and values with what is rotated of keys, (batch, position, ..)."""
        if not isinstance(self.qkv, LatentQKV):
            raise ValueError(f"the keys and values of {self.title} come from no latent")
        return f"{self.path(self.qkv.latent, layer)}.output"

    def clipped(self, projected: Tensor) -> Tensor:
        """Queries, keys or values as attention takes them, from what their projections give."""
        return projected if self.qkv_clip is None else projected.clamp(-self.qkv_clip, self.qkv_clip)

    @property
    def mark(self) -> float:
        """A value that attention takes as it is, to see what heads attend to: 1, or less where that is clipped."""
        return 1.0 if self.qkv_clip is None else min(1.0, self.qkv_clip)

    @property
    def plain_sum(self) -> bool:
        """Whether the residual stream is the plain sum of component outputs."""
        return self.attn_post_norm is None and self.mlp_post_norm is None

    @property
    def several_streams(self) -> bool:
        """Whether blocks hand on more than one residual stream."""
        return self.beyond is not None and self.beyond.several
