"""Further families without experts, read as in ``families.py``: from their papers and their code in transformers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .families import (
    ACTIVATIONS,
    Attention,
    Layer,
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
    _pieces,
    _rope,
    _rows,
    _split_attention,
    _window,
)


def _plain_mlp(first: Any, last: Any, act: str) -> Mlp:
    """An MLP of two linear maps, no gate between them."""
    width, d_model = last.weight.shape[1], last.weight.shape[0]
    return Mlp(_matrix(first), _bias(first, width), _matrix(last), _bias(last, d_model), ACTIVATIONS[act])


def _layer_norm(weight: Tensor, eps: float) -> Norm:
    """A layer norm without a bias."""
    return Norm(weight, torch.zeros_like(weight), eps)


def _biased(module: Any, one_plus: bool = False) -> Norm:
    """``nn.LayerNorm``; its weight may be stored less 1."""
    weight = _f64(module.weight)
    return Norm(1.0 + weight if one_plus else weight, _f64(module.bias), float(module.eps))


def read_gemma_1(model: Any) -> Net:
    """Gemma: Llama with RMS norms by 1 + w, heads of their own width, and embeddings times sqrt(d_model)."""
    config = model.config
    layers = []
    for block in model.model.layers:
        attention = _split_attention(block.self_attn, config, rope=_rope(config, _head_dim(config)))
        norms = [_norm(n, one_plus=True) for n in (block.input_layernorm, block.post_attention_layernorm)]
        layers.append(Layer(attention, _gated(block.mlp, config.hidden_act), norms[0], None, norms[1], None))
    return _decoder(model, layers, one_plus=True, embed_scale=math.sqrt(config.hidden_size))


def read_olmo(model: Any) -> Net:
    """OLMo: layer norms without any parameters; what the q, k and v projections give is clipped, where it says so."""
    config = model.config
    norm = _layer_norm(torch.ones(config.hidden_size, dtype=torch.float64), 1e-5)
    layers = []
    for block in model.model.layers:
        attention = _split_attention(
            block.self_attn, config, rope=_rope(config, _head_dim(config)), clip=config.clip_qkv
        )
        layers.append(Layer(attention, _gated(block.mlp, config.hidden_act), norm, None, norm, None))
    return Net(
        embed=_f64(model.model.embed_tokens.weight),
        embed_scale=1.0,
        positions=None,
        layers=layers,
        final_norm=norm,
        unembed=_matrix(model.lm_head),
        unembed_bias=_bias(model.lm_head, config.vocab_size),
    )


def read_olmo3(model: Any) -> Net:
    """OLMo 3: OLMo 2 with a window in some layers, which have rotary frequencies of their own."""
    config = model.config
    layers = []
    for index, block in enumerate(model.model.layers):
        attention = _split_attention(
            block.self_attn,
            config,
            rope=_rope(config, _head_dim(config), config.layer_types[index]),
            window=_window(config, index),
            q_norm=_norm(block.self_attn.q_norm),
            k_norm=_norm(block.self_attn.k_norm),
            norm_across_heads=True,
        )
        norms = _norm(block.post_attention_layernorm), _norm(block.post_feedforward_layernorm)
        layers.append(Layer(attention, _gated(block.mlp, config.hidden_act), None, norms[0], None, norms[1]))
    return _decoder(model, layers)


def _like_llama(model: Any, mlp: Callable[[Any], Mlp] | None = None, norm: Callable[[Any], Norm] = _norm) -> Net:
    """Llama with another MLP or other norms."""
    config = model.config
    layers = []
    for index, block in enumerate(model.model.layers):
        attention = _split_attention(
            block.self_attn,
            config,
            rope=_rope(config, _head_dim(config)),
            rope_adjacent=config.model_type == "helium",
            window=_window(config, index),
        )
        own = _gated(block.mlp, config.hidden_act) if mlp is None else mlp(block.mlp)
        norms = norm(block.input_layernorm), norm(block.post_attention_layernorm)
        layers.append(Layer(attention, own, norms[0], None, norms[1], None))
    return dataclasses.replace(_decoder(model, layers), final_norm=norm(model.model.norm))


def read_smollm3(model: Any) -> Net:
    """SmolLM3: Llama without any positions in every few layers; a window, where it says so, in those."""
    config, net = model.config, _like_llama(model)
    layers = [
        dataclasses.replace(
            layer,
            attention=dataclasses.replace(
                layer.attention,
                rope=layer.attention.rope if config.no_rope_layers[index] else None,
                window=layer.attention.window if config.use_sliding_window else None,
            ),
        )
        for index, layer in enumerate(net.layers)
    ]
    return dataclasses.replace(net, layers=layers)


def read_arcee(model: Any) -> Net:
    """Arcee: Llama whose MLP has no gate, with a squared ReLU."""
    return _like_llama(model, lambda mlp: _plain_mlp(mlp.up_proj, mlp.down_proj, model.config.hidden_act))


def read_nemotron(model: Any) -> Net:
    """Nemotron: layer norms by 1 + w, part of each head rotated, an MLP without a gate."""
    return _like_llama(
        model,
        lambda mlp: _plain_mlp(mlp.up_proj, mlp.down_proj, model.config.hidden_act),
        lambda norm: _biased(norm, one_plus=True),
    )


def read_starcoder2(model: Any) -> Net:
    """StarCoder2: layer norms and biases everywhere, an MLP without a gate, a window."""
    return _like_llama(model, lambda mlp: _plain_mlp(mlp.c_fc, mlp.c_proj, model.config.hidden_act), _biased)


def read_persimmon(model: Any) -> Net:
    """Persimmon: q, k and v interleaved by head, layer norms of q and k over each head, half of it rotated."""
    config = model.config
    heads, d_model = config.num_attention_heads, config.hidden_size
    d_head = d_model // heads
    layers = []
    for block in model.model.layers:
        own = block.self_attn
        fused = _columns(_matrix(own.query_key_value), heads, 3 * d_head)
        bias = _pieces(_bias(own.query_key_value, 3 * d_model), heads, 3 * d_head)
        (wq, wk, wv), (bq, bk, bv) = fused.split(d_head, dim=2), bias.split(d_head, dim=1)
        attention = Attention(
            wq=wq,
            bq=bq,
            wk=wk,
            bk=bk,
            wv=wv,
            bv=bv,
            wo=_rows(_matrix(own.dense), heads, d_head),
            bo=_bias(own.dense, d_model),
            scale=d_head**-0.5,
            rope=_rope(config, d_head),
            q_norm=_biased(own.q_layernorm) if config.qk_layernorm else None,
            k_norm=_biased(own.k_layernorm) if config.qk_layernorm else None,
        )
        mlp = _plain_mlp(block.mlp.dense_h_to_4h, block.mlp.dense_4h_to_h, config.hidden_act)
        norms = _biased(block.input_layernorm), _biased(block.post_attention_layernorm)
        layers.append(Layer(attention, mlp, norms[0], None, norms[1], None))
    return Net(
        embed=_f64(model.model.embed_tokens.weight),
        embed_scale=1.0,
        positions=None,
        layers=layers,
        final_norm=_biased(model.model.final_layernorm),
        unembed=_matrix(model.lm_head),
        unembed_bias=_bias(model.lm_head, config.vocab_size),
    )


def _heads_by_name(own: Any, out: Any, config: Any, **extra: Any) -> Attention:
    """An attention block with separate q, k and v projections, and an output projection of another name."""
    heads, kv_heads, d_head = config.num_attention_heads, config.num_key_value_heads, _head_dim(config)
    return Attention(
        wq=_columns(_matrix(own.q_proj), heads, d_head),
        bq=_pieces(_bias(own.q_proj, heads * d_head), heads, d_head),
        wk=_columns(_matrix(own.k_proj), kv_heads, d_head),
        bk=_pieces(_bias(own.k_proj, kv_heads * d_head), kv_heads, d_head),
        wv=_columns(_matrix(own.v_proj), kv_heads, d_head),
        bv=_pieces(_bias(own.v_proj, kv_heads * d_head), kv_heads, d_head),
        wo=_rows(_matrix(out), heads, d_head),
        bo=_bias(out, config.hidden_size),
        **{"scale": d_head**-0.5, **extra},
    )


def read_phi(model: Any) -> Net:
    """Phi: attention and MLP in parallel after one layer norm, biases everywhere, part of each head rotated."""
    config = model.config
    layers = []
    for block in model.model.layers:
        own = block.self_attn
        attention = _heads_by_name(
            own,
            own.dense,
            config,
            rope=_rope(config, _head_dim(config)),
            q_norm=_biased(own.q_layernorm) if config.qk_layernorm else None,
            k_norm=_biased(own.k_layernorm) if config.qk_layernorm else None,
        )
        mlp = _plain_mlp(block.mlp.fc1, block.mlp.fc2, config.hidden_act)
        norm = _biased(block.input_layernorm)
        layers.append(Layer(attention, mlp, norm, None, norm, None, parallel=True))
    return Net(
        embed=_f64(model.model.embed_tokens.weight),
        embed_scale=1.0,
        positions=None,
        layers=layers,
        final_norm=_biased(model.model.final_layernorm),
        unembed=_matrix(model.lm_head),
        unembed_bias=_bias(model.lm_head, config.vocab_size),
    )


def read_cohere(model: Any) -> Net:
    """Cohere: attention and MLP in parallel after one layer norm without a bias, neighbouring entries rotated, logits
    scaled; q and k norms with weights for each head, where it says so. In Cohere 2 the layers without a window have no
    positions at all."""
    config = model.config
    second = config.model_type == "cohere2"

    def norm(module: Any) -> Norm:
        return _layer_norm(_f64(module.weight), float(module.variance_epsilon))

    def by_head(module: Any) -> Norm:  # weights [heads, d_head]; heads come before positions
        return _layer_norm(_f64(module.weight)[:, None], float(module.variance_epsilon))

    layers = []
    for index, block in enumerate(model.model.layers):
        own, window = block.self_attn, _window(config, index) if second else None
        normed = not second and config.use_qk_norm
        attention = _split_attention(
            own,
            config,
            rope=None if second and window is None else _rope(config, _head_dim(config)),
            rope_adjacent=True,
            window=window,
            q_norm=by_head(own.q_norm) if normed else None,
            k_norm=by_head(own.k_norm) if normed else None,
        )
        mlp = _gated(block.mlp, config.hidden_act)
        layers.append(
            Layer(attention, mlp, norm(block.input_layernorm), None, norm(block.input_layernorm), None, parallel=True)
        )
    net = _decoder(model, layers, logit_scale=config.logit_scale)
    return dataclasses.replace(net, final_norm=norm(model.model.norm))


FAMILIES: dict[str, Callable[[Any], Net]] = {
    "arcee": read_arcee,
    "cohere": read_cohere,
    "cohere2": read_cohere,
    "gemma": read_gemma_1,
    "helium": _like_llama,
    "ministral": _like_llama,
    "nemotron": read_nemotron,
    "olmo": read_olmo,
    "olmo3": read_olmo3,
    "persimmon": read_persimmon,
    "phi": read_phi,
    "seed_oss": _like_llama,
    "smollm3": read_smollm3,
    "starcoder2": read_starcoder2,
}
