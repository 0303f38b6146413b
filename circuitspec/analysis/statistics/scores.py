"""What an experiment scores: means, and means placed between the corrupt and the clean anchor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from circuitspec.analysis.statistics import stats
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.engine.records import Records
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.planner import Plan
from circuitspec.prompts.output_metrics import METRICS

LOWER_IS_BETTER = frozenset(name for name, metric in METRICS.items() if metric.better == "lower")

MATERIAL = 0.01  # of M(clean) - M(corrupt); what changes less is no reason to doubt a verdict

GapState = Literal["sound", "zero", "inverted"]


@dataclass(frozen=True)
class Anchors:
    """The two runs that recovered performance is measured between: 1 at `clean`, 0 at `corrupt`."""

    clean: Experiment
    corrupt: Experiment


@dataclass(frozen=True)
class Gap:
    """The denominator of recovered performance, M(clean) - M(corrupt).

    "zero": its interval contains zero, no ratio exists. "inverted": the corrupt run does the task
    *better*, so that a ratio exists and means nothing.
    """

    metric: str
    clean: float
    corrupt: float
    difference: Estimate
    state: GapState
    clean_error: float = 0.0  # standard error of `clean`


@dataclass(frozen=True)
class Score:
    """One experiment by one metric, in the metric's own units and relative to its anchors.

    `recovered` and `ratio` (to clean) are None where their denominator is zero, inverted or not finite.
    """

    metric: str
    mean: float
    recovered: float | None
    ratio: float | None


def anchors(plan: Plan, experiment: Experiment) -> Anchors:
    """The anchors that the plan gives the experiment: its claim's or method's, else the plan's own.

    A mediation takes a share of another patched run, which is no anchor of recovered performance.
    """
    for planned in plan.claims:
        if experiment in planned.anchored and planned.between_behaviours:
            return Anchors(*planned.anchored[experiment])
    return Anchors(*plan.beside.get(experiment, (plan.clean, plan.corrupt)))


def mean_of(values: stats.Values) -> float:
    """Mean over prompts, nan unless all values are finite."""
    return float(np.mean(values)) if np.isfinite(values).all() else math.nan


def gap(records: Records, metric: str, between: Anchors) -> Gap:
    """How far apart the anchors are. Raises CS511 where a value is not finite."""
    clean, corrupt = records[between.clean][metric], records[between.corrupt][metric]
    stats.require_finite(clean, f"{metric} in the clean anchor")
    stats.require_finite(corrupt, f"{metric} in the corrupt anchor")
    difference = stats.mean_difference(clean, corrupt)
    state: GapState = "sound"
    if difference.may_be(0.0):
        state = "zero"
    elif metric in METRICS and (difference.value < 0) != (metric in LOWER_IS_BETTER):  # others have no better end
        state = "inverted"
    return Gap(metric, mean_of(clean), mean_of(corrupt), difference, state)


def gaps(records: Records, between: Anchors) -> dict[str, Gap]:
    """The gap of every metric that both anchors have and that is finite on all prompts."""
    clean, corrupt = records[between.clean], records[between.corrupt]
    return {
        metric: gap(records, metric, between)
        for metric in clean
        if metric in corrupt and np.isfinite(clean[metric]).all() and np.isfinite(corrupt[metric]).all()
    }


def denominators(plan: Plan, records: Records) -> dict[Anchors, dict[str, Gap]]:
    """The gaps between every pair of anchors that the plan uses, by metric."""
    pairs = [Anchors(planned.clean, planned.corrupt) for planned in plan.claims]
    pairs += [Anchors(*pair) for planned in plan.claims for pair in planned.anchored.values()]
    pairs += [Anchors(*pair) for pair in plan.beside.values()]
    return {pair: gaps(records, pair) for pair in dict.fromkeys([*pairs, Anchors(plan.clean, plan.corrupt)])}


def score(records: Records, experiment: Experiment, metric: str, denominator: Gap | None) -> Score:
    """The experiment's score; `denominator` is the metric's gap, None where it has none.

    What is scored by other answers than the anchors recovers nothing of what lies between them.
    """
    mean = mean_of(records[experiment][metric])
    if experiment.expected != "clean" or denominator is None or denominator.state != "sound" or math.isnan(mean):
        return Score(metric, mean, None, None)
    recovered = (mean - denominator.corrupt) / (denominator.clean - denominator.corrupt)
    return Score(metric, mean, recovered, _ratio(mean, metric, denominator))


def _ratio(mean: float, metric: str, denominator: Gap) -> float | None:
    """M(patched) / M(clean), for metrics whose zero means something and whose clean mean is clearly not zero."""
    if metric not in METRICS or METRICS[metric].better == "lower" or METRICS[metric].unit == "nats":
        return None
    return mean / denominator.clean if abs(denominator.clean) > 2 * denominator.clean_error else None


def worth(metric: str) -> int:
    """1 where more of the metric is better, -1 where less is."""
    return -1 if metric in LOWER_IS_BETTER else 1
