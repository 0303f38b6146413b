"""Positions of several tokens: against the oracle, against hooks written by hand, and with noise."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from circuitspec.engine.ablation.embedding_noise import noise
from circuitspec.engine.attribution.restoration_screen import screen_restorations
from circuitspec.engine.execution.batches import make_batches
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.scheduling.batched_sweep import ENOUGH
from circuitspec.experiments.averaging import grouping
from circuitspec.experiments.experiment import Experiment, Noised, Site, Source
from circuitspec.experiments.levels.path_level import path_set, travelling
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Mlp, Resid
from circuitspec.prompts.prompt_set import TokenizedTask
from tests.engine.support import TOLERANCE, assert_same, loaded, model, random_prompts, runner, task_of
from tests.engine.test_edges_against_oracle import every_edge, experiment_of, oracle_receiver, oracle_sender
from tests.engine.test_paths_against_oracle import FILE, FINAL, LOGITS, declared, stop
from tests.oracle import edge, families, metrics, node, tree

LENGTHS = [6, 8, 6, 7]
SPANS = ((0, 1, 2), (3, 5), (4,), (1, 2, 3))  # of each prompt: as many tokens as it takes, not always side by side
FAMILIES = ("gpt2", "gpt_neox", "llama")


def prompts_and_task(seed: int) -> tuple[list[node.Prompt], TokenizedTask]:
    prompts = random_prompts(seed, LENGTHS)
    for prompt, tokens in zip(prompts, SPANS, strict=True):
        prompt.roles["A"] = tokens[-1]
    return prompts, dataclasses.replace(task_of(prompts), spans={"A": SPANS})


def oracle(net: Any, prompts: list[node.Prompt], sites: list[tuple[Any, Where]], *, noising: bool) -> dict[str, Any]:
    rows = []
    for prompt, span in zip(prompts, SPANS, strict=True):
        base, source = (prompt.clean, prompt.corrupt) if noising else (prompt.corrupt, prompt.clean)
        values = node.forward(net, source, record=True).values
        patches = {}
        for component, where in sites:
            named = {t for role in where.roles for t in (span if role == "A" else (prompt.roles[role],))}
            places = [t for t in range(len(base)) if (t in named) != where.inverted]
            patches.update({(component, t): values[component][t] for t in places})
        clean = node.forward(net, prompt.clean).logits[-1].numpy()
        logits = node.forward(net, base, patches).logits[-1].numpy()
        rows.append(metrics.metrics(logits, prompt.answers, prompt.wrong, clean))
    return metrics.columns(rows)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", FAMILIES)
def test_components_are_patched_at_all_tokens_of_a_span(family: str, side: str) -> None:
    prompts, task = prompts_and_task(seed=31)
    net = families.read(model(family))
    cases: list[tuple[Any, Any, Where]] = [
        (Head(0, 1), ("head", 0, 1), Where.at("A")),
        (Mlp(0), ("mlp", 0), Where.except_at("A")),
        (Head(1, 0), ("head", 1, 0), Where.at("A", "END")),
        (Resid(1), ("resid", 1, "pre"), Where.at("A")),
    ]
    for noising in (True, False):
        base, source = ("clean", "abc") if noising else ("abc", "clean")
        for chosen in (cases[:3], cases[3:]):
            experiment = Experiment(
                base, Source("resample", source), frozenset(Site(c, where) for c, _, where in chosen)
            )
            with borrowed(model(family)):
                found = runner(model(family), task, rows=3, side=side).run([experiment])[experiment]
            assert_same(found, oracle(net, prompts, [(c, where) for _, c, where in chosen], noising=noising))


def test_many_components_are_swept_at_a_span() -> None:
    """In few forwards that begin at the span's first token."""
    prompts, task = prompts_and_task(seed=37)
    made = model("gpt2")
    shape = loaded(made).shape
    heads = [Head(layer, head) for layer in range(shape.n_layers) for head in range(shape.n_heads)]
    swept = {
        head: Experiment("clean", Source("resample", "abc"), frozenset({Site(head, Where.at("A"))})) for head in heads
    }
    assert len(swept) >= ENOUGH
    with borrowed(made):
        found = runner(made, task).run(list(swept.values()))
    net = families.read(made)
    for head in heads[:: len(heads) // 4]:
        expected = oracle(net, prompts, [(("head", head.layer, head.head), Where.at("A"))], noising=True)
        assert_same(found[swept[head]], expected)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_span_is_what_hooks_written_by_hand_patch(family: str) -> None:
    """One head of layer 1, at the tokens of the span, one prompt after the other."""
    made = model(family)
    prompts, task = prompts_and_task(seed=32)
    experiment = Experiment("clean", Source("resample", "abc"), frozenset({Site(Head(1, 2), Where.at("A"))}))
    with borrowed(made):
        found = runner(made, task).run([experiment])[experiment]
    shape = loaded(made).shape
    width = shape.d_head
    projection = made.transformer.h[1].attn.c_proj if family == "gpt2" else made.model.layers[1].self_attn.o_proj
    here = slice(2 * width, 3 * width)
    for i, (prompt, span) in enumerate(zip(prompts, SPANS, strict=True)):
        kept: list[torch.Tensor] = []
        handle = projection.register_forward_pre_hook(lambda _, args, kept=kept: kept.append(args[0].clone()))
        with torch.no_grad():
            made(torch.tensor([prompt.corrupt]))
        handle.remove()

        def patch(_: Any, args: Any, kept: Any = kept, span: Any = span) -> Any:
            z = args[0].clone()
            z[:, list(span), here] = kept[0][:, list(span), here]
            return (z,)

        handle = projection.register_forward_pre_hook(patch)
        with torch.no_grad():
            logits = made(torch.tensor([prompt.clean])).logits[0, -1]
        handle.remove()
        expected = float(logits[list(prompt.answers)].mean() - logits[list(prompt.wrong)].mean())
        assert abs(float(found["logit_diff"][i]) - expected) < TOLERANCE


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox"])
def test_edges_are_cut_at_all_tokens_of_a_span(family: str) -> None:
    made = model(family, exactly=True)
    prompts, task = prompts_and_task(seed=33)
    every = every_edge(loaded(made).shape)
    ablated = {every[i]: (Where.at("A"), Where.except_at("A"))[i % 2] for i in range(0, len(every), 3)}
    experiment = experiment_of(ablated, Source("resample", "abc"))
    with borrowed(made):
        found = runner(made, task).run([experiment])[experiment]
    net = families.read(made)
    expected = []
    for prompt, span in zip(prompts, SPANS, strict=True):
        everywhere = set(range(len(prompt.clean)))
        kept: dict[Any, Any] = dict.fromkeys(edge.edges(net))
        for (sender, receiver), where in ablated.items():
            kept[oracle_sender(sender), oracle_receiver(receiver)] = {*span} if where.inverted else everywhere - {*span}
        contributions = edge.contributions(net, prompt.corrupt)
        logits = edge.edge_run(net, prompt.clean, contributions, kept).logits[-1].numpy()
        expected.append(logits[prompt.answers].mean() - logits[prompt.wrong].mean())
    np.testing.assert_allclose(found["logit_diff"], expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox"])
def test_paths_lead_through_all_tokens_of_a_span(family: str) -> None:
    """Head 0.1 at the span to the keys and values of head 1.0, MLP 2 at the span, and both to the logits."""
    made = model(family, exactly=True)
    prompts, task = prompts_and_task(seed=38)
    at = Where.at("A")
    first, second, mlp = stop(Head(0, 1), at), stop(Head(1, 0), ports=("k", "v")), stop(Mlp(2), at)
    paths = [declared((first,), (second,), (LOGITS,)), declared((mlp,), (LOGITS,))]
    readings = path_set(paths, loaded(made).shape, FILE)
    experiment = travelling("clean", Source("resample", "abc"), readings, paths, through=(), keep=True)
    with borrowed(made):
        found = runner(made, task).run([experiment])[experiment]
    net = families.read(made)
    expected = []
    for prompt, span in zip(prompts, SPANS, strict=True):
        chains: list[list[tree.Hop]] = [
            [(("head", 0, 1), None, frozenset(span)), (("head", 1, 0), frozenset({"k", "v"}), None), FINAL],
            [(("mlp", 2), None, frozenset(span)), FINAL],
        ]
        kept, frozen = (node.resample_values(net, ids) for ids in (prompt.clean, prompt.corrupt))
        logits = tree.tree(net, prompt.clean, chains, kept, frozen, ())[-1].numpy()
        expected.append(logits[prompt.answers].mean() - logits[prompt.wrong].mean())
    np.testing.assert_allclose(found["logit_diff"], expected, rtol=0, atol=TOLERANCE)


def test_noise_is_added_at_all_tokens_of_a_span() -> None:
    _, task = prompts_and_task(seed=34)
    for number, batch in enumerate(make_batches(task.lengths, 1)):
        noisy = noise(task, batch, Noised(3.0, Where.at("A"), draws=1, seed=0), 0, 16)[0].any(-1)
        (prompt,) = batch.prompts
        assert tuple(noisy.nonzero()[:, 0].tolist()) == SPANS[prompt], number


def test_the_estimate_at_a_span_is_the_sum_over_its_tokens() -> None:
    """Of each component the screen tells how much falls on a position: on one of all tokens, the whole effect."""
    made = model("gpt2")
    _, task = prompts_and_task(seed=35)
    whole = dataclasses.replace(task, spans={"A": tuple((*range(n),) for n in LENGTHS)})
    sites = frozenset({Site(Mlp(0), Where.everywhere()), Site(Head(0, 1), Where.everywhere())})
    experiment = Experiment("clean", Source("resample", "abc"), sites)
    with borrowed(made):
        found = screen_restorations(runner(made, whole), experiment, "logit_diff")
        single = screen_restorations(runner(made, task_of(random_prompts(35, LENGTHS))), experiment, "logit_diff")
    for component in (Mlp(0), Head(0, 1)):
        assert found.by_role[component]["A"] == pytest.approx(float(found.effects[component].mean()), abs=TOLERANCE)
        assert found.by_role[component]["END"] == pytest.approx(single.by_role[component]["END"], abs=TOLERANCE)


def test_means_are_over_prompts_whose_spans_are_alike() -> None:
    prompts = random_prompts(36, [6] * 4)
    for prompt in prompts:
        prompt.roles.update(A=3, B=1)
    task = task_of(prompts)
    assert len(set(grouping(task, "mean_per_template").scored)) == 1
    apart = dataclasses.replace(task, spans={"A": ((2, 3), (2, 3), (1, 2, 3), (1, 2, 3))})
    assert grouping(apart, "mean_per_template").scored in ((0, 0, 1, 1), (1, 1, 0, 0))
