"""What the noise of means adds to an interval and takes from its value, against arithmetic and a plain computation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as distributions

from circuitspec.analysis.claims.kinds.beats_random import PlannedRivals
from circuitspec.analysis.claims.means_error import (
    DOUBT,
    JACKKNIFED_DOUBT,
    MeansError,
    larger_size,
    largest_share,
    means_error,
    recovered,
    share_of,
)
from circuitspec.analysis.claims.verdict import judge
from circuitspec.analysis.statistics import stats
from circuitspec.analysis.warnings.means_warnings import MEANS_WARNINGS
from circuitspec.engine.records import Records
from circuitspec.experiments.averaging import grouping
from circuitspec.experiments.circuits.random_circuits import RandomCircuits
from circuitspec.experiments.experiment import Experiment, Own, Part, Without
from circuitspec.hypothesis_file.schema.claims.beats_random_block import BeatsRandom
from circuitspec.hypothesis_file.schema.claims.sufficient_block import Sufficient
from circuitspec.prompts.prompt_set import TokenizedTask
from circuitspec.prompts.reference_prompts import largest_size
from tests.analysis.support import CIRCUIT, CLEAN, CORRUPT, make_plan, warned
from tests.engine.support import task_of
from tests.engine.test_reference_means import prompts_of

METRIC = "logit_diff"
CLAIM = Sufficient(metric=METRIC, at_least=0.5)
Model = Callable[[Experiment], np.ndarray]


def themselves(n: int, layouts: int = 1) -> TokenizedTask:
    return task_of(prompts_of(0, [(i % layouts, 5, 1) for i in range(n)]))


def referring(n: int, others: int) -> TokenizedTask:
    return replace(themselves(n), reference=task_of(prompts_of(1, [(0, 5, 1)] * others)))


class Runs:
    """Runs experiments by a formula."""

    def __init__(self, task: TokenizedTask, model: Model) -> None:
        self.task, self.model = task, model

    def run(self, experiments: object) -> Records:
        values = {one: {METRIC: self.model(one)} for one in experiments}  # type: ignore[attr-defined]
        return Records(values, np.zeros(self.task.n, dtype=np.int64))


def found(task: TokenizedTask, model: Model, *, halves: bool = False) -> tuple[Records, MeansError]:
    runs, plan = Runs(task, model), make_plan(CLAIM)
    error = means_error(plan, task, runs, halves=halves)
    assert error is not None
    return runs.run([CLEAN, CORRUPT, CIRCUIT]), error


def part_of(experiment: Experiment) -> Part | None:
    return None if experiment.source is None else experiment.source.part


def damaged(task: TokenizedTask, harm: float, spread: float) -> Model:
    """Clean 1, corrupt 0; the circuit's score is 0.9 and noise of prompts, less `harm` over the number averaged."""
    groups = grouping(task, "mean_per_template")
    dice = np.random.default_rng(0).normal(0, spread, task.n)

    def scores(experiment: Experiment) -> np.ndarray:
        if not experiment.averages:
            return np.full(task.n, float(experiment.base == "clean"))
        return 0.9 + dice - dice.mean() - harm * groups.spread(part_of(experiment))

    return scores


@pytest.mark.parametrize("halves", [False, True])
def test_what_falls_off_with_one_over_the_number_averaged_is_corrected_exactly(halves: bool) -> None:
    """With 40 averaged, 4 / 40 is lost: 0.8 is measured where 0.9 is true. Parts of 10 show 4 / 10, halves 4 / 20."""
    records, error = found(referring(30, 40), damaged(referring(30, 40), 4.0, 0.1), halves=halves)
    estimate = recovered(records, (CIRCUIT, CORRUPT, CLEAN), METRIC, error)
    assert estimate.uncorrected == pytest.approx(0.8)
    assert estimate.value == pytest.approx(0.9)
    assert estimate.correction == pytest.approx(0.1)
    assert estimate.means_error == pytest.approx(DOUBT * 0.1)  # all parts agree: the doubt about the correction is left
    plain = stats.recovered(*(records[run][METRIC] for run in (CIRCUIT, CORRUPT, CLEAN)))
    assert estimate.interval is not None
    assert plain.interval is not None
    prompts = np.std(records[CIRCUIT][METRIC], ddof=1) / math.sqrt(30)
    stretch = math.hypot(prompts, DOUBT * 0.1) / prompts
    assert estimate.value - estimate.interval[0] == pytest.approx(stretch * (0.8 - plain.interval[0]), rel=1e-3)
    assert estimate.interval[1] - estimate.value == pytest.approx(stretch * (plain.interval[1] - 0.8), rel=1e-3)


