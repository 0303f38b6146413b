"""Families whose heads are gated, normed together or differences, and those with mixers: read as in ``families.py``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .expert_families import _gate, _gated_experts, _sometimes, softmax_then_top
from .families import (
    Attention,
    Difference,
    Layer,
    Mixing,
    Mixture,
    Mlp,
    Net,
    _bias,
    _columns,
    _decoder,
    _f64,
    _gated,
    _head_dim,
    _matrix,
    _norm,
    _pieces,
    _rope,
    _rows,
    _split_attention,
    silu,
)

# --------------------------------------------------------------------------------------------------------- mixers


def convolved(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Each channel of ``[positions, channels]`` over itself and those before: ``weight`` is ``[channels, taps]``, the
    last of them at the position itself."""
    taps = weight.shape[1]
    padded = torch.cat([torch.zeros(taps - 1, x.shape[1], dtype=x.dtype), x])
    out = sum(padded[i : i + len(x)] * weight[:, i] for i in range(taps))
    assert isinstance(out, Tensor)
    return out if bias is None else out + bias


def softplus(x: Tensor) -> Tensor:
    return torch.log1p(torch.exp(-x.abs())) + x.clamp(min=0)


@dataclass(frozen=True)
class GatedDelta:
    """A gated delta rule: a state ``[keys, values]`` for each value head, told token by token (Qwen3-Next)."""

    w_q: Tensor  # [key heads, d_model, key width]
    w_k: Tensor
    w_v: Tensor  # [value heads, d_model, value width]
    w_z: Tensor
    w_b: Tensor  # [d_model, value heads]
    w_a: Tensor
    conv: Tensor  # of queries, keys and values side by side
    decay: Tensor  # [value heads]
    dt_bias: Tensor
    norm_weight: Tensor
    eps: float
    out: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        n, key_heads, value_heads = len(x), len(self.w_q), len(self.w_v)
        q, k, v = (torch.cat(list(x @ w), dim=1) for w in (self.w_q, self.w_k, self.w_v))
        mixed = silu(convolved(torch.cat([q, k, v], 1), self.conv, None))
        q, k, v = mixed.split([q.shape[1], k.shape[1], v.shape[1]], dim=1)
        q, k = (one.reshape(n, key_heads, -1) for one in (q, k))
        q, k = (one / torch.sqrt((one * one).sum(-1, keepdim=True) + 1e-6) for one in (q, k))
        v = v.reshape(n, value_heads, -1)
        beta, fall = (
            1 / (1 + torch.exp(-(x @ self.w_b))),
            torch.exp(-self.decay * softplus(x @ self.w_a + self.dt_bias)),
        )
        z = x @ self.w_z  # [value heads, positions, width]
        given = []
        for head in range(value_heads):
            own = head // (value_heads // key_heads)
            state = torch.zeros(k.shape[2], v.shape[2], dtype=x.dtype)
            rows = []
            for t in range(n):
                state = state * fall[t, head]
                change = (v[t, head] - k[t, own] @ state) * beta[t, head]
                state = state + torch.outer(k[t, own], change)
                rows.append(q[t, own] @ state / math.sqrt(k.shape[2]))
            read = torch.stack(rows)
            read = read / torch.sqrt((read * read).mean(-1, keepdim=True) + self.eps) * self.norm_weight
            given.append(read * silu(z[head]))
        return torch.cat(given, dim=1) @ self.out


def _gated_delta(module: Any, config: Any) -> GatedDelta:
    """Qwen3-Next has queries, keys, values and gates of a key head side by side; Qwen3.5 a projection of each."""
    key_heads, value_heads = config.linear_num_key_heads, config.linear_num_value_heads
    key, value, group = config.linear_key_head_dim, config.linear_value_head_dim, value_heads // key_heads
    if hasattr(module, "in_proj_qkvz"):
        parts = _columns(_matrix(module.in_proj_qkvz), key_heads, 2 * key + 2 * group * value)
        w_q, w_k, w_v, w_z = parts.split([key, key, group * value, group * value], dim=2)
        w_v, w_z = (torch.cat([_columns(w, group, value) for w in both]) for both in (w_v, w_z))
        both = _columns(_matrix(module.in_proj_ba), key_heads, 2 * group)
        w_b, w_a = (torch.cat(list(w), dim=1) for w in both.split(group, dim=2))
    else:
        sizes = [key * key_heads, key * key_heads, value * value_heads]
        w_q, w_k, w_v = _matrix(module.in_proj_qkv).split(sizes, dim=1)
        w_q, w_k = _columns(w_q, key_heads, key), _columns(w_k, key_heads, key)
        w_v, w_z = (_columns(w, value_heads, value) for w in (w_v, _matrix(module.in_proj_z)))
        w_b, w_a = _matrix(module.in_proj_b), _matrix(module.in_proj_a)
    return GatedDelta(
        w_q=w_q,
        w_k=w_k,
        w_v=w_v,
        w_z=w_z,
        w_b=w_b,
        w_a=w_a,
        conv=_f64(module.conv1d.weight)[:, 0],
        decay=torch.exp(_f64(module.A_log)),
        dt_bias=_f64(module.dt_bias),
        norm_weight=_f64(module.norm.weight),
        eps=config.rms_norm_eps,
        out=_matrix(module.out_proj),
    )


# ------------------------------------------------------------------------------------------------------- families


