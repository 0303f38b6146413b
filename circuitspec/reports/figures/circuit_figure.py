"""A circuit as a graph: layers upward, positions across, edges as wide as their effect."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from circuitspec.analysis.statistics.wording import number, plural
from circuitspec.reports.figures import palette
from circuitspec.reports.figures.canvas import FULL, TITLE, WIDTH, draw, heading
from circuitspec.reports.figures.layout import (
    BOX_HEIGHT,
    CHARACTER,
    Box,
    DrawnEdge,
    DrawnNode,
    Effect,
    GraphLayout,
    Place,
    curve,
    lay_out,
)
from circuitspec.reports.figures.picture import Picture
from circuitspec.runtime.visible_text import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["DrawnEdge", "DrawnNode", "circuit_graph"]

_MARGIN, _TITLE, _LEGEND_ROW = 6.0, 24.0, 13.0
_THIN, _THICK, _PLAIN = 0.7, 4.0, 1.1  # widths of edges: the least, the greatest, one that was not measured
_ENDS = ("input", "logits")  # which are no components
_SHORT = 24  # characters of a group's name in the legend
_OUTLINES: dict[Effect, tuple[str, Any, float]] = {
    "positive": (palette.OUTLINE, "-", 0.8),
    "negative": (palette.OUTLINE_AGAINST, (0, (3, 2)), 1.5),
    "backup": (palette.ON_TINT, (0, (1, 1.5)), 1.2),
    "": (palette.OUTLINE, "-", 0.8),
}


_KINDS: dict[Effect, str] = {"negative": "negative", "backup": "backup"}  # outlines that the legend explains


def circuit_graph(
    nodes: Sequence[DrawnNode], edges: Sequence[DrawnEdge], *, columns: Sequence[str], title: str
) -> Picture:
    """The nodes in their places, `columns` in order from left to right, and the edges between them.

    Negative edges differ in colour and are dashed; edges without a measured effect are equally thin. Pointing at a
    node or an edge names it. Raises ValueError without nodes, and for edges that do not lead upward from node to node.
    """
    if not nodes:
        raise ValueError("a circuit without nodes cannot be drawn")
    labels = [node.row_label for node in nodes]
    beside = max(map(len, labels)) * CHARACTER + 2 * _MARGIN
    layout = lay_out(nodes, columns, joined=bool(edges), room=FULL - beside - _MARGIN)
    for edge in edges:
        if edge.sender not in layout.boxes or edge.receiver not in layout.boxes:
            raise ValueError(f"{edge.sender} -> {edge.receiver}: one of them is no node")
        if layout.boxes[edge.sender].y >= layout.boxes[edge.receiver].y:
            raise ValueError(f"{edge.sender} -> {edge.receiver} does not lead upward")
    handles = _legend(nodes, edges)
    width = max(WIDTH, beside + layout.width + _MARGIN)
    per_row = max(1, math.floor(width / (_SHORT * CHARACTER + 28)))
    below = 20 + _LEGEND_ROW * math.ceil(len(handles) / per_row) + _MARGIN
    lines = heading(title).count("\n") + 1
    height = _TITLE + 13 * (lines - 1) + layout.height + below
    left = beside + max(0.0, width - beside - layout.width - _MARGIN) / 2
    tips: dict[str, str] = {}  # filled while drawing

    def on(figure: Figure) -> None:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(-left, width - left), ylim=(-below, height - below))
        axes.set_axis_off()
        axes.text(_MARGIN - left, height - below - _MARGIN, heading(title), va="top", **TITLE)
        _grid(axes, layout)
        lanes = layout.lanes(edges)
        for nth, edge in enumerate(edges):
            _edge(axes, layout.route(edge, lanes[nth]), edge, _largest(edges), f"edge{nth}")
            tips[f"edge{nth}"] = _told(layout, edge)
        for nth, box in enumerate(layout.boxes.values()):
            _box(axes, box, _shade(nodes, box.node), f"node{nth}")
            tips[f"node{nth}"] = _named(box.node)
        if handles:
            figure.legend(
                handles=handles,
                loc="lower left",
                ncols=per_row,
                borderaxespad=0.4,
                handlelength=1.8,
                labelspacing=0.4,
                columnspacing=1.2,
            )

    alt = _alt(nodes, edges, layout)
    return draw(height, on, title=title, alt=alt, width=width, fitted=False, tooltips=tips)


def _grid(axes: Axes, layout: GraphLayout) -> None:
    for label, y in layout.rows.items():
        axes.text(-_MARGIN, y, label, ha="right", va="center_baseline", fontsize=8, color=palette.MUTED)
        axes.plot([0, layout.width], [y, y], color=palette.FAINT, lw=0.6, zorder=0)
    for label, x in layout.columns.items():
        axes.text(x, -2, visible(label), ha="center", va="top", fontsize=8, color=palette.MUTED)


def _edge(axes: Axes, points: Sequence[Place], edge: DrawnEdge, largest: float, gid: str) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    vertices, codes = [points[0]], [Path.MOVETO]
    for start, end in pairwise(points):
        vertices += curve(start, end)[1:]
        codes += [Path.CURVE4] * 3
    width = _PLAIN if edge.effect is None else _THIN + (_THICK - _THIN) * abs(edge.effect) / largest
    axes.add_patch(
        PathPatch(
            Path(vertices, codes),
            fill=False,
            edgecolor=palette.VERMILION if edge.negative else palette.BLUE,
            linestyle=(0, (max(2.2, 4 / width), 2)) if edge.negative else "-",
            linewidth=width,
            alpha=0.7,
            capstyle="butt",
            zorder=1,
            gid=gid,
        )
    )


def _box(axes: Axes, box: Box, tint: str, gid: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    colour, dashes, width = _OUTLINES[box.node.effect]
    axes.add_patch(
        FancyBboxPatch(
            (box.x - box.width / 2, box.y - BOX_HEIGHT / 2),
            box.width,
            BOX_HEIGHT,
            boxstyle="round,pad=0,rounding_size=4",
            facecolor=tint,
            edgecolor=colour,
            linestyle=dashes,
            linewidth=width,
            zorder=3,
            gid=gid,
        )
    )
    axes.text(
        box.x,
        box.y,
        visible(box.node.text),
        ha="center",
        va="center_baseline",
        fontsize=8,
        color=palette.ON_TINT,
        zorder=4,
    )


def _legend(nodes: Sequence[DrawnNode], edges: Sequence[DrawnEdge]) -> list[Any]:
    """What fills and outlines mean, and edges where there are two kinds of them."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = []
    for group in _groups(nodes)[: len(palette.TINTS)]:
        handles.append(Patch(facecolor=_tint(nodes, group), edgecolor=palette.OUTLINE, lw=0.8, label=_short(group)))
    if len(_groups(nodes)) > len(palette.TINTS):
        handles.append(Patch(facecolor=palette.PLAIN_TINT, edgecolor=palette.OUTLINE, lw=0.8, label="further groups"))
    for effect, label in _KINDS.items():
        if any(node.effect == effect for node in nodes):
            colour, dashes, width = _OUTLINES[effect]
            handles.append(Patch(facecolor="none", edgecolor=colour, ls=dashes, lw=width, label=label))
    if any(edge.negative for edge in edges):
        handles.append(Line2D([], [], color=palette.VERMILION, ls=(0, (2.2, 1.5)), lw=1.6, label="negative"))
    return handles


