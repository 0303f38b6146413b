"""Minimal pairs from a table: a slot shows a column, and a corruption another one of the same row."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuitspec.hypothesis_file.checks.word_lists import load_lists
from circuitspec.hypothesis_file.load_file import parse_hypothesis
from circuitspec.pipelines.verify import VerifyOptions, verify
from circuitspec.prompts.prompt_set import CLEAN
from circuitspec.prompts.task_findings import TaskFindings
from circuitspec.prompts.templates.sampling import draw_others
from circuitspec.prompts.templates.template_task import template_task
from circuitspec.runtime.progress import Silent
from tests.prompts.support import build, plain

NOUNS = [{"one": word, "many": f"{word}s"} for word in ("key", "cabinet", "window", "teacher", "lamp")]
NUMBERS = [{"is": "is", "are": "are"}]
AGREEMENT: dict[str, object] = {
    "templates": ["The {S} near the {D.one}"],
    "slots": {"S": "$nouns.one", "D": "$nouns", "V": "$verbs.is"},
    "lists": {"nouns": NOUNS, "verbs": NUMBERS},
    "answer": " {V}",
    "wrong": {"answer_of": "flip"},
    "corruptions": {"flip": {"S": "=S.many", "V": "=V.are"}, "other": {"S": "$nouns.one"}},
    "prompts": 20,
}


def test_a_minimal_pair() -> None:
    """The corruption shows the other column of the same row, and the wrong answer is what it then asks for."""
    for prompt in build(plain(**AGREEMENT)).prompts:
        _, noun, _, _, other = prompt.texts[CLEAN].split()
        assert prompt.texts["flip"] == f"The {noun}s near the {other}"
        assert noun != other, "slots of one table hold different rows, whichever column they show"
        fresh = prompt.texts["other"].split()[1]
        assert fresh not in (noun, other)
        assert (prompt.answers, prompt.wrong) == ((" is",), (" are",))
        assert prompt.slots["flip"]["S"] == (4, 4 + len(noun) + 1)


def test_copies_show_columns_too() -> None:
    """A slot can show a column of another one's row, also one of a slot that copies it."""
    task = plain(
        templates=["{A} {B} {C} {D}"],
        slots={"A": "$nouns.one", "B": "=A.many", "C": "=B", "D": "=C.one"},
        lists={"nouns": NOUNS},
        answer=" {A.many}",
        prompts=5,
    )
    for prompt in build(task).prompts:
        word = prompt.texts[CLEAN].split()[0]
        assert prompt.texts[CLEAN] == f"{word} {word}s {word}s {word}"
        assert prompt.answers == (f" {word}s",), "the other columns can be read by name"


def test_every_row_is_drawn_and_none_twice() -> None:
    """Five rows for two slots: 20 prompts, and no 21st. The prompts that means are over are others."""
    task = plain(**AGREEMENT)
    texts = {prompt.texts[CLEAN] for prompt in build(task).prompts}
    assert len(texts) == 20
    few = build(plain(**{**AGREEMENT, "prompts": 6}))
    made = template_task(task, load_lists(task.lists, Path()), TaskFindings())
    others = draw_others(made, 30, task.seed, few)
    assert {p.texts[CLEAN] for p in others} == texts - {p.texts[CLEAN] for p in few.prompts}


def test_numbers_of_a_column() -> None:
    task = plain(
        templates=["from {Y} to"],
        slots={"Y": "$years.start"},
        lists={"years": [{"start": "11", "name": "a"}, {"start": "12", "name": "b"}, {"start": "13", "name": "c"}]},
        answer={"from": "$years.start", "above": "Y"},
        prompts=2,
    )
    for prompt in build(task).prompts:
        year = int(prompt.texts[CLEAN].split()[1])
        assert prompt.answers == tuple(str(n) for n in range(year + 1, 14))


HYPOTHESIS = """\
circuitspec: 1
name: pairs
model: {id: "zoo:ioi-tiny"}
task:
  templates: ["Then, {A} and {B} went to the store. {G} gave a {O} to"]
  slots: {A: $pairs.first, B: =A.second, G: =A.second, R: =A.first, O: $objects}
  lists:
    pairs: [{first: Mary, second: John}, {first: Anna, second: Paul}, {first: Laura, second: Peter}]
    objects: [ring, book, ball, snack]
  answer: " {R}"
  wrong: {answer_of: flip}
  corruptions:
    flip: {G: =A.first, R: =A.second}
  positions: {END: last}
  prompts: 12
circuit: {groups: {movers: {nodes: [a3.h0], at: END}}}
ablation: {value: resample, from: flip}
claims: [sufficient: {metric: logit_diff, at_least: -100}]
"""


def test_a_hypothesis_of_minimal_pairs_runs() -> None:
    found = verify(parse_hypothesis(HYPOTHESIS, "h.yaml", Path()), VerifyOptions(negatives="off"), Silent())
    clean = found.verification.records[found.verification.plan.clean]["logit_diff"]
    corrupt = found.verification.records[found.verification.plan.corrupt]["logit_diff"]
    assert clean.mean() > 0 > corrupt.mean(), "the model follows the giver, who is the other one"


@pytest.mark.parametrize("rule", ["$nouns.one", "=S.many", " $nouns.one "])
def test_spaces_around_a_rule_do_not_count(rule: str) -> None:
    task = plain(**{**AGREEMENT, "slots": {"S": "$nouns.one", "D": "$nouns", "V": rule.replace("$nouns", "$verbs")}})
    assert task.slots["V"] == rule.replace("$nouns", "$verbs").strip()
