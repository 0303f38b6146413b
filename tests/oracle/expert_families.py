"""Families whose MLPs are mixtures of experts: how their weights are read into plain tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .families import (
    ACTIVATIONS,
    LatentAttention,
    Layer,
    Mixture,
    Mlp,
    Net,
    Norm,
    _bias,
    _columns,
    _decoder,
    _f64,
    _gated,
    _head_dim,
    _matrix,
    _norm,
    _rope,
    _rows,
    _split_attention,
    _window,
)

Route = Callable[[Tensor], Tensor]

# ------------------------------------------------------------------------------------------------------- routers


def _chosen(weights: Tensor, index: Tensor, experts: int) -> Tensor:
    """``[positions, experts]``: these weights where they belong, and zero elsewhere."""
    return torch.zeros(len(weights), experts, dtype=torch.float64).scatter(1, index, weights)


def softmax_then_top(gate: Tensor, k: int, to_one: bool) -> Route:
    """The k largest probabilities, ``to_one`` made to sum to one (Mixtral, Qwen, OLMoE)."""

    def route(x: Tensor) -> Tensor:
        weights, index = torch.softmax(x @ gate, 1).topk(k, 1)
        if to_one:
            weights = weights / weights.sum(1, keepdim=True)
        return _chosen(weights, index, gate.shape[1])

    return route


def top_then_softmax(gate: Tensor, bias: Tensor | float, k: int) -> Route:
    """The softmax of the k largest scores alone (gpt-oss, Granite)."""

    def route(x: Tensor) -> Tensor:
        scores, index = (x @ gate + bias).topk(k, 1)
        return _chosen(torch.softmax(scores, 1), index, gate.shape[1])

    return route


def sparse_mixer(gate: Tensor, jitter: float) -> Route:
    """Two experts, each weighted by a softmax over those whose score is near enough to its own (Liu et al. 2024)."""

    def weight(scores: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
        largest, index = among.max(1, keepdim=True)
        far = (largest - scores) / torch.maximum(scores.abs(), largest) > 2 * jitter
        return torch.softmax(among.masked_fill(far, -torch.inf), 1).gather(1, index), index

    def route(x: Tensor) -> Tensor:
        scores = x @ gate
        first, one = weight(scores, scores)
        second, other = weight(scores, scores.scatter(1, one, -torch.inf))
        return _chosen(torch.cat([first, second], 1), torch.cat([one, other], 1), gate.shape[1])

    return route


def in_groups(gate: Tensor, correction: Tensor, config: Any) -> Route:
    """The k largest sigmoids, corrected for the choice alone, of the groups with the best two (DeepSeek 3, GLM 4.5)."""
    groups, kept, k = config.n_group, config.topk_group, config.num_experts_per_tok

    def route(x: Tensor) -> Tensor:
        scores = torch.sigmoid(x @ gate)
        ranked = (scores + correction).reshape(len(x), groups, -1)
        best = ranked.topk(2, 2).values.sum(2).topk(kept, 1).indices
        out = torch.ones(len(x), groups, dtype=torch.bool).scatter(1, best, False)
        index = ranked.masked_fill(out[..., None], -torch.inf).flatten(1).topk(k, 1).indices
        weights = scores.gather(1, index)
        if config.norm_topk_prob:
            weights = weights / (weights.sum(1, keepdim=True) + 1e-20)
        return _chosen(weights * config.routed_scaling_factor, index, gate.shape[1])

    return route


def top_sigmoids(gate: Tensor, k: int) -> Route:
    """The sigmoids of the k largest scores (Llama 4)."""

    def route(x: Tensor) -> Tensor:
        scores, index = (x @ gate).topk(k, 1)
        return _chosen(torch.sigmoid(scores), index, gate.shape[1])

    return route


# ------------------------------------------------------------------------------------------------------- experts


def _gate(router: Any) -> Tensor:
    return _f64(router.weight).T


def _gated_experts(module: Any, act: str, transposed: bool = False) -> list[Mlp]:
    """Experts whose gate and up projections lie in one matrix, the gate's half first."""
    out = []
    for both, down in zip(_f64(module.gate_up_proj), _f64(module.down_proj), strict=True):
        both, down = (both, down) if transposed else (both.T, down.T)
        width = both.shape[1] // 2
        zeros, nothing = torch.zeros(width, dtype=torch.float64), torch.zeros(down.shape[1], dtype=torch.float64)
        out.append(Mlp(both[:, width:], zeros, down, nothing, ACTIVATIONS[act], both[:, :width], zeros))
    return out