def _short(group: str) -> str:
    name = visible(group)
    return name if len(name) <= _SHORT else name[: _SHORT - 3] + "..."


def _groups(nodes: Sequence[DrawnNode]) -> list[str]:
    """The groups, the one with the strongest node first where nodes were measured: it is sure of a colour."""
    strongest = sorted(nodes, key=lambda node: -abs(node.size or 0.0))
    return list(dict.fromkeys(node.group for node in strongest if node.group))


def _shade(nodes: Sequence[DrawnNode], node: DrawnNode) -> str:
    """Its group's colour, the deeper the more it does by itself; as light as all where that was not measured."""
    tint = _tint(nodes, node.group)
    if node.size is None or not node.group:
        return tint
    largest = max(abs(one.size) for one in nodes if one.size is not None) or 1.0
    return palette.shaded(tint, abs(node.size) / largest)


def _tint(nodes: Sequence[DrawnNode], group: str) -> str:
    place = _groups(nodes).index(group) if group else len(palette.TINTS)
    return palette.TINTS[place] if place < len(palette.TINTS) else palette.PLAIN_TINT


def _largest(edges: Sequence[DrawnEdge]) -> float:
    return max((abs(edge.effect) for edge in edges if edge.effect is not None), default=0.0) or 1.0


def _named(node: DrawnNode) -> str:
    at = f" at {node.column}" if node.column else ""
    kind = f", {node.effect}" if node.effect in ("negative", "backup") else ""
    return (
        f"{node.label}{at}" + (f" ({node.group}{kind})" if node.group else "") + (f": {node.told}" if node.told else "")
    )


def _told(layout: GraphLayout, edge: DrawnEdge) -> str:
    ends = (layout.boxes[edge.sender].node, layout.boxes[edge.receiver].node)
    effect = "" if edge.effect is None else f": effect {number(edge.effect)}"
    return " -> ".join(_placed(node, layout) for node in ends) + effect


def _placed(node: DrawnNode, layout: GraphLayout) -> str:
    """`a2.h2@END`; the position goes without saying where there is but one."""
    return f"{node.label}@{node.column}" if node.column and len(layout.columns) > 1 else node.label


def _alt(nodes: Sequence[DrawnNode], edges: Sequence[DrawnEdge], layout: GraphLayout) -> str:
    groups = []
    for group in _groups(nodes):
        members = dict.fromkeys(_placed(node, layout) for node in nodes if node.group == group)
        groups.append(f"{group} ({', '.join(members)})")
    components = {node.label for node in nodes}.difference(_ENDS)
    said = f"Graph of {plural(len(components), 'component')}, layers upward, "
    said += f"{plural(len(layout.columns), 'position')} across, and {plural(len(edges), 'edge')}."
    said += f" Groups: {'; '.join(groups)}." if groups else ""
    sized = [node for node in nodes if node.size is not None]
    if sized:
        most = max(sized, key=lambda node: abs(node.size or 0.0))
        said += f" {_placed(most, layout)} does most by itself, {number(most.size)}."
    against = sum(edge.negative for edge in edges)
    said += f" {plural(against, 'edge')} of these {'is' if against == 1 else 'are'} negative." if against else ""
    measured = [edge for edge in edges if edge.effect is not None]
    if measured:
        strongest = max(measured, key=lambda edge: abs(edge.effect or 0.0))
        said += f" The strongest is {_told(layout, strongest)}."
    return said
