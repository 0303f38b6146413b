"""What is said of a subspace's parts and of patched states, given the figures."""

from __future__ import annotations

import numpy as np
import pytest

from circuitspec.analysis.claims.abstraction.subspace_figures import decomposed, outside_shares, state_words
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.proportions import share_of
from circuitspec.experiments.subspaces.natural_states import PatchedStates, StateDistances
from circuitspec.experiments.subspaces.subspace_parts import ACROSS, ALONG, BOTH


def share(hits: int, n: int = 40) -> Estimate:
    found = share_of(np.arange(n) < hits)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("along", "across", "both", "said"),
    [
        (0, 0, 0, "neither part does it alone, nor do both as in the source"),
        (4, 4, 8, "through a part that is otherwise dormant"),
        (38, 0, 4, "the part along it does as much alone"),  # what the source has across undoes it
        (38, 0, 39, "the part along it does as much alone"),
        (39, 39, 40, "the part along it does as much alone"),
        (0, 38, 38, "the part across it does as much alone"),
        (4, 4, 38, "it takes both parts, neither of which does it alone"),
    ],
)
def test_what_follows_from_the_parts(along: int, across: int, both: int, said: str) -> None:
    """Of 40 pairs the subspace gives 39; the interval of 38 reaches its own, that of 4 does not."""
    assert said in decomposed(share(39), {ALONG: share(along), ACROSS: share(across), BOTH: share(both)})


def test_a_subspace_without_two_parts() -> None:
    assert "so that there are no two parts" in decomposed(share(39), {})


def test_distances_in_words() -> None:
    """Of the counted ones one of three is beyond the edge of 2; their median is 1.5, that of natural states 1."""
    counted = np.array([True, True, True, False])
    whole = StateDistances(np.array([1.0, 1.5, 3, 9]), np.array([0.5, 1, 2]), 2)
    repeated = StateDistances(np.array([1.0, 1.5, 3, 9]), np.array([0.0, 0, 2]), 2)
    states = PatchedStates(whole, repeated)
    assert {name: one.value for name, one in outside_shares(states, counted).items()} == {
        "in all directions": 1 / 3,
        "in those of the subspace's parts": 1 / 3,
    }
    said = state_words(states, counted)
    (whole, parts) = said.split("; ")
    assert whole.startswith("in all directions 0.33 [")
    assert whole.endswith(" (1.50 times as far from the nearest natural state as these are from each other)")
    assert parts.startswith("in those of the subspace's parts 0.33 [")
    assert "natural states repeat there" in parts
