"""How often a repeated search chose what: by component at a position, by component, and by edge."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.proportions import share_of
from circuitspec.exploration.search.circuit_selection import Entry
from circuitspec.exploration.stability.repeated_search import Selection

CORE = 0.8  # chosen at least so often
NOISE = 0.2  # chosen less often than this

Standing = Literal["core", "contingent", "noise"]


def standing(frequency: float) -> Standing:
    """`core` from 0.8 on, `noise` below 0.2, `contingent` between."""
    return "core" if frequency >= CORE else "noise" if frequency < NOISE else "contingent"


@dataclass(frozen=True)
class Chosen:
    """How often something was chosen; its interval (Wilson) is that of so many draws from these very prompts.

    It says how near the figure is to that of all halves of them, and not what other prompts would give: halves overlap.
    `effect` is what it was taken in as most often; `drafted` whether the circuit of all prompts has it.
    """

    frequency: Estimate
    drafted: bool
    effect: str = ""

    @property
    def standing(self) -> Standing:
        return standing(self.frequency.value)

    @property
    def spoken(self) -> str:
        """`chosen 48 of 50`."""
        return f"chosen {round(self.frequency.value * self.frequency.n)} of {self.frequency.n}"


def entries_chosen(selections: Sequence[Selection], drafted: Mapping[Entry, str]) -> dict[Entry, Chosen]:
    """Of every component at a position that was chosen once at least, or is drafted; the most often chosen first."""
    every = dict.fromkeys([*drafted, *(entry for one in selections for entry in one.entries)])
    found = {}
    for entry in every:
        effects = [one.entries[entry] for one in selections if entry in one.entries] or [drafted[entry]]
        most = max(sorted(set(effects)), key=effects.count)
        found[entry] = Chosen(_often([entry in one.entries for one in selections]), entry in drafted, most)
    return dict(sorted(found.items(), key=lambda pair: (-pair[1].frequency.value, not pair[1].drafted)))


def often(hits: Collection[bool], *, drafted: bool) -> Chosen:
    """Of so many searches, those that chose it."""
    return Chosen(_often(hits), drafted)


def _often(hits: Collection[bool]) -> Estimate:
    found = share_of(np.array(list(hits), dtype=np.bool_))
    assert found is not None
    return found


def false_choices(selections: Sequence[Selection], candidates: int) -> float:
    """How many entries chosen at least `CORE` often are expected to be of no use, at most: q² / ((2 CORE - 1) p).

    With q entries chosen of p candidates in the mean (Meinshausen and Bühlmann 2010, theorem 1). It holds where those
    of no use are exchangeable, and a search is no worse than guessing.
    """
    mean = float(np.mean([len(one.entries) for one in selections]))
    return mean**2 / ((2 * CORE - 1) * candidates)
