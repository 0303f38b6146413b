"""Components that are negative in the whole model and not in the circuit, whether the circuit feeds them or not.

Restored on top of a circuit, a component does what it can with what the circuit gives it (CS401): one whose inputs the
circuit leaves out does nothing there. So each is ablated in the clean run too, where everything feeds it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from circuitspec.analysis.circuit_effects.candidate_race import Lots, RunsOnSome, raced
from circuitspec.analysis.circuit_effects.negative_components import SIGNIFICANT, TESTED
from circuitspec.analysis.statistics import stats
from circuitspec.analysis.statistics.scores import Anchors, gap, worth
from circuitspec.engine.records import Records
from circuitspec.experiments.experiment import Source
from circuitspec.experiments.follow_ups.restorations import Restorations
from circuitspec.experiments.levels.node_level import ablating
from circuitspec.experiments.planner import Plan
from circuitspec.graph.nodes import NodeComponent
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import sort_key
from circuitspec.hypothesis_file.grammar.names import format_name

CHOSEN = 5  # of more than `TESTED` components, those that an estimate puts first are ablated exactly
CALLED_NEGATIVE = 0.1  # of clean - corrupt: what the loss of a component must bring for it to be named

Places = Mapping[NodeComponent, Where]


@dataclass(frozen=True)
class ModelNegative:
    """A component outside the circuit whose ablation raises the metric in the whole model.

    `effect` is the mean change of the metric in its own units, `share` of clean - corrupt.
    """

    component: str
    effect: float
    share: float
    p_adjusted: float


@dataclass(frozen=True)
class ModelNegatives:
    """Such components, the largest first; of `screened` outside the circuit `tested` were ablated one by one."""

    metric: str
    screened: int
    tested: int
    components: tuple[ModelNegative, ...]
    by_few: int = 0  # of those tested, how many the first prompts showed not to be negative by `CALLED_NEGATIVE`


def places_outside(among: Restorations) -> Places:
    """Where each component is outside the circuit: at node level where it is ablated, at edge level everywhere."""
    return {component: among.places.get(component, Where.everywhere()) for component in among.components}


def model_negatives(
    plan: Plan,
    records: Records,
    metric: str,
    source: Source,
    places: Places,
    estimates: Callable[[], Mapping[NodeComponent, float]] | None,
    runner: RunsOnSome,
    lots: Lots = (),
) -> tuple[ModelNegatives | None, Plan, Records]:
    """Ablate the components at these places in the clean run, one by one, and name those that are negative.

    All of them; with `estimates` of what that changes, of more than `TESTED` those that should raise it most. Named are
    those that do significantly (one-sided, Benjamini-Hochberg over all of them) and by `CALLED_NEGATIVE`. Where the
    first `lots` of prompts show that one does not by so much, it is not run on the others.
    Returns plan and records with the runs it took; None where there is no ratio.
    """
    between = gap(records, metric, Anchors(plan.clean, plan.corrupt))
    if between.state != "sound":
        return None, plan, records
    chosen = _chosen(places, metric, estimates)
    runs = {c: ablating(source, {c: places[c]}) for c in chosen}
    clean = records[plan.clean][metric]
    least = CALLED_NEGATIVE * (clean - records[plan.corrupt][metric])
    found = raced(runs, metric, clean, least, records.templates, runner, lots)
    measured, runs = found.measured, {c: run for c, run in runs.items() if c not in found.dropped}
    differences = {c: measured[run][metric] - clean for c, run in runs.items()}
    tests = [stats.lowers(-worth(metric) * differences[c]) for c in runs]
    adjusted = stats.adjust([test.p_value for test in tests], len(places))
    shares = {c: float(differences[c].mean()) / between.difference.value for c in runs}
    named = [(c, p) for c, p in zip(runs, adjusted, strict=True) if p <= SIGNIFICANT and shares[c] >= CALLED_NEGATIVE]
    named.sort(key=lambda pair: (-shares[pair[0]], sort_key(pair[0])))
    labels = {run: f"{format_name(c)} ablated outside the circuit" for c, run in runs.items()}
    negatives = tuple(ModelNegative(format_name(c), float(differences[c].mean()), shares[c], p) for c, p in named)
    return (
        ModelNegatives(metric, len(places), len(chosen), negatives, len(found.dropped)),
        plan.naming(labels),
        records.merged(measured),
    )


def _chosen(
    places: Places, metric: str, estimates: Callable[[], Mapping[NodeComponent, float]] | None
) -> Sequence[NodeComponent]:
    if estimates is None or len(places) <= TESTED:
        return sorted(places, key=sort_key)
    expected = estimates()
    return sorted(places, key=lambda c: (-worth(metric) * expected[c], sort_key(c)))[:CHOSEN]