@dataclass(frozen=True)
class ClippedMlp(Mlp):
    """gpt-oss: ``(up + 1) * gate * sigmoid(alpha * gate)``, gate and up clipped."""

    alpha: float = 1.0
    limit: float = 1.0

    def hidden(self, x: Tensor) -> Tensor:
        assert self.w_gate is not None
        gate = (x @ self.w_gate + self.b_gate).clamp(max=self.limit)
        up = (x @ self.w_in + self.b_in).clamp(-self.limit, self.limit)
        return (up + 1) * gate / (1 + torch.exp(-self.alpha * gate))


def _clipped_experts(module: Any, config: Any) -> list[Mlp]:
    """Experts with biases, whose gate and up projections take turns in one matrix."""
    parts = (module.gate_up_proj, module.gate_up_proj_bias, module.down_proj, module.down_proj_bias)
    return [
        ClippedMlp(
            w_in=both[:, 1::2],
            b_in=bias[1::2],
            w_out=down,
            b_out=added,
            act=ACTIVATIONS["silu"],
            w_gate=both[:, ::2],
            b_gate=bias[::2],
            alpha=config.swiglu_alpha,
            limit=config.swiglu_limit,
        )
        for both, bias, down, added in zip(*map(_f64, parts), strict=True)
    ]


# ------------------------------------------------------------------------------------------------------- families


def _pre_normed(model: Any, mlp_of: Callable[[Any], Mlp | Mixture], **extra: Callable[[Any, int], Any]) -> Net:
    """A family laid out like Llama: norms before, rotary positions, with ``extra`` of each layer's attention."""
    config = model.config
    layers = []
    for index, block in enumerate(model.model.layers):
        more = {"rope": _rope(config, _head_dim(config)), **{name: of(block, index) for name, of in extra.items()}}
        attention = _split_attention(block.self_attn, config, **more)
        norms = _norm(block.input_layernorm), _norm(block.post_attention_layernorm)
        layers.append(Layer(attention, mlp_of(block), norms[0], None, norms[1], None))
    return _decoder(model, layers)


def read_mixtral(model: Any) -> Net:
    """Mixtral: Llama whose MLPs are two of many, weighted to one."""
    config = model.config

    def mlp(block: Any) -> Mixture:
        route = softmax_then_top(_gate(block.mlp.gate), config.num_experts_per_tok, to_one=True)
        return Mixture(route, _gated_experts(block.mlp.experts, config.hidden_act))

    return _pre_normed(model, mlp, window=lambda block, index: _window(config, index))


def read_qwen_moe(model: Any) -> Net:
    """Qwen 2 and 3 with experts: in some layers one MLP; Qwen 2 with a shared expert, times a sigmoid of its own."""
    config = model.config
    third = config.model_type == "qwen3_moe"

    def mlp(block: Any) -> Mlp | Mixture:
        if not hasattr(block.mlp, "experts"):
            return _gated(block.mlp, config.hidden_act)
        route = softmax_then_top(_gate(block.mlp.gate), config.num_experts_per_tok, config.norm_topk_prob)
        experts = _gated_experts(block.mlp.experts, config.hidden_act)
        return Mixture(route, experts) if third else Mixture(route, experts, *_sometimes(block.mlp, config.hidden_act))

    norms = {
        name: lambda block, index, name=name: _norm(getattr(block.self_attn, name)) if third else None
        for name in ("q_norm", "k_norm")
    }
    return _pre_normed(model, mlp, window=lambda block, index: _window(config, index), **norms)


