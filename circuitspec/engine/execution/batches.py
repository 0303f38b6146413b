"""Prompts -> batches of rows that one forward can take, with where each prompt's tokens lie in them.

A batch is made for the clean prompts; of a variant whose prompts have other lengths it is laid out anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.experiments.experiment import Variant, texts_of
from circuitspec.graph.where import Where
from circuitspec.prompts.prompt_set import CLEAN, TokenIds, TokenizedTask

PaddingSide = Literal["right", "left"]


class Continuation(NamedTuple):
    """What follows a prompt in one of its rows, and which of its rows that is, counted from 0."""

    number: int
    ids: TokenIds


@dataclass(frozen=True)
class Batch:
    """Rows run together: `prompts[row]` is the number of the row's prompt, `lengths[row]` how many tokens it has.

    Where answers of several tokens are scored, a prompt has a row for each of its `continuations`, one after the other,
    and these are part of the rows; otherwise a row is a prompt. The answer is read at the prompt's last token and at
    those of the continuation: these are a row's reading columns, and all of a batch, row by row, its readings.
    """

    prompts: tuple[int, ...]
    lengths: tuple[int, ...]
    width: int
    side: PaddingSide
    continuations: tuple[Continuation, ...] | None = None

    @property
    def offsets(self) -> tuple[int, ...]:
        """The column of each row's first token."""
        if self.side == "right":
            return (0,) * len(self.prompts)
        return tuple(self.width - length for length in self.lengths)

    @property
    def continued(self) -> tuple[int, ...]:
        """How many tokens follow the prompt in each row."""
        if self.continuations is None:
            return (0,) * len(self.prompts)
        return tuple(len(one.ids) for one in self.continuations)

    @property
    def answer_columns(self) -> tuple[int, ...]:
        """The column of each prompt's last token, where the answer (or its first token) is read."""
        return tuple(o + n - 1 - m for o, n, m in zip(self.offsets, self.lengths, self.continued, strict=True))

    @property
    def readings(self) -> tuple[tuple[int, int], ...]:
        """(row, column) of everything that is read of the logits, row by row and from left to right."""
        found = zip(self.answer_columns, self.continued, strict=True)
        return tuple((row, first + k) for row, (first, more) in enumerate(found) for k in range(1 + more))

    @property
    def starts(self) -> tuple[int, ...]:
        """The first row of each prompt."""
        if self.continuations is None:
            return tuple(range(len(self.prompts)))
        return tuple(row for row, one in enumerate(self.continuations) if one.number == 0)

    @property
    def cases(self) -> tuple[int, ...]:
        """The number of each prompt, once for all its rows: metrics have one value for each."""
        return self.prompts if self.continuations is None else tuple(self.prompts[row] for row in self.starts)

    @property
    def case_readings(self) -> tuple[tuple[int, ...], ...]:
        """For each prompt the number of the first reading of each of its rows."""
        first = [*accumulate((1 + more for more in self.continued), initial=0)]
        starts = self.starts
        return tuple(tuple(first[a:b]) for a, b in pairwise([*starts, len(self.prompts)]))

    @property
    def case_of(self) -> tuple[int, ...]:
        """For each row which of the batch's prompts it is of, counted from 0."""
        starts = frozenset(self.starts)
        return tuple(accumulate((int(row in starts) for row in range(len(self.prompts))), initial=-1))[1:]

    def some(self, rows: Sequence[int]) -> Batch:
        """These rows, in this order and as often as they are named, as wide as all are. All of a prompt or none."""
        following = self.continuations
        return Batch(
            tuple(self.prompts[row] for row in rows),
            tuple(self.lengths[row] for row in rows),
            self.width,
            self.side,
            None if following is None else tuple(following[row] for row in rows),
        )

    def first(self, rows: int) -> Batch:
        """The first of the rows, as wide as all of them."""
        return self.some(range(len(self.prompts))[:rows])

    def at_most(self, rows: int) -> tuple[Batch, ...]:
        """The same prompts in batches of at most `rows`, each as wide as its own rows need.

        The rows of a prompt stay together, also where they are more.
        """
        if len(self.prompts) <= rows:
            return (self,)
        starts = self.starts
        ends = (*starts[1:], len(self.prompts))
        cuts = [0]
        for start, end in zip(starts, ends, strict=True):
            if end - cuts[-1] > rows and start > cuts[-1]:
                cuts.append(start)
        return tuple(self._part(*cut) for cut in pairwise([*cuts, len(self.prompts)]))

    def _part(self, start: int, end: int) -> Batch:
        lengths = self.lengths[start:end]
        own = None if self.continuations is None else self.continuations[start:end]
        return Batch(self.prompts[start:end], lengths, max(lengths), self.side, own)


