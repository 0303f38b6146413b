"""Small random models whose MLPs are mixtures of experts, as in ``builders.py``, which lists them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    Glm4MoeConfig,
    Glm4MoeForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    GraniteMoeConfig,
    GraniteMoeForCausalLM,
    Llama4ForCausalLM,
    Llama4TextConfig,
    MixtralConfig,
    MixtralForCausalLM,
    OlmoeConfig,
    OlmoeForCausalLM,
    PhimoeConfig,
    PhimoeForCausalLM,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

LAYERS = 3
EXPERTS = 4
WIDTH = 10  # of an expert


def _build(cls: Any, config: Any, seed: int, attn: str, exactly: bool) -> Any:
    """A random model whose routers correct what they choose by, where the family has that."""
    from . import builders  # which lists what is here

    config._experts_implementation = "eager"  # the others refuse float64
    model = builders.build(cls, config, seed, attn, exactly)
    generator = torch.Generator().manual_seed(seed)
    for name, buffer in sorted(model.named_buffers()):
        if name.endswith("e_score_correction_bias"):
            buffer.copy_(torch.randn(buffer.shape, generator=generator, dtype=torch.float64) * 0.1)
    return model


def _numbers(layers: int, **more: Any) -> dict[str, Any]:
    from . import builders

    return {**builders._decoder_numbers(layers), "num_experts_per_tok": 2, **more}


Builder = Callable[..., Any]


def _builder(cls: Any, config_of: Any, describe: str, numbers: Callable[[int], dict[str, Any]]) -> Builder:
    def random_model(
        seed: int = 0, attn: str = "eager", exactly: bool = True, layers: int = LAYERS, **extra: Any
    ) -> Any:
        return _build(cls, config_of(**{**_numbers(layers), **numbers(layers), **extra}), seed, attn, exactly)

    random_model.__doc__ = describe
    return random_model


def random_llama4(seed: int = 0, attn: str = "eager", exactly: bool = True, layers: int = LAYERS, **extra: Any) -> Any:
    """A random Llama 4: chunks of 4 tokens where positions are rotated, experts in every other layer."""
    from . import builders

    numbers = {
        "num_local_experts": EXPERTS,
        "intermediate_size": WIDTH,
        "intermediate_size_mlp": 14,
        "head_dim": 12,
        "no_rope_layers": [int(i != 1) for i in range(layers)],
        "attention_chunk_size": 4,
        "interleave_moe_layer_step": 2,
        "num_experts_per_tok": 1,
    }
    config = Llama4TextConfig(**{**_numbers(layers), **numbers, **extra})
    model = _build(Llama4ForCausalLM, config, seed, attn, exactly)
    if exactly:
        for module in model.modules():
            if type(module).__name__ == "Llama4TextAttention":
                builders._without_downcast(module)
    return model


BUILDERS: dict[str, Builder] = {
    "deepseek_v3": _builder(
        DeepseekV3ForCausalLM,
        DeepseekV3Config,
        "A random DeepSeek 3: one MLP in the first layer, then experts as in GLM 4.5; values unlike keys in width.",
        lambda layers: {
            "n_routed_experts": 8,
            "n_group": 4,
            "topk_group": 2,
            "n_shared_experts": 1,
            "moe_intermediate_size": WIDTH,
            "first_k_dense_replace": 1,
            "routed_scaling_factor": 1.7,
            "num_key_value_heads": 4,
            "q_lora_rank": 10,
            "kv_lora_rank": 9,
            "qk_rope_head_dim": 6,
            "qk_nope_head_dim": 4,
            "v_head_dim": 8,
            "attention_bias": True,
        },
    ),
    "mixtral": _builder(
        MixtralForCausalLM,
        MixtralConfig,
        "A random Mixtral: a sliding window of 4.",
        lambda layers: {"num_local_experts": EXPERTS, "intermediate_size": WIDTH, "sliding_window": 4},
    ),
    "qwen2_moe": _builder(
        Qwen2MoeForCausalLM,
        Qwen2MoeConfig,
        "A random Qwen 2 with experts: a shared one beside, weights that do not sum to one.",
        lambda layers: {
            "num_experts": EXPERTS,
            "moe_intermediate_size": WIDTH,
            "shared_expert_intermediate_size": 14,
            "qkv_bias": True,
        },
    ),
    "qwen3_moe": _builder(
        Qwen3MoeForCausalLM,
        Qwen3MoeConfig,
        "A random Qwen 3 with experts in all layers but one.",
        lambda layers: {
            "num_experts": EXPERTS,
            "moe_intermediate_size": WIDTH,
            "mlp_only_layers": [1],
            "head_dim": 12,
            "norm_topk_prob": True,
        },
    ),
    "olmoe": _builder(
        OlmoeForCausalLM,
        OlmoeConfig,
        "A random OLMoE: norms over the queries and keys of all heads.",
        lambda layers: {"num_experts": EXPERTS, "intermediate_size": WIDTH},
    ),
    "phimoe": _builder(
        PhimoeForCausalLM,
        PhimoeConfig,
        "A random Phi-3.5 MoE: layer norms, biases, scores near one another weighted together.",
        lambda layers: {
            "num_local_experts": EXPERTS,
            "intermediate_size": WIDTH,
            "router_jitter_noise": 0.3,
            "attention_bias": True,
            "lm_head_bias": True,
        },
    ),
    "gpt_oss": _builder(
        GptOssForCausalLM,
        GptOssConfig,
        "A random gpt-oss: sinks, biases, clipped experts, a sliding window of 3 in every other layer.",
        lambda layers: {
            "num_local_experts": EXPERTS,
            "intermediate_size": WIDTH,
            "head_dim": 12,
            "sliding_window": 3,
            "layer_types": ["full_attention" if i % 2 else "sliding_attention" for i in range(layers)],
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
            "attention_bias": True,
            "swiglu_limit": 1.5,
        },
    ),
    "glm4_moe": _builder(
        Glm4MoeForCausalLM,
        Glm4MoeConfig,
        "A random GLM 4.5: one MLP in the first layer, then eight experts in four groups, and one beside.",
        lambda layers: {
            "n_routed_experts": 8,
            "n_group": 4,
            "topk_group": 2,
            "moe_intermediate_size": WIDTH,
            "first_k_dense_replace": 1,
            "head_dim": 12,
            "use_qk_norm": True,
            "routed_scaling_factor": 1.7,
            "attention_bias": True,
        },
    ),
    "granitemoe": _builder(
        GraniteMoeForCausalLM,
        GraniteMoeConfig,
        "A random Granite with experts: what is added, embeddings, scores and logits multiplied.",
        lambda layers: {
            "num_local_experts": EXPERTS,
            "intermediate_size": WIDTH,
            "attention_bias": True,
            "residual_multiplier": 0.3,
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.2,
            "logits_scaling": 2.0,
        },
    ),
    "llama4_text": random_llama4,
}
"""The builders by ``config.model_type``."""