def test_what_parts_of_a_reference_differ_by_is_in_the_interval() -> None:
    """A part moves all scores alike, by +3, -1, -1, -1 hundredths: a variance of 4e-4 for a fourth, 1e-4 for all."""
    task = referring(40, 80)
    groups = grouping(task, "mean_per_template")
    moves = np.array([0.03, -0.01, -0.01, -0.01])
    plain = damaged(task, 0.0, 0.05)

    def scores(experiment: Experiment) -> np.ndarray:
        moved = moves[np.array(groups.blocks)] if part_of(experiment) == Own(4) else 0.0
        return plain(experiment) + moved

    records, error = found(task, scores)
    estimate = recovered(records, (CIRCUIT, CORRUPT, CLEAN), METRIC, error)
    assert estimate.correction == pytest.approx(0.0, abs=1e-12)
    assert estimate.means_error == pytest.approx(0.01)
    own = stats.recovered(*(records[run][METRIC] for run in (CIRCUIT, CORRUPT, CLEAN)))
    assert own.interval is not None
    assert estimate.interval is not None
    prompts = np.std(records[CIRCUIT][METRIC], ddof=1) / math.sqrt(40)
    both = math.hypot(prompts, 0.01)
    degrees = both**4 / (prompts**4 / 39 + 0.01**4 / 3)
    t = distributions.t.ppf(0.975, [degrees, 39])
    wider = both / prompts * t[0] / t[1]
    assert estimate.interval[0] == pytest.approx(own.value - wider * (own.value - own.interval[0]))


def noisy(n: int, layouts: int, seed: int = 0) -> tuple[TokenizedTask, Model]:
    """Scores that depend on means of numbers of the prompts themselves, squares too."""
    task = themselves(n, layouts)
    groups = grouping(task, "mean_per_template")
    dice = np.random.default_rng(seed)
    own, carried = dice.normal(0, 0.3, n), dice.normal(0, 1.0, n)

    def scores(experiment: Experiment) -> np.ndarray:
        if not experiment.averages:
            return np.full(n, 3.0) + own if experiment.base == "clean" else own * 0.5
        part = part_of(experiment)
        kept = np.ones(n, bool) if part is None else np.array(groups.cells) != part.cell  # type: ignore[union-attr]
        means = [carried[kept & (np.array(groups.scored) == group)].mean() for group in groups.scored]
        return 2.5 + own + 0.2 * np.array(means) - 0.4 * np.array(means) ** 2

    return task, scores


@pytest.mark.parametrize(("n", "layouts"), [(10, 1), (24, 4), (60, 3)])
def test_the_delete_a_group_jackknife(n: int, layouts: int) -> None:
    task, scores = noisy(n, layouts)
    records, error = found(task, scores)
    estimate = recovered(records, (CIRCUIT, CORRUPT, CLEAN), METRIC, error)
    cells = np.array(grouping(task, "mean_per_template").cells)
    count = min(n, 12)
    assert set(cells) == set(range(count))

    def ratio(patched: np.ndarray, kept: np.ndarray) -> float:
        corrupt, clean = scores(CORRUPT)[kept], scores(CLEAN)[kept]
        return float((patched[kept].mean() - corrupt.mean()) / (clean.mean() - corrupt.mean()))

    whole = ratio(scores(CIRCUIT), np.ones(n, bool))
    left = [ratio(scores(CIRCUIT.over(Without(cell, count))), cells != cell) for cell in range(count)]
    pseudo = [count * whole - (count - 1) * one for one in left]
    assert estimate.uncorrected == pytest.approx(whole)
    assert estimate.value == pytest.approx(np.mean(pseudo))
    prompts = (
        np.std((scores(CIRCUIT) - scores(CORRUPT) - whole * (scores(CLEAN) - scores(CORRUPT))), ddof=1)
        / math.sqrt(n)
        / (scores(CLEAN).mean() - scores(CORRUPT).mean())
    )
    total = max(np.std(pseudo, ddof=1) / math.sqrt(count), prompts)
    spread = math.hypot(total, JACKKNIFED_DOUBT * estimate.correction)
    t = distributions.t.ppf(0.975, [count - 1, n - 1])
    own = stats.recovered(*(records[run][METRIC] for run in (CIRCUIT, CORRUPT, CLEAN)))
    assert own.interval is not None
    assert estimate.interval is not None
    wider = spread / prompts * max(1.0, t[0] / t[1])
    assert estimate.interval[1] == pytest.approx(estimate.value + wider * (own.interval[1] - own.value))
    assert estimate.method == "means"


