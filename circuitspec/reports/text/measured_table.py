"""A table of measured values as text for the terminal, as CSV, and as JSON lines."""

from __future__ import annotations

import pandas as pd

from circuitspec.runtime.visible_text import no_command, visible

_DIGITS = 3


def table_text(frame: pd.DataFrame, format_: str) -> str:
    """The rows in their order, ending in a newline; in text with three decimals and without columns that say nothing.

    What is absent is empty in text and CSV, and null in JSON (one object a line).
    """
    if format_ == "csv":
        return frame.to_csv(index=False, lineterminator="\n")
    if format_ == "json":
        return frame.to_json(orient="records", lines=True, double_precision=15)
    shown = frame.loc[:, [not frame[name].isna().all() for name in frame]]
    cells = [[str(name) for name in shown], *([_cell(value) for value in row] for row in shown.itertuples(index=False))]
    numeric = [pd.api.types.is_numeric_dtype(shown[name]) for name in shown]
    widths = [max(len(row[column]) for row in cells) for column in range(len(numeric))]
    lines = (
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in cells
    )
    return no_command(visible("\n".join(lines), lines=True)) + "\n"


def _cell(value: object) -> str:
    if value is None or value is pd.NA or value != value:
        return ""
    return f"{value:.{_DIGITS}f}" if isinstance(value, float) else str(value)
