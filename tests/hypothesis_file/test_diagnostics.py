"""How findings look, what they make of the exit status, and the table of codes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from circuitspec.diagnostics.codes import CODES, explain
from circuitspec.diagnostics.diagnostic import (
    CircuitspecError,
    Diagnostic,
    Span,
    exit_code,
    in_order,
    render,
    render_styled,
)

FILE = "ioi.circuit.yaml"
TEXT = "circuitspec: 1\n" * 11 + "    nodes: [a9.h9, 9.10]\n"
FINDING = Diagnostic(
    "CS112",
    "9.1 is a number, not a head",
    Span(FILE, 12, 20, 24),
    "YAML reads 9.10 as 9.1, which would be head 1",
    "write a9.h10",
)
SHOWN = """\
ioi.circuit.yaml:12:20: error[CS112]: 9.1 is a number, not a head
   12 |     nodes: [a9.h9, 9.10]
      |                    ^^^^ YAML reads 9.10 as 9.1, which would be head 1
   help: write a9.h10            more: circuitspec explain CS112
"""


def test_the_look() -> None:
    assert render([FINDING], {FILE: TEXT}) == SHOWN


def test_the_file_is_read_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / FILE).write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    monkeypatch.chdir(tmp_path)
    assert render([FINDING]) == SHOWN


def test_several_are_set_apart() -> None:
    assert render([FINDING, FINDING], {FILE: TEXT}) == SHOWN + "\n" + SHOWN


def test_colour_changes_no_letter() -> None:
    styled = render_styled([FINDING], {FILE: TEXT})
    assert styled.plain == SHOWN
    assert {str(span.style) for span in styled.spans} >= {"bold red", "bold green", "blue"}


def test_without_a_file_or_a_place() -> None:
    assert render([FINDING], {}) == (
        "ioi.circuit.yaml:12:20: error[CS112]: 9.1 is a number, not a head\n"
        "   YAML reads 9.10 as 9.1, which would be head 1\n"
        "   help: write a9.h10            more: circuitspec explain CS112\n"
    )
    assert render([Diagnostic("CS401", "left out", severity="warning")]) == (
        "warning[CS401]: left out\n   more: circuitspec explain CS401\n"
    )
    beyond = Diagnostic("CS112", "m", Span(FILE, 99, 1))
    assert render([beyond], {FILE: TEXT}) == f"{FILE}:99:1: error[CS112]: m\n   more: circuitspec explain CS112\n"


def _snippet(line: str, start: int, end: int | None, label: str = "", width: int = 120) -> list[str]:
    shown = render([Diagnostic("CS112", "m", Span("f", 1, start, end), label)], {"f": line}, width).splitlines()
    return shown[1:3]


@pytest.mark.parametrize(
    ("line", "start", "end", "marked"),
    [
        ("abc def", 5, 8, ["    1 | abc def", "      |     ^^^"]),
        ("abc def", 5, None, ["    1 | abc def", "      |     ^"]),
        ("abc", 4, 4, ["    1 | abc", "      |    ^"]),
        ("abc", 99, 120, ["    1 | abc", "      |    ^"]),
        ("", 1, None, ["    1 |", "      | ^"]),
        # a tab is shown as four spaces
        ("\tab", 2, 4, ["    1 |     ab", "      |     ^^"]),
        ("\tab", 1, 2, ["    1 |     ab", "      | ^^^^"]),
        # wide characters take two columns, combining ones none
        ("日本 x", 1, 3, ["    1 | 日本 x", "      | ^^^^"]),
        ("日本 x", 4, 5, ["    1 | 日本 x", "      |      ^"]),
        ("e\u0301x", 3, 4, ["    1 | e\u0301x", "      |  ^"]),
        # nothing that moves the cursor reaches the terminal
        ("a\x1b[31mb", 7, 8, ["    1 | a\ufffd[31mb", "      |       ^"]),
    ],
)
def test_carets(line: str, start: int, end: int | None, marked: list[str]) -> None:
    assert _snippet(line, start, end) == marked


@pytest.mark.parametrize("start", [1, 2, 30, 300, 560, 598])
@pytest.mark.parametrize("width", [60, 100, 120])
def test_long_lines_are_cropped_around_the_carets(start: int, width: int) -> None:
    line = "a" * (start - 1) + "BAD" + "c" * (600 - start)
    source, carets = _snippet(line, start, start + 3, width=width)
    assert len(source) <= width
    assert source[carets.index("^") :].startswith("BAD")
    assert carets.count("^") == 3
    assert source.startswith("    1 | ..." if start > width else "    1 | ")
    assert source.endswith("...") or start > 500


def test_a_long_marked_text_is_cropped_too() -> None:
    source, carets = _snippet("x" + "Y" * 500 + "z", 2, 502, "label", width=80)
    assert len(source) <= 80
    assert "..." in source
    assert carets.endswith("^ label")
    assert carets.index("^") == source.index("Y")


def test_a_long_hint_pushes_the_pointer_down() -> None:
    shown = render([Diagnostic("CS112", "m", hint="h" * 100)])
    assert shown == f"error[CS112]: m\n   help: {'h' * 100}\n   more: circuitspec explain CS112\n"


def test_messages_stay_on_one_line() -> None:
    assert render([Diagnostic("CS112", "a\nb\x1b[2J")]).splitlines()[0] == "error[CS112]: a\ufffdb\ufffd[2J"


def test_order() -> None:
    spans = [None, Span("a", 1, 1), Span("a", 1, 5), Span("a", 10, 1), Span("b", 2, 1)]
    findings = [Diagnostic("CS112", str(i), span) for i, span in enumerate(spans)]
    assert in_order(findings[::-1]) == tuple(findings)
    same = [Diagnostic("CS112", "second", spans[1]), Diagnostic("CS110", "first", spans[1])]
    assert in_order(same) == tuple(same)


@pytest.mark.parametrize(
    ("codes", "status"),
    [
        ([], 0),
        (["CS104"], 3),
        (["CS205"], 3),
        (["CS300"], 3),
        (["CS507"], 3),
        (["CS508"], 3),
        (["CS301"], 5),
        (["CS319"], 5),
        (["CS320"], 3),
        (["CS369"], 3),
        (["CS370"], 5),
        (["CS403"], 4),
        (["CS501"], 5),
        (["CS501", "CS112"], 3),
        (["CS501", "CS300"], 3),
        (["CS403", "CS501"], 5),
    ],
)
def test_exit_codes(codes: list[str], status: int) -> None:
    assert exit_code([Diagnostic(code, "m") for code in codes]) == status


def test_warnings_and_notes_are_no_failure() -> None:
    assert exit_code([Diagnostic("CS112", "m", severity="warning"), Diagnostic("CS501", "m", severity="note")]) == 0


def test_an_error_says_all_its_findings() -> None:
    assert str(CircuitspecError(FINDING, Diagnostic("CS104", "x"))) == "CS112: 9.1 is a number, not a head\nCS104: x"


def test_the_table_of_codes() -> None:
    assert list(CODES) == sorted(CODES)
    for code, info in CODES.items():
        assert re.fullmatch(r"CS[1-5][0-9]{2}", code)
        assert info.title
        assert not info.title.endswith(".")
        last = info.explanation.splitlines()[-1]
        assert last.endswith(".") or last.startswith("  "), "a sentence, or an indented example"


def test_explain() -> None:
    text = explain("cs112")
    assert text.startswith("CS112: a number where a component belongs\n\nHeads are often written 9.6")
    assert "`a9.h10`" in text
    assert max(map(len, text.splitlines())) <= 88
    with pytest.raises(KeyError):
        explain("CS999")


def test_every_code_used_in_the_package_is_explained() -> None:
    package = Path(__file__).parents[2] / "circuitspec"
    used = {
        code
        for file in package.rglob("*.py")
        if file.name != "codes.py"
        for code in re.findall(r'"(CS[0-9]{3})"', file.read_text(encoding="utf-8"))
    }
    assert used - set(CODES) == set()


def _rows(code: str, count: int) -> list[Diagnostic]:
    return [Diagnostic(code, f"row {row}", Span("p.jsonl", row, 1)) for row in range(1, count + 1)]


@pytest.mark.parametrize(
    ("code", "count", "shown", "more"),
    [("CS346", 8, 3, 5), ("CS351", 154, 3, 151), ("CS346", 3, 3, 0), ("CS110", 50, 50, 0), ("CS110", 60, 50, 10)],
)
def test_of_many_alike_the_first_are_shown_and_the_others_counted(code: str, count: int, shown: int, more: int) -> None:
    """Rows of prompts repeat their mistakes; those of a hypothesis are each one of a kind."""
    said = render(_rows(code, count), {})
    assert said.count(f"error[{code}]") == shown
    assert ("more like this" in said) == bool(more)
    if more:
        assert said.splitlines()[-1] == f"   and {more} more like this"


def test_each_kind_is_counted_by_itself_where_its_last_one_is_shown() -> None:
    found = [*_rows("CS346", 4), *_rows("CS351", 5), Diagnostic("CS110", "other")]
    lines = [line for line in render(found, {}).splitlines() if "error[" in line or "more like" in line]
    assert [line.split("error")[-1] for line in lines] == [
        *("[CS346]: row 1", "[CS346]: row 2", "[CS346]: row 3", "   and 1 more like this"),
        *("[CS351]: row 1", "[CS351]: row 2", "[CS351]: row 3", "   and 2 more like this"),
        "[CS110]: other",
    ]


def test_what_was_left_out_before_is_counted_too() -> None:
    left_out = Diagnostic("CS346", "980 more errors of this kind are not shown", data={"more": 980})
    assert render([*_rows("CS346", 20), left_out], {}).splitlines()[-1] == "   and 997 more like this"
    assert str(CircuitspecError(*_rows("CS346", 20), left_out)).splitlines() == [
        *(f"CS346: row {row}" for row in (1, 2, 3)),
        "   and 997 more like this",
    ]


def test_a_long_line_is_cropped_as_a_short_one_is() -> None:
    """Only what is near the place is looked at: of a long line, and of one just wide enough to be cropped."""
    short = "x" * 300 + "MARK" + "y" * 300
    long = "x" * 300_000 + "MARK" + "y" * 300_000
    assert _snippet(short, 301, 305) == _snippet(long, 300_001, 300_005)
