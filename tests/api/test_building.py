"""Hypotheses from Python values: the same files, the same checks, and YAML that says what was meant."""

from __future__ import annotations

import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml.emitter import Emitter

import circuitspec
from circuitspec import ablation, claim, group
from circuitspec.hypothesis_file.load_file import digest, load_hypothesis, parse_hypothesis
from circuitspec.hypothesis_file.yaml.source import parse_source
from circuitspec.hypothesis_file.yaml.yaml_writer import write_yaml

ROOT = Path(__file__).parents[2] / "hypotheses"
FILES = sorted(ROOT.rglob("*.circuit.yaml"))
NAMES = ["Mary", "John", "Paul", "Anna", "Ruth", "Emma"]
TASK: dict[str, Any] = {
    "templates": ["{IO} and {S1}, then {S2} gave it to"],
    "slots": {"IO": "$names", "S1": "$names", "S2": "=S1"},
    "lists": {"names": NAMES},
    "answer": " {IO}",
    "wrong": " {S1}",
    "corruptions": {"abc": {"IO": "$names", "S1": "$names", "S2": "$names"}},
    "positions": {"END": "last"},
    "prompts": 10,
}


def built(**changes: Any) -> circuitspec.Hypothesis:
    parts: dict[str, Any] = {
        "model": "zoo:ioi-tiny",
        "task": TASK,
        "groups": {"movers": group("a3.h0", "a3.h1", at="END"), "against": group("a2.h3", at="END", effect="negative")},
        "free": ["m*"],
        "paths": ["movers, against -> logits"],
        "ablation": ablation("mean_per_template", from_="abc"),
        "claims": [claim("sufficient", metric="logit_diff", at_least=0.8, at_most=1.2)],
    }
    return circuitspec.hypothesis("built", **{**parts, **changes})


EXPECTED = """\
circuitspec: 1
name: built

model: {id: zoo:ioi-tiny}

task:
  templates:
    - '{IO} and {S1}, then {S2} gave it to'
  slots: {IO: $names, S1: $names, S2: =S1}
  lists: {names: [Mary, John, Paul, Anna, Ruth, Emma]}
  answer: ' {IO}'
  wrong: ' {S1}'
  corruptions: {abc: {IO: $names, S1: $names, S2: $names}}
  positions: {END: last}
  prompts: 10

circuit:
  groups:
    movers: {nodes: [a3.h0, a3.h1], at: END}
    against: {nodes: [a2.h3], at: END, effect: negative}
  free: [m*]
  paths:
    - movers, against -> logits

ablation: {value: mean_per_template, from: abc}

claims:
  - sufficient: {metric: logit_diff, at_least: 0.8, at_most: 1.2}
"""


def test_the_yaml_is_what_a_person_would_write() -> None:
    assert built().to_yaml() == EXPECTED
    assert str(built()) == EXPECTED
    assert repr(built()) == "<Hypothesis 'built': movers, against; claims sufficient>"


def test_short_forms() -> None:
    short = built(groups={"movers": "a3.h0", "others": ["a2.h0", "a2.h1"]}, paths=[], ablation="zero")
    groups = short.hypothesis.circuit.groups
    assert groups["movers"].nodes == ("a3.h0",)
    assert groups["others"].nodes == ("a2.h0", "a2.h1")
    assert short.hypothesis.ablation.value == "zero"
    gate = claim("gate", nodes=["movers", "others"], is_="or", metric="logit_diff")
    assert short.replace(claims=[gate], ablation=ablation("resample", from_="abc")).hypothesis.claims[0].kind == "gate"


@pytest.mark.parametrize(
    "file",
    [pytest.param(file, id=file.stem, marks=[pytest.mark.nightly] * (n % 4 > 0)) for n, file in enumerate(FILES)],
)
def test_every_hypothesis_round_trips(file: Path) -> None:
    read = circuitspec.load(file)
    assert read.to_yaml() == file.read_text(encoding="utf-8")
    again = circuitspec.hypothesis(**read.parts, folder=file.parent)
    assert again.hypothesis == read.hypothesis
    assert digest(again.hypothesis) == digest(read.hypothesis)
    written = again.to_yaml()
    assert parse_hypothesis(written, str(file), file.parent).hypothesis == read.hypothesis
    assert max(map(len, written.splitlines())) <= 125
    assert written == again.replace().to_yaml()


def test_mistakes_are_those_of_the_file() -> None:
    with pytest.raises(circuitspec.CircuitspecError) as caught:
        built(
            groups={"movers": group("a3.h0", "L3", at="NOWHERE", effects="negative")},
            claims=[claim("sufficient", metric="logit_dif", at_least=0.8), claim("sufficent", metric="kl")],
        )
    found = caught.value.diagnostics
    text = built().to_yaml().replace("movers: {nodes: [a3.h0, a3.h1], at: END}", "")
    assert text != built().to_yaml()
    assert {"CS110", "CS120"} <= {finding.code for finding in found}
    assert all(finding.span is not None for finding in found)
    said = "".join(traceback.format_exception(caught.value))
    assert "did you mean effect" in said
    assert "movers: {nodes: [a3.h0, L3], at: NOWHERE, effects: negative}" in said  # the line, and carets below it
    assert "^^^^^^^" in said


def test_what_yaml_has_no_word_for() -> None:
    for odd in ({1, 2}, object(), b"x"):
        with pytest.raises(TypeError, match="a hypothesis file has no word for"):
            built(free=odd)
    with pytest.raises(TypeError, match="keys of a hypothesis file are text"):
        built(task={**TASK, "positions": {1: "last"}})


