"""Families whose attention and MLP both read the block's input, and are both added to it."""

from __future__ import annotations

from dataclasses import replace

from circuitspec.models.families.architecture import (
    Architecture,
    ConfigKeys,
    ConfigNumber,
    FusedQKV,
    SeparateQKV,
    Variant,
)
from circuitspec.models.families.sequential_families import GPT2, LLAMA

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
    variants=(Variant("use_parallel_residual", False, (("residual", "sequential"),)),),
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

_GPTJ = Architecture(
    family="gptj",
    title="GPT-J",
    keys=GPT2.keys,
    token_embedding="transformer.wte",
    final_norm="transformer.ln_f",
    unembedding="lm_head",
    block="transformer.h[{layer}]",
    attn_norm="ln_1",
    qkv=SeparateQKV(q="attn.q_proj", k="attn.k_proj", v="attn.v_proj"),
    attn_out="attn.out_proj",
    mlp_norm="ln_1",
    mlp="mlp",
    mlp_down="mlp.fc_out",
    residual="parallel",
    attention="eager",  # transformers has no other
)

# As Falcon-7B is: one key-value head. The others of the family are variants.
_FALCON = Architecture(
    family="falcon",
    title="Falcon",
    keys=ConfigKeys(n_kv_heads=1, d_head=None, d_mlp="ffn_hidden_size", d_mlp_over_d_model=4),
    token_embedding="transformer.word_embeddings",
    final_norm="transformer.ln_f",
    unembedding="lm_head",
    block="transformer.h[{layer}]",
    attn_norm="input_layernorm",
    qkv=FusedQKV("self_attention.query_key_value", "per head"),
    attn_out="self_attention.dense",
    mlp_norm="input_layernorm",
    mlp="mlp",
    mlp_down="mlp.dense_4h_to_h",
    residual="parallel",
)
_FALCON_VARIANTS = (
    Variant("multi_query", False, (("keys", replace(_FALCON.keys, n_kv_heads=None)),)),
    Variant("parallel_attn", False, (("residual", "sequential"), ("mlp_norm", "post_attention_layernorm"))),
    Variant(
        "new_decoder_architecture",
        True,
        (
            ("keys", replace(_FALCON.keys, n_kv_heads="num_kv_heads")),
            ("attn_norm", "ln_attn"),
            ("mlp_norm", "ln_mlp"),
        ),
    ),
    Variant("num_ln_in_parallel_attn", 1, (("attn_norm", "input_layernorm"), ("mlp_norm", "input_layernorm"))),
)

PARALLEL: tuple[Architecture, ...] = (
    _GPT_NEOX,
    _PHI,
    _COHERE,
    replace(_COHERE, family="cohere2", title="Cohere 2"),
    _GPTJ,
    replace(_FALCON, variants=_FALCON_VARIANTS),
)
