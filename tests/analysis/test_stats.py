from __future__ import annotations

import itertools
import math
import tracemalloc
from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import norm, t, ttest_1samp

from circuitspec.analysis.statistics import stats
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.diagnostics.diagnostic import CircuitspecError


def sample(n: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Skewed, correlated (patched, corrupt, clean)."""
    rng = np.random.default_rng(seed)
    difficulty = rng.gamma(2.0, 1.0, n)
    clean, corrupt = 3 + difficulty + rng.normal(0, 0.5, n), 0.3 * rng.normal(0, 1, n)
    return 0.8 * clean + rng.normal(0, 0.5, n), corrupt, clean


def excess_kurtosis(values: list[float]) -> float:
    """The unbiased k-statistic k4 / k2**2 (Joanes & Gill 1998, G2), written as sums."""
    n, centre = len(values), sum(values) / len(values)
    variance = sum((v - centre) ** 2 for v in values) / (n - 1)
    fourth = sum((v - centre) ** 4 for v in values) / variance**2
    return n * (n + 1) / ((n - 1) * (n - 2) * (n - 3)) * fourth - 3 * (n - 1) ** 2 / ((n - 2) * (n - 3))


def widened(level: float, top: np.ndarray, bottom: np.ndarray) -> float:
    """The level whose normal interval, with n in the variance's denominator, is the t interval of `level`.

    A sample variance varies by `s**4 * (2 / (n - 1) + kurtosis / n)`, that of a chi-squared by `s**4 * 2 / freedom`.
    """
    n, ratio = len(top), sum(top) / sum(bottom)
    kurtosis = excess_kurtosis([a - ratio * b for a, b in zip(top, bottom, strict=True)])
    freedom = n - 1 if kurtosis < 0 else max(5, 1 / (1 / (n - 1) + kurtosis / (2 * n)))
    half = t.ppf(0.5 + level / 2, freedom) / (1 - 1 / n) ** 0.5
    return float(norm.cdf(half) - norm.cdf(-half))


def bca_by_hand(top: np.ndarray, bottom: np.ndarray, draws: np.ndarray, level: float) -> tuple[float, float]:
    """Efron & Tibshirani (1993), equations 14.9 to 14.15, written as loops."""
    normal, n = NormalDist(), len(top)
    value = sum(top) / sum(bottom)
    boot = [sum(top[i] for i in row) / sum(bottom[i] for i in row) for row in draws]
    below = sum((b < value) + 0.5 * (b == value) for b in boot) / len(boot)
    bias = normal.inv_cdf(below)
    left_out = [(sum(top) - top[i]) / (sum(bottom) - bottom[i]) for i in range(n)]
    centre = sum(left_out) / n
    acceleration = sum((centre - x) ** 3 for x in left_out) / (6 * sum((centre - x) ** 2 for x in left_out) ** 1.5)
    ends = []
    for tail in ((1 - level) / 2, (1 + level) / 2):
        z = bias + normal.inv_cdf(tail)
        ends.append(float(np.quantile(boot, normal.cdf(bias + z / (1 - acceleration * z)))))
    return ends[0], ends[1]


def test_recovered_is_a_ratio_of_means() -> None:
    # means 3, 1, 5: (3 - 1) / (5 - 1); the mean of the ratios would be (1/1 + 3/7) / 2
    estimate = stats.recovered(np.array([2.0, 4.0]), np.array([1.0, 1.0]), np.array([2.0, 8.0]))
    assert estimate.value == 0.5
    assert estimate.n == 2


def test_lower_is_better_needs_no_other_formula() -> None:
    # kl: 0 clean, 5 corrupt, 1 patched: four fifths of the way back
    n = 30
    assert stats.recovered(np.full(n, 1.0), np.full(n, 5.0), np.zeros(n)).value == pytest.approx(0.8)


@pytest.mark.parametrize("n", [12, 40])
def test_interval_equals_bca_written_by_hand_on_the_same_draws(n: int) -> None:
    patched, corrupt, clean = sample(n)
    draws = np.random.default_rng(5).integers(0, n, (500, n))
    expected = bca_by_hand(patched - corrupt, clean - corrupt, draws, widened(0.9, patched - corrupt, clean - corrupt))
    estimate = stats.recovered(patched, corrupt, clean, level=0.9, resamples=500, seed=5)
    assert estimate.method == "bca"
    assert estimate.interval == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("factor", "shift"), [(2.5, 10.0), (1e-4, 0.0), (-1.0, 3.0)])
def test_recovered_does_not_depend_on_the_metrics_unit_or_origin(factor: float, shift: float) -> None:
    runs = sample(40)
    plain = stats.recovered(*runs)
    scaled = stats.recovered(*(factor * run + shift for run in runs))
    assert scaled.value == pytest.approx(plain.value)
    assert scaled.interval == pytest.approx(plain.interval)


def test_interval_agrees_with_other_draws() -> None:
    patched, corrupt, clean = sample(40)
    draws = np.random.default_rng(99).integers(0, 40, (4000, 40))
    level = widened(0.95, patched - corrupt, clean - corrupt)
    low, high = bca_by_hand(patched - corrupt, clean - corrupt, draws, level)
    estimate = stats.recovered(patched, corrupt, clean)
    assert estimate.interval == pytest.approx((low, high), abs=0.05 * (high - low))


def test_one_prompt_far_from_the_others_widens_the_interval_as_if_there_were_six() -> None:
    values = np.r_[norm.ppf((np.arange(40) + 0.5) / 40), 30.0]
    assert excess_kurtosis(list(values)) > 20
    wide = widened(0.95, values, np.ones(41))
    assert wide == pytest.approx(2 * norm.cdf(t.ppf(0.975, 5) * (41 / 40) ** 0.5) - 1)
    draws = np.random.default_rng(0).integers(0, 41, (9999, 41))
    estimate = stats.mean(values)
    assert estimate.interval == pytest.approx(bca_by_hand(values, np.ones(41), draws, wide), abs=0.1)


def test_interval_of_a_mean_is_the_t_interval_for_many_normal_values() -> None:
    values = np.random.default_rng(3).normal(2, 1, 500)
    interval = ttest_1samp(values, 0).confidence_interval(0.95)
    assert stats.mean(values).interval == pytest.approx((interval.low, interval.high), abs=0.01)


@pytest.mark.parametrize("n", [10, 15, 30])
def test_interval_of_a_mean_is_the_t_interval_for_few_values_without_skew(n: int) -> None:
    values = norm.ppf((np.arange(n) + 0.5) / n)
    plain, estimate = ttest_1samp(values, 0).confidence_interval(0.95), stats.mean(values)
    assert (estimate.level, estimate.method) == (0.95, "bca")
    assert estimate.interval == pytest.approx((plain.low, plain.high), rel=0.03)


def test_pairs_are_drawn_together() -> None:
    # patched follows clean exactly up to a factor, so the ratio has no spread although both do
    clean = np.random.default_rng(0).normal(5, 3, 50)
    estimate = stats.recovered(0.7 * clean, np.zeros(50), clean)
    assert estimate.method == "constant"
    assert estimate.interval == pytest.approx((0.7, 0.7))


def test_the_same_data_give_the_same_interval_whatever_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    patched, corrupt, clean = sample(50)
    first = stats.recovered(patched, corrupt, clean)
    assert stats.recovered(patched, corrupt, clean) == first
    monkeypatch.setattr(stats, "_CELLS", 333)
    assert stats.recovered(patched, corrupt, clean).interval == pytest.approx(first.interval, rel=1e-12)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.25])
def test_constant_data_collapse_to_the_point(value: float) -> None:
    n = 20
    estimate = stats.recovered(np.full(n, 4 * value), np.zeros(n), np.full(n, 4.0))
    assert estimate == Estimate(value, value, value, 0.95, n, "constant")


def test_one_prompt_has_no_interval() -> None:
    estimate = stats.recovered(np.array([1.0]), np.array([0.0]), np.array([2.0]))
    assert estimate == Estimate(0.5, None, None, 0.95, 1, "none")
    assert estimate.interval is None


def test_undefined_resamples_leave_a_percentile_interval_that_says_so() -> None:
    # 0.4 ** 10 of the resamples, one of 9999, draw only prompts 0 to 3: their ratio is 0 / 0
    top, bottom = np.zeros(10), np.zeros(10)
    bottom[4:] = 1.0
    top[4:] = [0.5, 1.0, 0.5, 1.0, 0.5, 1.0]
    draws = np.random.default_rng(7).integers(0, 10, (9999, 10))
    assert (draws < 4).all(axis=1).any(), "the seed must provoke the case"
    estimate = stats.recovered(top, np.zeros(10), bottom, seed=7)
    assert estimate.method == "percentile"
    ratios = sorted(top[row].sum() / bottom[row].sum() for row in draws if not (row < 4).all())
    assert estimate.low == pytest.approx(ratios[250], abs=0.02)
    assert estimate.high == pytest.approx(ratios[-250], abs=0.02)


def test_no_interval_where_too_many_resamples_are_undefined() -> None:
    top, bottom = np.zeros(10), np.zeros(10)
    top[:2], bottom[:2] = [1.0, 2.0], 1.0  # a tenth of the resamples draw neither
    estimate = stats.recovered(top, np.zeros(10), bottom)
    assert (estimate.method, estimate.interval) == ("none", None)
    assert estimate.value == pytest.approx(1.5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named(bad: float) -> None:
    patched, corrupt, clean = sample(20)
    corrupt[[3, 8]] = bad
    with pytest.raises(CircuitspecError) as caught:
        stats.recovered(patched, corrupt, clean)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "CS511"
    assert diagnostic.message == "corrupt is not finite for 2 of 20 prompts (prompt 3, 8)"
    assert diagnostic.data == {"what": "corrupt", "prompts": [3, 8]}


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="differ in number"):
        stats.recovered(np.ones(4), np.zeros(4), np.ones(3))
    with pytest.raises(ValueError, match="differ in number"):
        stats.recovered(np.ones(4), np.zeros(4), np.ones(1))  # numpy would repeat the one
    with pytest.raises(ValueError, match="one value per prompt"):
        stats.mean(np.ones((2, 2)))
    with pytest.raises(ValueError, match="one value per prompt"):
        stats.mean(np.array([]))


def test_a_denominator_of_exactly_zero_is_refused() -> None:
    with pytest.raises(ZeroDivisionError):
        stats.recovered(np.ones(5), np.ones(5), np.ones(5))


def test_whether_a_difference_may_be_zero() -> None:
    noise = np.random.default_rng(0).normal(0, 1, 100)
    assert stats.mean_difference(noise, np.zeros(100)).may_be(0.0)
    assert not stats.mean_difference(noise + 1, np.zeros(100)).may_be(0.0)
    assert stats.mean_difference(np.ones(10), np.ones(10)).may_be(0.0)  # constant, and zero
    assert not stats.mean_difference(np.ones(10), np.zeros(10)).may_be(0.0)  # constant, and not
    assert stats.mean_difference(np.ones(1), np.zeros(1)).may_be(0.0)  # one prompt tells nothing


def test_an_estimate_has_both_ends_or_none() -> None:
    with pytest.raises(ValueError, match="both ends"):
        Estimate(1.0, 0.5, None, 0.95, 10, "bca")
    with pytest.raises(ValueError, match="both ends"):
        Estimate(1.0, None, None, 0.95, 10, "bca")


def test_ten_thousand_prompts_stay_within_a_hundred_megabytes() -> None:
    patched, corrupt, clean = sample(10_000)
    tracemalloc.start()
    try:
        estimate = stats.recovered(patched, corrupt, clean, resamples=300)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert estimate.method == "bca"
    assert peak < 100e6  # all resamples at once would take 300 x 10,000 x 3 x 8 bytes = 720 MB


@pytest.mark.slow
@pytest.mark.parametrize("n", [30, 100])
def test_coverage(n: int) -> None:
    # E[clean - corrupt] = 3 + 2 = 5 and E[patched - corrupt] = 0.8 x 5, so that 0.8 is recovered
    repetitions = 2000
    hits = 0
    for seed in range(repetitions):
        estimate = stats.recovered(*sample(n, seed), resamples=999, seed=seed)
        hits += estimate.may_be(0.8)
    error = (0.95 * 0.05 / repetitions) ** 0.5
    assert 0.93 - 2 * error < hits / repetitions < 0.97 + 2 * error, hits / repetitions


# -- paired tests -------------------------------------------------------------------------------


def sign_flip_by_hand(differences: np.ndarray) -> float:
    flips = itertools.product((1, -1), repeat=len(differences))
    means = [float(np.mean(np.array(signs) * differences)) for signs in flips]
    return sum(m <= np.mean(differences) + 1e-12 for m in means) / len(means)


@pytest.mark.parametrize("shift", [-1.0, -0.2, 0.5])
@pytest.mark.parametrize("n", [2, 5, 10])
def test_few_prompts_are_tested_exactly(n: int, shift: float) -> None:
    differences = np.random.default_rng(n).normal(shift, 1, n)
    test = stats.lowers(differences)
    assert test.method == "sign-flip"
    assert test.p_value == pytest.approx(sign_flip_by_hand(differences))
    assert test.effect == pytest.approx(differences.mean())


def test_the_largest_exact_case() -> None:
    differences = -np.arange(1.0, 14.0)  # all negative: only the identity is as low
    test = stats.lowers(differences)
    assert (test.method, test.p_value, test.n) == ("sign-flip", pytest.approx(2.0**-13), 13)


def test_many_prompts_take_the_t_test() -> None:
    half = np.random.default_rng(0).normal(0, 1, 50)
    differences = np.r_[half, -half] - 0.1  # without skew
    test = stats.lowers(differences)
    assert test.method == "t"
    assert test.p_value == pytest.approx(ttest_1samp(differences, 0).pvalue / 2)  # its mean is below zero
    assert stats.lowers(-differences).p_value == pytest.approx(1 - test.p_value)


def test_skew_towards_what_is_tested_for_makes_it_less_significant() -> None:
    differences = np.random.default_rng(0).exponential(1.0, 40) - 1.4
    n, mean, spread = 40, differences.mean(), differences.std(ddof=1)
    statistic = mean / (spread / n**0.5)
    skew = ((differences - mean) ** 3).mean() / ((differences - mean) ** 2).mean() ** 1.5
    a = skew / (6 * n**0.5)
    hall = statistic + 2 * a * statistic**2 + 4 / 3 * a**2 * statistic**3 + a  # Hall (1992)
    assert stats.lowers(differences).p_value == pytest.approx(t.cdf(hall, n - 1))
    assert t.cdf(hall, n - 1) > ttest_1samp(differences, 0, alternative="less").pvalue
    assert stats.lowers(-differences).p_value == pytest.approx(max(t.sf(hall, n - 1), t.sf(statistic, n - 1)))


def test_equal_differences() -> None:
    assert stats.lowers(np.full(20, -0.3)).p_value == 2.0**-20
    assert stats.lowers(np.full(20, 0.3)).p_value == 1.0
    assert stats.lowers(np.zeros(20)).p_value == 1.0


def test_only_lowering_counts() -> None:
    assert stats.lowers(np.random.default_rng(0).normal(1, 1, 50)).p_value > 0.99


def test_differences_that_are_not_finite_are_named() -> None:
    with pytest.raises(CircuitspecError, match=r"CS511: a3\.h1 is not finite for 1 of 3"):
        stats.lowers(np.array([0.0, np.nan, 1.0]), what="a3.h1")


def test_benjamini_hochberg_counts_the_untested() -> None:
    # sorted 0.001, 0.004, 0.03 of a family of 100: p * 100 / rank, then the running minimum from above
    assert stats.adjust([0.03, 0.001, 0.004], 100) == pytest.approx((1.0, 0.1, 0.2))
    assert stats.adjust([0.03, 0.001, 0.004], 3) == pytest.approx((0.03, 0.003, 0.006))
    assert stats.adjust([0.02, 0.02], 2) == pytest.approx((0.02, 0.02))
    assert stats.adjust([], 10) == ()


def test_a_family_holds_its_tests() -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        stats.adjust([0.1, 0.2], 1)


@pytest.mark.parametrize(("n", "ones"), [(8, 3), (12, 5), (24, 11), (60, 20)])
def test_intervals_do_not_hang_on_the_last_digit(n: int, ones: int) -> None:
    """Values 0 and 1 add up without rounding; the same in another unit, or as what is recovered, must say the same.

    Also where they are rounded to single precision. And of few prompts many resamples are the sample in another order.
    """

    def ends(found: Estimate) -> np.ndarray:
        assert found.low is not None
        assert found.high is not None
        return np.array([found.low, found.high])

    rng = np.random.default_rng(1)
    values = rng.permutation(np.repeat([1.0, 0.0], [ones, n - ones]))
    zero, unit = math.pi / 3, math.e / 7
    exact, noise = ends(stats.mean(values)), 1e-7 * rng.normal(size=n)
    for rounded, within in ((values, 1e-9), (values + noise, 1e-6)):
        other, share = zero + unit * rounded, (np.full(n, zero), np.full(n, zero + unit))
        assert (ends(stats.mean(other)) - zero) / unit == pytest.approx(exact, abs=within)
        assert ends(stats.recovered(other, *share)) == pytest.approx(exact, abs=within)
    real = rng.normal(size=n)
    assert ends(stats.mean(real + noise)) == pytest.approx(ends(stats.mean(real)), abs=1e-6)
