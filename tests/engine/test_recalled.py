"""Estimates are computed once for a model, its prompts and a question."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from circuitspec.engine.attribution.partial_estimates import Pieces
from circuitspec.engine.cache.stored_estimates import recalled_estimates
from circuitspec.experiments.experiment import Source
from circuitspec.graph.where import Where
from tests.engine.support import model, random_prompts, runner, task_of


class Asked:
    def __init__(self) -> None:
        self.times = 0

    def __call__(self, pieces: Pieces) -> dict[str, list[float]]:
        self.times += 1
        return {"effects": [1 / 3, -2.0], "magnitudes": [0.1, float(self.times)]}


def test_the_same_question_is_answered_from_the_store(tmp_path: Path) -> None:
    task = task_of(random_prompts(3, [5, 6]))
    asked = Asked()
    question = ["nodes", "clean", Source("mean", "abc"), "logit_diff", 1, [("a0.h1", Where.at("A").canonical())]]
    for _ in range(2):  # two processes
        with recalled_estimates(runner(model("gpt2"), task), tmp_path) as recalled:
            found = recalled.get(question, asked)
            np.testing.assert_array_equal(found["effects"], [1 / 3, -2.0])
            np.testing.assert_array_equal(found["magnitudes"], [0.1, 1.0])
    assert asked.times == 1


def test_another_question_prompts_or_model_is_computed(tmp_path: Path) -> None:
    asked = Asked()
    prompts = random_prompts(3, [5, 6])
    others = (
        (model("gpt2"), task_of(prompts), ["nodes", "clean"]),
        (model("gpt2"), task_of(prompts), ["nodes", "abc"]),
        (model("gpt2", seed=4), task_of(prompts), ["nodes", "clean"]),
        (model("gpt2"), task_of(random_prompts(4, [5, 6])), ["nodes", "clean"]),
        (model("gpt2"), task_of([*prompts, *random_prompts(4, [5])]), ["nodes", "clean"]),
    )
    for number, (m, task, question) in enumerate(others, 1):
        with recalled_estimates(runner(m, task), tmp_path) as recalled:
            assert recalled.get(question, asked)["magnitudes"][1] == number
    moved = [type(p)(p.clean, p.corrupt, p.template, p.answers, p.wrong, {**p.roles, "A": 0}) for p in prompts]
    assert any(a.roles != b.roles for a, b in zip(moved, prompts, strict=True))
    with recalled_estimates(runner(model("gpt2"), task_of(moved)), tmp_path) as recalled:
        assert recalled.get(["nodes", "clean"], asked)["magnitudes"][1] == len(others) + 1


def test_without_a_store_nothing_is_kept() -> None:
    asked = Asked()
    with recalled_estimates(runner(model("gpt2"), task_of(random_prompts(3, [5]))), None) as recalled:
        recalled.get(["nodes"], asked)
        recalled.get(["nodes"], asked)
    assert asked.times == 2
