"""Pairs from files: what is read, what it is worked out to by hand, and what is said of rows that do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.hypothesis_file.load_file import Document, load_hypothesis
from circuitspec.hypothesis_file.schema.blocks import AblationSpec
from circuitspec.pipelines.abstraction.pair_splits import split_pairs
from circuitspec.pipelines.check import check_file
from circuitspec.pipelines.verify import VerifyOptions, verify
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.pairs.pair_families import draw_pairs
from circuitspec.prompts.pairs.pair_set import PairSet, share
from circuitspec.prompts.prompt_set import CLEAN
from circuitspec.prompts.reference_prompts import is_drawn
from circuitspec.repository.locked_directions import direction_drift, lock_directions
from circuitspec.runtime.progress import Silent
from tests.prompts.support import plain

HEAD = """\
circuitspec: 1
name: carries
model: {id: zoo:ioi-tiny}
task:
  templates:
    - "Then, {first} and {second} went to the store. {again} gave a ring to"
    - "When {first} and {second} {verb} to the store, {again} gave a ring to"
  slots: {first: $names, second: $names, again: =second, verb: $verbs.past}
  lists:
    names: [Mary, John, Paul, Anna, Peter, Laura]
    verbs: [{past: went, now: goes}, {past: walked, now: walks}]
  answer: " {first}"
  wrong: " {second}"
  positions: {END: last}
  fillings: FILE
circuit:
  groups:
    inhibition: {nodes: [a2.h2], at: END}
ablation: {value: zero}
abstraction:
  variables:
    position: 0 if again == second else 1
    answer: first if position == 0 else second
  output: answer
  align: {position: {nodes: [inhibition]}}
  pairs:
    mine: {file: FILE}
claims:
  - interchange: {variable: position, at_least: 0.8}
"""
CSV = """\
base.first,base.second,base.verb.now,template,source.first,source.again,source.verb.past,note
Mary,John,goes,0,Anna,,,
Paul,Anna,walks,1,Mary,Paul,went,x
"""


def folder(tmp_path: Path, name: str, content: str, *changes: tuple[str, str]) -> Document:
    (tmp_path / name).write_text(content)
    text = HEAD
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "a.circuit.yaml").write_text(text.replace("FILE", name))
    return load_hypothesis(tmp_path / "a.circuit.yaml")


def pairs_in(document: Document) -> PairSet:
    task, spec = document.hypothesis.task, document.hypothesis.abstraction
    prompts = build_prompts(task, document.base_dir, document.source)
    assert spec is not None
    return draw_pairs(spec, task, prompts, document.base_dir, document.source)


def refused(document: Document) -> list[tuple[str, int, str]]:
    """Code, line and message of each finding."""
    with pytest.raises(CircuitspecError) as caught:
        pairs_in(document)
    return [(one.code, 0 if one.span is None else one.span.line, one.message) for one in caught.value.diagnostics]


ROWS = [
    {"base": {"first": "Mary", "second": "John", "verb": "went"}, "template": 0, "source": {"first": "Anna"}},
    {
        "base": {"first": "Paul", "second": "Anna", "verb": {"now": "walks"}},
        "template": 1,
        "source": {"first": "Mary", "again": "Paul", "verb": {"now": "goes"}},
    },
]
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS)
TSV = (
    "base.first\tbase.second\tbase.verb\ttemplate\tsource.first\tsource.again\tsource.verb.now\n"
    "Mary\tJohn\twent\t0\tAnna\tJohn\tgoes\nPaul\tAnna\twalked\t1\tMary\tPaul\tgoes\n"
)


@pytest.mark.parametrize(("name", "content"), [("p.jsonl", JSONL), ("p.tsv", TSV), ("p.json", json.dumps(ROWS))])
def test_bases_and_sources_of_slots(tmp_path: Path, name: str, content: str) -> None:
    """Slots that are not said stay, those that copy follow; a table's row by any of its columns."""
    pairs = pairs_in(folder(tmp_path, name, content))
    assert [base.texts[CLEAN] for base in pairs.bases] == [
        "Then, Mary and John went to the store. John gave a ring to",
        "When Paul and Anna walked to the store, Anna gave a ring to",
    ]
    first, second = pairs.families["mine"]
    assert first.text == "Then, Anna and John went to the store. John gave a ring to"
    assert second.text == "When Mary and Anna went to the store, Paul gave a ring to"
    assert second.text[slice(*second.spans["again"])] == "Paul"
    assert pairs.source_answers("mine") == (" Anna", " Anna")
    # position: 0 -> 0 stays, 0 -> 1 must change; answer: Mary -> Anna must change, Paul -> Anna too
    assert pairs.changed((("position", "mine"),)) == (False, True)
    assert pairs.changed((("answer", "mine"),)) == (True, True)
    assert pairs.expected((("position", "mine"),)) == (" Mary", " Anna")
    assert share(pairs.told_apart((("position", "mine"),), (("answer", "mine"),))) == 0.5


