"""How much is recovered by how small a circuit."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.wording import number
from circuitspec.reports.figures import palette
from circuitspec.reports.figures.canvas import draw, put_title
from circuitspec.reports.figures.picture import Picture
from circuitspec.runtime.visible_text import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = "os"
_DASHES = ("-", "--")
_HEIGHT = 230.0
_ACROSS = 54  # characters of a heading over all panels


@dataclass(frozen=True)
class Sized:
    """A circuit of `size` components, and what it recovers."""

    size: int
    recovered: Estimate


@dataclass(frozen=True)
class Curve:
    """The best circuits of growing size; `chosen` is the size of the one that was taken, None where none was."""

    label: str
    points: tuple[Sized, ...]
    chosen: int | None = None


def frontier(curves: Sequence[Curve], *, metric: str, title: str, target: float | None = None) -> Picture:
    """One or two curves of recovered performance over circuit size, each in a panel of its own on common axes.

    The band is the confidence interval, the ring the chosen circuit, the dashed line the target.
    Raises ValueError for none or more than two curves, empty ones, and a chosen size that is not on its curve.
    """
    if not 1 <= len(curves) <= 2 or not all(curve.points for curve in curves):
        raise ValueError("a frontier has one or two curves, none of them empty")
    for curve in curves:
        if curve.chosen is not None and curve.chosen not in {point.size for point in curve.points}:
            raise ValueError(f"the chosen size {curve.chosen} is not on the curve {curve.label!r}")

    def on(figure: Figure) -> None:
        put_title(figure, title)
        panels = figure.subplots(1, len(curves), sharex=True, sharey=True, squeeze=False)[0]
        for nth, (axes, curve) in enumerate(zip(panels, curves, strict=True)):
            _panel(axes, curve, nth, target, _ACROSS // len(curves))
        if target is not None:  # outside: inside it would lie on a curve that ends there
            panels[-1].annotate(
                f"target\n{target:g}",
                (1, target),
                xycoords=("axes fraction", "data"),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=palette.MUTED,
            )
        panels[0].set_ylabel(f"recovered {metric}\n(share of clean - corrupt)")
        figure.supxlabel("circuit size (components)", fontsize=9, color=palette.MUTED)

    return draw(_HEIGHT, on, title=title, alt=_alt(curves, metric, target))


def _headed(curve: Curve, values: Mapping[int, float], across: int) -> str:
    """The curve's name and, in words, what the ring is around: beside the ring it would lie on curves and lines."""
    lines = textwrap.wrap(visible(curve.label), across) or [" "]
    if curve.chosen is not None:
        lines.append(f"chosen: {curve.chosen}, {number(values[curve.chosen])}")
    return "\n".join(lines)


def _panel(axes: Axes, curve: Curve, nth: int, target: float | None, across: int) -> None:
    from matplotlib.ticker import MaxNLocator

    colour = palette.SERIES[nth]
    points = sorted(curve.points, key=lambda point: point.size)
    sizes = [point.size for point in points]
    values = [point.recovered.value for point in points]
    ends = [point.recovered.interval or (point.recovered.value,) * 2 for point in points]
    axes.set_title(_headed(curve, dict(zip(sizes, values, strict=True)), across), color=colour)
    axes.axhline(1.0, color=palette.FAINT, lw=1, zorder=0)
    axes.axhline(0.0, color=palette.FAINT, lw=1, zorder=0)
    around = [low for low, _ in ends] + [high for _, high in reversed(ends)]
    axes.fill([*sizes, *reversed(sizes)], around, color=colour, alpha=0.18, lw=0)
    axes.plot(sizes, values, color=colour, lw=1.6, ls=_DASHES[nth], marker=_MARKERS[nth], ms=3)
    if target is not None:
        axes.axhline(target, color=palette.MUTED, lw=1, ls=(0, (3, 2)), zorder=1)
    if curve.chosen is not None:
        value = values[sizes.index(curve.chosen)]
        axes.plot([curve.chosen], [value], marker="o", ms=10, mfc="none", mec=palette.INK, mew=1.4, zorder=5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5, min_n_ticks=1))


def _alt(curves: Sequence[Curve], metric: str, target: float | None) -> str:
    said = []
    for curve in curves:
        points = sorted(curve.points, key=lambda point: point.size)
        by_size = {point.size: point.recovered.value for point in points}
        ends = ", ".join(f"{number(p.recovered.value)} with {p.size}" for p in dict.fromkeys((points[0], points[-1])))
        text = f"{curve.label}: {ends}"
        if curve.chosen is not None:
            text += f"; chosen: {curve.chosen} components, which recover {number(by_size[curve.chosen])}"
        said.append(text)
    aim = "" if target is None else f" The target is {target:g}."
    return f"Recovered {metric} by circuit size (components). {'. '.join(said)}.{aim}"
