"""The parts of the prompts that a search is repeated on: random halves, and all templates but one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from circuitspec.analysis.claims.claim_result import MIN_PROMPTS
from circuitspec.analysis.statistics.split_sample import halves

FIRST_SEED = 1  # of the first half; those that follow have the seeds after it
SHORT = 24  # characters of a label that is shown as it is
FEWEST = 2 * MIN_PROMPTS  # prompts of which halves can be searched on

How = Literal["half", "template held out"]


@dataclass(frozen=True)
class Subsample:
    """Some of the prompts: bool `[prompt]`, those that are searched on. The others are held out of that search."""

    name: str
    how: How
    counted: NDArray[np.bool_]

    @property
    def held_out(self) -> NDArray[np.bool_]:
        return ~self.counted


def random_halves(templates: NDArray[np.int64], count: int) -> tuple[Subsample, ...]:
    """So many halves of the prompts, drawn without replacement (Meinshausen and Bühlmann 2010), evenly by template.

    Each is drawn anew from all prompts, so that any two of them share about half of theirs. Of an odd number the one
    more is held out. Raises ValueError where there are fewer than `FEWEST` prompts.
    """
    if len(templates) < FEWEST:
        raise ValueError(f"halves of {len(templates)} prompts are too few to search on")
    seeds = range(FIRST_SEED, FIRST_SEED + count)
    return tuple(Subsample(f"half {seed}", "half", halves(templates, seed).search) for seed in seeds)


def all_but_one_template(templates: NDArray[np.int64], labels: Sequence[str]) -> tuple[Subsample, ...]:
    """For each template all prompts of the others; none of those that leave too few prompts on either side."""
    found = []
    for number in np.unique(templates):
        counted = templates != number
        if min(int(counted.sum()), int((~counted).sum())) >= MIN_PROMPTS:
            label = labels[number]
            name = label if len(label) <= SHORT else f"templates[{number}]"
            found.append(Subsample(name, "template held out", counted))
    return tuple(found)
