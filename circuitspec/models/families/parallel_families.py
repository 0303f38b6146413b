"""Families whose attention and MLP both read the block's input, and are both added to it."""

from __future__ import annotations

from dataclasses import replace

from circuitspec.models.families.architecture import Architecture, ConfigKeys, ConfigNumber, FusedQKV, Refusal
from circuitspec.models.families.sequential_families import LLAMA

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

# One norm for both, where GPT-NeoX has one for each.
_PHI = replace(
    LLAMA,
    family="phi",
    title="Phi",
    final_norm="model.final_layernorm",
    attn_out="self_attn.dense",
    mlp_norm="input_layernorm",
    mlp_down="mlp.fc2",
    residual="parallel",
)

_COHERE = replace(
    LLAMA,
    family="cohere",
    title="Cohere",
    mlp_norm="input_layernorm",
    residual="parallel",
    numbers=(ConfigNumber("logit_multiplier", "logit_scale", 0.0625),),
)

PARALLEL: tuple[Architecture, ...] = (
    _GPT_NEOX,
    _PHI,
    _COHERE,
    replace(_COHERE, family="cohere2", title="Cohere 2"),
)
