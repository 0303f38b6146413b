"""The digest of a prompt set: what changes it, what does not, and that it is the hash it says it is."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from circuitspec.prompts.prompt_set import Prompt, PromptSet, TextPlace, prompts_digest
from tests.prompts.support import build, plain, spec

PROMPT = Prompt(0, 0, {"clean": "When é", "abc": "Then"}, (" x", " y"), (" z",), positions={"S": 4}, where="p:1")
OTHER = dataclasses.replace(PROMPT, index=1, template=1, texts={"clean": "B", "abc": "C"})
SET = PromptSet((PROMPT, OTHER), ("abc",), ("one", "two"))


def test_it_is_the_hash_of_canonical_json() -> None:
    start = '{"answers":[" x"," y"],"positions":{"S":4},"template":'
    prompt = start + '0,"texts":{"abc":"Then","clean":"When é"},"wrong":[" z"]}'
    other = start + '1,"texts":{"abc":"C","clean":"B"},"wrong":[" z"]}'
    written = f'{{"prompts":[{prompt},{other}],"text_positions":false}}'
    assert prompts_digest(SET) == hashlib.sha256(written.encode()).hexdigest()


@pytest.mark.parametrize(
    "changes",
    [
        {"texts": {"clean": "When e", "abc": "Then"}},
        {"texts": {"clean": "When é", "abc": "Them"}},
        {"texts": {"clean": "When é", "abd": "Then"}},
        {"texts": {"clean": "Then", "abc": "When é"}},
        {"answers": (" x",)},
        {"answers": (" y", " x")},
        {"wrong": (" Z",)},
        {"positions": {"S": 5}},
        {"positions": {"T": 4}},
        {"positions": {"S": TextPlace("é")}},
        {"positions": {"S": TextPlace("é", 2)}},
        {"template": 1},
    ],
)
def test_whatever_a_prompt_says_counts(changes: dict[str, object]) -> None:
    changed = dataclasses.replace(PROMPT, **changes)  # type: ignore[arg-type]
    assert prompts_digest(dataclasses.replace(SET, prompts=(changed, OTHER))) != prompts_digest(SET)


def test_order_number_and_what_positions_mean_count() -> None:
    for prompts in ((OTHER, PROMPT), (PROMPT,), (PROMPT, OTHER, OTHER), ()):
        assert prompts_digest(dataclasses.replace(SET, prompts=prompts)) != prompts_digest(SET)
    assert prompts_digest(dataclasses.replace(SET, text_positions=True)) != prompts_digest(SET)


def test_where_prompts_come_from_does_not_count() -> None:
    reordered = {"abc": "Then", "clean": "When é"}
    moved = dataclasses.replace(PROMPT, texts=reordered, where="q:7")
    assert prompts_digest(PromptSet((moved, OTHER), ("abc",), ("a", "b"))) == prompts_digest(SET)


def test_one_letter_of_a_word_list_changes_it(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    task = spec(lists={"names": "names.txt", "places": ["store", "park"], "objects": ["ring", "kiss"]})
    names.write_text("Mary\nJohn\nTom\nAnna\nPaul\nKate\n", encoding="utf-8")
    first = prompts_digest(build(task, tmp_path))
    assert prompts_digest(build(task, tmp_path)) == first
    names.write_text("Mary\nJohn\nTom\nAnna\nPaul\nKata\n", encoding="utf-8")
    assert prompts_digest(build(task, tmp_path)) != first


def test_one_letter_of_a_prompts_file_changes_it(tmp_path: Path) -> None:
    def digest(name: str, **changes: str) -> str:
        row = {"clean": "When Mary", "corrupt": "When John", **changes}
        (tmp_path / name).write_text(json.dumps(row), encoding="utf-8")
        return prompts_digest(build(plain(file=name), tmp_path))

    assert digest("a.jsonl") == digest("b.jsonl")
    assert digest("a.jsonl") != digest("a.jsonl", corrupt="When Johm")
