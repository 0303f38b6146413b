"""Intervals that may be looked at while prompts come in: confidence sequences.

An interval of a fixed number of prompts holds the truth in 95 of 100 samples when it is looked at once. Looked at after
every batch, with a stop when it says what one hopes for, it does not. The intervals here hold the truth *at all numbers
of prompts at once* with that chance, so that any rule may say when to stop.

Bounded values (shares of prompts, probabilities): a bet on the mean (Waudby-Smith and Ramdas 2024, "Estimating means of
bounded random variables by betting"). If the mean were m, no bet on values lying above m, or below it, would win money
in the long run; an m against which one of the two bets has multiplied its stake is left out. Each stake is spread
evenly over a grid of bets (their diversified Kelly bets), half of it on either side. This holds for any number of
prompts and any distribution, and in any order: with bets that are fixed beforehand the inequality of arithmetic and
geometric means allows prompts to come from templates in rotation, each with a mean of its own.

Everything else, and ratios of it: an asymptotic confidence sequence (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas
2024, "Time-uniform central limit theory and asymptotic confidence sequences"), which is Robbins' normal mixture with
the spread of the prompts so far in place of the true one. A ratio is looked at as the mean of top - ratio * bottom,
which is zero at the true ratio (Fieller), so that nothing is linearised around an estimate. It holds for many prompts;
where it is first looked at after few, a t quantile stands in for the normal's, as in intervals of a fixed number, and
the side to which the prompts' values have their tail gets what skew does to a t statistic (Hall 1992).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from circuitspec.analysis.statistics import stats
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.stats import LEVEL, Values

FIRST_LOOK = 20  # prompts: with fewer the spread is too uncertain for an asymptotic sequence

BETS = ((np.arange(20) + 0.5) / 20) ** 1.5  # shares of the largest bet that cannot lose more than its stake
_HALVINGS = 30  # of an interval that an end lies in
_WIDEST = 10.0  # ratios of bounded values are looked for between minus this and this
_NO_SKEW = 1e-9
_GRID = 401  # places in between that are looked at first

Range = tuple[float, float]
"""The least and the largest value that there can be."""


def betting_ends(
    values: ArrayLike, *, level: float = LEVEL, within: Range = (0.0, 1.0)
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The ends of the betting sequence of a mean, after all of `values` `[..., prompt]`: two arrays `[...]`.

    Raises ValueError where a value lies outside `within`, or is not finite.
    """
    low, high = within
    array = np.asarray(values, dtype=np.float64)
    if not (np.isfinite(array).all() and (array >= low).all() and (array <= high).all()):
        raise ValueError(f"values do not all lie between {low} and {high}")
    shares, counts = (array - low) / (high - low), np.ones(array.shape[-1])
    if shares.ndim == 1:
        shares, counted = np.unique(shares, return_counts=True)
        counts = counted.astype(np.float64)
    below = _least_mean(shares, counts, (1 - level) / 2)
    above = 1 - _least_mean(1 - shares, counts, (1 - level) / 2)
    return low + (high - low) * below, low + (high - low) * above


def betting_mean(values: Values, *, level: float = LEVEL, within: Range = (0.0, 1.0)) -> Estimate:
    """The mean of bounded values `[prompt]` with the betting sequence's interval."""
    below, above = betting_ends(values, level=level, within=within)
    return Estimate(float(np.mean(values)), float(below), float(above), level, len(values), "betting")


