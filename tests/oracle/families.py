"""The weights of a Hugging Face causal language model, read into plain float64 tensors.

``read(model)`` turns a model of a known family into a ``Net``: nothing but tensors, numbers and flags, in one layout
for all families, so that one explicit forward pass (``node.py``) serves them all. A family is a small function from
the model to a ``Net``; ``FAMILIES`` maps ``config.model_type`` to it.

Layout: a vector times a matrix is ``x @ w``, so weights are ``[in, out]``. Attention weights are split by head, and key
and value weights by key-value head. Query head ``h`` reads the key-value head ``h // (heads / kv_heads)``.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from . import scaled_rope


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """``x / sqrt(mean(x^2) + eps) * weight`` over the last dimension."""
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * weight


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """``(x - mean) / sqrt(var + eps) * weight + bias`` over the last dimension, with the biased variance."""
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred * centred).mean(-1, keepdim=True) + eps) * weight + bias


@dataclass(frozen=True)
class Norm:
    """A layer norm (with a bias) or an RMS norm (without one). Gemma's ``1 + w`` is already added to the weight."""

    weight: Tensor
    bias: Tensor | None
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        if self.bias is None:
            return rms_norm(x, self.weight, self.eps)
        return layer_norm(x, self.weight, self.bias, self.eps)


@dataclass(frozen=True)
class Difference:
    """How two attention maps make one head: the first less ``by`` times the second, normed, times ``scale``."""

    by: float
    scale: float
    eps: float

    def normed(self, z: Tensor) -> Tensor:
        return self.scale * z / torch.sqrt((z * z).mean(-1, keepdim=True) + self.eps)


@dataclass(frozen=True)
class Mixing:
    """What mixes tokens in place of heads: ``mix`` gives ``[positions, d_model]`` of as much, each of those before."""

    mix: Callable[[Tensor], Tensor]
    bo: Tensor  # zeros: what it adds is all the mixer's
    heads: int = 0
    kv_heads: int = 0
    head_norm: None = None


@dataclass(frozen=True)
class Attention:
    """One attention block.

    ``wq`` is ``[heads, d_model, d_head]``, ``wk`` and ``wv`` are ``[kv_heads, d_model, d_head]``, ``wo`` is
    ``[heads, d_head, d_model]``; ``bo`` belongs to the block and to no head. ``norm_across_heads`` says whether the
    query and key norms run over the concatenation of all heads (OLMo 2) or over each head alone (Qwen 3, Gemma 3).
    ``rope`` holds the inverse frequencies, ``None`` for learned positions; it rotates entry i with entry i + half of
    them, or, where ``rope_adjacent``, entry 2 i with 2 i + 1. With ``window`` w, position i sees those j with
    i - w < j <= i; with ``chunk`` c, those of its own chunk of c positions. Each head's entry of ``sinks`` is one more
    score in the denominator of its softmax. Queries, keys and values are clipped to ``-clip .. clip`` after norms.
    ``alibi`` holds for each head by how much its score falls with every position between the two.

    With ``wg`` ``[heads, d_model, d_head]`` a head's output is multiplied by the sigmoid of a gate that it computes of
    what its query is computed of. With ``difference`` a head has two queries and two keys, side by side, and gives what
    the first two attend to less that many times what the others do, normed without a weight and multiplied by the
    second number. ``head_norm`` norms the outputs of all heads side by side before they are projected.
    """

    wq: Tensor
    bq: Tensor
    wk: Tensor
    bk: Tensor
    wv: Tensor
    bv: Tensor
    wo: Tensor
    bo: Tensor
    scale: float
    rope: Tensor | None = None
    rope_scale: float = 1.0  # by which rotated entries are multiplied
    q_norm: Norm | None = None
    k_norm: Norm | None = None
    norm_across_heads: bool = False
    softcap: float | None = None
    window: int | None = None
    rope_adjacent: bool = False
    alibi: Tensor | None = None
    chunk: int | None = None
    sinks: Tensor | None = None
    clip: float | None = None
    norm_after_rope: bool = False
    wg: Tensor | None = None
    bg: Tensor | None = None
    difference: Difference | None = None
    head_norm: Norm | None = None

    def gates(self, x: Tensor) -> Tensor | float:
        """What heads multiply by, ``[heads, positions, d_head]``."""
        if self.wg is None or self.bg is None:
            return 1.0
        return 1 / (1 + torch.exp(-(x @ self.wg + self.bg[:, None])))

    def queries(self, x: Tensor) -> Tensor:
        """``[heads, positions, d_head]`` of ``[heads, positions, d_model]``; so are keys and values, by their heads."""
        return x @ self.wq + self.bq[:, None]

    def keys(self, x: Tensor) -> Tensor:
        return x @ self.wk + self.bk[:, None]

    def values(self, x: Tensor) -> Tensor:
        return x @ self.wv + self.bv[:, None]

    @property
    def heads(self) -> int:
        return self.wq.shape[0]

    @property
    def kv_heads(self) -> int:
        return self.wk.shape[0]


