"""Small configurations of further families without experts, each with what the family has of its own switched on."""

from __future__ import annotations

from typing import Any

SLIDING = ["sliding_attention", "full_attention", "sliding_attention"]
ROPE = {"rope_type": "default", "rope_theta": 10000.0}

DENSE: dict[str, dict[str, Any]] = {
    "arcee": {"mlp_bias": True},
    "cohere": {"use_qk_norm": True, "logit_scale": 0.5, "attention_bias": True},
    "cohere2": {"sliding_window": 3, "layer_types": SLIDING, "logit_scale": 0.5},
    "gemma": {"head_dim": 12},
    "helium": {"head_dim": 8},
    "ministral": {"sliding_window": 3, "layer_types": SLIDING, "head_dim": 12},
    "nemotron": {"head_dim": 12, "rope_parameters": {**ROPE, "partial_rotary_factor": 0.5}},
    "olmo": {"clip_qkv": 1.0},
    "olmo3": {
        "sliding_window": 3,
        "layer_types": SLIDING,
        "rope_parameters": {"sliding_attention": ROPE, "full_attention": {**ROPE, "rope_theta": 500000.0}},
    },
    "persimmon": {"rope_parameters": {**ROPE, "partial_rotary_factor": 0.5}},
    "phi": {"rope_parameters": {**ROPE, "partial_rotary_factor": 0.5}, "qk_layernorm": True},
    "seed_oss": {"head_dim": 12, "attention_bias": True, "attention_out_bias": True},
    "smollm3": {"use_sliding_window": True, "sliding_window": 3, "no_rope_layers": [1, 0, 1]},
    "starcoder2": {"sliding_window": 4, "use_bias": True},
}
"""What the configuration of each ``model_type`` says beside the sizes that all have."""
