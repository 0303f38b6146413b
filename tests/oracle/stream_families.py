"""Families whose residual stream is no plain sum: Gemma 4 and Gemma 3n, read and run layer by layer.

Both give each layer inputs of its own, made of the tokens (``own_inputs``), and let later layers read keys and values
of earlier ones. Gemma 4 multiplies the stream by a number at the end of every block; Gemma 3n has several streams, of
which each block predicts all, computes on one, and corrects all by what came of it (AltUp, arXiv:2301.13310), with a
low-rank branch beside its attention (LAuReL, arXiv:2411.07501).

A component is named as in ``node.py``; of Gemma 3n there are no residual streams and no input.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from .families import Mlp, Net, Norm, _bias, _columns, _f64, _gated, _matrix, _pieces, _rows, gelu_tanh


@dataclass(frozen=True)
class StreamAttention:
    """Attention whose keys and values are its own or, where it has no ``wk``, those of the layer ``source``."""

    wq: Tensor  # [heads, d_model, d_head]
    bq: Tensor
    wo: Tensor  # [heads, d_head, d_model]
    bo: Tensor
    q_norm: Norm
    source: int
    rope: Tensor  # an angle for each pair of entries i and i + half; zero: not rotated
    kv_heads: int
    window: int | None
    wk: Tensor | None = None
    bk: Tensor | None = None
    wv: Tensor | None = None
    bv: Tensor | None = None
    k_norm: Norm | None = None
    v_eps: float = 0.0

    @property
    def heads(self) -> int:
        return self.wq.shape[0]


@dataclass(frozen=True)
class StreamLayer:
    """One block: norms before and after its parts, and what it makes of its own inputs."""

    attention: StreamAttention
    mlp: Mlp
    sparsity: float
    pre_attention: Norm
    post_attention: Norm
    pre_mlp: Norm
    post_mlp: Norm
    gate: Tensor
    project: Tensor
    post_inputs: Norm
    scalar: float = 1.0
    laurel: tuple[Tensor, Tensor, Norm] | None = None
    altup: AltUp | None = None


@dataclass(frozen=True)
class AltUp:
    """Coefficients by which the streams are predicted and corrected, read from the one that is ``active``."""

    router_norm: Norm
    router: Tensor
    predict: Tensor
    correct: Tensor
    scale: Tensor
    active: int

    def modalities(self, x: Tensor) -> Tensor:
        return torch.tanh((self.router_norm(x) / x.shape[-1]) @ self.router)

    def predicted(self, streams: Tensor) -> Tensor:
        """``[streams, positions, d_model]``: each of them and a mixture of all."""
        n = streams.shape[0]
        mixing = (self.modalities(streams[self.active]) @ self.predict).view(-1, n, n)  # [positions, to, from]
        return streams + torch.einsum("pij,jpd->ipd", mixing, streams)

    def corrected(self, predicted: Tensor, activated: Tensor) -> Tensor:
        news = activated - predicted[self.active]
        weights = self.modalities(activated) @ self.correct + 1.0  # [positions, streams]
        return predicted + weights.T[:, :, None] * news


@dataclass(frozen=True)
class StreamNet(Net):
    """A whole model: beside a ``Net``'s parts, what each layer's own inputs are made of."""

    own_embed: Tensor = field(default_factory=lambda: torch.empty(0))
    own_project: Tensor = field(default_factory=lambda: torch.empty(0))
    own_norm: Norm | None = None
    expand: tuple[Tensor, ...] = ()  # what makes further streams of the first, and what takes them back
    reduce: tuple[Tensor, ...] = ()

    def own_inputs(self, ids: Sequence[int], start: Tensor) -> Tensor:
        """``[positions, layers, width]``: of the token by a table of its own, and of its embedding."""
        layers = len(self.layers)
        table = self.own_embed[list(ids)].view(len(ids), layers, -1)
        table = table * math.sqrt(table.shape[-1])
        projected = (start @ self.own_project / math.sqrt(start.shape[-1])).view(len(ids), layers, -1)
        assert self.own_norm is not None
        return (self.own_norm(projected) + table) / math.sqrt(2.0)

    def computed(
        self,
        ids: Sequence[int],
        patches: Mapping[tuple[tuple[Any, ...], int], Tensor] | None,
        shifts: Tensor | None = None,
    ) -> Any:
        """A run of one prompt, as ``node.Run``; ``shifts`` are added to the token embeddings."""
        from . import node

        put = node._Overrides(patches)
        run = node.Run(torch.empty(0))
        start = self.start(list(ids))
        start = start if shifts is None else start + shifts
        own = self.own_inputs(ids, start)
        keys: dict[int, tuple[Tensor, Tensor]] = {}
        if not self.expand:
            x = put(("input",), start)
            run.values["input",] = x
            for index, layer in enumerate(self.layers):
                x = put(("resid", index, "pre"), x)
                run.values["resid", index, "pre"] = x
                x = self._middle(layer, index, x, x, keys, put, run)  # type: ignore[arg-type]
                x = put(("resid", index, "mid"), x)
                run.values["resid", index, "mid"] = x
                x = x + self._mlp(layer, index, x, put, run)  # type: ignore[arg-type]
                x = (x + self._inputs(layer, x, own[:, index])) * layer.scalar  # type: ignore[arg-type, attr-defined]
            final = ("resid", len(self.layers), "pre")
            x = put(final, x)
            run.values[final] = x
        else:
            streams = self._expanded(start)
            for index, layer in enumerate(self.layers):
                altup = layer.altup  # type: ignore[attr-defined]
                predicted = altup.predicted(streams)
                active = predicted[altup.active]
                middle = self._middle(layer, index, active, active, keys, put, run)  # type: ignore[arg-type]
                streams = altup.corrected(predicted, middle + self._mlp(layer, index, middle, put, run))  # type: ignore[arg-type]
                added = self._inputs(layer, streams[altup.active] * altup.scale, own[:, index])  # type: ignore[arg-type]
                streams = torch.cat([streams[:1], streams[1:] + added])
            x = self._reduced(streams)
        put.finish()
        return node.Run(self.finish(x), run.values, run.reads, run.patterns)

    def _expanded(self, start: Tensor) -> Tensor:
        return torch.stack([start, *(_as_large(start @ matrix, start) for matrix in self.expand)])

    def _reduced(self, streams: Tensor) -> Tensor:
        first, *others = streams
        back = [_as_large(one @ matrix, first) for one, matrix in zip(others, self.reduce, strict=True)]
        return torch.stack([first, *back]).mean(0)

    def _middle(
        self,
        layer: StreamLayer,
        index: int,
        x: Tensor,
        entering: Tensor,
        keys: dict[int, tuple[Tensor, Tensor]],
        put: Any,
        run: Any,
    ) -> Tensor:
        """The stream after the attention (and after the low-rank branch beside it)."""
        normed = layer.pre_attention(entering)
        z = _attend(layer.attention, index, normed, keys, put, run)
        given = []
        for h, one in enumerate(z):
            one = put(("head", index, h), one)
            run.values["head", index, h] = one
            given.append(one @ layer.attention.wo[h])
        out = put(("attn", index), torch.stack(given).sum(0) + layer.attention.bo)
        run.values["attn", index] = out
        x = x + layer.post_attention(out)
        if layer.laurel is None:
            return x
        left, right, norm = layer.laurel
        return (x + normed + norm(normed @ left @ right)) / math.sqrt(2.0)

    def _mlp(self, layer: StreamLayer, index: int, x: Tensor, put: Any, run: Any) -> Tensor:
        """What the MLP adds."""
        entering = layer.pre_mlp(x)
        neurons = _sparse(layer.mlp, entering, layer.sparsity)
        neurons = put.each("neuron", index, neurons.T[..., None])[..., 0].T
        run.values.update({("neuron", index, i): one for i, one in enumerate(neurons.split(1, dim=1))})
        out = put(("mlp", index), neurons @ layer.mlp.w_out + layer.mlp.b_out)
        run.values["mlp", index] = out
        return layer.post_mlp(out)

    def _inputs(self, layer: StreamLayer, x: Tensor, own: Tensor) -> Tensor:
        """What the layer's own inputs add."""
        return layer.post_inputs((gelu_tanh(x @ layer.gate) * own) @ layer.project)


