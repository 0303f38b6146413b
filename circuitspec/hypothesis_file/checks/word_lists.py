"""The word lists of a task: inline, or from `.txt` and `.csv` files beside the hypothesis."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic, Span, in_order
from circuitspec.hypothesis_file.yaml.textfile import TextFile, read_text_file

if TYPE_CHECKING:
    from circuitspec.hypothesis_file.yaml.source import SourceText

Row: TypeAlias = str | Mapping[str, str]
Places: TypeAlias = tuple[Span | None, ...]

MAX_LIST_BYTES = 10_000_000
SUFFIXES = (".txt", ".csv")


def load_lists(
    lists: Mapping[str, object], base_dir: Path, source: SourceText | None = None
) -> dict[str, tuple[Row, ...]]:
    """Every list of `task.lists` as rows, in the order written.

    A row is a string, or a mapping from column to string for a table. File names are relative to
    `base_dir`, the folder of the hypothesis. A `.txt` has one entry a line (blank lines and lines
    starting with `#` are skipped); a `.csv` has a header line and becomes a table.

    Raises CircuitspecError (CS150 to CS157) with the findings of all lists.
    """
    loaded: dict[str, tuple[Row, ...]] = {}
    findings: list[Diagnostic] = []
    for name, content in lists.items():
        try:
            loaded[name] = _load_list(name, content, base_dir, source)
        except CircuitspecError as error:
            findings.extend(error.diagnostics)
    if findings:
        raise CircuitspecError(*in_order(findings))
    return loaded


def columns(rows: tuple[Row, ...]) -> tuple[str, ...]:
    """The columns of a table in order; empty for a plain list."""
    return () if not rows or isinstance(rows[0], str) else tuple(rows[0])


def _load_list(name: str, content: object, base_dir: Path, source: SourceText | None) -> tuple[Row, ...]:
    where = source.span(("task", "lists", name)) if source is not None else None
    if isinstance(content, str):
        rows, places = _read_file(name, content, base_dir, where)
    else:
        rows, places = _inline(name, content, source, where)
    if not rows:
        raise CircuitspecError(
            Diagnostic("CS152", f"the list {name} has no entries", where, hint="give it at least one entry")
        )
    _refuse_repeats(name, rows, places)
    return rows


def _refuse_repeats(name: str, rows: tuple[Row, ...], places: Places) -> None:
    seen: set[object] = set()
    findings = []
    for row, place in zip(rows, places, strict=True):
        key = row if isinstance(row, str) else tuple(row.items())
        if key in seen:
            shown = row if isinstance(row, str) else ", ".join(row.values())
            findings.append(
                Diagnostic(
                    "CS155",
                    f"{shown!r} stands in the list {name} more than once",
                    place,
                    label="already listed above",
                    hint="remove it: slots drawn from one list must differ, and every entry has the same chance",
                )
            )
        seen.add(key)
    if findings:
        raise CircuitspecError(*findings)


def _inline(
    name: str, content: object, source: SourceText | None, where: Span | None
) -> tuple[tuple[Row, ...], Places]:
    path = ("task", "lists", name)
    if isinstance(content, Mapping):
        return _from_columns(name, content, where)
    if not isinstance(content, (list, tuple)):
        raise CircuitspecError(_bad_form(name, where))
    rows: list[Row] = []
    findings = []
    places = tuple(source.span((*path, i)) if source is not None else None for i in range(len(content)))
    for entry, place in zip(content, places, strict=True):
        if isinstance(entry, str):
            rows.append(entry)
        elif isinstance(entry, Mapping) and all(isinstance(x, str) for pair in entry.items() for x in pair):
            rows.append(dict(entry))
        else:
            findings.append(_bad_form(name, place))
    if not findings:
        findings.extend(_uneven_rows(name, rows, places))
    if findings:
        raise CircuitspecError(*findings)
    return tuple(rows), places


def _uneven_rows(name: str, rows: Iterable[Row], places: Places) -> Iterable[Diagnostic]:
    first: list[str] | None = None
    for number, (row, place) in enumerate(zip(rows, places, strict=True)):
        own = [] if isinstance(row, str) else sorted(row)
        if number == 0:
            first = own
        elif own != first:
            wanted = ", ".join(first) if first else "plain text, without columns"
            yield Diagnostic(
                "CS153",
                f"the entries of the list {name} do not have the same columns",
                place,
                label=f"the first entry has {wanted}; this one has {', '.join(own) or 'no columns'}",
                hint="give every entry the same columns",
            )


def _from_columns(name: str, content: Mapping[object, object], where: Span | None) -> tuple[tuple[Row, ...], Places]:
    table: dict[str, tuple[str, ...]] = {}
    for column, cells in content.items():
        if not isinstance(cells, (list, tuple)) or not all(isinstance(cell, str) for cell in cells):
            raise CircuitspecError(_bad_form(name, where))
        table[str(column)] = tuple(cells)
    lengths = {column: len(cells) for column, cells in table.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{column} has {length}" for column, length in lengths.items())
        raise CircuitspecError(
            Diagnostic(
                "CS153",
                f"the columns of the table {name} are not equally long",
                where,
                label=told,
                hint="give every column the same number of entries",
            )
        )
    rows: list[Row] = [dict(zip(table, cells, strict=True)) for cells in zip(*table.values(), strict=True)]
    return tuple(rows), (where,) * len(rows)


def _bad_form(name: str, where: Span | None) -> Diagnostic:
    return Diagnostic(
        "CS154",
        f"the list {name} is neither a file name nor entries of text",
        where,
        hint='write a file name, a list such as [store, park], or a table; put numbers in quotes, as in ["02", "03"]',
    )


def _read_file(name: str, written: str, base_dir: Path, where: Span | None) -> tuple[tuple[Row, ...], Places]:
    path = base_dir / written
    if path.suffix.lower() not in SUFFIXES:
        raise CircuitspecError(
            Diagnostic(
                "CS156",
                f"the list {name} names {written!r}, which is neither a .txt nor a .csv file",
                where,
                hint=f"for a list of one entry, write [{_as_yaml(written)}]",
            )
        )
    text = read_text_file(
        path,
        TextFile(
            f"the file of the list {name}",
            MAX_LIST_BYTES,
            unreadable="CS150",
            not_utf8="CS151",
            too_large="CS157",
            if_missing="file names are relative to the folder of the hypothesis",
        ),
        where,
    )
    if path.suffix.lower() == ".csv":
        return _read_csv(name, text, str(path))
    rows: list[Row] = []
    places = []
    for number, line in enumerate(text.splitlines(), start=1):
        entry = line.strip()
        if entry and not entry.startswith("#"):
            start = line.index(entry) + 1
            rows.append(entry)
            places.append(Span(str(path), number, start, start + len(entry)))
    return tuple(rows), tuple(places)


def _as_yaml(text: str) -> str:
    """A text as an entry of a list in brackets, in quotes where YAML would read something else."""
    is_plain = re.fullmatch(r"[A-Za-z](?:[\w ./-]*[\w./-])?", text) and text.lower() not in ("true", "false", "null")
    return text if is_plain else json.dumps(text, ensure_ascii=False)


def _read_csv(name: str, text: str, file: str) -> tuple[tuple[Row, ...], Places]:
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    records: list[tuple[int, list[str]]] = []
    try:
        for record in reader:
            cells = [cell.strip() for cell in record]
            if any(cells):
                records.append((reader.line_num, cells))
    except csv.Error as error:
        raise CircuitspecError(
            Diagnostic("CS153", f"the table {name} is not valid CSV: {error}", Span(file, max(1, reader.line_num), 1))
        ) from None
    if not records:
        return (), ()
    header_line, header = records[0]
    if not all(header) or len(set(header)) != len(header):
        raise CircuitspecError(
            Diagnostic(
                "CS153",
                f"the header of the table {name} has an empty or repeated column name",
                Span(file, header_line, 1),
                hint="give every column a name of its own on the first line",
            )
        )
    findings = []
    for line, cells in records[1:]:
        if len(cells) != len(header) or not all(cells):
            findings.append(
                Diagnostic(
                    "CS153",
                    f"a row of the table {name} does not fill its columns",
                    Span(file, line, 1),
                    label=f"{sum(map(bool, cells))} of {max(len(cells), len(header))} cells filled, "
                    f"{len(header)} columns: {', '.join(header)}",
                    hint="fill every cell; put a cell that holds a comma in double quotes",
                )
            )
    if findings:
        raise CircuitspecError(*findings)
    rows: list[Row] = [dict(zip(header, cells, strict=True)) for _, cells in records[1:]]
    return tuple(rows), tuple(Span(file, line, 1) for line, _ in records[1:])
