"""Pictures against arithmetic: where points lie, how wide edges are, which colours cells have."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.reports.figures import (
    Curve,
    DrawnEdge,
    DrawnNode,
    IntervalPoint,
    IntervalSeries,
    Picture,
    Sized,
    circuit_graph,
    frontier,
    heatmap,
    intervals,
    palette,
)
from circuitspec.reports.figures.layout import BOX_HEIGHT, curve, lay_out

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "x</title><script>alert(1)</script> $y$ \\frac{1}{2} \x00\x1b[31m \u202eevil\u2066 ' \" & 名前"


def estimate(value: float, half: float = 0.05) -> Estimate:
    return Estimate(value, value - half, value + half, 0.95, 100, "bca")


def grid(values: list[list[float]], **names: str) -> Picture:
    rows, columns = [str(i) for i in range(len(values))], [f"c{i}" for i in range(len(values[0]))]
    told = {"title": "Heads", "row_axis": "layer", "column_axis": "head", "quantity": "effect (logits)", **names}
    return heatmap(values, rows=rows, columns=columns, **told)


def curves() -> list[Curve]:
    whole = Curve("with negative components", tuple(Sized(n, estimate(n / 10)) for n in (2, 4, 8)), chosen=4)
    return [whole, Curve("without", (Sized(3, estimate(0.9)),))]


def nodes() -> list[DrawnNode]:
    return [
        DrawnNode("a0.h1@S1", "a0.h1", 1, "layer 0", "S1", "early", "positive"),
        DrawnNode("a0.h2@S1", "a0.h2", 1, "layer 0", "S1", "early", "positive"),
        DrawnNode("a1.h0@END", "a1.h0", 5, "layer 1", "END", "late", "positive"),
        DrawnNode("a1.h3@END", "a1.h3", 5, "layer 1", "END", "against", "negative"),
        DrawnNode("logits", "logits", 99, "", "END"),
    ]


EDGES = [
    DrawnEdge("a0.h1@S1", "a1.h0@END", 0.8),
    DrawnEdge("a0.h2@S1", "a1.h0@END", 0.2),
    DrawnEdge("a1.h0@END", "logits", 0.4),
    DrawnEdge("a1.h3@END", "logits", -0.4, negative=True),
    DrawnEdge("a0.h1@S1", "logits"),
]


def graph() -> Picture:
    return circuit_graph(nodes(), EDGES, columns=["S1", "END"], title="Circuit")


def one_series(*points: IntervalPoint) -> Picture:
    return intervals([IntervalSeries("claims", points)], title="Claims", quantity="recovered (share)")


def every_picture(name: str = "n") -> list[Callable[[], Picture]]:
    """What draws them: nothing is drawn before a test asks for it."""
    one = IntervalSeries(name, (IntervalPoint(name, estimate(1), 0.5),))
    told = {"title": name, "row_axis": name, "column_axis": name, "quantity": name}
    node = DrawnNode(name, name, 1, name, name, name, "negative")
    return [
        partial(heatmap, [[1.0]], rows=[name], columns=[name], **told),
        partial(frontier, [Curve(name, (Sized(1, estimate(1)),), 1)], metric=name, title=name, target=0.9),
        partial(intervals, [one, IntervalSeries(f"{name}2", ())], title=name, quantity=name),
        partial(circuit_graph, [node], [], columns=[name], title=name),
    ]


def tree(picture: Picture) -> ET.Element:
    return ET.fromstring(picture.standalone().encode())


def texts(picture: Picture) -> list[str]:
    return [" ".join("".join(t.itertext()).split()) for t in tree(picture).iter(f"{SVG}text")]


def style(element: ET.Element) -> dict[str, str]:
    pairs = (pair.split(":") for pair in element.get("style", "").split(";") if ":" in pair)
    return {key.strip(): value.strip() for key, value in pairs}


def corners(element: ET.Element) -> tuple[list[float], list[float]]:
    """The x and y of every number pair of a path."""
    numbers = [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", element.get("d", ""))]
    return numbers[::2], numbers[1::2]


def shapes(picture: Picture, **wanted: str) -> list[ET.Element]:
    """Drawn paths with this style."""
    found = (p for p in tree(picture).iter(f"{SVG}path") if p.get("d"))
    return [p for p in found if all(style(p).get(k.replace("_", "-")) == v for k, v in wanted.items())]


def markers(picture: Picture, colour: str) -> list[tuple[float, float]]:
    """Places of the markers of a series, without those of ticks and legend."""
    uses = [u for u in tree(picture).iter(f"{SVG}use") if style(u).get("fill") == colour]
    return [(float(u.get("x", "")), float(u.get("y", ""))) for u in uses]


@pytest.mark.parametrize(
    "draw",
    [
        *every_picture(),
        partial(grid, [[1.0, math.nan]]),
        partial(frontier, curves(), metric="m", title="t"),
        graph,
    ],
)
def test_a_picture_is_svg_alone(draw: Callable[[], Picture]) -> None:
    picture = draw()
    root = tree(picture)
    assert root.get("role") == "img"
    by_id = {e.get("id"): e for e in root.iter() if e.get("id")}
    said = [by_id[key].text for key in root.get("aria-labelledby", "").split()]
    assert said == [picture.title, picture.alt]
    tags = {e.tag.removeprefix(SVG) for e in root.iter()}
    allowed = {
        "svg",
        "title",
        "desc",
        "rect",
        "g",
        "path",
        "defs",
        "use",
        "text",
        "clipPath",
        "pattern",
        "tspan",
        "image",
    }
    assert tags <= allowed, tags
    assert picture.title in texts(picture)
    for reference in re.findall(r'(?:href="#|url\(#)([^")]+)', picture.standalone()):
        assert reference in by_id
    assert not re.search(r"\bon\w+=", picture.standalone())
    assert "://" not in picture.standalone().replace('xmlns="http://www.w3.org/2000/svg"', "")


def test_pictures_in_one_page_do_not_share_ids() -> None:
    page = "<html>" + grid([[1.0, math.nan]]).inline("a") + grid([[1.0, math.nan]]).inline("b") + "</html>"
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids)) > 4
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', page)) <= set(ids)


def test_a_page_can_set_the_colours() -> None:
    inline = graph().inline("g")
    assert f"var(--blue, {palette.BLUE})" in inline
    assert f"var(--ink, {palette.INK})" in inline
    assert 'fill="#ffffff"' not in inline  # the background is the page's own
    assert "var(" not in graph().standalone()


@pytest.mark.parametrize("draw", every_picture(HOSTILE))
def test_names_are_text_and_nothing_else(draw: Callable[[], Picture]) -> None:
    picture = draw()
    root = ET.fromstring(picture.inline("p").encode())
    assert not [e for e in root.iter() if "script" in e.tag]
    said = " ".join("".join(root.itertext()).split())
    assert "<script>" in said.replace(" ", "")
    assert "<U+202E>" in said.replace(" ", "")
    assert not set(picture.inline("p")) & set("\x00\x1b\u202e\u2066")
    assert "$y$" in said


def test_the_same_numbers_give_the_same_text_whatever_the_users_settings() -> None:
    """In a fresh process: nothing is imported before it is needed, pyplot never, and no setting is left changed."""
    code = """
