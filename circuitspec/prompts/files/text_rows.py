"""Rows of files of text: JSON lines, JSON, CSV and TSV. Imports no torch."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from json.decoder import JSONDecoder
from pathlib import Path
from typing import NoReturn

from circuitspec.diagnostics.diagnostic import Span
from circuitspec.prompts.files.given_rows import GivenRow, GivenRows, columns_of
from circuitspec.prompts.task_findings import TaskFindings, counted


def first_lines(raw: bytes, count: int) -> tuple[bytes, int]:
    """The text up to the end of so many lines that are not blank, and how many such lines come after it."""
    ends = (line.end() for line in re.finditer(rb"[^\r\n]+", raw) if not line[0].isspace())
    end = max(itertools.islice(ends, count), default=0)
    return raw[:end], sum(1 for _ in ends)


def no_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """The object that JSON's pairs make. Raises ValueError for a key that stands twice."""
    content: dict[str, object] = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"the key {key!r} stands twice in one object")
        content[key] = value
    return content


def refuse_constant(name: str) -> NoReturn:
    """Raises ValueError: NaN and infinity are not JSON."""
    raise ValueError(f"{name} is not JSON")


def parse_json(text: str, file: str, line: int, findings: TaskFindings) -> object | None:
    """The value; None (and a finding, CS337) when the text, which starts at `line`, is not JSON."""
    message, place = "", (1, 1)
    try:
        value: object = json.loads(text, object_pairs_hook=no_repeats, parse_constant=refuse_constant)
        if value is None:
            message = "null says nothing"
        else:
            return value
    except json.JSONDecodeError as error:
        message, place = f"not JSON: {error.msg}", (error.lineno, error.colno)
    except RecursionError:
        message = "nested too deeply"
    except ValueError as error:
        message = str(error)
    findings.add("CS337", message, Span(file, line + place[0] - 1, place[1]))
    return None


def _row(content: object, path: Path, line: int, column: int = 1) -> GivenRow:
    return GivenRow(content, f"line {line}", f"{path.name}:{line}", Span(str(path), line, column))


def _start(path: Path) -> Span:
    return Span(str(path), 1, 1)


def read_jsonl(text: str, path: Path, findings: TaskFindings, limit: int | None) -> GivenRows:
    """One object a line; of a limit the caller has seen to it."""
    rows = []
    for line, row in enumerate(re.split(r"\r\n|\n|\r", text), start=1):  # JSON strings may hold other line separators
        if not row.strip():
            continue
        content = parse_json(row, str(path), line, findings)
        if content is not None:
            rows.append(_row(content, path, line))
    return GivenRows(path.name, tuple(rows), columns=columns_of(rows[:1]), place=_start(path))


def read_csv(text: str, path: Path, findings: TaskFindings, limit: int | None) -> GivenRows:
    """A table with its columns' names on the first line."""
    return _table(text, path, findings, limit, ",", "CSV")


def read_tsv(text: str, path: Path, findings: TaskFindings, limit: int | None) -> GivenRows:
    """The same with tabs between cells."""
    return _table(text, path, findings, limit, "\t", "TSV")


def _table(text: str, path: Path, findings: TaskFindings, limit: int | None, between: str, called: str) -> GivenRows:
    rows: list[GivenRow] = []
    seen = 0
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=between)
    header: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            start, line = line, reader.line_num + 1
            if not cells:
                continue
            if header is not None:
                seen += 1
            if limit is not None and seen > limit:
                continue
            if header is None:
                header = [name.strip() for name in cells]
                if header[0] == "" and header.count("") == 1:
                    header[0] = "index"  # as data frames write theirs
                for name, count in Counter(header).items():
                    if count > 1:
                        findings.add("CS338", f"the column {name!r} stands twice", Span(str(path), start, 1))
            elif len(cells) != len(header):
                message = f"{counted(len(cells), 'cell')} for {counted(len(header), 'column')}"
                hint = "put a text that holds a comma in double quotes" if between == "," else ""
                findings.add("CS338", message, Span(str(path), start, 1), hint=hint)
            else:
                rows.append(_row(dict(zip(header, cells, strict=True)), path, start))
    except csv.Error as error:
        if limit is None or seen < limit:
            findings.add("CS337", f"not {called}: {error}", Span(str(path), max(1, reader.line_num), 1))
    unread = 0 if limit is None else max(0, seen - limit)
    columns = tuple(header or ())
    return GivenRows(path.name, tuple(rows), unread, cells=True, columns=columns, place=_start(path))


def read_json(text: str, path: Path, findings: TaskFindings, limit: int | None) -> GivenRows:
    """A list of objects; an object with such a list as its `prompts`; or one object a line.

    Any other object is one row (`ravel` has one by entity).
    """
    if _is_lines(text):
        given = read_jsonl(text, path, findings, None)
        used = given.rows[:limit]
        return replace(given, rows=used, unread=len(given.rows) - len(used))
    content = parse_json(text, str(path), 1, findings)
    if content is None:
        return GivenRows(path.name, (), place=_start(path))
    whole: Mapping[str, object] | None = None
    offsets: Iterator[int]
    if isinstance(content, Mapping) and isinstance(content.get("prompts"), list):
        whole, listed = content, content["prompts"]
        offsets = _prompt_offsets(text)
    elif isinstance(content, list):
        listed, offsets = content, _list_offsets(text, _blank(text, 0))
    else:
        row = _row(content, path, 1)
        return GivenRows(path.name, (row,), columns=columns_of((row,)), place=_start(path))
    used = listed[:limit]
    rows = []
    line, before = 1, 0
    for offset, one in zip(itertools.islice(offsets, len(used)), used, strict=True):
        line, before = line + text.count("\n", before, offset), offset
        rows.append(_row(one, path, line, offset - text.rfind("\n", 0, offset)))
    unread = len(listed) - len(used)
    return GivenRows(path.name, tuple(rows), unread, whole=whole, columns=columns_of(rows[:1]), place=_start(path))


def _is_lines(text: str) -> bool:
    """Whether a .json file holds an object a line: its first line is one, and more comes."""
    first, _, rest = text.lstrip().partition("\n")
    if not (first.startswith("{") and first.rstrip().endswith("}") and rest.strip()):
        return False
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _blank(text: str, offset: int) -> int:
    """The next offset at which something stands that is more than what parts values."""
    while text[offset] in " \t\r\n,:":
        offset += 1
    return offset


def _prompt_offsets(text: str) -> Iterator[int]:
    """Where each element of the top-level list `prompts` starts; `text` is a JSON object that has it."""
    decoder = JSONDecoder()
    offset = _blank(text, _blank(text, 0) + 1)
    while text[offset] != "}":
        key, offset = decoder.raw_decode(text, offset)
        offset = _blank(text, offset)
        if key == "prompts":
            yield from _list_offsets(text, offset)
            return
        offset = _blank(text, decoder.raw_decode(text, offset)[1])


def _list_offsets(text: str, offset: int) -> Iterator[int]:
    """Where each element of a list starts that opens at `offset`."""
    decoder = JSONDecoder()
    offset = _blank(text, offset + 1)
    while text[offset] != "]":
        yield offset
        offset = _blank(text, decoder.raw_decode(text, offset)[1])
