"""How the probability of several right answers is shared among them, and what the model says instead of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuitspec.engine.execution.batches import Batch
from circuitspec.engine.execution.compiler import Actions
from circuitspec.engine.execution.worked_out.readout import parts
from circuitspec.engine.forward import Forward
from circuitspec.prompts.output_metrics import targets, upcast
from circuitspec.prompts.prompt_set import CLEAN

T = TypeVar("T")
Shares = tuple[NDArray[np.float64], ...]
"""For every prompt each answer's share of the summed probability of its answers, in the answers' order."""


@torch.no_grad()
def answer_shares(runner: Forward) -> Shares | None:
    """The shares in the clean run, which takes one pass; None, and nothing is run, where no prompt has two answers."""
    task = runner.task
    if not any(len(answers) > 1 for answers in task.answers):
        return None
    shares: dict[int, NDArray[np.float64]] = {}

    def read(batch: Batch, logits: Tensor) -> NDArray[np.float64]:
        side = targets([task.answers[p] for p in batch.prompts], logits.device)
        assert side is not None
        own = logits.gather(-1, side.ids).masked_fill(~side.mask, -float("inf"))
        return np.asarray(own.softmax(-1).cpu().double().numpy())

    for batch, found in _clean(runner, read):
        for row, prompt in enumerate(batch.prompts):
            shares[prompt] = found[row, : len(task.answers[prompt])]
    return tuple(shares[prompt] for prompt in range(task.n))


@dataclass(frozen=True)
class Said:
    """What the model says in the clean run: `probabilities[k, i]` of the k-th set of tokens after prompt i.

    `likeliest[i]` is the token that comes first there, `top[i]` its probability.
    """

    probabilities: NDArray[np.float64]
    likeliest: tuple[int, ...]
    top: NDArray[np.float64]


@torch.no_grad()
def what_is_said(runner: Forward, sets: Sequence[Sequence[Sequence[int]]]) -> Said:
    """One pass over the clean prompts; `sets[k][i]` are tokens of prompt i (none: probability 0)."""
    n = runner.task.n
    probabilities, top = np.zeros((len(sets), n)), np.zeros(n)
    likeliest = np.zeros(n, dtype=np.int64)
    for batch, found in _clean(runner, lambda batch, logits: _said(batch, logits.double().softmax(-1), sets)):
        rows = list(batch.prompts)
        probabilities[:, rows], likeliest[rows], top[rows] = found
    return Said(probabilities, tuple(map(int, likeliest)), top)


def _said(
    batch: Batch, probabilities: Tensor, sets: Sequence[Sequence[Sequence[int]]]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Of probabilities `[row, vocabulary]`: each set's `[set, row]`, the likeliest token and its own, `[row]`."""
    summed = [
        [float(probabilities[row, list(tokens[prompt])].sum()) for row, prompt in enumerate(batch.prompts)]
        for tokens in sets
    ]
    top = probabilities.max(-1)
    return np.array(summed).reshape(len(sets), len(batch.prompts)), top.indices.cpu().numpy(), top.values.cpu().numpy()


def _clean(runner: Forward, read: Callable[[Batch, Tensor], T]) -> Iterator[tuple[Batch, T]]:
    """What is read of the logits at the answers, `[row, vocabulary]`, of all clean prompts, some rows at a time."""
    runner.expect(runner.task.n)

    def work(batch: Batch) -> list[tuple[Batch, T]]:
        answers = runner.readout(batch, CLEAN, Actions())[0]
        return [
            (part, read(part, upcast(answers.part(own)))) for part, own in parts(batch, runner.loaded.shape.n_vocab)
        ]

    for _, found in runner.in_batches(work):
        yield from found