import sys
import circuitspec.cli
import circuitspec.reports.report_formats
import circuitspec.reports.figures as p
from circuitspec.analysis.statistics.estimate import Estimate
assert not {"matplotlib", "jinja2"} & sys.modules.keys()
e = Estimate(0.5, 0.4, 0.6, 0.95, 100, "bca")
def draw():
    made = [
        p.heatmap([[1, -1], [float("nan"), 0]], rows="ab", columns="cd", title="t", row_axis="r", column_axis="c",
                  quantity="q"),
        p.frontier([p.Curve("c", (p.Sized(1, e), p.Sized(2, e)), 2)], metric="m", title="t"),
        p.intervals([p.IntervalSeries("s", (p.IntervalPoint("a", e, 0.1),))], title="t", quantity="q"),
        p.circuit_graph([p.DrawnNode("a", "a", 1, "", "")], [], columns=[], title="t"),
    ]
    return [picture.standalone() for picture in made]
first = draw()
import matplotlib
matplotlib.rcParams.update({"font.size": 30, "svg.fonttype": "path", "axes.grid": True, "lines.linewidth": 9})
before = list(dict.items(matplotlib.rcParams))  # without asking for the backend, which would import pyplot
assert draw() == first
assert list(dict.items(matplotlib.rcParams)) == before
assert "matplotlib.pyplot" not in sys.modules
print("".join(first))
"""
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True) for _ in range(2)]
    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr
    assert runs[0].stdout == runs[1].stdout
    assert not re.search(r"20\d\d-\d\d", runs[0].stdout)  # no date


def test_heatmap_cells_have_the_colours_of_their_numbers() -> None:
    picture = grid([[2.0, -2.0, 0.0], [1.0, -1.0, math.nan]])
    cells = [
        (style(p)["fill"], *corners(p)) for p in shapes(picture, stroke=palette.FAINT) if style(p)["fill"] != "none"
    ]
    assert len(cells) == 5  # the missing one is the hatched ground
    fills = {(min(x), min(y)): colour for colour, x, y in cells}
    lefts, tops = (sorted({key[i] for key in fills}) for i in (0, 1))
    first = [fills[x, tops[-1]] for x in lefts]  # the first row lies at the bottom
    second = [fills[x, tops[0]] for x in lefts[:2]]
    red, blue = (lambda c: int(c[1:3], 16)), (lambda c: int(c[5:7], 16))
    assert blue(first[0]) > red(first[0]) + 60
    assert red(first[1]) > blue(first[1]) + 60
    assert all(int(first[2][i : i + 2], 16) >= 0xF5 for i in (1, 3, 5))  # zero is all but white
    assert blue(second[0]) - red(second[0]) > 60 > 0 > blue(second[1]) - red(second[1])
    assert sum(int(second[0][i : i + 2], 16) for i in (1, 3, 5)) > sum(int(first[0][i : i + 2], 16) for i in (1, 3, 5))


def test_heatmap_is_hatched_only_where_numbers_are_missing() -> None:
    assert "<pattern" in grid([[1.0, math.nan]]).standalone()
    assert "<pattern" not in grid([[1.0, 2.0]]).standalone()
    assert grid([[math.nan]]).alt.endswith("nothing was measured.")


def test_heatmap_says_its_numbers() -> None:
    picture = grid([[2.0, -3.5], [math.inf, 0.25]])
    said = texts(picture)
    assert {"2.00", "-3.50", "0.25", "layer", "head", "effect (logits)", "Heads"} <= set(said)
    assert "largest 2.00 at layer 0, head c0; smallest -3.50 at layer 0, head c1" in picture.alt
    assert "1 of 4 cells were not measured" in picture.alt


def test_large_heatmaps_stay_small() -> None:
    values = np.random.default_rng(0).normal(size=(48, 60))
    picture = grid(values.tolist())
    assert len(picture.standalone()) < 60_000
    assert 'href="data:image/png;base64,' in picture.standalone()
    assert len(texts(picture)) < 100


@pytest.mark.parametrize("values", [[], [[]], [1.0], [[1.0, 2.0]]])
def test_heatmap_labels_must_fit(values: list[object]) -> None:
    with pytest.raises(ValueError, match="rows"):
        heatmap(values, rows=["a"], columns=["b"], title="", row_axis="", column_axis="", quantity="")


def test_numbers_on_heatmaps_can_be_read() -> None:
    values = np.linspace(-1, 1, 64).reshape(8, 8)
    root = tree(grid(values.tolist()))
    cells = {}
    for path in (p for p in root.iter(f"{SVG}path") if style(p).get("stroke") == palette.FAINT):
        xs, ys = corners(path)
        cells[(min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2] = style(path)["fill"]
    for text in (t for t in root.iter(f"{SVG}text") if re.fullmatch(r"-?\d\.\d\d", t.text or "")):
        x, y = float(text.get("x", 0)), float(text.get("y", 0))
        nearest = min(cells, key=lambda place: math.dist(place, (x, y)))
        if math.dist(nearest, (x, y)) < 8:
            assert contrast(style(text).get("fill", "#000000"), cells[nearest]) >= 4.5


def test_frontier_points_lie_where_their_numbers_say() -> None:
    picture = frontier(curves(), metric="logit_diff", title="Frontier", target=0.9)
    places = markers(picture, palette.BLUE)
    assert len(places) == 3
    (x0, y0), (x1, y1), (x2, y2) = places
    assert (x2 - x0) / (x1 - x0) == pytest.approx((8 - 2) / (4 - 2), rel=1e-3)
    assert (y2 - y0) / (y1 - y0) == pytest.approx((0.8 - 0.2) / (0.4 - 0.2), rel=1e-3)
    assert x1 > x0
    assert y1 < y0  # SVG counts downward
    (ring,) = [m for m in uses(picture) if style(m).get("fill-opacity") == "0"]
    assert (float(ring.get("x", 0)), float(ring.get("y", 0))) == pytest.approx((x1, y1))
    unit = (y0 - y2) / 0.6
    (band,) = [p for p in shapes(picture, fill=palette.BLUE) if style(p).get("opacity")]
    ys = corners(band)[1]
    assert max(ys) == pytest.approx(y0 + 0.05 * unit, abs=0.05)
    assert min(ys) == pytest.approx(y2 - 0.05 * unit, abs=0.05)
    target = y0 - 0.7 * unit
    assert any(
        corners(p)[1] == pytest.approx([target, target], abs=0.05) for p in shapes(picture, stroke=palette.MUTED)
    )


def uses(picture: Picture) -> Iterator[ET.Element]:
    yield from tree(picture).iter(f"{SVG}use")


def test_frontier_says_what_it_shows() -> None:
    picture = frontier(curves(), metric="logit_diff", title="Frontier", target=0.9)
    shown = {"with negative components", "without", "circuit size (components)", "target", "0.9", "Frontier"}
    assert {*shown, "chosen: 4, 0.40"} <= set(texts(picture))
    assert "chosen: 4 components, which recover 0.40" in picture.alt
    assert "The target is 0.9." in picture.alt


@pytest.mark.parametrize(
    "wrong",
    [[], [Curve("c", ())], curves() * 2, [Curve("c", (Sized(1, estimate(1)),), chosen=2)]],
)
def test_frontier_refuses_what_it_cannot_show(wrong: list[Curve]) -> None:
    with pytest.raises(ValueError, match="curve"):
        frontier(wrong, metric="m", title="t")


def test_intervals_lie_where_their_numbers_say() -> None:
    points = [
        IntervalPoint("a", estimate(0.9), 0.8, 1.2),
        IntervalPoint("b", estimate(0.4, 0.08), None, 0.3),
        IntervalPoint("c", None, 0.5),
    ]
    picture = one_series(*points)
    (xa, _), (xb, _) = markers(picture, palette.BLUE)
    unit = (xa - xb) / 0.5
    lines = [corners(p) for p in shapes(picture, stroke=palette.BLUE) if p.get("d", "").count("L") == 1]
    ends = sorted((min(x), max(x)) for x, _ in lines)
    assert ends[1] == pytest.approx((xa - 0.05 * unit, xa + 0.05 * unit), abs=0.05)
    assert ends[0] == pytest.approx((xb - 0.08 * unit, xb + 0.08 * unit), abs=0.05)
    bands = sorted((min(y), min(x), max(x)) for x, y in map(corners, shapes(picture, fill=palette.BAND)))
    assert bands[0][1:] == pytest.approx((xa - 0.1 * unit, xa + 0.3 * unit), abs=0.05)
    assert bands[1][2] == pytest.approx(xb - 0.1 * unit, abs=0.05)  # at most 0.3
    assert bands[2][1] == pytest.approx(xb + 0.1 * unit, abs=0.05)  # at least 0.5
    assert {"0.90 [0.85, 0.95]", "0.40 [0.32, 0.48]", "no figure", "recovered (share)"} <= set(texts(picture))
    assert "a: 0.90 (bound 0.8 .. 1.2); b: 0.40 (bound at most 0.3); c: no figure (bound at least 0.5)" in picture.alt


def test_far_values_do_not_squeeze_the_others() -> None:
    near = one_series(IntervalPoint("a", estimate(1.0)), IntervalPoint("b", estimate(0.0)))
    far = one_series(
        IntervalPoint("a", estimate(1.0)), IntervalPoint("b", estimate(0.0)), IntervalPoint("c", estimate(-700.0))
    )
    widths = []
    for picture in (near, far):
        a, b, *_ = markers(picture, palette.BLUE)
        widths.append(a[0] - b[0])
    assert widths[1] > 0.7 * widths[0]
    assert "-700.00 [-700.05, -699.95]" in texts(far)


def test_series_differ_in_more_than_colour() -> None:
    series = [IntervalSeries(str(i), (IntervalPoint("a", estimate(i / 4)),)) for i in range(4)]
    picture = intervals(series, title="t", quantity="q")
    shapes_of = [{u.get("href") for u in uses(picture) if style(u).get("fill") == c} for c in palette.SERIES]
    assert all(len(one) == 1 for one in shapes_of)
    assert len(set.union(*shapes_of)) == 4
    for wrong in ([], [IntervalSeries("a", ())], [*series, *series]):
        with pytest.raises(ValueError, match="series"):
            intervals(wrong, title="t", quantity="q")


def test_edges_are_as_wide_as_their_effects() -> None:
    picture = graph()
    found = {}
    for group in tree(picture).iter():
        if (group.get("id") or "").startswith("picture-edge"):
            (path,) = group.iter(f"{SVG}path")
            found[group.findtext(f"{SVG}title")] = style(path)
    widths = {name: float(s["stroke-width"]) for name, s in found.items()}
    strong, weak = widths["a0.h1@S1 -> a1.h0@END: effect 0.80"], widths["a0.h2@S1 -> a1.h0@END: effect 0.20"]
    middle, against = widths["a1.h0@END -> logits@END: effect 0.40"], widths["a1.h3@END -> logits@END: effect -0.40"]
    assert (strong - middle) / (middle - weak) == pytest.approx((0.8 - 0.4) / (0.4 - 0.2), rel=0.01)
    assert against == pytest.approx(middle)
    dashed = [name for name, s in found.items() if "stroke-dasharray" in s]
    assert dashed == ["a1.h3@END -> logits@END: effect -0.40"]
    assert found[dashed[0]]["stroke"] == palette.VERMILION
    assert {s["stroke"] for name, s in found.items() if name not in dashed} == {palette.BLUE}
    assert widths["a0.h1@S1 -> logits@END"] == pytest.approx(1.1)


def test_a_circuit_says_what_it_shows() -> None:
    picture = graph()
    assert {"layer 0", "layer 1", "S1", "END", "a1.h3", "against", "negative", "logits"} <= set(texts(picture))
    assert picture.alt.startswith("Graph of 4 components, layers upward, 2 positions across, and 5 edges.")
    assert "early (a0.h1@S1, a0.h2@S1); late (a1.h0@END); against (a1.h3@END)" in picture.alt
    assert "1 edge of these is negative." in picture.alt
    assert "The strongest is a0.h1@S1 -> a1.h0@END: effect 0.80." in picture.alt


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="without nodes"):
        circuit_graph([], [], columns=[], title="t")
    with pytest.raises(ValueError, match="is no node"):
        circuit_graph(nodes(), [DrawnEdge("a0.h1@S1", "a9.h9")], columns=["S1", "END"], title="t")
    with pytest.raises(ValueError, match="upward"):
        circuit_graph(nodes(), [DrawnEdge("a1.h0@END", "a1.h3@END")], columns=["S1", "END"], title="t")


PLACED = st.lists(
    st.tuples(st.integers(0, 7), st.sampled_from(["", "S1", "a long position", "END"]), st.integers(1, 8)),
    min_size=2,
    max_size=40,
)


@given(PLACED, st.booleans())
@settings(max_examples=60, deadline=None)
def test_boxes_never_overlap_and_edges_pass_between_them(placed: list[tuple[int, str, int]], joined: bool) -> None:
    found = [DrawnNode(str(i), "h" * size, row, "", column) for i, (row, column, size) in enumerate(placed)]
    # nodes without a column stand in the middle: only where they are alone in their row is there room for them
    crowded = {node.row for node in found if node.column}
    found = [node for node in found if node.column or node.row not in crowded]
    layout = lay_out(found, ["S1", "a long position", "END"], joined=joined)
    boxes = list(layout.boxes.values())
    for i, a in enumerate(boxes):
        assert a.width / 2 <= a.x + 1e-6
        assert a.x + a.width / 2 <= layout.width + 1e-6
        for b in boxes[i + 1 :]:
            assert abs(a.y - b.y) >= BOX_HEIGHT or abs(a.x - b.x) >= (a.width + b.width) / 2
    if joined:
        pairs = [(a, b) for a in boxes[:6] for b in boxes if a.y < b.y]
        edges = [DrawnEdge(a.node.key, b.node.key) for a, b in pairs]
        for (a, b), edge, lane in zip(pairs, edges, layout.lanes(edges), strict=True):
            others = [box for box in boxes if a.y < box.y < b.y]
            for route in (layout.route(edge), layout.route(edge, lane)):
                assert all(y0 < y1 for (_, y0), (_, y1) in pairwise(route))
                for x, y in (p for pair in pairwise(route) for p in along(*pair)):
                    for box in others:
                        assert abs(x - box.x) >= box.width / 2 or abs(y - box.y) >= BOX_HEIGHT / 2 - 1e-6


def test_edges_of_one_box_lie_side_by_side() -> None:
    """Three from one box leave in the order in which they arrive, and none at another's place."""
    found = [DrawnNode(key, key, row, "", key) for key, row in (("a", 0), ("b", 0), ("c", 0), ("x", 1), ("y", 1))]
    layout = lay_out(found, ["a", "b", "c", "x", "y"])
    edges = [DrawnEdge("b", "y"), DrawnEdge("b", "x"), DrawnEdge("a", "x"), DrawnEdge("c", "x")]
    routes = [layout.route(edge, lane) for edge, lane in zip(edges, layout.lanes(edges), strict=True)]
    assert routes[1][0][0] < layout.boxes["b"].x < routes[0][0][0]
    arrivals = [routes[n][-1][0] for n in (2, 1, 3)]  # from a, b, c
    assert arrivals == sorted(set(arrivals))
    box = layout.boxes["x"]
    assert all(abs(x - box.x) < box.width / 2 for x in arrivals)


