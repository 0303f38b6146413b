"""Rows of parquet files and of the folders in which Hugging Face keeps data sets. Imports no torch.

The folder that `datasets` writes (`save_to_disk`) holds arrow files that are named in its `state.json`; they are read
with pyarrow alone. A folder with several splits (`dataset_dict.json`) holds one such folder for each.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic, Span
from circuitspec.prompts.files.given_rows import GivenRow, GivenRows

if TYPE_CHECKING:
    import pyarrow

ReadBytes: TypeAlias = Callable[[Path], bytes]
"""Raises CircuitspecError (CS334, CS335) for a file that cannot be read."""


def read_parquet(path: Path, place: Span | None, limit: int | None, read: ReadBytes) -> GivenRows:
    """The rows of a parquet file; `place` is where the hypothesis names it. Raises CS337, and as `read` does."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    raw = read(path)
    try:
        table = pq.read_table(pa.BufferReader(raw))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _malformed(path, "parquet", error, place) from error
    return _rows(path.name, [table], limit, place)


def read_dataset_folder(path: Path, place: Span | None, limit: int | None, read: ReadBytes) -> GivenRows:
    """The rows of a folder that `datasets` wrote, in their order.

    Raises CircuitspecError: CS334 for other folders, CS337 where it is not as such folders are, and as `read` does.
    """
    import pyarrow as pa

    if (path / "dataset_dict.json").is_file():
        splits = sorted(inner.name for inner in path.iterdir() if (inner / "state.json").is_file())
        hint = f"name one of them: file: {path.name}/{splits[0]}" if splits else ""
        said = f"{path.name} holds several splits ({', '.join(splits)})"
        raise CircuitspecError(Diagnostic("CS334", said, place, hint=hint))
    if not (path / "state.json").is_file():
        hint = "name a file, or a folder that the `save_to_disk` of a Hugging Face data set has written"
        raise CircuitspecError(Diagnostic("CS334", f"{path.name} is a folder without a state.json", place, hint=hint))
    try:
        state = json.loads(read(path / "state.json"))
        names = [str(one["filename"]) for one in state["_data_files"]]
        if state.get("_indices_files") or state.get("_indices_data_files"):
            raise ValueError("its rows were chosen or shuffled after it was made: call flatten_indices() and save it")
    except (ValueError, KeyError, TypeError) as error:
        raise _malformed(path, "data set", error, place) from error
    tables = []
    for name in names:
        file = path / name
        if file.parent != path or not file.is_file():
            raise _malformed(path, "data set", ValueError(f"there is no file {name}"), place)
        raw = pa.BufferReader(read(file))
        try:
            with pa.ipc.open_stream(raw) as stream:
                tables.append(stream.read_all())
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _malformed(path, "arrow", error, place) from error
    return _rows(path.name, tables, limit, place)


def _rows(name: str, tables: Sequence[pyarrow.Table], limit: int | None, place: Span | None) -> GivenRows:
    total = sum(table.num_rows for table in tables)
    contents = [row for table in tables for row in table.slice(0, limit).to_pylist()][:limit]
    rows = tuple(
        GivenRow(content, f"row {number}", f"row {number} of {name}", place, by_number=True)
        for number, content in enumerate(contents, start=1)
    )
    columns = tuple(tables[0].column_names) if tables else ()
    return GivenRows(name, rows, total - len(rows), columns=columns, place=place)


def _malformed(path: Path, kind: str, error: Exception, place: Span | None) -> CircuitspecError:
    said = " ".join(str(error).split()) or type(error).__name__
    return CircuitspecError(Diagnostic("CS337", f"{path.name} is no {kind} as it should be: {said}", place))
