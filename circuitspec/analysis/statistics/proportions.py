"""Shares of pairs, with intervals that hold at 0 and 1 too, where a bootstrap has none."""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import NDArray

from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.stats import LEVEL


def share_of(hits: NDArray[np.bool_], level: float = LEVEL) -> Estimate | None:
    """The share of true ones with Wilson's score interval; None of nothing."""
    n, found = len(hits), int(hits.sum())
    if not n:
        return None
    interval = scipy.stats.binomtest(found, n).proportion_ci(level, method="wilson")
    return Estimate(found / n, float(interval.low), float(interval.high), level, n, "wilson")
