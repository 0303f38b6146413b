"""How the probability of several right answers is shared among them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from circuitspec.engine.compile import Actions
from circuitspec.engine.runner import Runner
from circuitspec.tasks.metrics import targets, upcast
from circuitspec.tasks.prompts import CLEAN

Shares = tuple[NDArray[np.float64], ...]
"""For every prompt each answer's share of the summed probability of its answers, in the answers' order."""


@torch.no_grad()
def answer_shares(runner: Runner) -> Shares | None:
    """The shares in the clean run, which takes one pass; None, and nothing is run, where no prompt has two answers."""
    task = runner.task
    if not any(len(answers) > 1 for answers in task.answers):
        return None
    runner.expect(task.n)
    shares: dict[int, NDArray[np.float64]] = {}
    for batch in runner.batches:
        logits, _ = runner.forward(batch, CLEAN, Actions())
        side = targets([task.answers[p] for p in batch.prompts], logits.device)
        assert side is not None
        own = upcast(logits).gather(-1, side.ids).masked_fill(~side.mask, -float("inf"))
        found = own.softmax(-1).cpu().double().numpy()
        for row, prompt in enumerate(batch.prompts):
            shares[prompt] = found[row, : len(task.answers[prompt])]
    return tuple(shares[prompt] for prompt in range(task.n))
