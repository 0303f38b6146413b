"""Where a vocabulary is large, logits are computed after a forward, some at a time: the same numbers, less memory."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.attribution.node_attribution import attribute
from circuitspec.engine.execution.compiler import Actions, Compiler, borrowed
from circuitspec.engine.execution.memory import PeakMemory
from circuitspec.engine.execution.taps import Tap
from circuitspec.engine.execution.worked_out import readout
from circuitspec.engine.metrics.answer_shares import what_is_said
from circuitspec.engine.metrics.output_divergences import output_divergences
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import Experiment, Site, Source
from circuitspec.experiments.levels.edge_level import patching
from circuitspec.graph.edges import Receiver
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Logits, Mlp
from tests.engine import test_sweep
from tests.engine.support import (
    FAMILIES,
    Silent,
    assert_same,
    loaded,
    model,
    oracle_records,
    random_prompts,
    runner,
    task_of,
)
from tests.oracle import families, node

ALL = Where.everywhere()
OTHER = Source("resample", "abc")


@pytest.fixture
def computed_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any forward, and two rows of 60 tokens at a time."""
    monkeypatch.setattr(readout, "WHOLE_BYTES", 0)
    monkeypatch.setattr(readout, "PART_BYTES", 2 * 60 * 4)


@pytest.mark.usefixtures("computed_later")
@pytest.mark.parametrize("family", FAMILIES)
def test_metrics_are_the_oracles(family: str) -> None:
    """Of single runs and of sweeps from the middle, over rows of several lengths; caps and scales of logits too."""
    m = model(family)
    prompts = random_prompts(seed=71, lengths=[7, 5, 8])
    alone = Experiment("abc", Source("resample", "clean"), frozenset({Site(Mlp(0), Where.at("A"))}))
    swept = test_sweep.sweep_of(m, "clean", OTHER, seed=7, share=0.1)
    with borrowed(m):
        run = runner(m, task_of(prompts), rows=3)
        records = run.run([Experiment("clean"), alone, *swept])
    for experiment in (Experiment("clean"), alone, *swept[-3:]):
        assert_same(records[experiment], oracle_records(m, prompts, experiment))


@pytest.mark.usefixtures("computed_later")
@pytest.mark.parametrize("metric", ["logit_diff", "kl", "prob"])
def test_estimates_are_those_of_logits_at_once(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slopes through logits that are computed again for the gradient; `test_attribution` has the others' right."""
    m = model("gemma2")
    prompts = random_prompts(seed=72, lengths=[5, 6, 6])
    components = [Head(0, 1), Mlp(0), Head(1, 0)]
    with borrowed(m):
        later = attribute(
            runner(m, task_of(prompts), rows=3), "abc", Source("resample", "clean"), metric, components, []
        )
        monkeypatch.setattr(readout, "WHOLE_BYTES", 2**23)
        at_once = attribute(
            runner(m, task_of(prompts), rows=3), "abc", Source("resample", "clean"), metric, components, []
        )
    for component in components:
        np.testing.assert_allclose(later.per_prompt[component], at_once.per_prompt[component], rtol=0, atol=1e-12)
        assert np.abs(later.per_prompt[component]).max() > 1e-6


@pytest.mark.usefixtures("computed_later")
def test_distributions_are_the_oracles() -> None:
    """How far two runs lie apart and what the clean run says, over the whole vocabulary."""
    m = model("llama")
    net, prompts = families.read(m), random_prompts(seed=73, lengths=[5, 6, 6, 7])
    clean, corrupt = Experiment("clean"), Experiment("abc")
    with borrowed(m):
        run = runner(m, task_of(prompts), rows=4)
        (found,) = output_divergences(run, [(clean, corrupt)])
        said = what_is_said(run, [[[1, 2]] * 4])
    for i, prompt in enumerate(prompts):
        p, q = (node.forward(net, ids).logits[-1].double().log_softmax(-1) for ids in (prompt.clean, prompt.corrupt))
        assert found.forth[i] == pytest.approx(float((p.exp() * (p - q)).sum()), abs=1e-9)
        assert said.probabilities[0, i] == pytest.approx(float(p.exp()[[1, 2]].sum()), abs=1e-9)
        assert said.likeliest[i] == int(p.argmax())


N_VOCAB, ROWS = 131_072, 48
LOGITS = 4 * N_VOCAB * ROWS  # bytes, of one tensor in float32


def test_memory_is_not_set_by_logits() -> None:
    """48 prompts in a forward, 128k tokens: at no time is there a tensor of all their logits, let alone several.

    Neither in single runs, nor in sweeps, nor where gradients are taken.
    """
    m = copy.deepcopy(model("gpt2", vocab_size=N_VOCAB, n_positions=16)).float()
    task = task_of(random_prompts(seed=74, lengths=[6] * ROWS, vocab=N_VOCAB))
    swept = [Experiment("clean", OTHER, frozenset({Site(Head(1, h), Where.at("END"))})) for h in range(4)]
    edge = patching("clean", OTHER, {Receiver(Logits()): {Head(1, 0): ALL}})
    with borrowed(m):
        run = runner(m, task, rows=ROWS)
        for work in (
            lambda: run.run([Experiment("clean"), Experiment("abc"), edge]),
            lambda: run.run(swept),
            lambda: attribute(run, "abc", Source("resample", "clean"), "kl", [Head(0, 0)], []),
            lambda: output_divergences(run, [(Experiment("clean"), Experiment("abc"))]),
        ):
            with PeakMemory() as meter:
                work()
            assert meter.peak < LOGITS


class Shifted(Compiler):
    """A model whose unembedding gives other logits when it is run by itself."""

    def forward(self, inputs: Mapping[str, Any], actions: Actions) -> tuple[Tensor, dict[Tap, Tensor]]:
        logits, recorded = super().forward(inputs, actions)
        return (logits if actions.unembedded is None else logits + 0.1 * logits.std()), recorded


@pytest.mark.usefixtures("computed_later")
def test_logits_that_are_not_the_models_own_are_refused() -> None:
    m = model("gpt2")
    other = Shifted(m, loaded(m).architecture, loaded(m).shape)
    run = Runner(loaded(m), task_of(random_prompts(75, [5, 5])), rows=2, progress=Silent(), executor=other)
    with borrowed(m), pytest.raises(CircuitspecError, match="unembedding alone"):
        run.run([Experiment("clean")])


@pytest.mark.usefixtures("computed_later")
def test_logits_that_are_not_finite_name_the_prompt() -> None:
    """The row of the unembedding for one token is infinite: nothing that enters it is."""
    m = copy.deepcopy(model("gpt2"))
    m.lm_head.weight = torch.nn.Parameter(m.lm_head.weight.detach().clone())
    with borrowed(m):
        run = runner(m, task_of(random_prompts(76, [5, 5])), rows=2)
        run.run([Experiment("clean")])  # which checks the unembedding as it is
        with torch.no_grad():
            m.lm_head.weight[7] = torch.inf
        with pytest.raises(CircuitspecError, match="first in the logits"):
            run.run([Experiment("clean")])
