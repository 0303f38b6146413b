"""Attention patterns read and patched: against the oracle, which multiplies weights by values in plain torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.execution.batches import Batch
from circuitspec.engine.execution.compiler import Actions, borrowed
from circuitspec.engine.execution.taps import Tap
from circuitspec.experiments.experiment import CLEAN_VALUES, ZEROS, Experiment, Noised, Site, Source, values_in
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import AttentionPattern, Head, KvHead, Mlp
from tests.engine.support import (
    TOLERANCE,
    WITH_PATTERNS,
    loaded,
    model,
    oracle_records,
    random_prompts,
    runner,
    task_of,
)
from tests.oracle import node


def sites(*given: tuple[Any, Where]) -> frozenset[Site]:
    return frozenset(Site(component, where) for component, where in given)


def experiments() -> dict[str, Experiment]:
    end, both = Where.at("END"), Where.at("A", "END")
    one = sites((AttentionPattern(1, 1), end))
    several = sites(
        (AttentionPattern(0, 0), Where.everywhere()), (AttentionPattern(0, 2), both), (AttentionPattern(1, 3), ~end)
    )
    mixed = sites((AttentionPattern(0, 1), both), (KvHead(0, 0), Where.at("B")), (Head(1, 0), end), (Mlp(0), end))
    return {
        "noising one": Experiment("clean", values_in("abc"), one),
        "denoising one": Experiment("abc", CLEAN_VALUES, one),
        "noising several": Experiment("clean", values_in("abc"), several),
        "denoising several": Experiment("abc", CLEAN_VALUES, several),
        "noising with its values, a head and an MLP": Experiment("clean", values_in("abc"), mixed),
        "denoising with its values, a head and an MLP": Experiment("abc", CLEAN_VALUES, mixed),
    }


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", WITH_PATTERNS)
def test_patched_patterns(family: str, side: str) -> None:
    """Prompts of several lengths in one batch, more tokens than a head has channels, windows and caps as they come."""
    random = model(family)
    prompts = random_prompts(seed=8, lengths=[9, 5, 7, 9])
    wanted = experiments()
    with borrowed(random):
        records = runner(random, task_of(prompts), rows=3, side=side).run(wanted.values())
    for name, experiment in wanted.items():
        for metric, expected in oracle_records(random, prompts, experiment).items():
            assert np.abs(records[experiment][metric] - expected).max() < TOLERANCE, (name, metric)


@pytest.mark.parametrize("family", WITH_PATTERNS)
def test_patterns_are_read_as_they_are(family: str) -> None:
    random = model(family)
    prompts = random_prompts(seed=9, lengths=[9, 6])
    with borrowed(random):
        run = runner(random, task_of(prompts))
        taps = frozenset(Tap(layer, "pattern") for layer in run.loaded.shape.layers_with_heads)
        plain, _ = run.forward(Batch((0, 1), (9, 6), 9, "right"), "clean", Actions())
        logits, found = run.forward(Batch((0, 1), (9, 6), 9, "right"), "clean", Actions(record=taps))
    assert torch.equal(plain, logits)  # reading changes nothing
    for row, prompt in enumerate(prompts):
        n = len(prompt.clean)
        for (layer, head), expected in node.forward(random, prompt.clean, record=True).patterns.items():
            pattern = found[Tap(layer, "pattern")].view(2, 9, run.loaded.shape.n_heads, 9)[row, :n, head, :n]
            assert float((pattern - expected).abs().max()) < TOLERANCE


def test_own_patterns_change_nothing() -> None:
    """Where z is replaced by the sum that it is, in every head."""
    random = model("llama")
    prompts = random_prompts(seed=10, lengths=[7, 7])
    shape = loaded(random).shape
    heads = [(layer, head) for layer in range(shape.n_layers) for head in range(shape.n_heads)]
    every = sites(*((AttentionPattern(*one), Where.everywhere()) for one in heads))
    own = Experiment("clean", values_in("clean"), every)
    with borrowed(random):
        records = runner(random, task_of(prompts)).run([own, Experiment("clean")])
    for metric, values in records[Experiment("clean")].items():
        assert np.abs(records[own][metric] - values).max() < TOLERANCE


def test_noise() -> None:
    random = model("gpt2")
    prompts = random_prompts(seed=11, lengths=[6, 6])
    noised = Noised(1.0, Where.at("A"), 2, 0)
    experiment = Experiment(noised, CLEAN_VALUES, sites((AttentionPattern(1, 0), Where.at("END"))))
    back = Experiment("clean", values_in(noised), sites((AttentionPattern(1, 0), Where.at("END"))))
    with borrowed(random):
        records = runner(random, task_of(prompts)).run([experiment, back, Experiment(noised)])
    assert not np.allclose(records[experiment]["logit"], records[Experiment(noised)]["logit"])
    assert np.isfinite(records[back]["logit"]).all()


@pytest.mark.parametrize("source", [ZEROS, Source("mean", "abc")], ids=str)
def test_a_pattern_is_that_of_a_run(source: Source) -> None:
    random = model("gpt2")
    experiment = Experiment("clean", source, sites((AttentionPattern(1, 0), Where.at("END"))))
    with borrowed(random), pytest.raises(CircuitspecError) as error:
        runner(random, task_of(random_prompts(seed=1, lengths=[5, 5]))).run([experiment])
    assert error.value.diagnostics[0].code == "CS519"


def test_prompts_of_other_lengths_are_refused() -> None:
    random = model("gpt2")
    task = task_of(random_prompts(seed=1, lengths=[5, 5]))
    shorter = replace(task, ids={**task.ids, "abc": tuple(ids[:-1] for ids in task.ids["abc"])})
    experiment = Experiment("clean", values_in("abc"), sites((AttentionPattern(1, 0), Where.at("END"))))
    with borrowed(random), pytest.raises(CircuitspecError) as error:
        runner(random, shorter).run([experiment])
    assert error.value.diagnostics[0].code == "CS514"


def test_values_that_are_changed_behind_their_projection_are_refused() -> None:
    """A layer whose heads are scaled after the attention: what they give is no weighted sum of the values."""
    random = model("llama", seed=5)
    own = random.model.layers[0].self_attn.o_proj
    scaling = own.register_forward_pre_hook(lambda module, given: (given[0] * 1.5,), prepend=True)
    try:
        experiment = Experiment("clean", values_in("abc"), sites((AttentionPattern(1, 0), Where.at("END"))))
        with borrowed(random, keep_hooks=True), pytest.raises(CircuitspecError) as error:
            runner(random, task_of(random_prompts(seed=1, lengths=[5, 5]))).run([experiment])
    finally:
        scaling.remove()
    assert error.value.diagnostics[0].code == "CS520"
