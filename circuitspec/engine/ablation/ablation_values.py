"""Where patched values come from: another run as it is, or means over runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.execution.batches import Batch
from circuitspec.engine.execution.taps import Tap
from circuitspec.experiments.averaging import MeanGroups
from circuitspec.experiments.experiment import Part, Source


@dataclass
class MeanTable:
    """Running means of every tap, by group and token position (offset from the prompt's first token).

    A prompt that has several rows, for what may follow it, counts once at its own tokens; after them every row does
    that is so long: what follows prompts is averaged by how far it is from the prompt's end. Sums are kept for each
    cell of a group where the table is `divided`, so that means over parts of the prompts cost nothing more.
    """

    grouping: MeanGroups
    longest: int
    divided: bool = False
    _sums: dict[Tap, Tensor] = field(default_factory=dict)
    _counts: dict[Tap, Tensor] = field(default_factory=dict)  # [group, pos], where prompts have several rows

    def add(self, batch: Batch, values: Mapping[Tap, Tensor]) -> None:
        """Take in one batch's values `[row, pos, channel]`, of prompts that are averaged; sums are kept in float64."""
        index = torch.tensor([self._row_of[self._key(prompt)] for prompt in batch.prompts])
        for tap, tensor in values.items():
            # Metal has no float64
            aligned = self._aligned(batch, tensor.cpu() if tensor.device.type == "mps" else tensor)
            if tap not in self._sums:
                shape = (len(self._row_of), self.longest, tensor.shape[-1])
                self._sums[tap] = torch.zeros(shape, dtype=torch.float64, device=aligned.device)
            added = aligned.double()
            if batch.continuations is not None:
                counted = _counted(batch).to(aligned.device)
                added = torch.where(counted.unsqueeze(-1), added, 0.0)
                if tap not in self._counts:
                    self._counts[tap] = added.new_zeros(len(self._row_of), self.longest)
                self._counts[tap][:, : batch.width].index_add_(0, index.to(aligned.device), counted.double())
            self._sums[tap][:, : batch.width].index_add_(0, index.to(aligned.device), added)

    @property
    def taps(self) -> frozenset[Tap]:
        return frozenset(self._sums)

    @property
    def derived(self) -> frozenset[Tap]:
        """Those that were worked out of others (`Stream.with_scaled`)."""
        return frozenset(tap for tap in self._sums if tap.kind == "z_scaled")

    @cached_property
    def _row_of(self) -> Mapping[tuple[int, int], int]:
        """Where the sum of each group (and cell) is."""
        keys = (key if self.divided else (key[0], 0) for key in self.grouping.members)
        return {key: row for row, key in enumerate(dict.fromkeys(keys))}

    def _key(self, prompt: int) -> tuple[int, int]:
        group = self.grouping.averaged[prompt]
        if group is None:
            raise ValueError("a prompt that no mean goes over")
        return group, self.grouping.cells[prompt] if self.divided else 0

    def _aligned(self, batch: Batch, tensor: Tensor) -> Tensor:
        """Rows shifted so that column 0 is the prompt's first token; what lies beyond a prompt is not read."""
        if not any(batch.offsets):
            return tensor
        rows = [row.roll(-offset, 0) for row, offset in zip(tensor, batch.offsets, strict=True)]
        return torch.stack(rows)

    def values(self, batch: Batch, taps: frozenset[Tap], like: Tensor, part: Part | None = None) -> dict[Tap, Tensor]:
        """The mean for each row of the batch, of prompts that are run, `[row, pos, channel]`, in the model's dtype.

        Raises CS369 for a row that is longer than all those whose mean it would be given.
        """
        if not self._sums:
            raise ValueError("no batch has been added")
        if part is not None and not self.divided:
            raise ValueError("means over parts need a table that is divided")
        over = [self.grouping.taken(prompt, part) for prompt in batch.prompts]
        different = {taken: number for number, taken in enumerate(dict.fromkeys(over))}
        index = torch.tensor([different[taken] for taken in over])
        result = {}
        for tap in taps:
            sums = self._sums[tap][:, : batch.width]
            each = []
            for taken in different:
                rows = sorted({self._row_of[key if self.divided else (key[0], 0)] for key in taken})
                each.append(sums[rows].sum(0) / self._divisor(tap, rows, taken, batch.width))
            means = torch.stack(each)[index.to(sums.device)]
            _check_known(batch, means)
            if any(batch.offsets):
                means = torch.stack([m.roll(o, 0) for m, o in zip(means, batch.offsets, strict=True)])
            result[tap] = means.to(like.dtype).to(like.device)
        return result

    def _divisor(self, tap: Tap, rows: list[int], taken: tuple[tuple[int, int], ...], width: int) -> int | Tensor:
        """Over how many rows a mean goes: one number, or `[pos, 1]` where prompts have several rows."""
        if tap not in self._counts:
            return sum(self.grouping.members[key] for key in taken)
        return self._counts[tap][rows, :width].sum(0).unsqueeze(-1)


def _counted(batch: Batch) -> Tensor:
    """bool `[row, pos]`, from a row's first token on: a prompt's own tokens in its first row, what follows in all."""
    assert batch.continuations is not None
    counted = torch.zeros(len(batch.prompts), batch.width, dtype=torch.bool)
    for row, (one, length) in enumerate(zip(batch.continuations, batch.lengths, strict=True)):
        counted[row, 0 if one.number == 0 else length - len(one.ids) : length] = True
    return counted


def _check_known(batch: Batch, means: Tensor) -> None:
    """Nothing divided by no rows is handed on: it would be NaN, and only where it is read."""
    if batch.continuations is None:
        return
    for row, length in enumerate(batch.lengths):
        if bool(means[row, length - 1].isnan().all()):
            raise CircuitspecError(
                Diagnostic(
                    "CS369",
                    f"no prompt that the mean is over has an answer of as many tokens as prompt {batch.prompts[row]}",
                    hint="write a larger `reference`, or use answers of equally many tokens",
                    data={"prompt": batch.prompts[row]},
                )
            )


def mean_sources(sources: Mapping[Source, frozenset[Tap]]) -> dict[Source, frozenset[Tap]]:
    """Those among `sources` that need a pass over the prompts that are averaged, with all that is read of them."""
    found: dict[Source, frozenset[Tap]] = {}
    for source, taps in sources.items():
        if source.is_mean:
            found[source.whole] = found.get(source.whole, frozenset()) | taps
    return found
