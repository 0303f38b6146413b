"""Prompts from JSONL, CSV and auto-circuit's JSON: what is read, and what is said about bad lines."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from circuitspec.diagnostics.diagnostic import Diagnostic, Span, render
from circuitspec.hypothesis_file.schema.blocks import TaskSpec
from circuitspec.hypothesis_file.yaml.source import parse_source
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.files import prompt_files as files
from circuitspec.prompts.prompt_set import Prompt, PromptSet, PromptsFile, TextPlace
from tests.prompts.support import build, errors_of, one_error, plain

LINE = {"clean": "When Mary and John", "corrupt": "When Mary and Paul", "answers": [" Mary"], "wrong": [" John"]}


def read(path: Path, **keys: object) -> PromptSet:
    return build(plain(file=path.name, **keys), path.parent)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def jsonl(tmp_path: Path, *rows: object) -> Path:
    return write(tmp_path / "prompts.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def errors(path: Path, **keys: object) -> tuple[Diagnostic, ...]:
    return errors_of(lambda: read(path, **keys))


def test_jsonl(tmp_path: Path) -> None:
    second = {
        "clean": "A \u2028 b",  # a line separator for str.splitlines, but not for JSON lines
        "corrupt": {"flip": "B", "abc": "C"},
        "answers": [" x", " y", " x"],
        "wrong": [],
        "positions": {"S1": 4, "END": -1},
        "template": "ABBA",
    }
    third = {**second, "clean": "D", "template": 3}
    path = write(tmp_path / "p.jsonl", json.dumps(second, ensure_ascii=False) + "\r\n\n  \n" + json.dumps(third))
    prompts = read(path)
    assert prompts.corruptions == ("flip", "abc")
    assert prompts.templates == ("ABBA", "3")
    assert not prompts.text_positions
    first = prompts.prompts[0]
    assert first.texts == {"clean": "A \u2028 b", "flip": "B", "abc": "C"}
    assert (first.answers, first.wrong, first.positions) == ((" x", " y"), (), {"S1": 4, "END": -1})
    assert [p.where for p in prompts.prompts] == ["p.jsonl:1", "p.jsonl:4"]
    assert [p.template for p in prompts.prompts] == [0, 1]


def test_one_corruption_without_a_name_is_called_corrupt(tmp_path: Path) -> None:
    prompts = read(jsonl(tmp_path, LINE))
    assert prompts.corruptions == ("corrupt",)
    assert prompts.templates == ("prompts.jsonl",)
    assert prompts.prompts[0].texts["corrupt"] == "When Mary and Paul"


def test_all_prompts_or_as_many_as_asked_for(tmp_path: Path) -> None:
    path = jsonl(tmp_path, *({**LINE, "clean": f"When {k} and"} for k in range(150)))
    assert len(read(path).prompts) == 150
    assert [p.texts["clean"] for p in read(path, prompts=2).prompts] == ["When 0 and", "When 1 and"]
    for asked in (2, 150):
        assert read(path, prompts=asked).file == PromptsFile(path.name, 150)
    error = one_error(lambda: read(path, prompts=151), "CS339")
    assert "150 prompts, but 151" in error.message


def written_as(kind: str, texts: list[str], bad: str) -> bytes:
    """Prompts of these clean texts, and one more that is `bad`: no prompt at all."""
    corrupt = [f"{text} x" for text in texts]
    match kind:
        case "jsonl":
            rows = [json.dumps({"clean": text, "corrupt": other}) for text, other in zip(texts, corrupt, strict=True)]
            return b"\xef\xbb\xbf" + "\r\n \n".join([*rows, bad]).encode()
        case "csv":
            rows = [f'"{text}","{other}"' for text, other in zip(texts, corrupt, strict=True)]
            return "\n".join(["clean,corrupt", *rows, bad]).encode()
        case _:
            prompts: list[object] = [
                {"clean": text, "corrupt": other, "answers": [" a"], "wrong_answers": [" b"]}
                for text, other in zip(texts, corrupt, strict=True)
            ]
            return json.dumps({"prompts": [*prompts, bad], "word_idxs": {}}, indent=1).encode()


@pytest.mark.parametrize("kind", ["jsonl", "csv", "json"])
def test_only_the_prompts_that_are_used_are_judged(tmp_path: Path, kind: str) -> None:
    """What comes after them may be anything: repeats of them, or no prompts at all. It is counted all the same."""
    path = write(tmp_path / f"p.{kind}", written_as(kind, ["one", "two\ttwo", "three", "one"], "bad"))
    for asked in (1, 3):
        made = read(path, prompts=asked)
        assert [p.texts["clean"] for p in made.prompts] == ["one", "two\ttwo", "three"][:asked]
        assert made.file == PromptsFile(path.name, 5)
        assert [p.span for p in made.prompts] == [p.span for p in read(path, prompts=3).prompts][:asked]
    assert {d.code for d in errors_of(lambda: read(path, prompts=4))} == {"CS351"}
    assert len(errors_of(lambda: read(path, prompts=5))) >= 1
    assert {d.code for d in errors_of(lambda: read(path))} >= {"CS338" if kind != "jsonl" else "CS337"}


def test_bytes_after_the_prompts_that_are_used_are_not_looked_at(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", b'{"clean": "one"}\n{"clean": "two"}\n\xff\xfe\n   \n\xff')
    assert read(path, prompts=2).file == PromptsFile(path.name, 4)
    assert one_error(lambda: read(path, prompts=3), "CS336").span == Span(str(path), 3, 1)


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", b"\xef\xbb\xbf" + json.dumps(LINE).encode())
    assert read(path).prompts[0].texts["clean"] == LINE["clean"]


def test_csv(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.csv",
        "clean,corrupt,corrupt:flip,answers,wrong,template,position:S1,position:END\r\n"
        '"When Mary, and",When Paul and,When John and, Mary| Ann, John,ABBA,4,-1\r\n'
        "\r\n"
        '"two\nlines",b,c, x, y,BABA, 2 ,-1\n'
        "d,e,f, x, y,ABBA,0,-1\n",
    )
    prompts = read(path)
    assert prompts.corruptions == ("flip", "corrupt")
    assert prompts.templates == ("ABBA", "BABA")
    first, second, third = prompts.prompts
    assert first.texts == {"clean": "When Mary, and", "flip": "When John and", "corrupt": "When Paul and"}
    assert (first.answers, first.wrong, first.positions) == ((" Mary", " Ann"), (" John",), {"S1": 4, "END": -1})
    assert second.texts["clean"] == "two\nlines"
    assert [p.where for p in prompts.prompts] == ["p.csv:2", "p.csv:4", "p.csv:6"]
    assert third.template == 0


def test_positions_by_text(tmp_path: Path) -> None:
    """The same from JSON lines and from CSV; what is left out is the first occurrence."""
    line = {"clean": "John and John", "positions": {"A": {"text": "John", "nth": 2}, "B": {"text": "John"}, "C": 1}}
    lines = read(write(tmp_path / "p.jsonl", json.dumps(line)))
    second, first = '"{""text"": ""John"", ""nth"": 2}"', '"{""text"": ""John""}"'
    cells = f"clean,position:A,position:B,position:C\nJohn and John,{second},{first},1"
    table = read(write(tmp_path / "p.csv", cells))
    assert lines.prompts[0].positions == table.prompts[0].positions
    assert lines.prompts[0].positions == {"A": TextPlace("John", 2), "B": TextPlace("John"), "C": 1}


@pytest.mark.parametrize(
    "place",
    [
        {"text": "John", "nth": 0},
        {"text": "John", "nth": "2"},
        {"text": " "},
        {"nth": 2},
        {"text": "John", "n": 2},
        {},
        "John",
        1.5,
        None,
    ],
)
def test_wrong_positions_by_text(tmp_path: Path, place: object) -> None:
    path = write(tmp_path / "p.jsonl", json.dumps({"clean": "John and John", "positions": {"A": place}}))
    found = one_error(lambda: read(path), "CS338")
    assert "`positions`" in found.message
    assert found.span is not None
    assert found.span.line == 1


AUTO_CIRCUIT = {
    "word_idxs": {"IO": 2, "end": 14},
    "seq_labels": ["a", "b"],
    "prompts": [
        {"clean": 'a }] " b', "corrupt": "c", "answers": [" x"], "wrong_answers": [" y", " z"]},
        {"clean": "d", "corrupt": "e", "answers": [" x"], "wrong_answers": [" y"]},
    ],
}


def test_auto_circuit(tmp_path: Path) -> None:
    path = write(tmp_path / "p.json", json.dumps(AUTO_CIRCUIT, indent=1))
    prompts = read(path)
    assert prompts.corruptions == ("corrupt",)
    assert prompts.text_positions
    first, second = prompts.prompts
    assert first == Prompt(
        index=0,
        template=0,
        texts={"clean": 'a }] " b', "corrupt": "c"},
        answers=(" x",),
        wrong=(" y", " z"),
        positions={"IO": 2, "end": 14},
        where=f"p.json:{line_of(path, 0)}",
        span=first.span,
    )
    assert second.positions == first.positions
    assert second.span is not None
    assert second.span.line == line_of(path, 1)


def line_of(path: Path, prompt: int) -> int:
    """The line on which the n-th object with a `clean` key opens, found without a parser."""
    lines = path.read_text().splitlines()
    keys = [k for k, line in enumerate(lines) if '"clean"' in line]
    return keys[prompt]  # the line above, counted from 1


@pytest.mark.parametrize("indent", [None, 0, 4])
def test_a_bad_prompt_of_an_auto_circuit_file_has_its_place(tmp_path: Path, indent: int | None) -> None:
    bad = {**AUTO_CIRCUIT, "prompts": [*AUTO_CIRCUIT["prompts"], {"clean": [[1.0]], "corrupt": [[3.0]]}, 7]}  # type: ignore[misc]
    path = write(tmp_path / "p.json", json.dumps(bad, indent=indent))
    found = errors(path)
    assert {d.code for d in found} == {"CS338"}
    assert {d.message for d in found} == {
        "`clean` is not a text, or a list of token ids",
        "`corrupt` is not a text, or an object of texts by corruption",
        "a prompt is not an object of keys and values",
    }
    text = path.read_text()
    for finding in found:
        assert finding.span is not None
        rest = "\n".join(text.split("\n")[finding.span.line - 1 :])[finding.span.column - 1 :]
        assert rest.startswith("7" if "object of keys" in finding.message else "{")
        assert rest.startswith("7") or json.JSONDecoder().raw_decode(rest)[0] == {"clean": [[1.0]], "corrupt": [[3.0]]}


def test_all_bad_lines_are_reported_with_their_places(tmp_path: Path) -> None:
    good = json.dumps(LINE)
    path = write(
        tmp_path / "prompts.jsonl",
        "\n".join(
            [
                good,
                '{"clean": "a", "corrupt" "b"}',
                good,
                '{"clean": "", "corrupt": "b", "answers": " x", "wrong": [" y"]}',
                '{"corrupt": "b", "answers": [" x"], "wrong_answers": [" y"], "postions": {}}',
                "[1]",
                '{"clean": "a", "corrupt": "b", "answers": [" x"], "wrong": [" y"], "positions": {"S": "4"}}',
                '{"clean": "a", "corrupt": "b", "answers": [" x"], "wrong": [" y", null], "template": 1.5}',
            ]
        ),
    )
    found = [(d.span.line, d.span.column, d.code, d.message) for d in errors(path) if d.span is not None]
    assert found == [
        (2, 26, "CS337", "not JSON: Expecting ':' delimiter"),
        (4, 1, "CS338", "`clean` is blank: nothing stands in it but spaces"),
        (4, 1, "CS338", "`answers` is not a list of texts"),
        (5, 1, "CS338", "`clean` is missing"),
        (5, 1, "CS338", "there is no key `wrong_answers`"),
        (5, 1, "CS338", "there is no key `postions`"),
        (6, 1, "CS338", "a prompt is not an object of keys and values"),
        (7, 1, "CS338", "`positions` is not an object of token indices, or of texts, by position"),
        (8, 1, "CS338", "`wrong` is not a list of texts"),
        (8, 1, "CS338", "`template` is not a text or a number"),
    ]
    hints = {d.message: d.hint for d in errors(path)}
    assert hints["there is no key `wrong_answers`"] == "did you mean wrong?"
    assert hints["there is no key `postions`"] == "did you mean positions?"
    assert all(d.span is not None and d.span.file == str(path) for d in errors(path))


def test_a_thousand_bad_lines_are_counted_not_listed(tmp_path: Path) -> None:
    found = errors(write(tmp_path / "p.jsonl", "{}\n" * 1000))
    assert len(found) == 21
    assert found[-1].message == "980 more errors of this kind are not shown"


def test_json_lines_in_a_json_file(tmp_path: Path) -> None:
    """As feature-circuits names them; and one object is one prompt."""
    path = write(tmp_path / "p.json", '{"clean": "a"}\n\n{"clean": "b"}\n{"clean": "c"}')
    assert [p.where for p in read(path).prompts] == ["p.json:1", "p.json:3", "p.json:4"]
    assert read(path, prompts=2).file == PromptsFile(path.name, 3)
    assert len(read(write(tmp_path / "p.json", '{"clean": "a"}\n')).prompts) == 1


def test_a_json_list(tmp_path: Path) -> None:
    path = write(tmp_path / "p.json", '[{"clean": "a"},\n  {"clean": "b"}, {"clean": ""}]')
    assert [p.span for p in read(path, prompts=2).prompts] == [Span(str(path), 1, 2), Span(str(path), 2, 3)]
    assert one_error(lambda: read(path), "CS338").span == Span(str(path), 2, 19)


@pytest.mark.parametrize(
    "line",
    [
        '{"clean": "a", "clean": "b"}',
        '{"clean": NaN}',
        "null",
        '{"clean": "a"',
        "[" * 100_000,
        '{"a": ' * 100_000,
        '{"n": ' + "9" * 5000 + "}",
    ],
)
def test_what_is_not_json(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "p.jsonl", json.dumps(LINE) + "\n" + line)
    error = one_error(lambda: read(path), "CS337")
    assert error.span is not None
    assert error.span.line == 2
    one_error(lambda: read(write(tmp_path / "p.json", line)), "CS337")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("clean", '"a\\ud800"'),
        ("corrupt", '"a\\uD800 b"'),
        ("corrupt", '{"flip": "a", "abc": "\\ud800"}'),
        ("corrupt", '{"fl\\ud800p": "a"}'),
        ("answers", '[" x", "\\ud800\\ud800"]'),
        ("wrong", '["\\ud800x"]'),
        ("positions", '{"\\ud800": 1}'),
        ("template", '"\\ud800"'),
    ],
)
def test_half_a_character(tmp_path: Path, key: str, value: str) -> None:
    others = {name: content for name, content in LINE.items() if name != key}
    path = write(tmp_path / "p.jsonl", f'{{"{key}": {value}, {json.dumps(others)[1:]}')
    error = one_error(lambda: read(path), "CS338")
    assert error.message == f"`{key}` holds half a character (\\ud800)"
    assert render([error])


def test_both_halves_are_a_character(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", '{"clean": "a\\ud83d\\ude00"}')
    assert read(path).prompts[0].texts["clean"] == "a\U0001f600"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("clean", "", "is blank"),
        ("clean", " \n\t\u3000", "is blank"),
        ("corrupt", "  ", "is blank"),
        ("corrupt", {"flip": "x", "abc": " "}, "holds a blank text"),
        ("answers", [" x", " "], "holds a blank text"),
        ("wrong", ["\t"], "holds a blank text"),
    ],
)
def test_blank_prompts_and_answers(tmp_path: Path, key: str, value: object, said: str) -> None:
    error = one_error(lambda: read(jsonl(tmp_path, {**LINE, key: value})), "CS338")
    assert error.message == f"`{key}` {said}: nothing stands in it but spaces"


def test_a_line_break_is_an_answer(tmp_path: Path) -> None:
    assert read(jsonl(tmp_path, {**LINE, "answers": ["\n"]})).prompts[0].answers == ("\n",)


@pytest.mark.skipif(os.name != "posix", reason="makes a pipe")
def test_a_pipe_is_refused_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.jsonl")
    error = one_error(lambda: read(tmp_path / "p.jsonl"), "CS334")
    assert error.message.endswith("cannot be read: it is a pipe, not a regular file")


def again(*lines: int) -> list[tuple[int, str]]:
    """What is said about each later line that repeats the first."""
    first, *others = lines
    return [(n, f"the prompt on line {n} has the same clean text as that on line {first}") for n in others]


def repeats(path: Path) -> list[tuple[int, str]]:
    found = errors(path)
    assert {d.code for d in found} == {"CS351"}
    assert all("remove one" in d.hint and "`corrupt` mapping" in d.hint for d in found)
    return [(d.span.line, d.message) for d in found if d.span is not None]


def test_a_prompt_that_stands_twice_is_one_observation(tmp_path: Path) -> None:
    other = {**LINE, "corrupt": "When Mary and Ruth", "answers": [" Anna"], "wrong": [" Paul"]}  # the same all the same
    different = [{**LINE, "clean": text} for text in ("When", "when Mary and John", "When Mary and John ")]
    path = jsonl(tmp_path, LINE, different[0], other, *different[1:], LINE, different[0])
    assert repeats(path) == sorted([*again(1, 3, 6), *again(2, 7)])
    assert len(read(path, prompts=2).prompts) == 2


def test_a_prompt_that_stands_twice_in_a_csv_file(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", 'clean,corrupt\n"a\nb",c\nd,e\n"a\nb",f\nd,e\n')
    assert repeats(path) == [*again(2, 5), *again(4, 7)]


def test_a_prompt_that_stands_twice_in_an_auto_circuit_file(tmp_path: Path) -> None:
    one = {"clean": "a", "corrupt": "c", "answers": [" x"], "wrong_answers": [" y"]}
    content = {"prompts": [one, {**one, "clean": "b"}, {**one, "corrupt": "d"}]}
    path = write(tmp_path / "p.json", json.dumps(content, indent=1))
    assert repeats(path) == again(line_of(path, 0), line_of(path, 2))
    path = write(tmp_path / "p.json", json.dumps(content))
    (only,) = errors(path)
    assert only.message == "the prompt on line 1 has the same clean text as that on line 1, column 14"


@pytest.mark.parametrize("positions", [{"S": 10**10}, {"": 1}])
def test_positions_that_are_none(tmp_path: Path, positions: dict[str, int]) -> None:
    one_error(lambda: read(jsonl(tmp_path, {**LINE, "positions": positions})), "CS338")
    bad = {**AUTO_CIRCUIT, "word_idxs": positions}
    assert {d.code for d in errors(write(tmp_path / "p.json", json.dumps(bad)))} == {"CS338"}


@pytest.mark.parametrize(
    ("name", "content"),
    [("p.jsonl", "\n \n"), ("p.csv", ""), ("p.csv", "clean,corrupt\n"), ("p.json", '{"prompts": []}')],
)
def test_empty_files(tmp_path: Path, name: str, content: str) -> None:
    one_error(lambda: read(write(tmp_path / name, content)), "CS339")


def test_not_utf8(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + '{"clean": "é"}\n{"clean": "ü'.encode() + b'\xff"}'
    error = one_error(lambda: read(write(tmp_path / "p.jsonl", content)), "CS336")
    assert error.span is not None
    assert (error.span.line, error.span.column) == (2, 13)
    assert error.label == f"byte 0xff at offset {content.index(0xFF)}"


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 1_000_000)
    one_error(lambda: read(write(tmp_path / "p.jsonl", b"x" * 1_000_001)), "CS335")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    error = one_error(lambda: build(TaskSpec(file="gone.jsonl"), tmp_path), "CS334")
    assert error.message == f"{tmp_path / 'gone.jsonl'} does not exist"
    placed = parse_source("task: {file: gone.jsonl}", "f.yaml")
    (error,) = errors_of(lambda: build_prompts(TaskSpec(file="gone.jsonl"), tmp_path, placed))
    assert (error.message, error.span) == ("gone.jsonl does not exist", Span("f.yaml", 1, 14, 24))
    assert error.label == f"looked for {tmp_path / 'gone.jsonl'}"
    (tmp_path / "dir.jsonl").mkdir()
    one_error(lambda: build(TaskSpec(file="dir.jsonl"), tmp_path), "CS334")
    one_error(lambda: build(TaskSpec(file="a\0.jsonl"), tmp_path), "CS334")
    error = one_error(lambda: build(TaskSpec(file="p.yaml"), tmp_path), "CS334")
    assert ".jsonl" in error.hint


def test_prompts_that_disagree_with_the_first(tmp_path: Path) -> None:
    base = {**LINE, "positions": {"S": 1}, "template": "T"}
    found = errors(
        jsonl(
            tmp_path,
            base,
            {**base, "clean": "2", "corrupt": {"flip": "x"}},
            {**base, "clean": "3", "positions": {"S": 1, "E": 2}},
            {**{k: v for k, v in base.items() if k != "answers"}, "clean": "4"},
            {**base, "clean": "5", "wrong": []},
            {**{k: v for k, v in base.items() if k != "template"}, "clean": "6"},
        )
    )
    assert [d.code for d in found] == ["CS340"] * 5
    assert [d.span.line for d in found if d.span is not None] == [2, 3, 4, 5, 6]
    assert found[0].message == "this prompt has corruptions flip; the first one has corrupt"
    assert found[2].message == "this prompt has no `answers`; the first one has"


def test_prompts_that_contradict_themselves(tmp_path: Path) -> None:
    found = errors(
        jsonl(
            tmp_path,
            LINE,
            {**LINE, "clean": "When", "corrupt": "When"},
            {**LINE, "clean": "Then", "wrong": [" Mary"]},
        )
    )
    assert [d.code for d in found] == ["CS331", "CS330"]
    error = one_error(lambda: read(jsonl(tmp_path, {**LINE, "corrupt": {"clean": "x"}})), "CS333")
    assert "cannot be called clean" in error.message


def test_csv_that_is_wrong(tmp_path: Path) -> None:
    def said(content: str) -> list[tuple[str, str]]:
        return [(d.code, d.message) for d in errors(write(tmp_path / "p.csv", content))]

    assert said("clean,corupt,clean\na,b,c\n") == [
        ("CS338", "the column 'clean' stands twice"),
        ("CS338", "there is no column 'corupt'"),
    ]
    assert said("corrupt\na\n") == [("CS338", "there is no column clean")]
    assert said("clean,corrupt,corrupt:corrupt\na,b,c\n") == [
        ("CS338", "the columns corrupt and corrupt:corrupt name one corruption")
    ]
    assert said("clean,corrupt\na,b,c\n") == [("CS338", "3 cells for 2 columns")]
    assert said('clean,corrupt\na,"b\n')[0][0] == "CS337"
    assert said("clean,corrupt,position:S\na,b,x\n") == [
        ("CS338", "`positions` is not an object of token indices, or of texts, by position")
    ]
    assert said("clean,answers\na,x||y\n") == [
        ("CS338", "`answers` holds a blank text: nothing stands in it but spaces")
    ]
    assert said("clean,corrupt\na,\n") == [("CS338", "`corrupt` holds a blank text: nothing stands in it but spaces")]


def test_json_of_another_form(tmp_path: Path) -> None:
    one_error(lambda: read(write(tmp_path / "p.json", "[]")), "CS339")
    for content in ('{"data": []}', '{"prompts": {}}'):
        one_error(lambda content=content: read(write(tmp_path / "p.json", content)), "CS356")  # type: ignore[misc]
    bad = {**AUTO_CIRCUIT, "word_idx": {}, "seq_labels": 3}
    assert {d.message for d in errors(write(tmp_path / "p.json", json.dumps(bad)))} == {
        "there is no key `word_idx`",
        "`seq_labels` is not a list of texts",
    }
