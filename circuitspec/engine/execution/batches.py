"""Prompts -> batches of rows that one forward can take, with where each prompt's tokens lie in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import torch
from torch import Tensor

from circuitspec.experiments.experiment import Variant, texts_of
from circuitspec.graph.where import Where
from circuitspec.prompts.prompt_set import CLEAN, TokenizedTask

PaddingSide = Literal["right", "left"]


@dataclass(frozen=True)
class Batch:
    """Prompts run together: `prompts[row]` is the prompt's number, `offsets[row]` its first token's column."""

    prompts: tuple[int, ...]
    lengths: tuple[int, ...]
    width: int
    side: PaddingSide

    @property
    def offsets(self) -> tuple[int, ...]:
        if self.side == "right":
            return (0,) * len(self.prompts)
        return tuple(self.width - length for length in self.lengths)

    @property
    def answer_columns(self) -> tuple[int, ...]:
        """The column of each prompt's last token, where the answer is read."""
        return tuple(o + n - 1 for o, n in zip(self.offsets, self.lengths, strict=True))

    def times(self, copies: int) -> Batch:
        """All rows again and again, one copy after the other."""
        return Batch(self.prompts * copies, self.lengths * copies, self.width, self.side)

    def first(self, rows: int) -> Batch:
        """Some of the rows, as wide as all of them."""
        return Batch(self.prompts[:rows], self.lengths[:rows], self.width, self.side)

    def at_most(self, rows: int) -> tuple[Batch, ...]:
        """The same prompts in batches of at most `rows`, each as wide as its own prompts need."""
        if len(self.prompts) <= rows:
            return (self,)
        starts = range(0, len(self.prompts), rows)
        parts = [(self.prompts[i : i + rows], self.lengths[i : i + rows]) for i in starts]
        return tuple(Batch(prompts, lengths, max(lengths), self.side) for prompts, lengths in parts)


def make_batches(
    lengths: Sequence[int],
    rows: int,
    side: PaddingSide = "right",
    among: Sequence[int] | None = None,
    *,
    by_length: bool = False,
) -> tuple[Batch, ...]:
    """Batches of at most `rows` prompts (those `among` all), prompts of like length together.

    With `by_length` they are of one length alone.
    """
    order = tuple(sorted(range(len(lengths)) if among is None else among, key=lambda i: (lengths[i], i)))
    groups = [[*g] for _, g in groupby(order, lambda i: lengths[i])] if by_length else [[*order]] if order else []
    whole = (Batch((*g,), tuple(lengths[i] for i in g), max(lengths[i] for i in g), side) for g in groups)
    return tuple(part for batch in whole for part in batch.at_most(rows))


def model_inputs(task: TokenizedTask, batch: Batch, variant: Variant, device: torch.device) -> dict[str, Any]:
    """Keyword arguments of the model's forward; logits are asked for at the answers' columns alone.

    Right-padded rows need no attention mask: a causal model never looks right, and no value right of a
    prompt's last token is read. Left-padded rows carry a mask and their own position ids.
    """
    ids = torch.zeros(len(batch.prompts), batch.width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    own = task.of(texts_of(variant)).ids
    for row, (prompt, offset, length) in enumerate(zip(batch.prompts, batch.offsets, batch.lengths, strict=True)):
        ids[row, offset : offset + length] = torch.tensor(own[prompt])
        mask[row, offset : offset + length] = 1
    inputs: dict[str, Any] = {
        "input_ids": ids.to(device),
        "use_cache": False,
        "logits_to_keep": torch.tensor(sorted(set(batch.answer_columns)), device=device),
    }
    if batch.side == "left" and min(batch.lengths) < batch.width:
        inputs["attention_mask"] = mask.to(device)
        inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0).to(device)
    return inputs


def copied(inputs: Mapping[str, Any], copies: int, start: int = 0) -> dict[str, Any]:
    """Model inputs with all rows again and again, from the column `start` on (which only right-padded rows can)."""
    result = {
        name: value[:, start:].repeat(copies, 1) if isinstance(value, Tensor) and value.ndim == 2 else value
        for name, value in inputs.items()
    }
    return {**result, "logits_to_keep": inputs["logits_to_keep"] - start}


def answer_logits(logits: Tensor, batch: Batch) -> Tensor:
    """`[row, kept column, vocabulary]` -> `[row, vocabulary]` at each row's own answer column."""
    kept = sorted(set(batch.answer_columns))
    index = torch.tensor([kept.index(c) for c in batch.answer_columns], device=logits.device)
    return logits[torch.arange(len(index), device=logits.device), index]


def where_mask(
    task: TokenizedTask, batch: Batch, where: Where, device: torch.device, variant: Variant = CLEAN
) -> Tensor:
    """bool `[row, pos]`: the columns that `where` names in each row of this variant (padding is never named)."""
    own = task.of(texts_of(variant))
    named = torch.zeros(len(batch.prompts), batch.width, dtype=torch.bool)
    for row, (prompt, offset) in enumerate(zip(batch.prompts, batch.offsets, strict=True)):
        for role in where.roles:
            named[row, [offset + token for token in own.tokens_at(role, prompt)]] = True
    return ((real_columns(batch) & ~named) if where.inverted else named).to(device)


def noise_mask(task: TokenizedTask, batch: Batch, where: Where) -> Tensor:
    """bool `[row, pos]`: as `where_mask`, but a slot stands for all tokens of all its occurrences."""
    named = torch.zeros(len(batch.prompts), batch.width, dtype=torch.bool)
    for row, (prompt, offset) in enumerate(zip(batch.prompts, batch.offsets, strict=True)):
        for role in where.roles:
            tokens = task.slot_tokens[role][prompt] if role in task.slot_tokens else task.tokens_at(role, prompt)
            named[row, [offset + token for token in tokens]] = True
    return (real_columns(batch) & ~named) if where.inverted else named


def real_columns(batch: Batch) -> Tensor:
    """bool `[row, pos]`: where prompts are, and no padding."""
    real = torch.zeros(len(batch.prompts), batch.width, dtype=torch.bool)
    for row, (offset, length) in enumerate(zip(batch.offsets, batch.lengths, strict=True)):
        real[row, offset : offset + length] = True
    return real
