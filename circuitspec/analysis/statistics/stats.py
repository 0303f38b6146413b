"""Statistics over prompts: bootstrap intervals for means and for ratios of means, and paired tests.

Prompts are the units: a clean prompt and its corrupted twin are drawn together, as a pair, so that
numerator and denominator of a ratio always come from the same prompts. All functions are deterministic
(fixed seed) and their memory does not grow with the number of prompts times resamples.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy
from numpy.typing import NDArray

from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic

Values = NDArray[np.float64]  # [prompt]

LEVEL = 0.95
RESAMPLES = 9999
SEED = 0

EXACT_MAX = 13  # sign patterns are enumerated up to 2 ** 13 of them
_CELLS = 2**20  # resamples are drawn in batches of at most this many (resample, prompt) cells
_FEWEST = 5  # degrees of freedom of an interval's t distribution
_COUNTED = 8  # distinct values at most, of prompts that are right or wrong in each of three runs
_TIE = 1e-4  # of the standard error
_ROUNDING = 1e-12  # relative; differences below it are rounding


def require_finite(values: Values, what: str) -> None:
    """Raises CS511, naming `what` and the first offending prompts, unless all `values` are finite."""
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        shown = ", ".join(str(i) for i in bad[:5]) + (", ..." if len(bad) > 5 else "")
        raise CircuitspecError(
            Diagnostic(
                "CS511",
                f"{what} is not finite for {len(bad)} of {len(values)} prompts (prompt {shown})",
                hint="run with `dtype: float32`, or look at these prompts: the model's output overflowed there",
                data={"what": what, "prompts": [int(i) for i in bad]},
            )
        )


def mean(
    values: Values, *, what: str = "values", level: float = LEVEL, resamples: int = RESAMPLES, seed: int = SEED
) -> Estimate:
    """Mean over prompts. Raises CS511 for values that are not finite."""
    return _ratio_of_means(_finite(values, what), None, level, resamples, seed)


def mean_difference(
    left: Values, right: Values, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = SEED
) -> Estimate:
    """Mean over prompts of `left - right`, paired. Raises CS511 for values that are not finite."""
    left, right = _paired(left=left, right=right)
    return mean(left - right, level=level, resamples=resamples, seed=seed)


def recovered(
    patched: Values,
    corrupt: Values,
    clean: Values,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Estimate:
    """Recovered performance `(M(patched) - M(corrupt)) / (M(clean) - M(corrupt))`, M the mean over prompts.

    A ratio of means, never a mean of ratios: single prompts with a denominator near zero would decide
    the latter. Zero denominators are the caller's to exclude (`scores.gap`).
    Raises CS511 for values that are not finite, ZeroDivisionError where M(clean) = M(corrupt) exactly.
    """
    patched, corrupt, clean = _paired(patched=patched, corrupt=corrupt, clean=clean)
    return _ratio_of_means(patched - corrupt, clean - corrupt, level, resamples, seed)


def _paired(**named: Values) -> tuple[Values, ...]:
    """The values, finite and as many of each: numpy would quietly repeat a single one."""
    arrays = tuple(_finite(values, what) for what, values in named.items())
    if len({len(array) for array in arrays}) > 1:
        raise ValueError(f"paired values differ in number: {', '.join(str(len(array)) for array in arrays)}")
    return arrays


def _finite(values: Values, what: str) -> Values:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"{what}: one value per prompt expected, got shape {array.shape}")
    require_finite(array, what)
    return array


def _ratio_of_means(top: Values, bottom: Values | None, level: float, resamples: int, seed: int) -> Estimate:
    """mean(top) / mean(bottom); without a bottom, mean(top)."""
    if bottom is not None and len(top) != len(bottom):
        raise ValueError(f"paired values differ in number: {len(top)} and {len(bottom)}")
    n = len(top)
    denominator = 1.0 if bottom is None else float(bottom.mean())
    if denominator == 0:
        raise ZeroDivisionError("the mean of the denominator is zero")
    value = float(top.mean()) / denominator
    if n < 2:
        return Estimate(value, None, None, level, n, "none")
    # top = value * bottom for every prompt: every resample gives the same ratio, up to rounding
    expected = np.full(n, value) if bottom is None else value * bottom
    if is_constant(top, expected):
        return Estimate(value, value, value, level, n, "constant")
    asked = _expanded(level, top - expected)
    (low, high), distribution = _bca((top,) if bottom is None else (top, bottom), asked, resamples, seed)
    if math.isfinite(low) and math.isfinite(high):
        return Estimate(value, low, high, level, n, "bca")
    low, high = _percentiles(distribution, asked)
    if math.isfinite(low) and math.isfinite(high):
        return Estimate(value, low, high, level, n, "percentile")
    return Estimate(value, None, None, level, n, "none")


def is_constant(values: Values, expected: Values) -> bool:
    """Whether all values are the expected ones, up to rounding."""
    return bool(np.abs(values - expected).max() <= _ROUNDING * max(np.abs(values).max(), np.abs(expected).max()))


def _expanded(level: float, residuals: Values) -> float:
    """The level to ask of a bootstrap for an interval that holds the truth as often as `level` says.

    Resamples spread by the sample's own variance, with n in its denominator instead of n - 1, and their quantiles are a
    normal's instead of a t distribution's (Hesterberg 2015). Where prompts are only right or wrong, tails are not
    counted: resamples of few distinct values have few quantiles, and intervals that end at one are wide.
    """
    n = len(residuals)
    freedom = freedom_of(residuals, counted=len(np.unique(residuals)) <= _COUNTED)
    z = math.sqrt(n / (n - 1)) * scipy.stats.t.ppf((1 + level) / 2, freedom)
    return float(2 * scipy.stats.norm.cdf(z) - 1)


def freedom_of(residuals: Values, *, counted: bool = False) -> float:
    """Degrees of freedom of the t distribution of a mean whose spread is estimated from these `residuals`.

    Fewer than n - 1, the longer their tails are, since a variance estimated from long tails is itself less certain:
    Var(s^2) = sigma^4 (2 / (n - 1) + kurtosis / n), matched with a chi-squared's (Satterthwaite). No fewer than five,
    the fewest of a t distribution that has a kurtosis at all. Tails are not looked at where values are `counted`.
    """
    n = len(residuals)
    excess = 0.0 if counted or not np.ptp(residuals) else max(0.0, float(scipy.stats.kurtosis(residuals, bias=False)))
    return float(max(2 / (2 / (n - 1) + excess / n), min(_FEWEST, n - 1)))


def _bca(samples: tuple[Values, ...], level: float, resamples: int, seed: int) -> tuple[tuple[float, float], Values]:
    """BCa interval of the mean of one sample or the ratio of two means, and the bootstrap distribution.

    Both ends are nan where BCa is undefined, as it is when some resample's ratio is 0/0. Resamples that differ from the
    sample's own value by next to nothing are ties with it: of prompts that have few values there are many, and BCa's
    correction for bias counts those below it, which rounding would decide.
    """

    def ratio(*means: Any) -> Any:
        return means[0] / means[1] if len(means) == 2 else means[0]

    top, bottom = samples[0], samples[1] if len(samples) == 2 else np.ones_like(samples[0])
    own = ratio(*(sample.mean() for sample in samples))
    near = _TIE * np.std(top - own * bottom) / math.sqrt(len(top)) / abs(bottom.mean())

    def statistic(*drawn: Values, axis: int = -1) -> Any:
        value = ratio(*(sample.mean(axis=axis) for sample in drawn))
        return np.where(np.abs(value - own) <= near, own, value)

    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)  # shows as an interval of nan
        result = scipy.stats.bootstrap(
            samples,
            statistic,
            paired=True,
            vectorized=True,
            method="BCa",
            confidence_level=level,
            n_resamples=resamples,
            batch=max(1, _CELLS // len(samples[0])),
            rng=np.random.default_rng(seed),
        )
    low, high = result.confidence_interval
    return (float(low), float(high)), np.asarray(result.bootstrap_distribution)


def _percentiles(distribution: Values, level: float) -> tuple[float, float]:
    """Percentile interval; resamples with an undefined ratio (0/0) count against both ends."""
    tail = (1 - level) / 2
    undefined = np.isnan(distribution)
    low = np.quantile(np.where(undefined, -np.inf, distribution), tail, method="lower")
    high = np.quantile(np.where(undefined, np.inf, distribution), 1 - tail, method="higher")
    return float(low), float(high)


@dataclass(frozen=True)
class PairedTest:
    """One-sided test that the mean of per-prompt differences lies below zero.

    `method` "sign-flip" is the exact permutation test over all 2**n sign patterns (p_value is never below
    2**-n); "t" is the paired t test, corrected for skew.
    """

    effect: float  # mean difference, in the metric's units
    p_value: float
    n: int
    method: Literal["sign-flip", "t"]


def lowers(differences: Values, *, what: str = "differences") -> PairedTest:
    """Test whether an intervention lowers a metric, from per-prompt differences (with minus without).

    Exact for up to 13 prompts, the paired t test for more: permutation p-values drawn at random cannot
    be small enough to survive a correction over hundreds of components. Where a few prompts gain much and most lose
    little, the t statistic of a mean of zero leans to one side; the test is then the one of Hall (1992), if its p-value
    is the larger. Raises CS511 for values that are not finite.
    """
    differences = _finite(differences, what)
    n, effect = len(differences), float(differences.mean())
    spread = float(np.abs(differences - effect).max())
    if spread <= _ROUNDING * float(np.abs(differences).max()):  # all equal: t is undefined, sign flips are not
        return PairedTest(effect, 0.5**n if effect < 0 else 1.0, n, "sign-flip")
    if n > EXACT_MAX:
        t = effect / float(scipy.stats.sem(differences))
        largest = max(t, _unskewed(t, differences))
        return PairedTest(effect, float(scipy.stats.t.cdf(largest, n - 1)), n, "t")
    exact = scipy.stats.permutation_test(
        (differences,),
        lambda sample, axis: np.mean(sample, axis=axis),
        permutation_type="samples",
        alternative="less",
        n_resamples=2**EXACT_MAX,
        vectorized=True,
    )
    return PairedTest(effect, float(exact.pvalue), n, "sign-flip")


def _unskewed(t: float, values: Values) -> float:
    """The t statistic of a mean without what skew does to it: the cubic, monotone transformation of Hall (1992)."""
    n, skew = len(values), float(scipy.stats.skew(values))
    return t + skew * t**2 / (3 * math.sqrt(n)) + skew**2 * t**3 / (27 * n) + skew / (6 * math.sqrt(n))


def adjust(p_values: Sequence[float], family: int) -> tuple[float, ...]:
    """Benjamini-Hochberg over a family of `family` tests, of which only `p_values` were carried out.

    The others count as p = 1, so choosing which components to test on the same data costs what testing
    all of them would. Returns adjusted p-values in the order given.
    """
    if family < len(p_values):
        raise ValueError(f"a family of {family} cannot hold {len(p_values)} tests")
    if not p_values:
        return ()
    padded = np.concatenate([np.asarray(p_values, dtype=np.float64), np.ones(family - len(p_values))])
    return tuple(float(p) for p in scipy.stats.false_discovery_control(padded, method="bh")[: len(p_values)])
