"""Node-level patching by an explicit forward pass: the reference.

One prompt at a time, float64, everything written out from the weights (see ``families.py``); no hooks and nothing of
``transformers`` in the forward pass. A *component* is a tuple:

- ``("head", layer, h)``: a query head's slice of the attention output projection's input (z), ``[d_head]``
- ``("pattern", layer, h)``: a query head's attention, the weights of all positions, ``[positions]``
- ``("mixer", layer)``: the output of what mixes tokens in place of heads, ``[d_model]``
- ``("mlp", layer)``: the output of the MLP (before a post-norm, where the family has one), ``[d_model]``
- ``("neuron", layer, i)``: its entry of the input of the MLP's output projection (gate times up when gated), ``[1]``
- ``("expert", layer, e)``: what an expert of a mixture adds: its output times its weight, zero where it is not chosen;
  ``("shared", layer)``: what the expert adds that serves every token
- ``("expert_neuron", layer, e, i)``: entry i of the input of expert e's output projection, times the expert's weight
  (so zero where it is not chosen); ``("shared_neuron", layer, i)``: of the expert that serves every token, ``[1]``
- ``("routing", layer)``: the weights of all experts of a mixture, zero for those not chosen, ``[experts]``
- ``("attn", layer)``: the output of the attention output projection, its bias included (before a post-norm)
- ``("kv", layer, g)``: key-value head g's key and value projections, ``[k ; v]``, before q/k norm and rotation
- ``("head_added", layer, h)``: what a head adds to the residual stream, ``[d_model]``: ``z @ wo``, and under a
  post-norm that times weight / rms, with the rms of the whole attention output (``head_shares``)
- ``("mixer_added", layer)``: what a mixer adds to the residual stream
- ``("mlp_added", layer)``: what the MLP adds to the residual stream: its output after the post-norm, if there is one
- ``("resid", layer, "pre")``: the input of the block; ``layer`` may be the number of layers: the final residual
- ``("resid", layer, "mid")``: the residual between attention and MLP; sequential blocks only
- ``("input",)``: the residual before the first block: token embedding, scaled, plus position embedding

Patching ``(component, position)`` replaces the component's value at that position; everything later is recomputed. When
patched components contain one another (a head and its attention block), the one computed last has the last word. Once
a ``head_added`` of a layer is patched, the layer's attention adds the sum of these (and the output bias).
A *site* is a pair ``(component, position)``; positions count from 0.

A *receiver* is a place that reads the residual stream: ``("q", layer, h)``, ``("k", layer, g)``, ``("v", layer, g)``
with g a key-value head, ``("mixer_in", layer)``, ``("mlp_in", layer)``, ``("final",)``. ``reads`` overrides what a
receiver reads at a position: the residual vector *before* the receiver's norm.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from . import families
from .families import Attention, Difference, LatentAttention, Layer, Mixing, Mixture, Net, Norm
from .metrics import Array, columns, metrics, recovered
from .stream_families import StreamNet

Component: TypeAlias = tuple[Any, ...]
Receiver: TypeAlias = tuple[Any, ...]
Site: TypeAlias = tuple[Component, int]
Values: TypeAlias = Mapping[Component, Tensor]

__all__ = [
    "Component",
    "Net",
    "Prompt",
    "Receiver",
    "Result",
    "Run",
    "Site",
    "Values",
    "anchors",
    "attend",
    "columns",
    "denoise",
    "forward",
    "head_shares",
    "mean_values",
    "mean_values_per_template",
    "metrics",
    "necessary",
    "nodes",
    "noise",
    "recovered",
    "resample_values",
    "restore",
    "shares_a_norm",
    "sufficient",
    "written",
    "zero_values",
]


@dataclass(frozen=True)
class Run:
    """One forward pass.

    ``logits`` is ``[positions, vocab]``. With ``record``, ``values`` holds every component's value as it was used
    (after patching), ``[positions, width]``; ``reads`` what every receiver read (before its norm), ``[positions,
    d_model]``; and ``patterns`` each head's attention, ``[query position, key position]``, by ``(layer, head)``.
    """

    logits: Tensor
    values: dict[Component, Tensor] = field(default_factory=dict)
    reads: dict[Receiver, Tensor] = field(default_factory=dict)
    patterns: dict[tuple[int, int], Tensor] = field(default_factory=dict)


# ---------------------------------------------------------------------------------------------------- forward pass

KEPT = 200  # runs of a net without patches


class _Overrides:
    """Replacements by (name, position): applied where the name comes up, and checked to have been used at the end."""

    def __init__(self, given: Mapping[tuple[tuple[Any, ...], int], Tensor] | None) -> None:
        self.given = dict(given or {})
        self.names = {name for name, _ in self.given}
        self.kinds = {name[:2] for name in self.names}
        self.unused = set(self.given)

    def __call__(self, name: tuple[Any, ...], value: Tensor) -> Tensor:
        """``value`` (``[positions, width]``) with the rows given for ``name`` replaced."""
        if name not in self.names:
            return value
        value = value.clone()
        for position in range(value.shape[0]):
            if (name, position) in self.given:
                row = torch.as_tensor(self.given[name, position], dtype=torch.float64)
                if row.shape != value[position].shape:
                    raise ValueError(f"{name} is {tuple(value[position].shape)} wide, not {tuple(row.shape)}")
                value[position] = row
                self.unused.discard((name, position))
        return value

    def each(self, kind: str, layer: int, values: Tensor) -> Tensor:
        """The same for all components ``(kind, layer, i)``, ``[components, positions, width]``."""
        if (kind, layer) not in self.kinds:
            return values
        return torch.stack([self((kind, layer, i), value) for i, value in enumerate(values)])

    def first_layer(self, layers: int) -> int:
        """The first layer of which anything is replaced; as many as there are layers: after all of them."""
        at = [layers if name == ("final",) else 0 if len(name) == 1 else name[1] for name in self.names]
        return min([layers, *at])

    def finish(self) -> None:
        if self.unused:
            raise ValueError(f"no such place: {sorted(self.unused, key=repr)}")


def _rotate(x: Tensor, rope: Tensor, adjacent: bool, scale: float = 1.0) -> Tensor:
    """Rotate ``[heads, positions, d_head]``: with r rotary dimensions, entry i < r/2 pairs with i + r/2, or entry 2 i
    with 2 i + 1, and both are multiplied by the scale; the rest stays."""
    half = len(rope)
    angles = torch.outer(torch.arange(x.shape[1], dtype=rope.dtype), rope)
    cos, sin = scale * torch.cos(angles), scale * torch.sin(angles)
    if adjacent:
        a, b, rest = x[..., 0 : 2 * half : 2], x[..., 1 : 2 * half : 2], x[..., 2 * half :]
        pairs = torch.stack([a * cos - b * sin, b * cos + a * sin], dim=3)
        return torch.cat([pairs.flatten(2), rest], dim=2)
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], dim=2)


def _qk_norm(x: Tensor, norm: Norm | None, across: bool) -> Tensor:
    """The query or key norm of ``[heads, positions, d_head]``: over each head alone, or over all heads together."""
    if norm is None:
        return x
    if not across:
        return norm(x)
    heads, n, width = x.shape
    return norm(x.transpose(0, 1).reshape(n, heads * width)).reshape(n, heads, width).transpose(0, 1)


def attend(
    block: Attention,
    xq: Sequence[Tensor],
    xk: Sequence[Tensor],
    xv: Sequence[Tensor],
    layer: int = 0,
    put: _Overrides | None = None,
    run: Run | None = None,
) -> list[Tensor]:
    """Every head's z, ``[positions, d_head]``, from (already normed) inputs of its own.

    ``xq[h]`` is what query head h reads, ``xk[g]`` and ``xv[g]`` what key-value head g reads.
    """
    n = xq[0].shape[0]
    latent = isinstance(block, LatentAttention)
    of_keys, of_values = (block.latents, block.latents) if latent else (block.keys, block.values)
    q, k, v = (of(torch.stack(list(x))) for of, x in ((block.queries, xq), (of_keys, xk), (of_values, xv)))
    if put is not None and run is not None:
        both = put.each("kv", layer, torch.cat([k, v], dim=2))
        run.values.update({("kv", layer, g): x for g, x in enumerate(both)})
        k, v = both[..., : k.shape[2]], both[..., k.shape[2] :]
    if latent:
        assert block.rope is not None
        (plain, rotated), v = block.keys_of(k), block.values_of(v)
        width = plain.shape[2]
        k = torch.cat([plain, _rotate(rotated, block.rope, block.rope_adjacent, block.rope_scale)], dim=2)
        q = torch.cat(
            [q[..., :width], _rotate(q[..., width:], block.rope, block.rope_adjacent, block.rope_scale)], dim=2
        )
        block = replace(block, rope=None)
    if not block.norm_after_rope:
        q = _qk_norm(q, block.q_norm, block.norm_across_heads)
        k = _qk_norm(k, block.k_norm, block.norm_across_heads)
    if block.clip is not None:
        q, k, v = (x.clamp(-block.clip, block.clip) for x in (q, k, v))
    if block.difference is not None:
        return _differences(block, block.difference, q, k, v)
    if block.rope is not None:
        q, k = (
            _rotate(q, block.rope, block.rope_adjacent, block.rope_scale),
            _rotate(k, block.rope, block.rope_adjacent, block.rope_scale),
        )
    if block.norm_after_rope:
        q = _qk_norm(q, block.q_norm, block.norm_across_heads)
        k = _qk_norm(k, block.k_norm, block.norm_across_heads)
    seen = torch.ones(n, n, dtype=torch.bool).tril()
    if block.window is not None:
        seen = seen.triu(1 - block.window)
    if block.chunk is not None:
        chunks = torch.arange(n) // block.chunk
        seen &= chunks[:, None] == chunks
    reads_from = [h if latent else h // (block.heads // block.kv_heads) for h in range(block.heads)]
    scores = q @ k[reads_from].transpose(1, 2) * block.scale
    if block.softcap is not None:
        scores = block.softcap * torch.tanh(scores / block.softcap)
    if block.alibi is not None:
        back = torch.arange(n)[:, None] - torch.arange(n)[None, :]
        scores = scores - block.alibi[:, None, None] * back
    scores = scores.masked_fill(~seen, -torch.inf)
    largest = scores.max(2, keepdim=True).values
    weights = torch.exp(scores - largest)
    total = weights.sum(2, keepdim=True)
    if block.sinks is not None:
        total = total + torch.exp(block.sinks[:, None, None] - largest)
    pattern = weights / total
    if put is not None and run is not None:
        pattern = put.each("pattern", layer, pattern)
        run.patterns.update({(layer, h): x for h, x in enumerate(pattern)})
        run.values.update({("pattern", layer, h): x for h, x in enumerate(pattern)})
    return list(pattern @ v[reads_from] * block.gates(torch.stack(list(xq))))


def _differences(block: Attention, of: Difference, q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
    """Every head's z where it takes the difference of two attention maps, each of half of its query and key."""
    assert block.rope is not None
    n = q.shape[1]
    reads_from = [h // (block.heads // block.kv_heads) for h in range(block.heads)]
    maps = []
    for own, key in zip(q.chunk(2, 2), k.chunk(2, 2), strict=True):
        own, key = _rotate(own, block.rope, False, block.rope_scale), _rotate(key, block.rope, False, block.rope_scale)
        scores = own @ key[reads_from].transpose(1, 2) * block.scale
        scores = scores.masked_fill(~torch.ones(n, n, dtype=torch.bool).tril(), -torch.inf)
        maps.append(torch.softmax(scores, 2))
    return list(of.normed((maps[0] - of.by * maps[1]) @ v[reads_from]))


def _normed(norm: Norm | None, x: Tensor) -> Tensor:
    return x if norm is None else norm(x)


def _bias_under_norm(layer: Layer) -> bool:
    norm = layer.post_attention
    return norm is not None and (norm.bias is not None or bool(layer.attention.bo.any()))


def head_shares(layer: Layer, z: Sequence[Tensor]) -> list[Tensor]:
    """What each head adds to the residual, after the post-norm where there is one; none of a mixer."""
    if isinstance(layer.attention, Mixing):
        return []
    raw = torch.stack(list(_normed_together(layer.attention, z))) @ layer.attention.wo
    norm = layer.post_attention
    if norm is None:
        return list(raw * layer.scale)
    if _bias_under_norm(layer):
        raise NotImplementedError("a bias under a post-norm belongs to no head")
    total = raw.sum(0)
    rms = torch.sqrt((total * total).mean(-1, keepdim=True) + norm.eps)
    return list(raw / rms * norm.weight * layer.scale)


def _normed_together(block: Attention, z: Sequence[Tensor]) -> Sequence[Tensor]:
    """What is projected of these heads: themselves, or all of them normed together."""
    norm = block.head_norm
    if norm is None:
        return z
    side_by_side = torch.cat(list(z), dim=-1)
    assert norm.bias is None
    rms = torch.sqrt((side_by_side * side_by_side).mean(-1, keepdim=True) + norm.eps)
    return (side_by_side / rms * norm.weight).split(z[0].shape[-1], dim=-1)


def shares_a_norm(layer: Layer) -> bool:
    """Whether what a head adds hangs on the others, by a norm before or after they are projected."""
    return layer.post_attention is not None or layer.attention.head_norm is not None


def written(net: Net, component: Component) -> Component:
    """A sender as path level freezes and replaces it: in families with post-norms by what it adds to the residual."""
    kind = component[0]
    if kind == "head" and shares_a_norm(net.layers[component[1]]):
        return ("head_added", *component[1:])
    if kind == "mlp" and net.layers[component[1]].post_mlp is not None:
        return ("mlp_added", *component[1:])
    return component


def _block(layer: Layer, index: int, resid: Tensor, put: _Overrides, read: _Overrides, run: Run) -> Tensor:
    """The residual after one block."""
    att = layer.attention

    def reading(receiver: Receiver, x: Tensor) -> Tensor:
        x = read(receiver, x)
        run.reads[receiver] = x
        return x

    def computed(component: Component, x: Tensor) -> Tensor:
        x = put(component, x)
        run.values[component] = x
        return x

    def units(name: Component, x: Tensor) -> Tensor:
        """The same for each channel of ``[positions, width]``, as a component of its own."""
        return torch.cat([computed((*name, i), one) for i, one in enumerate(x.split(1, dim=1))], dim=1)

    resid = computed(("resid", index, "pre"), resid)
    plain = _normed(layer.pre_attention, resid)  # what all read of whose input nothing is replaced

    def normed(port: str, count: int) -> list[Tensor]:
        given = [reading((port, index, i), resid) for i in range(count)]
        return [plain if x is resid else _normed(layer.pre_attention, x) for x in given]

    bias = att.bo.expand(resid.shape[0], -1)
    if isinstance(att, Mixing):
        read_here = reading(("mixer_in", index), resid)
        z, attention_out = [], computed(("mixer", index), att.mix(_normed(layer.pre_attention, read_here)))
    else:
        z = attend(att, normed("q", att.heads), normed("k", att.kv_heads), normed("v", att.kv_heads), index, put, run)
        z = [computed(("head", index, h), z[h]) for h in range(att.heads)]
        attention_out = bias + (torch.stack(list(_normed_together(att, z))) @ att.wo).sum(0)
    attention_out = _normed(layer.post_attention, computed(("attn", index), attention_out)) * layer.scale
    if isinstance(att, Mixing):
        attention_out = computed(("mixer_added", index), attention_out)
    patched = any(("head_added", index, h) in put.names for h in range(att.heads))
    if patched or not _bias_under_norm(layer):
        shares = [computed(("head_added", index, h), x) for h, x in enumerate(head_shares(layer, z))]
        attention_out = bias * layer.scale + torch.stack(shares).sum(0) if patched else attention_out
    before_mlp = resid if layer.parallel else computed(("resid", index, "mid"), resid + attention_out)
    entering = _normed(layer.pre_mlp, reading(("mlp_in", index), before_mlp))
    if isinstance(layer.mlp, Mixture):
        weights = computed(("routing", index), layer.mlp.route(entering))
        neurons = layer.mlp.neurons(entering, weights)
        for e, hidden in enumerate(neurons):
            neurons[e] = units(("expert_neuron", index, e), hidden)
        shared = (
            None if layer.mlp.shared is None else units(("shared_neuron", index), layer.mlp.shared.hidden(entering))
        )
        given = layer.mlp.given(entering, weights, neurons, shared)
        names = [("expert", index, e) for e in range(len(layer.mlp.experts))] + [("shared", index)]
        mlp_out = torch.stack([computed(name, x) for name, x in zip(names, given, strict=False)]).sum(0)
    else:
        neurons = layer.mlp.hidden(entering)
        if neurons.shape[1]:  # of an attention-only model there are none
            neurons = put.each("neuron", index, neurons.T[..., None])[..., 0].T
            run.values.update({("neuron", index, i): x for i, x in enumerate(neurons.split(1, dim=1))})
        mlp_out = layer.mlp.projected(neurons)
    mlp_out = _normed(layer.post_mlp, computed(("mlp", index), mlp_out)) * layer.scale
    mlp_out = computed(("mlp_added", index), mlp_out)
    return before_mlp + mlp_out + (attention_out if layer.parallel else 0.0)


@torch.no_grad()
def forward(
    model: Any,
    ids: Sequence[int],
    patches: Mapping[Site, Tensor] | None = None,
    record: bool = False,
    reads: Mapping[tuple[Receiver, int], Tensor] | None = None,
) -> Run:
    """Run a model (or a ``Net``) on one prompt with patches: each replaces a component's value at a position.

    A patch or a read for a place that does not exist is a ``ValueError``.
    """
    net = families.read(model)
    if patches or reads:
        run = _run(net, ids, patches, reads)
    elif tuple(ids) in net.runs:
        run = net.runs[tuple(ids)]
    else:
        if len(net.runs) == KEPT:
            net.runs.clear()
        run = net.runs[tuple(ids)] = _run(net, ids, None, None)
    return Run(run.logits, dict(run.values), dict(run.reads), dict(run.patterns)) if record else Run(run.logits)


def _run(
    net: Net,
    ids: Sequence[int],
    patches: Mapping[Site, Tensor] | None,
    reads: Mapping[tuple[Receiver, int], Tensor] | None,
) -> Run:
    """A run; what comes before the first layer of which anything is replaced is taken from the run without patches."""
    if isinstance(net, StreamNet):
        assert not reads, "where the stream is no plain sum, nothing is read apart"
        computed: Run = net.computed(ids, patches)
        return computed
    put, read = _Overrides(patches), _Overrides(reads)
    layers = len(net.layers)
    first = min(put.first_layer(layers), read.first_layer(layers)) if put.names or read.names else 0
    if first:
        run = forward(net, ids, record=True)
        resid = run.values["resid", first, "pre"]
    else:
        run = Run(torch.empty(0))
        resid = put(("input",), net.start(list(ids)))
        run.values["input",] = resid
    for index in range(first, layers):
        resid = _block(net.layers[index], index, resid, put, read, run)
    final = ("resid", layers, "pre")
    resid = put(final, resid)
    run.values[final] = resid
    resid = read(("final",), resid)
    run.reads["final",] = resid
    put.finish()
    read.finish()
    return Run(net.finish(resid), run.values, run.reads, run.patterns)


def nodes(model: Any) -> list[Component]:
    """Every head or mixer and every MLP: what a circuit is a part of, and what is ablated around it."""
    net = families.read(model)
    out: list[Component] = []
    for index, layer in enumerate(net.layers):
        out += [("mixer", index)] if isinstance(layer.attention, Mixing) else []
        out += [("head", index, h) for h in range(layer.attention.heads)]
        out.append(("mlp", index))
    return out


# ---------------------------------------------------------------------------------------------- sources and noising


def resample_values(model: Any, ids: Sequence[int]) -> dict[Component, Tensor]:
    """Every component's value at every position of the run on another prompt."""
    return forward(model, ids, record=True).values


def mean_values(model: Any, prompts: Sequence[Sequence[int]]) -> dict[Component, Tensor]:
    """Every component's mean over the runs on several prompts, position by position. They must be equally long."""
    if len({len(ids) for ids in prompts}) != 1:
        raise ValueError("a mean over positions needs prompts of one length")
    runs = [resample_values(model, ids) for ids in prompts]
    return {c: torch.stack([values[c] for values in runs]).mean(0) for c in runs[0]}


def mean_values_per_template(
    model: Any, prompts: Sequence[Sequence[int]], groups: Sequence[int]
) -> dict[int, dict[Component, Tensor]]:
    """``mean_values`` within each group: only prompts of the same template are averaged (Wang et al. 2022)."""
    net = families.read(model)
    return {
        group: mean_values(net, [ids for ids, g in zip(prompts, groups, strict=True) if g == group])
        for group in sorted(set(groups))
    }


def zero_values(model: Any, length: int) -> dict[Component, Tensor]:
    """Zeros for every component at every position."""
    return {c: torch.zeros_like(v) for c, v in resample_values(model, [0] * length).items()}


def noise(model: Any, base_ids: Sequence[int], source_values: Values, sites: Iterable[Site]) -> Tensor:
    """The logits of the base prompt with the sites set to the source's values at the same positions.

    Noising when the base is clean and the source corrupt, denoising the other way round.
    """
    return forward(model, base_ids, {(c, p): source_values[c][p] for c, p in sites}).logits


def denoise(model: Any, prompt: Prompt, sites: Iterable[Site]) -> Tensor:
    """The logits of the corrupt prompt with the sites set to the clean run's values."""
    net = families.read(model)
    return noise(net, prompt.corrupt, resample_values(net, prompt.clean), sites)


# ------------------------------------------------------------------------------------------------------- experiments


@dataclass(frozen=True)
class Prompt:
    """A clean and a corrupt prompt of equal length, the template they come from, the answers, and named positions."""

    clean: list[int]
    corrupt: list[int]
    template: int
    answers: list[int]
    wrong: list[int]
    roles: dict[str, int] = field(default_factory=dict)


Circuit: TypeAlias = Mapping[Component, "set[str] | None"]
"""Which components, each at which named positions; ``None`` means every position."""


@dataclass(frozen=True)
class Result:
    """Per-prompt metrics of the patched run and of both anchors, and the recovered performance by metric."""

    patched: dict[str, Array]
    clean: dict[str, Array]
    corrupt: dict[str, Array]
    recovered: dict[str, float]
    logits: Array


def _sources(net: Net, prompts: Sequence[Prompt], ablation: str) -> list[Values]:
    """For each prompt the ablated value of every component at every position.

    ``resample``: the run on its own corrupt prompt. ``mean``: the mean over all corrupt prompts. ``mean_per_template``:
    the mean over the corrupt prompts of its template. ``zero``: zeros.
    """
    if ablation == "resample":
        return [resample_values(net, p.corrupt) for p in prompts]
    if ablation == "mean":
        mean = mean_values(net, [p.corrupt for p in prompts])
        return [mean for _ in prompts]
    if ablation == "mean_per_template":
        means = mean_values_per_template(net, [p.corrupt for p in prompts], [p.template for p in prompts])
        return [means[p.template] for p in prompts]
    if ablation == "zero":
        return [zero_values(net, len(p.clean)) for p in prompts]
    raise ValueError(f"unknown ablation {ablation!r}")


def _declared(circuit: Circuit, prompt: Prompt) -> set[Site]:
    """The circuit's components at their declared positions of one prompt."""
    sites: set[Site] = set()
    for component, roles in circuit.items():
        positions = range(len(prompt.clean)) if roles is None else [prompt.roles[r] for r in roles]
        sites |= {(component, p) for p in positions}
    return sites


def _everywhere(components: Iterable[Component], prompt: Prompt) -> set[Site]:
    return {(c, p) for c in components for p in range(len(prompt.clean))}


def _check(net: Net, prompts: Sequence[Prompt], circuit: Circuit, free: set[Component]) -> None:
    known = set(nodes(net))
    for what in (set(circuit), free):
        if not what <= known:
            raise ValueError(f"not a head or an MLP of this model: {sorted(what - known, key=repr)}")
    if set(circuit) & free:
        raise ValueError(f"both in the circuit and free: {sorted(set(circuit) & free, key=repr)}")
    for prompt in prompts:
        if len(prompt.clean) != len(prompt.corrupt):
            raise ValueError("a clean and a corrupt prompt must be equally long")


def _last(logits: Tensor) -> Array:
    return np.asarray(logits[-1].numpy(), dtype=np.float64)


def _experiment(
    net: Net, prompts: Sequence[Prompt], free: set[Component], ablation: str, sites: Sequence[set[Site]]
) -> Result:
    """Noise each clean prompt at its sites and compare it with both anchors."""
    sources = _sources(net, prompts, ablation)
    ablatable = [c for c in nodes(net) if c not in free]
    patched, clean, corrupt, logits = [], [], [], []
    for prompt, source, where in zip(prompts, sources, sites, strict=True):
        clean_logits = _last(forward(net, prompt.clean).logits)
        if ablation == "resample":
            corrupt_logits = _last(forward(net, prompt.corrupt).logits)
        else:
            corrupt_logits = _last(noise(net, prompt.clean, source, _everywhere(ablatable, prompt)))
        logits.append(_last(noise(net, prompt.clean, source, where)))
        patched.append(metrics(logits[-1], prompt.answers, prompt.wrong, clean_logits))
        clean.append(metrics(clean_logits, prompt.answers, prompt.wrong, clean_logits))
        corrupt.append(metrics(corrupt_logits, prompt.answers, prompt.wrong, clean_logits))
    a, b, c = columns(patched), columns(clean), columns(corrupt)
    return Result(a, b, c, {name: recovered(a[name], c[name], b[name]) for name in a}, np.stack(logits))


def anchors(
    model: Any, prompts: Sequence[Prompt], free: set[Component], ablation: str
) -> tuple[dict[str, Array], dict[str, Array]]:
    """The clean and the corrupt anchor's metrics per prompt.

    The corrupt anchor is the model on the corrupt prompt for ``resample``, and for the other ablations the model on the
    clean prompt with every component that is not free ablated at every position.
    """
    net = families.read(model)
    result = _experiment(net, prompts, free, ablation, [set() for _ in prompts])
    return result.clean, result.corrupt


def sufficient(
    model: Any, prompts: Sequence[Prompt], circuit: Circuit, free: set[Component], ablation: str = "resample"
) -> Result:
    """Keep the circuit: on the clean prompt, ablate every head and MLP that is not free wherever it is not declared."""
    net = families.read(model)
    _check(net, prompts, circuit, free)
    ablatable = [c for c in nodes(net) if c not in free]
    sites = [_everywhere(ablatable, p) - _declared(circuit, p) for p in prompts]
    return _experiment(net, prompts, free, ablation, sites)


def necessary(
    model: Any, prompts: Sequence[Prompt], circuit: Circuit, free: set[Component], ablation: str = "resample"
) -> Result:
    """Remove the circuit: on the clean prompt, ablate the circuit's components at their declared positions only."""
    net = families.read(model)
    _check(net, prompts, circuit, free)
    return _experiment(net, prompts, free, ablation, [_declared(circuit, p) for p in prompts])


def restore(
    model: Any,
    prompts: Sequence[Prompt],
    circuit: Circuit,
    free: set[Component],
    component: Component,
    ablation: str = "resample",
) -> Result:
    """``sufficient`` with one more component left un-ablated, at every position. A free one changes nothing."""
    more = circuit if component in free else {**circuit, component: None}
    return sufficient(model, prompts, more, free, ablation)
