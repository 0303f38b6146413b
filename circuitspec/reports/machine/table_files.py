"""The files of a result, each whole, and all of one run."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from circuitspec.analysis.verification_result import Verification
from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.prompts.prompt_set import PromptSet
from circuitspec.reports.saved_result import earlier_files
from circuitspec.reports.text.additional_tables import sweep_frame
from circuitspec.reports.text.data_frames import experiments_frame, prompts_frame
from circuitspec.runtime.files import put_in_place

if TYPE_CHECKING:
    import pandas as pd
    from filelock import BaseFileLock

Writer: TypeAlias = Callable[[Path], object]
"""Writes one file to the path that it is given."""


def result_files(found: Verification, prompts: PromptSet) -> dict[str, Writer]:
    """The tables `experiments` and `prompts`, and `sweep` where there is one, as parquet and as csv: by file name."""
    tables = {
        "experiments": experiments_frame(found.plan, found.records, known=found.denominators),
        "prompts": prompts_frame(found.plan, found.records, prompts),
    }
    if found.sweep is not None:
        tables["sweep"] = sweep_frame(found.sweep)
    return table_files(tables)


def table_files(tables: Mapping[str, pd.DataFrame]) -> dict[str, Writer]:
    """Each table as parquet and as csv, by file name."""
    files: dict[str, Writer] = {}
    for name, table in tables.items():
        files[f"{name}.parquet"] = partial(_write_parquet, table)
        files[f"{name}.csv"] = partial(table.to_csv, index=False)
    return files


def _write_parquet(table: pd.DataFrame, path: Path) -> None:
    with path.open("wb") as stream:  # pyarrow itself opens no file whose name is no UTF-8
        table.to_parquet(stream, index=False)


def text_file(text: str) -> Writer:
    """A file of UTF-8 text."""
    return lambda path: path.write_text(text, encoding="utf-8")


def write_folder(directory: Path, files: Mapping[str, Writer], *, gone: Iterable[str] = (), last: str = "") -> None:
    """Write files into `directory`, made if need be: all of them, or none, and then what was there before stays.

    All are written aside before the first is put in place: if the disk is full, it is so before anything has changed.
    Of those named `gone` that are not among `files` nothing is left. The file `last` says what the others are: it goes
    first and comes last, so that a process that is killed in between leaves a folder that nobody takes for a result.
    What killed processes wrote aside here is removed.

    Raises CS513 where that fails.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(directory)
        aside, lock = _aside(directory)
    except OSError as error:
        raise _unwritten(directory, error, _UNTOUCHED) from error
    at, hint = directory, _UNTOUCHED
    try:
        for name, write in files.items():
            at = directory / name
            put_in_place(aside / name, write)
        hint = _MIXED
        for name in dict.fromkeys((*filter(None, (last,)), *gone)):
            at = directory / name
            if name == last or name not in files:
                at.unlink(missing_ok=True)
        for name in sorted(files, key=lambda name: name == last):
            at = directory / name
            if at.exists():
                (aside / name).chmod(at.stat().st_mode & 0o7777)
            os.replace(aside / name, at)
    except OSError as error:
        raise _unwritten(at, error, hint) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        lock.release()


def _aside(directory: Path) -> tuple[Path, BaseFileLock]:
    """A new folder within, and the lock that says that somebody writes to it, held until it is released."""
    from filelock import FileLock

    while True:
        aside = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=directory))
        lock = FileLock(aside / _LOCK)
        with contextlib.suppress(FileNotFoundError, NotImplementedError):  # no locks here: nothing is ever abandoned
            lock.acquire()
        if aside.exists():  # else another process took it for abandoned before it was locked
            return aside, lock


def _remove_abandoned(directory: Path) -> None:
    """Remove the folders that killed processes wrote aside. Who writes to one holds its lock."""
    from filelock import FileLock, Timeout

    for left in directory.glob(f"{_ASIDE}*"):
        with contextlib.suppress(
            Timeout, OSError, NotImplementedError
        ):  # it is being written, or is not ours to remove
            if (left / _LOCK).exists():
                with FileLock(left / _LOCK, timeout=0):
                    shutil.rmtree(left, ignore_errors=True)


_ASIDE, _LOCK = ".writing-", ".lock"
_UNTOUCHED = "name another --output-dir; what an earlier run left in this one is as it was"
_MIXED = "name another --output-dir; this one now holds files of two runs"


def _unwritten(path: Path, error: OSError, hint: str) -> CircuitspecError:
    said = f"the results cannot be written to {path}: {error.strerror or error}"
    return CircuitspecError(Diagnostic("CS513", said, hint=hint))


def write_results(directory: Path, found: Verification, prompts: PromptSet) -> tuple[Path, ...]:
    """Write the tables of a verification into `directory`; their paths. Raises CS513 where that fails."""
    files = result_files(found, prompts)
    write_folder(directory, files, gone=earlier_files())
    return tuple(directory / name for name in files)


def write_tables(directory: Path, tables: Mapping[str, pd.DataFrame]) -> tuple[Path, ...]:
    """Write each table as parquet and as csv; their paths. Raises CS513 where that fails."""
    files = table_files(tables)
    write_folder(directory, files)
    return tuple(directory / name for name in files)