def along(start: tuple[float, float], end: tuple[float, float]) -> Iterator[tuple[float, float]]:
    p = np.asarray(curve(start, end))
    for t in np.linspace(0, 1, 23):
        yield tuple((1 - t) ** 3 * p[0] + 3 * t * (1 - t) ** 2 * p[1] + 3 * t**2 * (1 - t) * p[2] + t**3 * p[3])


def linear(colour: str) -> np.ndarray:
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """The contrast of WCAG 2."""
    weights = np.array([0.2126, 0.7152, 0.0722])
    low, high = sorted((float(linear(one) @ weights), float(linear(other) @ weights)))
    return (high + 0.05) / (low + 0.05)


# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB
BLINDNESS = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def seen(colour: str, blindness: str) -> np.ndarray:
    """CIE L*a*b* of a colour as seen with a kind of colour blindness."""
    rgb = np.clip(np.array(BLINDNESS[blindness]) @ linear(colour), 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ rgb / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("blindness", BLINDNESS)
@pytest.mark.parametrize(
    ("one", "other"),
    [(palette.BLUE, palette.VERMILION), ("#053061", "#67001f"), ("#4393c3", "#d6604d")],  # edges; the heatmap's ends
)
def test_for_and_against_differ_to_colour_blind_readers(one: str, other: str, blindness: str) -> None:
    assert np.linalg.norm(seen(one, blindness) - seen(other, blindness)) > 20


def test_writing_on_tints_and_paper_can_be_read() -> None:
    for tint in (*palette.TINTS, palette.PLAIN_TINT):
        assert contrast(palette.ON_TINT, tint) >= 7
    for colour in (palette.INK, palette.MUTED, *palette.SERIES):
        assert contrast(colour, palette.PAPER) >= 4.5
