"""Columns by name, layouts by their columns, tables of other kinds, and rows in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from circuitspec.prompts.files.prompts_in_memory import prompts_from
from circuitspec.prompts.prompt_set import PromptSet, TextPlace, prompts_digest
from tests.prompts.support import build, errors_of, one_error, plain

ROWS = [
    {"clean": "When Mary", "corrupt": "When Paul", "answers": [" x"], "wrong": [" y"], "kind": "a"},
    {"clean": "Then Mary", "corrupt": "Then Paul", "answers": [" x", " z"], "wrong": [" y"], "kind": "b"},
]


def read(path: Path, **task: object) -> PromptSet:
    return build(plain(file=path.name, **task), path.parent)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def table(path: Path, *lines: str) -> Path:
    return write(path, "\n".join(lines) + "\n")


# ------------------------------------------------------------------------------------------------------------ columns


def test_columns_of_a_table(tmp_path: Path) -> None:
    path = table(
        tmp_path / "p.csv", "n,text,other,good,bad,S,where,kind", "0,A b,A c, x|y,z,b,1,k", "1,D b,D c,x, z,b,-1,l"
    )
    columns = {"clean": "text", "corrupt": {"flip": "other"}, "answers": "good", "wrong": ["bad"], "template": "kind"}
    columns["positions"] = {"S": "S", "P": "where"}
    first, second = read(path, columns={**columns, "add_space": True}, by="n").prompts
    assert first.texts == {"clean": "A b", "flip": "A c"}
    assert (first.answers, first.wrong, second.wrong) == ((" x", " y"), (" z",), (" z",))
    assert first.positions == {"S": TextPlace("b"), "P": 1}
    assert (first.metadata, second.template) == ({"n": "0", "kind": "k"}, 1)
    as_written = read(path, columns={"clean": "text", "answers": ["good", "bad"]}).prompts[0]
    assert (as_written.answers, as_written.texts) == ((" x", "y", "z"), {"clean": "A b"})


def test_columns_inside_columns_and_ids(tmp_path: Path) -> None:
    rows = [{"a": {"b": "A"}, "ids": [3, 5], "a.c": 7}]
    path = write(tmp_path / "p.json", json.dumps(rows))
    (prompt,) = read(path, columns={"clean": "a.b", "answer_ids": "ids", "wrong_ids": "a.c"}).prompts
    assert (prompt.texts["clean"], prompt.answers, prompt.wrong) == ("A", (3, 5), (7,))


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    path = table(tmp_path / "p.csv", "text,good", "A,x")
    found = errors_of(lambda: read(path, columns={"clean": "txt", "answers": "good", "wrong": "bad"}))
    assert [(d.code, d.message) for d in found] == [
        ("CS355", "p.csv has no column txt"),
        ("CS355", "p.csv has no column bad"),
    ]
    assert found[0].hint == "did you mean text?"
    error = one_error(lambda: read(path, columns={"clean": "text"}, by="goood"), "CS355")
    assert error.hint == "did you mean good?"
    many = table(tmp_path / "m.csv", "clean,id", *(f"A {n},{n}" for n in range(101)))
    one_error(lambda: read(many, by="id"), "CS358")
    assert read(many, by="id", prompts=100).by == ("id",)


def test_a_misspelt_column_is_no_other_column(tmp_path: Path) -> None:
    """What is kept beside the prompts is never an answer that was meant."""
    for name, meant in (
        ("answer", "answers"),
        ("wrong_answers", "wrong"),
        ("corrupted", "corrupt"),
        ("postions", "positions"),
    ):
        path = write(tmp_path / "p.jsonl", json.dumps({"clean": "A", "answers": [" x"]} | {name: " x"}))
        if meant == "answers":
            assert read(path).prompts[0].metadata == {"answer": " x"}  # answers are there as well
            path = write(tmp_path / "p.jsonl", json.dumps({"clean": "A", name: " x"}))
        assert one_error(lambda path=path: read(path), "CS338").hint == f"did you mean {meant}?"  # type: ignore[misc]


def test_other_columns_change_no_digest(tmp_path: Path) -> None:
    rows = [{key: value for key, value in row.items() if key != "kind"} for row in ROWS]
    with_kind = prompts_from(ROWS, by="kind")
    assert [prompt.metadata for prompt in with_kind.prompts] == [{"kind": "a"}, {"kind": "b"}]
    assert prompts_digest(with_kind) == prompts_digest(prompts_from(rows))


# ------------------------------------------------------------------------------------------------------------ layouts


def test_a_layout_is_recognised_only_where_that_is_clear(tmp_path: Path) -> None:
    pairs = {"sentence_good": "a b c.", "sentence_bad": "a b d."}
    path = write(tmp_path / "p.jsonl", json.dumps(pairs))
    error = one_error(lambda: read(path), "CS356")
    assert "layout: blimp or blimp_two_prefixes" in error.hint
    assert read(path, layout="blimp").prompts[0].answers == (" c",)
    both = {"clean": "A", "corrupt": "B", "corrupted": "C", "correct_idx": 1, "incorrect_idx": 2}
    path = write(tmp_path / "p.jsonl", json.dumps(both))
    assert "eap_ig, circuitspec" in one_error(lambda: read(path), "CS356").message
    assert read(path, layout="eap_ig").prompts[0].texts["corrupt"] == "C"
    assert read(path, layout="circuitspec").prompts[0].texts["corrupt"] == "B"
    error = one_error(lambda: read(write(tmp_path / "p.jsonl", '{"text": "a", "label": 1}')), "CS356")
    assert "columns: {clean: text" in error.hint
    one_error(lambda: read(path, layout="auto_circuit"), "CS356")


def test_the_report_says_what_showed_the_layout() -> None:
    row = {"clean_prefix": "A", "patch_prefix": "B", "clean_answer": " x", "patch_answer": " y", "case": "k"}
    assert prompts_from([row]).layout.startswith("feature_circuits, recognised by clean_prefix")
    assert prompts_from([row], layout="feature_circuits").layout == "feature_circuits, as `layout` says"
    assert prompts_from(ROWS).layout == ""


@pytest.mark.parametrize(
    ("layout", "row", "why"),
    [
        ("blimp", {"sentence_good": "Who a?", "sentence_bad": "What a?"}, "part at their first word"),
        ("blimp", {"sentence_good": "a b", "sentence_bad": "a b c"}, "do not part at a word"),
        ("blimp", {"sentence_good": "a b.", "sentence_bad": "a b!"}, "do not part at a word"),
        ("blimp_two_prefixes", {"sentence_good": "a b", "sentence_bad": "a c"}, "do not go on"),
        ("blimp_two_prefixes", {"sentence_good": "a b", "sentence_bad": "c a b"}, "begins with the word"),
        ("eap_ig", {"clean": "A", "corrupted": "B", "correct_idx": "x", "incorrect_idx": 1}, "no token ids"),
        ("eap_ig", {"clean": "A", "corrupted": " ", "correct_idx": 1, "incorrect_idx": 1}, "`corrupted` is no text"),
        ("eap_ig_greater_than", {"clean": "A", "corrupted": "B", "label": 41}, "does not end in a century"),
        ("mib", {"prompt": "A", "choices": ["x", "y"], "answerKey": 2}, "none of the choices"),
        ("mib", {"prompt": "A", "choices": "xy", "answerKey": 0}, "no list of texts"),
        ("known_facts", {"prompt": "A b", "subject": "c", "attribute": "d"}, "does not hold its subject"),
        ("counterfact", {"requested_rewrite": {"prompt": "{} b", "subject": "c"}}, "nothing in `target_true`"),
    ],
)
def test_rows_that_no_prompt_can_be_made_of(layout: str, row: dict[str, object], why: str) -> None:
    error = one_error(lambda: prompts_from([row], layout=layout), "CS359")
    assert why in error.message
    assert error.message.startswith("row 1 of the prompts: ")
    one_error(lambda: prompts_from([row], layout=layout, skip=["unfit"]), "CS357")


def test_minimal_pairs_by_words() -> None:
    good, bad = "These casseroles disgust Kayla.", "These casseroles disgusts Kayla."
    (prompt,) = prompts_from([{"sentence_good": good, "sentence_bad": bad}], layout="blimp").prompts
    assert (prompt.texts["clean"], prompt.answers, prompt.wrong) == ("These casseroles", (" disgust",), (" disgusts",))
    good, bad = "The woman cleans a park.", "The women cleans a park."
    (prompt,) = prompts_from([{"sentence_good": good, "sentence_bad": bad}], layout="blimp_two_prefixes").prompts
    assert (prompt.texts, prompt.answers) == ({"clean": "The woman", "corrupt": "The women"}, (" cleans",))


def test_choices_with_letters() -> None:
    row = {
        "prompt": "A or B?\nAnswer:",
        "choices": {"label": ["A", "B"], "text": ["one", "two"]},
        "answerKey": "B",
        "letter_counterfactual": {"prompt": "C or D?\nAnswer:", "choices": {}, "answerKey": "D"},
    }
    (prompt,) = prompts_from([row]).prompts
    assert (prompt.answers, prompt.wrong) == ((" B",), (" A",))
    assert prompt.texts["letter"] == "C or D?\nAnswer:"


def test_hypernyms_are_lists_in_a_cell(tmp_path: Path) -> None:
    path = table(tmp_path / "p.csv", "clean,corrupted,answers_idx,corrupted_answers_idx", 'A,B,"[3, 4]","[5]"')
    (prompt,) = read(path).prompts
    assert (prompt.answers, prompt.wrong) == ((3, 4), (5,))


def test_corruptions_of_one_prompt_are_joined_where_each_has_as_many(tmp_path: Path) -> None:
    def entry(clean: str, corrupt: str, wrong: str = " y") -> dict[str, object]:
        return {"clean": clean, "corrupt": corrupt, "answers": [" x"], "wrong_answers": [wrong]}

    made = prompts_from({"prompts": [entry("A", "B"), entry("A", "C"), entry("D", "E"), entry("D", "F")]})
    assert made.corruptions == ("corrupt_1", "corrupt_2")
    assert [prompt.texts["corrupt_2"] for prompt in made.prompts] == ["C", "F"]
    all_four = {"prompts": [entry("A", "B"), entry("A", "C"), entry("D", "E"), entry("D", "F")]}
    path = write(tmp_path / "p.json", json.dumps(all_four))
    for limited in (prompts_from(all_four, limit=1), read(path, prompts=1, layout="auto_circuit")):
        assert [prompt.texts["clean"] for prompt in limited.prompts] == ["A"]
        assert limited.corruptions == ("corrupt_1", "corrupt_2")
    assert read(path, prompts=1).corruptions == ("corrupt",)  # the first row alone says nothing of others
    assert read(path, prompts=2).corruptions == ("corrupt_1", "corrupt_2")
    for uneven in (
        [entry("A", "B"), entry("A", "C"), entry("D", "E")],
        [entry("A", "B"), entry("A", "C", " z"), entry("D", "E"), entry("D", "F")],
        [entry("A", "B"), entry("A", "B")],
    ):
        found = errors_of(lambda uneven=uneven: prompts_from({"prompts": uneven}))  # type: ignore[misc]
        assert {d.code for d in found} == {"CS351"}
        assert prompts_from({"prompts": uneven}, skip=["repeats"]).corruptions == ("corrupt",)


def test_ravel_takes_the_next_entity_with_another_value(tmp_path: Path) -> None:
    def put(end: str, content: object) -> Path:
        return write(tmp_path / f"ravel_city_{end}.json", json.dumps(content))

    path = put(
        "entity_attributes",
        {"Rome": {"Country": "Italy"}, "Milan": {"Country": "Italy"}, "Lyon": {"Country": "France", "Language": ""}},
    )
    put("attribute_to_prompts", {"Country": ["%s is in", "Where is %s? In"], "Language": ["People in %s speak"]})
    made = read(path)
    assert [(p.texts["clean"], p.texts["corrupt"], p.answers, p.wrong) for p in made.prompts[:3]] == [
        ("Rome is in", "Lyon is in", (" Italy",), (" France",)),
        ("Where is Milan? In", "Where is Lyon? In", (" Italy",), (" France",)),
        ("Where is Rome? In", "Where is Lyon? In", (" Italy",), (" France",)),
    ]
    assert len(made.prompts) == 6  # three cities and two prompts that have an attribute to go with
    assert made.prompts[0].positions == {"entity": TextPlace("Rome")}
    assert made.prompts[0].metadata["attribute"] == "Country"
    assert len(read(path, prompts=2).prompts) == 2


# ------------------------------------------------------------------------------------------------ parquet and folders


def folder(path: Path, rows: list[dict[str, object]], **state: object) -> Path:
    path.mkdir()
    content = pa.Table.from_pylist(rows)
    with (path / "data-0.arrow").open("wb") as stream, pa.ipc.new_stream(stream, content.schema) as writer:
        writer.write_table(content)
    (path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-0.arrow"}], **state}))
    return path


def test_parquet_and_folders_give_what_json_lines_give(tmp_path: Path) -> None:
    lines = write(tmp_path / "p.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "p.parquet")
    made = folder(tmp_path / "set", ROWS)
    wanted = [(p.texts, p.answers, p.wrong, p.metadata) for p in read(lines).prompts]
    for path in (tmp_path / "p.parquet", made):
        found = read(path)
        assert [(p.texts, p.answers, p.wrong, p.metadata) for p in found.prompts] == wanted
        assert [p.where for p in found.prompts] == [f"row 1 of {path.name}", f"row 2 of {path.name}"]
        assert read(path, prompts=1).file == type(found.file)(path.name, 2)  # type: ignore[misc]


def test_places_are_row_numbers(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([ROWS[0], {**ROWS[1], "clean": " "}, ROWS[0]]), tmp_path / "p.parquet")
    found = errors_of(lambda: read(tmp_path / "p.parquet"))
    assert found[0].message.startswith("row 2 of p.parquet: `clean` is blank")
    again = errors_of(lambda: prompts_from([ROWS[0], ROWS[1], ROWS[0]]))
    assert again[0].message == "the prompt on row 3 has the same clean text as that on row 1"


def test_what_is_no_table(tmp_path: Path) -> None:
    one_error(lambda: read(write(tmp_path / "p.parquet", "no parquet")), "CS337")
    one_error(lambda: read(tmp_path / "gone.parquet"), "CS334")
    (tmp_path / "empty").mkdir()
    assert "state.json" in one_error(lambda: read(tmp_path / "empty"), "CS334").message
    made = folder(tmp_path / "shuffled", ROWS, _indices_data_files=[{"filename": "x"}])
    assert "flatten_indices" in one_error(lambda: read(made), "CS337").message
    outside = folder(tmp_path / "outside", ROWS, _data_files=[{"filename": "../p.arrow"}])
    one_error(lambda: read(outside), "CS337")
    splits = tmp_path / "splits"
    splits.mkdir()
    (splits / "dataset_dict.json").write_text('{"splits": ["train"]}')
    folder(splits / "train", ROWS)
    assert "file: splits/train" in one_error(lambda: read(splits), "CS334").hint
    assert len(build(plain(file="splits/train"), tmp_path).prompts) == 2


# ------------------------------------------------------------------------------------------------------------- memory


class FakeDataset:
    """As a Hugging Face data set: rows by iteration, columns by name."""

    def __init__(self, rows: list[dict[str, object]]) -> None:
        self._rows = rows
        self.column_names = list(rows[0])

    def __iter__(self) -> Iterator[dict[str, object]]:
        return iter(self._rows)


def test_every_form_in_memory_says_the_same() -> None:
    wanted = prompts_digest(prompts_from(ROWS))
    by_column = {key: [row[key] for row in ROWS] for key in ROWS[0]}
    for form in (tuple(ROWS), pd.DataFrame(ROWS), FakeDataset(ROWS), pa.Table.from_pylist(ROWS), by_column):
        made = prompts_from(form, by="kind")
        assert prompts_digest(made) == wanted
        assert [prompt.metadata["kind"] for prompt in made.prompts] == ["a", "b"]
    frame = pd.DataFrame([{**ROWS[0], "note": None}, {**ROWS[1], "note": "n"}])
    assert [prompt.metadata.get("note") for prompt in prompts_from(frame, by="note").prompts] == [None, "n"]
    assert len(prompts_from(ROWS, limit=1).prompts) == 1


def test_a_data_set_of_hugging_face(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_list(ROWS)
    made.save_to_disk(str(tmp_path / "set"))
    assert prompts_digest(prompts_from(made)) == prompts_digest(prompts_from(ROWS))
    assert prompts_digest(read(tmp_path / "set")) == prompts_digest(prompts_from(ROWS))


def test_what_holds_no_rows() -> None:
    for nothing in (5, "prompts.jsonl", {"clean": "A"}, {"clean": ["A"], "answers": []}):
        one_error(lambda nothing=nothing: prompts_from(nothing), "CS358")  # type: ignore[misc]
    one_error(lambda: prompts_from([]), "CS339")
    with pytest.raises(ValueError, match="columns"):
        prompts_from(ROWS, columns={"cleen": "x"})
