"""Heads' direct effects by the tokens that they come from: each weight times the value of the token attended to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuitspec.engine.attribution.direct_logit_attribution import DirectParts
from circuitspec.engine.execution.batches import Batch
from circuitspec.engine.execution.compiler import Actions
from circuitspec.engine.execution.taps import Tap
from circuitspec.engine.execution.worked_out.attention_patterns import head_values
from circuitspec.engine.runner import Runner
from circuitspec.hypothesis_file.grammar.components import Head
from circuitspec.prompts.prompt_set import CLEAN

REST = "other tokens"


@torch.no_grad()
def effects_by_source(runner: Runner, metric: str, roles: Sequence[str]) -> dict[tuple[Head, str], NDArray[np.float64]]:
    """Each head's direct effect on `metric` at the answer, by the token that it attends to: `[prompt]`.

    By the tokens of these roles (all of a position's; a token of two roles is the first's), and of all other tokens
    together (`REST`). They add up to the direct effects of `direct_effects`. Raises CS503 and CS371 as that does.
    """
    parts = DirectParts(runner, metric, ())
    found: dict[tuple[Head, str], NDArray[np.float64]] = {}
    for batch, columns in runner.in_batches(lambda batch: _by_source(runner, parts, batch, roles)):
        for key, values in columns.items():
            found.setdefault(key, np.zeros(runner.task.n))[list(batch.prompts)] = values.cpu().numpy()
    return found


def _by_source(
    runner: Runner, parts: DirectParts, batch: Batch, roles: Sequence[str]
) -> dict[tuple[Head, str], Tensor]:
    shape, architecture = runner.loaded.shape, runner.loaded.architecture
    patterns = [Tap(layer, "pattern") for layer in shape.layers_with_heads]
    taps = frozenset({parts.final, *patterns, *(tap for one in patterns for tap in one.acts_at(architecture))})
    runner.expect(len(batch.prompts))
    _, recorded = runner.readout(batch, CLEAN, Actions(record=taps))
    rows = torch.arange(len(batch.prompts), device=runner.device)
    answers = torch.tensor(batch.answer_columns, device=runner.device)
    vector = parts.direction(batch, recorded[parts.final][rows, answers]).vector
    sources = _sources(runner, batch, roles)
    found: dict[tuple[Head, str], Tensor] = {}
    for tap in patterns:
        layer = tap.layer
        weights = recorded[tap].view(*recorded[tap].shape[:2], shape.n_heads, -1)[rows, answers]  # [row, head, key]
        values = head_values(recorded[tap.acts_at(architecture)[0]], layer, architecture, shape)
        z = recorded[Tap(layer, "z")][rows, answers]
        scaled = runner.stream.scaled(layer, z)
        size = (z * z).sum(-1, keepdim=True).clamp_min(torch.finfo(z.dtype).tiny)
        factor = (scaled * z).sum(-1, keepdim=True) / size  # the post norm's divisor, where there is one
        for name, mask in sources.items():
            given = torch.einsum("bhk,bk,bkhd->bhd", weights, mask.to(weights.dtype), values).flatten(1) * factor
            added = runner.stream.heads(layer, given, range(shape.n_heads)).cpu().double()
            each = torch.einsum("hrd,rd->hr", added, vector)
            found |= {(Head(layer, head), name): each[head] for head in range(shape.n_heads)}
    return found


def _sources(runner: Runner, batch: Batch, roles: Sequence[str]) -> Mapping[str, Tensor]:
    """bool `[row, pos]` for each role, and for what is none's."""
    free = torch.ones(len(batch.prompts), batch.width, dtype=torch.bool)
    found: dict[str, Tensor] = {}
    for role in roles:
        mask = torch.zeros_like(free)
        for row, (prompt, offset) in enumerate(zip(batch.prompts, batch.offsets, strict=True)):
            mask[row, [offset + token for token in runner.task.tokens_at(role, prompt)]] = True
        found[role] = (mask & free).to(runner.device)
        free &= ~mask
    return {**found, REST: free.to(runner.device)}
