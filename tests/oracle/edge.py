"""Edge-level patching by explicit sums: every receiver's own residual input, one sender at a time.

A *sender* is ``("input",)``, ``("head", layer, h)``, ``("mixer", layer)`` or ``("mlp", layer)``; its *contribution* is
what it adds to the residual stream, ``[positions, d_model]``. A *receiver* is ``("q", layer, h)``, ``("k", layer, g)``,
``("v", layer, g)`` (g a key-value head), ``("mixer_in", layer)``, ``("mlp_in", layer)`` or ``("final",)``. An *edge* is
a pair of a sender and a later receiver.

In a run, receiver r reads, at each position,

    constant + sum over the senders s before r of (C[s] if the edge s -> r is kept there, else A[s]),

then its own norm. C[s] is s's contribution *in this very run* (the base prompt as patched so far), A[s] its ablated
contribution, given from outside. The constant holds the attention output biases of the earlier layers, which belong to
no head and never change. Position means the position of the residual stream, where the sender writes and r reads.

With post-norms (Gemma 2 and 3, OLMo 2) a contribution is taken after the norm: an MLP's normed output, and for a head
its output times weight / rms, with the rms of the whole attention output of the same run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from . import families
from .families import Layer, Mixing, Net
from .metrics import columns, metrics, recovered
from .node import Component, Prompt, Receiver, Result, Site, _last, attend, forward, head_shares

Edge: TypeAlias = tuple[Component, Receiver]
Kept: TypeAlias = Mapping[Edge, "Collection[int] | None"]
"""The kept edges, each at which positions; ``None`` means every position. Edges not mentioned are ablated."""


@dataclass(frozen=True)
class EdgeRun:
    """Logits, every sender's contribution as patched, and what every receiver read (before its norm)."""

    logits: Tensor
    contributions: dict[Component, Tensor]
    reads: dict[Receiver, Tensor]


def senders(model: Any) -> list[Component]:
    """All senders, in the order they are computed."""
    net = families.read(model)
    out: list[Component] = [("input",)]
    for index, layer in enumerate(net.layers):
        out += [("mixer", index)] if isinstance(layer.attention, Mixing) else []
        out += [("head", index, h) for h in range(layer.attention.heads)]
        out.append(("mlp", index))
    return out


def receivers(model: Any) -> list[Receiver]:
    """All receivers, in the order they are computed."""
    net = families.read(model)
    out: list[Receiver] = []
    for index, layer in enumerate(net.layers):
        out += [("mixer_in", index)] if isinstance(layer.attention, Mixing) else []
        out += [("q", index, h) for h in range(layer.attention.heads)]
        out += [("k", index, g) for g in range(layer.attention.kv_heads)]
        out += [("v", index, g) for g in range(layer.attention.kv_heads)]
        out.append(("mlp_in", index))
    return [*out, ("final",)]


def precedes(net: Net, sender: Component, receiver: Receiver) -> bool:
    """Whether the sender writes before the receiver reads."""
    if sender[0] == "input" or receiver[0] == "final":
        return True
    if receiver[0] == "mlp_in" and sender[0] in ("head", "mixer") and not net.layers[receiver[1]].parallel:
        return bool(sender[1] <= receiver[1])
    return bool(sender[1] < receiver[1])


def edges(model: Any) -> list[Edge]:
    """Every edge of the model."""
    net = families.read(model)
    return [(s, r) for r in receivers(net) for s in senders(net) if precedes(net, s, r)]


def _mlp_out(layer: Layer, x: Tensor) -> Tensor:
    out = layer.mlp(x)
    return (out if layer.post_mlp is None else layer.post_mlp(out)) * layer.scale


@torch.no_grad()
def contributions(
    model: Any, ids: Sequence[int], patches: Mapping[Site, Tensor] | None = None
) -> dict[Component, Tensor]:
    """Every sender's contribution in the plain run on a prompt, or in a patched one (with noise on its input, say)."""
    net = families.read(model)
    run = forward(net, ids, patches, record=True)
    out: dict[Component, Tensor] = {("input",): run.values["input",]}
    for index, layer in enumerate(net.layers):
        if isinstance(layer.attention, Mixing):
            out["mixer", index] = run.values["mixer", index] * layer.scale
        heads = range(layer.attention.heads)
        for h, x in zip(heads, head_shares(layer, [run.values["head", index, h] for h in heads]), strict=True):
            out["head", index, h] = x
        mlp = run.values["mlp", index]
        out["mlp", index] = (mlp if layer.post_mlp is None else layer.post_mlp(mlp)) * layer.scale
    return out


