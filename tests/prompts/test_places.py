"""Errors about prompts point at the hypothesis file, at what has to be changed there."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from circuitspec.diagnostics.diagnostic import Diagnostic
from circuitspec.hypothesis_file.load_file import parse_hypothesis
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.tokens.tokenize import tokenize
from tests.prompts.support import errors_of

TEXT = """\
circuitspec: 1
name: places
model: {id: "zoo:ioi-tiny"}
task:
  templates:
    - "Then, {IO} and {S1} went to the {place}. {S2} gave a ring to"
  slots: {IO: $names, S1: $names, S2: =S1, place: $places}
  lists:
    names: [Mary, John, Tom, Anna, Paul]
    places: [store, park]
  answer: " {IO}"
  wrong: " {S1}"
  corruptions:
    abc: {IO: $names, S1: $names, S2: $names}
  positions: {AFTER: S1 + 1}
  prompts: 10
circuit:
  groups:
    movers: {nodes: [a0.h0], at: S2}
ablation: {value: mean, from: abc}
claims:
  - sufficient: {metric: logit_diff, at_least: 0.5}
"""


def found(tokenizer: PreTrainedTokenizerFast, was: str, now: str) -> tuple[Diagnostic, ...]:
    assert TEXT.count(was) == 1
    document = parse_hypothesis(TEXT.replace(was, now), "h.circuit.yaml", Path())
    task = document.hypothesis.task

    def work() -> None:
        tokenize(build_prompts(task, document.base_dir, document.source), task.positions, tokenizer, document.source)

    return errors_of(work)


@pytest.mark.parametrize(
    ("was", "now", "code", "line", "column"),
    [
        ("prompts: 10", "prompts: 41", "CS328", 6, 7),
        ('wrong: " {S1}"', 'wrong: " {IO}"', "CS330", 12, 10),
        ("abc: {IO: $names, S1: $names, S2: $names}", "abc: {S1: =S1}", "CS331", 6, 7),
        ('answer: " {IO}"', "answer: {from: $places, above: IO}", "CS332", 11, 18),
        ("{place}.", "{place}{IO}.", "CS349", 6, 7),
        ("AFTER: S1 + 1", "AFTER: S1 - 9", "CS345", 15, 22),
        ('answer: " {IO}"', 'answer: "{IO}"', "CS346", 11, 11),
        ("[store, park]", "[store, library]", "CS349", 6, 7),
    ],
)
def test_the_place_of_an_error(
    words: PreTrainedTokenizerFast, was: str, now: str, code: str, line: int, column: int
) -> None:
    first = found(words, was, now)[0]
    assert first.span is not None
    assert (first.code, first.span.file, first.span.line, first.span.column) == (code, "h.circuit.yaml", line, column)


def test_a_list_entry_is_sought_in_its_list(gpt2: PreTrainedTokenizerFast) -> None:
    shapes = [d for d in found(gpt2, "Anna", "Bartholomew") if d.code == "CS343"]
    assert [d.span.line for d in shapes if d.span is not None] == [9]


def test_a_good_hypothesis_gives_its_task(words: PreTrainedTokenizerFast) -> None:
    document = parse_hypothesis(TEXT, "h.circuit.yaml", Path())
    prompts = build_prompts(document.hypothesis.task, document.base_dir, document.source)
    task = tokenize(prompts, document.hypothesis.task.positions, words, document.source)
    assert task.roles["AFTER"] == tuple(place + 1 for place in task.roles["S1"])
