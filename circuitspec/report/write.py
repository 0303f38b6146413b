"""Tables to files, each either whole or not there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from circuitspec.analysis.result import Verification
from circuitspec.diagnostics import CircuitspecError, Diagnostic
from circuitspec.report.beside import sweep_frame
from circuitspec.report.files import put_in_place
from circuitspec.report.frame import experiments_frame, prompts_frame
from circuitspec.tasks.prompts import PromptSet


def write_results(directory: Path, found: Verification, prompts: PromptSet) -> tuple[Path, ...]:
    """Write `experiments` and `prompts` as parquet and as csv into `directory`, made if need be.

    Each file is written aside and then renamed, so that a reader, or a crash, never meets half of one.
    Returns the paths. Raises CS513 where the directory cannot be written.
    """
    tables = {
        "experiments": experiments_frame(found.plan, found.records, known=found.denominators),
        "prompts": prompts_frame(found.plan, found.records, prompts),
    }
    if found.sweep is not None:
        tables["sweep"] = sweep_frame(found.sweep)
    return write_tables(directory, tables)


def write_tables(directory: Path, tables: Mapping[str, pd.DataFrame]) -> tuple[Path, ...]:
    """Write each table as parquet and as csv. Raises CS513 where the directory cannot be written."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return tuple(path for name, table in tables.items() for path in _write_table(directory / name, table))
    except OSError as error:
        reason = error.strerror or str(error)
        problem = Diagnostic(
            "CS513", f"the results cannot be written to {directory}: {reason}", hint="name another --output-dir"
        )
        raise CircuitspecError(problem) from error


def _write_table(stem: Path, table: pd.DataFrame) -> tuple[Path, Path]:
    parquet, csv = stem.with_suffix(".parquet"), stem.with_suffix(".csv")
    put_in_place(parquet, lambda aside: table.to_parquet(aside, index=False))
    put_in_place(csv, lambda aside: table.to_csv(aside, index=False))
    return parquet, csv
