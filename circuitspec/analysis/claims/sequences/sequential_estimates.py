"""Figures of claims while prompts come in: by confidence sequences, which hold however often they are looked at.

A figure is looked at after so many prompts, and again after more; what it is said to be is what all looks so far leave.
Looks are recomputed from the values per prompt, so that a figure depends on these and on the looks alone.

Metrics that lie between bounds (accuracy, probabilities) are bet on, all others have the asymptotic sequence of a ratio
of means. Where means were patched in, their error is one that all prompts share: it was drawn once, before the first
prompt was scored, and more prompts do not make it smaller.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import scipy
from numpy.typing import NDArray

from circuitspec.analysis.claims.means_error import DOUBT, MeansError, Runs
from circuitspec.analysis.statistics import stats
from circuitspec.analysis.statistics.confidence_sequences import (
    Range,
    asymptotic_ratio,
    betting_mean,
    betting_ratio,
    intersected,
)
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.proportions import share_of
from circuitspec.analysis.statistics.stats import Values
from circuitspec.engine.records import Records
from circuitspec.prompts.output_metrics import METRICS

_ROUNDING = 1e-5  # probabilities are computed in float32


@dataclass(frozen=True)
class SequentialEstimates(MeansError):
    """The means' error, if any, with the numbers of prompts at which figures were looked at so far.

    Asymptotic sequences are narrowest after `tuned_for` prompts. Without means there are no `groupings`.
    """

    looks: tuple[int, ...]
    tuned_for: float

    @classmethod
    def over(
        cls, error: MeansError | None, nothing: Records, looks: tuple[int, ...], tuned_for: float
    ) -> SequentialEstimates:
        """With the means' `error` where there is one; `nothing` are records of no experiment, on the same prompts."""
        known = MeansError(True, {}, nothing) if error is None else error
        return cls(known.reference, known.groupings, known.records, looks, tuned_for)

    @property
    def fixed(self) -> MeansError | None:
        """What figures of a fixed number of prompts take: the error of means, if there is any."""
        return MeansError(self.reference, self.groupings, self.records) if self.groupings else None

    def recovered(
        self,
        plain: Records,
        runs: Runs,
        metric: str,
        *,
        level: float = stats.LEVEL,
        resamples: int = stats.RESAMPLES,
        summed: bool = False,
    ) -> Estimate:
        """As `MeansError.recovered`, with the interval that all looks leave; `resamples` do not matter."""
        within = METRICS[metric].within if metric in METRICS and not summed else None
        return intersected([self._at(n, plain, runs, metric, level, within) for n in self.looks])

    def _at(self, n: int, plain: Records, runs: Runs, metric: str, level: float, within: Range | None) -> Estimate:
        read = self.first(n).read(plain.first(n), runs, metric)
        correction, shared, freedom = 0.0, 0.0, math.inf
        if read.kind is not None:
            value = float((read.whole[0] - read.whole[1]).mean() / (read.whole[2] - read.whole[1]).mean())
            correction, error, freedom = self.first(n).of_reference(value, read)
            shared = math.hypot(error, DOUBT * abs(correction))
        patched, zero, one = read.whole
        if within is None:
            return asymptotic_ratio(
                patched - zero,
                one - zero,
                tuned_for=self.tuned_for,
                level=level,
                shared_error=shared,
                correction=correction,
                freedom=freedom,
            )
        patched, zero, one = (_rounded_into(run, within) for run in read.whole)
        own = betting_ratio(patched, zero, one, level=level, within=within)
        return own if read.kind is None else _with_shared(own, correction, shared, freedom)

    def first(self, n: int) -> SequentialEstimates:
        return replace(self, groupings=self._groupings_of(n), records=self.records.first(n))

    def share_of(self, hits: NDArray[np.bool_], places: NDArray[np.bool_]) -> Estimate | None:
        """The share of `hits` among the prompts at `places`, both `[prompt]`, by betting; None of nothing."""
        looks = [hits[:n][places[:n]].astype(np.float64) for n in self.looks]
        found = [betting_mean(values) for values in looks if len(values)]
        return intersected(found) if found else None


def share_among(hits: NDArray[np.bool_], places: NDArray[np.bool_], error: MeansError | None) -> Estimate | None:
    """The share of `hits` among `places`: with Wilson's interval, or with a sequence's where prompts come in."""
    if isinstance(error, SequentialEstimates):
        return error.share_of(hits, places)
    return share_of(hits[places])


def _rounded_into(values: Values, within: Range) -> Values:
    """Values that rounding put beyond their bounds, put back; what lies further out stays there."""
    clipped = np.clip(values, *within)
    return np.where(np.abs(values - clipped) <= _ROUNDING, clipped, values)


def _with_shared(own: Estimate, correction: float, shared: float, freedom: float) -> Estimate:
    """A betting interval, moved and widened for an independent error of the means."""
    value = own.value + correction
    told = replace(own, value=value, correction=correction, means_error=shared)
    if own.interval is None or not math.isfinite(shared) or not math.isfinite(correction):
        return replace(told, low=None, high=None, method="none")
    low, high = own.interval
    times = float(scipy.stats.t.ppf((1 + own.level) / 2, max(freedom, 1)))
    below, above = (math.hypot(arm, times * shared) for arm in (own.value - low, high - own.value))
    return replace(told, low=value - below, high=value + above)
