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


def read_phi(model: Any) -> Net:
    """Phi: attention and MLP in parallel after one layer norm, biases everywhere, part of each head rotated."""
    config = model.config
    layers = []
    for block in model.model.layers:
        own = block.self_attn
        attention = _split_attention(
            own,
            config,
            own.dense,
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


def read_granite(model: Any) -> Net:
    """Granite: Llama with a scale of its own for attention, for what is added to the stream, embeddings and logits."""
    config, net = model.config, _like_llama(model)
    layers = [
        dataclasses.replace(
            layer,
            attention=dataclasses.replace(layer.attention, scale=config.attention_multiplier),
            scale=config.residual_multiplier,
        )
        for layer in net.layers
    ]
    return dataclasses.replace(
        net, layers=layers, embed_scale=config.embedding_multiplier, logit_scale=1.0 / config.logits_scaling
    )


def read_vaultgemma(model: Any) -> Net:
    """VaultGemma: Gemma 2 without norms after attention and MLP."""
    config = model.config
    layers = []
    for index, block in enumerate(model.model.layers):
        attention = _split_attention(
            block.self_attn,
            config,
            scale=config.query_pre_attn_scalar**-0.5,
            rope=_rope(config, _head_dim(config), config.layer_types[index]),
            window=_window(config, index),
            softcap=config.attn_logit_softcapping,
        )
        norms = [_norm(n, one_plus=True) for n in (block.input_layernorm, block.pre_feedforward_layernorm)]
        layers.append(Layer(attention, _gated(block.mlp, config.hidden_activation), norms[0], None, norms[1], None))
    scale, cap = math.sqrt(config.hidden_size), config.final_logit_softcapping
    return _decoder(model, layers, one_plus=True, embed_scale=scale, final_softcap=cap)


def read_exaone4(model: Any) -> Net:
    """EXAONE 4: norms after the sub-blocks and none before them, q and k norms over each head; where there are
    windows, the layers without one have no positions."""
    config = model.config
    layers = []
    for index, block in enumerate(model.model.layers):
        window = _window(config, index)
        attention = _split_attention(
            block.self_attn,
            config,
            rope=None if config.sliding_window and window is None else _rope(config, _head_dim(config)),
            window=window,
            q_norm=_norm(block.self_attn.q_norm),
            k_norm=_norm(block.self_attn.k_norm),
        )
        norms = _norm(block.post_attention_layernorm), _norm(block.post_feedforward_layernorm)
        layers.append(Layer(attention, _gated(block.mlp, config.hidden_act), None, norms[0], None, norms[1]))
    return _decoder(model, layers)


def read_glm4(model: Any) -> Net:
    """GLM-4: norms before and after each sub-block, gate and up in one matrix, neighbouring entries of a part of each
    head rotated."""
    config = model.config
    layers = []
    for block in model.model.layers:
        attention = _split_attention(block.self_attn, config, rope=_rope(config, _head_dim(config)), rope_adjacent=True)
        gate_up = _matrix(block.mlp.gate_up_proj)
        width = gate_up.shape[1] // 2
        nothing = torch.zeros(width, dtype=torch.float64)
        mlp = Mlp(
            w_in=gate_up[:, width:],
            b_in=nothing,
            w_out=_matrix(block.mlp.down_proj),
            b_out=_bias(block.mlp.down_proj, config.hidden_size),
            act=ACTIVATIONS[config.hidden_act],
            w_gate=gate_up[:, :width],
            b_gate=nothing,
        )
        layers.append(
            Layer(
                attention,
                mlp,
                pre_attention=_norm(block.input_layernorm),
                post_attention=_norm(block.post_self_attn_layernorm),
                pre_mlp=_norm(block.post_attention_layernorm),
                post_mlp=_norm(block.post_mlp_layernorm),
            )
        )
    return _decoder(model, layers)


def _of_projections(q: Any, k: Any, v: Any, out: Any, heads: int, **extra: Any) -> Attention:
    """Attention in which every head has its own key and value, from four linear maps."""
    d_model = out.weight.shape[0]
    d_head = d_model // heads
    return Attention(
        wq=_columns(_matrix(q), heads, d_head),
        bq=_pieces(_bias(q, d_model), heads, d_head),
        wk=_columns(_matrix(k), heads, d_head),
        bk=_pieces(_bias(k, d_model), heads, d_head),
        wv=_columns(_matrix(v), heads, d_head),
        bv=_pieces(_bias(v, d_model), heads, d_head),
        wo=_rows(_matrix(out), heads, d_head),
        bo=_bias(out, d_model),
        **{"scale": d_head**-0.5, **extra},
    )


def _around(model: Any, layers: list[Layer], embed: Any, final_norm: Any, positions: Tensor | None = None) -> Net:
    """A net of its blocks and the modules around them."""
    return Net(
        embed=_f64(embed.weight),
        embed_scale=1.0,
        positions=positions,
        layers=layers,
        final_norm=_affine(final_norm),
        unembed=_matrix(model.lm_head),
        unembed_bias=_bias(model.lm_head, model.config.vocab_size),
    )


def _affine(module: Any) -> Norm:
    """``nn.LayerNorm``, which may have no bias."""
    return _layer_norm(_f64(module.weight), float(module.eps)) if module.bias is None else _biased(module)


def read_gptj(model: Any) -> Net:
    """GPT-J: attention and MLP in parallel after one layer norm, no biases in the attention, neighbouring entries of a
    part of each head rotated, an unembedding with a bias."""
    config, body = model.config, model.transformer
    frequencies = [10000.0 ** (-2.0 * i / config.rotary_dim) for i in range(config.rotary_dim // 2)]
    rope = torch.tensor(frequencies, dtype=torch.float64)
    layers = []
    for block in body.h:
        own = block.attn
        attention = _of_projections(
            own.q_proj, own.k_proj, own.v_proj, own.out_proj, config.n_head, rope=rope, rope_adjacent=True
        )
        mlp = _plain_mlp(block.mlp.fc_in, block.mlp.fc_out, config.activation_function)
        layers.append(Layer(attention, mlp, _biased(block.ln_1), None, _biased(block.ln_1), None, parallel=True))
    return _around(model, layers, body.wte, body.ln_f)


def read_gpt_neo(model: Any) -> Net:
    """GPT-Neo: learned positions, attention scores that are not scaled, a window in every other layer."""
    config, body = model.config, model.transformer
    layers = []
    for kind, block in zip(config.attention_layers, body.h, strict=True):
        own = block.attn.attention
        window = config.window_size if kind == "local" else None
        attention = _of_projections(
            own.q_proj, own.k_proj, own.v_proj, own.out_proj, config.num_heads, scale=1.0, window=window
        )
        mlp = _plain_mlp(block.mlp.c_fc, block.mlp.c_proj, config.activation_function)
        layers.append(Layer(attention, mlp, _biased(block.ln_1), None, _biased(block.ln_2), None))
    return _around(model, layers, body.wte, body.ln_f, _f64(body.wpe.weight))


def read_opt(model: Any) -> Net:
    """OPT: learned positions, of which the first two are of no token; layer norms before, biases, a ReLU."""
    config, body = model.config, model.model.decoder
    layers = []
    for block in body.layers:
        own = block.self_attn
        attention = _of_projections(own.q_proj, own.k_proj, own.v_proj, own.out_proj, config.num_attention_heads)
        mlp = _plain_mlp(block.fc1, block.fc2, config.activation_function)
        norms = _biased(block.self_attn_layer_norm), _biased(block.final_layer_norm)
        layers.append(Layer(attention, mlp, norms[0], None, norms[1], None))
    positions = _f64(body.embed_positions.weight)[2:]
    return _around(model, layers, body.embed_tokens, body.final_layer_norm, positions)


def _alibi(heads: int) -> Tensor:
    """How much scores fall per position: ``2 ** (-8 (h + 1) / heads)``, for a power of two of heads."""
    if heads & (heads - 1):
        raise NotImplementedError("alibi for numbers of heads that are no power of two")
    return torch.tensor([2.0 ** (-8.0 * (h + 1) / heads) for h in range(heads)], dtype=torch.float64)


def bloom_gelu(x: Tensor) -> Tensor:
    """GELU in its tanh approximation, with the root of 2 / pi to eight digits."""
    return 0.5 * x * (1.0 + torch.tanh(0.79788456 * x * (1.0 + 0.044715 * x * x)))


def _interleaved(fused: Any, out: Any, heads: int, kv_heads: int, **extra: Any) -> Attention:
    """Attention from one projection, in which a key-value head's queries come before its key and its value."""
    d_model = out.weight.shape[0]
    d_head, each = d_model // heads, heads // kv_heads
    weight = _columns(_matrix(fused), heads + 2 * kv_heads, d_head)
    bias = _pieces(_bias(fused, fused.weight.shape[0]), heads + 2 * kv_heads, d_head)
    queries = [g * (each + 2) + i for g in range(kv_heads) for i in range(each)]
    keys = [g * (each + 2) + each for g in range(kv_heads)]
    values = [g * (each + 2) + each + 1 for g in range(kv_heads)]
    return Attention(
        wq=weight[queries],
        bq=bias[queries],
        wk=weight[keys],
        bk=bias[keys],
        wv=weight[values],
        bv=bias[values],
        wo=_rows(_matrix(out), heads, d_head),
        bo=_bias(out, d_model),
        **{"scale": d_head**-0.5, **extra},
    )


def read_bloom(model: Any) -> Net:
    """BLOOM: a layer norm on the embeddings, scores that fall with distance in place of positions, biases."""
    config, body = model.config, model.transformer
    heads = config.n_head
    layers = []
    for block in body.h:
        own = block.self_attention
        attention = _interleaved(own.query_key_value, own.dense, heads, heads, alibi=_alibi(heads))
        mlp = _plain_mlp(block.mlp.dense_h_to_4h, block.mlp.dense_4h_to_h, "gelu_new")
        mlp = dataclasses.replace(mlp, act=bloom_gelu)
        norms = _biased(block.input_layernorm), _biased(block.post_attention_layernorm)
        layers.append(Layer(attention, mlp, norms[0], None, norms[1], None))
    net = _around(model, layers, body.word_embeddings, body.ln_f)
    return dataclasses.replace(net, embed_norm=_biased(body.word_embeddings_layernorm))


def read_mpt(model: Any) -> Net:
    """MPT: scores that fall with distance in place of positions, no biases anywhere; what the q, k and v projections
    give is clipped, where it says so."""
    config, body = model.config, model.transformer
    heads, d_model, own = config.n_heads, config.d_model, config.attn_config
    d_head = d_model // heads
    layers = []
    for block in body.blocks:
        wq, wk, wv = (_columns(w, heads, d_head) for w in _matrix(block.attn.Wqkv).split(d_model, dim=1))
        nothing = torch.zeros(heads, d_head, dtype=torch.float64)
        attention = Attention(
            wq=wq,
            bq=nothing,
            wk=wk,
            bk=nothing,
            wv=wv,
            bv=nothing,
            wo=_rows(_matrix(block.attn.out_proj), heads, d_head),
            bo=torch.zeros(d_model, dtype=torch.float64),
            scale=d_head**-0.5 if own.softmax_scale is None else own.softmax_scale,
            alibi=_alibi(heads),  # whatever `alibi_bias_max` is: transformers does not read it
            clip=own.clip_qkv,
        )
        mlp = _plain_mlp(block.ffn.up_proj, block.ffn.down_proj, "gelu")
        layers.append(Layer(attention, mlp, _affine(block.norm_1), None, _affine(block.norm_2), None))
    return _around(model, layers, body.wte, body.norm_f)


def read_falcon(model: Any) -> Net:
    """Falcon: 7B (one key-value head, one norm for attention and MLP in parallel), 40B (several, a norm for each), and
    RW (no sharing, one after the other, scores that fall with distance in place of rotation)."""
    config, body = model.config, model.transformer
    heads, d_head = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    kv_heads = config.num_kv_heads if config.new_decoder_architecture else 1 if config.multi_query else heads
    layers = []
    for block in body.h:
        own = block.self_attention
        attention = _interleaved(
            own.query_key_value,
            own.dense,
            heads,
            kv_heads,
            rope=None if config.alibi else _rope(config, d_head),
            alibi=_alibi(heads) * d_head**-0.5 if config.alibi else None,
        )
        mlp = _plain_mlp(block.mlp.dense_h_to_4h, block.mlp.dense_4h_to_h, config.activation)
        if config.new_decoder_architecture and config.num_ln_in_parallel_attn == 2:
            norms = block.ln_attn, block.ln_mlp
        else:
            norms = block.input_layernorm, getattr(block, "post_attention_layernorm", block.input_layernorm)
        both = [_biased(norm) for norm in norms]
        layers.append(Layer(attention, mlp, both[0], None, both[1], None, parallel=config.parallel_attn))
    return _around(model, layers, body.word_embeddings, body.ln_f)


FAMILIES: dict[str, Callable[[Any], Net]] = {
    "arcee": read_arcee,
    "bloom": read_bloom,
    "cohere": read_cohere,
    "cohere2": read_cohere,
    "exaone4": read_exaone4,
    "falcon": read_falcon,
    "gemma": read_gemma_1,
    "glm4": read_glm4,
    "gpt_neo": read_gpt_neo,
    "gptj": read_gptj,
    "granite": read_granite,
    "helium": _like_llama,
    "ministral": _like_llama,
    "mpt": read_mpt,
    "nemotron": read_nemotron,
    "olmo": read_olmo,
    "olmo3": read_olmo3,
    "opt": read_opt,
    "persimmon": read_persimmon,
    "phi": read_phi,
    "seed_oss": _like_llama,
    "smollm3": read_smollm3,
    "starcoder2": read_starcoder2,
    "vaultgemma": read_vaultgemma,
}
