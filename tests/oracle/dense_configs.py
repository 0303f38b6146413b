"""Small configurations of further families without experts, each with what the family has of its own switched on."""

from __future__ import annotations

from typing import Any

SLIDING = ["sliding_attention", "full_attention", "sliding_attention"]
ROPE = {"rope_type": "default", "rope_theta": 10000.0}

DENSE: dict[str, dict[str, Any]] = {
    "arcee": {"mlp_bias": True},
    "bloom": {"n_layer": None, "n_head": 4},
    "cohere": {"use_qk_norm": True, "logit_scale": 0.5, "attention_bias": True},
    "cohere2": {"sliding_window": 3, "layer_types": SLIDING, "logit_scale": 0.5},
    "exaone4": {"sliding_window": 3, "sliding_window_pattern": 2, "layer_types": SLIDING, "head_dim": 12},
    "falcon": {"new_decoder_architecture": True, "num_kv_heads": 2, "bias": True, "ffn_hidden_size": 48},
    "gemma": {"head_dim": 12},
    "glm4": {"head_dim": 8, "attention_bias": True, "rope_parameters": {**ROPE, "partial_rotary_factor": 0.5}},
    "gpt_neo": {"num_layers": None, "num_heads": 4, "window_size": 3, "attention_types": [[["local", "global"], 2]]},
    "gptj": {"n_layer": None, "n_head": 4, "n_embd": 32, "n_positions": 32, "rotary_dim": 4},
    "granite": {
        "residual_multiplier": 0.3,
        "embedding_multiplier": 3.0,
        "logits_scaling": 0.5,
        "attention_multiplier": 0.2,
        "attention_bias": True,
        "mlp_bias": True,
    },
    "helium": {"head_dim": 8},
    "ministral": {"sliding_window": 3, "layer_types": SLIDING, "head_dim": 12},
    "mpt": {"n_layers": None, "n_heads": 4, "d_model": 32, "max_seq_len": 32, "attn_config": {"clip_qkv": 0.5}},
    "nemotron": {"head_dim": 12, "rope_parameters": {**ROPE, "partial_rotary_factor": 0.5}},
    "olmo": {"clip_qkv": 0.5},
    "olmo3": {
        "sliding_window": 3,
        "layer_types": SLIDING,
        "rope_parameters": {"sliding_attention": ROPE, "full_attention": {**ROPE, "rope_theta": 500000.0}},
    },
    "opt": {"ffn_dim": 48},
    "persimmon": {"rope_parameters": {**ROPE, "partial_rotary_factor": 0.5}},
    "phi": {"rope_parameters": {**ROPE, "partial_rotary_factor": 0.5}, "qk_layernorm": True},
    "seed_oss": {"head_dim": 12, "attention_bias": True, "attention_out_bias": True},
    "smollm3": {"use_sliding_window": True, "sliding_window": 3, "no_rope_layers": [1, 0, 1]},
    "starcoder2": {"sliding_window": 4, "use_bias": True},
    "vaultgemma": {
        "head_dim": 12,
        "query_pre_attn_scalar": 16,
        "sliding_window": 3,
        "layer_types": SLIDING,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
    },
}
"""What the configuration of each ``model_type`` says beside the sizes that all have."""

_LAYERS = ("n_layer", "n_layers", "num_layers")


def dense_numbers(family: str, common: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a family's configuration: sizes as Llama names them, what is the family's own, what else is
    given. Sizes that the family names otherwise are given under its own names alone."""
    own = DENSE[family]
    layers = extra.get("num_hidden_layers", common["num_hidden_layers"])
    renamed = {key for key in _LAYERS if key in own}
    numbers = {**common, **own, **dict.fromkeys(renamed, layers)}
    if family in ("opt", "persimmon"):
        del numbers["num_key_value_heads"]
    if renamed:
        sizes = ["num_hidden_layers", "num_attention_heads", "num_key_value_heads"]
        if family != "gpt_neo":
            sizes += ["intermediate_size", "max_position_embeddings"]
        if family in ("gptj", "mpt"):
            sizes += ["hidden_size"]
        for key in sizes:
            del numbers[key]
    for by_layer in ("layer_types", "no_rope_layers"):
        if isinstance(numbers.get(by_layer), list):
            numbers[by_layer] = numbers[by_layer][:layers]
    if "attention_types" in numbers:
        numbers["attention_types"] = [[["local", "global", "local"][:layers], 1]]
    return {**numbers, **extra}
