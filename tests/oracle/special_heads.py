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
    ACTIVATIONS,
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


@dataclass(frozen=True)
class ShortConvolution:
    """A convolution of ``B * x``, times ``C``: all three projections of the same (LFM2)."""

    w_in: Tensor  # [d_model, 3 * d_model]: B, C, x
    b_in: Tensor
    conv: Tensor
    conv_bias: Tensor | None
    out: Tensor
    b_out: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        b, c, given = (x @ self.w_in + self.b_in).chunk(3, dim=1)
        return (c * convolved(b * given, self.conv, self.conv_bias)) @ self.out + self.b_out


def _short_convolution(module: Any, config: Any) -> ShortConvolution:
    bias = getattr(module.conv, "bias", None)
    return ShortConvolution(
        _matrix(module.in_proj),
        _bias(module.in_proj, 3 * config.hidden_size),
        _f64(module.conv.weight)[:, 0],
        None if bias is None else _f64(bias),
        _matrix(module.out_proj),
        _bias(module.out_proj, config.hidden_size),
    )


@dataclass(frozen=True)
class StateSpace:
    """Mamba 2: for each head a state ``[head width, state size]`` that falls and is added to, token by token."""

    w_in: Tensor
    b_in: Tensor
    conv: Tensor
    conv_bias: Tensor | None
    decay: Tensor  # [heads]
    skip: Tensor
    dt_bias: Tensor
    norm_weight: Tensor
    eps: float
    out: Tensor
    b_out: Tensor
    groups: int
    state: int

    def __call__(self, x: Tensor) -> Tensor:
        heads, width, n = len(self.decay), len(self.norm_weight), len(x)
        sizes = [width, width + 2 * self.groups * self.state, heads]
        gate, mixed, dt = (x @ self.w_in + self.b_in).split(sizes, dim=1)
        mixed = silu(convolved(mixed, self.conv, self.conv_bias))
        given, b, c = mixed.split([width, self.groups * self.state, self.groups * self.state], dim=1)
        given = given.reshape(n, heads, -1)
        b, c = (one.reshape(n, self.groups, self.state) for one in (b, c))
        dt = softplus(dt + self.dt_bias)
        read = []
        for head in range(heads):
            own = head // (heads // self.groups)
            kept = torch.zeros(given.shape[2], self.state, dtype=x.dtype)
            rows = []
            for t in range(n):
                kept = kept * torch.exp(-self.decay[head] * dt[t, head])
                kept = kept + torch.outer(given[t, head] * dt[t, head], b[t, own])
                rows.append(kept @ c[t, own] + self.skip[head] * given[t, head])
            read.append(torch.stack(rows))
        y = (torch.cat(read, dim=1) * silu(gate)).reshape(n, self.groups, -1)
        y = y / torch.sqrt((y * y).mean(-1, keepdim=True) + self.eps)
        return y.reshape(n, width) * self.norm_weight @ self.out + self.b_out


