"""Intervals of a mean that are looked at a few times, after numbers of prompts that are fixed beforehand.

Each look has an equal part of the chance to be wrong, so that all of them together hold the mean with the chance that
is stated, and whoever looks may stop at any of them (Bonferroni over the looks). It is a confidence sequence that is
looked at nowhere else; those that hold at all numbers of prompts (`confidence_sequences`) are wider.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from circuitspec.analysis.statistics.stats import LEVEL, freedom_of


def ends_at_look(
    values: NDArray[np.float64], looks: int, *, level: float = LEVEL
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both ends of the interval of each mean, of `values` `[case, prompt]`, at one of so many looks: two arrays
    `[case]`.

    Each end is wrong at some look with a chance of at most (1 - level) / 2, where means of so many prompts are as good
    as normal; long tails, as far as they show, widen it as they do other intervals.
    """
    n = values.shape[-1]
    means, errors = values.mean(-1), values.std(-1, ddof=1) / math.sqrt(n)
    tail = (1 - level) / 2 / looks
    half = np.array(
        [stats.t.isf(tail, freedom_of(one)) if error else 0.0 for one, error in zip(values, errors, strict=True)]
    )
    return means - half * errors, means + half * errors
