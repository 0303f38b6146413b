"""Direct effects against the oracle's contributions, and against the metric that they add up to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.attribution import direct_logit_attribution as direct
from circuitspec.engine.attribution.direct_contributions import DirectRun, Part
from circuitspec.engine.attribution.direct_logit_attribution import PLAIN, direct_effects, direct_passes
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.experiments.experiment import Experiment, Noised, Site, Source
from circuitspec.graph.edges import senders
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, KvHead, Mlp, Neuron, Resid
from tests.engine.support import WITH_NEURONS, model, oracle_component, oracle_sites, random_prompts, runner, task_of
from tests.oracle import edge, families, node

LENGTHS = [5, 7, 6]
NEURONS = (Neuron(0, 3), Neuron(2, 5))
EVERYWHERE, AT_END, AT_A = Where.everywhere(), Where.at("END"), Where.at("A")
SITES = (Site(Head(0, 1), EVERYWHERE), Site(Head(2, 0), AT_END), Site(Mlp(1), AT_END), Site(Neuron(0, 3), EVERYWHERE))


def knocked_out(source: Source, *sites: Site) -> Experiment:
    return Experiment("clean", source, frozenset(sites or SITES))


def expected(m: Any, prompt: node.Prompt, metric: str, experiment: Experiment) -> tuple[dict[Any, float], float]:
    """Every contribution of a run times the metric's direction behind the clean run's norm; and the clean metric."""
    net = families.read(m)
    final = node.forward(net, prompt.clean, record=True).values["resid", len(net.layers), "pre"][-1]
    norm, answers, wrong = net.final_norm, net.unembed[:, prompt.answers], net.unembed[:, prompt.wrong]
    direction = answers.mean(1) - (wrong.mean(1) if metric == "logit_diff" else 0)
    tokens = net.unembed_bias[prompt.answers].mean()
    if metric == "logit_diff":
        tokens = tokens - net.unembed_bias[prompt.wrong].mean()
    direction, tokens = direction * net.logit_scale, tokens * net.logit_scale
    centred = final - final.mean() if norm.bias is not None else final
    divisor = torch.sqrt((centred * centred).mean() + norm.eps)

    def seen(x: torch.Tensor) -> float:
        x = x - x.mean() if norm.bias is not None else x
        return float(x / divisor * norm.weight @ direction)

    source = experiment.source
    values = {} if source is None else node.resample_values(net, prompt.corrupt)
    if source is not None and source.prompts is None:
        values = node.zero_values(net, len(prompt.clean))
    patches = {(c, p): values[c][p] for c, p in oracle_sites(prompt, experiment)}
    effects = {c: seen(x[-1]) for c, x in edge.contributions(net, prompt.clean, patches).items()}
    run = node.forward(net, prompt.clean, patches, record=True)
    for neuron in NEURONS:
        layer = net.layers[neuron.layer]
        value = run.values["neuron", neuron.layer, neuron.index][-1]
        if (together := layer.mlp.neuron_norm) is not None:
            every = torch.stack([run.values["neuron", neuron.layer, n][-1] for n in range(len(layer.mlp.w_out))])
            value = value / torch.sqrt((every * every).mean() + together.eps) * together.weight[neuron.index]
        written = value * layer.mlp.w_out[neuron.index]
        if layer.post_mlp is not None:
            out = run.values["mlp", neuron.layer][-1]
            written = written / torch.sqrt((out * out).mean() + layer.post_mlp.eps) * layer.post_mlp.weight
        written = written * layer.scale
        effects[oracle_component(neuron)] = seen(written)
        effects["mlp", neuron.layer] -= seen(written)
    constant = sum((seen(layer.attention.bo * layer.scale) for layer in net.layers), 0.0) + float(tokens)
    constant += 0.0 if norm.bias is None else float(norm.bias @ direction)
    return effects, constant


def of(run: DirectRun, part: Part, prompt: int) -> float:
    return float(run.effects[part][prompt])


@pytest.mark.parametrize("family", WITH_NEURONS)
@pytest.mark.parametrize("metric", ["logit_diff", "logit"])
def test_direct_effects_are_contributions_through_the_clean_runs_norm(family: str, metric: str) -> None:
    """Two answers on either side, prompts of different lengths, heads, MLPs and neurons; clean and patched runs."""
    m = model(family, exactly=True)
    prompts = random_prompts(31, LENGTHS)
    resampled, zeroed = knocked_out(Source("resample", "abc")), knocked_out(Source("zero", None))
    with borrowed(m):
        found = direct_effects(runner(m, task_of(prompts), rows=2), [resampled, zeroed], metric, NEURONS)
    assert set(found) == {PLAIN, resampled, zeroed}
    for experiment, run in found.items():
        for i, prompt in enumerate(prompts):
            effects, constant = expected(m, prompt, metric, experiment)
            assert {oracle_component(part): of(run, part, i) for part in run.effects} == pytest.approx(
                effects, rel=0, abs=1e-9
            )
            assert float(run.constant[i]) == pytest.approx(constant, rel=0, abs=1e-9)


@pytest.mark.parametrize("family", WITH_NEURONS)
def test_they_add_up_to_the_clean_logit_difference(family: str) -> None:
    """Of a Gemma 2, whose logits are capped, to what it is before the cap."""
    m = model(family, exactly=True)
    net = families.read(m)
    prompts = random_prompts(7, LENGTHS)
    with borrowed(m):
        clean = direct_effects(runner(m, task_of(prompts)), [], "logit_diff")[PLAIN]
    for i, prompt in enumerate(prompts):
        final = node.forward(net, prompt.clean, record=True).values["resid", len(net.layers), "pre"][-1]
        logits = (net.final_norm(final) @ net.unembed + net.unembed_bias) * net.logit_scale
        difference = float(logits[prompt.answers].mean() - logits[prompt.wrong].mean())
        assert float(clean.total[i]) == pytest.approx(difference, rel=0, abs=1e-9)
        assert float(clean.metric[i]) == pytest.approx(difference, rel=0, abs=1e-9)


def test_what_is_patched_at_the_answer_is_told() -> None:
    """Per prompt: the role A may fall on the last token."""
    m = model("gpt2", exactly=True)
    prompts = random_prompts(5, [6, 6, 6, 6])
    prompts[1].roles["A"] = 5
    prompts[2].roles["A"] = 0
    sites = (Site(Head(0, 1), AT_A), Site(Mlp(2), AT_END), Site(Neuron(0, 3), EVERYWHERE), Site(KvHead(1, 0), AT_END))
    experiment = knocked_out(Source("zero", None), *sites)
    with borrowed(m):
        run = direct_effects(runner(m, task_of(prompts)), [experiment], "logit_diff", NEURONS)[experiment]
    assert set(run.patched) == {Head(0, 1), Mlp(2), Neuron(2, 5), Neuron(0, 3)}
    assert run.patched[Head(0, 1)].tolist() == [p.roles["A"] == 5 for p in prompts]
    assert run.patched[Mlp(2)].all()
    np.testing.assert_allclose(run.effects[Neuron(0, 3)], 0, atol=1e-12)
    np.testing.assert_allclose(run.effects[Mlp(2)] + run.effects[Neuron(2, 5)], 0, atol=1e-12)


def test_the_metric_beside_them_is_that_of_the_run() -> None:
    m = model("llama", exactly=True)
    experiment = knocked_out(Source("mean", "abc"), Site(Head(1, 2), EVERYWHERE))
    with borrowed(m):
        run = runner(m, task_of(random_prompts(5, [6, 6, 6])))
        found = direct_effects(run, [experiment], "logit_diff")
        records = run.run([PLAIN, experiment])
    for one in (PLAIN, experiment):
        np.testing.assert_allclose(found[one].metric, records[one]["logit_diff"], atol=1e-9)


def test_draws_of_noise_are_averaged() -> None:
    m = model("gpt2", exactly=True)
    prompts = random_prompts(5, LENGTHS)
    noised = Noised(1.0, EVERYWHERE, 3, 0)
    experiment = knocked_out(Source("resample", noised), Site(Head(1, 2), EVERYWHERE))
    with borrowed(m):
        run = runner(m, task_of(prompts))
        found = direct_effects(run, [experiment], "logit_diff")
        records = run.run([experiment])
    np.testing.assert_allclose(found[experiment].metric, records[experiment]["logit_diff"], atol=1e-9)


@pytest.mark.parametrize(
    "experiments",
    [
        (),
        (knocked_out(Source("resample", "abc")), knocked_out(Source("resample", "abc"), SITES[0])),
        (knocked_out(Source("zero", None)),),
        (knocked_out(Source("mean", "abc")),),
        (knocked_out(Source("resample", Noised(1.0, EVERYWHERE, 3, 0))),),
    ],
)
def test_its_cost_is_counted(experiments: tuple[Experiment, ...]) -> None:
    m = model("gpt2", exactly=True)
    with borrowed(m):
        run = runner(m, task_of(random_prompts(5, [6, 6, 6])))
        direct_effects(run, experiments, "logit_diff")
    means = {e.source for e in experiments if e.source is not None and e.source.kind == "mean"}
    assert run.forwards == direct_passes(experiments) + len(means)
    assert run.progress.expected == run.progress.done  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("experiment", "metric", "why"),
    [
        (PLAIN, "prob", "linear"),
        (Experiment("abc"), "logit_diff", "clean prompts"),
        (knocked_out(Source("zero", None), Site(Resid(1), EVERYWHERE)), "logit_diff", "residual stream"),
    ],
)
def test_what_has_no_direct_effects(experiment: Experiment, metric: str, why: str) -> None:
    m = model("gpt2", exactly=True)
    run = runner(m, task_of(random_prompts(5, [6])))
    with borrowed(m), pytest.raises(ValueError, match=why):
        direct_effects(run, [experiment], metric)


def test_parts_that_do_not_add_up_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender that is forgotten."""
    m = model("gpt2", exactly=True)
    monkeypatch.setattr(direct, "senders", lambda shape: [s for s in senders(shape) if s != Mlp(1)])
    run = runner(m, task_of(random_prompts(5, [6])))
    with borrowed(m), pytest.raises(CircuitspecError) as error:
        direct_effects(run, [], "logit_diff")
    assert [d.code for d in error.value.diagnostics] == ["CS503"]