def _sometimes(block: Any, act: str) -> tuple[Mlp, Callable[[Tensor], Tensor]]:
    """The expert for every token, and the weight that it has at each."""
    gate = _matrix(block.shared_expert_gate)
    return _gated(block.shared_expert, act), lambda x: 1 / (1 + torch.exp(-(x @ gate)))


def read_olmoe(model: Any) -> Net:
    """OLMoE: norms over the queries and keys of all heads together, and all three clipped."""
    config = model.config

    def mlp(block: Any) -> Mixture:
        route = softmax_then_top(_gate(block.mlp.gate), config.num_experts_per_tok, config.norm_topk_prob)
        return Mixture(route, _gated_experts(block.mlp.experts, config.hidden_act))

    return _pre_normed(
        model,
        mlp,
        q_norm=lambda block, index: _norm(block.self_attn.q_norm),
        k_norm=lambda block, index: _norm(block.self_attn.k_norm),
        norm_across_heads=lambda block, index: True,
        clip=lambda block, index: config.clip_qkv,
    )


def read_phimoe(model: Any) -> Net:
    """Phi-3.5 MoE: layer norms, two experts by sparse mixing."""
    config = model.config

    def mlp(block: Any) -> Mixture:
        route = sparse_mixer(_gate(block.mlp.router), config.router_jitter_noise)
        return Mixture(route, _gated_experts(block.mlp.experts, config.hidden_act))

    return _pre_normed(model, mlp)


def read_gpt_oss(model: Any) -> Net:
    """gpt-oss: a sink in each head's softmax, windows in every other layer, biases, clipped experts."""
    config = model.config

    def mlp(block: Any) -> Mixture:
        router = block.mlp.router
        route = top_then_softmax(_gate(router), _f64(router.bias), config.num_experts_per_tok)
        return Mixture(route, _clipped_experts(block.mlp.experts, config))

    return _pre_normed(
        model,
        mlp,
        sinks=lambda block, index: _f64(block.self_attn.sinks),
        window=lambda block, index: _window(config, index),
    )


def read_granitemoe(model: Any) -> Net:
    """Granite with experts: Mixtral with a scale of its own for attention, for what is added, embeddings and logits."""
    config = model.config

    def mlp(block: Any) -> Mixture:
        own = block.block_sparse_moe
        route = top_then_softmax(_gate(own.router), 0.0, config.num_experts_per_tok)
        return Mixture(route, _gated_experts(own.experts, config.hidden_act))

    net = _pre_normed(model, mlp, scale=lambda block, index: config.attention_multiplier)
    layers = [replace(layer, scale=config.residual_multiplier) for layer in net.layers]
    return replace(net, layers=layers, embed_scale=config.embedding_multiplier, logit_scale=1 / config.logits_scaling)


def read_glm4_moe(model: Any) -> Net:
    """GLM 4.5: part of each head rotated, q and k norms, one MLP in the first layers, experts in groups, one shared."""
    config = model.config

    def mlp(block: Any) -> Mlp | Mixture:
        if not hasattr(block.mlp, "experts"):
            return _gated(block.mlp, config.hidden_act)
        gate = block.mlp.gate
        route = in_groups(_gate(gate), _f64(gate.e_score_correction_bias), config)
        shared = _gated(block.mlp.shared_experts, config.hidden_act)
        return Mixture(route, _gated_experts(block.mlp.experts, config.hidden_act), shared)

    norms = {
        name: lambda block, index, name=name: _norm(getattr(block.self_attn, name)) if config.use_qk_norm else None
        for name in ("q_norm", "k_norm")
    }
    return _pre_normed(model, mlp, **norms)


