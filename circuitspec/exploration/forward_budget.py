"""How many forwards an exploration may take, and what happens where they are used up."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from circuitspec.experiments.experiment import Experiment, passes

CHECKS = 2  # forwards, at most, in which the engine makes sure that its short cuts are exact


class AllowanceSpent(Exception):
    """What was asked for needs more forwards than there are left."""


@dataclass(frozen=True)
class Unseen:
    """Something that an exploration did not look at, how many of it out of how many, and why."""

    what: str
    count: int
    of: int
    why: str
    spent: bool = False  # whether it would have been looked at with a larger allowance

    @property
    def counted(self) -> str:
        """`sweeping`, or `34 of 60 effects`."""
        return self.what if self.of == 0 else f"{self.count} of {self.of} {self.what}"


@dataclass
class Allowance:
    """So many passes over all prompts, as the runner counts them (a backward pass is worth two); None for no end.

    What is found in the store costs nothing, so an exploration that is run again goes on where its allowance ended.
    `most` says how many passes experiments take at most: more than if they all ran together where a store splits them.
    """

    limit: float | None
    counted: Callable[[], float]
    most: Callable[[Sequence[Experiment], float], float] = lambda runs, share: (
        share * passes(tuple(runs), averaged=1 / share)
    )
    _held: float = 0.0

    @property
    def left(self) -> float:
        return math.inf if self.limit is None else self.limit - self._held - self.counted()

    @property
    def reason(self) -> str:
        return "" if self.limit is None else f"the allowance of {self.limit:g} forwards ended"

    def require(self, needed: float) -> None:
        """Raises AllowanceSpent unless so many forwards are left."""
        if needed > self.left:
            raise AllowanceSpent(self.reason)

    def fitting(self, experiments: Sequence[Experiment], share: float = 1.0) -> int:
        """How many of these, from the first, can be run with what is left, if none of them is in the store.

        They are run on a `share` of the prompts; means are over as many as ever, so that they count in full.
        """
        left = self.left
        if math.isinf(left):
            return len(experiments)
        counts = range(1, len(experiments) + 1)
        return bisect_right(counts, left, key=lambda count: self.most(experiments[:count], share) + CHECKS)

    @contextmanager
    def holding(self, forwards: float) -> Iterator[None]:
        """Within it, so many more forwards are kept back for what comes after."""
        before = self._held
        self._held = before if self.limit is None else before + forwards
        try:
            yield
        finally:
            self._held = before
