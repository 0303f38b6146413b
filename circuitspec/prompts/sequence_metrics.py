"""Metrics of answers of several tokens: the summed log probability of their tokens, each after those before it.

Importing this imports no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from circuitspec.prompts.output_metrics import Side, compute_sequence_metrics, upcast
from circuitspec.prompts.prompt_set import AnswerSequences, TokenIds

if TYPE_CHECKING:
    from torch import Tensor


def sequence_metrics(
    sequences: AnswerSequences,
    cases: Sequence[int],
    rows: Sequence[Sequence[int]],
    logits: Tensor,
    clean_logprobs: Tensor | None,
    names: Collection[str] | None = None,
) -> dict[str, Tensor]:
    """Every metric (of those in `names`) that is defined for whole answers, one value for each of the `cases`: numbers
    of prompts.

    `logits` are `[reading, vocabulary]`; `rows[case][k]` is the number of the reading at the prompt's last token in the
    row with its k-th continuation, after which that row's others come. `clean_logprobs`, `[reading, vocabulary]`, are
    those of the clean run; of them and of the logits `kl` takes those at the prompts' last token. Raises ValueError
    for a case that lacks rows.
    """
    import torch

    if any(len(own) != len(sequences.continuations[case]) for case, own in zip(cases, rows, strict=True)):
        raise ValueError("without all rows of a prompt there are no scores of its answers")
    logits = upcast(logits)
    total = logits.logsumexp(-1)

    def side(answers: Sequence[Sequence[TokenIds]]) -> Side | None:
        width = max((len(answers[case]) for case in cases), default=0)
        if width == 0:
            return None
        readings, tokens, owners = list[int](), list[int](), list[int]()
        for number, (case, own) in enumerate(zip(cases, rows, strict=True)):
            if not answers[case]:
                raise ValueError("some prompts have answers and others have none")
            for place, answer in enumerate(answers[case]):
                first = own[sequences.continuations[case].index(answer[:-1])]
                readings += range(first, first + len(answer))
                tokens += answer
                owners += [number * width + place] * len(answer)
        at, to = torch.tensor(readings, device=logits.device), torch.tensor(owners, device=logits.device)
        each = logits[at, torch.tensor(tokens, device=logits.device)] - total[at]
        scores = logits.new_zeros(len(cases) * width).index_add(0, to, each)
        mask = torch.zeros(len(scores), dtype=torch.bool, device=logits.device)
        mask[to] = True
        return Side(scores.view(-1, width), mask.view(-1, width))

    ends = torch.tensor([own[0] for own in rows], device=logits.device)
    clean = None if clean_logprobs is None else clean_logprobs[ends]
    return compute_sequence_metrics(logits[ends], side(sequences.answers), side(sequences.wrong), clean, names)
