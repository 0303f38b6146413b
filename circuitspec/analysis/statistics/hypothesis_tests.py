"""Tests of the circuit hypothesis after Shi et al. 2024 (arXiv 2410.13032), on scores: no model, no files.

Scores are per prompt, or one number a circuit, and higher is better; a metric of which less is better is passed with
its sign turned. Every test says its null hypothesis as a sentence and what rejecting it means, which is a finding for
the circuit in some and against it in others: a null that stands is no evidence for anything.

Scores that are no further apart than `rounding` are the same: a last digit is no win.

All p-values are valid for any number of prompts and circuits. Those of counts are from the exact binomial distribution
and conservative (counts are discrete); those of permutations hold by exchangeability.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from circuitspec.analysis.statistics.stats import SEED, Values, require_finite

EPSILON = 0.1  # Shi et al.: how far from even odds still counts as equivalent
QUANTILE = 0.9  # Shi et al.: the share of random circuits that the candidate should beat
PERMUTATIONS = 999  # p-values down to 0.001
MOST_PROMPTS = 1000  # for the independence test, whose kernels hold a number for every pair of prompts

Means = Literal["for the circuit", "against the circuit"]


@dataclass(frozen=True)
class HypothesisTest:
    """One test: the null hypothesis, what was counted, and how likely that, or more of it, is under the null.

    `n` is the number of prompts, or of random circuits, that decide. `p_adjusted` is None until `corrected` has been
    over the family.
    """

    name: str
    null: str
    rejected_means: Means
    statistic: float
    statistic_name: str
    p_value: float
    n: int
    method: Literal["binomial", "permutation", "rank"]
    p_adjusted: float | None = None

    def rejects(self, alpha: float = 0.05) -> bool:
        """Whether the null is rejected, after correction where there was one."""
        return (self.p_value if self.p_adjusted is None else self.p_adjusted) <= alpha


# -- the circuit against the model, prompt by prompt ------------------------------------------------------------------


def equivalence(
    circuit: ArrayLike, model: ArrayLike, *, epsilon: float = EPSILON, rounding: float = 0.0
) -> HypothesisTest:
    """Shi et al.'s test of preservation: rejecting says that circuit and model do *not* do equally well.

    Prompts on which both score the same count half for either side, which makes the test more cautious.
    """
    wins, n = _wins(circuit, model, rounding)
    away = abs(wins - n / 2)
    low, high = math.ceil(n / 2 - away), math.floor(n / 2 + away)  # half a win is rounded towards even odds
    end = scipy.stats.binom(n, 0.5 + epsilon)  # of the null, the likeliest to look unequal; its mirror image as much
    p = min(1.0, float(end.cdf(low) + end.sf(high - 1)))
    return HypothesisTest(
        "equivalence",
        f"circuit and model outscore each other on equal terms: the circuit wins {0.5 - epsilon:.0%} to "
        f"{0.5 + epsilon:.0%} of prompts",
        "against the circuit",
        wins / n,
        "share of prompts that the circuit wins",
        p,
        n,
        "binomial",
    )


def equivalence_shown(
    circuit: ArrayLike, model: ArrayLike, *, epsilon: float = EPSILON, rounding: float = 0.0
) -> HypothesisTest:
    """The same question with the burden of proof turned round: rejecting says that they do equally well.

    Two one-sided binomial tests, of which the weaker decides.
    """
    wins, n = _wins(circuit, model, rounding)
    above = scipy.stats.binomtest(math.floor(wins), n, 0.5 - epsilon, alternative="greater").pvalue
    below = scipy.stats.binomtest(math.ceil(wins), n, 0.5 + epsilon, alternative="less").pvalue
    return HypothesisTest(
        "equivalence shown",
        f"circuit and model are on unequal terms: the circuit wins at most {0.5 - epsilon:.0%} or at least "
        f"{0.5 + epsilon:.0%} of prompts",
        "for the circuit",
        wins / n,
        "share of prompts that the circuit wins",
        float(max(above, below)),
        n,
        "binomial",
    )


def _wins(circuit: ArrayLike, model: ArrayLike, rounding: float) -> tuple[float, int]:
    ours, theirs = _paired(circuit=circuit, model=model)
    ahead = ours - theirs
    return float((ahead > rounding).sum() + (np.abs(ahead) <= rounding).sum() / 2), len(ours)


def independence(
    complement: ArrayLike,
    model: ArrayLike,
    *,
    strata: NDArray[np.int64] | None = None,
    permutations: int = PERMUTATIONS,
    seed: int = SEED,
    rounding: float = 0.0,
) -> HypothesisTest:
    """Shi et al.'s test of localisation: rejecting says that the model without the circuit still knows of the task.

    `complement` are the scores with the circuit knocked out. Dependence is measured by HSIC (Gretton et al. 2007) with
    Gaussian kernels of the median distance. Prompts are exchanged within `strata` (such as templates) only, where they
    are given: a template that is harder for both would otherwise count as dependence.
    Of more than `MOST_PROMPTS` prompts a random sample is taken.
    """
    without, whole = _paired(complement=complement, model=model)
    groups = np.zeros(len(whole), dtype=np.int64) if strata is None else np.asarray(strata)
    if len(groups) != len(whole):
        raise ValueError(f"{len(groups)} strata for {len(whole)} prompts")
    dice = np.random.default_rng(seed)
    if len(whole) > MOST_PROMPTS:
        taken = dice.choice(len(whole), MOST_PROMPTS, replace=False)
        without, whole, groups = without[taken], whole[taken], groups[taken]
    left, right = _features(without, rounding), _features(whole, rounding)
    observed = _hsic(left, right)
    drawn = np.empty(permutations)
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    for i in range(permutations):
        order = np.arange(len(whole))
        for places in members:
            order[places] = dice.permutation(places)
        drawn[i] = _hsic(left, right[order])
    slack = 1e-9 * max(observed, float(drawn.max()))  # rounding is no difference
    p = (1 + int((drawn >= observed - slack).sum())) / (1 + permutations)
    return HypothesisTest(
        "independence",
        "the scores of the model without the circuit are independent of the model's own scores"
        + ("" if strata is None else ", within each template"),
        "against the circuit",
        observed,
        "HSIC",
        p,
        len(whole),
        "permutation",
    )


def _hsic(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """The (biased) estimate: the mean over pairs of prompts of the product of both centred kernels."""
    return float(((left.T @ right) ** 2).sum()) / len(left) ** 2


def _features(values: Values, rounding: float) -> NDArray[np.float64]:
    """[prompt, feature], such that products of rows are the centred Gaussian kernel of the median distance.

    Few features are left of a kernel over numbers, so that a permutation costs little. None for equal values.
    """
    distances = np.abs(values[:, None] - values[None, :])
    apart = distances[distances > rounding]
    if not len(apart):
        return np.zeros((len(values), 0))
    kernel = np.exp(-(distances**2) / (2 * float(np.median(apart)) ** 2))
    kernel -= kernel.mean(axis=0, keepdims=True)
    kernel -= kernel.mean(axis=1, keepdims=True)
    weights, vectors = np.linalg.eigh(kernel)
    kept = weights > 1e-10 * weights.max()
    return np.asarray(vectors[:, kept] * np.sqrt(weights[kept]))


# -- the circuit against random circuits ------------------------------------------------------------------------------


def sufficiency(
    circuit: float,
    random_circuits: ArrayLike,
    *,
    quantile: float | None = QUANTILE,
    what: str = "recovers",
    rounding: float = 0.0,
) -> HypothesisTest:
    """Rejecting says that the circuit does better alone than most random circuits of its size and profile.

    `circuit` is its score with everything else ablated, `random_circuits` one such score per random circuit. With a
    `quantile` the null bounds the share of all random circuits that the candidate beats; with None it says that the
    candidate is itself like one drawn at random. A tie is no win.
    """
    return _beats("sufficiency", circuit, random_circuits, quantile, f"{what} more than", rounding)


def partial_necessity(
    damage: float, random_damages: ArrayLike, *, quantile: float | None = QUANTILE, rounding: float = 0.0
) -> HypothesisTest:
    """Rejecting says that knocking out the circuit does more damage than knocking out most random circuits.

    Damages are what a score falls by: higher is worse for the model. Otherwise as `sufficiency`.
    """
    does = "when knocked out does more damage than"
    return _beats("partial necessity", damage, random_damages, quantile, does, rounding)


def _beats(
    name: str, candidate: float, random_scores: ArrayLike, quantile: float | None, does: str, rounding: float
) -> HypothesisTest:
    others = _of_circuits(random_scores, f"scores of random circuits ({name})")
    if not math.isfinite(candidate):
        raise ValueError(f"the circuit's score is {candidate}")
    n, wins = len(others), int((candidate - others > rounding).sum())
    if quantile is None:
        null = "the circuit is no different from a random circuit of the same size and profile"
        return HypothesisTest(
            name, null, "for the circuit", wins / n, "share beaten", (1 + n - wins) / (1 + n), n, "rank"
        )
    null = f"the circuit {does} at most {quantile:.0%} of random circuits of the same size and profile"
    p = float(scipy.stats.binomtest(wins, n, quantile, alternative="greater").pvalue)
    return HypothesisTest(name, null, "for the circuit", wins / n, "share beaten", p, n, "binomial")


def random_circuits_needed(alpha: float = 0.05, quantile: float = QUANTILE) -> int:
    """The fewest random circuits with which `sufficiency` can reject at all: by beating every one of them."""
    return math.ceil(math.log(alpha) / math.log(quantile))


def minimality(
    knockouts: Mapping[str, float], random_knockouts: ArrayLike, *, quantile: float = QUANTILE, rounding: float = 0.0
) -> tuple[HypothesisTest, ...]:
    """One test per component: rejecting says that it matters no more than what does not belong to the circuit.

    `knockouts[component]` is the size of the change when the component is ablated on top of the circuit's complement,
    `random_knockouts` the same for random components of random larger circuits. The tests share those, so they depend
    on each other: correct them with Holm's method, which allows it. One rejection says the circuit is not minimal.
    """
    others = _of_circuits(random_knockouts, "effects of random components")
    found = []
    for component, effect in knockouts.items():
        if not math.isfinite(effect):
            raise ValueError(f"the effect of {component} is {effect}")
        wins = int((effect - others > rounding).sum())
        found.append(
            HypothesisTest(
                f"minimality of {component}",
                f"ablating {component} changes the circuit's score more than ablating at least {quantile:.0%} of "
                "components added to it at random",
                "against the circuit",
                wins / len(others),
                "share beaten",
                float(scipy.stats.binomtest(wins, len(others), quantile, alternative="less").pvalue),
                len(others),
                "binomial",
            )
        )
    return tuple(found)


# -- families of tests ------------------------------------------------------------------------------------------------


def corrected(
    tests: Sequence[HypothesisTest], method: Literal["holm", "benjamini-hochberg"] = "holm"
) -> tuple[HypothesisTest, ...]:
    """The tests with p-values for the whole family.

    "holm" bounds the chance of any false rejection, however the tests depend on each other; "benjamini-hochberg" the
    expected share of false ones among the rejections.
    """
    if not tests:
        return ()
    p_values = np.asarray([test.p_value for test in tests])
    if method == "holm":
        adjusted = holm(p_values)
    else:
        adjusted = np.asarray(scipy.stats.false_discovery_control(p_values, method="bh"))
    return tuple(replace(test, p_adjusted=float(p)) for test, p in zip(tests, adjusted, strict=True))


def holm(p_values: Values) -> Values:
    """Holm's step-down adjusted p-values (1979), in the order given."""
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    stepped = np.minimum(1.0, np.maximum.accumulate(factors * p_values[order]))
    adjusted = np.empty_like(stepped)
    adjusted[order] = stepped
    return adjusted


def _numbers(values: ArrayLike, what: str) -> Values:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"{what}: a list of numbers expected, got shape {array.shape}")
    return array


def _of_circuits(values: ArrayLike, what: str) -> Values:
    array = _numbers(values, what)
    if not np.isfinite(array).all():
        raise ValueError(f"{what}: {int((~np.isfinite(array)).sum())} of {len(array)} are not finite")
    return array


def _paired(**named: ArrayLike) -> tuple[Values, Values]:
    """Scores per prompt. Raises CS511 where one is not finite."""
    first, second = (_numbers(values, f"scores of the {what}") for what, values in named.items())
    for array, what in zip((first, second), named, strict=True):
        require_finite(array, f"the score of the {what}")
    if len(first) != len(second):
        raise ValueError(f"paired scores differ in number: {len(first)} and {len(second)}")
    return first, second
