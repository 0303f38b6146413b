"""Text to data with places: YAML 1.2, spans of every key and value, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError, Span
from circuitspec.hypothesis_file.yaml.source import MAX_BYTES, SourceText, parse_source, read_text

TEXT = """\
# a comment
name: "two words"   # another
nodes: [a9.h9, 9.10,
        'it''s']
deep:
  - {x: 1, y: null}
  - text that goes
    on
empty:
"""


@pytest.fixture
def source() -> SourceText:
    return parse_source(TEXT, "some.yaml")


def test_data(source: SourceText) -> None:
    assert source.data == {
        "name": "two words",
        "nodes": ["a9.h9", 9.1, "it's"],
        "deep": [{"x": 1, "y": None}, "text that goes on"],
        "empty": None,
    }


# Columns were counted by hand in TEXT.
@pytest.mark.parametrize(
    ("path", "key", "line", "column", "end"),
    [
        (("name",), True, 2, 1, 5),
        (("name",), False, 2, 7, 18),
        (("nodes",), True, 3, 1, 6),
        (("nodes",), False, 3, 8, None),
        (("nodes", 0), False, 3, 9, 14),
        (("nodes", 1), False, 3, 16, 20),
        (("nodes", 1), True, 3, 16, 20),
        (("nodes", 2), False, 4, 9, 16),
        (("deep", 0), False, 6, 5, 20),
        (("deep", 0, "y"), True, 6, 12, 13),
        (("deep", 0, "y"), False, 6, 15, 19),
        (("deep", 1), False, 7, 5, None),
        (("empty",), True, 9, 1, 6),
        (("empty",), False, 9, 7, 7),
        # nothing stands there: the nearest key or entry above
        (("deep", 0, "z"), False, 6, 5, 20),
        (("deep", 7), False, 5, 1, 5),
        (("nodes", 0, "x", 3), False, 3, 9, 14),
        (("no", "such"), False, 2, 1, None),
    ],
)
def test_spans(
    source: SourceText, path: tuple[str | int, ...], key: bool, line: int, column: int, end: int | None
) -> None:
    assert source.span(path, key) == Span("some.yaml", line, column, end)


def test_original_spelling(source: SourceText) -> None:
    assert source.raw(("nodes", 1)) == "9.10"
    assert source.raw(("deep", 0, "y")) == "null"
    assert source.raw(("deep",)) is None
    assert source.raw(("no",)) is None


def test_places_inside_texts(source: SourceText) -> None:
    assert source.inner_span(("name",), 4, 5) == Span("some.yaml", 2, 12, 17)
    assert source.inner_span(("nodes", 0), 3, 2) == Span("some.yaml", 3, 12, 14)
    assert source.inner_span(("nodes", 0), 3, 99) == Span("some.yaml", 3, 12, 14)
    # not written as it reads, so the whole of it
    assert source.inner_span(("nodes", 2), 3, 1) == source.span(("nodes", 2))
    assert source.inner_span(("deep", 1), 3, 1) == source.span(("deep", 1))


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-3", -3),
        ("+3", 3),
        ("012", 12),
        ("0x1F", 31),
        ("0o17", 15),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("0b11", "0b11"),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("2001-01-01", "2001-01-01"),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("'12'", "12"),
        ('"12"', "12"),
        ('"\\u00e9"', "é"),
    ],
)
def test_core_schema(written: str, value: object) -> None:
    found = parse_source(f"key: {written}\n", "f").data
    assert found == {"key": value}
    assert isinstance(found, dict)
    assert type(found["key"]) is type(value)


def test_nan() -> None:
    data = parse_source("key: .nan", "f").data
    assert isinstance(data, dict)
    assert math.isnan(data["key"])


def test_aliases_repeat_values() -> None:
    source = parse_source("a: &x [1, 2]\nb: *x\nc: {d: *x}\n", "f")
    assert source.data == {"a": [1, 2], "b": [1, 2], "c": {"d": [1, 2]}}
    assert source.span(("c", "d", 1)) == Span("f", 1, 11, 12)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends(end: str) -> None:
    source = parse_source(f"a: 1{end}b: 2{end}", "f")
    assert source.span(("b",)) == Span("f", 2, 4, 5)
    assert source.lines == ("a: 1", "b: 2", "")


def test_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "bom.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_text(file) == "a: 1\n"


def _codes(text: str) -> list[tuple[str, int, int]]:
    with pytest.raises(CircuitspecError) as caught:
        parse_source(text, "f")
    return [(one.code, one.span.line, one.span.column) for one in caught.value.diagnostics if one.span is not None]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", [("CS103", 1, 1)]),
        ("# comment\n", [("CS103", 1, 1)]),
        ("~", [("CS103", 1, 1)]),
        ("a: [1, 2", [("CS104", 1, 9)]),
        ("a:\n\t- b", [("CS104", 2, 1)]),
        ("a: 1\na: 2\nb: 1\nb: 2", [("CS105", 2, 1), ("CS105", 4, 1)]),
        ("a: !!str 3\nb: !mine {}\nc: !<x> 1", [("CS106", 1, 4), ("CS106", 2, 4), ("CS106", 3, 4)]),
        ("a: *x", [("CS107", 1, 4)]),
        ("a: &x [*x]", [("CS107", 1, 8)]),
        ("a: " + "[" * 61, [("CS108", 1, 63)]),
        ("1: a\n[b]: c\n? {x: 1}\n: y", [("CS109", 1, 1), ("CS109", 2, 1), ("CS109", 3, 3)]),
        ("a: &x {b: 1}\nc: {<<: *x}", [("CS109", 2, 5)]),
        ("a: 9007199254740992\nb: 9007199254740991", [("CS115", 1, 4)]),
        ("a: b\x00c", [("CS118", 1, 5)]),
        ("a\n---\nb", [("CS119", 2, 1)]),
        # all that can be found before what cannot be read
        ("a: 1\na: 2\nb: [", [("CS105", 2, 1), ("CS104", 3, 5)]),
    ],
)
def test_refused(text: str, found: list[tuple[str, int, int]]) -> None:
    assert _codes(text) == found


def test_a_quoted_merge_sign_is_a_key() -> None:
    assert parse_source('"<<": 1', "f").data == {"<<": 1}


def test_alias_bomb_is_refused_before_it_unfolds() -> None:
    lines = ["a0: &a0 [" + "x, " * 9 + "]"]
    lines += [f"a{i}: &a{i} [" + f"*a{i - 1}, " * 9 + "]" for i in range(1, 40)]
    assert [code for code, _, _ in _codes("\n".join(lines))] == ["CS107"]


def test_too_large(tmp_path: Path) -> None:
    file = tmp_path / "large.yaml"
    file.write_bytes(b"a: " + b"x" * (MAX_BYTES - 3))
    assert len(read_text(file)) == MAX_BYTES
    file.write_bytes(b"a: " + b"x" * (MAX_BYTES - 2))
    with pytest.raises(CircuitspecError, match="CS102"):
        read_text(file)


def test_not_utf8(tmp_path: Path) -> None:
    file = tmp_path / "latin.yaml"
    file.write_bytes("a: 1\nbé: ".encode() + b"\xff\n")
    with pytest.raises(CircuitspecError) as caught:
        read_text(file)
    (finding,) = caught.value.diagnostics
    assert (finding.code, finding.span) == ("CS101", Span(str(file), 2, 5))


@pytest.mark.parametrize("name", ["missing.yaml", ".", "nul\0.yaml"])
def test_unreadable(tmp_path: Path, name: str) -> None:
    with pytest.raises(CircuitspecError, match="CS100"):
        read_text(tmp_path / name)
