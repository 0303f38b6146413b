"""How often confidence sequences hold the truth when they are looked at after every batch, by simulation.

    python benchmarks/sequences.py [RUNS] [SEEDS]

For each kind of metric prompts are drawn from a law whose true figure is known, and looked at after 20, 30, 40, ...
prompts (`looks_at` of `verify --sequential`) up to 420. A run counts as covered if all looks hold the truth. Beside it
the interval of a fixed number of prompts, looked at as often: a t interval of the linearised ratio, or Wilson's. The
runs are divided among seeds; the least and the largest share of a seed say how far they spread.
"""

from __future__ import annotations

import functools
import math
import sys
import time
from collections.abc import Callable

import numpy as np
import scipy
from numpy.typing import NDArray

from circuitspec.analysis.statistics.confidence_sequences import asymptotic_ratio, betting_mean, betting_ratio
from circuitspec.analysis.statistics.proportions import share_of
from circuitspec.pipelines.sequential import looks_at

MOST, TUNED = 420, 25.0
LOOKS = looks_at(1, MOST)
Values = NDArray[np.float64]
Interval = tuple[float, float] | None
Run = Callable[[np.random.Generator], tuple[list[Interval], list[Interval]]]


def ratio(patched: Values, zero: Values, one: Values, within: tuple[float, float] | None) -> tuple[Interval, Interval]:
    """The sequence's interval, and the fixed one, of recovered performance."""
    top, bottom = patched - zero, one - zero
    if within is None:
        own = asymptotic_ratio(top, bottom, tuned_for=TUNED)
    else:
        own = betting_ratio(patched, zero, one, within=within)
    n, value = len(top), float(top.mean() / bottom.mean())
    error = float((top - value * bottom).std(ddof=1)) / math.sqrt(n) / abs(float(bottom.mean()))
    half = float(scipy.stats.t.ppf(0.975, n - 1)) * error
    return own.interval, (value - half, value + half)


def of_ratio(
    draw: Callable[[np.random.Generator, int], tuple[Values, Values, Values]],
    within: tuple[float, float] | None = None,
) -> Run:
    def run(dice: np.random.Generator) -> tuple[list[Interval], list[Interval]]:
        scores = draw(dice, MOST)
        looks = [ratio(*(values[:n] for values in scores), within) for n in LOOKS]
        return [look[0] for look in looks], [look[1] for look in looks]

    return run


@functools.cache
def share(hits: int, n: int) -> tuple[Interval, Interval]:
    """Of so many hits among n, whose order does not matter: the sequence's interval, and Wilson's."""
    found = np.repeat([True, False], [hits, n - hits])
    fixed = share_of(found)
    return betting_mean(found.astype(float)).interval, None if fixed is None else fixed.interval


def of_share(truth: float) -> Run:
    def run(dice: np.random.Generator) -> tuple[list[Interval], list[Interval]]:
        hits = np.cumsum(dice.random(MOST) < truth)
        looks = [share(int(hits[n - 1]), n) for n in LOOKS]
        return [look[0] for look in looks], [look[1] for look in looks]

    return run


