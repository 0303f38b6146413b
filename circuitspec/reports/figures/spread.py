"""Figures of one quantity under many conditions, a row a condition: every one a mark, the range a line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from circuitspec.analysis.statistics.wording import number
from circuitspec.reports.figures import palette
from circuitspec.reports.figures.canvas import draw, put_title, wrapped
from circuitspec.reports.figures.picture import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = "os"
_ROW, _HEAD = 21.0, 92.0  # points
_CHARACTERS = 24
_FARTHEST = 3.0  # what lies beyond this, or below its negative plus one, is shown at the edge


@dataclass(frozen=True)
class Row:
    """The figures under one condition, by series; none where a series has no figure there."""

    label: str
    values: tuple[tuple[float, ...], ...]
    heading: str = ""  # of the rows from here on


def spread(
    rows: Sequence[Row], *, series: Sequence[str], own: Sequence[float | None], title: str, quantity: str
) -> Picture:
    """One or two series of figures by condition; `own` are those that the reader started from, as vertical lines.

    0 and 1 are marked; figures beyond the axis (`off_axis`) are arrows at its edge. Raises ValueError where there is
    nothing to show, or rows do not fit the series.
    """
    if not rows or not 1 <= len(series) <= len(_MARKERS) or any(len(row.values) != len(series) for row in rows):
        raise ValueError("a spread has rows of one or two series")
    found = [value for row in rows for values in row.values for value in values]
    if not found:
        raise ValueError("a spread without a figure")
    shown = [value for value in (*found, 0.0, 1.0) if not off_axis(value)]
    margin = 0.05 * (max(shown) - min(shown))
    limits = (min(shown) - margin, max(shown) + margin)

    def on(figure: Figure) -> None:
        put_title(figure, title)
        axes = figure.subplots()
        for marked in (0.0, 1.0):
            axes.axvline(marked, color=palette.FAINT, lw=1, zorder=0)
        for nth, value in enumerate(own):
            if value is not None:
                axes.axvline(min(max(value, limits[0]), limits[1]), color=palette.SERIES[nth], lw=1, ls=(0, (3, 2)))
        for place, row in enumerate(rows):
            for nth, values in enumerate(row.values):
                _marks(axes, values, place + (nth - (len(series) - 1) / 2) * 0.4, nth, limits)
        for nth, label in enumerate(series):
            axes.plot([], [], color=palette.SERIES[nth], marker=_MARKERS[nth], ms=4, lw=1.2, label=label)
        labels = [f"{row.heading}: {row.label}" if row.heading else row.label for row in rows]
        axes.set_yticks(range(len(rows)), wrapped(labels, _CHARACTERS))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(*limits)
        axes.set_xlabel(quantity)
        figure.legend(loc="outside lower left", ncols=1)

    height = len(rows) * _ROW + _HEAD
    return draw(height, on, title=title, alt=_alt(rows, series, quantity))


def off_axis(value: float) -> bool:
    """Whether a figure lies beyond what the axis may reach, so that it is an arrow at the edge."""
    return not 1 - _FARTHEST <= value <= _FARTHEST


def _marks(axes: Axes, values: Sequence[float], y: float, nth: int, limits: tuple[float, float]) -> None:
    colour = palette.SERIES[nth]
    for edge, arrow, beyond in ((limits[0], "<", min), (limits[1], ">", max)):
        if any(math.isfinite(v) and off_axis(v) and beyond(v, edge) == v for v in values):
            axes.plot([edge], [y], marker=arrow, color=colour, ms=6, clip_on=False, zorder=4)
    inside = [value for value in values if math.isfinite(value) and not off_axis(value)]
    if not inside:
        return
    axes.plot([min(inside), max(inside)], [y, y], color=colour, lw=1.2, zorder=2)
    axes.plot(
        inside, [y] * len(inside), color=colour, marker=_MARKERS[nth], ms=3.4, mec="none", ls="", alpha=0.75, zorder=3
    )


def _alt(rows: Sequence[Row], series: Sequence[str], quantity: str) -> str:
    said = []
    for row in rows:
        ranges = [
            f"{number(min(values))} to {number(max(values))} ({name})"
            for name, values in zip(series, row.values, strict=True)
            if values
        ]
        said.append(f"{row.heading or ''} {row.label}: {', '.join(ranges) or 'none'}".strip())
    return f"{quantity[:1].upper()}{quantity[1:]} by choice of method. " + "; ".join(said) + "."
