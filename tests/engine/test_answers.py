"""The shares of several answers against the oracle's logits."""

from __future__ import annotations

import numpy as np
import pytest

from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.metrics.answer_shares import answer_shares, what_is_said
from tests.engine.support import model, random_prompts, runner, task_of
from tests.oracle import node


def test_shares_are_of_the_probability_of_all_answers() -> None:
    """One, two and three answers, prompts of different lengths."""
    m = model("gpt2", exactly=True)
    prompts = random_prompts(3, [5, 7, 6, 5])
    prompts[1].answers[:] = [4]
    prompts[2].answers[:] = [4, 9, 17]
    with borrowed(m):
        run = runner(m, task_of(prompts), rows=3)
        found = answer_shares(run)
    assert found is not None
    assert run.forwards == 1
    for prompt, shares in zip(prompts, found, strict=True):
        weights = np.exp(node.forward(m, prompt.clean).logits[-1][prompt.answers].numpy())
        assert shares == pytest.approx(weights / weights.sum(), rel=0, abs=1e-9)


def test_for_single_answers_nothing_is_run() -> None:
    m = model("gpt2", exactly=True)
    prompts = random_prompts(3, [5, 7])
    for prompt in prompts:
        prompt.answers[:] = prompt.answers[:1]
    with borrowed(m):
        run = runner(m, task_of(prompts))
        assert answer_shares(run) is None
    assert run.forwards == 0


def test_what_is_said_instead() -> None:
    """Probabilities of any tokens, and the likeliest one, by the oracle's softmax; prompts of different lengths."""
    m = model("gpt2", exactly=True)
    prompts = random_prompts(3, [5, 7, 6, 5])
    sets = [[(1, 2), (3,), (), (5, 6, 7)], [(8,), (9,), (10,), (11,)]]
    with borrowed(m):
        run = runner(m, task_of(prompts), rows=3)
        found = what_is_said(run, sets)
    assert run.forwards == 1
    for i, prompt in enumerate(prompts):
        weights = np.exp(node.forward(m, prompt.clean).logits[-1].numpy())
        weights /= weights.sum()
        for k, tokens in enumerate(sets):
            assert found.probabilities[k, i] == pytest.approx(weights[list(tokens[i])].sum(), rel=0, abs=1e-9)
        assert found.likeliest[i] == int(weights.argmax())
        assert found.top[i] == pytest.approx(weights.max(), rel=0, abs=1e-9)
