"""Rows of cells as columns of text."""

from __future__ import annotations

from collections.abc import Sequence

from circuitspec.runtime.visible_text import visible


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns three spaces apart, flush left, every cell as it may safely be seen; without a newline at the end."""
    shown = [[visible(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in shown) for i in range(len(shown[0]))]
    return "\n".join("   ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in shown)
