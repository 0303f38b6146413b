"""Prompts and answers given as token ids: used as they are, and the same numbers as the texts give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from circuitspec.hypothesis_file.load_file import parse_hypothesis
from circuitspec.pipelines.verify import Outcome, VerifyOptions, verify
from circuitspec.prompts.prompt_set import CLEAN, PromptSet, prompts_digest
from circuitspec.prompts.tokens.answer_forms import answer_forms
from circuitspec.prompts.tokens.tokenize import tokenize
from circuitspec.repository.locked_prompts import lock_prompts, prompt_drift
from circuitspec.runtime.progress import Silent
from tests.prompts.conftest import trained
from tests.prompts.support import build, errors_of, one_error, plain


def read(tmp_path: Path, *lines: object) -> PromptSet:
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return build(plain(file="p.jsonl"), tmp_path)


def test_ids_are_used_as_they_are(tmp_path: Path) -> None:
    """No special token is put in front, and indices count all of them; a BOS among them is one of them."""
    tokenizer = trained("word-level-bos")
    ids = tokenizer("Then, Mary and John")["input_ids"]
    other = tokenizer("Then, Tom and John")["input_ids"]
    answer, wrong = (tokenizer(f" {name}", add_special_tokens=False)["input_ids"][0] for name in ("Mary", "Anna"))
    line = {"clean": ids, "corrupt": other, "answers": [answer], "wrong": [" Anna"], "positions": {"X": 0, "Y": [3, 5]}}
    task = tokenize(read(tmp_path, line), {"END": "last"}, tokenizer)
    assert task.ids == {CLEAN: (tuple(ids),), "corrupt": (tuple(other),)}
    assert (task.roles["X"], task.spans["Y"]) == ((0,), ((3, 5),))
    assert (task.answers, task.wrong) == (((answer,),), ((wrong,),))
    assert task.prompts.prompts[0].texts[CLEAN] == "<s>Then, Mary and John"
    assert task.decoded == {answer: " Mary"}
    assert task.around.described == (
        f"token ids as they are given, no special token put in front; answers given as token ids: {answer} is ' Mary'"
    )
    assert task.around.told
    assert answer_forms(task, tokenizer) == ()


def test_answers_as_ids_behind_a_text(tmp_path: Path, words: PreTrainedTokenizerFast) -> None:
    mary, anna = (words(f" {name}")["input_ids"][0] for name in ("Mary", "Anna"))
    by_text, by_id = (
        tokenize(read(tmp_path, {"clean": "Then, Mary and John", "answers": a, "wrong": w}), {}, words)
        for a, w in (([" Mary"], [" Anna"]), ([mary], [anna]))
    )
    assert (by_text.answers, by_text.wrong, by_text.ids) == (by_id.answers, by_id.wrong, by_id.ids)
    assert by_id.decoded == {mary: " Mary", anna: " Anna"}
    both = {"clean": "Then, Mary and John", "answers": [mary, " Anna"], "wrong": [" Mary"]}
    one_error(lambda: tokenize(read(tmp_path, both), {}, words), "CS347")


def test_ids_outside_the_vocabulary(tmp_path: Path, words: PreTrainedTokenizerFast) -> None:
    size = len(words)
    line = {"clean": [1, size], "corrupt": [2, 3], "answers": [size + 5], "wrong": [4]}
    found = errors_of(lambda: tokenize(read(tmp_path, line), {}, words))
    assert [d.code for d in found] == ["CS363", "CS363"]
    assert f"a token of clean of prompt 0 (p.jsonl:1) is the token {size}" in found[0].message
    assert f"an answer of prompt 0 (p.jsonl:1) is the token {size + 5}" in found[1].message
    assert all(d.span is not None and d.span.line == 1 for d in found)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ({"clean": []}, "CS338"),
        ({"clean": [-1]}, "CS338"),
        ({"clean": [True]}, "CS338"),
        ({"clean": "a", "answers": [True]}, "CS338"),
        ({"clean": "a", "answers": [-3]}, "CS338"),
        ({"clean": [1, 2], "corrupt": "a"}, "CS340"),
        ({"clean": [1, 2], "corrupt": [1, 2]}, "CS331"),
        ({"clean": [1, 2], "answers": [7], "wrong": [7, 8]}, "CS330"),
    ],
)
def test_what_is_no_prompt(tmp_path: Path, line: object, code: str) -> None:
    one_error(lambda: read(tmp_path, line), code)


def test_ids_among_texts_and_the_same_ids_twice(tmp_path: Path) -> None:
    assert (
        "some prompts are texts and others are token ids"
        in one_error(lambda: read(tmp_path, {"clean": "a"}, {"clean": [1, 2]}), "CS340").message
    )
    one_error(lambda: read(tmp_path, {"clean": [1, 2]}, {"clean": [1, 2]}), "CS351")


def test_a_text_is_no_position_of_ids_and_answers_are_single_tokens(
    tmp_path: Path, words: PreTrainedTokenizerFast
) -> None:
    ids = words("Then, Mary and John")["input_ids"]
    line: dict[str, Any] = {"clean": ids, "positions": {"X": {"text": "Mary"}}}
    found = one_error(lambda: tokenize(read(tmp_path, line), {}, words), "CS360")
    assert (found.label, found.hint) == ("it is given as token ids", "give the index of a token, or a list of them")
    line = {"clean": ids, "answers": [" Mary and"]}
    found = one_error(lambda: tokenize(read(tmp_path, line), {}, words), "CS346")
    assert found.hint.startswith("give the answer as the id of its token, as the prompt is given")


def test_locks_have_the_ids(tmp_path: Path, words: PreTrainedTokenizerFast) -> None:
    ids = words("Then, Mary and John")["input_ids"]
    first, second = ({"clean": [*ids[:-1], end], "answers": [3]} for end in (ids[-1], ids[-1] - 1))
    made = read(tmp_path, first)
    locked = lock_prompts(made)
    tokenized = tokenize(made, {}, words)
    assert prompts_digest(tokenized.prompts) == prompts_digest(made) == locked.digest, "whatever they decode to"
    assert prompt_drift(locked, tokenized.prompts) == ()
    (drift,) = prompt_drift(locked, read(tmp_path, second))
    assert "clean: [" in drift.message


HYPOTHESIS = """\
circuitspec: 1
name: ids
model: {id: "zoo:ioi-tiny"}
task: {file: p.jsonl, positions: {END: last}}
circuit: {groups: {movers: {nodes: [a3.h0, a3.h1, a3.h2], at: END}}}
ablation: {value: resample}
claims: [sufficient: {metric: logit_diff, at_least: -100}]
"""


def outcome(tmp_path: Path, lines: list[dict[str, Any]]) -> Outcome:
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return verify(parse_hypothesis(HYPOTHESIS, "h.yaml", tmp_path), VerifyOptions(negatives="off"), Silent())


def test_the_same_numbers_as_texts(tmp_path: Path) -> None:
    names = ["Mary", "John", "Paul", "Anna", "Peter", "Laura"]
    texts = [
        {
            "clean": f"Then, {a} and {b} went to the store. {b} gave a ring to",
            "corrupt": f"Then, {a} and {b} went to the store. {names[i - 1]} gave a ring to",
            "answers": [f" {a}"],
            "wrong": [f" {b}"],
        }
        for i, (a, b) in enumerate(zip(names, names[2:] + names[:2], strict=True))
    ]
    said = outcome(tmp_path, texts)
    task = said.task
    ids = [
        {
            "clean": list(task.ids[CLEAN][i]),
            "corrupt": list(task.ids["corrupt"][i]),
            "answers": list(task.answers[i]),
            "wrong": list(task.wrong[i]),
        }
        for i in range(len(texts))
    ]
    given = outcome(tmp_path, ids)
    assert given.task.prompts.prompts[0].texts == task.prompts.prompts[0].texts, "reports show what they decode to"
    for experiment, metrics in said.verification.records.values.items():
        for name, values in metrics.items():
            np.testing.assert_array_equal(values, given.verification.records.values[experiment][name])
