"""Points by two quantities, by kind, with a line to hold them against: a diagonal, or a frontier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from circuitspec.reports.figures import palette
from circuitspec.reports.figures.canvas import draw, put_title
from circuitspec.reports.figures.picture import Picture
from circuitspec.runtime.visible_text import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = "osD^v"
_COLOURS = (*palette.SERIES, palette.MUTED)
_HEIGHT, _ROW = 236.0, 12.0
_NAME = 30  # characters of a point's name in the picture

Place = tuple[float, float]


@dataclass(frozen=True)
class Dots:
    """Points of one kind."""

    label: str
    places: tuple[Place, ...]


@dataclass(frozen=True)
class NamedPoint:
    """A point with a ring around it, and its name in the legend."""

    name: str
    place: Place


def scatter(
    dots: Sequence[Dots],
    *,
    title: str,
    across: str,
    upward: str,
    alt: str,
    line: Literal["diagonal"] | Sequence[Place] = "diagonal",
    line_label: str,
    named: Sequence[NamedPoint] = (),
) -> Picture:
    """Points of up to five kinds; `across` and `upward` name the axes with their units.

    `line` is the diagonal, on axes of one scale, or steps through points from left to right. Raises ValueError where
    there is no point, or too many kinds to tell apart.
    """
    if not any(one.places for one in dots) or len(dots) > len(_MARKERS):
        raise ValueError(f"{len(dots)} kinds of points: 1 to {len(_MARKERS)} can be drawn, with a point at least")

    def on(figure: Figure) -> None:
        from matplotlib.ticker import MaxNLocator

        put_title(figure, title)
        axes = figure.subplots()
        if line == "diagonal":
            _diagonal(axes, [place for one in dots for place in one.places], line_label)
        else:
            xs, ys = zip(*line, strict=True)
            axes.plot(xs, ys, color=palette.INK, lw=1.1, drawstyle="steps-post", zorder=2, label=line_label)
        for nth, one in enumerate(dots):
            xs, ys = zip(*one.places, strict=True) if one.places else ((), ())
            axes.plot(
                xs, ys, ls="", marker=_MARKERS[nth], ms=4.5, color=_COLOURS[nth], alpha=0.8, label=one.label, zorder=3
            )
        _names(axes, named)
        axes.margins(0.08)
        if line != "diagonal":  # sizes are whole numbers
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlabel(across)
        axes.set_ylabel(upward)
        figure.legend(loc="outside lower left", ncols=2)

    return draw(_HEIGHT + _ROW * (len(dots) + len(named) + 1) / 2, on, title=title, alt=alt)


def _diagonal(axes: Axes, places: Sequence[Place], label: str) -> None:
    ends = [end for place in places for end in place]
    low, high = min(ends), max(ends)
    axes.plot([low, high], [low, high], color=palette.MUTED, lw=1, ls=(0, (3, 2)), zorder=1, label=label)


def _names(axes: Axes, named: Sequence[NamedPoint]) -> None:
    """Rings, with their names in the legend: beside a point they would lie on others."""
    for one in named:
        text = visible(one.name)
        text = text if len(text) <= _NAME else text[: _NAME - 3] + "..."
        x, y = one.place
        axes.plot([x], [y], ls="", marker="o", ms=10, mfc="none", mec=palette.INK, mew=1.2, zorder=4, label=text)
