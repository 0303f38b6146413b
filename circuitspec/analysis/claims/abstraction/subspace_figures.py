"""What is said of a subspace beside what it scores: what its parts do alone, and how natural patched states are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.proportions import share_of
from circuitspec.analysis.statistics.wording import number, with_interval
from circuitspec.experiments.subspaces.natural_states import PatchedStates, StateDistances
from circuitspec.experiments.subspaces.subspace_parts import ACROSS, ALONG, BOTH

PARTS = (ALONG, ACROSS, BOTH)
WHOLE_VALUE, WITHIN = "in all directions", "in those of the subspace's parts"


def decomposed(own: Estimate, parts: Mapping[str, Estimate]) -> str:
    """The IIA of each part alone, and what follows, as far as the intervals tell."""
    if set(parts) != set(PARTS):
        return "it lies wholly along the mean differences or wholly across them, so that there are no two parts"
    figures = ", ".join(f"{name} {with_interval(parts[name])}" for name in PARTS)

    def less(name: str) -> bool:
        return (parts[name].high or 0.0) < (own.low or 0.0)

    if not less(ALONG):
        follows = "the part along it does as much alone: the variable is where its mean values differ"
    elif not less(ACROSS):
        follows = "the part across it does as much alone: what it carries does not show in the mean values"
    elif less(BOTH):
        follows = (
            "neither part does it alone, nor do both as in the source: the subspace moves what lies across the mean "
            "difference by what differs along it, through a part that is otherwise dormant"
        )
    else:
        follows = "it takes both parts, neither of which does it alone"
    return f"{figures}; {follows}"


def by_directions(states: PatchedStates) -> Mapping[str, StateDistances]:
    """The distances in all directions and in those of the subspace's parts, by these words."""
    return {WHOLE_VALUE: states.whole, WITHIN: states.within}


def outside_shares(states: PatchedStates, counted: NDArray[np.bool_]) -> dict[str, Estimate]:
    """The shares of the `counted` patched states that are outside the natural range, by directions."""
    found = {name: share_of(one.outside[counted]) for name, one in by_directions(states).items()}
    return {name: share for name, share in found.items() if share is not None}


def state_words(states: PatchedStates, counted: NDArray[np.bool_]) -> str:
    """`in all directions 0.06 [0.03, 0.12] (1.02 times as far from the nearest natural state as ...); ...`."""
    shares = outside_shares(states, counted)
    told = []
    for name, one in by_directions(states).items():
        ratio = one.ratio(counted)
        far = (
            "natural states repeat there, so that there is no ratio"
            if ratio is None
            else f"{number(ratio)} times as far from the nearest natural state as these are from each other"
        )
        told.append(f"{name} {with_interval(shares[name])} ({far})")
    return "; ".join(told)
