"""Prompts from a file: JSON lines, JSON, CSV, TSV, parquet, a Hugging Face data set's folder. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path

from circuitspec.hypothesis_file.yaml.textfile import TextFile, decoded, read_bytes
from circuitspec.prompts.files.arrow_rows import read_dataset_folder, read_parquet
from circuitspec.prompts.files.given_rows import GivenRow, GivenRows, columns_of
from circuitspec.prompts.files.layouts.ravel import ENTITIES, MOST, PROMPTS, SPLITS, ravel_rows
from circuitspec.prompts.files.reading_rows import ReadAs, prompts_of_rows
from circuitspec.prompts.files.text_rows import first_lines, parse_json, read_csv, read_json, read_jsonl, read_tsv
from circuitspec.prompts.prompt_set import PromptSet
from circuitspec.prompts.task_findings import TaskFindings

MAX_BYTES = 64_000_000

AT: tuple[str, str] = ("task", "file")

_TEXT_READERS = {".jsonl": read_jsonl, ".csv": read_csv, ".tsv": read_tsv, ".json": read_json}


def read_prompts(
    path: Path,
    findings: TaskFindings,
    limit: int | None = None,
    at: tuple[str, ...] = AT,
    how: ReadAs | None = None,
) -> PromptSet:
    """The prompts of a file, only the first `limit` of them, read as `how` says.

    `at` is where the hypothesis names the file. Nothing is said of prompts that are not used: they are counted, and not
    read, unless rows are left out. Raises CircuitspecError (CS330 to CS340, CS351, CS355 to CS359) with everything that
    is wrong in the others.
    """
    how = how or ReadAs()
    read_at_most = None if how.skip else limit
    given = read_rows(path, findings, read_at_most, at, how)
    if given.whole is not None and given.unread and (how.layout is not None or not _times(given) <= {1}):
        every = read_rows(path, findings, None, at, how)
        given = every if len(_times(every)) == 1 else given  # else these are no corruptions of one prompt
    return prompts_of_rows(given, how, limit, findings)


def read_rows(
    path: Path, findings: TaskFindings, limit: int | None, at: tuple[str, ...], how: ReadAs | None = None
) -> GivenRows:
    """The rows of a file of any kind, before anything is made of them. Raises and notes CS334 to CS338."""
    how = how or ReadAs()
    suffix, place = path.suffix.lower(), findings.span(*at)
    kind = _kind(path)

    def read(one: Path) -> bytes:
        return read_bytes(one, _kind(one), place)

    if suffix == ".parquet":
        return read_parquet(path, place, limit, read)
    reader = _TEXT_READERS.get(suffix)
    if reader is None:
        if _is_folder(path):
            return read_dataset_folder(path, place, limit, read)
        hint = "name the file .jsonl, .json, .csv, .tsv or .parquet, or give the folder of a Hugging Face data set"
        findings.add("CS334", f"{path.name} is no kind of prompts file that is known", at, hint=hint)
        findings.check()
        raise AssertionError
    raw, beyond = read_bytes(path, kind, place), 0
    if limit is not None and reader is read_jsonl:
        raw, beyond = first_lines(raw, limit)
    text = decoded(raw, path, kind)
    if _is_ravel(path, how):
        return _ravel(text, path, findings, limit)
    given = reader(text, path, findings, limit)
    return replace(given, unread=given.unread + beyond)


def _times(given: GivenRows) -> set[int]:
    """How often clean texts stand in the rows."""
    texts = (str(row.content.get("clean")) if isinstance(row.content, Mapping) else "" for row in given.rows)
    return set(Counter(texts).values())


def _kind(path: Path) -> TextFile:
    return TextFile(
        path.name,
        MAX_BYTES,
        unreadable="CS334",
        too_large="CS335",
        not_utf8="CS336",
        if_missing="file names are relative to the folder of the hypothesis",
        if_too_large="split it, or keep the prompts that the claims need",
    )


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _is_ravel(path: Path, how: ReadAs) -> bool:
    return how.columns is None and how.layout in (None, "ravel") and path.name.endswith(ENTITIES)


def _ravel(text: str, path: Path, findings: TaskFindings, limit: int | None) -> GivenRows:
    """The rows that RAVEL's files make together: those of entities and of prompts, and of splits if it is there."""
    start = path.name.removesuffix(ENTITIES)
    prompts, splits = (path.with_name(start + end) for end in (PROMPTS, SPLITS))
    tables = []
    for file in (path, prompts, *([splits] if splits.exists() else [])):
        content = text if file == path else decoded(read_bytes(file, _kind(file)), file, _kind(file))
        value = parse_json(content, str(file), 1, findings)
        findings.check()
        tables.append(value if isinstance(value, Mapping) else {})
    made = list(islice(ravel_rows(tables[0], tables[1], tables[2] if len(tables) > 2 else {}), limit or MOST))
    place = findings.span(*AT)
    rows = tuple(
        GivenRow(row, f"row {number}", f"row {number} of {path.name}", place, by_number=True)
        for number, row in enumerate(made, start=1)
    )
    return GivenRows(path.name, rows, columns=columns_of(rows[:1]), place=place)
