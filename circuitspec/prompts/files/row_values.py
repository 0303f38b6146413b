"""Values of a row's columns as prompts have them: texts, lists of answers, positions. Imports no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from circuitspec.prompts.files.text_rows import no_repeats, refuse_constant

_NOT_THERE = object()
_OPENING = "([{<\u00ab\u201c\u201e\u2018\u201a"  # brackets and quotation marks that only open
_STRAIGHT = "\"'`"  # quotation marks that open and close


class Unfit(Exception):
    """A row that no prompt can be made of, and why."""


class NoColumn(Unfit):
    """Columns are missing, in a table from every row."""


def value_at(row: Mapping[str, object], column: str) -> object:
    """What a column says; `a.b` is the key b in the column a, unless a column is called so. None where it is not."""
    if column in row:
        return row[column]
    value: object = row
    for key in column.split("."):
        value = value.get(key, _NOT_THERE) if isinstance(value, Mapping) else _NOT_THERE
    return None if value is _NOT_THERE else value


def text_at(row: Mapping[str, object], column: str) -> str:
    """A text. Raises Unfit for anything else."""
    value = value_at(row, column)
    if not isinstance(value, str) or not value.strip():
        raise Unfit(f"`{column}` is no text" if value is not None else f"there is nothing in `{column}`")
    return value


def spaced(answer: str, prompt: str) -> str:
    """An answer as it goes on from the prompt: with a space between two words where neither has one.

    Nothing comes between an answer and what opens before it: a bracket, or the first of two quotation marks.
    """
    if answer[:1].isspace() or prompt[-1:].isspace() or opens(prompt):
        return answer
    return f" {answer}"


def opens(prompt: str) -> bool:
    """Whether a text ends in an opening bracket or quotation mark."""
    last = prompt[-1:]
    if last in _STRAIGHT:
        return prompt.count(last) % 2 == 1 and not prompt[-2:-1].isalnum()
    return last != "" and last in _OPENING


def token_ids(value: object, column: str) -> list[int]:
    """Token ids: a number, a list of numbers, or a cell that holds either as text. Raises Unfit.

    A cell may also be as numpy and torch write numbers: `[94 90]`, `tensor([94, 90])`.
    """
    if isinstance(value, str):
        written = re.fullmatch(r"(?:tensor\((.*)\)|(.*))", value.strip(), re.DOTALL)
        inner = value if written is None else (written[1] or written[2] or "")
        if re.fullmatch(r"\[\s*\d+(?:\s+\d+)*\s*\]", inner.strip()):
            inner = re.sub(r"(?<=\d)\s+(?=\d)", ", ", inner)
        try:
            value = json.loads(inner, parse_constant=refuse_constant)
        except (ValueError, RecursionError) as error:
            raise Unfit(f"`{column}` holds no token ids: {value!r}") from error
    listed = value if isinstance(value, list) else [value]
    found = [int(one) if isinstance(one, float) and one.is_integer() else one for one in listed]
    if not found or not all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in found):
        raise Unfit(f"`{column}` holds no token ids: {value!r}")
    return [one for one in found if isinstance(one, int)]


def answer_texts(value: object, *, cells: bool) -> object:
    """One text or several; in a table's cell several are parted by |. What is neither is left to be refused."""
    if isinstance(value, str):
        return value.split("|") if cells else [value]
    return value


def place_of(value: object) -> object:
    """A token index, or what else a position may be as JSON writes it; anything else is left to be refused."""
    if not isinstance(value, str):
        return value
    if re.fullmatch(r"\s*[+-]?[0-9]{1,9}\s*", value):
        return int(value)
    if not value.lstrip().startswith(("{", "[")):
        return value
    try:
        return json.loads(value, object_pairs_hook=no_repeats, parse_constant=refuse_constant)
    except (ValueError, RecursionError):
        return value


def without_nulls(value: object) -> object:
    """Without keys whose value is null, at any depth: arrow tables fill up with them what a row does not say."""
    if isinstance(value, Mapping):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return value