def test_a_parquet_file_in_which_rows_say_different_slots(tmp_path: Path) -> None:
    """Arrow fills up with nulls what a row does not say: these slots stay as in the base."""
    plain_text = JSONL.replace('{"now": "walks"}', '"walked"').replace('{"now": "goes"}', '"went"')
    rows = [json.loads(line) for line in plain_text.splitlines()]
    pd.DataFrame(rows).to_parquet(tmp_path / "p.parquet")
    (tmp_path / "a.circuit.yaml").write_text(HEAD.replace("FILE", "p.parquet"))
    first, second = pairs_in(load_hypothesis(tmp_path / "a.circuit.yaml")).families["mine"]
    assert first.text == "Then, Anna and John went to the store. John gave a ring to"
    assert second.text == "When Mary and Anna went to the store, Paul gave a ring to"


def test_prompts_that_are_drawn_are_found_by_their_text_or_slots(tmp_path: Path) -> None:
    """The order of the rows is not that of the prompts."""
    drawn = ("  fillings: FILE\n", "  prompts: 4\n")
    free = folder(tmp_path, "p.jsonl", "", drawn, ("    mine: {file: FILE}", "    mine: {permute: true}"))
    bases = pairs_in(free).bases
    rows: list[dict[str, object]] = []
    for base in reversed(bases):
        other = next(n for n in ("Mary", "John", "Paul") if n not in map(str, base.fillings[CLEAN].values()))
        said: object = base.texts[CLEAN]
        if base.index % 2:
            said = {slot: base.fillings[CLEAN][slot] for slot in ("first", "second")}
        rows.append({"base": said, "template": base.template, "source": {"first": other}})
    pairs = pairs_in(folder(tmp_path, "p.jsonl", "".join(json.dumps(row) + "\n" for row in rows), drawn))
    for base, source in zip(pairs.bases, pairs.families["mine"], strict=True):
        old, new = base.fillings[CLEAN], source.slots
        assert new["second"] == old["second"]
        assert new["first"] != old["first"]
        assert source.text == base.texts[CLEAN].replace(str(old["first"]), str(new["first"]))


