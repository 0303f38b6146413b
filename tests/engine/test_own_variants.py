"""A set of prompts with positions and answers of its own: patched and measured there, by the oracle's figures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from circuitspec.engine.cache.store_keys import variant_digest
from circuitspec.engine.execution.batches import where_mask
from circuitspec.engine.execution.compiler import Actions, borrowed
from circuitspec.experiments.experiment import Experiment, Site, Source
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Mlp
from circuitspec.prompts.prompt_set import TokenizedTask, TokenizedVariant
from circuitspec.prompts.reference_prompts import chosen
from tests.engine.support import assert_same, model, oracle_records, random_prompts, runner, task_of
from tests.oracle import families, metrics, node

CLEAN_VALUES = Source("resample", "clean")
AT_A = Experiment("abc", CLEAN_VALUES, frozenset({Site(Head(1, 2), Where.at("A")), Site(Mlp(0), ~Where.at("B"))}))
SWEPT = [Experiment("abc", CLEAN_VALUES, frozenset({Site(Head(1, head), Where.at("A"))})) for head in range(4)]


def both() -> tuple[list[node.Prompt], list[node.Prompt], TokenizedTask]:
    """Prompts; the same with positions and answers moved; and a task of the first whose `abc` has those of the second.

    The last is what an experiment on `abc` must see at its positions, though its clean prompts have others.
    """
    prompts = random_prompts(seed=21, lengths=[6, 5, 7])
    moved = [
        replace(p, roles={**p.roles, "A": (p.roles["A"] + 1) % len(p.clean), "B": 0}, answers=p.wrong, wrong=p.answers)
        for p in prompts
    ]
    other = task_of(moved)
    own = TokenizedVariant(other.ids["abc"], other.answers, other.wrong, other.roles)
    return prompts, moved, task_of(prompts).with_variant("abc", own)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_experiments_on_it_are_patched_at_its_own_positions(name: str) -> None:
    """One by one and swept; with the answers of the clean prompts, which are what is asked for."""
    prompts, moved, task = both()
    m = model(name)
    at_its_own = [replace(p, answers=q.answers, wrong=q.wrong) for p, q in zip(moved, prompts, strict=True)]
    with borrowed(m):
        found = runner(m, task).run([AT_A, *SWEPT])
    for experiment in (AT_A, *SWEPT):
        assert_same(found[experiment], oracle_records(m, at_its_own, experiment))
    clean = Experiment("clean", Source("resample", "abc"), AT_A.sites)
    with borrowed(m):
        assert_same(runner(m, task).run([clean])[clean], oracle_records(m, prompts, clean))


def test_a_run_can_be_measured_by_its_own_answers() -> None:
    _, moved, task = both()
    m = model("gpt2")
    net = families.read(m)
    with borrowed(m), torch.no_grad():
        run = runner(m, task, rows=3)
        (batch,) = run.batches
        logits, _ = run.forward(batch, "abc", Actions())
        found = run.metrics(batch, logits, None, expected="abc")["logit_diff"].numpy()
    for row, prompt in enumerate(batch.prompts):
        expected = node.forward(net, moved[prompt].corrupt).logits[-1].numpy()
        own = metrics.metrics(expected, moved[prompt].answers, moved[prompt].wrong, expected)["logit_diff"]
        assert found[row] == pytest.approx(own, abs=1e-9)


def test_what_is_its_own_stays_with_it() -> None:
    prompts, moved, task = both()
    assert task.of("clean").roles == task_of(prompts).roles
    assert task.of("abc").answers == tuple(tuple(p.answers) for p in moved)
    some = chosen(task, [2, 0])
    assert some.of("abc").roles["A"] == (moved[2].roles["A"], moved[0].roles["A"])
    assert some.of("abc").answers == (tuple(moved[2].answers), tuple(moved[0].answers))
    assert variant_digest(task, "abc") != variant_digest(task_of(prompts), "abc")
    assert variant_digest(task, "clean") == variant_digest(task_of(prompts), "clean")
    run = runner(model("gpt2"), task, rows=3)
    masks = [where_mask(task, run.batches[0], Where.at("A"), run.device, v).numpy() for v in ("clean", "abc")]
    assert [mask.argmax(1).tolist() for mask in masks] == [
        [p.roles["A"] for p in (one[i] for i in run.batches[0].prompts)] for one in (prompts, moved)
    ]
    with pytest.raises(ValueError, match="not as long"):
        task.with_variant("more", replace(task.of("abc"), ids=task.of("abc").ids[:2]))
    assert np.array_equal(run.templates, [0, 0, 0])
