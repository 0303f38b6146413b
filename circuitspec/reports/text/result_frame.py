"""A table of results that can be drawn: a pandas DataFrame, and stays one through selections and `pd.concat`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from circuitspec.runtime.files import write_text_whole

if TYPE_CHECKING:
    from circuitspec.reports.figures.picture import Picture

UNITS = {
    "head": "head",
    "kv": "head",
    "pattern": "head",
    "path": "head",
}  # kinds of which a layer has several, and the column that numbers them


class HeatMap:
    """A drawn heat map: a notebook shows it, `save` writes it as SVG. `values` are the numbers, by panel.

    Each panel is a DataFrame with layers as rows.
    """

    def __init__(self, picture: Picture, values: dict[str, pd.DataFrame]) -> None:
        self.picture, self.values = picture, values

    def save(self, path: str | Path) -> Path:
        """Write the picture as an SVG file, and return its path."""
        write_text_whole(Path(path), self.picture.standalone())
        return Path(path)

    def _repr_html_(self) -> str:
        return self.picture.standalone().partition("\n")[2]

    def __repr__(self) -> str:
        return f"<HeatMap {self.picture.title!r}: {self.picture.alt}>"


class ResultFrame(pd.DataFrame):
    """Results, a row per experiment or per experiment and prompt, with `heatmap`."""

    @property
    def _constructor(self) -> Callable[..., ResultFrame]:
        return ResultFrame

    def heatmap(self, metric: str = "", *, kind: str = "", title: str = "") -> HeatMap:
        """Draw one column of the rows that patch one component, layer by layer.

        Heads are drawn layer by head, one panel for each position; other kinds layer by position. There is a panel for
        every corruption and way of patching too, as far as there are several. `metric` names the column: the recovered
        share of logit_diff unless given, or of the first metric that was measured; of a frame per prompt the metric's
        mean over prompts. `kind` chooses among several kinds of components.

        Raises ValueError where there is no such column, nothing to draw, several kinds, or two rows for one cell.
        """
        drawn = self[self["kind"].ne("") & self["layer"].notna()] if {"kind", "layer"} <= {*self.columns} else self[:0]
        drawn = drawn[drawn["kind"].eq(kind)] if kind else drawn
        drawn = drawn[drawn["head"].notna()] if kind == "path" else drawn
        kinds = list(dict.fromkeys(drawn["kind"])) if len(drawn) else []
        if not kinds:
            raise ValueError("no row patches a single component" + (f" of kind {kind}" if kind else ""))
        if len(kinds) > 1:
            raise ValueError(f"rows patch components of several kinds: give kind, one of {', '.join(kinds)}")
        column = metric or _usual(drawn)
        if column not in drawn:
            named = ", ".join(str(one) for one in drawn.columns if str(one).startswith("recovered_"))
            raise ValueError(f"there is no column {column}; shares are {named or 'not in this frame'}")
        unit = UNITS.get(kinds[0])
        if unit is not None and drawn[unit].isna().any():
            raise ValueError(
                "some rows patch several heads of a layer: draw those with kind='attention' or by themselves"
            )
        return _drawn(drawn, column, kinds[0], unit, title)


def _usual(frame: pd.DataFrame) -> str:
    """The recovered share of logit_diff, or of the first metric that has one; of prompts, the metric itself."""
    shares = [str(name) for name in frame.columns if str(name).startswith("recovered_")]
    if "recovered_logit_diff" in shares or "logit_diff" in frame:
        return "recovered_logit_diff" if shares else "logit_diff"
    known = [name for name in shares if frame[name].notna().any()]
    return known[0] if known else "logit"


def _drawn(frame: pd.DataFrame, column: str, kind: str, unit: str | None, title: str) -> HeatMap:
    from circuitspec.reports.figures.heatmap import heatmaps

    ways = ("receiver", "corruption", "direction", "ablation", "family")
    apart = [name for name in ways if name in frame and frame[name].nunique() > 1]
    across = "position" if unit is None else unit
    if unit is not None and (frame["position"].nunique() > 1 or not apart):
        apart = ["position", *apart]
    positions = list(dict.fromkeys(frame["position"]))
    rows = list(range(int(frame["layer"].max()) + 1))
    columns: list[Any] = positions if unit is None else list(range(int(frame[unit].max()) + 1))
    panels: dict[str, pd.DataFrame] = {}
    for named, part in frame.groupby(apart, sort=False) if apart else [((), frame)]:
        cells = part.groupby(["layer", across], sort=False)
        if "prompt" not in part and (cells.size() > 1).any():
            raise ValueError("several rows patch one component at one place: draw the results of one sweep at a time")
        values = cells[column].mean().unstack(across).reindex(index=rows, columns=columns)
        panels[", ".join(map(str, named))] = pd.DataFrame(values.astype("float64"))
    told = title or f"{column} of every {kind}"
    picture = heatmaps(
        {name: values.to_numpy() for name, values in panels.items()},
        rows=[str(row) for row in rows],
        columns=[str(one) for one in columns],
        title=told,
        row_axis="layer",
        column_axis=across,
        quantity=column,
    )
    return HeatMap(picture, panels)
