"""The table of diagnostic codes. A code, once given out, never changes its meaning and is never reused."""

from __future__ import annotations

from circuitspec.diagnostics.code_info import CodeInfo
from circuitspec.diagnostics.data_codes import DATA
from circuitspec.diagnostics.evidence_codes import EVIDENCE
from circuitspec.diagnostics.execution_codes import EXECUTION
from circuitspec.diagnostics.graph_codes import GRAPH
from circuitspec.diagnostics.syntax_codes import SYNTAX

CODES: dict[str, CodeInfo] = SYNTAX | GRAPH | DATA | EVIDENCE | EXECUTION


def explain(code: str) -> str:
    """What `circuitspec explain CODE` prints; indented lines of the explanation stay as they are.

    Raises KeyError for an unknown code.
    """
    import textwrap

    info = CODES[code.upper()]
    wrapper = textwrap.TextWrapper(width=88, break_long_words=False, break_on_hyphens=False)
    lines = [line if line.startswith(" ") else wrapper.fill(line) for line in info.explanation.splitlines()]
    return "\n".join([f"{code.upper()}: {info.title}", "", *lines, ""])