@torch.no_grad()
def edge_run(
    model: Any,
    ids: Sequence[int],
    ablated: Mapping[Component, Tensor],
    kept: Kept,
    start: Tensor | None = None,
) -> EdgeRun:
    """Run a prompt in which every edge that is not kept carries its sender's ablated contribution.

    Noising: clean ids, ablated contributions of the corrupt run. Denoising: the two swapped. ``start`` takes the place
    of the prompt's embeddings, ``[positions, d_model]``.
    """
    net = families.read(model)
    everyone = senders(net)
    readers = set(receivers(net))
    unknown = {(s, r) for s, r in kept if s not in everyone or r not in readers or not precedes(net, s, r)}
    if unknown:
        raise ValueError(f"no such edge: {sorted(unknown, key=repr)}")
    n = len(ids)
    current: dict[Component, Tensor] = {("input",): net.start(list(ids)) if start is None else start}
    reads: dict[Receiver, Tensor] = {}

    def read(receiver: Receiver, constant: Tensor) -> Tensor:
        total = constant.expand(n, -1)
        for sender in everyone:
            if not precedes(net, sender, receiver):
                continue
            where = kept.get((sender, receiver), ())
            if where is None:
                total = total + current[sender]
            elif not where:
                total = total + ablated[sender]
            else:
                is_kept = torch.tensor([position in where for position in range(n)])
                total = total + torch.where(is_kept[:, None], current[sender], ablated[sender])
        reads[receiver] = total
        return total

    constant = torch.zeros(net.d_model, dtype=torch.float64)
    for index, layer in enumerate(net.layers):
        att = layer.attention
        before = constant

        def normed(
            kind: str, count: int, index: int = index, layer: Layer = layer, at: Tensor = before
        ) -> list[Tensor]:
            names = [(kind, index)] if kind == "mixer_in" else [(kind, index, i) for i in range(count)]
            x = torch.stack([read(name, at) for name in names])
            return list(x if layer.pre_attention is None else layer.pre_attention(x))

        if isinstance(att, Mixing):
            (entering,) = normed("mixer_in", 1)
            z, current["mixer", index] = [], att.mix(entering) * layer.scale
        else:
            z = attend(att, normed("q", att.heads), normed("k", att.kv_heads), normed("v", att.kv_heads))
        constant = constant + att.bo * layer.scale
        for h, x in enumerate(head_shares(layer, z)):
            current["head", index, h] = x
        x = read(("mlp_in", index), before if layer.parallel else constant)
        current["mlp", index] = _mlp_out(layer, x if layer.pre_mlp is None else layer.pre_mlp(x))
    return EdgeRun(net.finish(read(("final",), constant)), current, reads)


# ------------------------------------------------------------------------------------------------------- experiments


def ablated_contributions(model: Any, prompts: Sequence[Prompt], ablation: str) -> list[dict[Component, Tensor]]:
    """For each prompt every sender's ablated contribution.

    ``resample``: of its own corrupt run; ``mean`` and ``mean_per_template``: the mean over the corrupt runs of all
    prompts, or of its template's, position by position; ``zero``: zeros. The input is ablated like any other sender.
    """
    net = families.read(model)
    runs = [contributions(net, p.corrupt) for p in prompts]
    if ablation == "resample":
        return runs
    if ablation == "zero":
        return [{s: torch.zeros_like(x) for s, x in run.items()} for run in runs]
    if ablation not in ("mean", "mean_per_template"):
        raise ValueError(f"unknown ablation {ablation!r}")
    out = []
    for prompt in prompts:
        peers = [
            run
            for run, other in zip(runs, prompts, strict=True)
            if ablation == "mean" or other.template == prompt.template
        ]
        out.append({s: torch.stack([run[s] for run in peers]).mean(0) for s in peers[0]})
    return out


def _positions(prompt: Prompt, roles: Collection[str] | None) -> set[int]:
    return set(range(len(prompt.clean))) if roles is None else {prompt.roles[r] for r in roles}


def edge_experiment(
    model: Any,
    prompts: Sequence[Prompt],
    circuit: Mapping[Edge, Collection[str] | None],
    ablation: str = "resample",
    keep: bool = True,
    free: Iterable[Component] = (),
) -> Result:
    """``keep``: only the circuit's edges, at their roles, are kept: sufficient; else they alone are ablated: necessary.

    Every edge out of a ``free`` sender is kept. The corrupt anchor is the corrupt prompt's run for ``resample`` and
    otherwise the clean prompt with every edge ablated that does not come from a free sender.
    """
    net = families.read(model)
    everyone, free = edges(net), set(free)
    patched, clean, corrupt, logits = [], [], [], []
    for prompt, ablated in zip(prompts, ablated_contributions(net, prompts, ablation), strict=True):
        n = set(range(len(prompt.clean)))
        always: dict[Edge, Collection[int] | None] = {e: None for e in everyone if e[0] in free}
        declared = {e: _positions(prompt, roles) for e, roles in circuit.items()}
        if keep:
            kept: dict[Edge, Collection[int] | None] = {**declared, **always}
        else:
            kept = {**{e: n - declared.get(e, set()) for e in everyone}, **always}
        clean_logits = _last(forward(net, prompt.clean).logits)
        if ablation == "resample":
            corrupt_logits = _last(forward(net, prompt.corrupt).logits)
        else:
            corrupt_logits = _last(edge_run(net, prompt.clean, ablated, always).logits)
        logits.append(_last(edge_run(net, prompt.clean, ablated, kept).logits))
        patched.append(metrics(logits[-1], prompt.answers, prompt.wrong, clean_logits))
        clean.append(metrics(clean_logits, prompt.answers, prompt.wrong, clean_logits))
        corrupt.append(metrics(corrupt_logits, prompt.answers, prompt.wrong, clean_logits))
    a, b, c = columns(patched), columns(clean), columns(corrupt)
    return Result(a, b, c, {name: recovered(a[name], c[name], b[name]) for name in a}, np.stack(logits))
