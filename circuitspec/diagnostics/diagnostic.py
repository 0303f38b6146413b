"""What can be wrong, said so that a person can mend it: codes, places, messages, hints."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from circuitspec.runtime.files import read_regular
from circuitspec.runtime.visible_text import no_command, visible

if TYPE_CHECKING:
    from rich.text import Text

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Span:
    """A place in a file; lines and columns count from 1, `end_column` is exclusive."""

    file: str
    line: int
    column: int
    end_column: int | None = None


@dataclass(frozen=True)
class Diagnostic:
    """One finding: a stable code, what is wrong, where, and what to write instead."""

    code: str
    message: str
    span: Span | None = None
    label: str = ""  # said beside the carets
    hint: str = ""  # the `help:` line
    severity: Severity = "error"
    data: dict[str, object] = field(default_factory=dict, hash=False)


class CircuitspecError(Exception):
    """Work cannot go on; carries every diagnostic found so far, in order of place.

    What to write instead stands below the message in a traceback, as notes.
    """

    def __init__(self, *diagnostics: Diagnostic) -> None:
        lines = (
            f"{d.code}: {visible(d.message)}" + (f"\n{_like_this(more)}" if more else "")
            for d, more in brief(diagnostics)
        )
        super().__init__("\n".join(lines))
        self.diagnostics = diagnostics
        for hint in dict.fromkeys(d.hint for d, _ in brief(diagnostics) if d.hint):
            self.add_note(f"help: {visible(hint)}")

    def __reduce__(self) -> tuple[type[CircuitspecError], tuple[Diagnostic, ...]]:
        """Pickled by its diagnostics: another process may raise it again."""
        return type(self), self.diagnostics


# shown of one code: of mistakes in the hypothesis each is one of a kind; of the prompts they repeat, row after row
MOST_SHOWN = 50
MOST_OF_PROMPTS = 3


def brief(findings: Iterable[Diagnostic]) -> tuple[tuple[Diagnostic, int], ...]:
    """The findings that are shown, in their order, each with how many more like it are not: 0 but for the last shown.

    `data["more"]` of a finding says that it stands for so many that were left out already; it is not shown itself.
    """
    shown: list[Diagnostic] = []
    last: dict[str, int] = {}
    counts: dict[str, int] = {}
    more: dict[str, int] = {}
    for finding in findings:
        left_out = finding.data.get("more")
        if isinstance(left_out, int) and finding.code in last:
            more[finding.code] = more.get(finding.code, 0) + left_out
            continue
        counts[finding.code] = counts.get(finding.code, 0) + 1
        if counts[finding.code] > (MOST_OF_PROMPTS if _is_of_prompts(finding.code) else MOST_SHOWN):
            more[finding.code] = more.get(finding.code, 0) + 1
            continue
        last[finding.code] = len(shown)
        shown.append(finding)
    untold = {last[code]: count for code, count in more.items()}
    return tuple((finding, untold.get(place, 0)) for place, finding in enumerate(shown))


def _is_of_prompts(code: str) -> bool:
    return code[2:].isdigit() and 320 <= int(code[2:]) < 370


def _like_this(more: int) -> str:
    return f"   and {more:,} more like this"


def in_order(findings: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    """Findings by file, line and column; those without a place first, equal places as given."""

    def place(finding: Diagnostic) -> tuple[str, int, int]:
        span = finding.span
        return ("", 0, 0) if span is None else (span.file, span.line, span.column)

    return tuple(sorted(findings, key=place))


def exit_code(findings: Iterable[Diagnostic]) -> int:
    """The exit status that findings call for: 3 invalid file, 5 could not run, 6 not as locked, 4 inconclusive, 0 none.

    CS1xx, CS2xx, CS300 (what the file calls the model), CS507, CS508 (names that the prompts lack), CS320 to CS369
    (prompts and answers, which are the user's data), CS548 to CS550 and CS558 (saved results, a missing lock) make a
    file invalid; CS551 to CS556 say what is not as locked, a lock that was edited first of all; other CS3xx and CS5xx
    are faults of the run; CS4xx leaves the evidence without a verdict. An invalid file outweighs a run's fault, that
    drift, and that an inconclusive one.
    Warnings and notes call for nothing.
    """
    codes = {_exit_code(int(finding.code[2:])) for finding in findings if finding.severity == "error"}
    return next((code for code in (3, 5, 6, 4) if code in codes), 0)


# the model's name, another tool's circuit, a position or a corruption that the prompts do not have, a result that is
# none, a lock that is not there
_FILE_FAULTS = (300, 382, 383, 384, 389, 507, 508, 548, 549, 550, 558)


def _exit_code(number: int) -> int:
    if number < 300 or 320 <= number < 370 or number in _FILE_FAULTS:
        return 3
    if 551 <= number <= 556:
        return 6
    return 4 if 400 <= number < 500 else 5


def split_lines(text: str) -> tuple[str, ...]:
    """Lines as spans count them: ended by LF, CR LF or CR, and by nothing else."""
    return tuple(re.split(r"\r\n|\n|\r", text))


def render(findings: Iterable[Diagnostic], sources: Mapping[str, str] | None = None, width: int = 120) -> str:
    """Findings as plain text, each with its line of the file and carets below what is meant.

    Of many alike the first are shown, and how many more there are (`brief`).
    The text of a file comes from `sources` (file name -> text) or from disk; a file that cannot be
    read is only named. Lines longer than `width` columns are cropped around the carets.
    """
    return "".join(text for text, _ in _pieces(findings, sources or {}, width))


def render_styled(findings: Iterable[Diagnostic], sources: Mapping[str, str] | None = None, width: int = 120) -> Text:
    """As `render`, for a rich console, which decides about colour."""
    from rich.text import Text

    return Text.assemble(*_pieces(findings, sources or {}, width))


_MAX_SNIPPET_BYTES = 16_000_000
_MORE_COLUMN = 33
_STYLES: dict[Severity, str] = {"error": "bold red", "warning": "bold yellow", "note": "bold blue"}

_Piece: TypeAlias = tuple[str, str]  # text, rich style


def _pieces(findings: Iterable[Diagnostic], sources: Mapping[str, str], width: int) -> Iterator[_Piece]:
    lines: dict[str, Sequence[str]] = {}
    for number, (finding, more) in enumerate(brief(findings)):
        if number:
            yield "\n", ""
        style = _STYLES[finding.severity]
        span = finding.span
        if span is not None:
            yield f"{no_command(visible(span.file))}:{span.line}:{span.column}: ", "bold"
        yield f"{finding.severity}[{finding.code}]", style
        yield f": {_printable(finding.message)}\n", "bold"
        if span is not None and span.file not in lines:
            lines[span.file] = _lines_of(span.file, sources)
        if span is not None and 0 < span.line <= len(lines[span.file]):
            yield from _snippet(span, lines[span.file][span.line - 1], finding.label, style, width)
        elif finding.label:
            yield f"   {_printable(finding.label)}\n", ""
        yield from _help(finding, width)
        if more:
            yield f"{_like_this(more)}\n", "bold"


def _snippet(span: Span, line: str, label: str, style: str, width: int) -> Iterator[_Piece]:
    gutter = f"{span.line:>5}"
    start = min(span.column - 1, len(line))
    end = max(start + 1, min((span.end_column or span.column + 1) - 1, len(line)))
    room = max(20, width - len(gutter) - 3)
    near = 4 * room  # characters that can matter, also where some take no room
    parts = (line[max(0, start - near) : start], line[start : min(end, start + near)], line[end : end + near])
    before, marked, after = map(_printable, parts)
    if _cells(marked) > room - 6:
        marked = _last_cells(marked[::-1], room - 9)[::-1] + "..."
    before, after = _crop(before, marked, after, room)
    shown = f"{before}{marked}{after}".rstrip()
    yield f"{gutter} |", "blue"
    yield f" {shown}\n" if shown else "\n", ""
    yield f"{' ' * len(gutter)} | ", "blue"
    carets = " " * _cells(before) + "^" * max(1, _cells(marked))
    yield f"{carets} {_printable(label)}".rstrip() + "\n", style


def _crop(before: str, marked: str, after: str, room: int) -> tuple[str, str]:
    """`before` and `after` cut so that the line fits, `...` standing for what was cut away."""
    if _cells(before + marked + after) <= room:
        return before, after
    left = max(0, room - _cells(marked))
    keep_before = max(left // 2, left - _cells(after))
    if _cells(before) > keep_before:
        before = "..." + _last_cells(before, max(0, keep_before - 3))
    keep_after = max(0, left - _cells(before))
    if _cells(after) > keep_after:
        after = _last_cells(after[::-1], max(0, keep_after - 3))[::-1] + "..."
    return before, after


def _last_cells(text: str, cells: int) -> str:
    kept = text[-cells:] if cells else ""
    while _cells(kept) > cells:
        kept = kept[1:]
    return kept


def _help(finding: Diagnostic, width: int) -> Iterator[_Piece]:
    more = f"more: circuitspec explain {finding.code}"
    line = f"   help: {_printable(finding.hint)}" if finding.hint else ""
    if line:
        yield "   help:", "bold green"
        yield f" {_printable(finding.hint)}", ""
        gap = max(3, _MORE_COLUMN - _cells(line))
        if _cells(line) + gap + len(more) > width:
            yield f"\n   {more}\n", "dim"
        else:
            yield f"{' ' * gap}{more}\n", "dim"
    else:
        yield f"   {more}\n", "dim"


def _lines_of(file: str, sources: Mapping[str, str]) -> Sequence[str]:
    if file in sources:
        return split_lines(sources[file])
    try:
        raw = read_regular(Path(file), _MAX_SNIPPET_BYTES)
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return ()
    return split_lines(raw.decode("utf-8-sig", errors="replace"))


def _printable(text: str) -> str:
    """One line that moves no cursor: tabs as spaces, control characters as a visible mark."""
    return "".join("    " if c == "\t" else c if c.isprintable() else "\ufffd" for c in text)


def _cells(text: str) -> int:
    """Terminal columns that `text` takes."""
    from rich.cells import cell_len

    return len(text) if text.isascii() else cell_len(text)
