"""Negative components that were left out of the circuit (Heimersheim & Nanda 2024, section 3.2)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from circuitspec.analysis.circuit_effects.candidate_race import Lots, RunsOnSome, raced
from circuitspec.analysis.claims.claim_result import MIN_PROMPTS
from circuitspec.analysis.statistics import stats
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.looks import looks_within
from circuitspec.analysis.statistics.out_of_range import run_out_of_range
from circuitspec.analysis.statistics.scores import Anchors, gap, mean_of, worth
from circuitspec.analysis.statistics.split_sample import Halves, halves
from circuitspec.engine.records import Records
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.follow_ups.restorations import Restorations
from circuitspec.experiments.planner import Plan
from circuitspec.graph.circuit_graph import NodeComponent
from circuitspec.hypothesis_file.grammar.components import sort_key
from circuitspec.hypothesis_file.grammar.names import format_name

Search = Literal["screen", "exact", "off"]

TESTED = 10  # candidates of the screen that are restored exactly; each costs one forward
SIGNIFICANT = 0.05  # false discovery rate over all screened components
FLOOR = 0.02  # of clean - corrupt: what a component must take away, restored, to be named
_MOSTLY = 0.8  # share of the screened effect at one role from which that role is named

Effects = Mapping[NodeComponent, NDArray[np.float64]]


@dataclass(frozen=True)
class NegativeComponent:
    """An ablated component whose restoration, on top of the circuit, makes the metric worse.

    `effect` is the mean change of the metric in its own units; `recovered_with` the recovered
    performance with this component restored, `p_adjusted` its p-value after correction over all
    screened components, `mostly_at` the position role that carries most of the effect, if one does.
    """

    component: str
    effect: float
    recovered_with: Estimate
    p_adjusted: float
    mostly_at: str | None = None


@dataclass(frozen=True)
class NegativeFinding:
    """The outcome of the search for negative components outside the circuit.

    `screened` components were looked at, `tested` of them restored one by one; `components` are the
    significant ones. `recovered_restored` is with all of these restored, None where there are none; `kl_declared` and
    `kl_restored` the KL to the clean run of the circuit without and with them, in nats, None where not measured.
    `prompts` is how many chose them, and how many others these figures are of; None where all of them did both.
    """

    metric: str
    screened: int
    tested: int
    components: tuple[NegativeComponent, ...]
    recovered_declared: Estimate
    recovered_restored: Estimate | None
    kl_declared: float | None = None
    kl_restored: float | None = None
    prompts: tuple[int, int] | None = None
    by_few: int = 0  # of those tested, how many the first prompts showed not to be negative by `FLOOR`


@dataclass(frozen=True)
class NegativeSearch:
    """How negative components were looked for, and what came of it (None: not looked for, or no ratio)."""

    search: Search | Literal["not along paths"]
    finding: NegativeFinding | None = None


class Estimates(Protocol):
    """What `engine.attribution.restoration_screen.Screen` holds."""

    @property
    def metric(self) -> str: ...
    @property
    def effects(self) -> Effects: ...
    @property
    def by_role(self) -> Mapping[NodeComponent, Mapping[str, float]]: ...


def candidates(ablated: Collection[NodeComponent], metric: str, screen: Estimates | None) -> tuple[NodeComponent, ...]:
    """The ablated components to restore exactly, those that should hurt most first.

    With a screen the `TESTED` that it puts first, however small their estimates: a first-order estimate
    may well miss what an exact restoration shows. Without one, all.
    """
    if screen is None:
        return tuple(sorted(ablated, key=sort_key))
    gain = {c: worth(metric) * float(screen.effects[c].mean()) for c in ablated}
    return tuple(sorted(ablated, key=lambda c: (gain[c], sort_key(c)))[:TESTED])


def negative_components(
    plan: Plan,
    records: Records,
    metric: str,
    chosen: tuple[NodeComponent, ...],
    screen: Estimates | None,
    runner: RunsOnSome,
    among: Restorations,
    besides: Collection[Experiment] = (),
    lots: Lots = (),
) -> tuple[NegativeFinding | None, Plan, Records]:
    """Restore each chosen component on top of the circuit, and all that hurt together.

    The runs `besides` are made along with these, and are not named in the plan.

    A component is negative when restoring it makes the metric worse: significantly (one-sided paired
    test, Benjamini-Hochberg over all ablated components, those `among` which it was chosen) and by `FLOOR`. It is found
    so on one half of the prompts, and its effect is that on the other: the largest of many are larger than they are. Of
    few prompts all do both. Where the first prompts of the half that chooses (the first `lots`, where all do both) show
    that it is not so by `FLOOR`, the others are not run. Returns
    the finding (None where the anchors allow no ratio, or the circuit is out of their range), and plan and records with
    the runs it took.
    """
    between = Anchors(plan.clean, plan.corrupt)
    if gap(records, metric, between).state != "sound" or run_out_of_range(plan.circuit, records, metric, between):
        return None, plan, records
    clean, corrupt = records[plan.clean][metric], records[plan.corrupt][metric]
    declared = records[plan.circuit][metric]
    runs = {c: among.with_back(frozenset({c})) for c in chosen}
    parts = _divided(records, metric, between)
    if parts is not None and len(lots) > 1:
        lots = looks_within(records.templates, parts.search)
    dropped: frozenset[NodeComponent] = frozenset()
    if len(lots) < 2:
        measured = runner.run((*runs.values(), *besides))
    else:
        by_lots = raced(runs, metric, declared, -FLOOR * (clean - corrupt), records.templates, runner, lots)
        measured, dropped = by_lots.measured.merged(runner.run(besides)), frozenset(by_lots.dropped)
    tried = tuple(c for c in chosen if c not in dropped)
    runs = {c: runs[c] for c in tried}
    differences = {c: measured[run][metric] - declared for c, run in runs.items()}
    search, judge = (slice(None), slice(None)) if parts is None else (parts.search, parts.judge)
    tests = [stats.lowers(worth(metric) * differences[c][search]) for c in tried]
    screened = len(among.components)
    adjusted = stats.adjust([t.p_value for t in tests], screened)
    denominator = float(clean[search].mean() - corrupt[search].mean())
    negative = [
        (c, p)
        for c, p in zip(tried, adjusted, strict=True)
        if p <= SIGNIFICANT and float(differences[c][search].mean()) / denominator <= -FLOOR
    ]
    negative.sort(key=lambda pair: (worth(metric) * float(differences[pair[0]][judge].mean()), sort_key(pair[0])))

    def recovered(values: NDArray[np.float64]) -> Estimate:
        return stats.recovered(values[judge], corrupt[judge], clean[judge])

    all_back, kl_back = None, None
    labels = {run: f"circuit + {format_name(c)}" for c, run in runs.items()}
    if negative:
        together = among.with_back(frozenset(c for c, _ in negative))
        measured = measured.merged(runner.run([together])) if len(negative) > 1 else measured
        labels.setdefault(together, "circuit + all negatives")
        all_back = recovered(measured[together][metric])
        kl_back = _kl(measured, together, judge)
    finding = NegativeFinding(
        metric,
        screened,
        len(chosen),
        tuple(
            NegativeComponent(
                format_name(c),
                float(differences[c][judge].mean()),
                recovered(measured[runs[c]][metric]),
                p,
                _mostly_at(c, screen),
            )
            for c, p in negative
        ),
        recovered(declared),
        all_back,
        _kl(records, plan.circuit, judge),
        kl_back,
        None if parts is None else (parts.n_search, parts.n_judge),
        len(dropped),
    )
    return finding, plan.naming(labels), records.merged(measured)


def _divided(records: Records, metric: str, between: Anchors) -> Halves | None:
    """Prompts to choose on and others to judge on; None where either are too few, or their anchors not apart."""
    parts = halves(records.templates)
    if min(parts.n_search, parts.n_judge) < MIN_PROMPTS:
        return None
    for own in (parts.search, parts.judge):
        ends = {run: {metric: records[run][metric][own]} for run in (between.clean, between.corrupt)}
        if gap(Records(ends, records.templates[own]), metric, between).state != "sound":
            return None
    return parts


def _kl(records: Records, run: Experiment, judge: NDArray[np.bool_] | slice) -> float | None:
    """Mean KL to the clean run, in nats; None where it was not measured."""
    return mean_of(records[run]["kl"][judge]) if "kl" in records[run] else None


def _mostly_at(component: NodeComponent, screen: Estimates | None) -> str | None:
    """The one role at whose tokens the screen puts most of the effect, if there is one."""
    if screen is None:
        return None
    total = float(screen.effects[component].mean())
    shares = {role: effect / total for role, effect in screen.by_role[component].items() if total}
    role = max(shares, key=lambda r: shares[r], default=None)
    return role if role is not None and shares[role] >= _MOSTLY else None
