"""A tree with a root above: below each node what leads to it, what that carries, and a bar for what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from circuitspec.analysis.statistics.wording import MISSING, number, plural
from circuitspec.reports.figures import palette
from circuitspec.reports.figures.canvas import TITLE, WIDTH, draw, heading
from circuitspec.reports.figures.layout import CHARACTER
from circuitspec.reports.figures.picture import Picture
from circuitspec.runtime.visible_text import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROW, _STEP, _GAP, _MARGIN, _TITLE = 15.0, 13.0, 14.0, 6.0, 24.0
_BAR, _BAR_HEIGHT, _FIGURE = 90.0, 7.0, 26.0  # the longest bar, how high bars are, room for their figures
_THIN, _THICK = 0.7, 4.0  # widths of branches
_LONGEST = 34  # characters of a label
_ROUNDED = 0.005  # what less is 0.00


@dataclass(frozen=True)
class Branch:
    """What leads to the last branch above it that is one less deep: its name, what it carries, and what that costs.

    The root has depth 0. `cost` is None where there is none, or it was not measured.
    """

    depth: int
    label: str
    carries: str = ""
    cost: float | None = None


def tree_figure(branches: Sequence[Branch], *, title: str, quantity: str) -> Picture:
    """The tree, a line a branch, as wide as its cost. Raises ValueError without branches, or if one hangs on none."""
    if not branches or any(two.depth > one.depth + 1 for one, two in pairwise(branches)):
        raise ValueError("a tree has a root, and every branch what it hangs on")
    labels = [(_short(one.label), _short(one.carries)) for one in branches]
    wide = max(_STEP * one.depth + CHARACTER * len(label) for one, (label, _) in zip(branches, labels, strict=True))
    second = _MARGIN + wide + _GAP
    third = second + max(CHARACTER * max(len(carried) for _, carried in labels), 7 * CHARACTER) + _GAP
    width = max(WIDTH, third + _BAR + _FIGURE + _MARGIN)
    lines = heading(title).count("\n") + 1
    top = _TITLE + 13 * (lines - 1) + _ROW
    height = top + _ROW * (len(branches) + 0.5)
    largest = max((abs(one.cost) for one in branches if one.cost is not None), default=0.0)
    tips: dict[str, str] = {}

    def on(figure: Figure) -> None:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        axes.text(_MARGIN, _MARGIN, heading(title), va="top", **TITLE)
        head: dict[str, Any] = {"va": "center_baseline", "fontsize": 8, "color": palette.MUTED}
        for x, text in ((_MARGIN, "value"), (second, "carries"), (third, quantity)):
            axes.text(x, top - _ROW / 2, text, **head)
        above: dict[int, float] = {}
        for nth, (one, (label, carried)) in enumerate(zip(branches, labels, strict=True)):
            y, x = top + _ROW * (nth + 0.5), _MARGIN + _STEP * one.depth
            colour = palette.VERMILION if (one.cost or 0.0) < -_ROUNDED else palette.BLUE
            share = abs(one.cost or 0.0) / largest if largest else 0.0
            if one.depth:
                corner = x - _STEP + 4
                across = (corner, corner, x - 2), (above[one.depth - 1] + 5, y, y)
                axes.plot(*across, color=colour, lw=_THIN + (_THICK - _THIN) * share, alpha=0.7, gid=f"branch{nth}")
                tips[f"branch{nth}"] = _told(one)
            above[one.depth] = y
            axes.text(x, y, label, va="center_baseline", fontsize=8)
            axes.text(second, y, carried, va="center_baseline", fontsize=8)
            if one.cost is not None:
                bar = max(share * _BAR, 0.6)
                axes.barh(y, bar, _BAR_HEIGHT, left=third, color=colour, gid=f"bar{nth}")
                axes.text(third + bar + 4, y, number(one.cost), va="center_baseline", fontsize=8)
                tips[f"bar{nth}"] = _told(one)

    return draw(height, on, title=title, alt=_alt(branches), width=width, fitted=False, tooltips=tips)


def _short(text: str) -> str:
    shown = visible(text)
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 3] + "..."


def _told(one: Branch) -> str:
    return f"{one.label}, carries {one.carries or MISSING}: {number(one.cost)}"


def _alt(branches: Sequence[Branch]) -> str:
    known = [one for one in branches if one.cost is not None]
    said = f"Tree of {plural(len(branches) - 1, 'branch').replace('branchs', 'branches')} below {branches[0].label}."
    if known:
        said += f" The costliest is {_told(max(known, key=lambda one: one.cost or 0.0))}."
    return said
