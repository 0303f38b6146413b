"""Shards handed to workers, one each at a time, whatever workers are: what is tried again, and what is given up."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeAlias, TypeVar

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.scheduling.shards import MeasuredShard, RunnerSettings, Shard

W = TypeVar("W", bound=Hashable)
TRIES = 2  # of a shard whose worker died


@dataclass(frozen=True)
class Advanced:
    """A worker ran so many prompts."""

    prompts: int


@dataclass(frozen=True)
class Failed:
    """Work raised this. Running it again would raise it again."""

    error: Exception


@dataclass(frozen=True)
class Died:
    """The worker is no more; `why` in words."""

    why: str


News: TypeAlias = "Advanced | Failed | Died | MeasuredShard"


class Workers(Protocol[W]):
    """What there is of workers; a worker that died is gone, and another may be begun in its place."""

    def begin(self) -> W:
        """Another worker, that loads the model and takes shards when it has."""

    def give(self, worker: W, settings: RunnerSettings, shard: Shard) -> None:
        """It measures this next. That a worker has died is told by `news`, not here."""

    def news(self, busy: Mapping[W, int]) -> Sequence[tuple[W, News]]:
        """What workers tell, after a moment at the latest, also where nothing is told."""

    def end(self, worker: W) -> None:
        """It is not wanted any more, whatever it does."""


class Dispatcher(Generic[W]):
    """Runs shards on `number` workers, which it begins when they are first needed and keeps.

    A shard whose worker died is run again by another, but no more than `TRIES` times in all: what kills workers, as
    running out of memory does, would go on for ever.
    """

    def __init__(self, workers: Workers[W], number: int) -> None:
        self._workers = workers
        self._number = number
        self._idle: list[W] = []

    def begin(self) -> None:
        """Begin all workers now, so that they load the model while other work is done."""
        while len(self._idle) < self._number:
            self._idle.append(self._workers.begin())

    def run(
        self, settings: RunnerSettings, shards: Sequence[Shard], advance: Callable[[int], None]
    ) -> Iterator[tuple[int, MeasuredShard]]:
        """As `RunsShards.run` does."""
        waiting, tries = deque(range(len(shards))), Counter[int]()
        busy: dict[W, int] = {}
        try:
            while waiting or busy:
                while waiting and len(busy) < self._number:
                    worker = self._idle.pop() if self._idle else self._workers.begin()
                    busy[worker] = waiting.popleft()
                    self._workers.give(worker, settings, shards[busy[worker]])
                advance(0)
                for worker, told in self._workers.news(busy):
                    if isinstance(told, Advanced):
                        advance(told.prompts)
                        continue
                    number = busy.pop(worker)
                    if isinstance(told, Died):
                        tries[number] += 1
                        if tries[number] == TRIES:
                            raise CircuitspecError(_given_up(told))
                        waiting.appendleft(number)
                        continue
                    self._idle.append(worker)
                    if isinstance(told, Failed):
                        raise told.error
                    yield number, told
        finally:
            for worker in busy:  # what it measures now is wanted by nobody
                self._workers.end(worker)

    def end(self) -> None:
        while self._idle:
            self._workers.end(self._idle.pop())


def _given_up(died: Died) -> Diagnostic:
    return Diagnostic(
        "CS590",
        f"{TRIES} workers died on the same shard, the last one {died.why}",
        hint="the system ends processes where memory runs out: use fewer workers, a smaller --batch-size, or a machine "
        "with more memory; what was measured by then is stored",
    )
