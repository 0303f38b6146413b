"""One small table per model family: which module computes what. Imports no torch.

To add a family, add its `Architecture` to `_TABLE`, and a random model of it to the tests: that every path means what
the field says (`tests/models/test_model_architecture.py`), and that patching it agrees with an independent program
(`tests/engine/test_against_oracle.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.models.families.expert_families import with_experts
from circuitspec.models.families.expert_layers import Experts
from circuitspec.models.families.registered_families import registered
from circuitspec.models.families.text_models import said_of_text_model
from circuitspec.models.families.unsupported_families import said_of, spelt_otherwise

Port = Literal["q", "k", "v"]


@dataclass(frozen=True)
class ConfigKeys:
    """What the family's config.json calls each size; None where it has no such key."""

    n_layers: str = "num_hidden_layers"
    n_heads: str = "num_attention_heads"
    n_kv_heads: str | None = "num_key_value_heads"
    d_model: str = "hidden_size"
    d_head: str | None = "head_dim"
    d_mlp: str = "intermediate_size"
    n_vocab: str = "vocab_size"
    max_positions: str = "max_position_embeddings"
    d_mlp_over_d_model: int | None = None  # stands in for an absent or null d_mlp


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
    q, k and v side by side (`per head`).
    """

    module: str
    layout: Literal["q|k|v", "per head"]


@dataclass(frozen=True)
class Refusal:
    """A config value under which the table's modules would no longer mean what it says."""

    key: str
    value: object
    reason: str


@dataclass(frozen=True)
class Architecture:
    """Where one family keeps its parts.

    Paths of embeddings, final norm, unembedding and `block` are from the model's root, all others from the block.
    z, the concatenated outputs of the heads, is the *input* of `attn_out`; neurons are the input of `mlp_down`, which
    MLPs that are choices among `experts` do not have.
    `residual` says how a block adds to the residual stream: attention, then the MLP on the sum (`sequential`), or
    both from the same input (`parallel`). A post norm stands between a component's output and the residual stream;
    where there is one, the stream is not the plain sum of component outputs.
    """

    family: str  # `model_type` in config.json
    title: str
    keys: ConfigKeys
    token_embedding: str
    final_norm: str
    unembedding: str
    block: str
    attn_norm: str | None
    qkv: SeparateQKV | FusedQKV
    attn_out: str
    mlp_norm: str | None
    mlp: str
    mlp_down: str | None
    position_embedding: str | None = None
    attn_post_norm: str | None = None
    mlp_post_norm: str | None = None
    residual: Literal["sequential", "parallel"] = "sequential"
    joint_qk_norm: bool = False  # one norm over the queries of all heads, and one over their keys
    weight_layout: Literal["out,in", "in,out"] = "out,in"  # of the projections in the block
    attention: Literal["eager"] | None = None  # the one implementation that computes the family's own attention
    experts: Experts | None = None
    has_sinks: bool = False  # heads may attend to nothing: the weights of the tokens sum to less than one
    refused: tuple[Refusal, ...] = ()

    def path(self, relative: str, layer: int) -> str:
        """Path from the model's root of a module named relative to its block, e.g. `model.layers[3].mlp`."""
        return f"{self.block.format(layer=layer)}.{relative}"

    def embedding(self) -> str:
        """pyvene component: the token embeddings, (batch, position, d_model)."""
        return f"{self.token_embedding}.output"

    def z(self, layer: int) -> str:
        """pyvene component: (batch, position, n_heads * d_head), head h at channels h*d_head to (h+1)*d_head."""
        return f"{self.path(self.attn_out, layer)}.input"

    def attn_added(self, layer: int) -> str:
        """pyvene component: what the attention adds to the residual stream, (batch, position, d_model)."""
        return f"{self.path(self.attn_post_norm or self.attn_out, layer)}.output"

    def mlp_in(self, layer: int) -> str:
        """pyvene component: what enters the MLP, after its norm, (batch, position, d_model)."""
        return f"{self.path(self.mlp, layer)}.input"

    def mlp_added(self, layer: int) -> str:
        """pyvene component: what the MLP adds to the residual stream, (batch, position, d_model)."""
        return f"{self.path(self.mlp_post_norm or self.mlp, layer)}.output"

    def mlp_out(self, layer: int) -> str:
        """pyvene component: what the MLP computes, (batch, position, d_model)."""
        return f"{self.path(self.mlp, layer)}.output"

    def neurons(self, layer: int) -> str:
        """pyvene component: (batch, position, d_mlp); in a gated MLP, gate times up."""
        if self.mlp_down is None:
            raise ValueError(f"the MLPs of {self.title} have no neurons")
        return f"{self.path(self.mlp_down, layer)}.input"

    def router(self, layer: int) -> str:
        """Path of the module that chooses experts; ValueError in families without."""
        if self.experts is None:
            raise ValueError(f"{self.title} has no experts")
        return self.path(self.experts.router, layer)

    def resid_in(self, layer: int) -> str:
        """pyvene component: the residual stream entering the block, (batch, position, d_model)."""
        return f"{self.block.format(layer=layer)}.input"

    def resid_mid(self, layer: int) -> str | None:
        """pyvene component: the residual stream between attention and MLP; None where no module receives it."""
        if self.residual == "parallel":
            return None
        return f"{self.path(self.mlp_norm or self.mlp, layer)}.input"

    def resid_final(self) -> str:
        """pyvene component: the residual stream after the last block, before the final norm."""
        return f"{self.final_norm}.input"

    def port(self, port: Port, layer: int) -> str:
        """Path of the projection that computes a receiver's q, k or v (one path for all three where it is fused)."""
        return self.path(self.qkv.module if isinstance(self.qkv, FusedQKV) else getattr(self.qkv, port), layer)

    @property
    def plain_sum(self) -> bool:
        """Whether the residual stream is the plain sum of component outputs."""
        return self.attn_post_norm is None and self.mlp_post_norm is None


