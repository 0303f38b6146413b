"""How far the outputs of two runs lie apart, prompt by prompt: over the whole vocabulary, not by one metric of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from circuitspec.engine.execution.batches import Batch
from circuitspec.engine.execution.worked_out.readout import Readout, parts
from circuitspec.experiments.experiment import Experiment
from circuitspec.models.load import LoadedModel
from circuitspec.prompts.prompt_set import TokenizedTask

T = TypeVar("T")
Pair = tuple[Experiment, Experiment]


class GivesOutputs(Protocol):
    """What `engine.runner.Runner` offers here."""

    @property
    def task(self) -> TokenizedTask: ...
    @property
    def loaded(self) -> LoadedModel: ...
    def outputs(
        self, experiments: Sequence[Experiment], read: Callable[[Batch, Mapping[Experiment, Readout]], T]
    ) -> Iterator[tuple[Batch, list[T]]]: ...


@dataclass(frozen=True)
class Divergence:
    """Of two runs, `[prompt]` each: the Kullback-Leibler divergences (nats) of either's next-token distribution from
    the other's, and whether both put the same token first (as a share of the draws, where noise is drawn)."""

    forth: NDArray[np.float64]  # KL(first || second)
    back: NDArray[np.float64]
    same_top: NDArray[np.float64]


def output_divergences(runner: GivesOutputs, pairs: Sequence[Pair]) -> tuple[Divergence, ...]:
    """The divergences at the prompts' last token, in double precision; every run is made once for all pairs.

    Where answers of several tokens are scored, only the prompts themselves are read, as metric `kl` does.
    """
    n, runs = runner.task.n, tuple(dict.fromkeys(run for pair in pairs for run in pair))
    found = np.zeros((len(pairs), 3, n))

    def read(batch: Batch, of: Mapping[Experiment, Readout]) -> NDArray[np.float64]:
        found = []
        numbers = 2 * (len(of) + 2) * runner.loaded.shape.n_vocab  # in double precision, of all runs
        for part, readings in parts(batch, numbers):
            ends = [own[0] for own in part.case_readings]
            logits = {run: one.part(readings)[ends] for run, one in of.items()}
            found.append(
                [_apart(logits[a].double().log_softmax(-1), logits[b].double().log_softmax(-1)) for a, b in pairs]
            )
        return np.concatenate(found, axis=-1)

    for batch, draws in runner.outputs(runs, read):
        found[:, :, list(batch.cases)] = np.mean(draws, axis=0)
    return tuple(Divergence(*values) for values in found)


def _apart(first: Tensor, second: Tensor) -> list[NDArray[np.float64]]:
    """From log probabilities `[prompt, vocabulary]`: what a `Divergence` has, `[prompt]` each."""
    values = (_kl(first, second), _kl(second, first), (first.argmax(-1) == second.argmax(-1)).double())
    return [value.cpu().numpy() for value in values]


def _kl(first: Tensor, second: Tensor) -> Tensor:
    weights = first.exp()
    return (weights * (first - second)).masked_fill(weights == 0, 0.0).sum(-1)  # 0 log 0 is 0
