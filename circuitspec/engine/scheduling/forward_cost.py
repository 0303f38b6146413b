"""How waiting runs are put together in forwards: by what each forward takes, and how many rows there is room for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

from circuitspec.engine.scheduling.partial_forward import Start


@dataclass(frozen=True)
class ForwardCost:
    """What forwards take, if a block takes as long as for so many tokens `beside` those of its rows."""

    layers: int
    beside: int

    def of(self, start: Start, rows: int, width: int) -> int:
        """What a forward takes, in tokens times blocks."""
        return (self.layers - start.layer) * (self.beside + rows * (width - start.column))

    def together(self, waiting: Sequence[tuple[Start, int]], room: int, width: int) -> tuple[Start, int]:
        """Where the next forward begins, and how many of the waiting runs share it. Of each is told where it begins and
        how many rows it has; they are in the order of their columns.

        As many as there is room for their rows of those that begin alike; then, all or none, the next that begin alike,
        as long as what is taken grows by no greater a share than what the runs need.
        """
        begins, count, held, needed = waiting[0][0], 0, 0, 0
        for start, group in groupby(waiting, lambda one: one[0]):
            rows = [*accumulate(own for _, own in group)]
            if count == 0:
                count = max(1, sum(own <= room for own in rows))
                held, needed = rows[count - 1], self._needed(start, rows[count - 1], width)
                if count < len(rows):
                    break
                continue
            need = self._needed(start, rows[-1], width)
            both = Start(min(begins.layer, start.layer), begins.column)
            alone, joined = self.of(begins, held, width), self.of(both, held + rows[-1], width)
            if held + rows[-1] > room or joined * needed > alone * (needed + need):
                break
            begins, count, held, needed = both, count + len(rows), held + rows[-1], needed + need
        return begins, count

    def _needed(self, start: Start, rows: int, width: int) -> int:
        return (self.layers - start.layer) * rows * (width - start.column)