_GPT2 = Architecture(
    family="gpt2",
    title="GPT-2",
    keys=ConfigKeys(
        n_layers="n_layer",
        n_heads="n_head",
        n_kv_heads=None,
        d_model="n_embd",
        d_head=None,
        d_mlp="n_inner",
        max_positions="n_positions",
        d_mlp_over_d_model=4,
    ),
    token_embedding="transformer.wte",
    position_embedding="transformer.wpe",
    final_norm="transformer.ln_f",
    unembedding="lm_head",
    block="transformer.h[{layer}]",
    attn_norm="ln_1",
    qkv=FusedQKV("attn.c_attn", "q|k|v"),
    attn_out="attn.c_proj",
    mlp_norm="ln_2",
    mlp="mlp",
    mlp_down="mlp.c_proj",
    weight_layout="in,out",
    refused=(
        Refusal("add_cross_attention", True, "cross-attention writes to the residual stream beside heads and MLPs"),
    ),
)

_GPT_NEOX = Architecture(
    family="gpt_neox",
    title="GPT-NeoX",
    keys=ConfigKeys(n_kv_heads=None, d_head=None),
    token_embedding="gpt_neox.embed_in",
    final_norm="gpt_neox.final_layer_norm",
    unembedding="lm_head",  # transformers 4 calls it embed_out
    block="gpt_neox.layers[{layer}]",
    attn_norm="input_layernorm",
    qkv=FusedQKV("attention.query_key_value", "per head"),
    attn_out="attention.dense",
    mlp_norm="post_attention_layernorm",
    mlp="mlp",
    mlp_down="mlp.dense_4h_to_h",
    residual="parallel",
    refused=(Refusal("use_parallel_residual", False, "its MLP then reads the attention's output"),),
)

_LLAMA = Architecture(
    family="llama",
    title="Llama",
    keys=ConfigKeys(),
    token_embedding="model.embed_tokens",
    final_norm="model.norm",
    unembedding="lm_head",
    block="model.layers[{layer}]",
    attn_norm="input_layernorm",
    qkv=SeparateQKV(q="self_attn.q_proj", k="self_attn.k_proj", v="self_attn.v_proj"),
    attn_out="self_attn.o_proj",
    mlp_norm="post_attention_layernorm",
    mlp="mlp",
    mlp_down="mlp.down_proj",
)

