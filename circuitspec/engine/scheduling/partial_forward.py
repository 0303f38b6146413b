"""A forward that begins in the middle: at a later block and a later token, from what the base run left there.

What comes before the first patch is as in the base run. So the blocks before the first patched layer need not be
computed, if the next one is given the residual stream that the base run had there; nor the tokens before the first
patched one, if attention is given the base run's keys and values of them. And of what the last MLP writes, nobody reads
more than the tokens at which logits are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import DynamicCache

from circuitspec.engine.execution.batches import Batch
from circuitspec.engine.execution.compiler import Actions
from circuitspec.engine.execution.executor import Executor
from circuitspec.engine.execution.interventions import Edit
from circuitspec.engine.execution.taps import Tap


@dataclass(frozen=True, order=True)
class Start:
    """Where a forward begins: blocks before `layer` and columns before `column` are not computed."""

    layer: int = 0
    column: int = 0


@dataclass(frozen=True)
class BaseRun:
    """An unpatched run: logits `[row, vocabulary]`, recorded taps `[row, pos, channel]`, and, where they were kept,
    every block's keys and values `[row, head, pos, width]`."""

    logits: Tensor
    recorded: Mapping[Tap, Tensor]
    keys_values: tuple[tuple[Tensor, Tensor], ...] = ()

    def first(self, rows: int) -> BaseRun:
        """The same run of the first rows alone."""
        recorded = {tap: value[:rows] for tap, value in self.recorded.items()}
        return BaseRun(self.logits[:rows], recorded, tuple((k[:rows], v[:rows]) for k, v in self.keys_values))


def keys_values(cache: DynamicCache) -> tuple[tuple[Tensor, Tensor], ...]:
    """What a run left in its cache, block by block."""
    return tuple((layer.keys, layer.values) for layer in cache.layers)


def may_cut(model: nn.Module, batch: Batch) -> bool:
    """Whether forwards of this batch can begin at a later column.

    Not where padding is on the left, nor where a sliding window drops earlier columns.
    """
    window = getattr(model.config, "sliding_window", None)
    return batch.side == "right" and (window is None or window >= batch.width)


class Shortcut:
    """Forwards of one model from the middle on."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def forward(self, inputs: Mapping[str, Any], actions: Actions, start: Start, base: BaseRun, copies: int) -> Tensor:
        """Logits `[row, kept position, vocabulary]` of a run whose rows are `copies` of the base run's.

        `inputs`, and the masks and sources of `actions`, begin at the start's column.
        """
        tap = Tap(start.layer, "resid")
        stream = base.recorded[tap][:, start.column :].repeat(copies, 1, 1)
        edits: dict[Tap, Edit] = {tap: lambda own: stream}
        given = Actions(actions.swaps, edits=edits, answers_alone=True, first_block=start.layer)
        if start.column:
            inputs = {**inputs, "past_key_values": _past(base, start, copies), "use_cache": True}
        return self._executor.forward(inputs, given)[0]


def _past(base: BaseRun, start: Start, copies: int) -> DynamicCache:
    """The base run's keys and values before the start; of blocks that are not computed, only how many there are."""
    cache = DynamicCache()
    for layer, pair in enumerate(base.keys_values):
        if layer < start.layer:
            keys = values = pair[0].new_zeros(1, 1, start.column, 1)
        else:
            keys, values = (kept[:, :, : start.column].repeat(copies, 1, 1, 1) for kept in pair)
        cache.update(keys, values, layer)
    return cache
