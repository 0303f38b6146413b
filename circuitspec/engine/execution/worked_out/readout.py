"""What a run gives where answers are read: its logits or, where these would be large, what they are computed from.

A vocabulary is far wider than a model: of 64 prompts and 128,000 tokens, logits in float32 take 34 MB, and metrics a
multiple of that. So above `WHOLE_BYTES` a forward stops before the unembedding, and the logits are computed for some
readings at a time when metrics ask for them; metrics take `PART_BYTES` of logits at once, in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from circuitspec.engine.execution.batches import Batch
from circuitspec.prompts.output_metrics import upcast

WHOLE_BYTES = 2**23  # of a forward's logits in float32; more are not held at once
PART_BYTES = 2**22  # of the logits that metrics are computed of at once


@dataclass(frozen=True)
class Readout:
    """What a run gives at its readings.

    `values` are logits `[reading, vocabulary]` or, with `unembed`, what that makes logits of, `[reading, d_model]`.
    `chosen` are numbers among the rows of `values`, where these are not all the readings or in another order.
    """

    values: Tensor
    unembed: Callable[[Tensor, Tensor], Tensor] | None = None
    chosen: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values if self.chosen is None else self.chosen)

    @property
    def device(self) -> torch.device:
        return self.values.device

    @property
    def logits(self) -> Tensor:
        """`[reading, vocabulary]`, all at once. Raises CS502 as `part` does."""
        return self.part(slice(None))

    def part(self, readings: slice) -> Tensor:
        """The logits of some readings. Raises CS502 where these are computed now, and not finite."""
        if self.chosen is None and self.unembed is None:
            return self.values[readings]
        numbers = torch.arange(len(self.values), device=self.device) if self.chosen is None else self.chosen
        numbers = numbers[readings]
        return self.values[numbers] if self.unembed is None else self.unembed(self.values[numbers], numbers)

    def some(self, readings: Tensor | slice) -> Readout:
        """These of the readings, by their numbers; nothing is copied."""
        numbers = torch.arange(len(self.values), device=self.device) if self.chosen is None else self.chosen
        return replace(self, chosen=numbers[readings])


class LogProbabilities:
    """The log probabilities of a run, `[reading, vocabulary]`: computed once, or where its logits are not held, when
    some are asked for."""

    def __init__(self, readout: Readout) -> None:
        held = readout.unembed is None
        self._of = Readout(upcast(readout.logits).log_softmax(-1)) if held else readout
        self._held = held

    @property
    def device(self) -> torch.device:
        return self._of.device

    @property
    def held(self) -> bool:
        """Whether they were computed, and are not when asked for."""
        return self._held

    @property
    def nbytes(self) -> int:
        """How much they take, where they are held."""
        return self._of.logits.nbytes

    def part(self, readings: slice) -> Tensor:
        found = self._of.part(readings)
        return found if self._held else upcast(found).log_softmax(-1)

    def some(self, readings: Tensor | slice) -> LogProbabilities:
        """These of the readings, by their numbers."""
        found = LogProbabilities.__new__(LogProbabilities)
        found._of, found._held = self._of.some(readings), self._held
        return found


def is_large(readings: int, n_vocab: int) -> bool:
    """Whether the logits of so many readings are not held at once."""
    return 4 * readings * n_vocab > WHOLE_BYTES


def parts(batch: Batch, n_vocab: int) -> Iterator[tuple[Batch, slice]]:
    """A batch's prompts in parts of which the logits are small, each with its readings; no prompt is taken apart."""
    most = max(1, PART_BYTES // (4 * n_vocab))
    readings = [own[0] for own in batch.case_readings]
    if 4 * n_vocab * len(batch.readings) <= PART_BYTES or len(readings) < 2:
        yield batch, slice(0, len(batch.readings))
        return
    rows, readings = [*batch.starts, len(batch.prompts)], [*readings, len(batch.readings)]
    cuts = [0]
    for case in range(1, len(readings)):
        if readings[case] - readings[cuts[-1]] > most and case - 1 > cuts[-1]:
            cuts.append(case - 1)
    for first, after in pairwise([*cuts, len(readings) - 1]):
        yield batch.some(range(rows[first], rows[after])), slice(readings[first], readings[after])
