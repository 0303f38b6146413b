"""What an estimate is put together from, one forward or backward pass at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Pieces(Protocol):
    """Numbers of one estimate, each computed once, and found again where the estimate was interrupted."""

    def get(self, piece: Sequence[object], compute: Callable[[], NDArray[np.float64]]) -> NDArray[np.float64]:
        """What is known of this piece, or what is computed now: `[n]`.

        `piece` says which one it is among those of its estimate, as values of which each has one `repr`.
        """


class _EachAnew:
    def get(self, piece: Sequence[object], compute: Callable[[], NDArray[np.float64]]) -> NDArray[np.float64]:
        return compute()


EACH_ANEW = _EachAnew()
"""Nothing is kept."""
