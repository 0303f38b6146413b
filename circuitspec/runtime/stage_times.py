"""Where the time of a run went, stage by stage: what its progress was told, with a clock."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from circuitspec.runtime.progress import Progress


@dataclass(frozen=True)
class StageTime:
    """A stage, by the words that the progress shows.

    `seconds` of wall time; `prompts` that were run through the model, each pass of one counted; `peak_bytes` is the
    most memory that the process had taken by its end (None where the system does not tell).
    """

    stage: str
    seconds: float
    prompts: int
    peak_bytes: int | None


class TimedProgress:
    """Tells another progress, and notes how long each stage takes; `stage` is the one that it begins with."""

    def __init__(self, told: Progress, stage: str, clock: Callable[[], float] = time.perf_counter) -> None:
        self._told, self._clock = told, clock
        self._stage, self._since, self._prompts = stage, clock(), 0
        self._ended: list[StageTime] = []

    def stage(self, text: str) -> None:
        self._end(text)
        self._told.stage(text)

    def note(self, text: str) -> None:
        self._told.note(text)

    def plan(self, experiments: int, stored: int, prompts: int) -> None:
        self._told.plan(experiments, stored, prompts)

    def measured(self, experiments: int) -> None:
        self._told.measured(experiments)

    def expect(self, prompts: int) -> None:
        self._told.expect(prompts)

    def advance(self, prompts: int) -> None:
        self._prompts += prompts
        self._told.advance(prompts)

    def ended(self) -> tuple[StageTime, ...]:
        """The stages so far, in the order in which they began; one that came several times is one."""
        self._end(self._stage)
        found: dict[str, StageTime] = {}
        for one in self._ended:
            before = found.get(one.stage)
            found[one.stage] = (
                one
                if before is None
                else replace(one, seconds=before.seconds + one.seconds, prompts=before.prompts + one.prompts)
            )
        return tuple(found.values())

    def _end(self, following: str) -> None:
        now = self._clock()
        self._ended.append(StageTime(self._stage, now - self._since, self._prompts, _peak_bytes()))
        self._stage, self._since, self._prompts = following, now, 0


def _peak_bytes() -> int | None:
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
