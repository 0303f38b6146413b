"""An exploration in pictures: where effects lie, what sizes of circuit recover, and the circuit as a graph."""

from __future__ import annotations

import numpy as np

from circuitspec.exploring.findings import Circuit, Findings
from circuitspec.exploring.grid import Grid, Kind
from circuitspec.exploring.series import Series
from circuitspec.exploring.sweep import MATERIAL
from circuitspec.exploring.traces import Traces
from circuitspec.graph.nodes import Ablatable
from circuitspec.report.pictures.circuit import Edge, Node, circuit_graph
from circuitspec.report.pictures.frontier import Curve, Sized, frontier
from circuitspec.report.pictures.heatmap import heatmap
from circuitspec.report.pictures.picture import Picture
from circuitspec.spec.components import Head, Mlp
from circuitspec.spec.names import format_name, parse_name

QUANTITY = "drop when noised (share of clean - corrupt)"


def pictures(found: Findings) -> dict[str, Picture]:
    """By file name without its ending."""
    drawn: dict[str, Picture] = {}
    if found.sweep.effects:
        drawn = {"layers-and-positions": _by_position(found), "layers-and-heads": _by_head(found)}
    for grid in found.grids:
        drawn |= _of_grid(grid, found)
    if found.traces is not None and found.traces.reactions:
        drawn |= {f"traces-{direction}": _traces(found.traces, direction) for direction in ("noising", "denoising")}
    curves = [_curve(circuit) for circuit in found.circuits if circuit.frontier]
    if curves:
        title = "Circuits of growing size, with and without components that hurt"
        drawn["frontier"] = frontier(curves, metric=found.metric, title=title, target=found.target)
    if found.circuits and found.circuits[0].entries:
        drawn["circuit"] = _graph(found)
    return drawn


def _by_position(found: Findings) -> Picture:
    """Drops of all components of a layer at a position, added up: exact ones where there are, else estimates."""
    roles = list(dict.fromkeys(role for e in found.sweep.effects for role in sorted(e.where.roles)))
    roles.sort(key=found.roles.index)
    grid = np.zeros((found.n_layers, len(roles)))
    for effect in found.sweep.effects:
        for role in effect.where.roles:
            grid[_layer(effect.component), roles.index(role)] += effect.drop_best
    return heatmap(
        grid,
        rows=[str(layer) for layer in range(found.n_layers)],
        columns=roles,
        title="Effects by layer and position, added up",
        row_axis="layer",
        column_axis="position",
        quantity=QUANTITY,
    )


def _by_head(found: Findings) -> Picture:
    """Drops of each head, added up over positions; hatched where a head was free."""
    width = found.n_heads // found.n_layers
    grid = np.full((found.n_layers, width), np.nan)
    for effect in found.sweep.effects:
        if isinstance(effect.component, Head):
            layer, head = effect.component.layer, effect.component.head
            grid[layer, head] = np.nan_to_num(grid[layer, head]) + effect.drop_best
    return heatmap(
        grid,
        rows=[str(layer) for layer in range(found.n_layers)],
        columns=[str(head) for head in range(width)],
        title="Effects by layer and head, added up over positions",
        row_axis="layer",
        column_axis="head",
        quantity=QUANTITY,
    )


def _of_grid(grid: Grid, found: Findings) -> dict[str, Picture]:
    """Every kind of place that was swept, in every series: by layer and position, heads by layer and head too."""
    drawn = {}
    start = "zoom" if grid.coarse_to_fine else "sweep"
    for series in grid.series:
        name = f"{series.direction}-{series.value}" + (f"-{series.corruption}" if series.corruption else "")
        for kind in ("resid", "attention", "mlps"):
            if grid.of(kind, series):
                drawn[f"{start}-{kind}-{name}"] = _places(grid, kind, series, found)
        if grid.of("heads", series):
            drawn[f"{start}-heads-{name}"] = _heads(grid, series, found)
    return drawn


def _places(grid: Grid, kind: Kind, series: Series, found: Findings) -> Picture:
    wheres = list(grid.wheres)
    values = np.full((found.n_layers, len(wheres)), np.nan)
    for cell in grid.of(kind, series):
        values[cell.spot.target.layer, wheres.index(cell.spot.where)] = _effect(cell.share, cell.change)
    return heatmap(
        values,
        rows=[str(layer) for layer in range(found.n_layers)],
        columns=list(grid.wheres.values()),
        title=f"{_KINDS[kind]} by layer and position: {series.title}",
        row_axis="layer",
        column_axis="position",
        quantity=_quantity(grid, series),
    )


