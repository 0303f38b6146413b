"""What reports say of the dictionaries that a hypothesis uses: how well they fit, and what hangs on their errors.

Imports torch only where something is run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from circuitspec.analysis import metric_choice
from circuitspec.analysis.statistics.scores import Anchors, gap, mean_of
from circuitspec.analysis.statistics.wording import number
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.records import Records, RunsExperiments
from circuitspec.experiments.experiment import EVERYWHERE, ZEROS, Experiment, Site, SourcedSites
from circuitspec.experiments.planner import Plan
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.hypothesis_file.grammar.components import OF_DICTIONARY, DictionaryError

if TYPE_CHECKING:
    from circuitspec.engine.metrics.dictionary_fit import DictionaryFit
    from circuitspec.engine.runner import Runner


UNEXPLAINED = 0.5  # of the variance: dictionaries in use leave 0.05 to 0.3
CARRIED = 0.5  # of what is recovered: with less than that left, most of it was in the errors
SEE_TO = (
    "see that it was trained on this model and at this place, and what its tool does to values first: "
    "`centred`, `scale`, `skip_first`"
)


def fit_described(fit: DictionaryFit) -> str:
    """How well a dictionary fits, in a line."""
    if math.isnan(fit.unexplained):
        return f"dictionary {fit.name} of {fit.place}: nothing measured, every prompt is one token long"
    return (
        f"dictionary {fit.name} of {fit.place}: {100 * fit.unexplained:.3g} % of the variance unexplained, "
        f"{number(fit.active)} features active at a token, {fit.seen:,} of {fit.n_features:,} on these prompts"
    )


def little_explained(fit: DictionaryFit) -> tuple[str, str] | None:
    """What is said of a dictionary that explains little of its place (CS467), and what to see to; None for others."""
    if math.isnan(fit.unexplained):
        said = f"the dictionary {fit.name} was held against no value at {fit.place}: every prompt is one token long"
        return said, "use longer prompts: first tokens are left out, since their vectors are of another size"
    if fit.unexplained < UNEXPLAINED:
        return None
    said = (
        f"the dictionary {fit.name} does not explain the values at {fit.place}: "
        f"{100 * fit.unexplained:.3g} % of their variance is its error"
    )
    return said, SEE_TO


@dataclass(frozen=True)
class DictionaryFigures:
    """A dictionary's fit; the metric in the clean run, and with the value replaced by its reconstruction."""

    fit: DictionaryFit
    metric: str
    clean: float
    reconstructed: float

    def described(self) -> str:
        left = number(self.reconstructed) if math.isfinite(self.reconstructed) else "is not finite"
        return f"{fit_described(self.fit)}; with its error left out, {self.metric} {left} (clean {number(self.clean)})"


@dataclass(frozen=True)
class DictionariesUsed:
    """Of all of a hypothesis; and the circuit's recovered metric with the errors of all that it uses kept, ablated as
    all else outside the circuit, and left out, so that values are what features say alone.

    None where it is not defined, or nothing else is outside the circuit; `ablated` too where some dictionary's error
    is never ablated, since it is left out. `stay` says whether the hypothesis keeps them all.
    """

    each: tuple[DictionaryFigures, ...]
    metric: str
    kept: float | None
    ablated: float | None
    left_out: float | None
    stay: bool

    def described(self) -> str:
        lines = [one.described() for one in self.each]
        if self.kept is not None and self.left_out is not None:
            ablated = "" if self.ablated is None else f"{number(self.ablated)} with all of them ablated, "
            left = number(self.left_out) if math.isfinite(self.left_out) else "nothing that is finite"
            lines.append(
                f"the circuit recovers {self.metric} {number(self.kept)} with the error of every dictionary kept, "
                f"{ablated}{left} with all of them left out"
            )
        return "\n".join(lines)


def carried_by_errors(used: DictionariesUsed) -> tuple[str, str] | None:
    """What is said of a circuit that recovers little without the errors that it keeps (CS468), and what to see to."""
    kept, left_out = used.kept, used.left_out
    if not used.stay or kept is None or left_out is None or kept <= 0 or left_out > CARRIED * kept:
        return None
    left = number(left_out) if math.isfinite(left_out) else "nothing that is finite"
    said = (
        f"the circuit recovers {used.metric} {number(kept)} with what its dictionaries do not explain, and {left} "
        "without it"
    )
    hint = (
        "name the error in a group (sae:NAME.error) if it is part of the circuit; write `error: remove` to claim it of "
        "the features alone"
    )
    return said, hint


def dictionaries_used(
    plan: Plan, records: Records, graph: CircuitGraph, runner: Runner, stored: RunsExperiments
) -> DictionariesUsed | None:
    """Three runs for all dictionaries together, one for each, and a pass that records; None where there are none."""
    from circuitspec.engine.metrics.dictionary_fit import dictionary_fits

    fits = dictionary_fits(runner)
    if not fits:
        return None
    metric = metric_choice.for_other_methods(plan, records)
    sites = {one.name: DictionaryError(one.name, one.place.layer) for one in graph.shape.dictionaries}
    without = {name: Experiment("clean", ZEROS, frozenset({Site(error, EVERYWHERE)})) for name, error in sites.items()}
    used = {one.dictionary for one in graph.universe if isinstance(one, OF_DICTIONARY)}
    errors = frozenset(Site(error, EVERYWHERE) for name, error in sites.items() if name in used)
    circuit = plan.circuit
    runs: dict[str, Experiment] = {}
    if circuit.source is not None and circuit.level == "node" and errors:
        others = frozenset(site for site in circuit.sites if not isinstance(site.component, DictionaryError))
        if others:
            runs["kept"] = replace(circuit, sites=others)
            runs["left_out"] = replace(runs["kept"], beside=frozenset({SourcedSites(ZEROS, errors)}))
        if others and not any(one.error_left_out for one in graph.shape.dictionaries if one.name in used):
            runs["ablated"] = replace(circuit, sites=others | errors)
    clean, corrupt = (mean_of(records[run][metric]) for run in (plan.clean, plan.corrupt))
    each = tuple(DictionaryFigures(fit, metric, clean, _mean(stored, without[fit.name], metric)) for fit in fits)
    sound = gap(records, metric, Anchors(plan.clean, plan.corrupt)).state == "sound"
    recovered = {
        name: (_mean(stored, run, metric) - corrupt) / (clean - corrupt) for name, run in runs.items() if sound
    }
    kept, ablated, left_out = (recovered.get(name) for name in ("kept", "ablated", "left_out"))
    stay = all(one.error_stays for one in graph.shape.dictionaries if one.name in used)
    return DictionariesUsed(each, metric, kept, ablated, left_out, stay)


def _mean(stored: RunsExperiments, run: Experiment, metric: str) -> float:
    """nan where the run is not finite: what a bad dictionary says of a value may be beyond the model's dtype."""
    try:
        return mean_of(stored.run((run,))[run][metric])
    except CircuitspecError as error:
        if {finding.code for finding in error.diagnostics} != {"CS502"}:
            raise
        return math.nan
