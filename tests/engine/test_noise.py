"""Gaussian noise on the token embeddings: against the oracle, and what a draw depends on."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from circuitspec.engine.ablation.embedding_noise import embedding_std, noise
from circuitspec.engine.execution.batches import make_batches
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.experiments.experiment import Experiment, Noised, Site, Source
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Mlp, Resid
from circuitspec.prompts.prompt_set import TokenizedTask
from circuitspec.prompts.tokens.tokenize import tokenize
from tests.engine.support import FAMILIES, Silent, assert_same, loaded, oracle_records, random_prompts, runner, task_of
from tests.engine.support import model as random_model
from tests.oracle import families
from tests.prompts.support import build, plain

NOISE = Noised(3.0, Where.at("A", "END"), draws=2, seed=5)
SITES = frozenset({Site(Head(0, 1), Where.everywhere()), Site(Resid(1), Where.at("A"))})
EXPERIMENTS = (
    Experiment(NOISE),
    Experiment("clean", Source("resample", NOISE), SITES),
    Experiment(NOISE, Source("resample", "clean"), SITES),
)


def words(known: str) -> PreTrainedTokenizerFast:
    """One token a word."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["<unk>", *known.split()])}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def drawn(task: TokenizedTask, noised: Noised, draw: int, prompt: int, width: int) -> np.ndarray:
    """The engine's standard normal draws for one prompt alone."""
    (batch,) = make_batches([task.lengths[prompt]], 1)
    alone = dataclasses.replace(batch, prompts=(prompt,))
    return noise(task, alone, noised, draw, width)[0].numpy()


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", FAMILIES)
def test_runs_with_noise(family: str, side: str) -> None:
    """The corrupt run itself, noising from it, and denoising it: means over the draws, prompt by prompt."""
    model = random_model(family, layers=2)
    prompts = random_prompts(seed=21, lengths=[6, 4, 7])
    task = task_of(prompts)
    net = families.read(model)
    unit = float(net.embed.std(unbiased=False)) * net.embed_scale

    def added(noised: Noised, draw: int, prompt: int) -> torch.Tensor:
        noise = torch.from_numpy(noised.std * unit * drawn(task, noised, draw, prompt, net.embed.shape[1]))
        if net.embed_norm is None:
            return noise
        embedded = net.embed[prompts[prompt].clean] * net.embed_scale
        return net.embed_norm(embedded + noise) - net.embed_norm(embedded)

    with borrowed(model):
        records = runner(model, task, rows=2, side=side).run(EXPERIMENTS)
    for experiment in EXPERIMENTS:
        assert_same(records[experiment], oracle_records(model, prompts, experiment, added))  # type: ignore[arg-type]


def test_noise_does_not_depend_on_batches() -> None:
    model = random_model("gpt2", layers=2)
    prompts = random_prompts(seed=22, lengths=[5, 7, 6, 7, 5])
    measured: list[Any] = []
    for rows in (1, 2, 5):
        with borrowed(model):
            measured.append(runner(model, task_of(prompts), rows=rows).run(EXPERIMENTS))
    for experiment in EXPERIMENTS:
        for other in measured[1:]:
            assert_same(other[experiment], dict(measured[0][experiment]))


def test_a_draw_depends_on_seed_draw_and_prompt_alone() -> None:
    task = task_of(random_prompts(seed=23, lengths=[40, 40]))
    everywhere = dataclasses.replace(NOISE, where=Where.everywhere())
    first = drawn(task, everywhere, 0, 0, 64)
    assert abs(first.mean()) < 0.1
    assert abs(first.std() - 1) < 0.05
    np.testing.assert_array_equal(first, drawn(task, dataclasses.replace(everywhere, draws=9, std=1.0), 0, 0, 64))
    for other in (
        drawn(task, everywhere, 1, 0, 64),
        drawn(task, everywhere, 0, 1, 64),
        drawn(task, dataclasses.replace(everywhere, seed=6), 0, 0, 64),
    ):
        assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.1
    at_a = drawn(task, dataclasses.replace(NOISE, where=Where.at("A")), 0, 0, 64)
    place = task.roles["A"][0]
    np.testing.assert_array_equal(at_a[place], first[place])  # the same, whether others are noised or not
    assert not np.delete(at_a, place, axis=0).any()


def test_a_slot_of_several_tokens_is_noised_whole() -> None:
    prompts = random_prompts(seed=24, lengths=[8])
    prompts[0].roles.update(A=5)
    task = dataclasses.replace(task_of(prompts), slot_tokens={"A": ((3, 4, 5),)})
    (batch,) = make_batches(task.lengths, 1)
    noisy = noise(task, batch, dataclasses.replace(NOISE, where=Where.at("A")), 0, 16)[0].any(-1)
    assert noisy.tolist() == [False, False, False, True, True, True, False, False]


def test_a_slot_is_noised_wherever_it_occurs() -> None:
    """With two words for A: an occurrence left as it is would keep what the noise is to hide."""
    task = tokenize(
        build(
            plain(
                templates=["{A} and {B} then {A} .", "one {A} of {B} ."],
                slots={"A": "$pairs", "B": "$words"},
                lists={"pairs": ["red fox", "old dog"], "words": ["ring", "kiss"]},
                corruptions={"abc": {"A": "$pairs"}},
                answer=" {B}",
                prompts=4,
            )
        ),
        {},
        words("red fox old dog and then one of ring kiss ."),
    )
    (batch,) = make_batches(task.lengths, 4)
    noisy = noise(task, batch, dataclasses.replace(NOISE, where=Where.at("A")), 0, 16).any(-1)
    expected = {8: [0, 1, 5, 6], 6: [1, 2]}  # red fox and ring then red fox . / one red fox of ring .
    rows = zip(batch.lengths, noisy, strict=True)
    assert {(n, tuple(row.nonzero()[:, 0].tolist())) for n, row in rows} == {
        (n, tuple(at)) for n, at in expected.items()
    }


def test_the_unit_is_the_std_of_the_embeddings() -> None:
    for family, scale in (("llama", 1.0), ("gemma3_text", math.sqrt(32))):
        model = random_model(family, layers=2)
        expected = float(model.model.embed_tokens.weight.std(unbiased=False)) * scale
        assert embedding_std(loaded(model)) == pytest.approx(expected, rel=1e-12)


def test_progress_counts_every_draw() -> None:
    model = random_model("gpt2", layers=2)
    task = task_of(random_prompts(0, [5] * 3))
    run = runner(model, task)
    progress = run.progress
    assert isinstance(progress, Silent)
    patched = Experiment(NOISE, Source("resample", "clean"), frozenset({Site(Mlp(0), Where.everywhere())}))
    with borrowed(model):
        run.run([Experiment("clean"), Experiment(NOISE), patched])
    assert progress.done == progress.expected == 5 * task.n  # clean, twice noise, twice patched