def read_deepseek_v3(model: Any) -> Net:
    """DeepSeek 3: keys and values of all heads of one latent, a part of each key and query rotated (neighbours, or
    halves), one MLP in the first layers, experts in groups, one for all tokens."""
    config = model.config
    heads, d_value = config.num_attention_heads, config.v_head_dim
    unrotated, rotated = config.qk_nope_head_dim, config.qk_rope_head_dim

    def mlp(block: Any) -> Mlp | Mixture:
        if not hasattr(block.mlp, "experts"):
            return _gated(block.mlp, config.hidden_act)
        gate = block.mlp.gate
        route = in_groups(_gate(gate), _f64(gate.e_score_correction_bias), config)
        shared = _gated(block.mlp.shared_experts, config.hidden_act)
        return Mixture(route, _gated_experts(block.mlp.experts, config.hidden_act), shared)

    def q_down(own: Any) -> Callable[[Tensor], Tensor]:
        if config.q_lora_rank is None:
            return lambda x: x
        down, bias, norm = _matrix(own.q_a_proj), _bias(own.q_a_proj, config.q_lora_rank), _norm(own.q_a_layernorm)
        return lambda x: norm(x @ down + bias)

    layers = []
    for block in model.model.layers:
        own = block.self_attn
        up = _columns(_matrix(own.kv_b_proj), heads, unrotated + d_value)
        last = own.q_proj if config.q_lora_rank is None else own.q_b_proj
        attention = LatentAttention(
            wq=_columns(_matrix(last), heads, unrotated + rotated),
            bq=torch.zeros(0),
            wk=up[..., :unrotated],
            bk=torch.zeros(0),
            wv=up[..., unrotated:],
            bv=torch.zeros(0),
            wo=_rows(_matrix(own.o_proj), heads, d_value),
            bo=_bias(own.o_proj, config.hidden_size),
            scale=(unrotated + rotated) ** -0.5,
            rope=_rope(config, rotated),
            rope_adjacent=config.rope_interleave,
            w_latent=_matrix(own.kv_a_proj_with_mqa),
            b_latent=_bias(own.kv_a_proj_with_mqa, config.kv_lora_rank + rotated),
            norm=_norm(own.kv_a_layernorm),
            q_down=q_down(own),
        )
        norms = _norm(block.input_layernorm), _norm(block.post_attention_layernorm)
        layers.append(Layer(attention, mlp(block), norms[0], None, norms[1], None))
    return _decoder(model, layers)


def read_llama4(model: Any) -> Net:
    """Llama 4 (text): pairs of neighbours rotated, in some layers none, and then in chunks; norms after rotating."""
    config = model.config
    d_head = _head_dim(config)

    def mlp(block: Any) -> Mlp | Mixture:
        own = block.feed_forward
        if not hasattr(own, "experts"):
            return _gated(own, config.hidden_act)
        route = top_sigmoids(_gate(own.router), config.num_experts_per_tok)
        experts = _gated_experts(own.experts, config.hidden_act, transposed=True)
        return Mixture(route, experts, _gated(own.shared_expert, config.hidden_act), scales_input=True)

    ones = Norm(torch.ones(d_head, dtype=torch.float64), None, config.rms_norm_eps)
    layers = []
    for index, block in enumerate(model.model.layers):
        rotates = bool(config.no_rope_layers[index])
        norm = ones if config.use_qk_norm and rotates else None
        extra = {"q_norm": norm, "k_norm": norm, "norm_after_rope": True, "rope_adjacent": True}
        attention = replace(
            _split_attention(block.self_attn, config, **extra),
            rope=_rope(config, d_head) if rotates else None,
            chunk=config.attention_chunk_size if config.layer_types[index] == "chunked_attention" else None,
        )
        norms = _norm(block.input_layernorm), _norm(block.post_attention_layernorm)
        layers.append(Layer(attention, mlp(block), norms[0], None, norms[1], None))
    return _decoder(model, layers)


READERS: dict[str, Callable[[Any], Net]] = {
    "deepseek_v3": read_deepseek_v3,
    "glm4_moe": read_glm4_moe,
    "gpt_oss": read_gpt_oss,
    "granitemoe": read_granitemoe,
    "llama4_text": read_llama4,
    "mixtral": read_mixtral,
    "olmoe": read_olmoe,
    "phimoe": read_phimoe,
    "qwen2_moe": read_qwen_moe,
    "qwen3_moe": read_qwen_moe,
}