def _state_space(module: Any, config: Any, *, grouped: bool) -> StateSpace:
    """Granite norms over all groups at once: told as one group of heads only where there is one."""
    bias = getattr(module.conv1d, "bias", None)
    assert grouped or config.mamba_n_groups == 1
    return StateSpace(
        _matrix(module.in_proj),
        _bias(module.in_proj, module.in_proj.weight.shape[0]),
        _f64(module.conv1d.weight)[:, 0],
        None if bias is None else _f64(bias),
        torch.exp(_f64(module.A_log)),
        _f64(module.D),
        _f64(module.dt_bias),
        _f64(module.norm.weight),
        config.rms_norm_eps,
        _matrix(module.out_proj),
        _bias(module.out_proj, config.hidden_size),
        config.mamba_n_groups,
        config.mamba_d_state,
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
        experts = _gated_experts(block.mlp.experts, config.hidden_act)
        return Mixture(route, experts, *_sometimes(block.mlp, config.hidden_act))

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


def read_lfm2(model: Any) -> Net:
    """LFM2: short convolutions in some layers; norms of queries and keys over each head; MLPs with gates."""
    config = model.config
    layers = []
    for index, block in enumerate(model.model.layers):
        if config.layer_types[index] == "conv":
            attention: Attention | Mixing = _mixing(_short_convolution(block.conv, config), config)
        else:
            own = block.self_attn
            norms = {"q_norm": _norm(own.q_layernorm), "k_norm": _norm(own.k_layernorm)}
            attention = _split_attention(own, config, own.out_proj, rope=_rope(config, _head_dim(config)), **norms)
        parts = block.feed_forward
        width = parts.w2.weight.shape[1]
        mlp = Mlp(
            w_in=_matrix(parts.w3),
            b_in=_bias(parts.w3, width),
            w_out=_matrix(parts.w2),
            b_out=_bias(parts.w2, config.hidden_size),
            act=silu,
            w_gate=_matrix(parts.w1),
            b_gate=_bias(parts.w1, width),
        )
        layers.append(Layer(attention, mlp, _norm(block.operator_norm), None, _norm(block.ffn_norm), None))
    return _decoder(_Renamed(model, "embedding_norm"), layers)


class _Renamed:
    """A model whose final norm has another name."""

    def __init__(self, model: Any, norm: str) -> None:
        self.config, self.lm_head, self.model = model.config, model.lm_head, self
        self.embed_tokens, self.norm = model.model.embed_tokens, getattr(model.model, norm)


def read_bamba(model: Any) -> Net:
    """Bamba: Mamba 2 in most layers, with a norm by groups; half of each head rotated in the others."""
    config = model.config
    layers = []
    for index, block in enumerate(model.model.layers):
        if config.layers_block_type[index] == "linear_attention":
            attention: Attention | Mixing = _mixing(_state_space(block.mamba, config, grouped=True), config)
        else:
            attention = _split_attention(block.self_attn, config, rope=_rope(config, _head_dim(config)))
        norms = _norm(block.input_layernorm), _norm(block.pre_ff_layernorm)
        layers.append(Layer(attention, _gated(block.feed_forward, config.hidden_act), norms[0], None, norms[1], None))
    return _decoder(_Renamed(model, "final_layernorm"), layers)


def read_granite_hybrid(model: Any) -> Net:
    """Granite 4: Granite's multipliers, Mamba 2 in most layers, no positions; without experts."""
    config = model.config
    layers = []
    for index, block in enumerate(model.model.layers):
        if config.layer_types[index] == "linear_attention":
            attention: Attention | Mixing = _mixing(_state_space(block.mamba, config, grouped=False), config)
        else:
            rope = _rope(config, _head_dim(config)) if config.position_embedding_type == "rope" else None
            attention = _split_attention(block.self_attn, config, rope=rope, scale=config.attention_multiplier)
        gate, up = _matrix(block.shared_mlp.input_linear).chunk(2, dim=1)
        nothing, added = (
            torch.zeros(up.shape[1], dtype=torch.float64),
            torch.zeros(config.hidden_size, dtype=torch.float64),
        )
        down = _matrix(block.shared_mlp.output_linear)
        mlp = Mlp(up, nothing, down, added, ACTIVATIONS[config.hidden_act], gate, nothing)
        norms = _norm(block.input_layernorm), _norm(block.post_attention_layernorm)
        layers.append(Layer(attention, mlp, norms[0], None, norms[1], None, scale=config.residual_multiplier))
    return _decoder(model, layers, embed_scale=config.embedding_multiplier, logit_scale=1 / config.logits_scaling)


READERS: dict[str, Callable[[Any], Net]] = {
    "bamba": read_bamba,
    "bitnet": read_bitnet,
    "diffllama": read_diffllama,
    "granitemoehybrid": read_granite_hybrid,
    "lfm2": read_lfm2,
    "qwen3_5_text": read_qwen3_next,
    "qwen3_next": read_qwen3_next,
}
"""The readers by ``config.model_type``."""
