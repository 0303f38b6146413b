"""Families in which a norm stands between a component's output and the residual stream."""

from __future__ import annotations

from dataclasses import replace

from circuitspec.models.families.architecture import Architecture
from circuitspec.models.families.sequential_families import LLAMA

_GEMMA2 = replace(
    LLAMA,
    family="gemma2",
    title="Gemma 2",
    attn_post_norm="post_attention_layernorm",
    mlp_norm="pre_feedforward_layernorm",
    mlp_post_norm="post_feedforward_layernorm",
    attention="eager",  # sdpa knows no cap on attention scores
)

_OLMO2 = replace(
    LLAMA,
    family="olmo2",
    title="OLMo 2",
    attn_norm=None,
    attn_post_norm="post_attention_layernorm",
    mlp_norm=None,
    mlp_post_norm="post_feedforward_layernorm",
    joint_qk_norm=True,
)


POST_NORM: tuple[Architecture, ...] = (
    _GEMMA2,
    replace(_GEMMA2, family="gemma3_text", title="Gemma 3", attention=None),
    _OLMO2,
    replace(_OLMO2, family="olmo3", title="OLMo 3"),
    replace(_OLMO2, family="exaone4", title="EXAONE 4", joint_qk_norm=False),
    replace(
        LLAMA,
        family="glm4",
        title="GLM-4",
        attn_post_norm="post_self_attn_layernorm",
        mlp_post_norm="post_mlp_layernorm",
    ),
)
