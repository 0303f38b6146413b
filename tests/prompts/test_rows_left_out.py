"""Rows that do not fit are left out and counted, first as texts and then as tokens; the first N that fit are taken."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from circuitspec.analysis.prompt_rows import row_facts
from circuitspec.analysis.warnings.tasks.task_warnings import MANY_LEFT_OUT
from circuitspec.models.zoo import zoo_path
from circuitspec.prompts.prompt_set import PromptSet, prompts_digest
from circuitspec.prompts.tokens.misfits import CODES
from circuitspec.prompts.tokens.tokenize import tokenize
from circuitspec.repository.locked_prompts import lock_prompts, prompt_drift
from tests.prompts.support import build, errors_of, one_error, plain

ALL = ["repeats", "misaligned", "split_answers", "unfit"]
GIVERS = ["John", "Paul", "Anna", "Peter", "Laura", "David"]


@pytest.fixture(scope="module")
def words() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(zoo_path("ioi-tiny"))


def good(giver: str) -> dict[str, object]:
    return {
        "clean": f"Then, Mary and {giver} went to the store. {giver} gave a ring to",
        "corrupt": f"Then, Mary and {giver} went to the store. Emma gave a ring to",
        "answers": [" Mary"],
        "wrong": [f" {giver}"],
        "positions": {"S2": {"text": giver, "nth": 2}},
    }


def misaligned(giver: str) -> dict[str, object]:
    return {**good(giver), "corrupt": f"Then, Mary and {giver} went to the store. Emma Emma gave a ring to"}


def split(giver: str) -> dict[str, object]:
    return {**good(giver), "answers": [" Mary and Emma"]}


def split_otherwise(giver: str) -> dict[str, object]:
    row = split(giver)
    return {**row, **{key: str(row[key]).replace("Then,", "When") for key in ("clean", "corrupt")}}


def unknown(giver: str) -> dict[str, object]:
    return {**good(giver), "corrupt": f"Then, Mary and {giver} went to the store. Xerxes gave a ring to"}


def unplaced(giver: str) -> dict[str, object]:
    return {**good(giver), "positions": {"S2": {"text": giver, "nth": 3}}}


ROWS = [
    good("John"),
    misaligned("Paul"),
    good("Paul"),
    {**good("John"), "wrong": [" Paul"]},  # a repeat
    split("Anna"),
    unplaced("Peter"),
    good("Anna"),
    unknown("Laura"),
    {**good("Laura"), "corrupt": good("Laura")["clean"]},
    good("Laura"),
]


def read(folder: Path, rows: Sequence[Mapping[str, object]], **task: object) -> PromptSet:
    (folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return build(plain(file="p.jsonl", **task), folder)


def kept(prompts: PromptSet) -> list[str]:
    return [prompt.wrong[0].strip() for prompt in prompts.prompts]


def test_each_kind_is_left_out_and_counted(tmp_path: Path, words: PreTrainedTokenizerFast) -> None:
    """Of rows with one clean text the first that fits is kept."""
    found = tokenize(read(tmp_path, ROWS, skip=ALL), {}, words)
    prompts = found.prompts
    assert kept(prompts) == ["John", "Paul", "Anna", "Laura"]
    assert prompts.choice is not None
    assert prompts.choice.counts == {"misaligned": 2, "repeats": 1, "split_answers": 1, "unfit": 2}
    assert [prompt.index for prompt in prompts.prompts] == [0, 1, 2, 3]
    assert [prompt.where for prompt in prompts.prompts] == [f"p.jsonl:{line}" for line in (1, 3, 7, 10)]
    assert len(found.ids["clean"]) == found.n == 4
    assert found.ids == tokenize(read(tmp_path, [ROWS[i] for i in (0, 2, 6, 9)]), {}, words).ids


def test_without_skip_they_are_errors(tmp_path: Path, words: PreTrainedTokenizerFast) -> None:
    assert {d.code for d in errors_of(lambda: read(tmp_path, ROWS))} == {"CS351", "CS331"}
    for bad, kind in (
        (misaligned("Paul"), "misaligned"),
        (split("Paul"), "split_answers"),
        (unplaced("Paul"), "misaligned"),
        (unknown("Paul"), "unfit"),
    ):
        made = read(tmp_path, [good("John"), bad])
        codes = {d.code for d in errors_of(lambda made=made: tokenize(made, {}, words))}  # type: ignore[misc]
        assert codes <= CODES[kind], bad


def test_what_skip_does_not_name_is_an_error_still(tmp_path: Path, words: PreTrainedTokenizerFast) -> None:
    made = read(tmp_path, [good("John"), split("Paul"), misaligned("Anna")], skip=["misaligned"])
    assert {d.code for d in errors_of(lambda: tokenize(made, {}, words))} == {"CS346"}
    both = {**split("Paul"), "corrupt": misaligned("Paul")["corrupt"]}
    made = read(tmp_path, [good("John"), both], skip=["split_answers"])
    assert {d.code for d in errors_of(lambda: tokenize(made, {}, words))} >= {"CS343"}
    made = read(tmp_path, [good("John"), both], skip=["split_answers", "misaligned"])
    assert kept(tokenize(made, {}, words).prompts) == ["John"]


def test_the_first_that_fit(tmp_path: Path, words: PreTrainedTokenizerFast) -> None:
    rows = [row for giver in GIVERS for row in (good(giver), split_otherwise(giver))]
    rows = [rows[0], rows[0], *rows[1:]]
    found = tokenize(read(tmp_path, rows, skip=ALL, prompts=3), {"END": "last"}, words).prompts
    assert kept(found) == GIVERS[:3]
    assert found.choice is not None
    assert (found.choice.looked_at, found.choice.counts) == (6, {"repeats": 1, "split_answers": 2})
    facts = row_facts(found)
    assert facts is not None
    assert "3 prompts from the first 6 rows (of 13)" in facts.described()
    error = one_error(lambda: tokenize(read(tmp_path, rows, skip=ALL, prompts=7), {}, words), "CS339")
    assert "6 prompts that fit, but 7 are asked for" in error.message


def test_repeats_alone_need_no_tokens(tmp_path: Path) -> None:
    rows = [good("John"), good("Paul"), good("John"), good("Anna"), good("Paul")]
    found = read(tmp_path, rows, skip=["repeats"])
    assert kept(found) == ["John", "Paul", "Anna"]
    assert found.choice is not None
    assert (found.choice.settled, found.choice.counts) == (True, {"repeats": 2})
    assert prompts_digest(found) == prompts_digest(read(tmp_path, [rows[0], rows[1], rows[3]]))
    first = read(tmp_path, rows, skip=["repeats"], prompts=2)
    assert (kept(first), first.choice and first.choice.counts) == (["John", "Paul"], {})


def test_nothing_is_left(tmp_path: Path, words: PreTrainedTokenizerFast) -> None:
    found = errors_of(lambda: tokenize(read(tmp_path, [split("John"), split("Paul")], skip=ALL), {}, words))
    assert [d.code for d in found] == ["CS357", "CS346"]
    assert found[0].message == "every row of p.jsonl is left out: 2 split_answers"
    unfit = {**good("John"), "corrupt": good("John")["clean"]}
    one_error(lambda: read(tmp_path, [unfit], skip=["unfit"]), "CS357")


def test_templates_are_those_of_the_prompts_that_are_left(tmp_path: Path, words: PreTrainedTokenizerFast) -> None:
    rows = [{**split("John"), "template": "A"}, {**good("Paul"), "template": "B"}, {**good("Anna"), "template": "C"}]
    found = tokenize(read(tmp_path, rows, skip=ALL), {}, words).prompts
    assert (found.templates, [prompt.template for prompt in found.prompts]) == (("B", "C"), [0, 1])


def test_a_lock_whose_counts_change_drifts(tmp_path: Path, words: PreTrainedTokenizerFast) -> None:
    rows = [good("John"), split("Paul"), good("Anna")]
    made = read(tmp_path, rows, skip=ALL)
    before = tokenize(made, {}, words).prompts
    locked = lock_prompts(before)
    assert locked.left_out == {"split_answers": 1}
    assert prompt_drift(locked, before) == ()
    assert prompt_drift(locked, made) == ()  # not yet known
    after = tokenize(read(tmp_path, [*rows, split("Peter"), good("John")], skip=ALL), {}, words).prompts
    (found,) = prompt_drift(locked, after)
    assert found.code == "CS553"
    assert found.message == "rows left out changed: 1 split_answers -> 1 repeats, 2 split_answers"
    assert lock_prompts(read(tmp_path, [good("John")])).left_out is None


def test_a_selection_is_warned_of(tmp_path: Path, words: PreTrainedTokenizerFast) -> None:
    class Seen:
        def __init__(self, prompts: PromptSet | None) -> None:
            self.prompts = prompts

    few = tokenize(read(tmp_path, [good("John"), split("Paul"), split("Anna")], skip=ALL), {}, words).prompts
    (warning,) = MANY_LEFT_OUT.find(Seen(few))  # type: ignore[arg-type]
    assert warning.code == "CS443"
    assert warning.message == "most rows are left out: 2 of 3 (2 split_answers)"
    half = tokenize(read(tmp_path, [good("John"), split("Paul")], skip=ALL), {}, words).prompts
    assert list(MANY_LEFT_OUT.find(Seen(half))) == []  # type: ignore[arg-type]
    assert list(MANY_LEFT_OUT.find(Seen(replace(few, choice=None)))) == []  # type: ignore[arg-type]
