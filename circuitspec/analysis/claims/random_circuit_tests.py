"""The circuit against random ones: what share of them it beats, and the tests of Shi et al. (2024) on a whole plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from circuitspec.analysis.statistics import hypothesis_tests as tests
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.scores import Anchors, mean_of, worth
from circuitspec.analysis.statistics.stats import Values
from circuitspec.engine.records import Records
from circuitspec.experiments.circuits.circuit_tests import TestRuns
from circuitspec.experiments.experiment import Experiment
from circuitspec.prompts.output_metrics import METRICS

ALPHA = 0.05
ROUNDING = 1e-5  # of a score: what single precision may make of two runs that do the same


@dataclass(frozen=True)
class Beaten:
    """The share of random circuits that score less than the circuit, and the test that it beats most of them.

    The interval is the exact one of Clopper and Pearson, at a level at which its lower end is at least the quantile
    just where the test rejects.
    """

    share: Estimate
    test: tests.HypothesisTest


@dataclass(frozen=True)
class CircuitTests:
    """All tests of one circuit by one metric, corrected together (Holm); `not_run` says what could not be tested."""

    metric: str
    tests: tuple[tests.HypothesisTest, ...]
    not_run: tuple[str, ...] = ()
    alpha: float = ALPHA


def beaten(
    records: Records,
    metric: str,
    circuit: Experiment,
    rivals: Sequence[Experiment],
    quantile: float,
    at_most_p: float,
    between: Anchors | None = None,
) -> Beaten:
    """How many of the random circuits (as often as they were drawn) the circuit beats by its mean over prompts.

    A metric that has no better end is better the nearer it is to the clean one of the anchors that it lies `between`.
    """
    sign = _sign(metric, records, between)
    others = [sign * mean_of(records[run][metric]) for run in rivals]
    rounding = _rounding(records, metric, (circuit, *rivals))
    test = tests.sufficiency(sign * mean_of(records[circuit][metric]), others, quantile=quantile, rounding=rounding)
    wins, level = round(test.statistic * test.n), 1 - 2 * at_most_p
    interval = scipy.stats.binomtest(wins, test.n).proportion_ci(level, method="exact")
    return Beaten(Estimate(wins / test.n, float(interval.low), float(interval.high), level, test.n, "exact"), test)


def circuit_tests(runs: TestRuns, records: Records, metric: str) -> CircuitTests:
    """Shi et al.'s tests: equivalence, independence, minimality, sufficiency and partial necessity.

    Scores are signed so that more is better, as `beaten` says. Raises CS511 for scores that are not finite.
    """
    sign = _sign(metric, records, Anchors(runs.model, runs.anchor))

    def scores(run: Experiment) -> Values:
        return sign * records[run][metric]

    def mean(run: Experiment) -> float:
        return sign * mean_of(records[run][metric])

    circuit, model = scores(runs.circuit), scores(runs.model)
    rounding = _rounding(records, metric, (runs.circuit, runs.model))
    strata = records.templates if len(set(records.templates.tolist())) > 1 else None
    found = [
        tests.equivalence(circuit, model, rounding=rounding),
        tests.equivalence_shown(circuit, model, rounding=rounding),
        tests.independence(scores(runs.knocked_out), model, strata=strata, rounding=rounding),
    ]
    if runs.rivals is not None:
        kept = [mean(run) for run in runs.rivals.kept]
        damages = [mean(runs.model) - mean(run) for run in runs.rivals.knocked_out]
        found.append(tests.sufficiency(mean(runs.circuit), kept, rounding=rounding))
        damage = mean(runs.model) - mean(runs.knocked_out)
        found.append(tests.partial_necessity(damage, damages, rounding=rounding))
    if runs.without:
        effects = {name: abs(mean(runs.circuit) - mean(run)) for name, run in runs.without.items()}
        others = [abs(mean(run) - mean(runs.circuit)) for run in runs.enlarged]
        found += tests.minimality(effects, others, rounding=rounding)
    return CircuitTests(metric, tests.corrected(found), runs.not_run)


def _rounding(records: Records, metric: str, runs: Sequence[Experiment]) -> float:
    """How far two runs' scores may lie apart that do the same: by the largest score of a prompt in these runs."""
    return ROUNDING * max(float(np.abs(records[run][metric]).max()) for run in runs)


def _sign(metric: str, records: Records, between: Anchors | None) -> int:
    """1 where more of the metric is better, -1 where less is: of one inside the model, where the clean run has less."""
    if metric in METRICS or between is None:
        return worth(metric)
    return -1 if mean_of(records[between.clean][metric]) < mean_of(records[between.corrupt][metric]) else 1
