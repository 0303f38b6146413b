"""Attribution against finite differences of the oracle's own runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from circuitspec.engine.attribution.node_attribution import attribute, attribution_passes
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.experiments.experiment import Source
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Mlp, Resid
from tests.engine.support import FAMILIES, gradual_parts, model, oracle_component, random_prompts, runner, task_of
from tests.engine.test_noise import NOISE, drawn
from tests.oracle import families, metrics, node

COMPONENTS = (Head(0, 1), Head(2, 0), Mlp(1), Resid(1))
WHERES = (Where.everywhere(), Where.at("A"))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["resample", "zero"])
def test_estimates_are_derivatives_along_the_patch(family: str, kind: str) -> None:
    """Moving a value a small share of the way to the patched one changes the metric by that share of the estimate."""
    m = model(family, exactly=True)
    net = families.read(m)
    prompts = random_prompts(31, [5, 7, 6])
    source = Source("resample", "abc") if kind == "resample" else Source("zero", None)
    components = (*COMPONENTS, *gradual_parts(m, (0, 2)))
    with borrowed(m):
        found = attribute(runner(m, task_of(prompts), rows=2), "clean", source, "logit_diff", components, WHERES)
    step = 1e-5
    for component in components:
        one = oracle_component(component)
        for where in WHERES:
            slopes = []
            for prompt in prompts:
                own = node.resample_values(net, prompt.clean)[one]
                other = node.resample_values(net, prompt.corrupt)[one] if kind == "resample" else 0 * own
                positions = range(len(prompt.clean)) if where.is_everywhere else [prompt.roles["A"]]
                ends = []
                for share in (step, -step):
                    moved = {(one, p): own[p] + share * (other[p] - own[p]) for p in positions}
                    logits = node.forward(net, prompt.clean, moved).logits[-1].numpy()
                    ends.append(metrics.metrics(logits, prompt.answers, prompt.wrong, logits)["logit_diff"])
                slopes.append((ends[0] - ends[1]) / (2 * step))
            expected = float(np.mean(slopes))
            assert found.effects[component, where] == pytest.approx(expected, rel=1e-4, abs=1e-7), (component, where)
        np.testing.assert_allclose(
            found.per_prompt[component].mean(), found.effects[component, Where.everywhere()], atol=1e-12
        )


def test_kl_is_compared_with_the_clean_run() -> None:
    """Clean values moved into the corrupt run, and how far that brings it to the clean run's distribution."""
    m = model("gpt2", exactly=True)
    net = families.read(m)
    prompts = random_prompts(31, [5, 7, 6])
    heads = COMPONENTS[:3]
    back = Source("resample", "clean")
    with borrowed(m):
        run = runner(m, task_of(prompts), rows=2)
        found = attribute(run, "abc", back, "kl", heads, WHERES)
        assert run.forwards == attribution_passes(back, compared=True)
        before = run.forwards
        attribute(run, "abc", back, "kl", heads, [], steps=2)
        assert run.forwards - before == attribution_passes(back, 2, compared=True)
    step = 1e-5
    for component in heads:
        one = oracle_component(component)
        for where in WHERES:
            slopes = []
            for prompt in prompts:
                own = node.resample_values(net, prompt.corrupt)[one]
                other = node.resample_values(net, prompt.clean)[one]
                clean = node.forward(net, prompt.clean).logits[-1].numpy()
                positions = range(len(prompt.clean)) if where.is_everywhere else [prompt.roles["A"]]
                ends = []
                for share in (step, -step):
                    moved = {(one, p): own[p] + share * (other[p] - own[p]) for p in positions}
                    logits = node.forward(net, prompt.corrupt, moved).logits[-1].numpy()
                    ends.append(metrics.metrics(logits, prompt.answers, prompt.wrong, clean)["kl"])
                slopes.append((ends[0] - ends[1]) / (2 * step))
            assert found.effects[component, where] == pytest.approx(np.mean(slopes), rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("metric", ["accuracy", "rank"])
def test_what_moves_in_steps_has_no_gradient(metric: str) -> None:
    m = model("gpt2", exactly=True)
    run = runner(m, task_of(random_prompts(5, [6])))
    with borrowed(m), pytest.raises(ValueError, match=f"{metric} is discrete"):
        attribute(run, "clean", Source("zero", None), metric, [Head(0, 0)], [])


def test_integrated_gradients_sum_to_the_whole_difference() -> None:
    """Completeness: along the straight line between two inputs, the input's attributions add up to the difference."""
    m = model("gpt2", exactly=True)
    prompts = random_prompts(5, [6, 6])
    source = Source("resample", "abc")
    with borrowed(m):
        run = runner(m, task_of(prompts))
        found = attribute(run, "clean", source, "logit_diff", [Resid(0)], [Where.everywhere()], steps=150)
    net = families.read(m)
    differences = []
    for prompt in prompts:
        ends = [node.forward(net, ids).logits[-1].numpy() for ids in (prompt.corrupt, prompt.clean)]
        corrupt, clean = (metrics.metrics(x, prompt.answers, prompt.wrong, x)["logit_diff"] for x in ends)
        differences.append(corrupt - clean)
    assert found.effects[Resid(0), Where.everywhere()] == pytest.approx(np.mean(differences), abs=1e-3)


def test_its_cost_is_counted() -> None:
    m = model("gpt2", exactly=True)
    prompts = random_prompts(5, [6, 6, 6])
    for source, steps in ((Source("resample", "abc"), 1), (Source("zero", None), 1), (Source("resample", "abc"), 3)):
        with borrowed(m):
            run = runner(m, task_of(prompts))
            attribute(run, "clean", source, "logit_diff", [Head(0, 0)], [], steps=steps)
        assert run.forwards == attribution_passes(source, steps)


def test_only_runs_can_be_interpolated() -> None:
    m = model("gpt2", exactly=True)
    run = runner(m, task_of(random_prompts(5, [6])))
    with borrowed(m), pytest.raises(ValueError, match="interpolated"):
        attribute(run, "clean", Source("zero", None), "logit_diff", [Head(0, 0)], [], steps=2)


@pytest.mark.parametrize("noising", [True, False])
def test_noise_is_averaged_over_its_draws(noising: bool) -> None:
    """Noising from the clean run with noise, and denoising that run: mean slopes over the draws, by the oracle."""
    m = model("llama", exactly=True)
    net = families.read(m)
    prompts = random_prompts(33, [5, 6])
    task = task_of(prompts)
    base, source = ("clean", Source("resample", NOISE)) if noising else (NOISE, Source("resample", "clean"))
    with borrowed(m):
        run = runner(m, task, rows=2)
        found = attribute(run, base, source, "logit_diff", COMPONENTS[:3], WHERES)
        assert run.forwards == attribution_passes(source, draws=NOISE.draws)
    unit = float(net.embed.std(unbiased=False)) * net.embed_scale
    for component in COMPONENTS[:3]:
        one = oracle_component(component)
        for where in WHERES:
            slopes = []
            for number, prompt in enumerate(prompts):
                for draw in range(NOISE.draws):
                    clean = node.forward(net, prompt.clean, record=True).values
                    added = torch.from_numpy(NOISE.std * unit * drawn(task, NOISE, draw, number, net.embed.shape[1]))
                    noise = {(("input",), p): clean["input",][p] + added[p] for p in range(len(prompt.clean))}
                    noised = node.forward(net, prompt.clean, noise, record=True).values
                    own, other = (clean, noised) if noising else (noised, clean)
                    positions = range(len(prompt.clean)) if where.is_everywhere else [prompt.roles["A"]]
                    ends = []
                    for share in (1e-5, -1e-5):
                        moved = {(one, p): own[one][p] + share * (other[one][p] - own[one][p]) for p in positions}
                        patches = moved if noising else {**noise, **moved}
                        logits = node.forward(net, prompt.clean, patches).logits[-1].numpy()
                        ends.append(metrics.metrics(logits, prompt.answers, prompt.wrong, logits)["logit_diff"])
                    slopes.append((ends[0] - ends[1]) / 2e-5)
            assert found.effects[component, where] == pytest.approx(np.mean(slopes), rel=1e-4, abs=1e-7)


def test_noise_has_no_inputs_between() -> None:
    m = model("gpt2", exactly=True)
    run = runner(m, task_of(random_prompts(5, [6])))
    with borrowed(m), pytest.raises(ValueError, match="interpolated"):
        attribute(run, NOISE, Source("resample", "clean"), "logit_diff", [Head(0, 0)], [], steps=2)


def test_the_only_layer_cannot_be_dropped() -> None:
    m = model("gpt2", exactly=True, layers=1)
    run = runner(m, task_of(random_prompts(5, [6])))
    with borrowed(m), pytest.raises(ValueError, match="nothing is left"):
        attribute(run, "clean", Source("resample", "abc"), "logit_diff", [Head(0, 0)], [], dropping=True)
