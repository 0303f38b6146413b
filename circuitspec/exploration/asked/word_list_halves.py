"""Prompts like those of a task, from one half of its words and from the other: no word is in both."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.exploration.stability.subsamples import FEWEST
from circuitspec.hypothesis_file.checks.word_lists import load_lists
from circuitspec.hypothesis_file.grammar.ablation_kinds import ZERO
from circuitspec.hypothesis_file.schema.blocks import AblationSpec, TaskSpec
from circuitspec.prompts.prompt_set import TokenizedTask
from circuitspec.prompts.reference_prompts import ReferencePrompts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from circuitspec.hypothesis_file.yaml.source import SourceText

DIVIDED = 4  # entries, at least, of a list that is divided; shorter ones are the same in both halves
SEED = 0


def divided_words(task: TaskSpec, base_dir: Path, text: SourceText | None) -> tuple[TaskSpec, ...]:
    """The task with one half of every word list and with the other; none where prompts are not drawn from lists."""
    if not task.templates or task.fillings is not None or task.file is not None:
        return ()
    lists = load_lists(task.lists, base_dir, text)
    dice = np.random.default_rng(SEED)
    orders = {name: dice.permutation(len(rows)) for name, rows in lists.items() if len(rows) >= DIVIDED}
    if not orders:
        return ()
    halves = []
    for side in (0, 1):
        own = {
            name: tuple(rows[i] for i in sorted(orders[name][side::2].tolist())) if name in orders else rows
            for name, rows in lists.items()
        }
        halves.append(task.model_copy(update={"lists": own}))
    return tuple(halves)


def prompts_of_halves(
    task: TokenizedTask,
    halves: tuple[TaskSpec, ...],
    base_dir: Path,
    text: SourceText | None,
    tokenizer: PreTrainedTokenizerFast,
    averaged: int | None,
) -> tuple[TokenizedTask, ...]:
    """As many prompts as the task's from each half, laid out like one of them; with `averaged` others for means.

    None where one of the halves has too few words, or gives fewer prompts than can be searched on.
    """
    found = []
    for half in halves:
        wanted = AblationSpec(value=ZERO.name, reference=task.n)  # of which only the number is read
        try:
            own = ReferencePrompts(half, wanted, base_dir, text, tokenizer).of(task).reference
            if own is None or own.n < FEWEST:
                return ()
            if averaged is not None:
                own = ReferencePrompts(half, None, base_dir, text, tokenizer).of(own, averaged)
        except CircuitspecError:  # fewer words than one prompt takes
            return ()
        found.append(own)
    return tuple(found)
