"""Prompts of which no position has a name: their last token gets one, which drafts declare."""

from __future__ import annotations

import re
from dataclasses import replace

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.hypothesis_file.grammar.names import is_position_name
from circuitspec.hypothesis_file.grammar.positions import PositionExpr, parse_position
from circuitspec.hypothesis_file.yaml.source import Path_, SourceText, parse_source
from circuitspec.prompts.prompt_set import TokenizedTask

END = "END"
LAST = "last"

_ANCHOR = re.compile(r"(?:&\S+\s+)?")


def with_last_named(task: TokenizedTask) -> TokenizedTask:
    """The task with `END` for the last token of every prompt; only for one without positions."""
    return replace(task, roles={END: tuple(length - 1 for length in task.lengths)})


def check_names(task: TokenizedTask) -> None:
    """CS562 for positions of a prompts file whose names no hypothesis can hold: nothing could be drafted of them."""
    bad = [role for role in task.roles if not is_position_name(role)]
    if bad:
        raise CircuitspecError(
            *(
                Diagnostic(
                    "CS562",
                    f"the prompts have a position called {role!r}, which no hypothesis can name",
                    hint="call it by a word such as END, S2 or S1+1",
                )
                for role in bad
            )
        )


def declaring_last(source: SourceText) -> SourceText:
    """The file with `END: last` among the positions of its task, where it does not stand yet.

    Raises CS562 where END means another token in it, or where its `positions` are written so that nothing can be added.
    """
    data = source.data
    assert isinstance(data, dict)  # it was a valid file
    positions = data["task"].get("positions")
    at: Path_ = ("task", "positions")
    if positions and END in positions:
        written = positions[END]
        if not isinstance(written, str | int) or parse_position(written) != PositionExpr(LAST):
            raise CircuitspecError(
                Diagnostic(
                    "CS562",
                    f"{END} is {written} here, and the last token in what is explored",
                    source.span((*at, END)),
                    hint=f"give this position another name: the draft needs {END}: {LAST}",
                )
            )
        return source
    entry = f"{END}: {LAST}"
    if positions:
        text = _with_entry(source, at, next(iter(positions)), entry)
    elif positions is None:
        text = _with_entry(source, ("task",), next(iter(data["task"])), f"positions: {{{entry}}}")
    else:
        text = _with_value(source, at, f"{{{entry}}}")
    found = parse_source(text, source.file) if text else source
    if not isinstance(found.data, dict) or (found.data["task"].get("positions") or {}).get(END) != LAST:
        raise CircuitspecError(
            Diagnostic(
                "CS562",
                f"the draft needs a name for the last token, and {entry} cannot be added to these positions",
                source.span(at),
                hint=f"write positions: {{{entry}}}",
            )
        )
    return found


def _with_entry(source: SourceText, mapping: Path_, first: str, entry: str) -> str:
    """The text with one more entry in a mapping, in front of its first key."""
    lines = list(source.lines)
    key = source.span((*mapping, first), key=True)
    line, column = lines[key.line - 1], key.column - 1
    if _is_flow(source, mapping):
        lines[key.line - 1] = f"{line[:column]}{entry}, {line[column:]}"
    else:
        lines.insert(key.line - 1, " " * column + entry)
    return "\n".join([*lines, ""])


def _is_flow(source: SourceText, mapping: Path_) -> bool:
    span = source.span(mapping)
    start = source.lines[span.line - 1][span.column - 1 :]
    return _ANCHOR.sub("", start, count=1).startswith("{")


def _with_value(source: SourceText, path: Path_, value: str) -> str:
    """The text with another value; empty where the old one is written over several lines."""
    span = source.span(path)
    if span.end_column is None:
        return ""
    lines = list(source.lines)
    line = lines[span.line - 1]
    lines[span.line - 1] = line[: span.column - 1] + value + line[span.end_column - 1 :]
    return "\n".join([*lines, ""])
