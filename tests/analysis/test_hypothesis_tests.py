"""Each test against counting by hand, and its p-values under the null in simulation."""

from __future__ import annotations

import itertools
from math import comb

import numpy as np
import pytest
from scipy.stats import binom, kstest

from circuitspec.analysis.statistics.hypothesis_tests import (
    HypothesisTest,
    corrected,
    equivalence,
    equivalence_shown,
    holm,
    independence,
    minimality,
    partial_necessity,
    random_circuits_needed,
    sufficiency,
)
from circuitspec.diagnostics.diagnostic import CircuitspecError


def wins(k: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Circuit and model scores of which the circuit wins k."""
    model = np.random.default_rng(n).normal(0, 1, n)
    return model + np.where(np.arange(n) < k, 0.1, -0.1), model


def pmf(k: int, n: int, p: float) -> float:
    return comb(n, k) * p**k * (1 - p) ** (n - k)


# -- equivalence --------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "n"), [(3, 10), (10, 10), (0, 10), (5, 10), (7, 11), (62, 100)])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_equivalence_counts_wins_at_the_end_of_the_null(k: int, n: int, epsilon: float) -> None:
    expected = sum(pmf(i, n, 0.5 + epsilon) for i in range(n + 1) if abs(i - n / 2) >= abs(k - n / 2))
    test = equivalence(*wins(k, n), epsilon=epsilon)
    assert test.p_value == pytest.approx(min(1.0, expected))
    assert (test.statistic, test.n, test.rejected_means) == (k / n, n, "against the circuit")


def test_the_end_of_the_null_is_its_likeliest_to_reject() -> None:
    """The p-value holds for every chance of winning within the null, not for one half alone."""
    n, cut = 40, 28
    chances = [sum(pmf(i, n, p) for i in range(n + 1) if abs(i - 20) >= cut - 20) for p in np.linspace(0.4, 0.6, 41)]
    assert max(chances) == pytest.approx(equivalence(*wins(cut, n), epsilon=0.1).p_value)


def test_equal_scores_count_half_for_either_side() -> None:
    model = np.arange(20.0)
    assert equivalence(model, model).p_value == 1.0
    circuit = model + np.where(np.arange(20) < 15, 1.0, 0.0)  # 15 wins and 5 ties: 17.5, counted as 17
    assert equivalence(circuit, model).statistic == pytest.approx(17.5 / 20)
    assert equivalence(circuit, model).p_value == pytest.approx(equivalence(*wins(17, 20)).p_value)


def test_equivalence_has_to_be_shown_with_enough_prompts() -> None:
    assert equivalence_shown(*wins(5, 10)).p_value > 0.3
    shown = equivalence_shown(*wins(200, 400))
    # at most 40 % of wins would give 200 or more with this chance, and at least 60 % as few
    assert shown.p_value == pytest.approx(binom(400, 0.4).sf(199))
    assert shown.rejects()
    assert shown.rejected_means == "for the circuit"
    assert equivalence_shown(*wins(240, 400)).p_value == pytest.approx(binom(400, 0.6).cdf(240))
    same = np.arange(400.0)
    assert equivalence_shown(same, same).rejects()


# -- independence -------------------------------------------------------------------------------


def hsic_by_hand(left: np.ndarray, right: np.ndarray) -> float:
    """trace(K H L H) / n^2 with Gaussian kernels of the median distance, written as in Gretton et al. (2007)."""
    n = len(left)

    def kernel(values: np.ndarray) -> np.ndarray:
        distances = np.abs(np.subtract.outer(values, values))
        sigma = np.median([distances[i, j] for i, j in itertools.combinations(range(n), 2)])
        return np.exp(-(distances**2) / (2 * sigma**2))

    centring = np.eye(n) - 1 / n
    return float(np.trace(kernel(left) @ centring @ kernel(right) @ centring)) / n**2


def test_the_statistic_is_hsic() -> None:
    dice = np.random.default_rng(0)
    left, right = dice.normal(0, 1, 30), dice.gamma(2, 1, 30)
    assert independence(left, right).statistic == pytest.approx(hsic_by_hand(left, right), rel=1e-6)


def test_dependence_without_correlation_is_found() -> None:
    model = np.random.default_rng(1).normal(0, 1, 80)
    assert independence(model**2, model).p_value == 0.001
    assert independence(np.random.default_rng(2).normal(0, 1, 80), model).p_value > 0.05


def test_a_complement_that_says_nothing_is_independent() -> None:
    model = np.random.default_rng(1).normal(0, 1, 50)
    test = independence(np.zeros(50), model)
    assert (test.statistic, test.p_value) == (0.0, 1.0)


def test_harder_templates_are_no_dependence_within_templates() -> None:
    dice = np.random.default_rng(3)
    templates = np.repeat(np.arange(4), 25)
    complement, model = 3 * templates + dice.normal(0, 1, 100), 3 * templates + dice.normal(0, 1, 100)
    assert independence(complement, model).rejects()
    within = independence(complement, model, strata=templates)
    assert within.p_value > 0.05
    assert within.null.endswith("within each template")
    assert independence(complement + 2 * model, model, strata=templates).rejects()


def test_of_very_many_prompts_a_sample_is_taken() -> None:
    model = np.random.default_rng(1).normal(0, 1, 3000)
    test = independence(model + np.random.default_rng(2).normal(0, 1, 3000), model, permutations=99)
    assert (test.n, test.p_value) == (1000, 0.01)


# -- against random circuits --------------------------------------------------------------------


@pytest.mark.parametrize("beaten", [0, 90, 95, 96, 100])
def test_sufficiency_counts_the_random_circuits_beaten(beaten: int) -> None:
    others = np.where(np.arange(100) < beaten, 0.2, 0.9)
    test = sufficiency(0.8, others)
    assert test.p_value == pytest.approx(sum(pmf(k, 100, 0.9) for k in range(beaten, 101)))
    assert (test.statistic, test.n) == (beaten / 100, 100)
    assert test.rejects() == (beaten >= 96)
    necessity = partial_necessity(0.8, others)
    assert necessity.p_value == test.p_value
    assert "does more damage than at most 90% of random circuits" in necessity.null


def test_a_tie_is_no_win() -> None:
    assert sufficiency(0.8, np.full(100, 0.8)).statistic == 0


def test_a_last_digit_is_no_win() -> None:
    """Within rounding nothing is ahead: neither of prompts nor of circuits, and no score depends on its last digit."""
    dice = np.random.default_rng(3)
    model = np.full(30, 4.0)
    near = model + 4.8e-7
    assert equivalence(near, model).statistic == 1.0
    assert equivalence(near, model).rejects()
    assert equivalence(near, model, rounding=1e-5).statistic == 0.5
    assert equivalence(near, model, rounding=1e-5).p_value == 1.0
    rivals = np.full(40, 13.3010260)
    assert sufficiency(13.3010262, rivals).rejects()
    assert sufficiency(13.3010262, rivals, rounding=1e-4).statistic == 0.0
    assert partial_necessity(13.3010262, rivals, rounding=1e-4).statistic == 0.0
    first, second = minimality({"a0.h0": 4.8e-7, "a0.h1": 0.0}, np.zeros(40), rounding=1e-5)
    assert (first.statistic, second.statistic, first.p_value) == (0.0, 0.0, second.p_value)
    noise = 1e-7 * dice.normal(size=30)
    assert independence(model + noise, noise, rounding=1e-5).statistic == 0.0
    assert independence(model + noise, noise).statistic > 0.0


def test_without_a_quantile_the_circuit_is_ranked_among_random_ones() -> None:
    others = np.arange(99.0)
    assert sufficiency(98.5, others, quantile=None).p_value == pytest.approx(1 / 100)
    assert sufficiency(89.0, others, quantile=None).p_value == pytest.approx(11 / 100)  # 89 .. 98 are as good
    assert sufficiency(-1.0, others, quantile=None).p_value == 1.0
    assert sufficiency(98.5, others, quantile=None).method == "rank"


def test_how_many_random_circuits_it_takes() -> None:
    needed = random_circuits_needed()
    assert needed == 29  # 0.9^29 = 0.047
    assert sufficiency(1.0, np.zeros(needed)).rejects()
    assert not sufficiency(1.0, np.zeros(needed - 1)).rejects()


def test_minimality_names_what_matters_no_more_than_chance() -> None:
    others = np.linspace(0, 1, 101)[1:]  # 0.01 .. 1.00
    strong, weak, nothing = minimality({"a9.h9": 0.955, "a9.h6": 0.705, "a5.h8": 0.0}, others)
    assert [t.statistic for t in (strong, weak, nothing)] == [0.95, 0.70, 0.0]
    assert strong.p_value == pytest.approx(binom(100, 0.9).cdf(95))
    assert weak.p_value == pytest.approx(binom(100, 0.9).cdf(70))
    assert [t.rejects() for t in (strong, weak, nothing)] == [False, True, True]
    assert "a9.h6" in weak.null
    assert weak.rejected_means == "against the circuit"


# -- families -----------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, never falling
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.9])) == pytest.approx([1.0, 1.0])


def test_rejection_goes_by_the_corrected_value() -> None:
    tests = [sufficiency(1.0, np.zeros(n)) for n in (29, 60)]  # 0.047 and 0.0018
    assert all(test.rejects() for test in tests)
    family = corrected(tests)
    assert [t.p_adjusted for t in family] == pytest.approx([0.9**29, 2 * 0.9**60])
    assert [t.p_adjusted for t in corrected(tests, "benjamini-hochberg")] == pytest.approx([0.9**29, 2 * 0.9**60])
    three = corrected([*tests, sufficiency(1.0, np.zeros(29))])
    assert [t.rejects() for t in three] == [False, True, False]
    assert corrected([]) == ()


def test_every_test_says_its_null() -> None:
    scores = np.random.default_rng(0).normal(0, 1, (2, 40))
    tests = [
        equivalence(*scores),
        equivalence_shown(*scores),
        independence(*scores),
        sufficiency(1.0, scores[0]),
        sufficiency(1.0, scores[0], quantile=None),
        partial_necessity(1.0, scores[0]),
        *minimality({"a0.h0": 1.0}, scores[0]),
    ]
    assert len({test.null for test in tests}) == len(tests)
    assert all(len(test.null) > 40 and 0 <= test.p_value <= 1 for test in tests)


# -- what is refused ----------------------------------------------------------------------------


def test_scores_that_are_no_scores() -> None:
    fine = np.arange(5.0)
    with pytest.raises(ValueError, match="differ in number: 5 and 4"):
        equivalence(fine, fine[:4])
    with pytest.raises(CircuitspecError, match="CS511: the score of the model is not finite"):
        independence(fine, fine * np.nan)
    with pytest.raises(ValueError, match="3 strata for 5 prompts"):
        independence(fine, fine, strata=np.arange(3))
    with pytest.raises(ValueError, match="1 of 5 are not finite"):
        sufficiency(1.0, [*fine[:4], np.inf])
    with pytest.raises(ValueError, match="score is nan"):
        sufficiency(float("nan"), fine)
    with pytest.raises(ValueError, match=r"effect of a0\.h0 is inf"):
        minimality({"a0.h0": float("inf")}, fine)
    with pytest.raises(ValueError, match="a list of numbers"):
        partial_necessity(1.0, [])


# -- p-values under the null --------------------------------------------------------------------

ALPHAS = (0.01, 0.05, 0.1, 0.2, 0.5)
REPETITIONS = 1000


def rejected(tests: list[HypothesisTest]) -> dict[float, float]:
    p_values = np.asarray([test.p_value for test in tests])
    return {alpha: float((p_values <= alpha).mean()) for alpha in ALPHAS}


def error(alpha: float) -> float:
    """Three standard errors of a share of `REPETITIONS`."""
    return 3 * (alpha * (1 - alpha) / REPETITIONS) ** 0.5


def test_counts_reject_as_often_as_the_binomial_distribution_allows() -> None:
    """At the edge of the null; less often than alpha, as counts are discrete: by exactly what their steps leave."""
    dice = np.random.default_rng(0)
    n = 100
    null = {
        "sufficiency": [sufficiency(0.9, dice.random(n)) for _ in range(REPETITIONS)],
        "partial necessity": [partial_necessity(0.9, dice.random(n)) for _ in range(REPETITIONS)],
        "minimality": [minimality({"h": 0.9}, dice.random(n))[0] for _ in range(REPETITIONS)],
        "equivalence": [equivalence((dice.random(n) < 0.6).astype(float), np.full(n, 0.5)) for _ in range(REPETITIONS)],
        "equivalence shown": [
            equivalence_shown((dice.random(n) < 0.6).astype(float), np.full(n, 0.5)) for _ in range(REPETITIONS)
        ],
    }
    attainable = {
        "sufficiency": [binom(n, 0.9).sf(k - 1) for k in range(n + 1)],
        "minimality": [binom(n, 0.9).cdf(k) for k in range(n + 1)],
        "equivalence": [equivalence(*wins(k, n)).p_value for k in range(n + 1)],
        "equivalence shown": [equivalence_shown(*wins(k, n)).p_value for k in range(n + 1)],
    }
    attainable["partial necessity"] = attainable["sufficiency"]
    for name, tests in null.items():
        for alpha, share in rejected(tests).items():
            size = max([p for p in attainable[name] if p <= alpha], default=0.0)
            assert share == pytest.approx(size, abs=error(max(size, 0.001)) + 0.002), (name, alpha)
            assert share <= alpha + error(alpha), (name, alpha)


def test_ranks_among_random_circuits_are_uniform() -> None:
    dice = np.random.default_rng(1)
    tests = [sufficiency(dice.random(), dice.random(99), quantile=None) for _ in range(REPETITIONS)]
    for alpha, share in rejected(tests).items():
        assert share == pytest.approx(alpha, abs=error(alpha))


@pytest.mark.parametrize("stratified", [False, True])
def test_independence_has_uniform_p_values(stratified: bool) -> None:
    dice = np.random.default_rng(2)
    strata = np.repeat(np.arange(3), 10) if stratified else None
    p_values = []
    for seed in range(300):
        shift = 0 if strata is None else 2.0 * strata
        left, right = dice.normal(0, 1, 30) + shift, dice.gamma(2.0, 1.0, 30) + shift
        p_values.append(independence(left, right, strata=strata, permutations=99, seed=seed).p_value)
    assert kstest(p_values, "uniform").pvalue > 0.01
    for alpha in ALPHAS[1:]:
        share = float((np.asarray(p_values) <= alpha).mean())
        assert share == pytest.approx(alpha, abs=3 * (alpha * (1 - alpha) / 300) ** 0.5)


def test_holm_holds_the_family_to_alpha() -> None:
    """Minimality tests share their random components, and so depend on each other."""
    dice = np.random.default_rng(3)
    any_rejected = 0
    for _ in range(REPETITIONS):
        tests = minimality({f"h{i}": 0.9 for i in range(10)}, dice.random(100))
        any_rejected += any(test.rejects() for test in corrected(tests))
    assert any_rejected / REPETITIONS <= 0.05 + error(0.05)


@pytest.mark.slow
def test_independence_at_full_size() -> None:
    dice = np.random.default_rng(4)
    p_values = [independence(*dice.normal(0, 1, (2, 100)), seed=seed).p_value for seed in range(1000)]
    assert kstest(p_values, "uniform").pvalue > 0.01
