"""Heads at which paths end, and heads of one layer in one hop, by hooks on the model itself: neither engine nor oracle.

Every number here is computed by torch hooks that read and replace the inputs and outputs of the model's own modules.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from circuitspec.engine.execution.compiler import borrowed
from circuitspec.experiments.levels.path_level import along, travelling
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Input, KvHead
from tests.engine.support import TOLERANCE, loaded, model, runner, task_of
from tests.engine.test_paths_against_oracle import FILE, LOGITS, SOURCES, apart, declared, oracle_end, stop, tokens
from tests.oracle import families, metrics, node, path

Change = Callable[[Tensor], Tensor]


@dataclass
class Hooked:
    """One run of a decoder: what modules took in or gave, `[position, channel]`, by name; some of it changed first.

    A name is that of a module, with `<` for its input: `model.layers.1.self_attn.o_proj<` are all heads' z.
    """

    logits: Tensor = field(default_factory=lambda: torch.empty(0))
    seen: dict[str, Tensor] = field(default_factory=dict)


@torch.no_grad()
def hooked(m: nn.Module, ids: list[int], changes: Mapping[str, Change] | None = None) -> Hooked:
    run = Hooked()
    with contextlib.ExitStack() as stack:
        for name, module in m.named_modules():
            if name.startswith("model.") and isinstance(module, nn.Module):
                _watch(name, module, run, dict(changes or {}), stack)
        run.logits = m(torch.tensor([ids])).logits[0]
    return run


def _watch(
    name: str, module: nn.Module, run: Hooked, changes: Mapping[str, Change], stack: contextlib.ExitStack
) -> None:
    def put(which: str, value: Tensor) -> Tensor:
        if which in changes:
            value = changes[which](value[0].clone()).unsqueeze(0)
        run.seen[which] = value[0].clone()
        return value

    def before(_: Any, args: tuple[Any, ...]) -> Any:
        if args and isinstance(args[0], Tensor) and args[0].ndim == 3 and args[0].is_floating_point():
            return (put(f"{name}<", args[0]), *args[1:])
        return None

    def after(_: Any, args: Any, output: Any) -> Any:
        return put(name, output) if isinstance(output, Tensor) and output.ndim == 3 else None

    for handle in (module.register_forward_pre_hook(before), module.register_forward_hook(after)):
        stack.callback(handle.remove)


def at(positions: Any, values: Tensor, channels: slice = slice(None)) -> Change:
    """These positions (and channels) replaced by their values of another run."""

    def change(own: Tensor) -> Tensor:
        for p in positions:
            own[p, channels] = values[p, channels]
        return own

    return change


def of_head(m: Any, head: int) -> slice:
    width = m.model.layers[0].self_attn.head_dim
    return slice(head * width, (head + 1) * width)


def attention(layer: int, name: str) -> str:
    return f"model.layers.{layer}.self_attn.{name}"


def frozen(m: Any, base: Hooked) -> dict[str, Change]:
    """What attention and MLPs add to the stream is what they add in the base run."""
    post_norm = hasattr(m.model.layers[0], "post_feedforward_layernorm")
    found: dict[str, Change] = {}
    for layer in range(len(m.model.layers)):
        names = ("post_attention_layernorm", "post_feedforward_layernorm") if post_norm else ("self_attn.o_proj", "mlp")
        for name in (f"model.layers.{layer}.{one}" for one in names):
            found[name] = lambda own, name=name: base.seen[name]  # type: ignore[misc]
    return found


def by_itself(m: Any, ids: list[int], stream: Tensor, layer: int, head: int, ports: str) -> Tensor:
    """A head's z where its named inputs are projected from this stream, and nothing else of its layer is changed."""
    block = m.model.layers[layer]
    entering = block.input_layernorm(stream) if hasattr(block, "input_layernorm") else stream
    group = m.config.num_attention_heads // m.config.num_key_value_heads
    changes = {}
    for port in ports:
        projected = getattr(block.self_attn, f"{port}_proj")(entering)
        unit = head if port == "q" else head // group
        changes[attention(layer, f"{port}_proj")] = at(range(len(ids)), projected, of_head(m, unit))
    return hooked(m, ids, changes).seen[attention(layer, "o_proj<")][:, of_head(m, head)]


def scores(m: Any, prompts: list[node.Prompt], logits: Callable[[node.Prompt], Tensor]) -> Mapping[str, np.ndarray]:
    rows = []
    for prompt in prompts:
        clean = hooked(m, prompt.clean).logits[-1].numpy()
        rows.append(metrics.metrics(logits(prompt)[-1].numpy(), prompt.answers, prompt.wrong, clean))
    return metrics.columns(rows)


def assert_equal(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=TOLERANCE, err_msg=name)


