"""Rows as a file or an object in memory gives them, each with its place. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from circuitspec.diagnostics.diagnostic import Span
from circuitspec.prompts.task_findings import TaskFindings


@dataclass(frozen=True)
class GivenRow:
    """What one row says, by column. `place` is `line 12` or `row 12`; `span` where it stands, in files of text.

    Rows of other files, and in memory, have no lines: messages name them by their number.
    """

    content: object
    place: str
    where: str  # for messages: "prompts.jsonl:12", "row 12 of prompts.parquet"
    span: Span | None = None
    by_number: bool = False  # `span` (if any) is not the row's own

    def note(self, findings: TaskFindings, code: str, message: str, *, hint: str = "", label: str = "") -> None:
        """Note an error about this row."""
        said = f"{self.where}: {message}" if self.by_number else message
        findings.add(code, said, self.span, hint=hint, label=label)


@dataclass(frozen=True)
class GivenRows:
    """All rows that are used, and what was not read.

    `cells` says that values are texts from a table's cells. `whole` is what the file says of all rows, where its form
    is an object with a list of `prompts`, `place` where the whole begins, or where the hypothesis names it.
    """

    name: str
    rows: tuple[GivenRow, ...]
    unread: int = 0
    cells: bool = False
    whole: Mapping[str, object] | None = None
    columns: tuple[str, ...] = ()
    place: Span | None = None


def columns_of(rows: Sequence[GivenRow]) -> tuple[str, ...]:
    """Every column that some row has, in the order in which they are met."""
    return tuple(
        dict.fromkeys(key for row in rows if isinstance(row.content, Mapping) for key in map(str, row.content))
    )


def as_label(value: object) -> str:
    """A value of a column as the label of a group of prompts."""
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case str() | int() | float():
            return str(value)
        case _:
            return json.dumps(value, ensure_ascii=False, default=str)
