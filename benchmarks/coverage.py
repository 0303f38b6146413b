"""How often the confidence intervals of recovered performance hold the true value.

    python benchmarks/coverage.py [--repetitions 1000] [--resamples 9999] [--only NAME] [--first 0]
    python benchmarks/coverage.py --means [--repetitions 500] [--only "mean, drawn"] [--prompts 10 20] [--first 0]

Prompts are drawn from distributions of which the true recovered performance is known; the interval is the one that
`verify` prints (95 %, BCa bootstrap over prompt pairs). Prints a table for README.md, with the shares of intervals that
lie below and above the truth: an interval that is right should miss on both sides alike.

With `--means` the prompts are those of a real model (`zoo:ioi-tiny`), everything outside its circuit is ablated by
means, and in each repetition both the scored prompts and the means are new: from other prompts, as many as it takes,
where prompts are drawn; from the scored prompts themselves where they are all there is, as in a file. The truth is that
of 8,000 prompts with means over all of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circuitspec.analysis.statistics import stats

Sample = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]  # patched, corrupt, clean


@dataclass(frozen=True)
class Scenario:
    """Prompts like those of some metric, and what is truly recovered: the ratio of the means they are drawn from."""

    name: str
    truth: float
    draw: Callable[[np.random.Generator, int], Sample]


def _logit_difference(dice: np.random.Generator, n: int) -> Sample:
    # means 3.5, 0 and 3.05: a circuit like that of the IOI paper, with names of their own pull (corrupt)
    clean, corrupt = dice.normal(3.5, 1.2, n), dice.normal(0, 1.5, n)
    return 0.8 * clean + 0.25 * corrupt + dice.normal(0.25, 0.6, n), corrupt, clean


def _necessity(dice: np.random.Generator, n: int) -> Sample:
    clean, corrupt = dice.normal(3.5, 1.2, n), dice.normal(0, 1.5, n)
    return 0.1 * clean + 0.9 * corrupt + dice.normal(0, 0.6, n), corrupt, clean


def _templates(dice: np.random.Generator, n: int) -> Sample:
    # two kinds of prompts in equal number, of which one recovers 0.79 and the other 1.19
    clean, corrupt = dice.normal(3.5, 1.2, n), dice.normal(0, 1.0, n)
    share = np.where(dice.random(n) < 0.5, 0.79, 1.19)
    return share * clean + (1 - share) * corrupt + dice.normal(0, 0.6, n), corrupt, clean


def _skewed(dice: np.random.Generator, n: int) -> Sample:
    # some prompts are much easier than others: E[clean] = 5, E[patched] = 4
    easy = dice.gamma(2.0, 1.0, n)
    clean = 3 + easy + dice.normal(0, 0.5, n)
    return 0.8 * clean + dice.normal(0, 0.5, n), 0.3 * dice.normal(0, 1, n), clean


def _heavy_tails(dice: np.random.Generator, n: int) -> Sample:
    clean, corrupt = 3.5 + dice.standard_t(4, n), dice.standard_t(4, n)
    return 0.8 * clean + 0.5 * dice.standard_t(4, n), corrupt, clean


def _divergence(dice: np.random.Generator, n: int) -> Sample:
    # KL to the clean run: 0 there, 2.5 nats on average in the corrupt run, 0.5 in the circuit's
    corrupt = dice.gamma(2.5, 1.0, n)
    return 0.2 * corrupt * dice.gamma(4.0, 0.25, n), corrupt, np.zeros(n)


def _accuracy(dice: np.random.Generator, n: int) -> Sample:
    # 0.99 clean, 0.5 corrupt, and what the clean run does right the circuit does in nine of ten prompts
    clean, corrupt = dice.random(n) < 0.99, dice.random(n) < 0.5
    return (clean & (dice.random(n) < 0.9)).astype(float), corrupt.astype(float), clean.astype(float)


SCENARIOS = (
    Scenario("logit difference", 3.05 / 3.5, _logit_difference),
    Scenario("logit difference, circuit ablated", 0.1, _necessity),
    Scenario("two kinds of templates", 0.99, _templates),
    Scenario("skewed", 0.8, _skewed),
    Scenario("heavy tails (t, 4 degrees)", 0.8, _heavy_tails),
    Scenario("KL", 0.8, _divergence),
    Scenario("accuracy", (0.99 * 0.9 - 0.5) / (0.99 - 0.5), _accuracy),
)


@dataclass(frozen=True)
class Coverage:
    """Shares of intervals that hold the truth, and that lie below and above it."""

    holds: float
    below: float
    above: float


def coverage(scenario: Scenario, n: int, repetitions: int, resamples: int, first: int = 0) -> Coverage:
    """Over fresh prompts for every repetition; the bootstrap has a seed of its own each time.

    Prompts that allow no interval allow no verdict either, and count as held.
    """
    below = above = 0
    for repetition in range(repetitions):
        dice = np.random.default_rng([n, first + repetition])
        estimate = stats.recovered(*scenario.draw(dice, n), resamples=resamples, seed=repetition)
        if estimate.interval is None:
            continue
        below += estimate.interval[1] < scenario.truth
        above += estimate.interval[0] > scenario.truth
    return Coverage(1 - (below + above) / repetitions, below / repetitions, above / repetitions)


def main() -> None:
    parser = argparse.ArgumentParser(description="Coverage of the confidence intervals of recovered performance.")
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=stats.RESAMPLES)
    parser.add_argument("--first", type=int, default=0, help="number of the first draw of prompts")
    parser.add_argument("--only", default="", help="scenarios whose name contains this")
    parser.add_argument("--means", action="store_true", help="means of a real model, estimated anew each time")
    parser.add_argument("--prompts", type=int, nargs="+", default=[10, 20, 60, 100], help="with --means")
    options = parser.parse_args()
    if options.means:
        from means import table

        repetitions = options.repetitions if options.repetitions != 1000 else 500
        table(options.prompts, repetitions, options.first, options.only, options.resamples)
        return
    print("| prompts like | truly recovered | n | 95 % interval holds it | lies below | lies above |")
    print("|---|---|---|---|---|---|")
    for scenario in SCENARIOS:
        for n in (30, 100) if options.only in scenario.name else ():
            found = coverage(scenario, n, options.repetitions, options.resamples, options.first)
            shares = " | ".join(f"{share:.1%}" for share in (found.holds, found.below, found.above))
            print(f"| {scenario.name} | {scenario.truth:.3f} | {n} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