def test_figures_without_means_are_as_they_were() -> None:
    task, scores = noisy(24, 1)
    records, error = found(task, scores)
    runs = (CORRUPT, CORRUPT, CLEAN)
    assert recovered(records, runs, METRIC, error) == recovered(records, runs, METRIC)


def test_no_claim_on_means_needs_no_further_runs() -> None:
    plan = make_plan(CLAIM)
    plain = replace(plan, claims=(replace(plan.claims[0], patched=CORRUPT),))
    assert means_error(plain, themselves(12), Runs(themselves(12), lambda run: np.zeros(12))) is None


def test_means_over_too_few_prompts_decide_nothing() -> None:
    task, scores = noisy(12, 4)  # three in each mean
    records, error = found(task, scores)
    plan = make_plan(CLAIM)
    (claim,) = judge(plan, records, error)
    assert claim.status == "INCONCLUSIVE"
    assert claim.estimate is None
    assert "3 prompts at the fewest" in claim.reason
    (warning,) = warned(MEANS_WARNINGS, plan, claims=[claim], means_error=error, task=task)
    assert warning.code == "CS404"
    assert "raise `task: prompts:` to 20 or more" in warning.help


def test_noisy_means_are_warned_of_with_what_would_do() -> None:
    """Their error is shown against the interval: a share of its length, and its square times as many prompts."""
    task = referring(40, 80)
    groups = grouping(task, "mean_per_template")
    moves = np.array([0.3, -0.1, -0.1, -0.1])
    plain = damaged(task, 0.0, 0.05)

    def scores(experiment: Experiment) -> np.ndarray:
        return plain(experiment) + (moves[np.array(groups.blocks)] if part_of(experiment) == Own(4) else 0.0)

    records, error = found(task, scores)
    plan = make_plan(CLAIM)
    claims = judge(plan, records, error)
    estimate = claims[0].estimate
    assert estimate is not None
    assert estimate.interval is not None
    share = 0.1 / (estimate.interval[1] - estimate.interval[0])
    assert share_of(estimate) == pytest.approx(share)
    assert largest_share(claims) == pytest.approx(share)
    assert share > 0.1
    (warning,) = warned(MEANS_WARNINGS, plan, claims=claims, means_error=error, task=task)
    assert warning.code == "CS404"
    assert warning.message.startswith("the means are noisy: their standard error is 0.10 of the ")
    assert warning.data["needed"] == math.ceil(1.2 * 80 * (share / 0.1) ** 2)
    assert warning.help == f"write `reference: {warning.data['needed']}`"


def test_many_runs_hold_the_means_fixed_which_is_said() -> None:
    plan = make_plan(CLAIM)
    rivals = RandomCircuits(kept=(), knocked_out=())
    many = PlannedRivals(1, BeatsRandom(metric=METRIC), CIRCUIT, CLEAN, CORRUPT, "share beaten", rivals=rivals)
    task, scores = noisy(24, 1)
    records, error = found(task, scores)
    claims = judge(plan, records, error)
    both = replace(plan, claims=(*plan.claims, many))
    codes = [one.code for one in warned(MEANS_WARNINGS, both, claims=claims, means_error=error, task=task)]
    assert "CS434" in codes
    quiet = referring(30, 40)
    records, error = found(quiet, damaged(quiet, 0.0, 0.1))
    claims = judge(plan, records, error)
    assert warned(MEANS_WARNINGS, both, claims=claims, means_error=error, task=quiet) == ()


def test_fewer_others_than_asked_for() -> None:
    task = referring(30, 40)
    records, error = found(task, damaged(task, 0.0, 0.1))
    plan = make_plan(CLAIM)
    claims = judge(plan, records, error)
    (warning,) = warned(MEANS_WARNINGS, plan, claims=claims, means_error=error, task=task, asked=500)
    assert warning.code == "CS435"
    assert warning.data == {"asked": 500, "averaged": 40}


@pytest.mark.parametrize(
    ("share", "now", "size"),
    [(0.09, 100, None), (0.2, 100, 480), (0.101, 100, 200), (3.0, 100, 800), (0.3, 2900, 3200), (0.5, 3200, None)],
)
def test_how_many_more_are_drawn(share: float, now: int, size: int | None) -> None:
    """1.2 times what a tenth would take, at least twice and at most eight times as many, up to 32 times the scored."""
    assert largest_size(100) == 3200
    assert larger_size(100, now, share) == size
