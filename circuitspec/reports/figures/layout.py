"""Where the parts of a circuit are drawn: layers upward, positions across, edges around what they do not touch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from circuitspec.analysis.statistics.wording import number

CHARACTER, PADDING = 5.1, 9.0  # points: a character of a label, what a box has beside it
BOX_HEIGHT = 17.0
_ROW, _ROW_OF_MANY, _ROW_ALONE = 56.0, 42.0, 26.0  # from row to row: up to so many, more, without edges between
_FEW_ROWS = 8
_DEEP, _STAGGERED = 5, (-0.9, 0.0, 0.9)  # a column of so many rows is staggered, by so many widths of a box
GAP, COLUMN_GAP = 11.0, 20.0
_FARTHEST = 2.6  # times that boxes are drawn apart to fill the width, at most
_CLEARANCE = 4.0  # between an edge and a box that it passes
_USED = 0.8  # of a box's width, by its edges
_GAP_USED = 16.0  # points into a gap, at most, by edges side by side
_SAMPLES = 40  # points of a curve that are looked at

Place = tuple[float, float]
Effect = Literal["positive", "negative", "backup", ""]


@dataclass(frozen=True)
class DrawnNode:
    """A component at one position. `row` orders it upward, `column` is the position's name ("" for none of them)."""

    key: str
    label: str
    row: int
    row_label: str
    column: str
    group: str = ""
    effect: Effect = ""
    size: float | None = None  # what it does by itself; None where that was not measured
    told: str = ""  # more about it, for those who point at it

    @property
    def text(self) -> str:
        """What is written in its box: its name and, where it was measured, what it does by itself."""
        return self.label if self.size is None else f"{self.label}  {number(self.size)}"


@dataclass(frozen=True)
class DrawnEdge:
    """From one node up to another. `effect` is None where it was not measured; `negative` if it lowers the metric."""

    sender: str
    receiver: str
    effect: float | None = None
    negative: bool = False


@dataclass(frozen=True)
class Box:
    """A node in its place: centre and width, in points from the lower left."""

    node: DrawnNode
    x: float
    y: float
    width: float

    def covers(self, place: Place) -> bool:
        """Whether a point lies on the box, or too close to it."""
        x, y = place
        return abs(x - self.x) < self.width / 2 + _CLEARANCE and abs(y - self.y) < BOX_HEIGHT / 2 + _CLEARANCE


@dataclass(frozen=True)
class Lane:
    """Where an edge leaves and arrives, in widths of its boxes from their middles, and how far into gaps it keeps."""

    leave: float = 0.0
    arrive: float = 0.0
    inside: float = 0.0


@dataclass(frozen=True)
class GraphLayout:
    """Boxes by the keys of their nodes, the middle of each named row and column, and the size of all."""

    boxes: dict[str, Box]
    rows: dict[str, float]
    columns: dict[str, float]
    width: float
    height: float

    def lanes(self, edges: Sequence[DrawnEdge]) -> list[Lane]:
        """For each edge, where it leaves and arrives so that those of one box lie side by side, and cross little."""
        leaving: dict[str, list[int]] = {}
        arriving: dict[str, list[int]] = {}
        for nth, edge in enumerate(edges):
            leaving.setdefault(edge.sender, []).append(nth)
            arriving.setdefault(edge.receiver, []).append(nth)
        shares: list[dict[str, float]] = [{} for _ in edges]
        for side, groups in (("leave", leaving), ("arrive", arriving)):
            for places in groups.values():
                other = [self.boxes[edges[n].receiver if side == "leave" else edges[n].sender] for n in places]
                ordered = sorted(range(len(places)), key=lambda i: (other[i].x, other[i].y))
                for rank, i in enumerate(ordered):
                    shares[places[i]][side] = (rank + 0.5) / len(places) - 0.5
        count = max(1, len(edges) - 1)
        return [Lane(share["leave"], share["arrive"], nth / count) for nth, share in enumerate(shares)]

    def route(self, edge: DrawnEdge, lane: Lane | None = None) -> list[Place]:
        """Points, to be joined by `curve`, from the top of the sender to the bottom of the receiver.

        Two points where a curve between them touches no other box; otherwise the edge runs, at every row that it
        passes, straight up through the nearest gap. Edges in `lanes` of their own lie side by side.
        """
        lane = lane or Lane()
        start, end = self.boxes[edge.sender], self.boxes[edge.receiver]
        half = BOX_HEIGHT / 2
        first = (start.x + lane.leave * _USED * start.width, start.y + half)
        last = (end.x + lane.arrive * _USED * end.width, end.y - half)
        passed = [box for box in self.boxes.values() if start.y < box.y < end.y]
        if not any(box.covers(place) for place in _along(first, last) for box in passed):
            return [first, last]
        points = [first]
        for y in sorted({box.y for box in passed}):
            wanted = start.x + (end.x - start.x) * (y - start.y) / (end.y - start.y)
            x = _free(wanted, [box for box in passed if box.y == y], lane.inside)
            points += [(x, y - half), (x, y + half)]
        return [*points, last]


