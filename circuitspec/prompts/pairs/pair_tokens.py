"""Pairs as variants of a tokenized task: sources as prompts of their own, base prompts with other answers.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.hypothesis_file.schema.position_blocks import Position
from circuitspec.prompts.pairs.pair_set import PairSet, SourcePrompt
from circuitspec.prompts.pairs.settings import Setting, families_of, scored_as, scored_as_base, source_variant
from circuitspec.prompts.prompt_set import CLEAN, Prompt, PromptSet, TokenizedTask, TokenizedVariant
from circuitspec.prompts.templates.template import occurrence
from circuitspec.prompts.tokens.tokenize import tokenize

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from circuitspec.hypothesis_file.yaml.source import SourceText

_SHOWN = 5  # pairs that do not fit, of one family


def with_pairs(
    task: TokenizedTask,
    pairs: PairSet,
    settings: Iterable[Setting],
    positions: Mapping[str, Position],
    tokenizer: PreTrainedTokenizerBase,
    text: SourceText | None = None,
) -> TokenizedTask:
    """The task with a variant for each family's sources, and one for each way in which base prompts are scored.

    Raises CircuitspecError as `tokenize` does, and CS233 for a source that is not as long as its base.
    """
    wanted = tuple(settings)
    named = dict.fromkeys(family for setting in wanted for family in families_of(setting))
    for family in named:
        answers = pairs.source_answers(family)
        among = pairs.candidates(((next(iter(pairs.model.variables)), family),))
        sources = [_source(base, one) for base, one in zip(pairs.bases, pairs.families[family], strict=True)]
        found = _tokens(sources, answers, among, task, positions, tokenizer, text)
        _check_lengths(task, found, family, pairs, text)
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


def _check_lengths(
    task: TokenizedTask, sources: TokenizedVariant, family: str, pairs: PairSet, text: SourceText | None
) -> None:
    """CS233 where a source has another number of tokens than its base, with the first slot that makes it so."""
    place = None if text is None else text.span(("abstraction", "pairs", family), key=True)
    lengths = task.lengths
    wrong = [i for i, ids in enumerate(sources.ids) if len(ids) != lengths[i]]
    problems = [
        Diagnostic(
            "CS233",
            f"the source of {pairs.bases[i].described()} has {len(sources.ids[i])} tokens, its base {lengths[i]}"
            + _longer(task, sources, pairs, family, i),
            place,
            f"{pairs.families[family][i].text!r} for {pairs.bases[i].texts[CLEAN]!r}",
            "let lists have entries of equally many tokens",
        )
        for i in wrong[:_SHOWN]
    ]
    if len(wrong) > _SHOWN:
        problems.append(Diagnostic("CS233", f"so it is with {len(wrong) - _SHOWN} more pairs of {family}", place))
    if problems:
        raise CircuitspecError(*problems)


def _longer(task: TokenizedTask, sources: TokenizedVariant, pairs: PairSet, family: str, number: int) -> str:
    """`: Bartholomew in IO is not as long as Mary`, of the first slot that differs in length."""
    base, source = pairs.bases[number], pairs.families[family][number]
    for slot in pairs.slots(number):
        name = occurrence(slot, 1)
        if name not in task.slot_tokens or name not in sources.slot_tokens or name not in source.spans:
            continue
        if len(task.slot_tokens[name][number]) != len(sources.slot_tokens[name][number]):
            old, new = base.slots[CLEAN][name], source.spans[name]
            return f": {source.text[slice(*new)]} in {slot} has not as many tokens as {base.texts[CLEAN][slice(*old)]}"
    return ""


def misplaced(task: TokenizedTask, variant: str, roles: Iterable[str]) -> tuple[tuple[str, int], ...]:
    """Positions that are at other tokens in this variant than in the clean prompts, each with the first such prompt."""
    own = task.of(variant).roles
    found = []
    for role in sorted(roles):
        differ = [i for i, at in enumerate(task.roles[role]) if role not in own or own[role][i] != at]
        if differ:
            found.append((role, differ[0]))
    return tuple(found)