def _as_large(x: Tensor, like: Tensor) -> Tensor:
    """With the root mean square of another."""
    return x * torch.sqrt((like * like).mean(-1, keepdim=True)) / torch.sqrt((x * x).mean(-1, keepdim=True))


def _sparse(mlp: Mlp, x: Tensor, sparsity: float) -> Tensor:
    """The neurons; where there is a sparsity, of the gates above the quantile that a normal distribution would have."""
    if not sparsity:
        return mlp.hidden(x)
    assert mlp.w_gate is not None
    gates = x @ mlp.w_gate + mlp.b_gate
    mean = gates.mean(-1, keepdim=True)
    spread = torch.sqrt(((gates - mean) ** 2).mean(-1, keepdim=True))
    above = (gates - mean - spread * NormalDist().inv_cdf(sparsity)).clamp(min=0.0)
    return mlp.act(above) * (x @ mlp.w_in + mlp.b_in)


def _attend(
    att: StreamAttention, index: int, x: Tensor, keys: dict[int, tuple[Tensor, Tensor]], put: Any, run: Any
) -> Tensor:
    """``[heads, positions, d_head]``"""
    n = x.shape[0]
    q = _turned(att.q_norm(torch.einsum("pm,hmd->hpd", x, att.wq) + att.bq[:, None]), att.rope)
    if att.wk is not None and att.wv is not None and att.k_norm is not None:
        assert att.bk is not None
        assert att.bv is not None
        k = torch.einsum("pm,hmd->hpd", x, att.wk) + att.bk[:, None]
        v = torch.einsum("pm,hmd->hpd", x, att.wv) + att.bv[:, None]
        both = put.each("kv", index, torch.cat([k, v], dim=2))
        run.values.update({("kv", index, g): one for g, one in enumerate(both)})
        k, v = both.chunk(2, dim=2)
        v = v / torch.sqrt((v * v).mean(-1, keepdim=True) + att.v_eps)
        keys[index] = _turned(att.k_norm(k), att.rope), v
    k, v = keys[att.source]
    group = att.heads // att.kv_heads
    zs = []
    for h in range(att.heads):
        scores = q[h] @ k[h // group].T  # not scaled: norms of queries and keys have learned that
        for i in range(n):
            for j in range(n):
                if j > i or (att.window is not None and j <= i - att.window):
                    scores[i, j] = -torch.inf
        zs.append(torch.softmax(scores, dim=-1) @ v[h // group])
    return torch.stack(zs)


def _turned(x: Tensor, rope: Tensor) -> Tensor:
    """``[heads, positions, d_head]`` with entries i and i + half turned by the position times the i-th angle."""
    half = x.shape[-1] // 2
    angles = torch.arange(x.shape[1], dtype=torch.float64)[:, None] * rope
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], dim=-1)


# ------------------------------------------------------------------------------------------------------------ reading


def _rms(module: Any) -> Norm:
    """By the weight itself, not by one more than it as in earlier Gemmas."""
    return Norm(_f64(module.weight), None, float(module.eps))


def angles(config: Any, kind: str, d_head: int) -> Tensor:
    """By which a layer of this type turns each pair of entries, a position; those beyond the turned part by zero."""
    said = config.rope_parameters[kind]
    theta = float(said["rope_theta"])
    turned = d_head // 2
    if said["rope_type"] == "proportional":
        turned = int(said.get("partial_rotary_factor", 1.0) * d_head // 2)
    elif said["rope_type"] != "default":
        raise NotImplementedError(f"rope type {said['rope_type']!r}")
    return torch.tensor(
        [theta ** (-2.0 * i / d_head) if i < turned else 0.0 for i in range(d_head // 2)], dtype=torch.float64
    )


def _shared(config: Any) -> list[int]:
    """For each layer the one whose keys and values it reads: of the last layers, the last of their type before them."""
    kinds = list(config.layer_types)
    first = len(kinds) - config.num_kv_shared_layers
    return [i if i < first else max(j for j in range(first) if kinds[j] == kind) for i, kind in enumerate(kinds)]


def _attention(module: Any, config: Any, index: int, source: int) -> StreamAttention:
    heads, kind = config.num_attention_heads, config.layer_types[index]
    d_head = module.o_proj.weight.shape[1] // heads
    kv_heads = config.num_key_value_heads
    own: dict[str, Any] = {}
    if source == index:
        own = {
            "wk": _columns(_matrix(module.k_proj), kv_heads, d_head),
            "bk": _pieces(_bias(module.k_proj, kv_heads * d_head), kv_heads, d_head),
            "wv": _columns(_matrix(module.v_proj), kv_heads, d_head),
            "bv": _pieces(_bias(module.v_proj, kv_heads * d_head), kv_heads, d_head),
            "k_norm": _rms(module.k_norm),
            "v_eps": float(module.v_norm.eps),
        }
    return StreamAttention(
        wq=_columns(_matrix(module.q_proj), heads, d_head),
        bq=_pieces(_bias(module.q_proj, heads * d_head), heads, d_head),
        wo=_rows(_matrix(module.o_proj), heads, d_head),
        bo=_bias(module.o_proj, config.hidden_size),
        q_norm=_rms(module.q_norm),
        source=source,
        rope=angles(config, kind, d_head),
        kv_heads=kv_heads,
        window=config.sliding_window if kind == "sliding_attention" else None,
        **own,
    )


def read_streams(model: Any) -> StreamNet:
    """Gemma 4 or Gemma 3n."""
    config, body = model.config, model.model
    several = config.model_type == "gemma3n_text"
    layers = []
    for index, (block, source) in enumerate(zip(body.layers, _shared(config), strict=True)):
        more: dict[str, Any] = {}
        if several:
            laurel, altup = block.laurel, block.altup
            more["laurel"] = _matrix(laurel.linear_left), _matrix(laurel.linear_right), _rms(laurel.post_laurel_norm)
            more["altup"] = AltUp(
                _rms(altup.router_norm),
                _matrix(altup.modality_router),
                _matrix(altup.prediction_coefs),
                _matrix(altup.correction_coefs),
                _f64(altup.correct_output_scale) if config.altup_correct_scale else torch.ones(1, dtype=torch.float64),
                config.altup_active_idx,
            )
        else:
            more["scalar"] = float(block.layer_scalar)
        layers.append(
            StreamLayer(
                _attention(block.self_attn, config, index, source),
                _gated(block.mlp, config.hidden_activation),
                config.activation_sparsity_pattern[index] if several else 0.0,
                _rms(block.input_layernorm),
                _rms(block.post_attention_layernorm),
                _rms(block.pre_feedforward_layernorm),
                _rms(block.post_feedforward_layernorm),
                _matrix(block.per_layer_input_gate),
                _matrix(block.per_layer_projection),
                _rms(block.post_per_layer_input_norm),
                **more,
            )
        )
    return StreamNet(
        embed=_f64(body.embed_tokens.weight),
        embed_scale=math.sqrt(config.hidden_size),
        positions=None,
        layers=layers,  # type: ignore[arg-type]
        final_norm=_rms(body.norm),
        unembed=_matrix(model.lm_head),
        unembed_bias=_bias(model.lm_head, config.vocab_size),
        final_softcap=config.final_logit_softcapping,
        own_embed=_f64(body.embed_tokens_per_layer.weight),
        own_project=_matrix(body.per_layer_model_projection),
        own_norm=_rms(body.per_layer_projection_norm),
        expand=tuple(map(_matrix, body.altup_projections)) if several else (),
        reduce=tuple(map(_matrix, body.altup_unembed_projections)) if several else (),
    )


READERS = {"gemma3n_text": read_streams, "gemma4_text": read_streams}
