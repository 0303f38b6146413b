"""Pairs from files: what is read, what it is worked out to by hand, and what is said of rows that do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.hypothesis_file.load_file import Document, load_hypothesis
from circuitspec.pipelines.abstraction.pair_splits import split_pairs
from circuitspec.pipelines.check import check_file
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.pairs.pair_families import draw_pairs
from circuitspec.prompts.pairs.pair_set import PairSet, share
from circuitspec.prompts.prompt_set import CLEAN
from circuitspec.repository.locked_directions import direction_drift, lock_directions

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
        ("source.first", "source.frist", "CS373", "`source.frist` is of no slot; did you mean first?"),
        (",Anna,John,went", ",Bob,John,went", "CS373", "'Bob' in `source.first` is no entry of the list names"),
        (",Anna,John,went", ",,John,went", "CS373", "there is nothing in `source.first`"),
        (",Anna,John,went", ",Anna,John,flew", "CS373", "'flew' in `source.verb.past` is in no row of the table verbs"),
        ("Mary,John,goes,0", "Mary,John,goes,2", "CS373", "`template` is '2', and the task's templates have"),
        ("base.second,", "base.third,", "CS373", "`base.third` is of no slot"),
        ("Mary,John,goes", "Mary,Mary,goes", "CS373", "an answer is also a wrong answer"),
        ("Paul,Anna,walks,1", "Mary,John,goes,0", "CS373", "a prompt that an earlier row gives"),
        (",Anna,John,went", ",Mary,John,went", "CS232", "the source is prompt 0 (templates[0]) itself"),
        (",source.first,source.again,source.verb.past", ",first,again,verb", "CS373", "so there is no source"),
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


def test_bases_that_are_not_the_prompts(tmp_path: Path) -> None:
    """A prompt without a row, a row without a prompt, one prompt in two rows, and a base that may be two prompts."""
    fixed = ("fillings: FILE", "fillings: bases.csv")
    (tmp_path / "bases.csv").write_text("first,second,verb,template\nMary,John,went,0\nMary,John,went,1\n")
    head = "base.first,base.second,template,source.first\n"

    def found(rows: str) -> list[tuple[str, int, str]]:
        return refused(folder(tmp_path, "p.csv", head + rows, fixed))

    ((code, line, said),) = found("Mary,John,0,Anna\n")
    assert (code, line) == ("CS374", 27)
    assert said == "1 prompt of 2 have no source in p.csv, the first is prompt 1 (templates[1])"
    ((code, line, said),) = found("Mary,John,0,Anna\nMary,John,1,Anna\nPaul,John,1,Anna\n")
    assert (code, line, said) == ("CS374", 4, "the base is none of the task's prompts")
    ((code, line, said),) = found("Mary,John,0,Anna\nMary,John,1,Anna\nMary,John,1,Paul\n")
    assert (code, line) == ("CS374", 4)
    assert "is the base of the row on line 3 already" in said
    ((code, line, said),) = found("Mary,John,0,Anna\nMary,John,1,Anna\n".replace(",1", ",").replace(",0", ","))[:1]
    assert code == "CS373"  # a blank template is none
    head = "base.first,source.first\n"
    ((code, line, said), *_) = found("Mary,Anna\n")
    assert (code, line) == ("CS374", 2)
    assert "may be prompt 0 (templates[0]) or prompt 1 (templates[1])" in said
    head = "base.first,source.first\n"
    ((code, line, said),) = found("")
    assert code == "CS374"
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
