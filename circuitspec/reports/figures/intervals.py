"""Estimates one below the other, each with its interval, the bound it is held to, and its number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.wording import bound, number, with_interval
from circuitspec.reports.figures import palette
from circuitspec.reports.figures.canvas import bare, draw, put_title, wrapped
from circuitspec.reports.figures.picture import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = "osD^"
_GLYPHS = "●■◆▲"  # the markers as letters
_LABEL_CHARACTERS = 22
_FARTHEST = 2.5  # what lies beyond this, or below its negative plus one, is shown at the edge
_ROW, _NEXT_SERIES = 15.0, 11.0  # points
_IN_WORDS = 8  # numbers that are read out


@dataclass(frozen=True)
class IntervalPoint:
    """One estimate, None where there is no figure, and the bound that it is held to, if it is."""

    label: str
    estimate: Estimate | None
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class IntervalSeries:
    """Points of one kind. Points of several series under one label stand side by side."""

    label: str
    points: tuple[IntervalPoint, ...]


def intervals(series: Sequence[IntervalSeries], *, title: str, quantity: str) -> Picture:
    """Points with their confidence intervals, by label, bounds shaded; `quantity` (with its unit) is the x axis.

    0 and 1 are marked; of several series each number has the marker and colour of its own. Figures far outside of
    these are drawn as arrows at the edge; their numbers are written all the same. Raises ValueError where there is
    nothing to show, or too many series to tell apart.
    """
    rows = list(dict.fromkeys(point.label for one in series for point in one.points))
    if not rows or len(series) > len(_MARKERS):
        raise ValueError(f"{len(series)} series of {len(rows)} points: 1 to {len(_MARKERS)} series can be drawn")
    several = len(series) > 1
    height = len(rows) * (_ROW + (len(series) - 1) * _NEXT_SERIES) + 62 + 14 * several
    height += 10 * sum(len(_row_label(row).split("\n")) > 1 + (len(series) > 1) for row in rows)

    def on(figure: Figure) -> None:
        axes = figure.subplots()
        put_title(figure, title)
        _rows(axes, rows)
        low, high = _range(series)
        places, numbers, colours = [], [], []
        for nth, one in enumerate(series):
            offset = (nth - (len(series) - 1) / 2) * 0.62 / len(series)
            for point in one.points:
                y = rows.index(point.label) + offset
                _point(axes, point, y, nth, (low, high), 0.62 / len(series))
                places.append(y)
                numbers.append(f"{_GLYPHS[nth]} {_value(point)}" if several else _value(point))
                colours.append(palette.SERIES[nth] if several else palette.INK)
            if several:
                axes.plot([], [], color=palette.SERIES[nth], marker=_MARKERS[nth], ms=4.5, lw=1.6, label=one.label)
        axes.set_xlim(low, high)
        axes.set_xlabel(quantity)
        values = axes.secondary_yaxis("right")
        values.set_yticks(places, numbers)
        bare(values)  # type: ignore[arg-type]
        for label, colour in zip(values.get_yticklabels(), colours, strict=True):
            label.set_color(colour)
        if several:
            figure.legend(loc="outside lower left", ncols=2)

    return draw(height, on, title=title, alt=_alt(series, rows, quantity), width=360)


def _rows(axes: Axes, rows: Sequence[str]) -> None:
    axes.set_yticks(range(len(rows)), [_row_label(row) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    for marked in (0.0, 1.0):
        axes.axvline(marked, color=palette.FAINT, lw=1, zorder=0)


def _row_label(label: str) -> str:
    return wrapped([label], _LABEL_CHARACTERS)[0]


def _point(axes: Axes, point: IntervalPoint, y: float, nth: int, limits: tuple[float, float], room: float) -> None:
    colour = palette.SERIES[nth]
    low, high = limits
    least = low if point.at_least is None else max(low, point.at_least)
    most = high if point.at_most is None else min(high, point.at_most)
    if (point.at_least, point.at_most) != (None, None) and least < most:
        axes.barh(y, most - least, room, left=least, color=palette.BAND, alpha=0.45, lw=0, zorder=1)
    if point.estimate is None:
        return
    value = point.estimate.value
    if not low <= value <= high:
        edge, arrow = (high, ">") if value > high else (low, "<")
        axes.plot([edge], [y], marker=arrow, color=colour, ms=6, clip_on=False, zorder=4)
        return
    ends = point.estimate.interval or (value, value)
    axes.plot([max(low, ends[0]), min(high, ends[1])], [y, y], color=colour, lw=1.8, solid_capstyle="butt", zorder=3)
    axes.plot([value], [y], marker=_MARKERS[nth], color=colour, ms=4.5, zorder=4)


def _range(series: Sequence[IntervalSeries]) -> tuple[float, float]:
    """From 0 to 1 at least, as far as points and the ends of bounds reach, and a margin."""
    found = [0.0, 1.0]
    for one in series:
        for point in one.points:
            estimate = point.estimate
            shown = [] if estimate is None else [estimate.value, *(estimate.interval or ())]
            found += [end for end in (*shown, point.at_least, point.at_most) if end is not None and math.isfinite(end)]
    inside = [end for end in found if 1 - _FARTHEST <= end <= _FARTHEST]
    low, high = min(inside), max(inside)
    margin = 0.06 * (high - low)
    return low - margin, high + margin


def _value(point: IntervalPoint) -> str:
    limits = [end for end in (point.at_least, point.at_most) if end is not None]
    if point.estimate is None:
        return "no figure"
    return with_interval(point.estimate, limits).partition(" (")[0]


def _alt(series: Sequence[IntervalSeries], rows: Sequence[str], quantity: str) -> str:
    said = []
    each = max(2, _IN_WORDS // len(series))
    for one in series:
        for point in one.points[:each]:
            name = point.label if len(series) == 1 else f"{point.label}, {one.label}"
            limits = (
                "" if point.at_least is point.at_most is None else f" (bound {bound(point.at_least, point.at_most)})"
            )
            said.append(f"{name}: {number(point.estimate.value) if point.estimate else 'no figure'}{limits}")
        if len(one.points) > each:
            said.append(f"and {len(one.points) - each} more")
    return f"{quantity[:1].upper()}{quantity[1:]} with confidence intervals, {len(rows)} rows. " + "; ".join(said) + "."