@pytest.mark.parametrize(
    ("old", "new", "code", "said"),
    [
        ("source.first", "source.frist", "CS379", "`source.frist` is of no slot; did you mean first?"),
        (",Anna,John,went", ",Bob,John,went", "CS379", "'Bob' in `source.first` is no entry of the list names"),
        (",Anna,John,went", ",,John,went", "CS379", "there is nothing in `source.first`"),
        (",Anna,John,went", ",Anna,John,flew", "CS379", "'flew' in `source.verb.past` is in no row of the table verbs"),
        ("Mary,John,goes,0", "Mary,John,goes,2", "CS379", "`template` is '2', and the task's templates have"),
        ("base.second,", "base.third,", "CS379", "`base.third` is of no slot"),
        ("Mary,John,goes", "Mary,Mary,goes", "CS379", "an answer is also a wrong answer"),
        ("Paul,Anna,walks,1", "Mary,John,goes,0", "CS379", "a prompt that an earlier row gives"),
        (",Anna,John,went", ",Mary,John,went", "CS232", "the source is prompt 0 (templates[0]) itself"),
        (",source.first,source.again,source.verb.past", ",first,again,verb", "CS379", "so there is no source"),
    ],
)
def test_rows_that_do_not_fit(tmp_path: Path, old: str, new: str, code: str, said: str) -> None:
    content = CSV.replace(",Anna,,,", ",Anna,John,went,")
    assert old in content
    found = refused(folder(tmp_path, "p.csv", content.replace(old, new)))
    lines = {row: content.replace(old, new).splitlines()[row - 1] for row in (2, 3)}
    assert found
    assert {one[0] for one in found} == {code}
    assert said in found[0][2]
    assert found[0][1] in lines


def test_columns_that_fillings_lack_are_told_once(tmp_path: Path) -> None:
    """A table's rows all lack them; `again` copies and needs none."""
    document = folder(tmp_path, "p.csv", "base.first,source.first\nMary,Anna\nPaul,Mary\n")
    assert refused(document) == [("CS379", 2, "there is no column `base.second`, `base.verb`")]


def test_a_base_that_is_no_prompt_is_all_that_is_wrong(tmp_path: Path) -> None:
    """`check` says nothing of claims whose pairs it could not read."""
    fixed = ("fillings: FILE", "fillings: bases.csv")
    (tmp_path / "bases.csv").write_text("first,second,verb\nMary,John,went\n")
    folder(tmp_path, "p.csv", "base.first,source.first\nPaul,Anna\n", fixed)
    found, _ = check_file(tmp_path / "a.circuit.yaml")
    assert [one.code for one in found] == ["CS378"]


def test_bases_that_are_not_the_prompts(tmp_path: Path) -> None:
    """A prompt without a row, a row without a prompt, one prompt in two rows, and a base that may be two prompts."""
    fixed = ("fillings: FILE", "fillings: bases.csv")
    (tmp_path / "bases.csv").write_text("first,second,verb,template\nMary,John,went,0\nMary,John,went,1\n")
    head = "base.first,base.second,template,source.first\n"

    def found(rows: str) -> list[tuple[str, int, str]]:
        return refused(folder(tmp_path, "p.csv", head + rows, fixed))

    ((code, line, said),) = found("Mary,John,0,Anna\n")
    assert (code, line) == ("CS378", 27)
    assert said == "1 prompt of 2 have no source in p.csv, the first is prompt 1 (templates[1])"
    ((code, line, said),) = found("Mary,John,0,Anna\nMary,John,1,Anna\nPaul,John,1,Anna\n")
    assert (code, line, said) == ("CS378", 4, "the base is none of the task's prompts")
    ((code, line, said),) = found("Mary,John,0,Anna\nMary,John,1,Anna\nMary,John,1,Paul\n")
    assert (code, line) == ("CS378", 4)
    assert "is the base of the row on line 3 already" in said
    ((code, line, said),) = found("Mary,John,0,Anna\nMary,John,1,Anna\n".replace(",1", ",").replace(",0", ","))[:1]
    assert code == "CS379"  # a blank template is none
    head = "base.first,source.first\n"
    ((code, line, said), *_) = found("Mary,Anna\n")
    assert (code, line) == ("CS378", 2)
    assert "may be prompt 0 (templates[0]) or prompt 1 (templates[1])" in said
    head = "base.first,source.first\n"
    ((code, line, said),) = found("")
    assert code == "CS378"
    assert "2 prompts of 2 have no source" in said


