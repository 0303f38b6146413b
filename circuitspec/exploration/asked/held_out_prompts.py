"""Prompts that nothing is chosen on: what was chosen is measured on them, so that being picked does not flatter it.

The largest of many noisy figures is larger than what it measures, and a circuit that was grown until it recovers the
target on some prompts recovers a little less on others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from circuitspec.analysis.claims.claim_result import MIN_PROMPTS
from circuitspec.hypothesis_file.grammar.ablation_kinds import ZERO
from circuitspec.hypothesis_file.schema.blocks import AblationSpec
from circuitspec.prompts.prompt_set import TokenizedTask
from circuitspec.prompts.reference_prompts import ReferencePrompts, chosen, is_drawn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from circuitspec.hypothesis_file.schema.blocks import TaskSpec
    from circuitspec.hypothesis_file.yaml.source import SourceText

OTHER_STREAM = 1_000_003  # added to the task's seed: what is drawn with it is no prompt that means are over
KEPT = 3  # of so many prompts of a file one is held out
SEED = 0  # by which it is drawn


@dataclass(frozen=True)
class PromptSplit:
    """The prompts that are searched on, and others that are held out (None: there are too few, which `why` says)."""

    searched: TokenizedTask
    held_out: TokenizedTask | None
    why: str = ""
    drawn: bool = False  # whether those that are held out were drawn besides, so that none is missing in the search

    @property
    def described(self) -> str:
        """`60 other prompts, drawn anew`; `20 of the file's 60 prompts, which the search did not see`."""
        if self.held_out is None:
            return self.why
        if self.drawn:
            return f"{self.held_out.n} other prompts, drawn anew"
        whole = self.held_out.n + self.searched.n
        return f"{self.held_out.n} of the {whole} prompts, which the search did not see"


def split_prompts(
    task: TokenizedTask,
    subject: TaskSpec,
    base_dir: Path,
    text: SourceText | None,
    tokenizer: PreTrainedTokenizerFast,
    size: int | None = None,
) -> PromptSplit:
    """Where prompts are drawn, up to `size` other ones that tokenise alike; of those of a file a third is taken away.

    Without a size as many as there are. None where that leaves fewer than `MIN_PROMPTS` on a side. Means are over no
    reference yet, in both of them.
    """
    if is_drawn(subject, None):
        other = subject.model_copy(update={"seed": subject.seed + OTHER_STREAM})
        wanted = AblationSpec(value=ZERO.name, reference=size or task.n)  # of which only the number is read
        fresh = ReferencePrompts(other, wanted, base_dir, text, tokenizer).of(task).reference
        if fresh is None or fresh.n < MIN_PROMPTS:
            return PromptSplit(task, None, "the word lists give too few other prompts")
        return PromptSplit(task, replace(fresh, reference=None), drawn=True)
    count = task.n // KEPT
    if count < MIN_PROMPTS:
        return PromptSplit(task, None, f"there are fewer than {KEPT * MIN_PROMPTS} prompts to divide")
    away = frozenset(np.random.default_rng(SEED).permutation(task.n)[:count].tolist())
    search, held = ([i for i in range(task.n) if (i in away) == out] for out in (False, True))
    return PromptSplit(chosen(task, search), chosen(task, held))
