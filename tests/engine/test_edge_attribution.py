"""Edge attribution against finite differences of the oracle's own single-edge patching."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from circuitspec.engine.attribution.edge_attribution import attribute_edges, edge_passes
from circuitspec.engine.attribution.node_attribution import attribute
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.experiments.experiment import Source
from circuitspec.graph.edges import Edge
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Mlp
from tests.engine.support import FAMILIES, loaded, model, random_prompts, runner, task_of
from tests.engine.test_edges_against_oracle import every_edge, oracle_receiver, oracle_sender
from tests.oracle import edge, families, metrics, node

ALL = Where.everywhere()
RESAMPLE = Source("resample", "abc")


def some_edges(m: Any, count: int) -> list[Edge]:
    """One edge into every kind of receiver at least, some at one position alone."""
    every = every_edge(loaded(m).shape)
    rng = np.random.default_rng(7)
    by_kind: dict[object, list[Any]] = {}
    for pair in every:
        by_kind.setdefault((type(pair[1].component), pair[1].port, type(pair[0])), []).append(pair)
    chosen = [own[rng.integers(len(own))] for own in by_kind.values()]
    chosen += [every[i] for i in rng.choice(len(every), count, replace=False)]
    return [Edge(s, r, Where.at("A") if i % 3 == 0 else ALL) for i, (s, r) in enumerate(dict.fromkeys(chosen))]


def exact_change(m: Any, prompts: list[node.Prompt], one: Edge, kind: str, share: float) -> float:
    """By the oracle: the mean logit difference with the edge carrying a share of the way to the source's value."""
    net = families.read(m)
    found = []
    for prompt, ablated in zip(prompts, edge.ablated_contributions(net, prompts, kind), strict=True):
        own = edge.contributions(net, prompt.clean)
        sender = oracle_sender(one.sender)
        moved = {**own, sender: own[sender] + share * (ablated[sender] - own[sender])}
        everywhere = set(range(len(prompt.clean)))
        cut = everywhere if one.where.is_everywhere else {prompt.roles[role] for role in one.where.roles}
        kept: dict[Any, Any] = dict.fromkeys(edge.edges(net))
        kept[sender, oracle_receiver(one.receiver)] = everywhere - cut
        logits = edge.edge_run(net, prompt.clean, moved, kept).logits[-1].numpy()
        found.append(metrics.metrics(logits, prompt.answers, prompt.wrong, logits)["logit_diff"])
    return float(np.mean(found))


