"""What can be wrong, said so that a person can mend it: codes, places, messages, hints."""

from __future__ import annotations

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
