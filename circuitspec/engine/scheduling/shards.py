"""Shards: the work on one batch of prompts, as values that another process can be given and can give back.

A shard is some experiments on one whole batch. Neither depends on how many processes there are, so that what is
measured does not either; and what a shard gives depends on nothing that ran before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # where everything is stored, nothing is run, and torch is not needed
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from circuitspec.dictionaries.dictionary import Dictionary
    from circuitspec.engine.execution.batches import Batch, PaddingSide
    from circuitspec.experiments.experiment import Experiment
    from circuitspec.graph.shape import ModelShape
    from circuitspec.hypothesis_file.grammar.internal_metric_names import Internal
    from circuitspec.prompts.prompt_set import TokenizedTask


@dataclass(frozen=True)
class RunnerSettings:
    """All that makes another process's runner run as this one's does, besides the model itself.

    `rows` is the batch size, `budget` the bytes of activations by which forwards of sweeps are cut, where they are
    `filled`; both are those of the process that gives shards, since another may have less memory free.
    """

    task: TokenizedTask
    rows: int
    budget: int
    filled: bool
    side: PaddingSide
    sweeps: bool
    internals: tuple[Internal, ...]
    directions: Mapping[str, Tensor]
    parted: bool
    shape: ModelShape
    dictionaries: Mapping[str, Dictionary]
    frozen_routing: bool


@dataclass(frozen=True)
class Shard:
    """Experiments, each a single run, on one batch of prompts."""

    experiments: tuple[Experiment, ...]
    batch: Batch


@dataclass(frozen=True)
class Measurement:
    """What a draw of an experiment gave for some prompts: `values[metric]` is `[prompt]`, in the order of `prompts`."""

    experiment: int  # its number in the shard
    draw: int
    prompts: tuple[int, ...]
    values: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class MeasuredShard:
    """All that was measured of a shard, and the prompts that were run for it.

    But for what each process runs once, whatever shards it has: means, and the test that short cuts are exact.
    """

    measurements: tuple[Measurement, ...]
    prompts_run: int
    saved: float


class RunsShards(Protocol):
    """Runs shards in other processes, each of which has loaded the model once and computes with `threads` threads."""

    @property
    def threads(self) -> int: ...

    def run(
        self, settings: RunnerSettings, shards: Sequence[Shard], advance: Callable[[int], None]
    ) -> Iterator[tuple[int, MeasuredShard]]:
        """The number of each shard and what was measured, as they get done.

        `advance` is told prompts that were run, and may raise KeyboardInterrupt; it is called now and then also when
        none were. Raises what running the shard raised, CS590 where no process lived long enough to finish a shard, and
        CS591 where the processes have another model or other code.
        """
