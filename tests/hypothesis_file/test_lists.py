"""Word lists from files and inline, for callers with and without a source."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic, Span
from circuitspec.hypothesis_file.checks.word_lists import MAX_LIST_BYTES, columns, load_lists
from circuitspec.hypothesis_file.yaml.source import parse_source


def _error(lists: dict[str, object], base: Path) -> Diagnostic:
    with pytest.raises(CircuitspecError) as caught:
        load_lists(lists, base)
    (finding,) = caught.value.diagnostics
    return finding


def test_inline_forms(tmp_path: Path) -> None:
    lists = load_lists(
        {
            "places": ["store", "park"],
            "landmarks": ({"name": "Colosseum", "city": "Rome"}, {"city": "Paris", "name": "Louvre"}),
            "by_column": {"name": ["Colosseum", "Louvre"], "city": ("Rome", "Paris")},
        },
        tmp_path,
    )
    table = ({"name": "Colosseum", "city": "Rome"}, {"name": "Louvre", "city": "Paris"})
    assert lists == {"places": ("store", "park"), "landmarks": table, "by_column": table}
    assert list(lists) == ["places", "landmarks", "by_column"]
    assert columns(lists["places"]) == ()
    assert columns(lists["landmarks"]) == ("name", "city")


def test_text_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes("\ufeff# first names\r\nMary\r\n\r\n  José \r\n#skipped\r\nJo#n".encode())
    assert load_lists({"names": "names.txt"}, tmp_path) == {"names": ("Mary", "José", "Jo#n")}


def test_csv_file(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('name, city\n"Paris, Texas", Texas\n\n"two ""quotes""",x\n', encoding="utf-8")
    assert load_lists({"t": "t.csv"}, tmp_path)["t"] == (
        {"name": "Paris, Texas", "city": "Texas"},
        {"name": 'two "quotes"', "city": "x"},
    )


def test_files_are_found_beside_the_hypothesis(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "names.TXT").write_text("Mary\n", encoding="utf-8")
    assert load_lists({"n": "sub/names.TXT"}, tmp_path) == {"n": ("Mary",)}


def test_errors_stand_where_the_list_is_named(tmp_path: Path) -> None:
    source = parse_source("task:\n  lists:\n    a: missing.txt\n    b: [x, x]\n", "f.yaml")
    with pytest.raises(CircuitspecError) as caught:
        load_lists({"b": ["x", "x"], "a": "missing.txt"}, tmp_path, source)
    assert [(one.code, one.span) for one in caught.value.diagnostics] == [
        ("CS150", Span("f.yaml", 3, 8, 19)),
        ("CS155", Span("f.yaml", 4, 12, 13)),
    ]


WRONG: list[tuple[object, str]] = [
    ("missing.txt", "CS150"),
    ("folder.txt", "CS150"),
    ("nul\0.txt", "CS150"),
    ("latin.txt", "CS151"),
    ("empty.txt", "CS152"),
    ("header_only.csv", "CS152"),
    ("empty.csv", "CS152"),
    ([], "CS152"),
    ({"a": [], "b": []}, "CS152"),
    ("ragged.csv", "CS153"),
    ("unclosed.csv", "CS153"),
    ("header.csv", "CS153"),
    ([{"a": "1"}, "x"], "CS153"),
    ([{"a": "1"}, {"b": "1"}], "CS153"),
    ({"a": ["1", "2"], "b": ["1"]}, "CS153"),
    ([1], "CS154"),
    ([{"a": 1}], "CS154"),
    ({"a": "text"}, "CS154"),
    ({"a": [1]}, "CS154"),
    (3, "CS154"),
    (None, "CS154"),
    ("twice.txt", "CS155"),
    ("rows_twice.csv", "CS155"),
    (["x", "y", "x"], "CS155"),
    ("names", "CS156"),
    ("names.json", "CS156"),
    ("large.txt", "CS157"),
]


@pytest.mark.parametrize(("content", "code"), WRONG)
def test_wrong_lists(tmp_path: Path, content: object, code: str) -> None:
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "latin.txt").write_bytes(b"Ren\xe9\n")
    (tmp_path / "empty.txt").write_text("\n# nothing\n", encoding="utf-8")
    (tmp_path / "empty.csv").write_text("\n", encoding="utf-8")
    (tmp_path / "header_only.csv").write_text("a,b\n", encoding="utf-8")
    (tmp_path / "ragged.csv").write_text("a,b\n1,2\n1\n", encoding="utf-8")
    (tmp_path / "unclosed.csv").write_text('a,b\n"1,2\n', encoding="utf-8")
    (tmp_path / "header.csv").write_text("a,\n1,2\n", encoding="utf-8")
    (tmp_path / "twice.txt").write_text("x\ny\nx\n", encoding="utf-8")
    (tmp_path / "rows_twice.csv").write_text("a,b\n1,2\n1,2\n", encoding="utf-8")
    if content == "large.txt":
        (tmp_path / "large.txt").write_bytes(b"x" * (MAX_LIST_BYTES + 1))
    assert _error({"list": content}, tmp_path).code == code


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("words/names.json", "words/names.json"),
        ("the store", "the store"),
        ("a, b", '"a, b"'),
        ("true", '"true"'),
        ("store ", '"store "'),
        ("é: #1", '"é: #1"'),
    ],
)
def test_a_list_of_one_entry_is_shown_as_it_was_written(tmp_path: Path, written: str, shown: str) -> None:
    finding = _error({"list": written}, tmp_path)
    assert finding.code == "CS156"
    assert repr(written) in finding.message
    assert finding.hint == f"for a list of one entry, write [{shown}]"
    assert parse_source(f"list: [{shown}]", "f.yaml").data == {"list": [written]}


def test_place_of_a_bad_byte(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("é ok\nRené".encode() + b"\xe9\n")
    assert _error({"n": "latin.txt"}, tmp_path).span == Span(str(tmp_path / "latin.txt"), 2, 5)


def test_place_of_a_bad_row(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('a,b\n"x\ny",2\n1\n', encoding="utf-8")
    assert _error({"t": "t.csv"}, tmp_path).span == Span(str(tmp_path / "t.csv"), 4, 1)
