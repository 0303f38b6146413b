"""Small random models whose heads are gated, normed together or differences, or that have mixers in place of some."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

LAYERS = 3  # and two more, one with a mixer, in families that have some
EXPERTS = 4
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
DELTA = {
    "head_dim": 16,
    "linear_key_head_dim": 6,
    "linear_value_head_dim": 5,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_conv_kernel_dim": 3,
    "rope_parameters": {**ROPE, "partial_rotary_factor": 0.25},
}


def _types(layers: int, mixer: str, attention: str = "full_attention") -> list[str]:
    return [mixer if i % 5 == 3 else attention for i in range(layers)]


MAMBA = {
    "mamba_n_heads": 4,
    "mamba_n_groups": 2,
    "mamba_d_state": 5,
    "mamba_d_conv": 3,
    "mamba_chunk_size": 4,  # so that states are handed on between chunks
}

NUMBERS: dict[str, Callable[[int], dict[str, Any]]] = {
    "bamba": lambda layers: {
        **MAMBA,
        "attn_layer_indices": [i for i, kind in enumerate(_types(layers, "mixer")) if kind != "mixer"],
        "attention_bias": True,
        "pad_token_id": 0,
    },
    "granitemoehybrid": lambda layers: {
        **MAMBA,
        "mamba_n_groups": 1,
        "layer_types": _types(layers, "linear_attention"),
        "num_local_experts": 0,
        "shared_intermediate_size": 48,
        "residual_multiplier": 0.3,
        "embedding_multiplier": 3.0,
        "logits_scaling": 0.5,
        "attention_multiplier": 0.2,
        "position_embedding_type": "rope",
    },
    "lfm2": lambda layers: {
        "layer_types": _types(layers, "conv"),
        "block_multiple_of": 10,
        "conv_L_cache": 3,
    },
    "bitnet": lambda layers: {"attention_bias": True},
    "diffllama": lambda layers: {
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 8,
        "attention_bias": True,
    },
    "qwen3_5_text": lambda layers: {
        **DELTA,
        "layer_types": _types(layers, "linear_attention"),
        "attention_bias": True,
    },
    "qwen3_next": lambda layers: {
        **DELTA,
        "layer_types": _types(layers, "linear_attention"),
        "num_experts": EXPERTS,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 10,
        "shared_expert_intermediate_size": 14,
        "mlp_only_layers": [1],
    },
}
"""What the configuration of each ``model_type`` says beside the sizes that all have, by the number of layers."""

ALL_HEADS = ("bitnet", "diffllama")
"""Families without mixers."""
ONE_PLUS = ("qwen3_5_text", "qwen3_next")
"""Whose RMS norms multiply by 1 + w."""


def random_special(
    family: str, seed: int = 0, attn: str = "eager", exactly: bool = True, layers: int | None = None, **extra: Any
) -> Any:
    """A random model of one of these families."""
    from . import builders  # which lists what is here

    if layers is None:
        layers = LAYERS if family in ALL_HEADS else LAYERS + 2

    numbers = {**builders._decoder_numbers(layers), **NUMBERS[family](layers), **extra}
    config = CONFIG_MAPPING[family](**numbers)
    config._experts_implementation = "eager"  # the others refuse float64
    model = builders.build(AutoModelForCausalLM.from_config, config, seed, attn, exactly)
    for module in model.modules():
        if family in ONE_PLUS and type(module).__name__.endswith("RMSNorm"):
            with torch.no_grad():
                module.weight -= 1
        if exactly and type(module).__name__.endswith(("DeltaNet", "RMSNormGated", "BambaMixer", "MambaLayer")):
            builders._without_downcast(module)
    return model


BUILDERS: dict[str, Callable[..., Any]] = {family: functools.partial(random_special, family) for family in NUMBERS}
"""The builders by ``config.model_type``."""
