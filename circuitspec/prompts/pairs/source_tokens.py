"""Which tokens of a pair's source correspond to those of its base, where the two are not alike. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from circuitspec.hypothesis_file.schema.position_blocks import Position
from circuitspec.prompts.prompt_set import CLEAN, Prompt, PromptSet, TokenizedTask, TokenizedVariant
from circuitspec.prompts.task_findings import counted
from circuitspec.prompts.tokens.tokenize import tokenize

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SOURCE = "source"


def with_counterparts(
    task: TokenizedTask,
    sources: Sequence[Prompt],
    found: TokenizedVariant,
    positions: Mapping[str, Position],
    tokenizer: PreTrainedTokenizerBase,
) -> TokenizedVariant:
    """The sources with the tokens that correspond to those of their bases.

    Where all sources are as long as their bases and have every position at the same token, tokens correspond one by
    one. Else, in the pairs that differ, every position corresponds with itself (of several tokens, where both have as
    many), and what else a template has in common: text between slots from its start, slots of equally many tokens.
    """
    bases = task.prompts.prompts
    differ = [i for i in range(task.n) if _differ(task, found, i)]
    if not differ:
        return found
    templated = [i for i in differ if bases[i].slots and sources[i].slots.get(CLEAN)]
    pieces = _by_template(task, [(bases[i], sources[i]) for i in templated], positions, tokenizer)
    of_template = dict(zip(templated, pieces, strict=True))
    pairs, unlike = [], dict[int, str]()
    for i, ids in enumerate(found.ids):
        if i not in differ:
            pairs.append(tuple((k, k) for k in range(len(ids))))
            continue
        more, why = of_template.get(i, ((), ""))
        pairs.append(tuple(sorted({*_named(task, found, i), *more})))
        unlike[i] = why or _said(task, found, i)
    return replace(found, pairs=tuple(pairs), unlike=unlike)


def _differ(task: TokenizedTask, found: TokenizedVariant, number: int) -> bool:
    return len(found.ids[number]) != len(task.ids[CLEAN][number]) or bool(_moved(task, found, number))


def _moved(task: TokenizedTask, found: TokenizedVariant, number: int) -> list[str]:
    """The positions that are at other tokens."""
    both = (role for role in task.roles if role in found.roles)
    return [role for role in both if found.tokens_at(role, number) != task.tokens_at(role, number)]


def _said(task: TokenizedTask, found: TokenizedVariant, number: int) -> str:
    base, source = len(task.ids[CLEAN][number]), len(found.ids[number])
    if base != source:
        return f"the base has {counted(base, 'token')}, the source {source}"
    return f"the position {_moved(task, found, number)[0]} is at another token"


def _named(task: TokenizedTask, found: TokenizedVariant, number: int) -> set[tuple[int, int]]:
    named = set()
    for role in task.roles:
        if role not in found.roles:
            continue
        here, there = task.tokens_at(role, number), found.tokens_at(role, number)
        if len(here) == len(there):
            named |= set(zip(here, there, strict=True))
    return named


def _by_template(
    task: TokenizedTask,
    both: Sequence[tuple[Prompt, Prompt]],
    positions: Mapping[str, Position],
    tokenizer: PreTrainedTokenizerBase,
) -> list[tuple[tuple[tuple[int, int], ...], str]]:
    """Of each base and source what corresponds by the pieces of their template, and what does not, in words."""
    if not both:
        return []
    prompts = tuple(
        Prompt(
            i,
            base.template,
            {CLEAN: base.texts[CLEAN], _SOURCE: source.texts[CLEAN]},
            (),
            (),
            {CLEAN: base.slots[CLEAN], _SOURCE: source.slots[CLEAN]},
            where=base.where,
        )
        for i, (base, source) in enumerate(both)
    )
    whole = PromptSet(prompts, (_SOURCE,), task.prompts.templates, framing=task.prompts.framing)
    own = tokenize(whole, positions, tokenizer, unequal=True).of(_SOURCE)
    if own.pairs is None:  # only positions of a file or of the hypothesis are elsewhere
        return [((), "")] * len(both)
    return [(own.pairs[i], own.unlike.get(i, "")) for i in range(len(both))]