def _least_mean(shares: NDArray[np.float64], counts: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    """The largest m in [0, 1] against which bets on values above it have multiplied their stake by 1 / `alpha`.

    What a bet is worth falls with m, so that the end is found by halving. 0 where there is none.
    """
    wanted = math.log(1 / alpha)
    low, high = np.zeros(shares.shape[:-1]), np.ones(shares.shape[:-1])
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        won = _worth(shares / middle[..., None] - 1, counts) >= wanted
        low, high = np.where(won, middle, low), np.where(won, high, middle)
    return low


def _worth(stakes: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """The log of what a stake of 1, spread over the bets, has become: the mean over f of prod(1 + f stake).

    `stakes` `[..., value]` are no less than -1; each counts so many times.
    """
    logs = np.log1p(np.multiply.outer(BETS, stakes)) @ counts
    largest = logs.max(axis=0)
    return np.asarray(largest + np.log(np.mean(np.exp(logs - largest), axis=0)))


def betting_ratio(
    patched: Values, zero: Values, one: Values, *, level: float = LEVEL, within: Range = (0.0, 1.0)
) -> Estimate:
    """Recovered performance (`stats.recovered`) of a bounded metric, with an interval by betting.

    At the true ratio r the values p - z - r (o - z) have mean zero, and they are bounded. The interval goes from the
    least to the largest r that no bet has won against; there is none where ratios beyond 10 are not excluded, as where
    the anchors cannot be told apart. Raises ValueError where a value lies outside `within`, ZeroDivisionError where the
    means of the anchors are equal.
    """
    low, high = within
    runs = [(np.asarray(run, dtype=np.float64) - low) / (high - low) for run in (patched, zero, one)]
    if any(not np.isfinite(run).all() or run.min() < 0 or run.max() > 1 for run in runs):
        raise ValueError(f"values do not all lie between {low} and {high}")
    top, bottom = runs[0] - runs[1], runs[2] - runs[1]
    if bottom.mean() == 0:
        raise ZeroDivisionError("the mean of the denominator is zero")
    value, n = float(top.mean() / bottom.mean()), len(top)
    pairs, counted = np.unique(np.stack([top, bottom], axis=-1), axis=0, return_counts=True)
    counts = counted.astype(np.float64)
    wanted = math.log(2 / (1 - level))

    def excluded(ratio: float) -> bool:
        return bool(_worth_of_zero(pairs, counts, np.array([ratio]))[0] >= wanted)

    places = np.linspace(-_WIDEST, _WIDEST, _GRID)
    kept = np.flatnonzero(_worth_of_zero(pairs, counts, places) < wanted)
    inside = [float(places[i]) for i in kept]
    if not excluded(value):
        inside.append(value)
    if not inside or (len(kept) and (kept[0] == 0 or kept[-1] == _GRID - 1)):
        return Estimate(value, None, None, level, n, "none")
    step = 2 * _WIDEST / (_GRID - 1)
    ends = [_end(excluded, min(inside), -step), _end(excluded, max(inside), step)]
    return Estimate(value, ends[0], ends[1], level, n, "betting")


def _end(excluded: Any, inside: float, step: float) -> float:
    """Where exclusion begins between a ratio that is not excluded and one further out that is."""
    outside = inside + step
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if excluded(middle) else (middle, outside)
    return outside


def _worth_of_zero(
    pairs: NDArray[np.float64], counts: NDArray[np.float64], ratios: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The log of what the better of two stakes has become that bet on top - ratio * bottom being above, or below, 0."""
    values = pairs[:, 0] - ratios[:, None] * pairs[:, 1]
    rest = ratios[:, None]
    least = np.maximum(0.0, rest) + np.maximum(0.0, 1 - rest)  # p - r o - (1 - r) z is no less than minus this, ..
    most = 1 + np.maximum(0.0, -rest) + np.maximum(0.0, rest - 1)  # .. and no more than this
    return np.maximum(_worth(values / least, counts), _worth(-values / most, counts))


def standard_errors(relative: ArrayLike, level: float = LEVEL) -> NDArray[np.float64]:
    """How many standard errors wide on either side Robbins' normal mixture is.

    `relative` is the squared standard error as a multiple of the mixture's variance (`1 / (n rho^2)` in the papers).
    The truth lies within so many standard errors, whatever their number, with a chance of `level`. An error that all
    prompts share (that of means) may be part of the standard error, if it is normal: integrated over, it is a constant
    that is added to the variance of both hypotheses that the mixture compares.
    """
    v = np.asarray(relative, dtype=np.float64)
    return np.asarray(np.sqrt((1 + v) * (2 * math.log(1 / (1 - level)) + np.log1p(1 / v))))


def mixture_precision(tuned_for: float, level: float = LEVEL) -> float:
    """The mixture's variance, as a multiple of a prompt's, that makes the sequence narrowest after so many prompts."""
    a = 2 * math.log(1 / (1 - level))
    return (a + math.log(a) + 1) / tuned_for


def asymptotic_ends(
    values: ArrayLike, *, tuned_for: float, level: float = LEVEL
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The ends of the asymptotic sequence of a mean, after all of `values` `[..., prompt]`: two arrays `[...]`.

    It is narrowest after `tuned_for` prompts, which must be chosen before any are seen. Infinite before `FIRST_LOOK`.
    Raises ValueError for values that are not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError("values are not finite")
    n = array.shape[-1]
    means = array.mean(axis=-1)
    if n < FIRST_LOOK:
        return np.full_like(means, -math.inf), np.full_like(means, math.inf)
    normal = float(standard_errors(1 / (n * mixture_precision(tuned_for, level)), level))
    flat = array.reshape(-1, n)
    errors = array.std(axis=-1, ddof=1) / math.sqrt(n)
    times = [_either_side(_t_for(normal, stats.freedom_of(one)), _skew(one) / math.sqrt(n)) for one in flat]
    below, above = (np.asarray(side).reshape(means.shape) for side in zip(*times, strict=True))
    return means - below * errors, means + above * errors


def asymptotic_ratio(
    top: Values,
    bottom: Values,
    *,
    tuned_for: float,
    level: float = LEVEL,
    shared_error: float = 0.0,
    correction: float = 0.0,
    freedom: float = math.inf,
) -> Estimate:
    """mean(top) / mean(bottom) with the asymptotic sequence's interval; both are `[prompt]`.

    `shared_error` is a standard error of the ratio that all prompts share, known with so many degrees of `freedom`; the
    interval is moved by `correction`. Without an interval before `FIRST_LOOK`, and where the sequence of the mean of
    `bottom` itself holds zero. Raises ZeroDivisionError where the mean of `bottom` is zero.
    """
    n, t, b = len(top), float(top.mean()), float(bottom.mean())
    if b == 0:
        raise ZeroDivisionError("the mean of the denominator is zero")
    own = t / b
    value = own + correction
    told: dict[str, Any] = {"correction": correction, "means_error": shared_error or None}
    if n < FIRST_LOOK or not math.isfinite(shared_error):
        return Estimate(value, None, None, level, n, "none", **told)
    residuals = top - own * bottom
    if stats.is_constant(top, own * bottom) and not shared_error:
        return Estimate(value, value, value, level, n, "constant", **told)
    tt, tb, bb = (float(one) / n for one in np.cov(top, bottom)[np.triu_indices(2)])
    prompts, shared = float(residuals.var(ddof=1)) / n, (shared_error * b) ** 2
    variance = prompts + shared
    spread = prompts * n * mixture_precision(tuned_for, level)
    normal = (
        float(standard_errors(variance / spread, level)) if spread else float(scipy.stats.norm.isf((1 - level) / 2))
    )
    weighed = prompts**2 / stats.freedom_of(residuals) + shared**2 / freedom
    times = _t_for(normal, variance**2 / weighed if weighed else math.inf)
    skew = _skew(residuals) / math.sqrt(n) * (prompts / variance) ** 1.5
    ends = []
    for many, side in zip(_either_side(times, skew)[:: 1 if b > 0 else -1], (-1, 1), strict=True):
        square = b**2 - many**2 * bb
        if square <= 0:
            return Estimate(value, None, None, level, n, "none", **told)
        middle, rest = t * b - many**2 * tb, t**2 - many**2 * (tt + shared)
        ends.append((middle + side * math.sqrt(max(0.0, middle**2 - square * rest))) / square + correction)
    return Estimate(value, ends[0], ends[1], level, n, "asymptotic", **told)


def asymptotic_mean(values: Values, *, tuned_for: float, level: float = LEVEL) -> Estimate:
    """The mean of values `[prompt]` with the asymptotic sequence's interval; none before `FIRST_LOOK`."""
    return asymptotic_ratio(values, np.ones_like(values), tuned_for=tuned_for, level=level)


def _t_for(normal: float, freedom: float) -> float:
    """The t quantile with the tail that the normal distribution has beyond `normal`."""
    if math.isinf(freedom):
        return normal
    return float(scipy.stats.t.isf(scipy.stats.norm.sf(normal), freedom))


def _skew(values: Values) -> float:
    """Skewness; 0 of values that are all the same."""
    return float(scipy.stats.skew(values)) if np.ptp(values) else 0.0


def _either_side(times: float, skew: float) -> tuple[float, float]:
    """By how many standard errors an interval of `times` of them goes below a mean of this `skew`, and above it.

    Hall's transformation (`stats.lowers`) makes a t statistic as likely on the one side as on the other; the interval
    is that of both the statistic and the transformed one.
    """
    a, b = skew / 3, skew / 6

    def back(transformed: float) -> float:
        if abs(a) < _NO_SKEW:
            return transformed - b
        return float((np.cbrt(1 + 3 * a * (transformed - b)) - 1) / a)

    return max(times, back(times)), max(times, -back(-times))


def intersected(looks: Sequence[Estimate]) -> Estimate:
    """The last of several looks at one sequence, with what all of them leave: they all hold the truth, or one misses.

    Without an interval where they leave nothing, which happens as seldom as a sequence misses the truth.
    """
    last = looks[-1]
    known = [look.interval for look in looks if look.interval is not None]
    if last.interval is None or not known:
        return last
    low, high = max(one[0] for one in known), min(one[1] for one in known)
    if low > high:
        return Estimate(last.value, None, None, last.level, last.n, "none", last.correction, last.means_error)
    return Estimate(last.value, low, high, last.level, last.n, last.method, last.correction, last.means_error)
