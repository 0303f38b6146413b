"""Prompts and answers that are given as token ids: used as they are, and decoded for reports. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from circuitspec.prompts.prompt_set import Prompt, PromptSet
from circuitspec.prompts.task_findings import TaskFindings
from circuitspec.prompts.tokens.encoding import Encoded, decoded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def given_as_ids(prompts: PromptSet) -> dict[str, Encoded]:
    """The variants that are given as token ids, by what stands for their text: every token counts, none was added."""
    return {
        prompt.texts[variant]: Encoded("", ids, ((0, 0),) * len(ids), before=0, after=0)
        for prompt in prompts.prompts
        for variant, ids in prompt.ids.items()
    }


def check_ids(prompts: PromptSet, tokenizer: PreTrainedTokenizerBase, findings: TaskFindings) -> None:
    """Raises CS363 for ids that no token of the vocabulary has."""
    size = len(tokenizer)
    for prompt in prompts.prompts:
        beyond = {one: what for what, one in _ids(prompt) if one >= size}
        for one, what in beyond.items():
            findings.add(
                "CS363",
                f"{what} of {prompt.described()} is the token {one}, but the vocabulary has {size:,}: 0 to {size - 1}",
                prompt.span,
                hint="write ids of this model's tokenizer, or texts",
                data={"prompt": prompt.index, "id": one},
            )
    findings.check()


def with_texts(prompts: PromptSet, tokenizer: PreTrainedTokenizerBase) -> PromptSet:
    """The prompts, those given as token ids with what these decode to as their texts."""
    if not any(prompt.ids for prompt in prompts.prompts):
        return prompts
    read = tuple(
        replace(prompt, texts={variant: decoded(tokenizer, ids) for variant, ids in prompt.ids.items()})
        if prompt.ids
        else prompt
        for prompt in prompts.prompts
    )
    return replace(prompts, prompts=read)


def answers_decoded(prompts: PromptSet, tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """The texts of the answers and wrong answers that are given as token ids, by id."""
    given = (one for prompt in prompts.prompts for one in (*prompt.answers, *prompt.wrong) if isinstance(one, int))
    return {one: decoded(tokenizer, [one]) for one in dict.fromkeys(given)}


def _ids(prompt: Prompt) -> Iterator[tuple[str, int]]:
    """(what, id) of all ids that a prompt gives."""
    yield from ((f"a token of {variant}", one) for variant, ids in prompt.ids.items() for one in ids)
    yield from (("an answer", one) for one in prompt.answers if isinstance(one, int))
    yield from (("a wrong answer", one) for one in prompt.wrong if isinstance(one, int))
