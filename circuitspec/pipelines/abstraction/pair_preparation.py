"""The pairs of a file with an abstraction, made before anything runs: for all commands one way. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from circuitspec.hypothesis_file.load_file import Document
from circuitspec.hypothesis_file.schema.blocks import Hypothesis
from circuitspec.hypothesis_file.yaml.source import SourceText
from circuitspec.prompts.pairs.pair_families import draw_pairs
from circuitspec.prompts.pairs.pair_set import PairSet
from circuitspec.prompts.pairs.pair_tokens import with_pairs
from circuitspec.prompts.pairs.settings import all_settings
from circuitspec.prompts.prompt_set import PromptSet, TokenizedTask
from circuitspec.prompts.scrubbing.drawn_prompts import DrawnPrompts
from circuitspec.prompts.scrubbing.drawn_variants import ScrubbedTask

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def pairs_of(hypothesis: Hypothesis, prompts: PromptSet, document: Document) -> PairSet | None:
    """The pairs of the file's abstraction, if it has one. Raises as `draw_pairs` does."""
    if hypothesis.abstraction is None:
        return None
    return draw_pairs(hypothesis.abstraction, hypothesis.task, prompts, document.base_dir, document.source)


def paired(
    task: TokenizedTask,
    pairs: PairSet | None,
    hypothesis: Hypothesis,
    tokenizer: PreTrainedTokenizerBase,
    text: SourceText,
) -> TokenizedTask:
    """The task with the variants that its claims about variables take. Raises as `with_pairs` does."""
    if pairs is None:
        return task
    settings = all_settings(hypothesis.claims, hypothesis.abstraction)
    return with_pairs(task, pairs, settings, hypothesis.task.positions, tokenizer, text)


def with_all_drawn(
    task: TokenizedTask, drawn: Iterable[DrawnPrompts], document: Document, tokenizer: PreTrainedTokenizerBase
) -> TokenizedTask:
    """The task with the prompts that claims draw (`scrubbed`). Raises as `ScrubbedTask.with_drawn` does."""
    scrubbed = ScrubbedTask(document.hypothesis, document.base_dir, document.source)
    return scrubbed.with_drawn(task, drawn, tokenizer)