def logit_diff(dice: np.random.Generator, n: int) -> tuple[Values, Values, Values]:
    """Templates in rotation, of which each recovers another share: 0.6 to 1.0, on the mean 0.8."""
    gap = 4 + dice.standard_normal(n)
    share = np.tile([0.6, 0.7, 0.9, 1.0], n // 4 + 1)[:n]
    zero = dice.standard_normal(n)
    return zero + share * gap + 0.8 * dice.standard_normal(n), zero, zero + gap


def small_gap(dice: np.random.Generator, n: int) -> tuple[Values, Values, Values]:
    """The corruption does little: the clean - corrupt difference varies three times as much as it is."""
    zero, gap = dice.standard_normal(n), 0.6 + 1.8 * dice.standard_normal(n)
    return zero + 0.8 * gap + 0.3 * dice.standard_normal(n), zero, zero + gap


def kl(dice: np.random.Generator, n: int) -> tuple[Values, Values, Values]:
    """Never negative, with long tails: log-normal at both ends; 0 in the clean run. Recovered is 1 - 0.6 / 4."""
    zero, patched = (dice.lognormal(math.log(mean) - 0.32, 0.8, n) for mean in (4.0, 0.6))
    return patched, zero, np.zeros(n)


def rank(dice: np.random.Generator, n: int) -> tuple[Values, Values, Values]:
    """Counts: geometric at both ends, on the mean 20 and 3; 0 in the clean run. Recovered is 1 - 3 / 20."""
    return dice.geometric(1 / 4, n) - 1.0, dice.geometric(1 / 21, n) - 1.0, np.zeros(n)


def prob(dice: np.random.Generator, n: int) -> tuple[Values, Values, Values]:
    """Beta laws: on the mean 0.9 clean, 0.1 corrupt, 0.7 patched. Recovered is 0.75."""
    return dice.beta(3.5, 1.5, n), dice.beta(0.5, 4.5, n), dice.beta(4.5, 0.5, n)


def accuracy(dice: np.random.Generator, n: int) -> tuple[Values, Values, Values]:
    """Right or wrong: 0.97 clean, 0.4 corrupt; three quarters of the patched runs do as the clean one does."""
    one, zero = dice.random(n) < 0.97, dice.random(n) < 0.4
    return np.where(dice.random(n) < 0.75, one, zero).astype(float), zero.astype(float), one.astype(float)


def shared_means(dice: np.random.Generator, n: int) -> tuple[list[Interval], list[Interval]]:
    """Means over other prompts move all figures by one error, drawn once; its size is known with three degrees."""
    zero, gap = dice.standard_normal(n), 4 + dice.standard_normal(n)
    error = 0.05
    patched = zero + (0.8 + error * dice.standard_normal()) * gap + 1.2 * dice.standard_normal(n)
    known = error * math.sqrt(dice.chisquare(3) / 3)
    own, fixed = [], []
    for k in LOOKS:
        scores = patched[:k] - zero[:k], gap[:k]
        own.append(asymptotic_ratio(*scores, tuned_for=TUNED, shared_error=known, freedom=3).interval)
        fixed.append(ratio(patched[:k], zero[:k], zero[:k] + gap[:k], None)[1])
    return own, fixed


KINDS: dict[str, tuple[str, float, Run]] = {
    "logit_diff (four templates in rotation)": ("asymptotic", 0.8, of_ratio(logit_diff)),
    "logit_diff, small gap": ("asymptotic", 0.8, of_ratio(small_gap)),
    "kl (log-normal)": ("asymptotic", 1 - 0.6 / 4, of_ratio(kl)),
    "rank (geometric)": ("asymptotic", 1 - 3 / 20, of_ratio(rank)),
    "logit_diff, means with an error of 0.05": ("asymptotic", 0.8, lambda dice: shared_means(dice, MOST)),
    "prob": ("betting", 0.75, of_ratio(prob, (0.0, 1.0))),
    "accuracy": ("betting", 0.75, of_ratio(accuracy, (0.0, 1.0))),
    "IIA of 0.9": ("betting", 0.9, of_share(0.9)),
    "flips of 0.05": ("betting", 0.05, of_share(0.05)),
}


def held(looks: list[Interval], truth: float) -> bool:
    return all(look is None or look[0] <= truth <= look[1] for look in looks)


def width(looks: list[Interval], at: int) -> float:
    """Of the look after so many prompts; infinite where there is no interval."""
    look = looks[LOOKS.index(at)]
    return math.inf if look is None else look[1] - look[0]


def main() -> None:
    runs, seeds = (int(sys.argv[i]) if len(sys.argv) > i else default for i, default in ((1, 1000), (2, 10)))
    print(f"{runs} runs, {seeds} seeds, looked at after {', '.join(map(str, LOOKS))}\n")
    print("| metric | sequence | covered | by seed | fixed, looked at as often | width at 50 | fixed | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for name, (kind, truth, run) in KINDS.items():
        started = time.monotonic()
        covered, fixed, widths = [], [], []
        for seed in range(seeds):
            dice = np.random.default_rng([seed, len(name)])
            found = [run(dice) for _ in range(runs // seeds)]
            covered.append(np.mean([held(own, truth) for own, _ in found]))
            fixed.append(np.mean([held(other, truth) for _, other in found]))
            widths += [(width(own, 50), width(other, 50)) for own, other in found]
        own, other = np.median(widths, axis=0)
        print(
            f"| {name} | {kind} | {np.mean(covered):.3f} | {min(covered):.2f} to {max(covered):.2f} | "
            f"{np.mean(fixed):.3f} | {own:.2f} | {other:.2f} | {time.monotonic() - started:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
