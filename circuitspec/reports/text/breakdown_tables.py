"""Figures by the values of columns of a prompts file: as text, as tables of the page, as data."""

from __future__ import annotations

from circuitspec.analysis.prompt_rows import Breakdown
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.wording import MISSING, briefly, number, with_interval
from circuitspec.analysis.verification_result import Verification
from circuitspec.reports.views import Table
from circuitspec.runtime.visible_text import visible


def _title(found: Breakdown) -> str:
    return f"{found.claim}, recovered {found.metric} by {found.column}"


def breakdown_text(found: Verification) -> tuple[str, ...]:
    """A block for each claim and column: prompts, means and recovered performance of each value."""
    return tuple(f"{visible(_title(one))}\n\n{_aligned(one)}" for one in found.breakdowns)


def _aligned(found: Breakdown) -> str:
    rows = [["", "prompts", "clean", "patched", "recovered"]]
    for row in found.rows:
        recovered = MISSING if row.recovered is None else with_interval(row.recovered)
        rows.append([visible(row.value), str(row.n), number(row.clean), number(row.patched), recovered])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for first, *numbers, last in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(numbers, widths[1:-1], strict=True)), last]
        lines.append(("  " + "   ".join(cells)).rstrip())
    return "\n".join(lines)


def breakdown_tables(found: Verification) -> list[Table]:
    """The same as tables of the page."""
    tables = []
    for one in found.breakdowns:
        rows = tuple(
            (
                row.value,
                str(row.n),
                number(row.clean),
                number(row.patched),
                MISSING if row.recovered is None else briefly(row.recovered),
            )
            for row in one.rows
        )
        tables.append(Table(_title(one), (one.column, "prompts", "clean", "patched", "recovered"), rows, numeric=1))
    return tables


def breakdowns_data(found: Verification) -> list[dict[str, object]]:
    """The same as JSON has it."""
    return [
        {
            "by": one.column,
            "claim": one.claim,
            "index": one.index,
            "metric": one.metric,
            "groups": [
                {
                    "value": row.value,
                    "n": row.n,
                    "clean": row.clean,
                    "patched": row.patched,
                    "recovered": _figure(row.recovered),
                }
                for row in one.rows
            ],
        }
        for one in found.breakdowns
    ]


def _figure(found: Estimate | None) -> dict[str, object] | None:
    if found is None:
        return None
    return {"value": found.value, "ci": None if found.interval is None else list(found.interval)}


def rows_data(found: Verification) -> dict[str, object] | None:
    """How the rows of the prompts file became prompts, where there is something to say of it."""
    rows = found.rows
    if rows is None:
        return None
    return {
        "file": rows.file,
        "layout": rows.layout or None,
        "holds": rows.holds,
        "looked_at": rows.looked_at,
        "left_out": dict(rows.left_out),
    }