def test_save(tmp_path: Path) -> None:
    saved = built().save(tmp_path / "built.circuit.yaml")
    assert (tmp_path / "built.circuit.yaml").read_text(encoding="utf-8") == EXPECTED
    assert saved.source.file == str(tmp_path / "built.circuit.yaml")
    assert saved.base_dir == tmp_path
    assert load_hypothesis(tmp_path / "built.circuit.yaml").hypothesis == saved.hypothesis == built().hypothesis


def test_a_hypothesis_is_not_saved_where_its_lists_are_not(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "names.txt").write_text("\n".join(NAMES), encoding="utf-8")
    task = {**TASK, "lists": {"names": Path("names.txt")}}
    made = built(task=task, folder=tmp_path / "lists")
    assert [row for rows in made.lists.values() for row in rows]
    with pytest.raises(circuitspec.CircuitspecError):
        made.save(tmp_path / "x.circuit.yaml")
    assert not (tmp_path / "x.circuit.yaml").exists()
    assert made.save(tmp_path / "lists" / "x.circuit.yaml").hypothesis == made.hypothesis


def test_parts_can_be_replaced_one_by_one() -> None:
    read = circuitspec.load(ROOT / "ioi-tiny.circuit.yaml")
    other = read.replace(ablation=ablation("zero"), name="ioi-tiny-zero")
    assert other.hypothesis.ablation.value == "zero"
    assert other.name == "ioi-tiny-zero"
    assert other.hypothesis.circuit == read.hypothesis.circuit
    assert other.hypothesis.claims == read.hypothesis.claims
    assert read.hypothesis.ablation.value == "mean_per_template"


def test_a_built_hypothesis_is_verified() -> None:
    toy = circuitspec.load(ROOT / "toys" / "negative.circuit.yaml")
    found = circuitspec.verify(circuitspec.hypothesis(**toy.parts))
    assert found.verdict == circuitspec.verify(toy).verdict == "SUPPORTED"


def test_nothing_heavy_is_imported_to_build_one() -> None:
    code = (
        "import sys, circuitspec\n"
        "assert not {'pydantic', 'ruamel'} & set(sys.modules), 'import circuitspec is not light'\n"
        f"circuitspec.hypothesis(**circuitspec.load({str(ROOT / 'ioi-tiny.circuit.yaml')!r}).parts)\n"
        "print(sorted({'torch', 'transformers', 'pyvene', 'pandas', 'scipy'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


ODD = """9.10 0x1F 1e3 true No null ~ - ? | > ' , *x &x !x %x @x `x << --- ... #x {x} [x 2001-01-01 a\\b \u2028 \x85"""
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12) | st.sampled_from(
    [*ODD.split(" "), "", " x", "x ", "- a", "a: b", "a #b", "a\nb", '"', "\ta", "x\n\n y " * 60, "long words " * 20]
)
WORDS = [
    "a",
    "the",
    "{IO}",
    "store",
    "it's",
    '"so"',
    "#",
    ":",
    "-",
    "?",
    ",",
    "\\frac{a}{b}",
    "---",
    "...",
    "x" * 40,
    "→",
    "日本語",
]
GAPS = [" "] * 8 + ["  ", "\n", "\t", "\n\n\t", " \n ", "\\", "\x7f", ""]
LONG = st.lists(st.sampled_from(WORDS) | st.sampled_from(GAPS), max_size=120).map("".join)
KEYS = st.text("abcdefgXYZ_09.+-# é", min_size=1, max_size=8).filter(lambda key: key.strip() == key)
ANY_KEYS = TEXTS | LONG.map(lambda key: key[:150])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, VALUES, min_size=1, max_size=4))
def test_what_is_written_is_read_again(data: dict[str, Any]) -> None:
    """Also text that YAML would take for a number, a truth value, or its own marks."""
    assert parse_source(write_yaml(data), "f").data == data


@pytest.mark.parametrize(
    "text", [".0e0", "1e5", "1.e+3", "0o17", "0x1F", ".inf", "-.Inf", ".nan", "null", "~", "True", "9.10"]
)
def test_text_that_is_a_number_without_quotes_is_read_again(text: str) -> None:
    """ruamel's own rules leave some of these plain, which the core schema of YAML 1.2 reads as numbers."""
    data = {text: [text, {text: text}]}
    assert parse_source(write_yaml(data), "f").data == data


@given(LONG, ANY_KEYS)
def test_text_longer_than_a_line_is_read_again(text: str, key: str) -> None:
    for data in ({"templates": [text]}, {"description": text}, {"lists": {key: [text, "b"]}}, {key: text}):
        assert parse_source(write_yaml(data), "f").data == data


@pytest.mark.parametrize("escaped", ["\t", "\n", "\\"])
def test_no_space_is_added_where_an_escape_falls_at_the_end_of_a_line(escaped: str) -> None:
    for length in range(60, 140):
        template = "\t" + ("word " * 40)[:length].rstrip() + "z" + escaped + "next word here"
        assert parse_source(write_yaml({"templates": [template]}), "f").data == {"templates": [template]}


@pytest.mark.parametrize("key", [":x", "?x", ",x", "-", "? x", "a  " + "b" * 130])
def test_keys_that_begin_like_marks_are_read_again(key: str) -> None:
    for data in ({key: 1}, {"lists": {key: ["a"]}}, {"claims": [{key: {key: "x"}}]}):
        assert parse_source(write_yaml(data), "f").data == data


def test_a_text_that_yaml_would_change_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the writer does wrong: here it folds as ruamel does, which adds a space before `next`."""
    monkeypatch.setattr("circuitspec.hypothesis_file.yaml.emitter.FaithfulEmitter", Emitter)
    template = "\t" + "word " * 22 + "z\tnext word here"
    with pytest.raises(
        ValueError, match=r"^YAML does not keep this as it is: task\.templates\[1\]: .* would be read as"
    ):
        write_yaml({"task": {"templates": ["a", template]}})
