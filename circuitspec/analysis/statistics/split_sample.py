"""One half of the prompts to search on and the other to judge on, so that what was picked does not flatter itself.

The largest of many noisy figures is larger than what it measures; measured again on other prompts it is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circuitspec.analysis.statistics import stats


@dataclass(frozen=True)
class Halves:
    """Which prompts are searched on and which are judged on, bool `[prompt]` each: every prompt is in one of them."""

    search: NDArray[np.bool_]
    judge: NDArray[np.bool_]

    @property
    def n_search(self) -> int:
        return int(self.search.sum())

    @property
    def n_judge(self) -> int:
        return int(self.judge.sum())


def halves(templates: NDArray[np.int64], seed: int = stats.SEED) -> Halves:
    """Prompts of each template divided at random and evenly; of an odd number, the one more is judged on."""
    order = np.random.default_rng(seed).permutation(len(templates))
    order = order[np.argsort(templates[order], kind="stable")]
    judge = np.zeros(len(templates), dtype=np.bool_)
    judge[order[::2]] = True
    return Halves(~judge, judge)
