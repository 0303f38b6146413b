"""Intervals of a mean that are looked at a few times, after numbers of prompts that are fixed beforehand.

Each look has an equal part of the chance to be wrong, so that all of them together hold the mean with the chance that
is stated, and whoever looks may stop at any of them (Bonferroni over the looks). It is a confidence sequence that is
looked at nowhere else; those that hold at all numbers of prompts (`confidence_sequences`) are wider.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import scipy
from numpy.typing import NDArray

from circuitspec.analysis.statistics.stats import LEVEL, freedom_of

FIRST, SECOND = 12, 30  # prompts after which is looked
FEWEST = 24  # prompts of a task that is worth it


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
        [scipy.stats.t.isf(tail, freedom_of(one)) if error else 0.0 for one, error in zip(values, errors, strict=True)]
    )
    return means - half * errors, means + half * errors


def looks_of(templates: NDArray[np.int64]) -> tuple[tuple[int, ...], ...]:
    """The prompts that come in before each look, by their numbers; all of them in the end.

    Each lot has prompts of all templates in turn, and within a template in their order, which is random where prompts
    are drawn. Few prompts are all looked at at once.
    """
    n = len(templates)
    if n < FEWEST:
        return (tuple(range(n)),)
    order = by_turns(templates)
    cuts = [0, *(cut for cut in (FIRST, SECOND) if n >= 2 * cut), n]
    return tuple(tuple(sorted(order[a:b])) for a, b in pairwise(cuts))


def looks_within(templates: NDArray[np.int64], half: NDArray[np.bool_]) -> tuple[tuple[int, ...], ...]:
    """The same, where looks are at prompts of one half alone, bool `[prompt]`; all others come in with the last lot."""
    own = np.flatnonzero(half)
    *looks, last = (tuple(int(own[place]) for place in lot) for lot in looks_of(templates[own]))
    return (*looks, tuple(sorted((*last, *np.flatnonzero(~half).tolist()))))


def by_turns(templates: NDArray[np.int64]) -> list[int]:
    """The prompts by their numbers, one of each template after the other."""
    seen: dict[int, int] = {}
    turns = []
    for prompt, template in enumerate(templates.tolist()):
        turns.append((seen.setdefault(template, 0), template, prompt))
        seen[template] += 1
    return [prompt for *_, prompt in sorted(turns)]