def make_batches(
    lengths: Sequence[int],
    rows: int,
    side: PaddingSide = "right",
    among: Sequence[int] | None = None,
    *,
    by_length: bool = False,
    continuations: Sequence[Sequence[TokenIds]] | None = None,
) -> tuple[Batch, ...]:
    """Batches of at most `rows` rows of prompts (those `among` all), prompts of like length together.

    With `by_length` they are of one length alone. A prompt has a row for each of its `continuations`, and is as long
    as the longest of them; where there are none, it is a row.
    """
    after: Sequence[Sequence[TokenIds]] = [((),)] * len(lengths) if continuations is None else continuations
    whole_lengths = [length + max(map(len, own)) for length, own in zip(lengths, after, strict=True)]
    order = sorted(range(len(lengths)) if among is None else among, key=lambda i: (whole_lengths[i], i))
    groups = [[*g] for _, g in groupby(order, lambda i: whole_lengths[i])] if by_length else [order] if order else []

    def batch(prompts: Sequence[int]) -> Batch:
        rows_of = [(i, Continuation(number, ids)) for i in prompts for number, ids in enumerate(after[i])]
        long = tuple(lengths[i] + len(one.ids) for i, one in rows_of)
        following = None if continuations is None else tuple(one for _, one in rows_of)
        return Batch(tuple(i for i, _ in rows_of), long, max(long), side, following)

    return tuple(part for group in groups for part in batch(group).at_most(rows))


def check_equally_long(task: TokenizedTask) -> None:
    """CS368 where a prompt's rows differ in length, or its variants: for a model that may run equal lengths alone."""
    uneven = None
    for prompt in range(task.n):
        after = {len(one) for one in (task.continuations or [((),)] * task.n)[prompt]}
        if len(after) > 1 or len({len(ids[prompt]) for ids in task.ids.values()}) > 1:
            uneven = task.prompts.prompts[prompt]
            break
    if uneven is not None:
        raise CircuitspecError(
            Diagnostic(
                "CS368",
                f"this model's rotary embedding depends on the longest row of a batch, and the rows of "
                f"{uneven.described()} differ in length",
                hint="use answers (and clean and corrupted prompts) of equally many tokens",
                data={"prompt": uneven.index},
            )
        )


def laid_out(task: TokenizedTask, batch: Batch, variant: Variant) -> Batch:
    """The batch as the prompts of this variant lie in it: itself, unless they have other lengths than those in it."""
    ids = task.ids[texts_of(variant)]
    lengths = tuple(len(ids[p]) + more for p, more in zip(batch.prompts, batch.continued, strict=True))
    if lengths == batch.lengths:
        return batch
    return Batch(batch.prompts, lengths, max(lengths), batch.side, batch.continuations)


def model_inputs(task: TokenizedTask, batch: Batch, variant: Variant, device: torch.device) -> dict[str, Any]:
    """Keyword arguments of the model's forward; logits are asked for at the reading columns alone.

    Right-padded rows need no attention mask: a causal model never looks right, and no value right of a
    prompt's last token is read. Left-padded rows carry a mask and their own position ids.
    """
    batch = laid_out(task, batch, variant)
    ids = torch.zeros(len(batch.prompts), batch.width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    own = task.of(texts_of(variant)).ids
    for row, (prompt, offset, length) in enumerate(zip(batch.prompts, batch.offsets, batch.lengths, strict=True)):
        following = () if batch.continuations is None else batch.continuations[row].ids
        ids[row, offset : offset + length] = torch.tensor((*own[prompt], *following))
        mask[row, offset : offset + length] = 1
    inputs: dict[str, Any] = {
        "input_ids": ids.to(device),
        "use_cache": False,
        "logits_to_keep": torch.tensor(_reading_columns(batch), device=device),
    }
    if batch.side == "left" and min(batch.lengths) < batch.width:
        inputs["attention_mask"] = mask.to(device)
        inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0).to(device)
    return inputs


