"""Prompts from a file: JSONL, CSV, or the JSON that auto-circuit users have. Imports no torch."""

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
from typing import NoReturn, TypeAlias

from pydantic import BaseModel

from circuitspec.diagnostics.diagnostic import Span
from circuitspec.hypothesis_file.yaml.textfile import TextFile, decoded, read_bytes
from circuitspec.prompts.files.prompt_entry import (
    CORRUPT,
    AutoCircuitEntry,
    Entry,
    Placed,
    Text,
    TokenIndex,
    prompt_set,
    validate,
)
from circuitspec.prompts.prompt_set import PromptSet, PromptsFile
from circuitspec.prompts.task_findings import TaskFindings, counted, meant

MAX_BYTES = 64_000_000

AT: tuple[str, str] = ("task", "file")


def read_prompts(path: Path, findings: TaskFindings, limit: int | None = None, at: tuple[str, ...] = AT) -> PromptSet:
    """The prompts of a `.jsonl`, `.csv` or (auto-circuit's) `.json` file, only the first `limit` of them.

    `at` is where the hypothesis names the file. Nothing is said of prompts that are not used: they are counted, and not
    read. Raises CircuitspecError (CS330 to CS340, CS351) with everything that is wrong in the others.
    """
    readers = {".jsonl": _read_jsonl, ".csv": _read_csv, ".json": _read_auto_circuit}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        hint = "name the file .jsonl, .csv or (auto-circuit's form) .json"
        findings.add("CS334", f"{path.name} is no kind of prompts file that is known", at, hint=hint)
        findings.check()
        raise AssertionError
    kind = TextFile(
        path.name,
        MAX_BYTES,
        unreadable="CS334",
        too_large="CS335",
        not_utf8="CS336",
        if_missing="file names are relative to the folder of the hypothesis",
        if_too_large="split it, or keep the prompts that the claims need",
    )
    raw, beyond = read_bytes(path, kind, findings.span(*at)), 0
    if limit is not None and reader is _read_jsonl:
        raw, beyond = _first_lines(raw, limit)
    entries, unread = reader(decoded(raw, path, kind), path, findings, limit)
    findings.check()
    if not entries:
        findings.add("CS339", f"{path.name} holds no prompts", Span(str(path), 1, 1))
    elif limit is not None and len(entries) < limit:
        message = f"{path.name} holds {counted(len(entries), 'prompt')}, but {limit} are asked for"
        findings.add("CS339", message, ("task", "prompts"), hint=f"write `prompts: {len(entries)}`, or leave it out")
    findings.check()
    made = prompt_set(entries, path.name, findings, text_positions=reader is _read_auto_circuit)
    return replace(made, file=PromptsFile(path.name, len(entries) + beyond + unread))


def _first_lines(raw: bytes, count: int) -> tuple[bytes, int]:
    """The text up to the end of so many lines that are not blank, and how many such lines come after it."""
    ends = (line.end() for line in re.finditer(rb"[^\r\n]+", raw) if not line[0].isspace())
    end = max(itertools.islice(ends, count), default=0)
    return raw[:end], sum(1 for _ in ends)


def _no_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    content: dict[str, object] = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"the key {key!r} stands twice in one object")
        content[key] = value
    return content


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _parse_json(text: str, file: str, line: int, findings: TaskFindings) -> object | None:
    """The value; None (and a finding) when the text, which starts at `line`, is not JSON."""
    message, place, hint = "", (1, 1), ""
    try:
        value: object = json.loads(text, object_pairs_hook=_no_repeats, parse_constant=_refuse_constant)
        if value is None:
            message = "null says nothing"
        else:
            return value
    except json.JSONDecodeError as error:
        message, place = f"not JSON: {error.msg}", (error.lineno, error.colno)
        if error.msg == "Extra data" and file.lower().endswith(".json"):
            hint = "with one object a line, name the file .jsonl; auto-circuit's .json is a single object"
    except RecursionError:
        message = "nested too deeply"
    except ValueError as error:
        message = str(error)
    findings.add("CS337", message, Span(file, line + place[0] - 1, place[1]), hint=hint)
    return None


def _place_entry(content: object, file: Path, line: int, column: int, findings: TaskFindings) -> Placed | None:
    span = Span(str(file), line, column)
    entry = validate(Entry, content, span, findings)
    return Placed(entry, f"{file.name}:{line}", span) if isinstance(entry, Entry) else None


Read: TypeAlias = tuple[list[Placed], int]
"""The prompts that are used, and how many more the text holds."""


def _read_jsonl(text: str, path: Path, findings: TaskFindings, limit: int | None) -> Read:
    """All prompts: of a limit the caller has seen to it."""
    entries = []
    for line, row in enumerate(re.split(r"\r\n|\n|\r", text), start=1):  # JSON strings may hold other line separators
        if not row.strip():
            continue
        content = _parse_json(row, str(path), line, findings)
        if content is not None:
            entries.append(_place_entry(content, path, line, 1, findings))
    return [entry for entry in entries if entry is not None], 0


