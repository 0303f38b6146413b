"""Edge level against the oracle: every family, any subset of edges, per-prompt positions, float64 below 1e-9."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.levels.residual_stream import Stream
from circuitspec.experiments.experiment import Experiment, Source
from circuitspec.experiments.levels.edge_level import keeping, patching
from circuitspec.graph.edges import Receiver, Sender, count_edges, receivers, senders, senders_before
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Input, KvHead, Logits, Mixer, Mlp
from tests.engine.support import FAMILIES, TOLERANCE, loaded, model, random_prompts, runner, task_of
from tests.oracle import edge, families, metrics, node

LENGTHS = [5, 7, 5, 6, 7, 5]
WHERES = (Where.everywhere(), Where.at("A"), Where.except_at("B"), Where.at("A", "END"))
SOURCES = {
    "resample": Source("resample", "abc"),
    "zero": Source("zero", None),
    "mean": Source("mean", "abc"),
    "mean_per_template": Source("mean_per_template", "abc"),
}

Edges = dict[tuple[Sender, Receiver], Where]


def oracle_sender(sender: Sender) -> tuple[Any, ...]:
    match sender:
        case Input():
            return ("input",)
        case Head(layer, head):
            return "head", layer, head
        case Mixer(layer):
            return "mixer", layer
        case Mlp(layer):
            return "mlp", layer
    raise TypeError(sender)


def oracle_receiver(receiver: Receiver) -> tuple[Any, ...]:
    match receiver.component:
        case Logits():
            return ("final",)
        case Mixer(layer):
            return "mixer_in", layer
        case Mlp(layer):
            return "mlp_in", layer
        case Head(layer, head) | KvHead(layer, head):
            return receiver.port, layer, head
    raise TypeError(receiver)


def every_edge(shape: ModelShape) -> list[tuple[Sender, Receiver]]:
    order = senders(shape)
    return [(s, r) for r in receivers(shape) for s in order[: senders_before(r, shape)]]


def random_edges(shape: ModelShape, seed: int, share: float) -> Edges:
    """A share of all edges, each ablated at positions of its own."""
    rng = np.random.default_rng(seed)
    return {e: WHERES[rng.integers(len(WHERES))] for e in every_edge(shape) if rng.random() < share}


def experiment_of(ablated: Edges, source: Source, base: str = "clean") -> Experiment:
    readings: dict[Receiver, dict[Sender, Where]] = {}
    for (sender, receiver), where in ablated.items():
        readings.setdefault(receiver, {})[sender] = where
    return patching(base, source, readings)


def ids_of(prompt: node.Prompt, variant: str | None) -> list[int]:
    return prompt.clean if variant == "clean" else prompt.corrupt


def oracle_edges(
    m: Any, prompts: list[node.Prompt], ablated: Edges, source: Source, base: str
) -> dict[str, np.ndarray]:
    net = families.read(m)
    swapped = [replace(p, corrupt=ids_of(p, source.prompts)) for p in prompts]
    values = edge.ablated_contributions(net, swapped, source.kind)
    rows = []
    for prompt, contributions in zip(prompts, values, strict=True):
        n = len(prompt.clean)
        kept: dict[Any, Any] = dict.fromkeys(edge.edges(net))
        for (sender, receiver), where in ablated.items():
            named = {prompt.roles[role] for role in where.roles}
            cut = {p for p in range(n) if (p in named) != where.inverted}
            kept[oracle_sender(sender), oracle_receiver(receiver)] = set(range(n)) - cut
        logits = edge.edge_run(net, ids_of(prompt, base), contributions, kept).logits[-1].numpy()
        clean = node.forward(net, prompt.clean).logits[-1].numpy()
        rows.append(metrics.metrics(logits, prompt.answers, prompt.wrong, clean))
    return metrics.columns(rows)


def prompts_for(kind: str, seed: int) -> list[node.Prompt]:
    """Random prompts; those that a mean goes over are equally long, and name the same positions."""
    if kind == "mean_per_template":
        prompts = random_prompts(seed, [5, 7, 5, 7, 5], templates=2)
        return [replace(p, roles={"A": 1, "B": 3, "END": len(p.clean) - 1}) for p in prompts]
    return random_prompts(seed, [6] * 6 if kind == "mean" else LENGTHS)


def assert_agrees(family: str, ablated: Edges, source: Source, base: str = "clean", side: str = "right") -> None:
    m = model(family, exactly=True)
    prompts = prompts_for(source.kind, seed=11)
    run = runner(m, task_of(prompts), rows=4, side=side)
    experiment = experiment_of(ablated, source, base)
    with borrowed(m):
        found = run.run([experiment])[experiment]
    expected = oracle_edges(m, prompts, ablated, source, base)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=TOLERANCE, err_msg=f"{family} {name}")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", sorted(SOURCES))
def test_random_edges(family: str, kind: str) -> None:
    shape = loaded(model(family, exactly=True)).shape
    assert_agrees(family, random_edges(shape, 5, 0.6), SOURCES[kind])


@pytest.mark.parametrize("family", FAMILIES)
def test_single_edges(family: str) -> None:
    shape = loaded(model(family, exactly=True)).shape
    rng = np.random.default_rng(1)
    chosen = rng.choice(len(every_edge(shape)), 6, replace=False)
    for i in chosen:
        assert_agrees(family, {every_edge(shape)[i]: WHERES[i % 4]}, SOURCES["resample"])


def kept_by(chosen: Callable[[Receiver], bool], shape: ModelShape, seed: int) -> Edges:
    """All edges ablated everywhere; into the chosen receivers, some of them at positions of their own or not at all."""
    rng = np.random.default_rng(seed)
    ablated: Edges = {}
    for sender, receiver in every_edge(shape):
        if not chosen(receiver):
            ablated[sender, receiver] = Where.everywhere()
        elif rng.random() < 0.6:
            ablated[sender, receiver] = WHERES[rng.integers(len(WHERES))]
    return ablated


def is_first_query(receiver: Receiver) -> bool:
    return receiver.port == "q" and isinstance(receiver.component, Head) and receiver.component.head == 0


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["resample", "zero"])
def test_most_receivers_read_alike_and_some_do_not(family: str, kind: str) -> None:
    """As in circuits that people write: what is in none of them reads the source's stream, all one and the same."""
    shape = loaded(model(family, exactly=True)).shape
    assert_agrees(family, kept_by(is_first_query, shape, 13), SOURCES[kind])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["resample", pytest.param("zero", marks=pytest.mark.nightly)])
