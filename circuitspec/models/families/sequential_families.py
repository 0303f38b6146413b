"""Families whose blocks add the attention, then the MLP on the sum, each reading the stream after a norm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from circuitspec.models.families.architecture import (
    Architecture,
    ConfigKeys,
    ConfigNumber,
    FusedQKV,
    Mixers,
    Refusal,
    SeparateQKV,
    listed_as,
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
_GPT_NEO = replace(
    GPT2,
    family="gpt_neo",
    title="GPT-Neo",
    keys=ConfigKeys(n_layers="num_layers", n_heads="num_heads", n_kv_heads=None, d_head=None, d_mlp_over_d_model=4),
    qkv=SeparateQKV(q="attn.attention.q_proj", k="attn.attention.k_proj", v="attn.attention.v_proj"),
    attn_out="attn.attention.out_proj",
    weight_layout="out,in",
    attention="eager",  # transformers has no other
    refused=(),
)

# Bloom's and MPT's modules of the MLP return what they compute with the stream already added.
_BLOOM = Architecture(
    family="bloom",
    title="BLOOM",
    keys=ConfigKeys(
        n_layers="n_layer",
        n_heads="n_head",
        n_kv_heads=None,
        d_model="n_embed",
        d_head=None,
        max_positions="seq_length",
        d_mlp_over_d_model=4,
    ),
    token_embedding="transformer.word_embeddings",
    final_norm="transformer.ln_f",
    unembedding="lm_head",
    block="transformer.h[{layer}]",
    attn_norm="input_layernorm",
    qkv=FusedQKV("self_attention.query_key_value", "per head"),
    attn_out="self_attention.dense",
    mlp_norm="post_attention_layernorm",
    mlp=("mlp.dense_h_to_4h", "mlp.gelu_impl", "mlp.dense_4h_to_h"),
    mlp_down="mlp.dense_4h_to_h",
    attention="eager",  # transformers has no other
    refused=(
        Refusal("apply_residual_connection_post_layernorm", True, "its stream is then what a norm has given"),
        Refusal("slow_but_exact", True, "its projections are then computed in slices, and not by their modules"),
    ),
)

_MPT = Architecture(
    family="mpt",
    title="MPT",
    keys=ConfigKeys(
        n_layers="n_layers",
        n_heads="n_heads",
        n_kv_heads=None,
        d_model="d_model",
        d_head=None,
        max_positions="max_seq_len",
        d_mlp_over_d_model=4,
    ),
    token_embedding="transformer.wte",
    final_norm="transformer.norm_f",
    unembedding="lm_head",
    block="transformer.blocks[{layer}]",
    attn_norm="norm_1",
    qkv=FusedQKV("attn.Wqkv", "q|k|v"),
    attn_out="attn.out_proj",
    mlp_norm="norm_2",
    mlp=("ffn.up_proj", "ffn.act", "ffn.down_proj"),
    mlp_down="ffn.down_proj",
    attention="eager",  # transformers has no other
    numbers=(ConfigNumber("qkv_clip", "attn_config.clip_qkv", None),),
    refused=(
        Refusal("attn_config.prefix_lm", True, "its tokens see later ones, so that it is no causal language model"),
        Refusal("attn_config.qk_ln", True, "transformers leaves out its norms of queries and keys"),
        Refusal("attn_config.alibi", False, "transformers adds its position biases all the same"),
        Refusal("attn_config.alibi_bias_max", 8, "transformers takes 8 for it all the same", others=True),
    ),
)

_OPT = Architecture(
    family="opt",
    title="OPT",
    keys=ConfigKeys(n_kv_heads=None, d_head=None, d_mlp="ffn_dim"),
    token_embedding="model.decoder.embed_tokens",
    position_embedding="model.decoder.embed_positions",
    position_offset=2,
    final_norm="model.decoder.final_layer_norm",
    unembedding="lm_head",
    block="model.decoder.layers[{layer}]",
    attn_norm="self_attn_layer_norm",
    qkv=SeparateQKV(q="self_attn.q_proj", k="self_attn.k_proj", v="self_attn.v_proj"),
    attn_out="self_attn.out_proj",
    mlp_norm="final_layer_norm",
    mlp=("fc1", "activation_fn", "fc2"),
    mlp_down="fc2",
    flat_mlp=True,
    refused=(
        Refusal("do_layer_norm_before", False, "its norms then act on the whole stream after each component"),
        Refusal("_remove_final_layer_norm", True, "it then has no norm before the unembedding"),
    ),
)

GRANITE_NUMBERS = (
    ConfigNumber("residual_multiplier", "residual_multiplier", 1.0),
    ConfigNumber("logit_multiplier", "logits_scaling", 1.0, inverse=True),
)

# In most of its layers a mixer stands in place of heads; in the others heads are gated.
QWEN35 = replace(
    LLAMA,
    family="qwen3_5_text",
    title="Qwen3.5",
    query_gates=True,
    mixers=Mixers("linear_attn.out_proj", listed_as("linear_attention", every=4)),
)


def _lfm2_width(config: Mapping[str, object], written: int) -> int:
    """How wide LFM2's MLPs are: less than config.json says, unless it turns that off; rounded up to a multiple."""
    width = config.get("block_ff_dim", written)
    width = width if isinstance(width, int) else written
    if not config.get("block_auto_adjust_ff_dim", True):
        return width
    times, multiple = config.get("block_ffn_dim_multiplier", 1.0), config.get("block_multiple_of", 256)
    width = 2 * width // 3
    if not isinstance(times, int | float) or not isinstance(multiple, int) or multiple < 1:
        return width
    return -(-int(times * width) // multiple) * multiple


_LFM2 = replace(
    LLAMA,
    family="lfm2",
    title="LFM2",
    keys=ConfigKeys(d_mlp_of=_lfm2_width),
    final_norm="model.embedding_norm",
    attn_norm="operator_norm",
    attn_out="self_attn.out_proj",
    mlp_norm="ffn_norm",
    mlp="feed_forward",
    mlp_down="feed_forward.w2",
    mixers=Mixers("conv.out_proj", listed_as("conv", but="full_attn_idxs")),
)
_BAMBA = replace(
    LLAMA,
    family="bamba",
    title="Bamba",
    final_norm="model.final_layernorm",
    mlp_norm="pre_ff_layernorm",
    mlp="feed_forward",
    mlp_down="feed_forward.down_proj",
    mixers=Mixers("mamba.out_proj", listed_as("linear_attention", "mamba", every=10**9, but="attn_layer_indices")),
)
_GRANITE_HYBRID = replace(
    LLAMA,
    family="granitemoehybrid",
    title="Granite 4 hybrid",
    keys=ConfigKeys(d_mlp="shared_intermediate_size"),
    mlp="shared_mlp",
    mlp_down="shared_mlp.output_linear",
    mixers=Mixers("mamba.out_proj", listed_as("linear_attention", "mamba", every=10**9)),
    numbers=(
        ConfigNumber("residual_multiplier", "residual_multiplier", 1.0),
        ConfigNumber("logit_multiplier", "logits_scaling", 1.0, inverse=True),
    ),
    refused=(
        Refusal(
            "num_local_experts",
            0,
            "its MLPs are then experts and one beside them, in no module of their own",
            others=True,
        ),
    ),
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
    replace(
        LLAMA,
        family="granite",
        title="Granite",
        numbers=GRANITE_NUMBERS,
    ),
    replace(LLAMA, family="vaultgemma", title="VaultGemma", mlp_norm="pre_feedforward_layernorm", attention="eager"),
    _GPT_NEO,
    _OPT,
    _BLOOM,
    _MPT,
    QWEN35,
    replace(
        LLAMA, family="bitnet", title="BitNet", head_norm="self_attn.attn_sub_norm", neuron_norm="mlp.ffn_sub_norm"
    ),
    replace(LLAMA, family="diffllama", title="DiffLlama", paired_heads=True),
    _LFM2,
    _BAMBA,
    _GRANITE_HYBRID,
)
