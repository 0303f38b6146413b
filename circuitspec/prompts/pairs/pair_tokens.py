"""Pairs as variants of a tokenized task: sources as prompts of their own, base prompts with other answers.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from circuitspec.hypothesis_file.schema.position_blocks import Position
from circuitspec.prompts.pairs.pair_set import PairSet, SourcePrompt
from circuitspec.prompts.pairs.settings import Setting, families_of, scored_as, scored_as_base, source_variant
from circuitspec.prompts.pairs.source_tokens import with_counterparts
from circuitspec.prompts.prompt_set import CLEAN, Prompt, PromptSet, TokenizedTask, TokenizedVariant
from circuitspec.prompts.tokens.tokenize import tokenize

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from circuitspec.hypothesis_file.yaml.source import SourceText


def with_pairs(
    task: TokenizedTask,
    pairs: PairSet,
    settings: Iterable[Setting],
    positions: Mapping[str, Position],
    tokenizer: PreTrainedTokenizerBase,
    text: SourceText | None = None,
) -> TokenizedTask:
    """The task with a variant for each family's sources, and one for each way in which base prompts are scored.

    Sources may have other lengths than their bases: which tokens correspond is in their variant. Raises
    CircuitspecError as `tokenize` does.
    """
    wanted = tuple(settings)
    named = dict.fromkeys(family for setting in wanted for family in families_of(setting))
    for family in named:
        answers = pairs.source_answers(family)
        among = pairs.candidates(((next(iter(pairs.model.variables)), family),))
        sources = [_source(base, one) for base, one in zip(pairs.bases, pairs.families[family], strict=True)]
        found = _tokens(sources, answers, among, task, positions, tokenizer, text)
        found = with_counterparts(task, sources, found, positions, tokenizer)
        task = task.with_variant(source_variant(family), found)
        beside = {**task.prompts.beside, source_variant(family): tuple(one.text for one in pairs.families[family])}
        task = replace(task, prompts=replace(task.prompts, beside=beside))
    for setting in wanted:
        candidates = pairs.candidates(setting)
        scored = {scored_as(setting): pairs.expected(setting), scored_as_base(setting): pairs.base_answers}
        for name, answers in scored.items():
            if name not in task.own:
                found = _tokens(pairs.bases, answers, candidates, task, positions, tokenizer, text)
                task = task.with_variant(name, found)  # the base prompts, with other answers
    return task


def _source(base: Prompt, source: SourcePrompt) -> Prompt:
    """The source of a pair as a clean prompt."""
    where = f"the source of {base.where}" if base.where else "a source"
    return Prompt(
        base.index,
        base.template,
        {CLEAN: source.text},
        (),
        (),
        {CLEAN: source.spans},
        positions=source.positions,
        where=where,
        ids=source.ids,
    )


def _tokens(
    prompts: Sequence[Prompt],
    answers: Sequence[str],
    candidates: Sequence[Sequence[str]],
    task: TokenizedTask,
    positions: Mapping[str, Position],
    tokenizer: PreTrainedTokenizerBase,
    text: SourceText | None,
) -> TokenizedVariant:
    """Clean prompts with these answers, and the other candidates as the wrong ones."""
    asked = [
        replace(
            prompt,
            texts={CLEAN: prompt.texts[CLEAN]},
            slots={CLEAN: prompt.slots.get(CLEAN, {})},
            ids={CLEAN: prompt.ids[CLEAN]} if prompt.ids else {},
            answers=(right,),
            wrong=tuple(one for one in among if one != right),
        )
        for prompt, right, among in zip(prompts, answers, candidates, strict=True)
    ]
    own = task.prompts
    whole = PromptSet(tuple(asked), (), own.templates, lists=own.lists, framing=own.framing, score=own.score)
    found = tokenize(whole, positions, tokenizer, text)
    return TokenizedVariant(found.ids[CLEAN], found.answers, found.wrong, found.roles, found.slot_tokens, found.spans)


def misplaced(task: TokenizedTask, variant: str, roles: Iterable[str]) -> tuple[tuple[str, int], ...]:
    """Positions that are at other tokens in this variant than in the clean prompts, each with the first such prompt."""
    own = task.of(variant).roles
    found = []
    for role in sorted(roles):
        differ = [i for i, at in enumerate(task.roles[role]) if role not in own or own[role][i] != at]
        if differ:
            found.append((role, differ[0]))
    return tuple(found)