@pytest.mark.parametrize(
    "read",
    [
        pytest.param(lambda r: r.port is None, id="MLPs and logits"),
        pytest.param(lambda r: r.port == "k" or r.port is None, id="keys, MLPs and logits"),
        pytest.param(lambda r: is_first_query(r) or isinstance(r.component, Logits), id="some queries and logits"),
        pytest.param(
            lambda r: (r.port == "v" and r.component.layer == 0) or r.port is None, id="first values and all else"
        ),
        pytest.param(lambda r: r.port is not None, id="attention alone"),
    ],
)
def test_some_receivers_alone(family: str, kind: str, read: Callable[[Receiver], bool]) -> None:
    """Where others read the model's own stream, in the same layer or between those that do not."""
    shape = loaded(model(family, exactly=True)).shape
    ablated = {edge: where for edge, where in random_edges(shape, 15, 0.6).items() if read(edge[1])}
    assert_agrees(family, ablated, SOURCES[kind])


@pytest.mark.parametrize("family", FAMILIES)
def test_restoring_edges_in_the_corrupt_run_with_padding_on_the_left(family: str) -> None:
    shape = loaded(model(family, exactly=True)).shape
    assert_agrees(family, random_edges(shape, 9, 0.3), Source("resample", "clean"), base="abc", side="left")


