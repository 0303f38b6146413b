"""What the parts of the circuit do by themselves, on the page: a map of the heads, and tables."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from circuitspec.analysis.circuit_effects.backup_behaviour import Knockout
from circuitspec.analysis.circuit_effects.component_effects import CircuitEffects
from circuitspec.analysis.statistics.wording import MISSING, briefly, number
from circuitspec.analysis.verification_result import Verification
from circuitspec.hypothesis_file.grammar.component_kinds import HEAD, MLP
from circuitspec.hypothesis_file.grammar.names import parse_component
from circuitspec.prompts.output_metrics import METRICS
from circuitspec.reports.figures import heatmap
from circuitspec.reports.views import Chart, Table

_SHARE = "drop, as a share of clean - corrupt"


def effects_charts(found: Verification) -> tuple[Chart, ...]:
    """A map of layers and heads; none where no head was ablated alone."""
    if found.effects is None or found.graph is None:
        return ()
    effects, shape = found.effects, found.graph.shape
    by_estimate = not effects.components and bool(effects.estimated)
    shown = effects.estimated if by_estimate else effects.components
    drops = {parse_component(one.part.name): one.drop.value for one in shown}
    columns = [str(head) for head in range(shape.n_heads)]
    columns += ["MLP"] if any(component.kind is MLP for component in drops) else []
    values = np.full((shape.n_layers, len(columns)), np.nan)
    for component, value in drops.items():
        if component.kind is HEAD:
            values[component.place] = value
        elif component.kind is MLP:
            values[component.place[0], -1] = value
    if np.isnan(values).all():
        return ()
    picture = heatmap(
        values,
        rows=[str(layer) for layer in range(shape.n_layers)],
        columns=columns,
        title="Per-component ablation of the circuit" + (" in it, by estimate" if by_estimate else ""),
        row_axis="layer",
        column_axis="head",
        quantity=f"{effects.metric} {_SHARE}",
    )
    note = "Ablated at its declared positions in the clean run, all else as it is. Hatched is no part of the circuit."
    if by_estimate:
        note = (
            "What ablating it in the circuit alone should change, to first order (one backward pass for all); "
            "verify --negatives exact runs each. Hatched is no part of the circuit."
        )
    return (Chart(picture, note),)


def effects_tables(found: Verification) -> tuple[Table, ...]:
    """Groups and components one by one, and the circuit with and without negative components."""
    effects = found.effects
    if effects is None:
        return ()
    unit = METRICS[effects.metric].unit
    columns = (
        "ablated",
        f"{effects.metric} drop",
        "sign",
        "declared",
        "in",
        f"direct effect ({unit})",
        "compensated by",
    )
    rows = tuple(_rows(effects))
    tables = [Table(f"Per-component ablation: {_SHARE}", columns, rows, prose=(4,))] if rows else []
    if effects.estimated:
        known = {"helps": "", "hurts": "should raise it", "neither": "none shown"}
        head = ("ablated in the circuit, by estimate", f"{effects.metric} drop", "sign", "declared", "in")
        estimates = tuple(
            (
                one.part.name,
                briefly(one.drop),
                known[one.sign],
                one.part.declared,
                ", ".join(one.part.groups),
            )
            for one in effects.estimated
        )
        title = f"Components of the circuit, first-order estimates: {_SHARE}"
        tables.append(Table(title, head, estimates, prose=(4,)))
    if effects.sets:
        head = ("circuit", f"recovered {effects.metric}", "kl (nats)", "recovered kl", "components changed")
        sets = tuple(
            (
                one.name,
                briefly(one.recovered),
                number(one.kl),
                MISSING if one.recovered_kl is None else briefly(one.recovered_kl),
                ", ".join(one.negatives) or MISSING,
            )
            for one in effects.sets
        )
        tables.append(Table("The circuit with and without negative components", head, sets, prose=(4,)))
    return tuple(tables)


def _rows(effects: CircuitEffects) -> Iterator[tuple[str, ...]]:
    knockouts = {out.name: out for out in effects.knockouts}
    for one in (*effects.groups, *effects.components):
        is_group = one in effects.groups
        yield (
            one.part.name,
            briefly(one.drop),
            effects.note(one),
            one.part.declared,
            "group" if is_group else ", ".join(one.part.groups),
            *_direct(knockouts.get(one.part.name)),
        )
    for name, out in knockouts.items():
        if name not in {one.part.name for one in (*effects.groups, *effects.components)}:
            yield name, MISSING, "", "", "together", *_direct(out)


def _direct(out: Knockout | None) -> tuple[str, str]:
    return (MISSING, MISSING) if out is None else (number(out.direct), briefly(out.compensated))
