"""A forward that begins in the middle: at a later block and a later token, from what the base run left there.

What comes before the first patch is as in the base run. So the blocks before the first patched layer need not be
computed, if the next one is given the residual stream that the base run had there; nor the tokens before the first
patched one, if attention is given the base run's keys and values of them. And of what the last MLP writes, nobody reads
more than the tokens at which logits are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.execution.batches import Batch, answer_logits
from circuitspec.engine.execution.compiler import Actions
from circuitspec.engine.execution.interventions import Edit
from circuitspec.engine.execution.rounding import TOLERANCE
from circuitspec.engine.execution.taps import Tap
from circuitspec.engine.execution.worked_out.readout import Readout
from circuitspec.engine.forward import Forward
from circuitspec.models.load import LoadedModel
from circuitspec.prompts.output_metrics import upcast

KeysValues = tuple[tuple[Tensor, Tensor], ...]
"""For each block its keys and values, both `[row, head, pos, width]`."""


@dataclass(frozen=True, order=True)
class Start:
    """Where a forward begins: blocks before `layer` and columns before `column` are not computed."""

    layer: int = 0
    column: int = 0


@dataclass(frozen=True)
class BaseRun:
    """An unpatched run: what is read of it, recorded taps `[row, pos, channel]`, and, where they were kept, every
    block's keys and values."""

    readout: Readout
    recorded: Mapping[Tap, Tensor]
    keys_values: KeysValues = ()

    def first(self, rows: int) -> BaseRun:
        """The same run of the first rows alone."""
        recorded = {tap: value[:rows] for tap, value in self.recorded.items()}
        kept = tuple((k[:rows], v[:rows]) for k, v in self.keys_values)
        return BaseRun(self.readout.some(slice(rows)), recorded, kept)


@dataclass(frozen=True)
class Beginning:
    """What a forward from the middle begins with: where, and what a base run left there.

    `stream` is the residual stream that enters the first block, `[row, pos, d_model]`, from the first column on;
    `keys_values` are those of the columns before, of this block and all later ones (none where there are no such
    columns).
    """

    start: Start
    stream: Tensor
    keys_values: KeysValues = field(repr=False)

    @classmethod
    def of(cls, run: BaseRun, start: Start) -> Beginning:
        """The part of a run that is needed. It is the run's own memory: `alone` has some of its own."""
        stream = run.recorded[Tap(start.layer, "resid")][:, start.column :]
        late = run.keys_values[start.layer :] if start.column else ()
        before = slice(start.column)
        return cls(start, stream, tuple((keys[:, :, before], values[:, :, before]) for keys, values in late))

    def alone(self) -> Beginning:
        """The same, so that the rest of the run can be let go."""
        return Beginning(self.start, self.stream.clone(), tuple((k.clone(), v.clone()) for k, v in self.keys_values))

    def cache(self, rows: Tensor | None = None) -> DynamicCache:
        """Keys and values for these of the rows, or all; of blocks that are not computed, only how many there are."""
        cache = DynamicCache()
        for layer in range(self.start.layer):
            nothing = self.stream.new_zeros(1, 1, self.start.column, 1)
            cache.update(nothing, nothing, layer)
        for layer, pair in enumerate(self.keys_values, self.start.layer):
            keys, values = (kept.clone() if rows is None else kept[rows] for kept in pair)
            cache.update(keys, values, layer)
        return cache


def keys_values(cache: DynamicCache) -> KeysValues:
    """What a run left in its cache, block by block."""
    return tuple((layer.keys, layer.values) for layer in cache.layers)