@pytest.mark.parametrize(
    ("family", "head", "ports"),
    [
        ("llama", 1, "v"),
        ("llama", 1, "k"),
        ("llama", 3, "kv"),
        ("olmo2", 0, "q"),
        ("olmo2", 2, "k"),
        ("olmo2", 1, "qkv"),
    ],
)
def test_a_path_changes_the_head_at_its_end_alone(family: str, head: int, ports: str) -> None:
    """`input@A -> a2.hN<..>@END` (queries: from END): the z that it computes there, and nobody else's, is set."""
    m = model(family, exactly=True)
    start = "END" if ports == "q" else "A"
    prompts = [p for p in apart() if p.roles["A"] < p.roles["END"]]

    def expected(prompt: node.Prompt, heads: tuple[int, ...] = (head,)) -> Tensor:
        ids, last = prompt.clean, [prompt.roles["END"]]
        base, other = hooked(m, ids), hooked(m, prompt.corrupt)
        sent = {**frozen(m, base), "model.layers.0<": at([prompt.roles[start]], other.seen["model.layers.0<"])}
        stream = hooked(m, ids, sent).seen["model.layers.2<"]
        z = base.seen[attention(2, "o_proj<")].clone()
        for one in heads:
            z[:, of_head(m, one)] = by_itself(m, ids, stream, 2, one, ports)
        changes = {attention(2, "o_proj<"): at(last, z)}
        return hooked(m, ids, changes).logits

    end = stop(Head(2, head), Where.at("END"), tuple(ports))
    one = declared((stop(Input(), Where.at(start)),), (end,))
    experiment = travelling("clean", SOURCES["resample"], along([one], loaded(m).shape, FILE), [one], through=())
    by_hooks = scores(m, prompts, expected)
    with borrowed(m):
        assert_equal(runner(m, task_of(prompts), rows=3).run([experiment])[experiment], by_hooks)

    def oracle(prompt: node.Prompt) -> Tensor:
        values = node.resample_values(net, prompt.corrupt)
        last = [oracle_end(end, tokens(end.where, prompt))]
        return path.open_ends(net, prompt.clean, values, ("input",), last, (), [prompt.roles[start]])

    net = families.read(m)
    assert_equal(scores(m, prompts, oracle), by_hooks)
    if family == "llama":  # with the sibling the figure is another
        both = scores(m, prompts, lambda prompt: expected(prompt, (head, head ^ 1)))
        assert np.abs(both["logit_diff"] - by_hooks["logit_diff"]).max() > 1e-5
        group = declared(
            (stop(Input(), Where.at(start)),), (stop(KvHead(2, head // 2), Where.at("END"), tuple(ports)),)
        )
        named = travelling("clean", SOURCES["resample"], along([group], loaded(m).shape, FILE), [group], through=())
        with borrowed(m):
            assert_equal(runner(m, task_of(prompts)).run([named])[named], both)


@pytest.mark.parametrize("family", ["gemma2", "olmo2"])
@pytest.mark.parametrize("end", ["logits", "open"])
def test_heads_of_one_layer_in_one_hop(family: str, end: str) -> None:
    """`input -> a1.h0, a1.h3 -> logits`, or ending there: each has its z by itself, and the norm after the attention is
    that of both new z and of the others' z as they were."""
    m = model(family, exactly=True)
    prompts = apart()[:3]
    heads = (0, 3)

    def expected(prompt: node.Prompt) -> Tensor:
        ids = prompt.clean
        base, other = hooked(m, ids), hooked(m, prompt.corrupt)
        sent = {**frozen(m, base), "model.layers.0<": lambda own: other.seen["model.layers.0<"]}
        stream = hooked(m, ids, sent).seen["model.layers.1<"]
        z = base.seen[attention(1, "o_proj<")].clone()
        for head in heads:
            z[:, of_head(m, head)] = by_itself(m, ids, stream, 1, head, "qkv")
        if end == "open":
            return hooked(m, ids, {attention(1, "o_proj<"): lambda own: z}).logits
        added = base.seen["model.layers.1.post_attention_layernorm"].clone()
        for run, sign in ((z, 1.0), (base.seen[attention(1, "o_proj<")], -1.0)):
            for head in heads:
                added += sign * share(run, head)
        changes = {**frozen(m, base), "model.layers.1.post_attention_layernorm": lambda own: added}
        return hooked(m, ids, changes).logits

    def share(z: Tensor, head: int) -> Tensor:
        """What a head adds to the stream, under the root mean square of all of this z."""
        block = m.model.layers[1]
        norm, out = block.post_attention_layernorm, block.self_attn.o_proj
        total = out(z)
        eps = getattr(norm, "eps", None) or norm.variance_epsilon
        weight = norm.weight + 1 if family == "gemma2" else norm.weight
        own = z[:, of_head(m, head)] @ out.weight[:, of_head(m, head)].T
        return own * weight / torch.sqrt((total * total).mean(-1, keepdim=True) + eps)

    stops = tuple(stop(Head(1, head)) for head in heads)
    one = declared((stop(Input()),), stops, *([(LOGITS,)] if end == "logits" else []))
    experiment = travelling("clean", SOURCES["resample"], along([one], loaded(m).shape, FILE), [one], through=())
    with borrowed(m):
        found = runner(m, task_of(prompts)).run([experiment])[experiment]
    assert_equal(found, scores(m, prompts, expected))
