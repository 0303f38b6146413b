"""What stands behind a code, in words: of the table of codes, and of the warnings that a verification finds."""

from __future__ import annotations

import textwrap

from circuitspec.diagnostics.code_info import CodeInfo
from circuitspec.diagnostics.codes import CODES

WIDTH = 88


def all_codes() -> dict[str, CodeInfo]:
    """Every code with its title and explanation, in order."""
    from circuitspec.analysis.warnings.all_warnings import WARNINGS  # most codes can be explained without numpy

    found = CODES | {kind.code: CodeInfo(kind.title, kind.explanation) for kind in WARNINGS}
    return dict(sorted(found.items()))


def explain(code: str) -> str:
    """What `circuitspec explain CODE` prints; indented lines of the explanation stay as they are.

    Raises KeyError for an unknown code.
    """
    code = code.upper()
    info = CODES[code] if code in CODES else all_codes()[code]
    wrapper = textwrap.TextWrapper(width=WIDTH, break_long_words=False, break_on_hyphens=False)
    lines = [line if line.startswith(" ") else wrapper.fill(line) for line in info.explanation.splitlines()]
    return "\n".join([f"{code}: {info.title}", "", *lines, ""])
