"""A number with its confidence interval, and how the interval was made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

IntervalMethod = Literal["bca", "percentile", "constant", "means", "exact", "wilson", "betting", "asymptotic", "none"]


@dataclass(frozen=True)
class Estimate:
    """A statistic over `n` prompts (or random circuits) with its confidence interval at `level`.

    `method` says how the interval was made: "bca", the bias-corrected and accelerated bootstrap;
    "percentile", the bootstrap's plain percentiles where BCa is undefined; "constant", where every
    prompt alone gives this same value, so that the interval is the value; "means", that of the prompts, stretched for
    the error of the means that were patched in; "exact", Clopper and Pearson's of a share; "wilson", Wilson's of
    a share; "betting" and "asymptotic", those of confidence sequences, which hold at all numbers of prompts at once;
    "none", no interval (`low` and `high` are None).

    Where means were patched in, `value` is what was measured plus a `correction` for what their noise takes away;
    `means_error` is the standard error that is left of the means, a part of the interval. None where none were, or
    where the means are held fixed.
    """

    value: float
    low: float | None
    high: float | None
    level: float
    n: int
    method: IntervalMethod
    correction: float = 0.0
    means_error: float | None = None

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None) or (self.low is None) != (self.method == "none"):
            raise ValueError("an estimate has both ends of its interval and a method, or neither")

    @property
    def uncorrected(self) -> float:
        """What was measured."""
        return self.value - self.correction

    @property
    def interval(self) -> tuple[float, float] | None:
        return None if self.low is None or self.high is None else (self.low, self.high)

    def may_be(self, value: float) -> bool:
        """Whether the interval contains `value`; without an interval nothing speaks against it."""
        interval = self.interval
        return interval is None or interval[0] <= value <= interval[1]
