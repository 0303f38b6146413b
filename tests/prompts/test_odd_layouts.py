"""Cells, rows and columns as real files have them: read as they are meant, left out, or refused with what to write."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pytest
from transformers import PreTrainedTokenizerFast

from circuitspec.models.zoo import zoo_path
from circuitspec.prompts.files.prompts_in_memory import prompts_from
from circuitspec.prompts.files.row_values import spaced, token_ids
from circuitspec.prompts.prompt_set import PromptSet, TextPlace
from circuitspec.prompts.tokens.tokenize import tokenize
from tests.prompts.support import build, errors_of, one_error, plain

NAMES = ["Mary", "Anna", "Laura", "Emma", "Sarah", "Alice"]


@pytest.fixture(scope="module")
def words() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(zoo_path("ioi-tiny"))


def prompt(name: str, giver: str = "John") -> str:
    return f"Then, {name} and John went to the store. {giver} gave a ring to"


def read(folder: Path, name: str, content: str | Sequence[object], **task: object) -> PromptSet:
    text = content if isinstance(content, str) else "".join(json.dumps(row) + "\n" for row in content)
    (folder / name).write_text(text, encoding="utf-8")
    return build(plain(file=name, **task), folder)


@pytest.mark.parametrize(
    ("cell", "ids"),
    [
        (7, [7]),
        (7.0, [7]),
        ("7.0", [7]),
        ("[7, 12]", [7, 12]),
        ("[7 12]", [7, 12]),
        ("[  7  12\n 130]", [7, 12, 130]),
        ("tensor(7)", [7]),
        ("tensor([7, 12])", [7, 12]),
    ],
)
def test_token_ids_as_other_libraries_write_them(cell: object, ids: list[int]) -> None:
    assert token_ids(cell, "answers_idx") == ids


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("The capital is", " Rome"),
        ("The capital is ", "Rome"),
        ('She said "yes" to', " Rome"),
        ('{"city": "Rome", "country": "', "Rome"),
        ('He called it "big"', " Rome"),
        ("The capital (", "Rome"),
        ("The capital is \u201c", "Rome"),
        ("Howlin'", " Rome"),
        ("It is '", "Rome"),
        ("Answer:", " Rome"),
    ],
)
def test_a_space_goes_between_words_only(before: str, after: str) -> None:
    assert spaced("Rome", before) == after


def test_an_entity_that_the_prompt_names_before(tmp_path: Path, words: PreTrainedTokenizerFast) -> None:
    """The position is where the template has its gap, and not the first place at which the word stands."""
    entities = {name: {"Friend": name} for name in NAMES[:3]}
    template = "Then, Mary and John went to the store. Then, %s and John went to the park. John gave a ring to"
    (tmp_path / "r_attribute_to_prompts.json").write_text(json.dumps({"Friend": [template]}))
    found = read(tmp_path, "r_entity_attributes.json", json.dumps(entities))
    gap = len(words.encode(template.partition("%s")[0].strip(), add_special_tokens=False))
    assert tokenize(found, {}, words).roles["entity"] == (gap, gap, gap)
    assert [one.positions["entity"] for one in found.prompts] == [
        TextPlace("Mary", 2),
        TextPlace("Anna", 1),
        TextPlace("Laura", 1),
    ]


def test_a_subject_that_the_prompt_names_before() -> None:
    fact = {"prompt": "Mary and {} gave Mary to", "subject": "Mary", "target_true": "John", "target_new": "Anna"}
    (one,) = prompts_from([fact]).prompts
    assert one.positions == {"subject": TextPlace("Mary", 2)}
    (one,) = prompts_from([{**fact, "prompt": "Maryland and {} gave"}]).prompts
    assert one.positions == {"subject": TextPlace("Mary", 1)}


def minimal_pair(name: str, **says: bool) -> dict[str, object]:
    sentences = {"sentence_good": f"{prompt(name)} {name}.", "sentence_bad": f"{prompt(name)} John."}
    return {**sentences, "UID": "gift", "one_prefix_method": True, "two_prefix_method": False, **says}


def test_a_row_of_another_kind_than_the_first(tmp_path: Path) -> None:
    rows = [minimal_pair("Mary"), minimal_pair("Anna", one_prefix_method=False), minimal_pair("Laura")]
    error = one_error(lambda: read(tmp_path, "b.jsonl", rows), "CS359")
    assert error.span is not None
    assert error.span.line == 2
    kept = read(tmp_path, "b.jsonl", rows, skip=["unfit"])
    assert [one.answers for one in kept.prompts] == [(" Mary",), (" Laura",)]
    assert len(read(tmp_path, "b.jsonl", rows, layout="blimp").prompts) == 3


def test_blank_cells_and_rows_that_lack_what_most_have(tmp_path: Path) -> None:
    good = [f'"{prompt(name)}","{prompt(name, name)}", {name}, John' for name in NAMES]
    lines = [
        "clean,corrupt,answers,wrong",
        f'"{prompt("Paul")}","{prompt("Paul", "Paul")}",, John',
        *good,
        f',"{prompt("Paul")}", Mary, John',
        f'"{prompt("Peter")}",, Mary, John',
    ]
    text = "\n".join(lines) + "\n"
    assert {found.code for found in errors_of(lambda: read(tmp_path, "p.csv", text))} == {"CS338"}
    found = read(tmp_path, "p.csv", text, skip=["unfit"])
    assert [one.answers for one in found.prompts] == [(f" {name}",) for name in NAMES]
    assert found.choice is not None
    assert found.choice.left_out == ((0, "unfit"), (7, "unfit"), (8, "unfit"))
    rows = [{"clean": prompt(name), "answer": [f" {name}"]} for name in NAMES]
    errors = errors_of(lambda: read(tmp_path, "p.jsonl", rows, skip=["unfit"]))
    assert errors[0].message == "there is no key `answer`"


def test_auto_circuit_counts_the_rows_that_it_joins(tmp_path: Path) -> None:
    rows = [
        {"clean": prompt(name), "corrupt": prompt(name, other), "answers": [f" {name}"], "wrong_answers": [" John"]}
        for name in NAMES
        for other in ("Paul", "Peter")
    ]
    whole = json.dumps({"prompts": rows})
    found = read(tmp_path, "a.json", whole, skip=["repeats"], prompts=2)
    assert found.corruptions == ("corrupt_1", "corrupt_2")
    assert found.choice is not None
    assert (found.choice.looked_at, len(found.prompts)) == (4, 2)


def test_auto_circuit_as_token_ids(tmp_path: Path, words: PreTrainedTokenizerFast) -> None:
    def ids(text: str) -> list[int]:
        return list(words.encode(text, add_special_tokens=False))

    rows = [{"clean": ids(prompt(name)), "corrupt": ids(prompt(name, name)), "answers": ids(name)} for name in NAMES]
    found = tokenize(read(tmp_path, "a.json", json.dumps({"prompts": rows})), {}, words)
    assert [list(own) for own in found.ids["clean"]] == [row["clean"] for row in rows]
    assert [list(own) for own in found.answers] == [row["answers"] for row in rows]


def hint_of(folder: Path, name: str, rows: Sequence[Mapping[str, object]] | str) -> str:
    return errors_of(lambda: read(folder, name, rows))[0].hint


def test_unknown_columns_are_told_what_to_write(tmp_path: Path) -> None:
    asked = [{"subject": "Mary", "src": prompt(name), "alt": "John", "answers": [f" {name}"]} for name in NAMES]
    hint = hint_of(tmp_path, "z.jsonl", asked)
    assert hint.endswith("columns: {clean: src, answers: answers, wrong: alt, corrupt: ...}")
    nested = [
        {"kind": "a", "question": prompt(name), "swapped": {"question": prompt(name, name)}, "gold answer": name}
        for name in NAMES
    ]
    hint = hint_of(tmp_path, "n.jsonl", nested)
    assert hint.endswith("columns: {clean: question, corrupt: swapped.question, answers: gold answer}")
    hint = hint_of(tmp_path, "t.csv", "clean,corrupted,correct,incorrect\na,b,c,d\n")
    assert hint.endswith("columns: {clean: clean, corrupt: corrupted, answers: correct, wrong: incorrect}")
    columns = {"clean": "question", "corrupt": "swapped.question", "answers": "gold answer", "add_space": True}
    found = read(tmp_path, "n.jsonl", nested, columns=columns)
    assert [one.answers for one in found.prompts] == [(f" {name}",) for name in NAMES]


def test_a_layout_that_the_file_has_not(tmp_path: Path) -> None:
    rows = [{"clean": prompt(name), "answers": [f" {name}"]} for name in NAMES]
    error = one_error(lambda: read(tmp_path, "o.jsonl", rows, layout="blimp"), "CS356")
    assert error.message == "o.jsonl has not the columns of the layout blimp: sentence_good, sentence_bad"
    error = one_error(lambda: read(tmp_path, "o.jsonl", rows, layout="blimp", columns={"clean": "clean"}), "CS356")
    assert "both say how o.jsonl is read" in error.message


def test_one_answer_in_a_column_of_texts() -> None:
    frame = pd.DataFrame([{"clean": prompt(name), "answers": f" {name}", "wrong": " John"} for name in NAMES])
    found = prompts_from(frame)
    assert [(one.answers, one.wrong) for one in found.prompts] == [((f" {name}",), (" John",)) for name in NAMES]