def _heads(grid: Grid, series: Series, found: Findings) -> Picture:
    """Of each head the largest effect at any single position."""
    width = found.n_heads // found.n_layers
    values = np.full((found.n_layers, width), np.nan)
    for cell in grid.of("heads", series):
        target = cell.spot.target
        assert isinstance(target, Head)
        effect, known = _effect(cell.share, cell.change), values[target.layer, target.head]
        if not cell.spot.where.is_everywhere and (np.isnan(known) or abs(effect) > abs(known)):
            values[target.layer, target.head] = effect
    return heatmap(
        values,
        rows=[str(layer) for layer in range(found.n_layers)],
        columns=[str(head) for head in range(width)],
        title=f"Heads, at the position where each does most: {series.title}",
        row_axis="layer",
        column_axis="head",
        quantity=_quantity(grid, series),
    )


_KINDS = {"resid": "Residual stream", "attention": "Attention layers", "mlps": "MLPs"}


def _effect(share: float | None, change: float) -> float:
    return change if share is None else share


def _quantity(grid: Grid, series: Series) -> str:
    if any(cell.share is None for cell in grid.cells if cell.series == series):
        return "change of the metric (the corruption does not break the behaviour)"
    return f"{'drop' if series.noising else 'rise'} (share of clean - corrupt)"


def _traces(traces: Traces, direction: str) -> Picture:
    """The strongest components by corruption."""
    entries = list(traces.reactions)[:24][::-1]
    values = [[getattr(traces.reactions[e][name], _SIDE[direction]) for name in traces.corruptions] for e in entries]
    return heatmap(
        values,
        rows=[f"{format_name(component)}@{role}" for component, role in entries],
        columns=list(traces.corruptions),
        title=f"Which component reacts to which corruption, {direction}",
        row_axis="component",
        column_axis="corruption",
        quantity=f"{_SIDE[direction]} (share of the largest clean - corrupt)",
    )


_SIDE = {"noising": "drop", "denoising": "rise"}


def _curve(circuit: Circuit) -> Curve:
    """Through the circuits on the frontier alone; one that was chosen beside it is in the label."""
    best = {point.entries: Sized(point.entries, point.recovered) for point in circuit.frontier if point.pareto}
    chosen = len(circuit.entries)
    own = best.get(chosen)
    if own is not None and own.recovered.value == circuit.recovered:
        return Curve(circuit.kind, tuple(best[size] for size in sorted(best)), chosen)
    label = f"{circuit.kind} (chosen beside it: {chosen}, {circuit.recovered:.2f})"
    return Curve(label, tuple(best[size] for size in sorted(best)), None)


def _graph(found: Findings) -> Picture:
    """The circuit with its negative and backup members, and the direct paths that have an effect by themselves."""
    nodes = [Node("input", "input", -1, "input", "", "", "")]
    first: dict[str, str] = {"input": "input", "logits": "logits"}
    for component, role, effect in found.circuits[0].entries:
        target = parse_name(component).target
        layer = target.layer if isinstance(target, Head | Mlp) else 0
        key = f"{component}@{role}"
        first.setdefault(component, key)
        kind = "heads" if isinstance(target, Head) else "MLPs"
        row = 2 * layer + isinstance(target, Mlp)
        nodes.append(Node(key, component, row, f"layer {layer}", role, kind, effect))  # type: ignore[arg-type]
    nodes.append(Node("logits", "logits", 2 * found.n_layers, "logits", "", "", ""))
    strongest: dict[tuple[str, str], Edge] = {}
    for link in found.links.found:
        if link.size < MATERIAL:
            continue
        sender = format_name(link.sender)
        receiver = "logits" if link.reader is None else format_name(link.reader)
        if sender in first and receiver in first:
            share = link.drop if abs(link.drop) >= abs(link.rise) else link.rise
            ends = (first[sender], first[receiver])
            known = strongest.get(ends)
            if known is None or abs(share) > abs(known.effect or 0.0):
                strongest[ends] = Edge(*ends, share, share < 0)
    columns = [role for role in found.roles if any(node.column == role for node in nodes)]
    edges = list(strongest.values())
    used = {end for edge in edges for end in (edge.sender, edge.receiver)}
    shown = [node for node in nodes if node.key in used or node.column]
    if any(not node.column for node in shown):
        columns = ["", *columns]
    return circuit_graph(shown, edges, columns=columns, title=f"The circuit of {found.name} {found.circuits[0].kind}")


def _layer(component: Ablatable) -> int:
    return component.layer
