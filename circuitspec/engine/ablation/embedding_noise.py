"""Gaussian noise on token embeddings, drawn prompt by prompt."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from circuitspec.engine.execution.batches import Batch, laid_out, noise_mask
from circuitspec.experiments.experiment import Noised
from circuitspec.models.families.modules import submodule
from circuitspec.models.load import LoadedModel
from circuitspec.prompts.prompt_set import CLEAN, TokenizedTask

_ROWS = 4096  # of the vocabulary at a time


def embedding_std(loaded: LoadedModel) -> float:
    """The standard deviation, over vocabulary and channels, of what the embedding module gives for one token."""
    embedding = submodule(loaded.model, loaded.architecture.token_embedding)
    device = next(embedding.parameters()).device
    count, total, squares = 0, 0.0, 0.0
    with torch.no_grad():
        for start in range(0, loaded.shape.n_vocab, _ROWS):
            ids = torch.arange(start, min(start + _ROWS, loaded.shape.n_vocab), device=device)
            values = embedding(ids).cpu().double()
            count, total, squares = (
                count + values.numel(),
                total + float(values.sum()),
                squares + float((values**2).sum()),
            )
    mean = total / count
    return float(np.sqrt(squares / count - mean**2))


def noise(task: TokenizedTask, batch: Batch, noised: Noised, draw: int, width: int) -> Tensor:
    """Standard normal noise `[row, pos, width]` in float64 where `noised` says, zero elsewhere.

    A prompt's noise depends on seed, draw and the prompt's number alone: not on the batch it is in, on
    the side it is padded on, or on the other prompts. Noise at one position does not depend on whether
    another is noised.
    """
    batch = laid_out(task, batch, CLEAN)
    values = np.zeros((len(batch.prompts), batch.width, width))
    for row, (prompt, offset, length) in enumerate(zip(batch.prompts, batch.offsets, batch.lengths, strict=True)):
        random = np.random.default_rng([noised.seed, draw, task.prompts.prompts[prompt].index])
        values[row, offset : offset + length] = random.standard_normal((length, width))
    mask = noise_mask(task, batch, noised.where)
    return torch.from_numpy(values) * mask.unsqueeze(-1)
