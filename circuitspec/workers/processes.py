"""Workers that are processes on this machine. Importing this imports no torch."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, Self

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.runtime.collecting import uncollected

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from circuitspec.engine.scheduling.shards import MeasuredShard, RunnerSettings, Shard
    from circuitspec.workers.dispatch import News
    from circuitspec.workers.shard_worker import ModelRecipe

MOMENT = 0.2  # seconds between two looks at whether a person interrupts


class Processes:
    """Shards run by `workers` processes with `threads` threads each; see `RunsShards`. Use as a context manager.

    They are new processes, which share nothing with this one but the pages of files that are mapped into memory. A
    worker whose driver is gone ends by itself.
    """

    def __init__(self, workers: int, threads: int = 1) -> None:
        self._number, self._threads = workers, threads
        self._dispatcher: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._dispatcher is not None:
            self._dispatcher.end()
            self._dispatcher = None

    @property
    def threads(self) -> int:
        """Threads that each worker computes with."""
        return self._threads

    def load(self, recipe: ModelRecipe) -> None:
        """Begin the workers: each loads this model."""
        from circuitspec.workers.dispatch import Dispatcher

        self.__exit__()
        self._dispatcher = Dispatcher(_Spawned(recipe, self._threads), self._number)
        self._dispatcher.begin()

    def run(
        self, settings: RunnerSettings, shards: Sequence[Shard], advance: Callable[[int], None]
    ) -> Iterator[tuple[int, MeasuredShard]]:
        if self._dispatcher is None:
            raise ValueError("no model was loaded")
        yield from self._dispatcher.run(settings, shards, advance)


@dataclass(eq=False)
class Worker:
    """A process, and the connection to it."""

    process: BaseProcess
    connection: Connection
    settings: RunnerSettings | None = field(default=None)


class _Spawned:
    """Workers of `multiprocessing`, spawned: forked ones would share locks of torch's threads."""

    def __init__(self, recipe: ModelRecipe, threads: int) -> None:
        self._recipe, self._threads = recipe, threads
        self._context = multiprocessing.get_context("spawn")

    def begin(self) -> Worker:
        here, there = self._context.Pipe()
        process = self._context.Process(
            target=_serve, args=(there, self._recipe, self._threads), name="circuitspec worker", daemon=True
        )
        process.start()
        there.close()  # so that its end is seen when the process is gone
        return Worker(process, here)

    def give(self, worker: Worker, settings: RunnerSettings, shard: Shard) -> None:
        new = worker.settings is not settings
        worker.settings = settings
        try:
            worker.connection.send((settings if new else None, shard))
        except (BrokenPipeError, ConnectionResetError):
            return  # `news` tells that it died

    def news(self, busy: Mapping[Worker, int]) -> Sequence[tuple[Worker, News]]:
        from circuitspec.workers.dispatch import Died

        by_connection = {worker.connection: worker for worker in busy}
        found: list[tuple[Worker, News]] = []
        for connection in wait(list(by_connection), timeout=MOMENT):
            worker = by_connection[connection]  # type: ignore[index]
            try:
                found.append((worker, worker.connection.recv()))
            except (EOFError, ConnectionResetError):
                worker.process.join()
                worker.connection.close()
                found.append((worker, Died(_end_of(worker.process.exitcode))))
        return found

    def end(self, worker: Worker) -> None:
        worker.connection.close()
        worker.process.terminate()
        worker.process.join()


def _end_of(code: int | None) -> str:
    if code is not None and code < 0:
        return f"by {signal.Signals(-code).name}"
    return f"with exit code {code}"


def _serve(connection: Connection, recipe: ModelRecipe, threads: int) -> None:
    """In the worker: load, then measure what comes until nothing more can come."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver ends its workers
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read when torch is imported
    os.dup2(2, 1)  # results are the driver's to print
    sys.stdout = sys.stderr
    with uncollected():
        from circuitspec.workers.dispatch import Advanced, Failed
        from circuitspec.workers.shard_worker import ShardWorker

    def told(news: News) -> None:
        connection.send(news)

    try:
        try:
            worker = ShardWorker(recipe, threads)
        except Exception as error:  # noqa: BLE001  it is raised by the driver
            connection.recv()  # a failure answers what was asked for
            told(Failed(sendable(error)))
            return
        with worker:
            while True:
                settings, shard = connection.recv()
                try:
                    if settings is not None:
                        worker.use(settings)
                    found: News = worker.measure(shard, lambda prompts: told(Advanced(prompts)))
                except (BrokenPipeError, ConnectionResetError):
                    raise
                except Exception as error:  # noqa: BLE001  it is raised by the driver
                    found = Failed(sendable(error))
                told(found)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the driver is gone


def sendable(error: Exception) -> Exception:
    """An error as it can be sent: those of circuitspec as they are, of others their text and where they were raised."""
    if isinstance(error, CircuitspecError):
        return error
    where = "".join(traceback.format_exception(error))
    return RuntimeError(f"in a worker: {type(error).__name__}: {error}\n{where}")
