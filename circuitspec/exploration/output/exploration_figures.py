"""An exploration in pictures: where effects lie, what sizes of circuit recover, and the circuit as a graph."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from circuitspec.exploration.exploration_findings import Circuit, ExplorationFindings
from circuitspec.exploration.output.stability_output import has_picture, stability_picture
from circuitspec.exploration.request import SWEPT
from circuitspec.exploration.search.component_sweep import MATERIAL, Effect
from circuitspec.exploration.search.exact_sweeps import Grid, Kind
from circuitspec.exploration.search.patching_series import PatchingSeries
from circuitspec.exploration.search.reactions.corruption_traces import CorruptionTraces
from circuitspec.exploration.setting import places_of
from circuitspec.graph.nodes import Ablatable
from circuitspec.hypothesis_file.grammar.component_kinds import HEAD, ComponentKind
from circuitspec.hypothesis_file.grammar.names import format_name, parse_component
from circuitspec.reports.figures.circuit_figure import DrawnEdge, DrawnNode, circuit_graph
from circuitspec.reports.figures.frontier import Curve, Sized, frontier
from circuitspec.reports.figures.heatmap import heatmap, heatmaps
from circuitspec.reports.figures.picture import Picture

QUANTITY = "drop when ablated, rise when restored (share of clean - corrupt)"


def pictures(found: ExplorationFindings) -> dict[str, Picture]:
    """By file name without its ending."""
    drawn: dict[str, Picture] = {}
    if found.sweep.effects:
        drawn = {"layers-and-positions": _by_position(found)}
    if found.sweep.effects and not found.features:
        drawn["layers-and-heads"] = _by_head(found)
    for grid in found.grids:
        drawn |= _of_grid(grid, found)
    if found.traces is not None and found.traces.reactions:
        drawn |= {f"traces-{direction}": _traces(found.traces, direction) for direction in ("noising", "denoising")}
    curves = [_curve(circuit) for circuit in found.circuits if circuit.frontier]
    if curves:
        title = "Circuits of growing size, with and without components that hurt"
        drawn["frontier"] = frontier(curves, metric=found.metric, title=title, target=found.target)
    if found.stability is not None and has_picture(found.stability):
        drawn["stability"] = stability_picture(found.stability)
    if found.circuits and found.circuits[0].entries:
        drawn["circuit"] = _graph(found)
    return drawn


_DROP, _RISE = "ablated: drop", "restored: rise"


def _by_position(found: ExplorationFindings) -> Picture:
    """Of all components of a layer at a position the largest effect: an exact one where there is one."""
    roles = list(dict.fromkeys(role for e in found.sweep.effects for role in places_of(e.where)))
    roles.sort(key=found.roles.index)
    shape = (found.n_layers, len(roles))
    places = [((_layer(e.component), roles.index(role)), e) for e in found.sweep.effects for role in places_of(e.where)]
    return heatmaps(
        _both(shape, places),
        rows=[str(layer) for layer in range(found.n_layers)],
        columns=roles,
        title="Effects by layer and position, of the component that does most",
        row_axis="layer",
        column_axis="position",
        quantity=QUANTITY,
    )


def _by_head(found: ExplorationFindings) -> Picture:
    """Of each head the largest effect at any position; hatched where a head was free."""
    width = found.n_heads // found.n_layers
    heads = [(e.component, e) for e in found.sweep.effects if e.component.kind is HEAD]
    return heatmaps(
        _both((found.n_layers, width), [(head.place, e) for head, e in heads]),
        rows=[str(layer) for layer in range(found.n_layers)],
        columns=[str(head) for head in range(width)],
        title="Effects by layer and head, at the position where each does most",
        row_axis="layer",
        column_axis="head",
        quantity=QUANTITY,
    )


def _both(shape: tuple[int, int], places: Iterable[tuple[tuple[int, int], Effect]]) -> dict[str, NDArray[np.float64]]:
    """The largest effect at every place, by direction, with its sign: effects of both signs do not cancel."""
    panels = {_DROP: np.full(shape, np.nan), _RISE: np.full(shape, np.nan)}
    for place, effect in places:
        for name, value in ((_DROP, effect.drop_best), (_RISE, effect.rise_best)):
            known = panels[name][place]
            if np.isnan(known) or abs(value) > abs(known):
                panels[name][place] = value
    return panels


def _of_grid(grid: Grid, found: ExplorationFindings) -> dict[str, Picture]:
    """Every kind of place that was swept, in every series: by layer and position, heads by layer and head too."""
    drawn = {}
    start = "zoom" if grid.coarse_to_fine else "sweep"
    for series in grid.series:
        name = f"{series.direction}-{series.value}" + (f"-{series.corruption}" if series.corruption else "")
        for kind, row in SWEPT.items():
            if grid.of(kind, series) and row.part_of is None:  # units are too many
                draw = _members if row.has_members else _places
                drawn[f"{start}-{kind}-{name}"] = draw(grid, kind, series, found)
    return drawn


def _places(grid: Grid, kind: Kind, series: PatchingSeries, found: ExplorationFindings) -> Picture:
    wheres = list(grid.wheres)
    values = np.full((found.n_layers, len(wheres)), np.nan)
    for cell in grid.of(kind, series):
        values[cell.spot.target.place[0], wheres.index(cell.spot.where)] = _effect(cell.share, cell.change)
    return heatmap(
        values,
        rows=[str(layer) for layer in range(found.n_layers)],
        columns=list(grid.wheres.values()),
        title=f"{_titled(SWEPT[kind])} by layer and position: {series.title}",
        row_axis="layer",
        column_axis="position",
        quantity=_quantity(grid, series),
    )


def _members(grid: Grid, kind: Kind, series: PatchingSeries, found: ExplorationFindings) -> Picture:
    """Of each component of which a layer has several, such as heads, the largest effect at any single position."""
    members = [cell.spot.target.place[1] for cell in grid.of(kind, series)]
    width = max(found.n_heads // found.n_layers, *(member + 1 for member in members))
    values = np.full((found.n_layers, width), np.nan)
    for cell in grid.of(kind, series):
        target = cell.spot.target
        effect, known = _effect(cell.share, cell.change), values[target.place]
        if not cell.spot.where.is_everywhere and (np.isnan(known) or abs(effect) > abs(known)):
            values[target.place] = effect
    return heatmap(
        values,
        rows=[str(layer) for layer in range(found.n_layers)],
        columns=[str(member) for member in range(width)],
        title=f"{_titled(SWEPT[kind])}, at the position where each does most: {series.title}",
        row_axis="layer",
        column_axis=SWEPT[kind].singular,
        quantity=_quantity(grid, series),
    )


def _titled(kind: ComponentKind) -> str:
    word = kind.singular if kind.is_stream else kind.plural
    return word[0].upper() + word[1:]


def _effect(share: float | None, change: float) -> float:
    return change if share is None else share


def _quantity(grid: Grid, series: PatchingSeries) -> str:
    if any(cell.share is None for cell in grid.cells if cell.series == series):
        return "change of the metric (the corruption does not break the behaviour)"
    return f"{'drop' if series.noising else 'rise'} (share of clean - corrupt)"


def _traces(traces: CorruptionTraces, direction: str) -> Picture:
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


def _graph(found: ExplorationFindings) -> Picture:
    """The circuit with its negative and backup members, and the direct paths that have an effect by themselves.

    A path is one of all that a component sends, from all of its positions; so a component is one node, however many.
    """
    roles: dict[str, dict[str, str]] = {}  # component -> role -> effect
    for component, role, effect in found.circuits[0].entries:
        roles.setdefault(component, {})[role] = effect
    nodes = [DrawnNode("input", "input", -1, "input", "", "", "")]
    for component, effects in roles.items():
        target = parse_component(component)
        layer, kind = target.place[0], target.kind.plural
        row = 2 * layer + (target.kind is not HEAD)
        column = ", ".join(sorted(effects, key=found.roles.index))
        of_all = set(effects.values())
        if len(of_all) > 1:
            kind += ", several effects"
        effect = of_all.pop() if len(of_all) == 1 else "positive"
        nodes.append(DrawnNode(component, component, row, f"layer {layer}", column, kind, effect))  # type: ignore[arg-type]
    nodes.append(DrawnNode("logits", "logits", 2 * found.n_layers, "logits", "", "", ""))
    strongest: dict[tuple[str, str], DrawnEdge] = {}
    for link in found.links.found:
        if link.size < MATERIAL:
            continue
        sender = format_name(link.sender)
        receiver = "logits" if link.reader is None else format_name(link.reader)
        if sender in (*roles, "input") and receiver in (*roles, "logits"):
            share = link.drop if abs(link.drop) >= abs(link.rise) else link.rise
            ends = (sender, receiver)
            known = strongest.get(ends)
            if known is None or abs(share) > abs(known.effect or 0.0):
                strongest[ends] = DrawnEdge(*ends, share, share < 0)
    wide = {node.column for node in nodes if node.column}
    columns = sorted(wide, key=lambda column: [found.roles.index(role) for role in column.split(", ")])
    edges = list(strongest.values())
    used = {end for edge in edges for end in (edge.sender, edge.receiver)}
    shown = [node for node in nodes if node.key in used or node.column]
    if any(not node.column for node in shown):
        columns = ["", *columns]
    return circuit_graph(shown, edges, columns=columns, title=f"The circuit of {found.name} {found.circuits[0].kind}")


def _layer(component: Ablatable) -> int:
    return component.layer
