"""Errors about a task, collected so that all are told at once. Imports no torch."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic, Span, in_order

if TYPE_CHECKING:
    from circuitspec.hypothesis_file.yaml.source import SourceText

Path: TypeAlias = tuple[str | int, ...]

MAX_SHOWN = 20  # of one kind; the last one shown says how many more there are


class TaskFindings:
    """A growing list of errors; `check` raises them."""

    def __init__(self, source: SourceText | None = None) -> None:
        self._source = source
        self._found: list[Diagnostic] = []

    def span(self, *path: str | int) -> Span | None:
        """Where a key or entry of the hypothesis stands, if the hypothesis came from a file."""
        if self._source is None:
            return None
        is_block = self._source.raw(path) is None  # of a mapping or list, the key says more than its contents
        return self._source.span(path, key=is_block)

    def add(
        self,
        code: str,
        message: str,
        at: Path | Span | None = None,
        *,
        label: str = "",
        hint: str = "",
        data: dict[str, object] | None = None,
    ) -> None:
        """Note an error; `at` is a path of keys in the hypothesis, or a place in any file."""
        span = self.span(*at) if isinstance(at, tuple) else at
        self._found.append(Diagnostic(code, message, span, label=label, hint=hint, data=data or {}))

    @property
    def found(self) -> tuple[Diagnostic, ...]:
        """Everything noted, in order; of one code at most MAX_SHOWN, and how many more there are."""
        shown: list[Diagnostic] = []
        counts: dict[str, int] = {}
        for finding in in_order(self._found):
            counts[finding.code] = counts.get(finding.code, 0) + 1
            if counts[finding.code] <= MAX_SHOWN:
                shown.append(finding)
        for code, count in counts.items():
            if count > MAX_SHOWN:
                more = count - MAX_SHOWN
                shown.append(Diagnostic(code, f"{more} more errors of this kind are not shown", data={"more": more}))
        return tuple(shown)

    def check(self) -> None:
        """Raise CircuitspecError with everything noted, if anything was."""
        if self._found:
            raise CircuitspecError(*self.found)


def meant(name: str, names: Iterable[str]) -> str:
    """A hint for a name that is none of `names`."""
    known = list(names)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)  # slots are short: I0 is meant for IO
    if close:
        return f"did you mean {close[0]}?"
    return f"there is {', '.join(known)}" if known else ""


def counted(n: int, noun: str, plural: str | None = None) -> str:
    """`1 token`, `3 tokens`."""
    return f"{n} {noun if n == 1 else plural or noun + 's'}"
