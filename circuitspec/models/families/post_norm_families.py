"""Families in which a norm stands between a component's output and the residual stream."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from circuitspec.models.families.architecture import Architecture, BeyondStream, Refusal
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

_FULL, _SLIDING = "full_attention", "sliding_attention"


def _layer_types(config: Mapping[str, object], n_layers: int, every: int) -> tuple[str, ...]:
    """Which attention each layer has: as written, or full in every so many."""
    written = config.get("layer_types")
    if isinstance(written, list | tuple) and len(written) >= n_layers:
        return tuple(map(str, written[:n_layers]))
    return tuple(_SLIDING if (layer + 1) % every else _FULL for layer in range(n_layers))


def _keys_from(config: Mapping[str, object], types: tuple[str, ...], shared: int) -> tuple[int, ...]:
    """Where the last layers, as many as are `shared`, have their keys and values from: the last one before them that
    has the same attention."""
    written = config.get("num_kv_shared_layers")
    shared = written if isinstance(written, int) and not isinstance(written, bool) else shared
    first = max(0, len(types) - shared)
    last = {kind: layer for layer, kind in enumerate(types[:first])}
    if missing := {*types[first:]} - {*last}:
        raise ValueError(f"num_kv_shared_layers is {shared}, which leaves no layer with {min(missing)} before them")
    return tuple(layer if layer < first else last[kind] for layer, kind in enumerate(types))


def _gemma4_types(config: Mapping[str, object], n_layers: int) -> tuple[str, ...]:
    return (*_layer_types(config, n_layers, 6)[:-1], _FULL)


def _gemma4_keys(config: Mapping[str, object], n_layers: int) -> tuple[int, ...]:
    return _keys_from(config, _gemma4_types(config, n_layers), 0)


def _gemma4_heads(config: Mapping[str, object], n_layers: int) -> tuple[int, ...]:
    """Those of layers with full attention are of another width (`global_head_dim`, or written layer by layer)."""
    plain, wide = _whole(config, "head_dim", 256), _whole(config, "global_head_dim", 512)
    by_layer = config.get("per_layer_config")
    if not isinstance(by_layer, Mapping):
        return tuple(wide if kind == _FULL else plain for kind in _gemma4_types(config, n_layers))
    own = {str(layer): said for layer, said in by_layer.items() if isinstance(said, Mapping)}
    return tuple(_whole(own.get(str(layer), {}), "head_dim", plain) for layer in range(n_layers))


def _gemma4_mlps(config: Mapping[str, object], n_layers: int) -> tuple[int, ...]:
    """Twice as wide where keys and values are an earlier layer's, if `use_double_wide_mlp` says so."""
    width, double = _whole(config, "intermediate_size", 9216), config.get("use_double_wide_mlp") is True
    keys = _gemma4_keys(config, n_layers)
    return tuple(width * (2 if double and source != layer else 1) for layer, source in enumerate(keys))


def _gemma3n_keys(config: Mapping[str, object], n_layers: int) -> tuple[int, ...]:
    return _keys_from(config, _layer_types(config, n_layers, 5), 15)


def _gemma3n_heads(config: Mapping[str, object], n_layers: int) -> tuple[int, ...]:
    return (_whole(config, "head_dim", 256),) * n_layers


def _gemma3n_mlps(config: Mapping[str, object], n_layers: int) -> tuple[int, ...]:
    written = config.get("intermediate_size")
    if isinstance(written, list | tuple):
        if len(written) != n_layers:
            raise ValueError(f"intermediate_size gives {len(written)} widths for {n_layers} layers")
        return tuple(_whole({"intermediate_size": width}, "intermediate_size", 0) for width in written)
    return (_whole(config, "intermediate_size", 16_384),) * n_layers


def _whole(config: Mapping[str, object], key: str, otherwise: int) -> int:
    value = config.get(key)
    if value is None:
        return otherwise
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{key} is {value!r}")
    return value


_GEMMA4 = replace(
    _GEMMA2,
    family="gemma4_text",
    title="Gemma 4",
    attention=None,
    beyond=BeyondStream(
        why_no_edges="layers add inputs of their own to the residual stream and multiply all of it by a number, and "
        "later layers read keys and values of earlier ones, past the stream",
        keys_from=_gemma4_keys,
        head_widths=_gemma4_heads,
        mlp_widths=_gemma4_mlps,
        per_layer="post_per_layer_input_norm",
        scalar="layer_scalar",
        values_normed=True,
    ),
    refused=(
        Refusal("enable_moe_block", True, "an MLP and a choice among experts then stand side by side under one norm"),
        Refusal("attention_k_eq_v", True, "keys and values of some layers are then one projection's"),
        Refusal("hidden_size_per_layer_input", 0, "its layers then have no inputs of their own, which the entry names"),
        Refusal("use_bidirectional_attention", "all", "its tokens see later ones"),
    ),
)

_GEMMA3N = replace(
    _GEMMA2,
    family="gemma3n_text",
    title="Gemma 3n",
    attention=None,
    beyond=BeyondStream(
        why_no_edges="blocks hand on several residual streams, which each layer mixes by weights that it reads from "
        "them, and later layers read keys and values of earlier ones, past the streams",
        keys_from=_gemma3n_keys,
        head_widths=_gemma3n_heads,
        mlp_widths=_gemma3n_mlps,
        per_layer="post_per_layer_input_norm",
        beside="laurel",
        middle_scale=1 / math.sqrt(2),
        several=True,
        values_normed=True,
    ),
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
    _GEMMA4,
    _GEMMA3N,
)