def by_prompt(values: NDArray[np.float64], batch: Batch) -> NDArray[np.float64]:
    """What was summed over tokens for each row, `[..., row]`, for each prompt of the batch, `[..., prompt]`."""
    if batch.continuations is None:
        return values
    found: NDArray[np.float64] = np.add.reduceat(values, batch.starts, axis=-1)
    return found


def some_inputs(
    inputs: Mapping[str, Any], batch: Batch, rows: Tensor | slice = slice(None), start: int = 0
) -> dict[str, Any]:
    """Model inputs of these rows, from the column `start` on (which only right-padded rows can).

    `batch` is of these rows: logits are asked for where it reads them.
    """
    result = {
        name: value[rows, start:] if isinstance(value, Tensor) and value.ndim == 2 else value
        for name, value in inputs.items()
    }
    kept = torch.tensor(_reading_columns(batch), device=inputs["logits_to_keep"].device)
    return {**result, "logits_to_keep": kept - start}


def answer_logits(logits: Tensor, batch: Batch) -> Tensor:
    """`[row, kept column, vocabulary]` -> `[reading, vocabulary]`: where nothing follows prompts, one for each row."""
    kept = {column: k for k, column in enumerate(_reading_columns(batch))}
    rows = torch.tensor([row for row, _ in batch.readings], device=logits.device)
    return logits[rows, torch.tensor([kept[column] for _, column in batch.readings], device=logits.device)]


def _reading_columns(batch: Batch) -> list[int]:
    return sorted({column for _, column in batch.readings})


def where_mask(
    task: TokenizedTask, batch: Batch, where: Where, device: torch.device, variant: Variant = CLEAN
) -> Tensor:
    """bool `[row, pos]`: the columns that `where` names in each row of this variant (padding is never named).

    What follows a prompt belongs to its last token: at all of these the answer is read.
    """
    batch, own = laid_out(task, batch, variant), task.of(texts_of(variant))
    named = torch.zeros(len(batch.prompts), batch.width, dtype=torch.bool)
    ends = zip(batch.answer_columns, batch.continued, strict=True)
    for row, (prompt, offset, (last, more)) in enumerate(zip(batch.prompts, batch.offsets, ends, strict=True)):
        for role in where.roles:
            columns = [offset + token for token in own.tokens_at(role, prompt)]
            named[row, columns] = True
            if last in columns:
                named[row, last + 1 : last + 1 + more] = True
    return ((real_columns(batch) & ~named) if where.inverted else named).to(device)


def noise_mask(task: TokenizedTask, batch: Batch, where: Where) -> Tensor:
    """bool `[row, pos]`: as `where_mask` of the clean prompts, but a slot stands for all tokens of all its occurrences.

    Never of what follows a prompt: prompts are noised, and not answers.
    """
    batch = laid_out(task, batch, CLEAN)
    named = torch.zeros(len(batch.prompts), batch.width, dtype=torch.bool)
    for row, (prompt, offset) in enumerate(zip(batch.prompts, batch.offsets, strict=True)):
        for role in where.roles:
            tokens = task.slot_tokens[role][prompt] if role in task.slot_tokens else task.tokens_at(role, prompt)
            named[row, [offset + token for token in tokens]] = True
    if not where.inverted:
        return named
    others = real_columns(batch) & ~named
    for row, (last, more) in enumerate(zip(batch.answer_columns, batch.continued, strict=True)):
        others[row, last + 1 : last + 1 + more] = False
    return others


def real_columns(batch: Batch) -> Tensor:
    """bool `[row, pos]`: where prompts and what follows them are, and no padding."""
    real = torch.zeros(len(batch.prompts), batch.width, dtype=torch.bool)
    for row, (offset, length) in enumerate(zip(batch.offsets, batch.lengths, strict=True)):
        real[row, offset : offset + length] = True
    return real


def later_columns(batch: Batch) -> Tensor:
    """The same without each row's first token."""
    later = real_columns(batch)
    later[range(len(batch.offsets)), batch.offsets] = False
    return later
