"""How much is recovered by how small a circuit: every circuit that the run measured, with nothing more run for it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from circuitspec.analysis.metric_choice import for_circuits_by_size
from circuitspec.analysis.statistics.scores import Anchors, mean_of
from circuitspec.analysis.statistics.wording import number, plural
from circuitspec.analysis.verification_result import Verification
from circuitspec.experiments.experiment import Experiment
from circuitspec.reports.figures.scatter import Dots, NamedPoint, scatter
from circuitspec.reports.views import Chart, Table

_MOST_ROWS = 16
_DECLARED, _MODEL, _NOTHING = "circuit", "clean", "all ablated"
_KINDS = (
    ("as declared", re.compile(r"circuit$")),
    ("more kept", re.compile(r"circuit (\+|and a random component)|circuit, all negatives in")),
    ("less kept", re.compile(r"circuit without |circuit, all negatives out")),
    ("random circuits", re.compile(r"random circuit \d+$")),
)


@dataclass(frozen=True)
class MeasuredCircuit:
    """A circuit that was kept while the rest was ablated: components of which something is kept, and its figure."""

    name: str
    kind: str
    size: int
    recovered: float


def frontier_view(found: Verification) -> tuple[tuple[Chart, ...], tuple[Table, ...]]:
    """The picture and its rows, where at least two circuits were measured at node level; else neither."""
    metric = _metric(found)
    circuits = [] if metric is None else list(_circuits(found, metric))
    if metric is None or len([one for one in circuits if one.kind != "model and nothing"]) < 2:
        return (), ()
    best = pareto(circuits)
    kinds = dict.fromkeys(one.kind for one in circuits)
    declared = next((one for one in circuits if one.name == _DECLARED), None)
    said = "; ".join(f"{number(one.recovered)} with {one.size}" for one in best)
    picture = scatter(
        [Dots(kind, tuple((one.size, one.recovered) for one in circuits if one.kind == kind)) for kind in kinds],
        title="Recovered performance by size of circuit",
        across="components kept",
        upward=f"recovered {metric}\n(share of clean - corrupt)",
        alt=f"Recovered {metric} over components kept, {plural(len(circuits), 'run')}. On the frontier: {said}.",
        line=[(one.size, one.recovered) for one in best],
        line_label="frontier",
        named=[] if declared is None else [NamedPoint("the circuit as declared", (declared.size, declared.recovered))],
    )
    note = (
        "Every run of this verification that keeps a circuit and ablates the rest, none made for this picture. On the "
        "line: no run with as few components recovers more (which above 1 is more than the model does)."
    )
    rows = sorted(circuits, key=lambda one: (one.size, -one.recovered))
    first = [one for one in rows if one in best or one == declared]
    shown = first + [one for one in rows if one not in first]
    shown = sorted(shown[:_MOST_ROWS], key=rows.index)
    caption = f"Circuits by size, {metric}" + (f" ({len(shown)} of {len(rows)})" if len(shown) < len(rows) else "")
    cells = tuple(
        (one.name, str(one.size), number(one.recovered), "yes" if one in best else "", one.kind) for one in shown
    )
    columns = ("circuit", "components kept", f"recovered {metric}", "on the frontier", "kind")
    return (Chart(picture, note),), (Table(caption, columns, cells),)


def pareto(circuits: Sequence[MeasuredCircuit]) -> list[MeasuredCircuit]:
    """Those to which none is at least as small and recovers at least as much, but itself or its equal; by size."""
    best: list[MeasuredCircuit] = []
    for one in sorted(circuits, key=lambda one: (one.size, -one.recovered)):
        if not best or one.recovered > best[-1].recovered:
            best.append(one)
    return best


def _metric(found: Verification) -> str | None:
    """The first claim's metric that the circuit's own run was measured by between anchors that differ."""
    plan, records = found.plan, found.records
    if found.graph is None or plan.circuit.level != "node" or plan.circuit not in records.values:
        return None
    gaps = found.denominators.get(Anchors(plan.clean, plan.corrupt), {})
    return for_circuits_by_size(plan, records, gaps)


def _circuits(found: Verification, metric: str) -> Iterator[MeasuredCircuit]:
    plan, records, graph = found.plan, found.records, found.graph
    assert graph is not None
    claimed = len(graph.claimed)
    clean, corrupt = (mean_of(records[run][metric]) for run in (plan.clean, plan.corrupt))
    yield MeasuredCircuit("model", "model and nothing", claimed, 1.0)
    yield MeasuredCircuit(plan.labels.get(plan.corrupt, _NOTHING), "model and nothing", 0, 0.0)
    for run, label in plan.labels.items():
        kind = _kind(label)
        if kind is None or not _is_like(run, plan.circuit) or metric not in records[run]:
            continue
        value = (mean_of(records[run][metric]) - corrupt) / (clean - corrupt)
        gone = {site.component for site in run.sites if site.where.is_everywhere} & set(graph.claimed)
        yield MeasuredCircuit(label, kind, claimed - len(gone), value)


def _kind(label: str) -> str | None:
    return next((kind for kind, pattern in _KINDS if pattern.match(label)), None)


def _is_like(run: Experiment, circuit: Experiment) -> bool:
    """Whether a run ablates the same way at the same level as that of the circuit as declared."""
    return (run.level, run.base, run.source) == ("node", circuit.base, circuit.source) and bool(run.sites)
