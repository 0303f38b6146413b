"""Matplotlib without its global state: figures that look and come out the same everywhere, as SVG."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from circuitspec.reports.figures import palette
from circuitspec.reports.figures.picture import Picture
from circuitspec.runtime.visible_text import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FONT = 9.0  # points
WIDTH = 360.0  # points: a phone's width at 1 px a point
FULL = 730.0  # points: the width of a page
TITLE: Mapping[str, Any] = {"fontsize": 10.5, "fontweight": "bold"}
_SMALL = 8.0
_POINTS = 72.0  # an inch
_TITLE_CHARACTERS = 52

_STYLE: Mapping[str, object] = {
    "svg.fonttype": "none",  # text stays text: small, sharp, to be searched and copied
    "svg.hashsalt": "circuitspec",  # ids by content, not by chance
    "text.parse_math": False,  # a name with two dollars in it is no formula
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans", "Verdana"],  # measured in the first; the second is as wide
    "font.size": FONT,
    "axes.titlesize": FONT,
    "axes.titlelocation": "left",
    "axes.labelsize": FONT,
    "axes.labelcolor": palette.MUTED,
    "axes.edgecolor": palette.MUTED,
    "axes.linewidth": 0.7,
    "axes.unicode_minus": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": palette.INK,
    "xtick.color": palette.MUTED,
    "ytick.color": palette.MUTED,
    "xtick.labelcolor": palette.INK,
    "ytick.labelcolor": palette.INK,
    "xtick.labelsize": _SMALL,
    "ytick.labelsize": _SMALL,
    "legend.fontsize": _SMALL,
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
    "path.simplify": False,
}


def draw(
    height: float,
    on: Callable[[Figure], None],
    *,
    title: str,
    alt: str,
    width: float = WIDTH,
    fitted: bool = True,
    tooltips: Mapping[str, str] | None = None,
) -> Picture:
    """A picture of `width` x `height` points with what `on` puts on its figure.

    `fitted` moves axes until all labels have room. Matplotlib's settings are set aside for the time of the call, so
    that those of the user make no difference, and are then as they were (not for use by several threads at once).
    """
    import matplotlib.style
    from matplotlib.figure import Figure

    with matplotlib.style.context(["default", dict(_STYLE)]), warnings.catch_warnings():
        # text is drawn by whoever shows the picture: what matplotlib's own font lacks is of no account
        warnings.filterwarnings("ignore", message="Glyph|Matplotlib currently does not support", category=UserWarning)
        figure = Figure(figsize=(width / _POINTS, height / _POINTS), layout="constrained" if fitted else None)
        on(figure)
        written = io.StringIO()
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    tips = {key: visible(text) for key, text in (tooltips or {}).items()}
    drawn = visible(written.getvalue(), lines=True, mark="&lt;U+{:04X}&gt;")  # XML has no way to write some of these
    return Picture(visible(title), visible(alt), drawn, tips)


def heading(title: str) -> str:
    """A title in lines that fit the picture's width."""
    return "\n".join(textwrap.wrap(visible(title), _TITLE_CHARACTERS)) or " "


def put_title(figure: Figure, title: str) -> None:
    """The title, flush left over all of the figure."""
    figure.suptitle(heading(title), x=6 / (figure.get_figwidth() * _POINTS), ha="left", **TITLE)


def wrapped(labels: Iterable[str], characters: int, lines: int = 2) -> list[str]:
    """Labels cut into at most so many lines of so many characters."""
    return [
        "\n".join(textwrap.wrap(visible(label), characters, max_lines=lines, placeholder="...")) for label in labels
    ]


def bare(axes: Axes) -> None:
    """No frame and no ticks, their labels excepted."""
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
