"""How much random circuits of the same layer profile share with a circuit, by chance.

Random circuits are those of `beats_random`: the components of each layer exchanged at random for others of it that are
not free, so that MLPs (of which a layer has one) stay. For sets of components the number shared is a sum of
hypergeometric numbers, one a layer, and its distribution exact. Of positions, groups and edges, which move along with
their components, it is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.relabel import Exchange, exchange

DRAWS, FEWEST_DRAWS = 1000, 100
WORK = 2_000_000  # entries that are moved in all draws together, at most, but for the fewest draws
SEED = 0


@dataclass(frozen=True)
class LayerPool:
    """Components of one kind and layer: how many there are to choose from, how many the random circuit has, and of how
    many of those to choose from the other circuit is made."""

    size: int
    taken: int
    wanted: int


@dataclass(frozen=True)
class Chance:
    """What random circuits share: the mean of the number and of Jaccard's index, and how often as many or more, or as
    few or fewer, are shared. `draws` are None where the distribution is exact."""

    shared: float
    jaccard: float
    p_as_many: float
    p_as_few: float
    draws: int | None = None

    @property
    def method(self) -> str:
        return "exact" if self.draws is None else f"{self.draws} draws"


def jaccard(first: int, second: int, shared: float) -> float:
    """What two sets share of what is in either; 1 for two empty sets, which are the same."""
    union = first + second - shared
    return shared / union if union else 1.0


def distribution(pools: Iterable[LayerPool], fixed: int = 0) -> NDArray[np.float64]:
    """`[k]`, the probability that k are shared: `fixed` of them whatever is drawn, the others independently by pool."""
    found = np.zeros(fixed + 1)
    found[fixed] = 1.0
    for pool in pools:
        ways = math.comb(pool.size, pool.taken)
        alone = [
            math.comb(pool.wanted, k) * math.comb(pool.size - pool.wanted, pool.taken - k) / ways
            for k in range(min(pool.taken, pool.wanted) + 1)
        ]
        found = np.convolve(found, np.array(alone))
    return found


def exact_chance(pools: Sequence[LayerPool], fixed: int, first: int, second: int, shared: int) -> Chance:
    """The chance of sharing `shared` of `first` and `second` nodes, by `distribution`."""
    probabilities = distribution(pools, fixed)
    numbers = np.arange(len(probabilities))
    indices = np.array([jaccard(first, second, int(number)) for number in numbers])
    return Chance(
        float(probabilities @ numbers),
        float(probabilities @ indices),
        min(1.0, float(probabilities[shared:].sum())),
        min(1.0, float(probabilities[: shared + 1].sum())),
    )


def draws_for(entries: int) -> int:
    """How often circuits are drawn that have so many entries together."""
    return max(FEWEST_DRAWS, min(DRAWS, WORK // max(1, entries)))


@dataclass(frozen=True)
class Counted:
    """Parts of two circuits that are counted at one level; `after` says how many are shared after an exchange of the
    first circuit's components."""

    first: int
    second: int
    shared: int
    after: Callable[[Exchange], int]


def drawn_chances(
    graph: CircuitGraph, counted: Sequence[Counted], layers: frozenset[int], *, whole_groups: bool
) -> tuple[Chance, ...]:
    """The chance of sharing as much, by draws that all levels have in common.

    `layers` are those in which the first circuit has any components. With `whole_groups` key-value heads move with the
    heads that read them, so that edges stay edges. The circuit itself counts as one of the draws, so that no
    probability is 0.
    """
    if not counted:
        return ()
    dice, count = Random(SEED), draws_for(sum(one.first for one in counted))
    drawn = np.zeros((count, len(counted)))
    for row in drawn:
        of = exchange(graph, dice, whole_groups=whole_groups, layers=layers)
        row[:] = [one.after(of) for one in counted]
    return tuple(_drawn(one, numbers) for one, numbers in zip(counted, drawn.T, strict=True))


def _drawn(one: Counted, numbers: NDArray[np.float64]) -> Chance:
    count = len(numbers)
    return Chance(
        float(numbers.mean()),
        float(np.mean([jaccard(one.first, one.second, float(number)) for number in numbers])),
        (1 + int((numbers >= one.shared).sum())) / (1 + count),
        (1 + int((numbers <= one.shared).sum())) / (1 + count),
        count,
    )