def test_some_of_a_files_bases(tmp_path: Path) -> None:
    """With `prompts: N` the first N rows are the prompts, and other rows of the same file no fault."""
    content = CSV.replace(",Anna,,,", ",Anna,John,went,")
    pairs = pairs_in(folder(tmp_path, "p.csv", content, ("  fillings: FILE\n", "  fillings: FILE\n  prompts: 1\n")))
    assert len(pairs) == 1
    assert pairs.source_answers("mine") == (" Anna",)
    ((code, _, said),) = refused(
        folder(tmp_path, "p.csv", content, ("  fillings: FILE\n", "  fillings: FILE\n  prompts: 3\n"))
    )
    assert (code, said) == ("CS339", "p.csv holds 2 rows, but 3 are asked for")


def test_check_shows_them_and_the_lock_has_their_digest(tmp_path: Path) -> None:
    document = folder(tmp_path, "p.jsonl", JSONL)
    found, said = check_file(tmp_path / "a.circuit.yaml")
    assert not found
    assert "sources of mine" in said
    assert "position from mine   0.50                 0.50" in said
    locked = lock_directions(document)
    assert not list(direction_drift(document, locked))
    (tmp_path / "p.jsonl").write_text(JSONL.replace("Anna", "Laura"))
    (drift,) = direction_drift(document, locked)
    assert drift.code == "CS552"
    assert drift.message.startswith("p.jsonl (pairs) changed since it was locked")


def test_splits_leave_out_what_is_from_a_file(tmp_path: Path) -> None:
    """Their bases are not the prompts of a split: it is told, and where nothing is left to learn on, refused."""
    two = folder(
        tmp_path, "p.jsonl", JSONL, ("    mine: {file: FILE}", "    mine: {file: FILE}\n    p: {permute: true}")
    )
    spec = two.hypothesis.abstraction
    assert spec is not None
    found = split_pairs(two.hypothesis.task.model_copy(update={"prompts": 16}), spec, tmp_path, two.source)
    assert {tuple(part.pairs.families) for part in found.parts.values()} == {("p",)}
    assert any(line.startswith("pairs mine: from a file") for line in found.told)
    alone = folder(tmp_path, "p.jsonl", JSONL)
    assert alone.hypothesis.abstraction is not None
    with pytest.raises(CircuitspecError, match="CS524"):
        split_pairs(alone.hypothesis.task, alone.hypothesis.abstraction, tmp_path, alone.source)


def test_means_go_over_the_prompts_that_a_file_fills() -> None:
    """They are no sample of what the lists give, unless the file asks for a number of such prompts."""
    filled, drawn = plain(fillings="p.csv"), plain()
    assert not is_drawn(filled, None)
    assert is_drawn(drawn, None)
    assert is_drawn(filled, AblationSpec.model_validate({"value": "mean", "reference": 50}))
    assert not is_drawn(filled, AblationSpec.model_validate({"value": "mean", "reference": "prompts"}))


# -- prompts from a file ----------------------------------------------------------------------------------------------

LISTED = """\
circuitspec: 1
name: carries
model: {id: zoo:ioi-tiny}
task:
  file: prompts.jsonl
  positions: {END: last}
circuit:
  groups:
    inhibition: {nodes: [a2.h2], at: END}
ablation: {value: zero}
abstraction:
  variables:
    position: 0 if again == second else 1
    answer: first if position == 0 else second
  output: " {answer}"
  align: {position: {nodes: [inhibition]}}
  pairs:
    mine: {file: FILE}
    permuted: {permute: true}
claims:
  - interchange: {variable: position, at_least: 0.8}
"""


def row(first: str, second: str, again: str, **more: object) -> dict[str, object]:
    """A row of a prompts file, with what its prompt is made of beside it."""
    clean = f"Then, {first} and {second} went to the store. {again} gave a ring to"
    right, wrong = (first, second) if again == second else (second, first)
    names = {"first": first, "second": second, "again": again}
    place = {"again": {"text": again, "nth": 2}}
    return {"clean": clean, "answers": [f" {right}"], "wrong": [f" {wrong}"], "positions": place, **names, **more}