@pytest.mark.parametrize(
    ("family", "kind"),
    [*((f, "resample") for f in FAMILIES), pytest.param("gpt2", "zero", marks=pytest.mark.nightly), ("olmo2", "zero")],
)
def test_estimates_are_derivatives_along_the_patched_edge(family: str, kind: str) -> None:
    m = model(family, exactly=True)
    prompts = random_prompts(31, [5, 6])
    source = RESAMPLE if kind == "resample" else Source("zero", None)
    chosen = some_edges(m, 2)
    with borrowed(m):
        found = attribute_edges(runner(m, task_of(prompts), rows=1), "clean", source, "logit_diff", chosen)
    assert set(found.effects) == set(chosen)
    step = 1e-5
    for one in chosen:
        ends = [exact_change(m, prompts, one, kind, share) for share in (step, -step)]
        slope = (ends[0] - ends[1]) / (2 * step)
        assert found.effects[one] == pytest.approx(slope, rel=1e-4, abs=1e-7), one


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
@pytest.mark.parametrize(
    ("base", "source", "metric", "steps"),
    [
        ("clean", RESAMPLE, "logit_diff", 1),
        ("clean", RESAMPLE, "logit_diff", 3),
        ("abc", Source("resample", "clean"), "kl", 1),
    ],
)
def test_the_edges_of_a_sender_add_up_to_its_node(
    family: str, base: str, source: Source, metric: str, steps: int
) -> None:
    """By the chain rule: what a component does is what it does through everything that reads it."""
    m = model(family, exactly=True)
    prompts = random_prompts(3, [5, 6, 6])
    senders = (Head(0, 1), Head(1, 2))
    edges = [Edge(*pair, ALL) for pair in every_edge(loaded(m).shape) if pair[0] in senders]
    with borrowed(m):
        run = runner(m, task_of(prompts), rows=2)
        node_level = attribute(run, base, source, metric, senders, [ALL], steps=steps)
        before = run.forwards
        found = attribute_edges(run, base, source, metric, edges, steps=steps)
        assert run.forwards - before == edge_passes(edges, source, steps, compared=metric == "kl")
    for sender in senders:
        total = sum(effect for one, effect in found.effects.items() if one.sender == sender)
        assert total == pytest.approx(node_level.effects[sender, ALL], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_recomputed_attention_is_exact_up_to_the_heads_output(family: str) -> None:
    """The head's output as the oracle computes it with the edge patched, and a small share of the way there."""
    m = model(family, exactly=True)
    prompts = random_prompts(13, [5, 6])
    edges = [
        one for one in (Edge(*pair, ALL) for pair in every_edge(loaded(m).shape)) if one.receiver.port in ("q", "k")
    ]
    rng = np.random.default_rng(2)
    chosen = [edges[i] for i in rng.choice(len(edges), 2, replace=False)]
    net = families.read(m)
    with borrowed(m):
        run = runner(m, task_of(prompts), rows=1)
        found = attribute_edges(run, "clean", RESAMPLE, "logit_diff", chosen, recomputing=True)
        shared = run.stream.heads_share_a_norm
        assert run.forwards == edge_passes(chosen, RESAMPLE, recomputing=True, one_by_one=shared)
    for one in chosen:
        expected = []
        for prompt in prompts:
            other = edge.contributions(net, prompt.corrupt)
            kept: dict[Any, Any] = dict.fromkeys(edge.edges(net))
            del kept[oracle_sender(one.sender), oracle_receiver(one.receiver)]
            values = node.forward(net, prompt.clean, record=True).values
            moved = recorded_z(net, prompt, other, kept, one)
            ends = []
            for share in (1e-5, -1e-5):
                sites = {
                    (c, p): values[c][p] + share * (moved[c][p] - values[c][p])
                    for c in moved
                    for p in range(len(prompt.clean))
                }
                logits = node.forward(net, prompt.clean, sites).logits[-1].numpy()
                ends.append(metrics.metrics(logits, prompt.answers, prompt.wrong, logits)["logit_diff"])
            expected.append((ends[0] - ends[1]) / 2e-5)
        assert found.effects[one] == pytest.approx(np.mean(expected), rel=1e-4, abs=1e-7), one


def recorded_z(net: Any, prompt: node.Prompt, other: Any, kept: Any, one: Edge) -> dict[Any, Any]:
    """By the oracle: the outputs of the heads that one patched edge changes directly."""
    layer = one.receiver.component.layer  # type: ignore[union-attr]
    attention = net.layers[layer].attention
    run = edge.edge_run(net, prompt.clean, other, kept)

    def entering(kind: str, i: int) -> Any:
        norm = net.layers[layer].pre_attention
        read = run.reads[kind, layer, i]
        return read if norm is None else norm(read)

    z = node.attend(
        attention,
        [entering("q", h) for h in range(attention.heads)],
        [entering("k", g) for g in range(attention.kv_heads)],
        [entering("v", g) for g in range(attention.kv_heads)],
    )
    return {("head", layer, h): z[h] for h in range(attention.heads)}


def test_what_cannot_be_attributed() -> None:
    m = model("gpt2", exactly=True)
    first, last = every_edge(loaded(m).shape)[0], every_edge(loaded(m).shape)[-1]
    with borrowed(m):
        run = runner(m, task_of(random_prompts(5, [6])))
        with pytest.raises(ValueError, match="no edge"):
            attribute_edges(run, "clean", RESAMPLE, "logit_diff", [Edge(Mlp(2), first[1], ALL)])
        with pytest.raises(ValueError, match="interpolated"):
            attribute_edges(run, "clean", Source("zero", None), "logit_diff", [Edge(*last, ALL)], steps=2)