def curve(start: Place, end: Place) -> tuple[Place, Place, Place, Place]:
    """The control points of a cubic curve that leaves and arrives straight up."""
    bend = (end[1] - start[1]) / 2
    return start, (start[0], start[1] + bend), (end[0], end[1] - bend), end


def _along(start: Place, end: Place) -> list[Place]:
    places = []
    for step in range(1, _SAMPLES):
        t = step / _SAMPLES
        weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
        x, y = (sum(w * p[i] for w, p in zip(weights, curve(start, end), strict=True)) for i in (0, 1))
        places.append((x, y))
    return places


def lay_out(
    nodes: Sequence[DrawnNode], columns: Sequence[str], *, joined: bool = True, room: float = 0.0
) -> GraphLayout:
    """A place for every node: rows by their order, columns side by side in the order given, none overlapping.

    All is drawn apart until it is as wide as the `room` that there is, if that is not too far (points). Nodes without
    a column stand in the middle of all. Rows lie closer where no edges are to be seen (not `joined`); single nodes one
    above the other are staggered where there are, so that edges pass between them.
    """
    ordered = sorted({node.row for node in nodes})
    step = _ROW_ALONE if not joined else _ROW if len(ordered) <= _FEW_ROWS else _ROW_OF_MANY
    heights = {row: PADDING + BOX_HEIGHT / 2 + step * place for place, row in enumerate(ordered)}
    cells: dict[tuple[str, int], list[DrawnNode]] = {}
    for node in nodes:
        cells.setdefault((node.column, node.row), []).append(node)
    width = max((len(node.text) for node in nodes), default=0) * CHARACTER + PADDING
    depths = Counter(column for column, _ in cells)
    deep = {column for column in columns if joined and depths[column] >= _DEEP}
    middles, left = {}, 0.0
    for column in columns:
        most = max((len(cell) for (name, _), cell in cells.items() if name == column), default=0)
        if most:
            wide = max(_span(most, width), len(column) * CHARACTER, 2.8 * width if column in deep else 0.0)
            middles[column] = left + wide / 2
            left += wide + COLUMN_GAP
    loose = max((len(cell) for (name, _), cell in cells.items() if name not in middles), default=0)
    total = max(left - COLUMN_GAP, _span(loose, width))
    shift = (total - max(left - COLUMN_GAP, 0)) / 2
    middles = {column: x + shift for column, x in middles.items()}
    boxes = {}
    for (column, row), cell in cells.items():
        first = middles.get(column, total / 2) - _span(len(cell), width) / 2 + width / 2
        if column in deep and len(cell) == 1:
            first += width * _STAGGERED[ordered.index(row) % len(_STAGGERED)]
        for place, node in enumerate(cell):
            boxes[node.key] = Box(node, first + place * (width + GAP), heights[row], width)
    labels = {node.row_label: heights[node.row] for node in nodes if node.row_label}
    apart = min(max(room / total, 1.0), _FARTHEST) if total else 1.0
    boxes = {key: replace(box, x=box.x * apart) for key, box in boxes.items()}
    middles = {column: x * apart for column, x in middles.items()}
    total *= apart
    return GraphLayout(boxes, labels, middles, total, step * (len(ordered) - 1) + BOX_HEIGHT + 2 * PADDING)


def _span(count: int, width: float) -> float:
    return count * width + max(0, count - 1) * GAP


def _free(wanted: float, boxes: Sequence[Box], inside: float = 0.0) -> float:
    """The place nearest to `wanted` that no box takes; if that is beside a box, by a share `inside` of the gap on."""
    taken = sorted((b.x - b.width / 2 - _CLEARANCE, b.x + b.width / 2 + _CLEARANCE) for b in boxes)
    if not any(low < wanted < high for low, high in taken):
        return wanted
    ends = [(end, way) for pair in taken for end, way in zip(pair, (-1, 1), strict=True)]
    open_ = [(x, way) for x, way in ends if not any(low < x < high for low, high in taken)]
    x, way = min(open_, key=lambda one: abs(one[0] - wanted))
    beyond = [way * (other - x) for pair in taken for other in pair if way * (other - x) > 0]
    return x + way * inside * min(_GAP_USED, *beyond) if beyond else x + way * inside * _GAP_USED
