"""Families whose MLPs are choices among experts; all are laid out like Llama otherwise."""

from __future__ import annotations

from dataclasses import replace

from circuitspec.models.families.architecture import Architecture, ConfigKeys, ConfigNumber, LatentQKV, Variant
from circuitspec.models.families.expert_layers import Experts, dense_below, dense_between, dense_if_listed
from circuitspec.models.families.sequential_families import GRANITE_NUMBERS, LLAMA, QWEN35

_EXPERTS = Experts("mlp.experts", "mlp.gate", ("num_local_experts", "num_experts"))
_IN_SOME_LAYERS = replace(_EXPERTS, dense=dense_if_listed, dense_down="mlp.down_proj", width="moe_intermediate_size")
_AFTER_THE_FIRST = Experts(
    "mlp.experts",
    "mlp.gate",
    ("n_routed_experts", "num_local_experts"),
    "mlp.shared_experts",
    dense_below,
    "mlp.down_proj",
    "moe_intermediate_size",
    ("moe_intermediate_size", "n_shared_experts"),
    "mlp.shared_experts.down_proj",
)
_ROUTED = replace(_EXPERTS, router="mlp.router")

_MIXTRAL = replace(LLAMA, family="mixtral", title="Mixtral", mlp_down=None, experts=_EXPERTS)

# All heads read one latent, which is their key-value head; a head's width is that of its value.
_LATENT = LatentQKV(
    q="self_attn.q_b_proj",
    latent="self_attn.kv_a_proj_with_mqa",
    norm="self_attn.kv_a_layernorm",
    up="self_attn.kv_b_proj",
    before_q=("self_attn.q_a_proj", "self_attn.q_a_layernorm"),
)
_DEEPSEEK_V3 = replace(
    _MIXTRAL,
    family="deepseek_v3",
    title="DeepSeek-V3",
    keys=ConfigKeys(n_kv_heads=1, d_head="v_head_dim"),
    qkv=_LATENT,
    experts=_AFTER_THE_FIRST,
    variants=(Variant("q_lora_rank", None, (("qkv", replace(_LATENT, q="self_attn.q_proj", before_q=())),)),),
)

MIXTURES: tuple[Architecture, ...] = (
    _MIXTRAL,
    replace(
        _MIXTRAL,
        family="qwen2_moe",
        title="Qwen2 MoE",
        experts=replace(
            _IN_SOME_LAYERS,
            shared="mlp.shared_expert",
            shared_width=("shared_expert_intermediate_size",),
            shared_down="mlp.shared_expert.down_proj",
        ),
    ),
    replace(_MIXTRAL, family="qwen3_moe", title="Qwen3 MoE", experts=_IN_SOME_LAYERS),
    replace(
        _MIXTRAL,
        family="olmoe",
        title="OLMoE",
        joint_qk_norm=True,
        numbers=(ConfigNumber("qkv_clip", "clip_qkv", None),),
    ),
    replace(_MIXTRAL, family="phimoe", title="Phi-3.5 MoE", experts=_ROUTED),
    replace(
        _MIXTRAL,
        family="gpt_oss",
        title="gpt-oss",
        experts=_ROUTED,
        has_sinks=True,
        attention="eager",  # sdpa knows no sinks
    ),
    replace(
        _MIXTRAL,
        family="glm4_moe",
        title="GLM-4.5",
        experts=_AFTER_THE_FIRST,
    ),
    replace(
        QWEN35,
        family="qwen3_next",
        title="Qwen3-Next",
        mlp_down=None,
        experts=replace(
            _IN_SOME_LAYERS,
            shared="mlp.shared_expert",
            shared_width=("shared_expert_intermediate_size",),
            shared_down="mlp.shared_expert.down_proj",
        ),
    ),
    replace(
        _MIXTRAL,
        family="llama4_text",
        title="Llama 4",
        keys=ConfigKeys(d_mlp="intermediate_size_mlp"),
        mlp="feed_forward",
        experts=Experts(
            "feed_forward.experts",
            "feed_forward.router",
            ("num_local_experts",),
            "feed_forward.shared_expert",
            dense_between,
            "feed_forward.down_proj",
            shared_width=("intermediate_size",),
            shared_down="feed_forward.shared_expert.down_proj",
        ),
    ),
    replace(
        _MIXTRAL,
        family="granitemoe",
        title="Granite MoE",
        mlp="block_sparse_moe",
        experts=Experts("block_sparse_moe.experts", "block_sparse_moe.router", ("num_local_experts",)),
        numbers=GRANITE_NUMBERS,
    ),
    _DEEPSEEK_V3,
)
