"""Prompts from Python: a list of mappings, a data frame, a Hugging Face data set. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, TypeGuard

from pydantic import ValidationError

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.hypothesis_file.schema.blocks import TaskSpec
from circuitspec.prompts.files.given_rows import GivenRow, GivenRows, columns_of
from circuitspec.prompts.files.reading_rows import ReadAs, prompts_of_rows
from circuitspec.prompts.prompt_set import PromptSet
from circuitspec.prompts.task_findings import TaskFindings

NAME = "the prompts"  # what messages call what has no file's name


def prompts_from(
    rows: object,
    columns: Mapping[str, object] | None = None,
    *,
    layout: str | None = None,
    skip: Sequence[str] = (),
    by: str | Sequence[str] | None = None,
    limit: int | None = None,
    name: str = NAME,
) -> PromptSet:
    """Prompts from memory, as `task: {file: ...}` reads them from a file.

    `rows` is a list of mappings (such as `{"clean": ..., "corrupt": ..., "answers": [...], "wrong": [...]}`), a pandas
    DataFrame, a Hugging Face `Dataset`, an arrow table, a mapping with a list of `prompts` (auto-circuit's), or a
    mapping of columns to lists. `columns`, `layout`, `skip` and `by` are as in a task; without the first two the layout
    is recognised by the columns. `limit` is the number of prompts, all unless given.

    Raises CircuitspecError: CS358 for what holds no rows, and as reading a file does, where messages name rows by
    their numbers, from 1; ValueError for arguments that no task could have.
    """
    keys: dict[str, Any] = {"columns": columns, "layout": layout, "skip": skip, "by": by}
    try:
        task = TaskSpec.model_validate({key: value for key, value in keys.items() if value})
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    return _prompts(rows, ReadAs.of(task), limit, TaskFindings(), name)


def as_file(rows: object) -> tuple[str, str]:
    """Rows as the prompts file that says the same: its name, which is another for other rows, and its text.

    Raises CircuitspecError: CS358 for what holds no rows, or values that no file could hold.
    """
    whole, listed = _listed(rows)
    try:
        text = "".join(f"{_json(row)}\n" for row in (listed if whole is None else [whole]))
    except (TypeError, ValueError) as error:
        hint = "give texts, numbers, lists and mappings"
        raise CircuitspecError(Diagnostic("CS358", f"rows cannot be written to a file: {error}", hint=hint)) from error
    told = hashlib.sha256(text.encode()).hexdigest()[:10]
    return f"prompts-{told}.{'jsonl' if whole is None else 'json'}", text


def prompts_beside(name: str, text: str, how: ReadAs, limit: int | None, findings: TaskFindings) -> PromptSet:
    """The prompts of a file that `as_file` made, without writing it. Raises as `prompts_from` does."""
    rows = json.loads(text) if name.endswith(".json") else [json.loads(line) for line in text.split("\n") if line]
    return _prompts(rows, how, limit, findings, NAME)


def _json(row: object) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False, default=_as_json)


def _as_json(value: Any) -> object:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _prompts(rows: object, how: ReadAs, limit: int | None, findings: TaskFindings, name: str) -> PromptSet:
    whole, listed = _listed(rows)
    contents = listed if limit is None or how.skip or whole is not None else list(islice(listed, limit))
    given = tuple(
        GivenRow(content, f"row {number}", f"row {number} of {name}", by_number=True)
        for number, content in enumerate(contents, start=1)
    )
    all_rows = GivenRows(name, given, len(listed) - len(given), whole=whole, columns=columns_of(given))
    return prompts_of_rows(all_rows, how, limit, findings)


def _listed(rows: object) -> tuple[Mapping[str, object] | None, list[object]]:
    """What is said of all rows together (auto-circuit's form has that), and the rows."""
    if isinstance(rows, Mapping):
        if _is_list(rows.get("prompts")):
            return {**rows, "prompts": list(rows["prompts"])}, list(rows["prompts"])
        return None, _by_column(rows)
    if hasattr(rows, "to_dict") and hasattr(rows, "columns"):  # a pandas DataFrame
        return None, [_plain(row) for row in rows.to_dict(orient="records")]
    if hasattr(rows, "to_pylist"):  # an arrow table
        return None, list(rows.to_pylist())
    if isinstance(rows, Iterable) and not isinstance(rows, (str, bytes)):
        return None, [_plain(row) for row in rows]  # a list, or a data set of Hugging Face
    said = f"a {type(rows).__name__} holds no rows"
    hint = "pass a list of mappings, a DataFrame, a Dataset, or write the file's name as task: {file: NAME}"
    raise CircuitspecError(Diagnostic("CS358", said, hint=hint))


def _is_list(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _by_column(table: Mapping[Any, object]) -> list[object]:
    lists = {str(key): list(value) for key, value in table.items() if _is_list(value)}
    if len(lists) != len(table) or len({len(values) for values in lists.values()}) != 1:
        said = "a mapping is neither one with a list of `prompts` nor columns of equally many values"
        raise CircuitspecError(Diagnostic("CS358", said, hint="pass a list of mappings, one a prompt"))
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


_MISSING = ("NAType", "NaTType")  # of pandas, beside NaN: a frame's missing values


def _plain(row: object) -> object:
    """A row with plain values: numpy's numbers and arrays as Python's, what is missing in a frame as None."""
    if not isinstance(row, Mapping):
        return row
    return {str(key): _plain_value(value) for key, value in row.items()}


def _plain_value(value: Any) -> object:
    if (isinstance(value, float) and value != value) or type(value).__name__ in _MISSING:
        return None
    if isinstance(value, Mapping):
        return {str(key): _plain_value(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain_value(inner) for inner in value]
    return _plain_value(value.tolist()) if hasattr(value, "tolist") else value