@pytest.mark.parametrize("family", FAMILIES)
def test_all_edges_kept_is_the_clean_run_and_none_kept_the_source_run(family: str) -> None:
    m = model(family, exactly=True)
    shape = loaded(m).shape
    prompts = random_prompts(3, LENGTHS)
    source = SOURCES["resample"]
    none_kept = experiment_of(dict.fromkeys(every_edge(shape), Where.everywhere()), source)
    pruned = keeping({}, source, shape)  # the same, with what makes no difference left out
    assert sum(len(r.senders) for r in none_kept.readings) == count_edges(shape)
    assert sum(len(r.senders) for r in pruned.readings) < count_edges(shape)
    all_kept = keeping({r: dict.fromkeys(senders(shape), Where.everywhere()) for r in receivers(shape)}, source, shape)
    assert all_kept == Experiment("clean")
    own = experiment_of(dict.fromkeys(every_edge(shape), Where.everywhere()), Source("resample", "clean"))
    with borrowed(m):
        records = runner(m, task_of(prompts)).run([none_kept, pruned, own, Experiment("abc"), Experiment("clean")])
    for metric, values in records[Experiment("abc")].items():
        np.testing.assert_allclose(records[none_kept][metric], values, rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(records[pruned][metric], values, rtol=0, atol=TOLERANCE)
    for metric, values in records[Experiment("clean")].items():
        np.testing.assert_allclose(records[own][metric], values, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_kept_decides_and_what_is_pruned_does_not(family: str) -> None:
    """Keeping a few edges, against the oracle's run with every other one ablated."""
    shape = loaded(model(family, exactly=True)).shape
    rng = np.random.default_rng(2)
    kept: dict[Receiver, dict[Sender, Where]] = {}
    ablated: Edges = {}
    for sender, receiver in every_edge(shape):
        if rng.random() < 0.25:
            kept.setdefault(receiver, {})[sender] = WHERES[rng.integers(len(WHERES))]
        cut = ~kept.get(receiver, {}).get(sender, Where.at())
        if not cut.is_nowhere:
            ablated[sender, receiver] = cut
    m = model(family, exactly=True)
    prompts = random_prompts(4, LENGTHS)
    experiment = keeping(kept, SOURCES["resample"], shape)
    with borrowed(m):
        found = runner(m, task_of(prompts)).run([experiment])[experiment]
    expected = oracle_edges(m, prompts, ablated, SOURCES["resample"], "clean")
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=TOLERANCE, err_msg=f"{family} {name}")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stream_without_anything_on_it_holds_no_rounding_error(family: str) -> None:
    """Nearly all edges ablated to zeros, in float32 as models come: a norm would make what rounding leaves as large
    as anything. The oracle computes in float64."""
    exact = model(family, exactly=True)
    m = copy.deepcopy(model(family, exactly=False)).float()
    shape = loaded(exact).shape
    prompts = random_prompts(4, LENGTHS)
    rng = np.random.default_rng(6)
    every = every_edge(shape)
    none_kept = dict.fromkeys(every, Where.everywhere())
    few_kept = {edge: where for edge, where in none_kept.items() if rng.random() < 0.9 or edge[0] == Input()}
    experiments = {key: experiment_of(ablated, SOURCES["zero"]) for key, ablated in enumerate((none_kept, few_kept))}
    with borrowed(m):
        records = runner(m, task_of(prompts)).run(experiments.values())
    for key, ablated in enumerate((none_kept, few_kept)):
        expected = oracle_edges(exact, prompts, ablated, SOURCES["zero"], "clean")
        for name in ("logit_diff", "logprob", "kl"):
            found = records[experiments[key]][name]
            np.testing.assert_allclose(found, expected[name], rtol=0, atol=2e-4, err_msg=f"{family} {name}")


def test_a_stream_that_is_no_sum_of_its_senders_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Something that is added to the stream and is nobody's would silently be lost with zeros."""
    m = model("gpt2", exactly=True)
    experiment = experiment_of({(Input(), Receiver(Logits())): Where.at("A")}, SOURCES["zero"])
    run = runner(m, task_of(random_prompts(4, LENGTHS)))
    monkeypatch.setattr(Stream, "attention_biases", lambda self, layers: 0.1)
    with borrowed(m), pytest.raises(CircuitspecError, match=r"CS503.*is not the residual stream"):
        run.run([experiment])
