"""A number for every layer and position (or head) as a colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circuitspec.analysis.statistics.wording import number
from circuitspec.reports.figures import palette
from circuitspec.reports.figures.canvas import WIDTH, draw, heading, put_title, wrapped
from circuitspec.reports.figures.picture import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

_WRITTEN = 144  # cells, at most, that have their numbers written in them
_DRAWN = 1500  # cells, at most, that are drawn one by one; more are an embedded image
_LABELS = 24  # rows or columns, at most, that are all named
_ACROSS = 44  # characters that fit below all columns
_COLOURS = "RdBu"  # red to blue over white: told apart in all common kinds of colour blindness
_CELLS_ACROSS = 13  # cells that have room for their numbers side by side, in a picture of the usual width
_ROUNDED = 0.005  # what is less is 0.00, which is not written: the colour says it
_DARK = 0.179  # the relative luminance below which light writing is read more easily than dark


def heatmap(
    values: ArrayLike,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    row_axis: str,
    column_axis: str,
    quantity: str,
    width: float = WIDTH,
) -> Picture:
    """`values` [row, column] as colours around zero, the first row at the bottom (layers go upward).

    Blue is positive. What was not measured (NaN) is hatched. `quantity` names the number and its unit. A small map has
    its numbers written in, but for those that round to 0. Raises ValueError where the labels do not fit the values.
    """
    told = {"title": title, "row_axis": row_axis, "column_axis": column_axis, "quantity": quantity}
    return heatmaps({"": values}, rows=rows, columns=columns, width=width, **told)


def heatmaps(
    panels: Mapping[str, ArrayLike],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    row_axis: str,
    column_axis: str,
    quantity: str,
    width: float = WIDTH,
) -> Picture:
    """Several heatmaps of the same rows and columns, by their titles, one below the other and in the same colours."""
    found = {name: _finite(values, rows, columns) for name, values in panels.items()}
    whole = np.stack(list(found.values()))
    limit = (float(np.nanmax(np.abs(whole))) if np.isfinite(whole).any() else 0.0) or 1.0

    def on(figure: Figure) -> None:
        put_title(figure, title)
        every = figure.subplots(len(found), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (name, values) in zip(every, found.items(), strict=True):
            shown = _panel(axes, values, limit)
            _name(axes, rows, columns, width / WIDTH)
            axes.set_ylabel(row_axis)
            axes.spines[:].set_visible(False)
            axes.tick_params(length=0)
            if name:
                axes.set_title(heading(name), color=palette.MUTED)
            if values.size <= _WRITTEN * width / WIDTH and len(columns) <= _CELLS_ACROSS * width / WIDTH:
                _write(axes, values, shown)
        every[-1].set_xlabel(column_axis)
        bar = figure.colorbar(shown, ax=list(every), location="bottom", pad=0.02, aspect=45)
        bar.outline.set_visible(False)
        bar.set_label(quantity)

    height = 112 + len(found) * min(max(18.0 * len(rows), 60), 330) + 22 * (len(found) - 1)
    height += 14 * sum(heading(name).count("\n") + 1 for name in found if name)
    said = [_alt(values, rows, columns, row_axis, column_axis, name or quantity) for name, values in found.items()]
    alt = " ".join(said) if len(said) == 1 else f"{quantity}. {' '.join(one.rstrip('.') + '.' for one in said)}"
    return draw(height, on, title=title, alt=alt, width=width)


def _finite(values: ArrayLike, rows: Sequence[str], columns: Sequence[str]) -> NDArray[np.float64]:
    grid = np.asarray(values, dtype=np.float64)
    if grid.ndim != 2 or grid.shape != (len(rows), len(columns)) or not grid.size:
        raise ValueError(f"values {grid.shape} for {len(rows)} rows and {len(columns)} columns")
    return np.where(np.isfinite(grid), grid, np.nan)


def _panel(axes: Axes, found: NDArray[np.float64], limit: float) -> ScalarMappable:
    from matplotlib.colors import Normalize

    masked = np.ma.masked_invalid(found)
    axes.patch.set(facecolor="#f3f4f6", hatch="////", edgecolor="#8c959f", linewidth=0, alpha=1.0)
    axes.patch.set_visible(bool(masked.mask.any()))
    scale = Normalize(-limit, limit)
    if found.size <= _DRAWN:
        return axes.pcolormesh(masked, cmap=_COLOURS, norm=scale, edgecolors=palette.FAINT, linewidth=0.4)
    return axes.imshow(
        masked,
        cmap=_COLOURS,
        norm=scale,
        origin="lower",
        extent=(0, found.shape[1], 0, found.shape[0]),
        aspect="auto",
        interpolation="none",
    )


def _name(axes: Axes, rows: Sequence[str], columns: Sequence[str], wide: float) -> None:
    """All rows and columns by name, or as many as fit in a picture of so many times the usual width."""
    for labels, ticks, most in ((rows, axes.set_yticks, _LABELS), (columns, axes.set_xticks, int(_LABELS * wide))):
        step = -(-len(labels) // most)
        chosen = range(0, len(labels), step)
        ticks([place + 0.5 for place in chosen], wrapped([labels[place] for place in chosen], int(10 * wide), 1))
    texts = [len(label.get_text()) for label in axes.get_xticklabels()]
    if (sum(texts) if wide == 1 else len(texts) * max(texts)) > _ACROSS * wide:
        axes.tick_params(axis="x", labelrotation=90)


def _write(axes: Axes, found: NDArray[np.float64], shown: ScalarMappable) -> None:
    for (row, column), value in np.ndenumerate(found):
        if np.isfinite(value) and abs(value) >= _ROUNDED:
            dark = _luminance(np.asarray(shown.to_rgba(np.asarray(value)))) < _DARK
            axes.text(
                column + 0.5,
                row + 0.5,
                number(float(value)),
                ha="center",
                va="center_baseline",
                fontsize=8,
                color=palette.ON_DARK if dark else palette.ON_LIGHT,
            )


def _luminance(colour: NDArray[np.float64]) -> float:
    """The relative luminance of sRGB, as in WCAG."""
    channels = colour[:3]
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ np.array([0.2126, 0.7152, 0.0722]))


def _alt(
    found: NDArray[np.float64],
    rows: Sequence[str],
    columns: Sequence[str],
    row_axis: str,
    column_axis: str,
    quantity: str,
) -> str:
    known = np.isfinite(found)
    said = f"Heatmap of {quantity}, {len(rows)} rows ({row_axis}) by {len(columns)} columns ({column_axis}): "
    if not known.any():
        return said + "nothing was measured."

    def at(flat: int) -> str:
        row, column = divmod(flat, found.shape[1])
        return f"{number(float(found[row, column]))} at {row_axis} {rows[row]}, {column_axis} {columns[column]}"

    said += f"largest {at(int(np.nanargmax(found)))}; smallest {at(int(np.nanargmin(found)))}"
    missing = int((~known).sum())
    return said + (f"; {missing} of {found.size} cells were not measured." if missing else ".")
