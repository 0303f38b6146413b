"""Confidence sequences: exact chances by counting, the papers' formulas, and ratios from their definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy

from circuitspec.analysis.statistics import stats
from circuitspec.analysis.statistics.confidence_sequences import (
    BETS,
    FIRST_LOOK,
    asymptotic_ends,
    asymptotic_mean,
    asymptotic_ratio,
    betting_ends,
    betting_mean,
    betting_ratio,
    intersected,
    mixture_precision,
    standard_errors,
)
from circuitspec.analysis.statistics.estimate import Estimate


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_betting_misses_a_share_at_any_time_with_the_chance_that_it_says(share: float) -> None:
    """The chance that the share is ever outside in 60 prompts, counted out exactly over the number of hits."""
    reached = {0: 1.0}  # hits -> chance of having them, and of not having missed so far
    missed = 0.0
    for n in range(1, 61):
        after: dict[int, float] = {}
        for hits, chance in reached.items():
            after[hits] = after.get(hits, 0.0) + chance * (1 - share)
            after[hits + 1] = after.get(hits + 1, 0.0) + chance * share
        reached = {}
        rows = np.tril(np.ones((n + 1, n)), -1)  # [hits, prompt]
        low, high = betting_ends(rows)
        for hits, chance in after.items():
            if low[hits] <= share <= high[hits]:
                reached[hits] = chance
            else:
                missed += chance
    assert 0 < missed <= 0.05


def test_betting_on_hits_alone_is_worth_what_the_bets_say() -> None:
    n = 40
    low = scipy.optimize.brentq(lambda m: np.mean((1 - BETS + BETS / m) ** n) - 2 / 0.05, 0.5, 1)
    found = betting_mean(np.ones(n))
    assert found.low == pytest.approx(low, abs=1e-6)
    assert found.high == pytest.approx(1, abs=1e-6)
    scaled = betting_mean(np.full(n, 3.0), within=(-1.0, 3.0))
    assert scaled.low == pytest.approx(4 * low - 1, abs=1e-5)


def test_betting_takes_many_means_at_once_and_any_order() -> None:
    values = np.random.default_rng(0).random((3, 25))
    low, high = betting_ends(values)
    for row, below, above in zip(values, low, high, strict=True):
        alone = betting_mean(row[::-1])
        assert (alone.low, alone.high) == (pytest.approx(below, abs=1e-6), pytest.approx(above, abs=1e-6))


def test_betting_refuses_what_lies_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"between 0\.0 and 1\.0"):
        betting_mean(np.array([0.5, 1.1]))


def test_a_ratio_of_shares_ends_where_a_bet_has_won() -> None:
    """With anchors at 0 and 1 on every prompt, stakes at a ratio r in [0, 1] are hit - r, and their opposite."""
    hits = np.repeat([1.0, 0.0], [30, 10])
    found = betting_ratio(hits, np.zeros(40), np.ones(40))

    def won(r: float, side: int) -> float:
        return float(np.mean((1 + side * BETS * (1 - r)) ** 30 * (1 - side * BETS * r) ** 10)) - 2 / 0.05

    assert found.value == 0.75
    assert found.low == pytest.approx(scipy.optimize.brentq(won, 0, 0.75, args=(1,)), abs=1e-5)
    assert found.high == pytest.approx(scipy.optimize.brentq(won, 0.75, 1, args=(-1,)), abs=1e-5)


def test_no_ratio_of_shares_where_the_anchors_are_not_apart() -> None:
    zero, one = np.tile([1.0, 0.0], 20), np.tile([1.0, 0.0, 0.0, 1.0, 1.0], 8)
    assert betting_ratio(one, zero, one).interval is None


def test_the_mixture_is_that_of_the_paper() -> None:
    """Waudby-Smith et al. 2024: sigma sqrt(2 (t rho^2 + 1) / (t^2 rho^2) log(sqrt(t rho^2 + 1) / alpha))."""
    for t, rho, alpha in ((20, 0.4, 0.05), (300, 0.2, 0.01)):
        paper = math.sqrt(2 * (t * rho**2 + 1) / (t**2 * rho**2) * math.log(math.sqrt(t * rho**2 + 1) / alpha))
        assert standard_errors(1 / (t * rho**2), 1 - alpha) / math.sqrt(t) == pytest.approx(paper)


def test_the_mixture_is_narrowest_where_it_is_tuned() -> None:
    def width(tuned: float) -> float:
        return float(standard_errors(1 / (100 * mixture_precision(tuned))))

    assert width(100) == pytest.approx(min(map(width, range(20, 500, 5))), rel=1e-3)


def test_a_ratio_ends_where_its_mean_is_so_many_errors_from_zero() -> None:
    dice = np.random.default_rng(1)
    bottom = 3 + dice.standard_normal(60)
    top = 0.8 * bottom + 0.5 * dice.standard_normal(60)
    found = asymptotic_ratio(top, bottom, tuned_for=40)
    assert found.interval is not None
    residuals = top - found.value * bottom
    skew = float(scipy.stats.skew(residuals))
    away = []
    for end in found.interval:
        rest = top - end * bottom
        away.append(rest.mean() / rest.std(ddof=1) * math.sqrt(60))
    normal = float(standard_errors(1 / (60 * mixture_precision(40))))
    usual = float(scipy.stats.t.isf(scipy.stats.norm.sf(normal), stats.freedom_of(residuals)))

    def hall(t: float) -> float:
        a = skew / math.sqrt(60)
        return t + a * t**2 / 3 + a**2 * t**3 / 27 + a / 6

    assert min(away[0], hall(away[0])) == pytest.approx(usual)
    assert max(away[1], hall(away[1])) == pytest.approx(-usual)


def test_a_ratio_below_zero_mirrors_the_one_above() -> None:
    """Skewed values, whose interval is longer on one side: turned round, it is so on the other."""
    dice = np.random.default_rng(5)
    bottom, top = 3 + dice.standard_normal(40), dice.exponential(size=40)
    one = asymptotic_ratio(top, bottom, tuned_for=40)
    for other in (asymptotic_ratio(-top, bottom, tuned_for=40), asymptotic_ratio(top, -bottom, tuned_for=40)):
        assert one.interval is not None
        assert other.interval == pytest.approx((-one.interval[1], -one.interval[0]))


def test_a_mean_is_a_ratio_to_one() -> None:
    values = np.random.default_rng(2).exponential(size=(2, 50))
    low, high = asymptotic_ends(values, tuned_for=30)
    for row, below, above in zip(values, low, high, strict=True):
        assert asymptotic_mean(row, tuned_for=30).interval == pytest.approx((below, above))


def test_an_error_that_prompts_share_stays_whatever_their_number() -> None:
    """With a great many prompts what is left is the shared error's own interval, a little wider for being looked at."""
    values = np.random.default_rng(3).standard_normal(40000)
    found = asymptotic_ratio(1 + values, np.ones(40000), tuned_for=50, shared_error=0.1, correction=0.2)
    assert found.interval is not None
    assert found.value == pytest.approx(1.2, abs=0.02)
    half = (found.interval[1] - found.interval[0]) / 2
    assert 0.196 < half < 0.4


def test_no_interval_before_the_first_look_or_without_a_denominator() -> None:
    dice = np.random.default_rng(4)
    assert asymptotic_mean(dice.standard_normal(FIRST_LOOK - 1), tuned_for=50).interval is None
    bottom = dice.standard_normal(50)
    assert asymptotic_ratio(dice.standard_normal(50), bottom, tuned_for=50).interval is None


def test_looks_at_one_sequence_leave_what_all_of_them_leave() -> None:
    def look(low: float, high: float) -> Estimate:
        return Estimate((low + high) / 2, low, high, 0.95, 20, "betting")

    assert intersected([look(0.1, 0.9), look(0.3, 1.0)]).interval == (0.3, 0.9)
    assert intersected([look(0.1, 0.2), look(0.3, 0.4)]).interval is None