BASES = [row("Mary", "John", "John"), row("Paul", "Anna", "Paul"), row("Anna", "Mary", "Mary")]
OTHER = row("Laura", "Peter", "Laura")


def listed(tmp_path: Path, rows: list[dict[str, object]], *changes: tuple[str, str]) -> Document:
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(one) + "\n" for one in BASES))
    text = LISTED
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    (tmp_path / "a.circuit.yaml").write_text(text.replace("FILE", "pairs.jsonl"))
    return load_hypothesis(tmp_path / "a.circuit.yaml")


def test_bases_and_sources_among_prompts_of_a_file(tmp_path: Path) -> None:
    """By the clean text, in any order; or a row of its own, as a prompts file has it."""
    bases = [one["clean"] for one in BASES]
    rows: list[dict[str, object]] = [
        {"base": bases[2], "source": bases[1]},
        {"base": bases[0], "source": OTHER},
        {"base": bases[1], "source": bases[0]},
    ]
    pairs = pairs_in(listed(tmp_path, rows))
    assert [one.text for one in pairs.families["mine"]] == [OTHER["clean"], bases[0], bases[1]]
    assert pairs.families["mine"][0].named == (" Peter", " Laura")
    assert pairs.source_answers("mine") == (" Peter", " Mary", " Anna")
    # position 0 -> 1, 1 -> 0, 0 -> 1: every answer must change to the other name of the base
    assert pairs.expected((("position", "mine"),)) == (" John", " Paul", " Mary")
    assert sorted(one.text for one in pairs.families["permuted"]) == sorted(map(str, bases))
    found, said = check_file(tmp_path / "a.circuit.yaml")
    assert not found
    assert "position from mine       1.00                 0.00" in said


def test_rows_in_the_order_of_the_prompts(tmp_path: Path) -> None:
    """Without `base` row i goes with prompt i; a table has `source.COLUMN`."""
    document = listed(tmp_path, [], ("file: FILE", "file: pairs.csv"))
    columns = ["clean", "answers", "wrong", "position:again", "first", "second", "again"]
    lines = [",".join(f"source.{name}" for name in columns)]
    for first, second, again in (("Laura", "Peter", "Peter"), ("Laura", "Mary", "Laura"), ("Peter", "Mary", "Mary")):
        made = row(first, second, again)
        place = '"{""text"": ""' + again + '"", ""nth"": 2}"'
        cells = [f'"{made["clean"]}"', " " + first, " " + second, place, first, second, again]
        lines.append(",".join(cells))
    (tmp_path / "pairs.csv").write_text("\n".join(lines) + "\n")
    pairs = pairs_in(document)
    assert pairs.source_answers("mine") == (" Laura", " Mary", " Peter")
    found, _ = check_file(tmp_path / "a.circuit.yaml")
    assert not found


def test_rows_that_do_not_fit_prompts_of_a_file(tmp_path: Path) -> None:
    bases = [str(one["clean"]) for one in BASES]
    good: list[dict[str, object]] = [{"base": text, "source": OTHER} for text in bases]

    def found(number: int, **changes: object) -> tuple[str, int, str]:
        changed = [dict(one) for one in good]
        changed[number] |= changes
        return refused(listed(tmp_path, changed))[0]

    assert found(1, base="Then") == ("CS378", 2, "the base is none of the task's prompts")
    assert found(1, base=bases[0])[:2] == ("CS378", 2)
    assert found(1, source=bases[1])[:2] == ("CS232", 2)
    assert found(1, source={**OTHER, "clean": bases[1]})[:2] == ("CS232", 2)
    code, line, said = found(2, source="Then")
    assert (code, line) == ("CS379", 3)
    assert "'Then' is no clean prompt of the task" in said
    assert found(2, source={})[2] == "the row has no `source` and no `source.clean`"
    assert found(2, base=3)[2] == "`base` is no clean prompt of the task"
    assert found(0, source={**OTHER, "clean": 3})[0] == "CS338"
    assert "has no column second" in found(0, source={k: v for k, v in OTHER.items() if k != "second"})[2]
    assert "`positions`" not in found(0, source={k: v for k, v in OTHER.items() if k != "positions"})[2]
    ((code, line, said),) = refused(listed(tmp_path, good[:2]))
    assert (code, said) == (
        "CS378",
        "1 prompt of 3 have no source in pairs.jsonl, the first is prompt 2 (prompts.jsonl:3)",
    )
    code, _, said = refused(listed(tmp_path, good, ("again == second", "S2 == second")))[0]
    assert code == "CS188"
    assert said.startswith("prompt 0 (prompts.jsonl:1) has no column S2 beside it")
    code, _, said = refused(listed(tmp_path, good, ("  positions:", "  skip: [unfit]\n  positions:")))[0]
    assert code == "CS378"
    assert "rows are left out once the prompts are tokens" in said
    assert refused(listed(tmp_path, good, ("answer: first", "answer: second")))[0][0] == "CS231"


