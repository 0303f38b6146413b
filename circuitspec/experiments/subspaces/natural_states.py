"""How far patched states lie from those that prompts put the model into. Imports no torch.

Measured by the distance to the nearest natural state, which needs no covariance: with fewer prompts than dimensions
there is none to speak of. (Sun et al. 2022, "Out-of-distribution detection with deep nearest neighbors",
arXiv:2204.06507, go by the same distance.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RANGE, MARGIN = 0.95, 1.1  # of natural states lie within the natural range, which ends a tenth farther off
REFERENCE = 2000  # natural states that distances are taken to, at most
NEAR = 0.2  # of the natural states' spread: what is as near to one of them is within the natural range
_CHUNK = 512  # rows whose distances are held at once


@dataclass(frozen=True)
class StateDistances:
    """Distances of patched states `[row]` to the nearest natural state, and the same of natural states `[state]`.

    Neither counts states of the own pair's prompts. `edge` is the distance beyond which patched states are outside the
    natural range: a tenth more than all but a twentieth of the natural states have, and no less than a fifth of their
    spread (the root mean square of their distances from their mean), since natural states may repeat.
    """

    patched: NDArray[np.float64]
    natural: NDArray[np.float64]
    edge: float

    @property
    def outside(self) -> NDArray[np.bool_]:
        """Which patched states are outside the natural range, `[row]`."""
        return self.patched > self.edge

    def ratio(self, counted: NDArray[np.bool_]) -> float | None:
        """The median distance of the `counted` patched states over that of natural ones: 1 is as natural as another.

        None where nothing is counted, or most natural states are those of other prompts, too.
        """
        usual = float(np.median(self.natural))
        if not counted.any() or usual <= 0:
            return None
        return float(np.median(self.patched[counted])) / usual


@dataclass(frozen=True)
class PatchedStates:
    """Distances of the same patched states: in all directions, and in those of the subspace's parts alone.

    A patch along a subspace moves nothing outside these. In all directions of a wide value what is moved may drown
    among what is not.
    """

    whole: StateDistances
    within: StateDistances


@dataclass(frozen=True)
class NaturalStates:
    """The states of unpatched runs at a site, one for each text: of the first texts the `values` `[state, width]`.

    `pairs` says which states are those of each pair: the base's and all of its sources'. A state may be of several.
    """

    values: NDArray[np.float64]
    pairs: tuple[tuple[int, ...], ...]

    @classmethod
    def of(
        cls,
        base: NDArray[np.float64],
        sources: Sequence[NDArray[np.float64]],
        base_texts: Sequence[str],
        source_texts: Sequence[Sequence[str]],
    ) -> NaturalStates:
        """The states of bases and of each family's sources, all `[pair, width]`; of equal texts the first one's."""
        numbers: dict[str, int] = {}
        rows: list[NDArray[np.float64]] = []
        pairs = []
        for i, text in enumerate(base_texts):
            own = [(text, base[i])]
            own += [(texts[i], values[i]) for texts, values in zip(source_texts, sources, strict=True)]
            for name, state in own:
                if name not in numbers:
                    numbers[name] = len(numbers)
                    rows += [state] if len(rows) < REFERENCE else []
            pairs.append(tuple(dict.fromkeys(numbers[name] for name, _ in own)))
        return cls(np.stack(rows), tuple(pairs))

    def distances(
        self, patched: NDArray[np.float64], of: Sequence[int], within: NDArray[np.float64] | None = None
    ) -> StateDistances | None:
        """Those of patched states `[row, width]`, each the one `of` a pair; `within` a basis `[width, rank]` alone.

        None where no natural state is of another pair.
        """
        centre = self.values.mean(0)
        natural, moved = self.values - centre, patched - centre
        if within is not None:
            natural, moved = natural @ within, moved @ within
        owners: list[set[int]] = [set() for _ in natural]
        for pair, states in enumerate(self.pairs):
            for state in states:
                if state < len(natural):
                    owners[state].add(pair)
        apart = [{state for pair in own for state in self.pairs[pair]} for own in owners]
        usual = _nearest(natural, natural, apart)
        found = _nearest(moved, natural, [set(self.pairs[pair]) for pair in of])
        if not np.isfinite(usual).all() or not np.isfinite(found).all():
            return None
        spread = float(np.sqrt((natural**2).sum(1).mean()))
        usual[usual <= 1e-6 * spread] = 0.0
        edge = max(MARGIN * float(np.quantile(usual, RANGE)), NEAR * spread)
        return StateDistances(found, usual, edge)


def patched_states(
    natural: NaturalStates,
    base: NDArray[np.float64],
    source: NDArray[np.float64],
    of: Sequence[int],
    basis: NDArray[np.float64],
    parts: NDArray[np.float64],
) -> PatchedStates | None:
    """Of bases and sources `[row, width]`, each the one `of` a pair, patched along a basis `[width, rank]`.

    `parts` is a basis of its parts together. None where no natural state is of another pair.
    """
    moved = base + (source - base) @ basis @ basis.T
    whole, within = natural.distances(moved, of), natural.distances(moved, of, parts)
    return None if whole is None or within is None else PatchedStates(whole, within)


def _nearest(rows: NDArray[np.float64], known: NDArray[np.float64], apart: Sequence[set[int]]) -> NDArray[np.float64]:
    """The distance of each row to the nearest of the `known` ones that is not set apart from it; else infinity."""
    squares = (known**2).sum(1)
    found = np.empty(len(rows))
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK]
        between = (part**2).sum(1)[:, None] + squares - 2 * part @ known.T
        for row, own in enumerate(apart[start : start + _CHUNK]):
            between[row, [state for state in own if state < len(known)]] = np.inf
        found[start : start + _CHUNK] = np.sqrt(np.maximum(between.min(1), 0))
    return found
