"""What a worker does, whoever runs it: load the model once, then measure shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Protocol

import torch

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.cache.store_keys import setting_of
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.runner import Runner
from circuitspec.engine.scheduling.shards import MeasuredShard, RunnerSettings, RunsShards, Shard
from circuitspec.hypothesis_file.schema.blocks import ModelSpec
from circuitspec.models.load import LoadedModel, load_model


@dataclass(frozen=True)
class ModelRecipe:
    """How a worker comes to the model, and what it must then have: see `fingerprint`."""

    spec: ModelSpec
    base_dir: Path
    device: str
    expected: str


def fingerprint(loaded: LoadedModel) -> str:
    """A digest of weights, configuration, versions, code, device and processor, without what is beside the model."""
    return setting_of(replace(loaded, dictionaries={}, frozen_routing=False)).digest


class LoadsWorkers(RunsShards, Protocol):
    """What begins workers, and runs shards on them."""

    def load(self, recipe: ModelRecipe) -> None:
        """Begin workers that load this model, in place of those there are."""


def begin_workers(
    workers: LoadsWorkers | None, spec: ModelSpec, base_dir: Path, device: str, loaded: LoadedModel
) -> None:
    """If there are to be any, which load the model that was `loaded` here. Raises ValueError for one in memory."""
    if workers is None:
        return
    if loaded.foreign.runs_hooks:
        raise ValueError("workers cannot run a model with hooks")
    workers.load(ModelRecipe(spec, base_dir.resolve(), device, fingerprint(loaded)))


@contextmanager
def computing_with(workers: LoadsWorkers | None) -> Iterator[None]:
    """What is run here has as many threads as each of the workers: rounding depends on it. Then it is as before."""
    if workers is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(workers.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Told:
    """Progress of a runner in a worker: what is done is told to whoever asked, what is to come it knows."""

    def __init__(self) -> None:
        self.advanced: Callable[[int], None] = lambda prompts: None

    def expect(self, prompts: int) -> None:
        return

    def advance(self, prompts: int) -> None:
        self.advanced(prompts)


class ShardWorker:
    """One model and one runner at a time. Use as a context manager: the model is borrowed meanwhile.

    Raises CS591 where the model, the code or the machine is not as expected, and what loading the model raises.
    """

    def __init__(self, recipe: ModelRecipe, threads: int) -> None:
        torch.set_num_threads(threads)
        self._loaded = load_model(recipe.spec, recipe.base_dir, device=recipe.device)
        found = fingerprint(self._loaded)
        if found != recipe.expected:
            raise CircuitspecError(_different(recipe))
        self._stack = ExitStack()
        self._told = _Told()
        self._runner: Runner | None = None

    def __enter__(self) -> ShardWorker:
        self._stack.enter_context(borrowed(self._loaded.model))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def use(self, settings: RunnerSettings) -> None:
        """From now on, shards are of this task and measured in this way."""
        device = next(self._loaded.model.parameters()).device
        loaded = replace(
            self._loaded,
            shape=settings.shape,
            dictionaries={name: one.to(device) for name, one in settings.dictionaries.items()},
            frozen_routing=settings.frozen_routing,
        )
        runner = Runner(
            loaded,
            settings.task,
            progress=self._told,
            rows=settings.rows,
            side=settings.side,
            sweeps=settings.sweeps,
            internals=settings.internals,
            directions={name: one.to(device) for name, one in settings.directions.items()},
            parted=settings.parted,
        )
        if settings.filled:
            runner.fill_memory(settings.budget)
        self._runner = runner

    def measure(self, shard: Shard, advanced: Callable[[int], None]) -> MeasuredShard:
        """Raises as `Runner.run` does; `advanced` is told prompts that were run."""
        if self._runner is None:
            raise ValueError("there is no task yet")
        self._told.advanced = lambda prompts: None  # means are learned by every worker, and counted once
        needs = self._runner.prepared_for(shard)
        self._told.advanced = advanced
        return self._runner.measured_shard(shard, needs)


def _different(recipe: ModelRecipe) -> Diagnostic:
    return Diagnostic(
        "CS591",
        f"a worker has another model, other versions or another processor than this process ({recipe.spec.id})",
        hint="install the same versions of circuitspec, torch, transformers and pyvene everywhere, and pin the model's "
        "`revision`",
    )
