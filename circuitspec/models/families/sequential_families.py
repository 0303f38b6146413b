"""Families whose blocks add the attention, then the MLP on the sum, each reading the stream after a norm."""

from __future__ import annotations

from dataclasses import replace

from circuitspec.models.families.architecture import (
    Architecture,
    ConfigKeys,
    ConfigNumber,
    FusedQKV,
    Refusal,
    SeparateQKV,
)

GPT2 = Architecture(
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

LLAMA = Architecture(
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


_PERSIMMON = replace(
    LLAMA,
    family="persimmon",
    title="Persimmon",
    keys=ConfigKeys(n_kv_heads=None, d_head=None),
    final_norm="model.final_layernorm",
    qkv=FusedQKV("self_attn.query_key_value", "per head"),
    attn_out="self_attn.dense",
    mlp_down="mlp.dense_4h_to_h",
)

SEQUENTIAL: tuple[Architecture, ...] = (
    GPT2,
    LLAMA,
    replace(LLAMA, family="mistral", title="Mistral"),
    replace(LLAMA, family="qwen2", title="Qwen2"),
    replace(LLAMA, family="qwen3", title="Qwen3"),
    replace(LLAMA, family="phi3", title="Phi-3", qkv=FusedQKV("self_attn.qkv_proj", "q|k|v")),
    replace(LLAMA, family="gemma", title="Gemma"),
    replace(LLAMA, family="olmo", title="OLMo", numbers=(ConfigNumber("qkv_clip", "clip_qkv", None),)),
    replace(LLAMA, family="smollm3", title="SmolLM3"),
    replace(LLAMA, family="arcee", title="Arcee"),
    replace(LLAMA, family="seed_oss", title="Seed-OSS"),
    replace(LLAMA, family="ministral", title="Ministral"),
    replace(LLAMA, family="helium", title="Helium"),
    replace(LLAMA, family="nemotron", title="Nemotron"),
    replace(LLAMA, family="starcoder2", title="StarCoder2", mlp_down="mlp.c_proj"),
    _PERSIMMON,
)