def _mixing(mix: Callable[[Tensor], Tensor], config: Any) -> Mixing:
    return Mixing(mix, torch.zeros(config.hidden_size, dtype=torch.float64))


def _gated_attention(module: Any, config: Any) -> Attention:
    """Queries and gates of a head side by side in one projection; norms of queries and keys by 1 + w."""
    heads, d_head = config.num_attention_heads, _head_dim(config)
    both = _columns(_matrix(module.q_proj), heads, 2 * d_head)
    biases = _pieces(_bias(module.q_proj, 2 * heads * d_head), heads, 2 * d_head)
    kv_heads = config.num_key_value_heads
    theta = config.rope_parameters["rope_theta"]
    width = int(d_head * config.rope_parameters.get("partial_rotary_factor", 1.0))
    return Attention(
        wq=both[..., :d_head],
        bq=biases[:, :d_head],
        wg=both[..., d_head:],
        bg=biases[:, d_head:],
        wk=_columns(_matrix(module.k_proj), kv_heads, d_head),
        bk=_pieces(_bias(module.k_proj, kv_heads * d_head), kv_heads, d_head),
        wv=_columns(_matrix(module.v_proj), kv_heads, d_head),
        bv=_pieces(_bias(module.v_proj, kv_heads * d_head), kv_heads, d_head),
        wo=_rows(_matrix(module.o_proj), heads, d_head),
        bo=_bias(module.o_proj, config.hidden_size),
        scale=d_head**-0.5,
        rope=torch.tensor([theta ** (-2.0 * i / width) for i in range(width // 2)], dtype=torch.float64),
        q_norm=_norm(module.q_norm, one_plus=True),
        k_norm=_norm(module.k_norm, one_plus=True),
    )


def read_qwen3_next(model: Any) -> Net:
    """Qwen3-Next and Qwen3.5: gated attention in some layers, a gated delta rule in the others; RMS norms by 1 + w.

    Qwen3-Next's MLPs are experts with a shared one, in most layers.
    """
    config = model.config

    def mlp(block: Any) -> Mlp | Mixture:
        if not hasattr(block.mlp, "experts"):
            return _gated(block.mlp, config.hidden_act)
        route = softmax_then_top(_gate(block.mlp.gate), config.num_experts_per_tok, config.norm_topk_prob)
        return Mixture(
            route, _gated_experts(block.mlp.experts, config.hidden_act), _sometimes(block.mlp, config.hidden_act)
        )

    layers = []
    for index, block in enumerate(model.model.layers):
        if config.layer_types[index] == "linear_attention":
            attention: Attention | Mixing = _mixing(_gated_delta(block.linear_attn, config), config)
        else:
            attention = _gated_attention(block.self_attn, config)
        norms = [_norm(norm, one_plus=True) for norm in (block.input_layernorm, block.post_attention_layernorm)]
        layers.append(Layer(attention, mlp(block), norms[0], None, norms[1], None))
    return _decoder(model, layers, one_plus=True)


def read_bitnet(model: Any) -> Net:
    """BitNet: Llama with a norm over all heads before they are projected, and one over the neurons."""
    config = model.config
    layers = []
    for block in model.model.layers:
        attention = _split_attention(
            block.self_attn,
            config,
            rope=_rope(config, _head_dim(config)),
            head_norm=_norm(block.self_attn.attn_sub_norm),
        )
        mlp = replace(_gated(block.mlp, config.hidden_act), neuron_norm=_norm(block.mlp.ffn_sub_norm))
        norms = _norm(block.input_layernorm), _norm(block.post_attention_layernorm)
        layers.append(Layer(attention, mlp, norms[0], None, norms[1], None))
    return _decoder(model, layers)


def read_diffllama(model: Any) -> Net:
    """DiffLlama: half as many heads as its projections have, each the difference of two attention maps."""
    config = model.config
    heads, kv_heads, d_head = config.num_attention_heads, config.num_key_value_heads, _head_dim(config)
    layers = []
    for index, block in enumerate(model.model.layers):
        own = block.self_attn
        single = _split_attention(own, config, rope=_rope(config, d_head))
        first = 0.8 - 0.6 * math.exp(-0.3 * index)
        one, other = (
            torch.exp((_f64(q) * _f64(k)).sum())
            for q, k in ((own.lambda_q1, own.lambda_k1), (own.lambda_q2, own.lambda_k2))
        )

        def paired(each: Tensor) -> Tensor:
            return torch.cat(each.chunk(2), dim=-1)

        attention = replace(
            single,
            wq=paired(single.wq),
            bq=paired(single.bq),
            wk=paired(single.wk),
            bk=paired(single.bk),
            wv=paired(single.wv),
            bv=paired(single.bv),
            wo=_rows(_matrix(own.o_proj), heads // 2, 2 * d_head),
            difference=Difference(float(one - other) + first, 1 - first, config.rms_norm_eps),
        )
        assert attention.kv_heads == kv_heads // 2
        norms = _norm(block.input_layernorm), _norm(block.post_attention_layernorm)
        layers.append(Layer(attention, _gated(block.mlp, config.hidden_act), norms[0], None, norms[1], None))
    return _decoder(model, layers)


READERS: dict[str, Callable[[Any], Net]] = {
    "bitnet": read_bitnet,
    "diffllama": read_diffllama,
    "qwen3_5_text": read_qwen3_next,
    "qwen3_next": read_qwen3_next,
}
"""The readers by ``config.model_type``."""
