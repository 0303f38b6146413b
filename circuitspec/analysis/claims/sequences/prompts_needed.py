"""About how many prompts it takes until a claim is decided, from an assumed figure and spread."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from circuitspec.analysis.statistics.confidence_sequences import (
    FIRST_LOOK,
    betting_mean,
    mixture_precision,
    standard_errors,
)
from circuitspec.analysis.statistics.stats import LEVEL

TUNED = 4  # sequences are narrowest after the file's number of prompts over this
SPREAD = 0.5  # between prompts, of what the corruption takes away: assumed where nothing is known
DISTANCE = 0.1  # of a figure from its bound, likewise
MOST = 100_000  # prompts; what takes more is not counted
SHARE_BEYOND = 0.1  # of a share from its bound, assumed likewise

_Z = NormalDist().inv_cdf((1 + LEVEL) / 2)


def distance_to(value: float, at_least: float | None, at_most: float | None) -> float:
    """How far a figure lies from the end of its bound that decides: the nearest one, or the one that it is beyond."""
    ends = [end for end in (at_least, at_most) if end is not None]
    return min((abs(value - end) for end in ends), default=math.inf)


def spread_of(low: float, high: float, n: int) -> float:
    """The spread between prompts that makes an interval of `n` prompts, a fixed number, as long as it is."""
    return (high - low) / 2 / _Z * math.sqrt(n)


def needed(spread: float, distance: float, tuned_for: float) -> int | None:
    """Prompts until the asymptotic sequence of a figure is narrower than its distance from the bound; None: too many.

    That is what about half of all runs take: a figure that comes out closer takes more.
    """

    def decided(n: int) -> bool:
        errors = float(standard_errors(1 / (n * mixture_precision(tuned_for))))
        return errors * spread / math.sqrt(n) <= distance

    return _first(decided)


def needed_fixed(spread: float, distance: float) -> int | None:
    """The same for a number of prompts that is fixed beforehand."""
    return None if distance <= 0 else math.ceil((_Z * spread / distance) ** 2)


def needed_of_share(share: float, at_least: float | None, at_most: float | None) -> int | None:
    """Prompts until betting decides on which side of its bound a share lies, if hits come as often as it says."""

    def decided(n: int) -> bool:
        hits = round(share * n)
        interval = betting_mean(np.repeat([1.0, 0.0], [hits, n - hits])).interval
        assert interval is not None
        low, high = interval
        least, most = -math.inf if at_least is None else at_least, math.inf if at_most is None else at_most
        return (least <= low and high <= most) or high < least or low > most

    return _first(decided)


def _first(decided: Callable[[int], bool]) -> int | None:
    """The fewest prompts, from the first look on, that decide: by doubling, then halving."""
    n = FIRST_LOOK
    while not decided(n):
        n *= 2
        if n > MOST:
            return None
    low, high = max(FIRST_LOOK, n // 2), n
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle + 1, high)
    return high