def test_a_list_of_prompts_gives_what_templates_give(tmp_path: Path) -> None:
    """The prompts and pairs of a templated task, written out as rows: the same records, claim by claim."""
    drawn = ("  fillings: FILE\n", "  prompts: 8\n"), ("    mine: {file: FILE}", "    mine: {redraw: [first, second]}")
    lines = HEAD.splitlines(keepends=True)
    plain = (lines[6], ""), (", verb: $verbs.past", ""), (lines[10], "")
    document = folder(tmp_path, "x.csv", "", *drawn, *plain)
    made = pairs_in(document)
    templated = verify(document, VerifyOptions(negatives="off"), Silent()).verification

    def values(slots: object) -> list[str]:
        assert isinstance(slots, dict)
        return [str(slots[name]) for name in ("first", "second", "again")]

    rows = [row(*values(dict(base.values))) for base in made.bases]
    sources: list[dict[str, object]] = [{"source": row(*values(dict(one.slots)))} for one in made.families["mine"]]
    written = listed(tmp_path, sources, ("    permuted: {permute: true}\n", ""))
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    from_files = verify(written, VerifyOptions(negatives="off"), Silent()).verification
    (one,), (other,) = templated.claims, from_files.claims
    assert one.n == other.n == 8
    assert [(part.name, part.estimate) for part in one.parts] == [(part.name, part.estimate) for part in other.parts]
    assert one.estimate == other.estimate
    assert templated.model == from_files.model


def test_a_position_at_another_token(tmp_path: Path) -> None:
    """Prompts of equally many tokens whose rows say other places: everywhere there is no telling what goes where."""
    rows = [{**BASES[0], "positions": {"again": 3}}, {**BASES[1], "positions": {"again": 9}}]
    listed(tmp_path, [], ("    mine: {file: FILE}\n", ""), ("nodes: [inhibition]}", "nodes: [m1], at: again}"))
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    file = tmp_path / "a.circuit.yaml"
    assert check_file(file)[0] == ()
    file.write_text(file.read_text().replace("nodes: [m1], at: again}", "nodes: [m1]}"))
    (problem,) = check_file(file)[0]
    assert problem.code == "CS233"
    assert problem.message.endswith("(every token): the position again is at another token")


def test_prompts_of_other_lengths_are_warned_of(tmp_path: Path) -> None:
    """CS445 in the words of pairs, with how many bases have a source that is longer or shorter."""
    document = listed(tmp_path, [], ("    mine: {file: FILE}\n", ""))
    longer = {**BASES[1], "clean": str(BASES[1]["clean"]).replace("Then,", "Then")}
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(one) + "\n" for one in (BASES[0], longer)))
    found = verify(document, VerifyOptions(negatives="off"), Silent()).verification
    (warning,) = [one for one in found.warnings if one.code == "CS445"]
    assert warning.message.startswith("bases and sources of pairs have pieces of other lengths on 2 of 2 prompts")
    assert "the base has 15 tokens, the source 14" in warning.message
    assert "skip" not in warning.help