_GEMMA2 = replace(
    _LLAMA,
    family="gemma2",
    title="Gemma 2",
    attn_post_norm="post_attention_layernorm",
    mlp_norm="pre_feedforward_layernorm",
    mlp_post_norm="post_feedforward_layernorm",
    attention="eager",  # sdpa knows no cap on attention scores
)

_OLMO2 = replace(
    _LLAMA,
    family="olmo2",
    title="OLMo 2",
    attn_norm=None,
    attn_post_norm="post_attention_layernorm",
    mlp_norm=None,
    mlp_post_norm="post_feedforward_layernorm",
    joint_qk_norm=True,
)

# In every family: a token that sees later ones sees padding too, and what is patched at it changes earlier ones.
_NOT_CAUSAL = (
    Refusal("use_bidirectional_attention", True, "its tokens see later ones, so that it is no causal language model"),
    Refusal("is_causal", False, "its tokens see later ones, so that it is no causal language model"),
)

_TABLE: Mapping[str, Architecture] = {
    architecture.family: architecture
    for architecture in (
        _GPT2,
        _LLAMA,
        _GPT_NEOX,
        replace(_LLAMA, family="mistral", title="Mistral"),
        replace(_LLAMA, family="qwen2", title="Qwen2"),
        replace(_LLAMA, family="qwen3", title="Qwen3"),
        _GEMMA2,
        replace(_GEMMA2, family="gemma3_text", title="Gemma 3", attention=None),
        _OLMO2,
        replace(_LLAMA, family="phi3", title="Phi-3", qkv=FusedQKV("self_attn.qkv_proj", "q|k|v")),
        *with_experts(_LLAMA),
    )
}

# Every family is held against an independent implementation: `tests/engine/test_against_oracle.py`.
SUPPORTED: tuple[str, ...] = tuple(_TABLE)


def architecture_named(family: str, inside: str = "") -> Architecture:
    """The table of a supported family, or of one that a package registers.

    CS304 for any other, with what is known of a text model `inside`; CS397 for one that is registered wrongly.
    """
    if family in _TABLE:
        return _TABLE[family]
    if (own := registered(family, Architecture)) is not None:
        return own
    close, against = spelt_otherwise(family, SUPPORTED), inside or said_of(family)
    meant = f"`model_type` is written {close}; " if close else ""
    step = (
        "to add one, write its Architecture (config keys; paths of block, norms, q/k/v, attention output, MLP) in "
        "circuitspec/models/families/architecture.py; `circuitspec doctor --new DIR` says which other entry fits it"
    )
    raise CircuitspecError(
        Diagnostic(
            "CS304",
            f"models of the family {family!r} are not supported" + (f": {against}" if against else ""),
            label="the model of another family",
            hint=f"{meant}supported: {', '.join(SUPPORTED)}" + ("" if against else f"; {step}"),
            data={"family": family, "supported": list(SUPPORTED)},
        )
    )


def architecture_of(config: Mapping[str, object]) -> Architecture:
    """The architecture for a parsed config.json.

    Raises CS305 where it names no `model_type`, CS304 for an unknown family, and CS314 where a setting
    changes what the table's modules mean.
    """
    family = config.get("model_type")
    if not isinstance(family, str) or not family:
        raise CircuitspecError(
            Diagnostic(
                "CS305",
                "config.json names no `model_type`",
                hint='a Hugging Face causal language model says which family it is, such as `"model_type": "gpt2"`',
            )
        )
    architecture = architecture_named(family, said_of_text_model(config, SUPPORTED))
    found = [
        Diagnostic(
            "CS314",
            f"config.json sets {refusal.key} to {refusal.value!r}: {refusal.reason}",
            hint="components of this model would not mean what the hypothesis says; use a model without this setting",
            data={"key": refusal.key, "value": refusal.value},
        )
        for refusal in (*architecture.refused, *_NOT_CAUSAL)
        if config.get(refusal.key) == refusal.value
    ]
    if found:
        raise CircuitspecError(*found)
    return architecture
