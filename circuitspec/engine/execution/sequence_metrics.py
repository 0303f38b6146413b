"""Metrics of answers of several tokens: the summed log probability of their tokens, each after those before it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.execution.batches import Batch
from circuitspec.prompts.output_metrics import Side, compute_sequence_metrics, upcast
from circuitspec.prompts.prompt_set import AnswerSequences, TokenIds, TokenizedTask


def sequence_metrics(
    sequences: AnswerSequences, batch: Batch, logits: Tensor, clean_logprobs: Tensor | None
) -> dict[str, Tensor]:
    """Every metric that is defined for whole answers, `[prompt of the batch]`, from logits `[reading, vocabulary]`.

    `clean_logprobs`, `[reading, vocabulary]`, are those of the clean run of the same batch; of them and of the logits
    `kl` takes those at the prompts' last token. Raises ValueError for a batch that lacks rows of its prompts.
    """
    first = _first_readings(batch)
    starts = batch.starts
    for case, start in zip(batch.cases, starts, strict=True):
        rows = len(sequences.continuations[case])
        if batch.prompts[start : start + rows] != (case,) * rows:
            raise ValueError("a batch without all rows of a prompt has no scores of its answers")
    logits = upcast(logits)
    total = logits.logsumexp(-1)

    def side(answers: Sequence[Sequence[TokenIds]]) -> Side | None:
        width = max((len(answers[case]) for case in batch.cases), default=0)
        if width == 0:
            return None
        readings, tokens, owners = [], [], []
        for number, (case, start) in enumerate(zip(batch.cases, starts, strict=True)):
            if not answers[case]:
                raise ValueError("some prompts have answers and others have none")
            for place, answer in enumerate(answers[case]):
                row = start + sequences.continuations[case].index(answer[:-1])
                readings += [first[row] + k for k in range(len(answer))]
                tokens += answer
                owners += [number * width + place] * len(answer)
        at, to = torch.tensor(readings, device=logits.device), torch.tensor(owners, device=logits.device)
        each = logits[at, torch.tensor(tokens, device=logits.device)] - total[at]
        scores = logits.new_zeros(len(starts) * width).index_add(0, to, each)
        mask = torch.zeros_like(scores, dtype=torch.bool)
        mask[to] = True
        return Side(scores.view(-1, width), mask.view(-1, width))

    ends = torch.tensor([first[row] for row in starts], device=logits.device)
    clean = None if clean_logprobs is None else clean_logprobs[ends]
    return compute_sequence_metrics(logits[ends], side(sequences.answers), side(sequences.wrong), clean)


def _first_readings(batch: Batch) -> list[int]:
    """The number of the first reading of each row."""
    found, number = [], 0
    for more in batch.continued:
        found.append(number)
        number += 1 + more
    return found


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
