"""What can be wrong, said so that a person can mend it: codes, places, messages, hints."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

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
    """Work cannot go on; carries every diagnostic found so far, in order of place."""

    def __init__(self, *diagnostics: Diagnostic) -> None:
        super().__init__("\n".join(f"{d.code}: {d.message}" for d in diagnostics))
        self.diagnostics = diagnostics


def in_order(findings: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    """Findings by file, line and column; those without a place first, equal places as given."""

    def place(finding: Diagnostic) -> tuple[str, int, int]:
        span = finding.span
        return ("", 0, 0) if span is None else (span.file, span.line, span.column)

    return tuple(sorted(findings, key=place))


def exit_code(findings: Iterable[Diagnostic]) -> int:
    """The exit status that findings call for: 3 invalid file, 5 could not run, 4 inconclusive, 0 none.

    CS1xx, CS2xx and (prompts and answers, which are the user's data) CS320 to CS369 make a file invalid;
    other CS3xx and CS5xx are faults of the run; CS4xx leaves the evidence without a verdict. An invalid
    file outweighs a run's fault, and that an inconclusive one. Warnings and notes call for nothing.
    """
    codes = {_exit_code(int(finding.code[2:])) for finding in findings if finding.severity == "error"}
    return next((code for code in (3, 5, 4) if code in codes), 0)


def _exit_code(number: int) -> int:
    if number < 300 or 320 <= number < 370:
        return 3
    return 4 if 400 <= number < 500 else 5


def split_lines(text: str) -> tuple[str, ...]:
    """Lines as spans count them: ended by LF, CR LF or CR, and by nothing else."""
    return tuple(re.split(r"\r\n|\n|\r", text))
