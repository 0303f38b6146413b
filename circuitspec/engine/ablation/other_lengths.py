"""Values of a run on prompts of other lengths, brought onto the columns of the prompts that they are patched into.

This is the only place where values change their column. They are what the source's run computed at its own positions:
nothing is rotated or embedded anew.
"""

from __future__ import annotations

import torch

from circuitspec.engine.ablation.patched_values import Values
from circuitspec.engine.execution.batches import Batch, laid_out
from circuitspec.experiments.experiment import Variant, texts_of
from circuitspec.prompts.prompt_set import TokenizedTask


def on_columns_of(
    task: TokenizedTask, batch: Batch, base: Variant, source: Variant, values: Values, unknown: float
) -> Values:
    """`values` of the source's prompts, `[row, pos, channel]`, on the columns of the base's; `unknown` where a token
    has no counterpart, and at padding.

    The k-th token after one prompt corresponds to the k-th after the other. As they are where all tokens correspond
    one by one.
    """
    one, other = texts_of(base), texts_of(source)
    if task.corresponds(one, other):
        return values
    here, there = laid_out(task, batch, base), laid_out(task, batch, source)
    column = torch.full((len(batch.prompts), here.width), -1, dtype=torch.long)
    for row, (prompt, to, by) in enumerate(zip(batch.prompts, here.offsets, there.offsets, strict=True)):
        for token, its in enumerate(task.counterparts_of(one, other, prompt)):
            column[row, to + token] = by + its if its >= 0 else -1
        ends = here.answer_columns[row], there.answer_columns[row]
        for k in range(1, 1 + here.continued[row]):
            column[row, ends[0] + k] = ends[1] + k
    rows = torch.arange(len(column)).unsqueeze(1)
    found = {}
    for tap, value in values.items():
        taken = value[rows.to(value.device), column.clamp(min=0).to(value.device)]
        found[tap] = taken.masked_fill((column < 0).unsqueeze(-1).to(value.device), unknown)
    return found
