"""Families whose MLPs are choices among experts; all are laid out like Llama otherwise."""

from __future__ import annotations

from dataclasses import replace

from circuitspec.models.families.architecture import Architecture, ConfigNumber
from circuitspec.models.families.expert_layers import Experts, dense_below, dense_between, dense_if_listed
from circuitspec.models.families.sequential_families import LLAMA, QWEN35

_EXPERTS = Experts("mlp.experts", "mlp.gate", ("num_local_experts", "num_experts"))
_IN_SOME_LAYERS = replace(_EXPERTS, dense=dense_if_listed)
_ROUTED = replace(_EXPERTS, router="mlp.router")

_MIXTRAL = replace(LLAMA, family="mixtral", title="Mixtral", mlp_down=None, experts=_EXPERTS)

MIXTURES: tuple[Architecture, ...] = (
    _MIXTRAL,
    replace(
        _MIXTRAL,
        family="qwen2_moe",
        title="Qwen2 MoE",
        experts=replace(_IN_SOME_LAYERS, shared="mlp.shared_expert"),
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
        experts=Experts(
            "mlp.experts", "mlp.gate", ("n_routed_experts", "num_local_experts"), "mlp.shared_experts", dense_below
        ),
    ),
    replace(
        QWEN35,
        family="qwen3_next",
        title="Qwen3-Next",
        mlp_down=None,
        experts=replace(_IN_SOME_LAYERS, shared="mlp.shared_expert"),
    ),
    replace(
        _MIXTRAL,
        family="llama4_text",
        title="Llama 4",
        mlp="feed_forward",
        experts=Experts(
            "feed_forward.experts",
            "feed_forward.router",
            ("num_local_experts",),
            "feed_forward.shared_expert",
            dense_between,
        ),
    ),
)
