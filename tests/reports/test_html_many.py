"""Pictures of what many runs show: circuits by size, completeness and minimality; with numbers known beforehand."""

from __future__ import annotations

import dataclasses
import re

import pytest

from circuitspec.analysis.claims.claim_result import ClaimPart, ClaimResult
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.experiments.experiment import Experiment, Site
from circuitspec.graph.circuit_graph import lay_out
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head
from circuitspec.hypothesis_file.load_file import parse_hypothesis
from circuitspec.reports.figures.scatter import Dots, scatter
from circuitspec.reports.html.html_frontier import MeasuredCircuit, frontier_view, pareto
from circuitspec.reports.html.html_subsets import subset_charts
from tests.analysis.support import CIRCUIT, CLEAN, CORRUPT, MEANS, around, make_records
from tests.reports.support import example
from tests.reports.test_html import FILE, SHAPE


def run(*heads: tuple[int, int], base: Experiment = CIRCUIT) -> Experiment:
    """These heads ablated everywhere, in the clean run, as for the circuit."""
    return Experiment(base.base, MEANS, frozenset(Site(Head(*one), Where.everywhere()) for one in heads))


def test_only_circuits_that_nothing_beats_are_on_the_frontier() -> None:
    sizes = {"none": (0, 0.0), "a": (2, 0.5), "worse": (3, 0.4), "tie": (3, 0.5), "b": (4, 0.9), "model": (16, 1.0)}
    circuits = [MeasuredCircuit(name, "", *place) for name, place in sizes.items()]
    assert [one.name for one in pareto(circuits)] == ["none", "a", "b", "model"]
    assert [one.name for one in pareto(circuits[::-1])] == ["none", "a", "b", "model"]


def test_the_frontier_is_of_runs_that_keep_a_circuit() -> None:
    """Clean 4, corrupt 0. Of 16 heads the circuit as declared loses a0.h1; others lose two, one, and three."""
    document = parse_hypothesis(FILE)
    graph = lay_out(document.hypothesis.circuit, SHAPE, document.source)
    less, more, drawn = run((0, 1), (3, 3)), run((1, 1)), run((0, 0), (1, 1), (2, 2))
    other = Experiment("abc", MEANS, less.sites)
    found = example()
    values = {CLEAN: 4.0, CORRUPT: 0.0, CIRCUIT: 3.0, less: 2.0, more: 3.8, drawn: 1.0, other: 4.0, run((2, 0)): 3.9}
    labels = {
        CLEAN: "clean", CORRUPT: "corrupt", CIRCUIT: "circuit", less: "circuit without against",
        more: "circuit + a1.h1", drawn: "random circuit 3", other: "circuit without other base",
        run((2, 0)): "a2.h0 ablated",
    }  # fmt: skip
    plan = dataclasses.replace(found.plan, labels=labels)
    records = make_records({one: {"logit_diff": around(value)} for one, value in values.items()})
    changed = dataclasses.replace(found, plan=plan, records=records, graph=graph, claims=found.claims[:1])
    (chart,), (table,) = frontier_view(changed)
    assert table.columns[:3] == ("circuit", "components kept", "recovered logit_diff")
    kept = len(graph.claimed)
    assert table.rows == (
        ("corrupt", "0", "0.00", "yes", "model and nothing"),
        ("random circuit 3", str(kept - 3), "0.25", "yes", "random circuits"),
        ("circuit without against", str(kept - 2), "0.50", "yes", "less kept"),
        ("circuit + a1.h1", str(kept - 1), "0.95", "yes", "more kept"),
        ("circuit", str(kept - 1), "0.75", "", "as declared"),
        ("model", str(kept), "1.00", "yes", "model and nothing"),
    )
    assert "On the frontier: 0.00 with 0; 0.25 with 13; 0.50 with 14; 0.95 with 15; 1.00 with 16." in chart.picture.alt
    assert chart.picture.standalone().startswith("<?xml")
    alone = dataclasses.replace(plan, labels={e: t for e, t in labels.items() if t in ("clean", "corrupt", "circuit")})
    assert frontier_view(dataclasses.replace(changed, plan=alone)) == ((), ())


def part(name: str, *means: float, value: float = 0.1, at_least: float | None = None) -> ClaimPart:
    estimate = Estimate(value, value - 0.05, value + 0.05, 0.95, 50, "bca")
    return ClaimPart(name, "SUPPORTED", estimate, at_least, None, nodes=("a0.h1",), means=means)


def claim(measure: str, *parts: ClaimPart) -> ClaimResult:
    kind = "complete" if measure == "incompleteness" else "minimal"
    return ClaimResult(2, kind, "logit_diff", "SUPPORTED", None, None, 0.3, 50, "", "", measure, parts)  # type: ignore[arg-type]


def test_completeness_is_drawn_subset_by_subset() -> None:
    parts = (
        part("random 4", 3.0, 1.0),
        part("movers", 2.0, 2.0),
        part("greedy", -1.0, 0.5),
        part("random 1", 1.0, 1.0),
    )
    found = dataclasses.replace(example(), claims=(claim("incompleteness", *parts),))
    (chart,) = subset_charts(found)
    assert chart.picture.title == "Claim 3, complete: circuit and model without K"
    assert chart.note.endswith("Ringed: the worst, random 4, has 3.00 in the model and 1.00 in the circuit.")
    drawn = chart.picture.standalone()
    for said in ("group, all, nothing", "random", "greedy", "circuit = model", "worst: random 4"):
        assert said in drawn
    assert "4 subsets" in chart.picture.alt


def test_minimality_is_drawn_node_by_node_the_weakest_first() -> None:
    parts = (part("a0.h1", 3, 1, value=0.5, at_least=0.05), part("a1.h2", 3, 2.9, value=0.06, at_least=0.05))
    found = dataclasses.replace(example(), claims=(claim("effect", *parts),))
    (chart,) = subset_charts(found)
    assert "a1.h2: 0.06 (bound at least 0.05); a0.h1: 0.50 (bound at least 0.05)" in chart.picture.alt
    heights = {
        name: float(y) for y, name in re.findall(r'y="([\d.]+)"[^>]*>(a\d\.h\d)</text>', chart.picture.standalone())
    }
    assert heights["a1.h2"] < heights["a0.h1"]


def test_scatters_that_cannot_be_drawn_are_refused() -> None:
    for dots in ([], [Dots("a", ())], [Dots(str(i), ((0.0, 0.0),)) for i in range(6)]):
        with pytest.raises(ValueError, match="kinds of points"):
            scatter(dots, title="t", across="x", upward="y", alt="a", line_label="l")