@dataclass(frozen=True)
class LatentAttention(Attention):
    """Attention whose keys and values come of one latent (DeepSeek): one key-value head, which all heads read.

    A latent is ``norm`` of the first entries of ``x @ w_latent + b_latent``; those behind it are what all keys have in
    common, and are rotated. ``wk`` and ``wv`` are of the latent, ``[heads, latent, width]``; a key is the part that is
    made of the latent, then the one that is rotated; so is a query, ``[not rotated ; rotated]``, of which ``wq`` is of
    ``q_down(x)``.
    """

    w_latent: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    b_latent: Tensor = field(default_factory=lambda: torch.zeros(0))
    norm: Norm | None = None
    q_down: Callable[[Tensor], Tensor] = lambda x: x

    @property
    def kv_heads(self) -> int:
        return 1

    def queries(self, x: Tensor) -> Tensor:
        return self.q_down(x) @ self.wq

    def latents(self, x: Tensor) -> Tensor:
        """``[1, positions, latent + rotated]``"""
        return x @ self.w_latent + self.b_latent

    def keys_of(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """What of each key is not rotated, ``[heads, positions, width]``, and what is, the same for all."""
        assert self.norm is not None
        rank = self.wk.shape[1]
        return self.norm(latents[..., :rank]) @ self.wk, latents[..., rank:].expand(self.heads, -1, -1)

    def values_of(self, latents: Tensor) -> Tensor:
        """``[heads, positions, width]``"""
        assert self.norm is not None
        return self.norm(latents[..., : self.wv.shape[1]]) @ self.wv


@dataclass(frozen=True)
class Mlp:
    """``neurons @ w_out + b_out``, where the neurons are ``act(x @ w_in + b_in)``, or with a gate
    ``act(x @ w_gate + b_gate) * (x @ w_in + b_in)``."""

    w_in: Tensor
    b_in: Tensor
    w_out: Tensor
    b_out: Tensor
    act: Callable[[Tensor], Tensor]
    w_gate: Tensor | None = None
    b_gate: Tensor | None = None
    neuron_norm: Norm | None = None  # over all neurons, before they are projected

    def hidden(self, x: Tensor) -> Tensor:
        """The neurons: the input of the output projection, or of a norm before it."""
        up = x @ self.w_in + self.b_in
        if self.w_gate is None or self.b_gate is None:
            return self.act(up)
        return self.act(x @ self.w_gate + self.b_gate) * up

    def __call__(self, x: Tensor) -> Tensor:
        """The output."""
        return self.projected(self.hidden(x))

    def projected(self, neurons: Tensor) -> Tensor:
        """The output, of these neurons."""
        neurons = neurons if self.neuron_norm is None else self.neuron_norm(neurons)
        return neurons @ self.w_out + self.b_out


@dataclass(frozen=True)
class Mixture:
    """An MLP of many experts, of which each token is served by a few.

    ``route`` gives the weight of every expert at every position, ``[positions, experts]``, zero for those that are not
    chosen. The output is the sum of weight times expert, and of ``shared``, which serves every token. ``scales_input``:
    the weight multiplies what an expert reads and not what it writes (Llama 4).
    """

    route: Callable[[Tensor], Tensor]
    experts: list[Mlp]
    shared: Mlp | None = None
    shared_weight: Callable[[Tensor], Tensor] | None = None
    scales_input: bool = False

    def neurons(self, x: Tensor, weights: Tensor) -> list[Tensor]:
        """What the output projection of each expert reads, ``[positions, width]``, times its weight."""
        if self.scales_input:
            return [expert.hidden(weights[:, [e]] * x) for e, expert in enumerate(self.experts)]
        return [weights[:, [e]] * expert.hidden(x) for e, expert in enumerate(self.experts)]

    def given(self, x: Tensor, weights: Tensor, neurons: list[Tensor], shared: Tensor | None) -> list[Tensor]:
        """What each expert adds, ``[positions, d_model]``, and last what the shared one does, of their neurons."""
        each = []
        for e, expert in enumerate(self.experts):
            bias = expert.b_out if self.scales_input else weights[:, [e]] * expert.b_out
            each.append(neurons[e] @ expert.w_out + bias)
        if self.shared is None or shared is None:
            return each
        beside = shared @ self.shared.w_out + self.shared.b_out
        return [*each, beside if self.shared_weight is None else beside * self.shared_weight(x)]

    def __call__(self, x: Tensor) -> Tensor:
        weights = self.route(x)
        shared = None if self.shared is None else self.shared.hidden(x)
        return torch.stack(self.given(x, weights, self.neurons(x, weights), shared)).sum(0)


@dataclass(frozen=True)
class Layer:
    """One block. ``parallel``: attention and MLP both read the block's input and both are added to it. What they
    give is multiplied by ``scale`` as it is added."""

    attention: Attention | Mixing
    mlp: Mlp | Mixture
    pre_attention: Norm | None
    post_attention: Norm | None
    pre_mlp: Norm | None
    post_mlp: Norm | None
    parallel: bool = False
    scale: float = 1.0


@dataclass(frozen=True)
class Net:
    """A whole model. The residual starts as ``embed[id] * embed_scale``, normed where there is an ``embed_norm``, plus
    ``positions[p]`` where there are any.

    ``runs`` holds what ``node.forward`` computed of prompts without any patch: many experiments share a prompt.
    """

    embed: Tensor
    embed_scale: float
    positions: Tensor | None
    layers: list[Layer]
    final_norm: Norm
    unembed: Tensor
    unembed_bias: Tensor
    final_softcap: float | None = None
    logit_scale: float = 1.0
    embed_norm: Norm | None = None
    runs: dict[tuple[int, ...], Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def d_model(self) -> int:
        return self.embed.shape[1]

    def start(self, ids: list[int]) -> Tensor:
        """The residual stream before the first block, ``[positions, d_model]``."""
        rows = self.embed[ids] * self.embed_scale
        rows = rows if self.embed_norm is None else self.embed_norm(rows)
        return rows if self.positions is None else rows + self.positions[: len(ids)]

    def finish(self, resid: Tensor) -> Tensor:
        """The logits of a final residual stream."""
        logits = (self.final_norm(resid) @ self.unembed + self.unembed_bias) * self.logit_scale
        if self.final_softcap is not None:
            logits = self.final_softcap * torch.tanh(logits / self.final_softcap)
        return logits


# ---------------------------------------------------------------------------------------------------- activations


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU in its tanh approximation (``gelu_new``, ``gelu_pytorch_tanh``)."""
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def gelu_erf(x: Tensor) -> Tensor:
    """GELU by the error function."""
    return 0.5 * x * (1.0 + torch.erf(x / math.sqrt(2.0)))


def silu(x: Tensor) -> Tensor:
    """``x * sigmoid(x)``."""
    return x / (1.0 + torch.exp(-x))


def relu(x: Tensor) -> Tensor:
    """``max(x, 0)``."""
    return torch.where(x > 0, x, torch.zeros_like(x))


def relu_squared(x: Tensor) -> Tensor:
    """``max(x, 0) ** 2``."""
    return relu(x) ** 2


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "gelu": gelu_erf,
    "silu": silu,
    "relu": relu,
    "relu2": relu_squared,
}


# -------------------------------------------------------------------------------------------------- reading helpers


def _f64(tensor: Tensor) -> Tensor:
    return tensor.detach().to(dtype=torch.float64, device="cpu")


def _matrix(linear: Any) -> Tensor:
    """The ``[in, out]`` matrix of an ``nn.Linear``."""
    return _f64(linear.weight).T


def _bias(linear: Any, width: int) -> Tensor:
    """The bias, zeros where there is none."""
    bias = getattr(linear, "bias", None)
    return torch.zeros(width, dtype=torch.float64) if bias is None else _f64(bias)


def _norm(module: Any, one_plus: bool = False) -> Norm:
    """A layer norm when the module has a bias, else an RMS norm."""
    weight = _f64(module.weight)
    bias = getattr(module, "bias", None)
    eps = next(float(getattr(module, n)) for n in ("variance_epsilon", "eps") if hasattr(module, n))
    return Norm(1.0 + weight if one_plus else weight, None if bias is None else _f64(bias), eps)


def _columns(matrix: Tensor, heads: int, d_head: int) -> Tensor:
    """Split the columns of ``[d_model, heads * d_head]`` by head: ``[heads, d_model, d_head]``."""
    return torch.stack([matrix[:, h * d_head : (h + 1) * d_head] for h in range(heads)])


def _rows(matrix: Tensor, heads: int, d_head: int) -> Tensor:
    """Split the rows of ``[heads * d_head, d_model]`` by head: ``[heads, d_head, d_model]``."""
    return torch.stack([matrix[h * d_head : (h + 1) * d_head] for h in range(heads)])


def _pieces(vector: Tensor, heads: int, d_head: int) -> Tensor:
    """Split ``[heads * d_head]`` by head: ``[heads, d_head]``."""
    return torch.stack([vector[h * d_head : (h + 1) * d_head] for h in range(heads)])


def inverse_frequencies(theta: float, rotary_dims: int) -> Tensor:
    """``theta ** (-2 i / rotary_dims)`` for i in 0 .. rotary_dims / 2, in float64."""
    return torch.tensor([theta ** (-2.0 * i / rotary_dims) for i in range(rotary_dims // 2)], dtype=torch.float64)


def rope_parameters(config: Any, layer_type: str | None = None) -> tuple[float, float]:
    """``(theta, fraction of each head that is rotated)`` from a configuration, for one layer type where they differ.

    How a stretched one differs is in ``scaled_rope``.
    """
    parameters = getattr(config, "rope_parameters", None)
    if isinstance(parameters, dict) and layer_type in parameters:
        parameters = parameters[layer_type]
    if not isinstance(parameters, dict):  # releases before 5 kept the numbers on the configuration itself
        scaling = getattr(config, "rope_scaling", None) or {}
        local = layer_type == "sliding_attention" and getattr(config, "rope_local_base_freq", None) is not None
        parameters = {
            "rope_type": scaling.get("rope_type", scaling.get("type", "default")),
            "rope_theta": config.rope_local_base_freq if local else getattr(config, "rope_theta", None),
            "partial_rotary_factor": getattr(config, "rotary_pct", getattr(config, "partial_rotary_factor", 1.0)),
        }
        if parameters["rope_theta"] is None:
            parameters["rope_theta"] = config.rotary_emb_base
    return float(parameters["rope_theta"]), float(parameters.get("partial_rotary_factor", 1.0))


def _rope(config: Any, d_head: int, layer_type: str | None = None) -> Tensor:
    theta, fraction = rope_parameters(config, layer_type)
    said = scaled_rope.said_of(config, layer_type)
    plain = inverse_frequencies(theta, int(d_head * fraction))
    return scaled_rope.stretched(plain, said, scaled_rope.original_length(config, said)) if said else plain


def _with_rope_scale(net: Net, config: Any) -> Net:
    """The same with what a stretched rotary embedding multiplies queries and keys by; one for all layers."""
    said = scaled_rope.said_of(config)
    original = scaled_rope.original_length(config, said) if said else 1
    scale = scaled_rope.multiplier(said, original, getattr(config, "max_position_embeddings", 1))
    if scale == 1:
        return net
    return replace(net, layers=[_with_scale(layer, scale) for layer in net.layers])


def _with_scale(layer: Layer, scale: float) -> Layer:
    assert isinstance(layer.attention, Attention)
    return replace(layer, attention=replace(layer.attention, rope_scale=scale))


# --------------------------------------------------------------------------------------------------------- families


def read_gpt2(model: Any) -> Net:
    """GPT-2: learned positions, layer norms, a fused qkv, every projection stored ``[in, out]``."""
    config, body = model.config, model.transformer
    heads, d_model = config.n_head, config.n_embd
    d_head = d_model // heads
    layers = []
    for index, block in enumerate(body.h):
        wq, wk, wv = torch.chunk(_f64(block.attn.c_attn.weight), 3, dim=1)
        bq, bk, bv = torch.chunk(_f64(block.attn.c_attn.bias), 3)
        scale = d_head**-0.5 if config.scale_attn_weights else 1.0
        if config.scale_attn_by_inverse_layer_idx:
            scale /= index + 1
        attention = Attention(
            wq=_columns(wq, heads, d_head),
            bq=_pieces(bq, heads, d_head),
            wk=_columns(wk, heads, d_head),
            bk=_pieces(bk, heads, d_head),
            wv=_columns(wv, heads, d_head),
            bv=_pieces(bv, heads, d_head),
            wo=_rows(_f64(block.attn.c_proj.weight), heads, d_head),
            bo=_f64(block.attn.c_proj.bias),
            scale=scale,
        )
        mlp = Mlp(
            w_in=_f64(block.mlp.c_fc.weight),
            b_in=_f64(block.mlp.c_fc.bias),
            w_out=_f64(block.mlp.c_proj.weight),
            b_out=_f64(block.mlp.c_proj.bias),
            act=ACTIVATIONS[config.activation_function],
        )
        layers.append(Layer(attention, mlp, _norm(block.ln_1), None, _norm(block.ln_2), None))
    return Net(
        embed=_f64(body.wte.weight),
        embed_scale=1.0,
        positions=_f64(body.wpe.weight),
        layers=layers,
        final_norm=_norm(body.ln_f),
        unembed=_matrix(model.lm_head),
        unembed_bias=_bias(model.lm_head, config.vocab_size),
    )


def _head_dim(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _gated(module: Any, act: str) -> Mlp:
    """A gated MLP with separate gate and up projections."""
    width, d_model = module.down_proj.weight.shape[1], module.down_proj.weight.shape[0]
    return Mlp(
        w_in=_matrix(module.up_proj),
        b_in=_bias(module.up_proj, width),
        w_out=_matrix(module.down_proj),
        b_out=_bias(module.down_proj, d_model),
        act=ACTIVATIONS[act],
        w_gate=_matrix(module.gate_proj),
        b_gate=_bias(module.gate_proj, width),
    )


def _split_attention(module: Any, config: Any, out: Any = None, **extra: Any) -> Attention:
    """An attention block with separate q, k, v and o projections; ``out`` is the last, where it has another name."""
    out = module.o_proj if out is None else out
    heads, kv_heads, d_head = config.num_attention_heads, config.num_key_value_heads, _head_dim(config)
    return Attention(
        wq=_columns(_matrix(module.q_proj), heads, d_head),
        bq=_pieces(_bias(module.q_proj, heads * d_head), heads, d_head),
        wk=_columns(_matrix(module.k_proj), kv_heads, d_head),
        bk=_pieces(_bias(module.k_proj, kv_heads * d_head), kv_heads, d_head),
        wv=_columns(_matrix(module.v_proj), kv_heads, d_head),
        bv=_pieces(_bias(module.v_proj, kv_heads * d_head), kv_heads, d_head),
        wo=_rows(_matrix(out), heads, d_head),
        bo=_bias(out, config.hidden_size),
        **{"scale": d_head**-0.5, **extra},
    )


def _decoder(model: Any, layers: list[Layer], **extra: Any) -> Net:
    """The parts around the blocks, as the Llama-like families name them."""
    one_plus = extra.pop("one_plus", False)
    return Net(
        embed=_f64(model.model.embed_tokens.weight),
        embed_scale=extra.pop("embed_scale", 1.0),
        positions=None,
        layers=layers,
        final_norm=_norm(model.model.norm, one_plus),
        unembed=_matrix(model.lm_head),
        unembed_bias=_bias(model.lm_head, model.config.vocab_size),
        **extra,
    )


def _window(config: Any, index: int) -> int | None:
    """The sliding window of a layer: by layer type where the family has layer types, else the same for all layers."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and kinds[index] != "sliding_attention":
        return None
    window = getattr(config, "sliding_window", None)
    return None if window is None else int(window)


def read_llama(model: Any) -> Net:
    """Llama: rotary positions, RMS norms before each sub-block, grouped-query attention, a gated MLP.

    Also Mistral (a sliding window in every layer), Qwen 2 (q, k and v biases, a window in the upper layers) and Qwen 3
    (q and k norms over each head, before the rotation).
    """
    config = model.config
    layers = []
    for index, block in enumerate(model.model.layers):
        attention = _split_attention(
            block.self_attn,
            config,
            rope=_rope(config, _head_dim(config)),
            window=None if config.model_type == "llama" else _window(config, index),
            q_norm=_norm(block.self_attn.q_norm) if config.model_type == "qwen3" else None,
            k_norm=_norm(block.self_attn.k_norm) if config.model_type == "qwen3" else None,
        )
        mlp = _gated(block.mlp, config.hidden_act)
        norms = _norm(block.input_layernorm), _norm(block.post_attention_layernorm)
        layers.append(Layer(attention, mlp, norms[0], None, norms[1], None))
    return _decoder(model, layers)


def read_gemma(model: Any) -> Net:
    """Gemma 2 and 3: RMS norms by 1 + w before and after each sub-block, embeddings times sqrt(d_model), own scale.

    Gemma 2 caps attention scores and logits; Gemma 3 norms q and k over each head, and its sliding layers have a rotary
    base of their own.
    """
    config = model.config
    third = config.model_type == "gemma3_text"
    layers = []
    for index, block in enumerate(model.model.layers):
        attention = _split_attention(
            block.self_attn,
            config,
            scale=config.query_pre_attn_scalar**-0.5,
            rope=_rope(config, _head_dim(config), config.layer_types[index] if third else None),
            window=_window(config, index),
            q_norm=_norm(block.self_attn.q_norm, one_plus=True) if third else None,
            k_norm=_norm(block.self_attn.k_norm, one_plus=True) if third else None,
            softcap=None if third else config.attn_logit_softcapping,
        )
        layers.append(
            Layer(
                attention,
                _gated(block.mlp, config.hidden_activation),
                pre_attention=_norm(block.input_layernorm, one_plus=True),
                post_attention=_norm(block.post_attention_layernorm, one_plus=True),
                pre_mlp=_norm(block.pre_feedforward_layernorm, one_plus=True),
                post_mlp=_norm(block.post_feedforward_layernorm, one_plus=True),
            )
        )
    return _decoder(
        model,
        layers,
        one_plus=True,
        embed_scale=math.sqrt(config.hidden_size),
        final_softcap=config.final_logit_softcapping,
    )


def read_olmo2(model: Any) -> Net:
    """OLMo 2: no norms before the sub-blocks but after them; q and k norms over all heads together."""
    config = model.config
    layers = []
    for block in model.model.layers:
        attention = _split_attention(
            block.self_attn,
            config,
            rope=_rope(config, _head_dim(config)),
            q_norm=_norm(block.self_attn.q_norm),
            k_norm=_norm(block.self_attn.k_norm),
            norm_across_heads=True,
        )
        norms = _norm(block.post_attention_layernorm), _norm(block.post_feedforward_layernorm)
        layers.append(Layer(attention, _gated(block.mlp, config.hidden_act), None, norms[0], None, norms[1]))
    return _decoder(model, layers)


def read_phi3(model: Any) -> Net:
    """Phi 3: Llama with q, k and v in one matrix and gate and up in another, part of each head rotated, a window."""
    config = model.config
    heads, kv_heads, d_head = config.num_attention_heads, config.num_key_value_heads, _head_dim(config)
    layers = []
    for index, block in enumerate(model.model.layers):
        qkv = _matrix(block.self_attn.qkv_proj)
        sizes = [heads * d_head, kv_heads * d_head]
        gate_up = _matrix(block.mlp.gate_up_proj)
        width, d_model = gate_up.shape[1] // 2, gate_up.shape[0]
        attention = Attention(
            wq=_columns(qkv[:, : sizes[0]], heads, d_head),
            bq=torch.zeros(heads, d_head, dtype=torch.float64),
            wk=_columns(qkv[:, sizes[0] : sizes[0] + sizes[1]], kv_heads, d_head),
            bk=torch.zeros(kv_heads, d_head, dtype=torch.float64),
            wv=_columns(qkv[:, sizes[0] + sizes[1] :], kv_heads, d_head),
            bv=torch.zeros(kv_heads, d_head, dtype=torch.float64),
            wo=_rows(_matrix(block.self_attn.o_proj), heads, d_head),
            bo=torch.zeros(d_model, dtype=torch.float64),
            scale=d_head**-0.5,
            rope=_rope(config, d_head),
            window=_window(config, index),
        )
        mlp = Mlp(
            w_in=gate_up[:, width:],
            b_in=torch.zeros(width, dtype=torch.float64),
            w_out=_matrix(block.mlp.down_proj),
            b_out=torch.zeros(d_model, dtype=torch.float64),
            act=ACTIVATIONS[config.hidden_act],
            w_gate=gate_up[:, :width],
            b_gate=torch.zeros(width, dtype=torch.float64),
        )
        norms = _norm(block.input_layernorm), _norm(block.post_attention_layernorm)
        layers.append(Layer(attention, mlp, norms[0], None, norms[1], None))
    return _decoder(model, layers)


def read_gpt_neox(model: Any) -> Net:
    """GPT-NeoX: attention and MLP in parallel (or not), part of each head rotated, q, k and v interleaved by head."""
    config, body = model.config, model.gpt_neox
    heads, d_model = config.num_attention_heads, config.hidden_size
    d_head = d_model // heads
    layers = []
    for block in body.layers:
        fused = _columns(_matrix(block.attention.query_key_value), heads, 3 * d_head)
        bias = _pieces(_bias(block.attention.query_key_value, 3 * d_model), heads, 3 * d_head)
        attention = Attention(
            wq=fused[:, :, :d_head],
            bq=bias[:, :d_head],
            wk=fused[:, :, d_head : 2 * d_head],
            bk=bias[:, d_head : 2 * d_head],
            wv=fused[:, :, 2 * d_head :],
            bv=bias[:, 2 * d_head :],
            wo=_rows(_matrix(block.attention.dense), heads, d_head),
            bo=_bias(block.attention.dense, d_model),
            scale=d_head**-0.5,
            rope=_rope(config, d_head),
        )
        mlp = Mlp(
            w_in=_matrix(block.mlp.dense_h_to_4h),
            b_in=_bias(block.mlp.dense_h_to_4h, config.intermediate_size),
            w_out=_matrix(block.mlp.dense_4h_to_h),
            b_out=_bias(block.mlp.dense_4h_to_h, d_model),
            act=ACTIVATIONS[config.hidden_act],
        )
        norms = _norm(block.input_layernorm), _norm(block.post_attention_layernorm)
        layers.append(Layer(attention, mlp, norms[0], None, norms[1], None, parallel=config.use_parallel_residual))
    head = getattr(model, "embed_out", None) or model.lm_head
    return Net(
        embed=_f64(body.embed_in.weight),
        embed_scale=1.0,
        positions=None,
        layers=layers,
        final_norm=_norm(body.final_layer_norm),
        unembed=_matrix(head),
        unembed_bias=_bias(head, config.vocab_size),
    )


FAMILIES: dict[str, Callable[[Any], Net]] = {
    "gpt2": read_gpt2,
    "gpt_neox": read_gpt_neox,
    "llama": read_llama,
    "mistral": read_llama,
    "qwen2": read_llama,
    "qwen3": read_llama,
    "gemma2": read_gemma,
    "gemma3_text": read_gemma,
    "olmo2": read_olmo2,
    "phi3": read_phi3,
}


def readers() -> dict[str, Callable[[Any], Net]]:
    """The readers of all families, by ``config.model_type``."""
    from . import dense_families, expert_families, special_heads, stream_families  # written with what is above

    further = dense_families.FAMILIES, expert_families.READERS, special_heads.READERS, stream_families.READERS
    return FAMILIES | {name: reader for own in further for name, reader in own.items()}


_NETS: weakref.WeakKeyDictionary[nn.Module, tuple[list[tuple[Tensor, int]], Net]] = weakref.WeakKeyDictionary()
"""What was read of a model, with the weights it had then and how often each had been written to."""


def read(model: nn.Module | Net) -> Net:
    """The ``Net`` of a model of a known family; a ``Net`` is returned as it is. Read once, unless weights changed."""
    if isinstance(model, Net):
        return model
    kind = str(model.config.model_type)  # type: ignore[union-attr]
    known = readers()
    if kind not in known:
        raise NotImplementedError(f"no explicit forward pass for the family {kind!r}")
    weights = [(weight, weight._version) for weight in model.parameters()]
    then, net = _NETS.get(model, ([], None))
    same = len(then) == len(weights) and all(a is b and m == n for (a, m), (b, n) in zip(then, weights, strict=True))
    if net is None or not same:
        net = _with_rope_scale(known[kind](model), model.config)
        _NETS[model] = weights, net
    return net