def _read_csv(text: str, path: Path, findings: TaskFindings, limit: int | None) -> Read:
    entries: list[Placed | None] = []
    rows = 0
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for row in reader:
            start, line = line, reader.line_num + 1
            if not row:
                continue
            if header is not None:
                rows += 1
            if limit is not None and rows > limit:
                continue
            if header is None:
                header = [name.strip() for name in row]
                if not _check_header(header, Span(str(path), start, 1), findings):
                    break
            elif len(row) != len(header):
                message = f"{counted(len(row), 'cell')} for {counted(len(header), 'column')}"
                hint = "put a text that holds a comma in double quotes"
                findings.add("CS338", message, Span(str(path), start, 1), hint=hint)
            else:
                content = _from_cells(dict(zip(header, row, strict=True)))
                entries.append(_place_entry(content, path, start, 1, findings))
    except csv.Error as error:
        if limit is None or rows < limit:
            findings.add("CS337", f"not CSV: {error}", Span(str(path), max(1, reader.line_num), 1))
    return [entry for entry in entries if entry is not None], 0 if limit is None else max(0, rows - limit)


_COLUMNS = ("clean", CORRUPT, "answers", "wrong", "template")
_PREFIXES = ("corrupt:", "position:")


def _check_header(header: list[str], place: Span, findings: TaskFindings) -> bool:
    good = True
    counts = Counter(header)
    for name, count in counts.items():
        prefix = next((p for p in _PREFIXES if name.startswith(p) and len(name) > len(p)), None)
        if name not in _COLUMNS and prefix is None:
            hint = meant(name, [*_COLUMNS, *(f"{p}NAME" for p in _PREFIXES)])
            findings.add("CS338", f"there is no column {name!r}", place, hint=hint)
            good = False
        if count > 1:
            findings.add("CS338", f"the column {name!r} stands twice", place)
            good = False
    if CORRUPT in counts and f"corrupt:{CORRUPT}" in counts:
        findings.add("CS338", f"the columns {CORRUPT} and corrupt:{CORRUPT} name one corruption", place)
        good = False
    if "clean" not in counts:
        findings.add("CS338", "there is no column clean", place, hint="name the columns on the first line")
        good = False
    return good


def _from_cells(cells: Mapping[str, str]) -> dict[str, object]:
    """A row in the form of a JSONL line; what is wrong with it is left for validation to say."""
    content: dict[str, object] = {"clean": cells["clean"]}
    corrupt = {name.removeprefix("corrupt:"): text for name, text in cells.items() if name.startswith("corrupt:")}
    if CORRUPT in cells:
        corrupt[CORRUPT] = cells[CORRUPT]
    if corrupt:
        content["corrupt"] = corrupt
    for key in ("answers", "wrong"):
        if cells.get(key):
            content[key] = cells[key].split("|")
    if "template" in cells:
        content["template"] = cells["template"]
    roles = {name.removeprefix("position:"): cell for name, cell in cells.items() if name.startswith("position:")}
    if roles:
        content["positions"] = {role: _place_in_cell(cell) for role, cell in roles.items()}
    return content


def _place_in_cell(cell: str) -> object:
    """A token index, or several or a text as JSON writes them; anything else is left for validation to refuse."""
    if re.fullmatch(r"\s*[+-]?[0-9]{1,9}\s*", cell):
        return int(cell)
    if not cell.lstrip().startswith(("{", "[")):
        return cell
    try:
        return json.loads(cell, object_pairs_hook=_no_repeats, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return cell


class _AutoCircuitFile(BaseModel, frozen=True, extra="forbid", strict=True):
    prompts: list[object]
    word_idxs: dict[Text, TokenIndex] = {}
    seq_labels: list[str] | None = None


def _read_auto_circuit(text: str, path: Path, findings: TaskFindings, limit: int | None) -> Read:
    content = _parse_json(text, str(path), 1, findings)
    if content is None:
        return [], 0
    start = Span(str(path), 1, 1)
    if not isinstance(content, Mapping) or not isinstance(content.get("prompts"), list):
        hint = 'auto-circuit writes {"prompts": [{"clean": ...}], "word_idxs": {}}; with one object a line, use .jsonl'
        findings.add("CS338", "there is no list of `prompts`", start, hint=hint)
        return [], 0
    whole = validate(_AutoCircuitFile, content, start, findings)
    entries = []
    line, seen = 1, 0
    used = content["prompts"][:limit]
    for offset, one in zip(itertools.islice(_prompt_offsets(text), len(used)), used, strict=True):
        line, seen = line + text.count("\n", seen, offset), offset
        place = Span(str(path), line, offset - text.rfind("\n", 0, offset))
        read = validate(AutoCircuitEntry, one, place, findings)
        if isinstance(read, AutoCircuitEntry) and isinstance(whole, _AutoCircuitFile):
            entry = Entry(
                clean=read.clean,
                corrupt=read.corrupt,
                answers=[*read.answers],
                wrong=[*read.wrong_answers],
                positions={**whole.word_idxs},
            )
            entries.append(Placed(entry, f"{path.name}:{line}", place))
    return entries, len(content["prompts"]) - len(used)


def _prompt_offsets(text: str) -> Iterator[int]:
    """Where each element of the top-level list `prompts` starts; `text` is a JSON object that has it."""
    decoder = JSONDecoder()

    def skip(offset: int) -> int:
        while text[offset] in " \t\r\n,:":
            offset += 1
        return offset

    offset = skip(skip(0) + 1)
    while text[offset] != "}":
        key, offset = decoder.raw_decode(text, offset)
        offset = skip(offset)
        if key == "prompts":
            offset = skip(offset + 1)
            while text[offset] != "]":
                yield offset
                offset = skip(decoder.raw_decode(text, offset)[1])
            return
        offset = skip(decoder.raw_decode(text, offset)[1])
