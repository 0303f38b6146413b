"""What reports show of the first prompts, against the Hugging Face model's own logits and attention weights."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.metrics.shown_prompts import LAST, PROMPTS, TOP, shown_prompts
from circuitspec.engine.runner import Runner
from circuitspec.hypothesis_file.grammar.components import Head
from tests.engine.support import Silent, loaded, random_prompts, task_of
from tests.engine.support import model as random_model


class Numbered:
    """A tokenizer whose tokens are their numbers."""

    def decode(self, ids: list[int], **_: Any) -> str:
        return str(ids[0])


def test_prompts_are_as_the_model_alone_sees_them() -> None:
    model, eager = random_model("gpt2"), random_model("gpt2", attention="eager")
    prompts = random_prompts(3, [7, 5, 6, 4])
    held = dataclasses.replace(loaded(model), tokenizer=Numbered())  # type: ignore[arg-type]
    runner = Runner(held, task_of(prompts), rows=2, progress=Silent())
    heads = [(Head(1, 0), "END"), (Head(0, 1), "A"), (Head(1, 1), "")]
    before = runner.prompts_run
    with borrowed(model):
        found = shown_prompts(runner, ("clean", "abc"), ("A", "END"), heads)
    assert runner.prompts_run == before
    assert len(found.prompts) == PROMPTS
    for one, prompt in zip(found.prompts, prompts, strict=False):
        for side, tokens in zip(one.variants, (prompt.clean, prompt.corrupt), strict=True):
            assert [int(text) for text in side.tokens] == tokens
            assert dict(side.positions) == {"A": (prompt.roles["A"],), "END": (len(tokens) - 1,)}
            expected = eager(torch.tensor([tokens])).logits[0, -1].softmax(-1).topk(TOP)
            assert [int(one.text) for one in side.top] == expected.indices.tolist()
            assert [one.probability for one in side.top] == pytest.approx(expected.values.tolist(), abs=1e-9)
    first = prompts[0]
    attentions = eager(torch.tensor([first.clean]), output_attentions=True).attentions
    places = {"END": 6, "A": first.roles["A"], LAST: 6}
    assert [(one.head, one.position) for one in found.attention] == [("a1.h0", "END"), ("a0.h1", "A"), ("a1.h1", LAST)]
    for one, (head, _) in zip(found.attention, heads, strict=True):
        weights = attentions[head.layer][0, head.head, places[one.position]].tolist()
        assert list(one.weights) == pytest.approx(weights, abs=1e-9)
        assert sum(one.weights) == pytest.approx(1)