def may_cut(loaded: LoadedModel, batch: Batch) -> bool:
    """Whether forwards of this batch can begin at a later column.

    Not where padding is on the left, nor where a sliding window drops earlier columns, nor in families with mixers, in
    which states hold what came before.
    """
    if loaded.architecture.mixers is not None:
        return False
    # 0: a config that could have one has none (Qwen2-MoE)
    windows = [getattr(loaded.model.config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    return batch.side == "right" and all(not window or window >= batch.width for window in windows)


def first_column(named: Tensor, last: int) -> int:
    """The first column that is named in any row of bool `[row, pos]`, at most `last`."""
    columns = named.any(0).nonzero()
    return min(int(columns[0]), last) if len(columns) else last


class Shortcut:
    """Forwards of one model from the middle on."""

    def __init__(self, forward: Forward) -> None:
        self._forward = forward

    def forward(
        self,
        inputs: Mapping[str, Any],
        actions: Actions,
        begins: Beginning,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Logits `[row, kept position, vocabulary]` of a run of these of the base run's rows, or of all once, or
        what enters the unembedding.

        `inputs`, and the swaps and shifts of `actions`, are of the same rows and begin at the start's column.
        """
        first = Tap(begins.start.layer, "resid")
        stream = begins.stream.clone() if rows is None else begins.stream[rows]
        shifts = dict(actions.shifts)
        if first in shifts:  # the stream is put in after what is added there
            stream = stream + shifts.pop(first)
        edits: dict[Tap, Edit] = {first: lambda own: stream}
        given = Actions(
            actions.swaps,
            shifts=shifts,
            edits=edits,
            answers_alone=True,
            first_block=begins.start.layer,
            before_unembedding=actions.before_unembedding,
        )
        if begins.start.column:
            inputs = {**inputs, "past_key_values": begins.cache(rows), "use_cache": True}
        return self._forward.executor.forward(inputs, given)[0]

    def answers(
        self,
        batch: Batch,
        inputs: Mapping[str, Any],
        actions: Actions,
        begins: Beginning,
        rows: Tensor | None = None,
    ) -> Tensor:
        """As `forward`, at the answers of this batch's rows: `[reading, vocabulary]`. Counted for what it takes."""
        logits = self.forward(inputs, actions, begins, rows)
        self._count(batch, begins.start)
        return answer_logits(logits, batch)

    def readout(
        self,
        batch: Batch,
        inputs: Mapping[str, Any],
        actions: Actions,
        begins: Beginning,
        rows: Tensor | None,
        not_finite: Callable[[int], CircuitspecError],
    ) -> Readout:
        """What is read at the answers of this batch's rows; `not_finite` says what is raised for a row of which that is
        not finite. Counted for what it takes."""
        later = self._forward.reads_later(batch, inputs)
        found = self.forward(inputs, replace(actions, before_unembedding=later), begins, rows)
        self._count(batch, begins.start)
        read = self._forward.read(batch, found, not_finite) if later else Readout(answer_logits(found, batch))
        if bool((lost := broken(read.values)).any()):
            raise not_finite(batch.readings[int(lost.nonzero()[0])][0])
        return read

    def _count(self, batch: Batch, start: Start) -> None:
        layers = self._forward.loaded.shape.n_layers
        computed = (layers - start.layer) / layers * (batch.width - start.column) / batch.width
        self._forward.count(len(batch.cases), computed)


def broken(answers: Tensor) -> Tensor:
    """Which readings of `[reading, vocabulary]` hold NaN or infinity."""
    return ~torch.isfinite(upcast(answers.detach()).sum(-1))  # finite only if all terms are


def check_exact(late: Tensor, whole: Tensor, start: Start) -> bool:
    """Compare a run from the middle with the same run from the beginning, logits of both.

    False where that tells nothing, as all logits are the same. Raises CS503 where they differ by more than rounding.
    """
    spread, limit = float(whole.cpu().double().std()), TOLERANCE[whole.dtype]
    off = float((late - whole).abs().max()) / (spread or 1.0)
    if not off <= limit:
        where = f"beginning at layer {start.layer}, token {start.column}"
        said = f"({where}) changed the logits by {off:.2g} standard deviations, where {limit:g} is rounding"
        raise CircuitspecError(inexact(said))
    return spread > 0


def inexact(how: str) -> Diagnostic:
    """CS503, for short cuts."""
    return Diagnostic(
        "CS503",
        f"a forward from the middle {how}",
        hint="this model's blocks do not just hand a residual stream on, or its attention does not read keys and "
        "values as other models do; run its experiments one by one, from the beginning",
    )
