"""Workers that are Ray actors, on this machine or on those of a cluster. Importing this imports no Ray."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Self

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.workers.processes import MOMENT, sendable

if TYPE_CHECKING:
    from circuitspec.engine.scheduling.shards import MeasuredShard, RunnerSettings, Shard
    from circuitspec.workers.dispatch import News
    from circuitspec.workers.shard_worker import ModelRecipe

PATIENCE = 20.0  # seconds in which a cluster must answer


class RayActors:
    """Shards run by `workers` actors with `threads` threads each, of the cluster at `address`; see `RunsShards`.

    Without an address, of the cluster that RAY_ADDRESS names, or else of one that is begun here and ended with this.
    Without a number, as many as the cluster has processors for. Use as a context manager. Raises CS592 where Ray is not
    installed, and CS593 where there is no cluster or it is too small.
    """

    def __init__(self, address: str = "", workers: int | None = None, threads: int = 1) -> None:
        self._address, self._number, self._threads = address, workers, threads
        self._dispatcher: Any = None
        self._ours = False

    def __enter__(self) -> Self:
        if find_spec("ray") is None:
            hint = "pip install 'circuitspec[ray]', or use --workers for processes on this machine"
            raise CircuitspecError(
                Diagnostic("CS592", "--ray needs the package ray, which is not installed", hint=hint)
            )
        address = self._address or os.environ.get("RAY_ADDRESS", "")
        where = f"at {address}" if address else "on this machine"
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray
        from ray.exceptions import RayError

        if not ray.is_initialized():
            try:
                _knock(address)
                ray.init(
                    address=self._address or None,
                    include_dashboard=None if address else False,
                    log_to_driver=False,
                    logging_level="error",
                )
            except (RayError, ConnectionError, RuntimeError, ValueError, OSError) as error:
                hint = "see `ray status`; --ray without an address begins a cluster on this machine"
                said = f"no Ray cluster answers {where}: {error}"
                raise CircuitspecError(Diagnostic("CS593", said, hint=hint)) from error
            self._ours = True
        return self

    def __exit__(self, *exception: object) -> None:
        self._end()
        if self._ours:
            import ray

            ray.shutdown()
            self._ours = False

    def _end(self) -> None:
        if self._dispatcher is not None:
            self._dispatcher.end()
            self._dispatcher = None

    @property
    def threads(self) -> int:
        """Threads that each worker computes with."""
        return self._threads

    def load(self, recipe: ModelRecipe) -> None:
        """Begin the actors: each loads this model. Raises CS593 where there are not enough processors for them."""
        import ray

        from circuitspec.workers.dispatch import Dispatcher

        self._end()
        kind = "GPU" if recipe.device.startswith("cuda") else "CPU"
        there = int(ray.cluster_resources().get(kind, 0))
        room = there if kind == "GPU" else there // self._threads
        number = room if self._number is None else self._number
        if not 0 < number <= room:  # those that find no place would be waited for without end
            needed = f"{number or 1} workers" + ("" if kind == "GPU" else f" of {self._threads} threads")
            hint = "use fewer workers (--workers), or fewer threads (--worker-threads)"
            raise CircuitspecError(Diagnostic("CS593", f"{there} {kind}s are too few for {needed}", hint=hint))
        self._dispatcher = Dispatcher(_Actors(recipe, self._threads), number)
        self._dispatcher.begin()

    def run(
        self, settings: RunnerSettings, shards: Sequence[Shard], advance: Callable[[int], None]
    ) -> Iterator[tuple[int, MeasuredShard]]:
        if self._dispatcher is None:
            raise ValueError("no model was loaded")
        yield from self._dispatcher.run(settings, shards, advance)


def _knock(address: str) -> None:
    """Raises OSError where nothing listens at HOST:PORT: Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()


class ShardActor:
    """What runs in an actor; it loads the model when it is begun, and tells of what was wrong when it is asked."""

    def __init__(self, recipe: ModelRecipe, threads: int) -> None:
        from circuitspec.workers.shard_worker import ShardWorker

        self._failed: Exception | None = None
        self._settings = b""
        try:
            self._worker = ShardWorker(recipe, threads).__enter__()  # for as long as the actor lives
        except Exception as error:  # noqa: BLE001  it is raised by the driver
            self._failed = sendable(error)

    def measure(self, name: bytes, settings: RunnerSettings, shard: Shard) -> MeasuredShard | News:
        """A shard of the task whose settings have this name."""
        from circuitspec.workers.dispatch import Failed

        if self._failed is not None:
            return Failed(self._failed)
        try:
            if name != self._settings:
                self._worker.use(settings)
                self._settings = name
            return self._worker.measure(shard, lambda prompts: None)
        except Exception as error:  # noqa: BLE001  it is raised by the driver
            return Failed(sendable(error))


class _Actors:
    """Actors that Ray neither restarts nor asks again: how often that is done is said in one place."""

    def __init__(self, recipe: ModelRecipe, threads: int) -> None:
        self._recipe, self._threads = recipe, threads
        self._at: dict[Any, Any] = {}  # what an actor is at -> the actor
        self._settings: tuple[RunnerSettings, Any] | None = None

    def begin(self) -> Any:
        import ray

        gpus = 1 if self._recipe.device.startswith("cuda") else 0
        options = {"num_cpus": self._threads, "num_gpus": gpus, "max_restarts": 0, "max_task_retries": 0}
        return ray.remote(**options)(ShardActor).remote(self._recipe, self._threads)

    def give(self, worker: Any, settings: RunnerSettings, shard: Shard) -> None:
        import ray

        if self._settings is None or self._settings[0] is not settings:
            self._settings = settings, ray.put(settings)
        sent = self._settings[1]
        self._at[worker.measure.remote(sent.binary(), sent, shard)] = worker

    def news(self, busy: Mapping[Any, int]) -> Sequence[tuple[Any, News]]:
        import ray
        from ray.exceptions import RayError

        from circuitspec.engine.scheduling.shards import MeasuredShard
        from circuitspec.workers.dispatch import Advanced, Died

        waiting = [task for task, worker in self._at.items() if worker in busy]
        found: list[tuple[Any, News]] = []
        for task in ray.wait(waiting, num_returns=len(waiting), timeout=MOMENT)[0]:
            worker = self._at.pop(task)
            try:
                told = ray.get(task)
            except RayError as error:
                ray.kill(worker)
                found.append((worker, Died(f"with {type(error).__name__}")))
                continue
            if isinstance(told, MeasuredShard):
                found.append((worker, Advanced(told.prompts_run)))
            found.append((worker, told))
        return found

    def end(self, worker: Any) -> None:
        import ray

        self._at = {task: one for task, one in self._at.items() if one is not worker}
        ray.kill(worker)
