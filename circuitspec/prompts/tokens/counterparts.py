"""Corruptions of other lengths than their clean prompts: which tokens correspond, and where positions are in each.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from circuitspec.hypothesis_file.schema.position_blocks import Position
from circuitspec.prompts.prompt_set import CLEAN, Place, Prompt, PromptSet, TextPlace, TokenizedVariant
from circuitspec.prompts.task_findings import TaskFindings, counted
from circuitspec.prompts.text_places import occurrences
from circuitspec.prompts.tokens.encoding import Encoded
from circuitspec.prompts.tokens.roles import Roles, find_roles

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class _Piece:
    """A slot, or the text between two slots, and the tokens of it."""

    name: str  # of a slot; empty for text between slots
    text: str
    tokens: range


def unaligned_variant(
    prompts: PromptSet,
    corruption: str,
    misaligned: Collection[int],
    encoded: Mapping[str, Encoded],
    declared: Mapping[str, Position],
    clean: Roles,
    tokenizer: PreTrainedTokenizerBase,
    findings: TaskFindings,
) -> TokenizedVariant:
    """The prompts of a corruption that are not aligned with the clean ones token by token, those `misaligned`.

    Positions are found in each of these anew. Tokens correspond where the pieces of a template do: text between slots
    from its start, as long as its tokens are the same; slots of equally many tokens token by token; and every position
    with itself. Of prompts from a file, which have no pieces, positions alone. Notes CS367 for a position that the
    corrupted text does not have.
    """
    anew = [
        _in_its_place(prompt, corruption, encoded, findings) if i in misaligned else prompt
        for i, prompt in enumerate(prompts.prompts)
    ]
    texts = [encoded[prompt.texts[CLEAN]] for prompt in anew]
    found = find_roles(replace(prompts, prompts=tuple(anew)), texts, declared, tokenizer, findings)
    roles = {name: places for name, places in found.of.items() if name in clean.of}
    spans = {name: places for name, places in found.spans.items() if name in clean.spans}
    n, unlike = len(anew), dict[int, str]()
    pairs: list[tuple[tuple[int, int], ...]] = []
    for i, prompt in enumerate(prompts.prompts):
        one, other = encoded[prompt.texts[CLEAN]], encoded[prompt.texts[corruption]]
        if i not in misaligned:
            pairs.append(tuple((k, k) for k in range(len(one))))
            continue
        named = {(clean.of[name][i], places[i]) for name, places in roles.items()}
        for name, places in spans.items():  # tokens of a position correspond where it has as many in both
            if len(clean.spans[name][i]) == len(places[i]):
                named |= set(zip(clean.spans[name][i], places[i], strict=True))
        of_pieces, unlike[i] = _piece_pairs(prompt, corruption, one, other)
        pairs.append(tuple(sorted(named | of_pieces)))
    ids = tuple(encoded[prompt.texts[corruption]].ids for prompt in prompts.prompts)
    none: tuple[tuple[int, ...], ...] = ((),) * n
    return TokenizedVariant(ids, none, none, roles, found.tokens, spans, tuple(pairs), unlike)


def _in_its_place(prompt: Prompt, corruption: str, encoded: Mapping[str, Encoded], findings: TaskFindings) -> Prompt:
    """The corrupted text as if it were the clean one, with those positions of a prompts file that it has too."""
    text = encoded[prompt.texts[corruption]].text
    kept: dict[str, Place] = {}
    for name, place in prompt.positions.items():
        if isinstance(place, TextPlace):
            has, said = len(list(occurrences(place.text, text))) >= place.nth, f"{place.text!r}"
        else:
            tokens = (place,) if isinstance(place, int) else place
            has = all(token < 0 for token in tokens)
            said = f"token {', '.join(map(str, tokens))}, counted in the clean text"
        if has:
            kept[name] = place
        else:
            findings.add(
                "CS367",
                f"the position {name} of {prompt.described()} is {said}: where it is in the corrupted text "
                f"{corruption} is not known, which has other tokens",
                prompt.span,
                hint="name a text that both have, count from the end (-1 is the last token), use texts of equally many "
                "tokens, or write `skip: [misaligned]`",
            )
            kept[name] = -1
    slots = prompt.slots.get(corruption, {})
    where = f"{prompt.where}, {corruption}" if prompt.where else corruption
    texts = {CLEAN: prompt.texts[corruption]}
    return replace(prompt, texts=texts, slots={CLEAN: slots}, positions=kept, where=where)


def _piece_pairs(prompt: Prompt, corruption: str, one: Encoded, other: Encoded) -> tuple[set[tuple[int, int]], str]:
    """The tokens that correspond by the template's pieces, and the first piece that has other tokens, in words."""
    pairs: set[tuple[int, int]] = set()
    if one.before == other.before:
        pairs |= {(k, k) for k in range(one.before)}
    ours, theirs = list(_pieces(prompt, CLEAN, one)), list(_pieces(prompt, corruption, other))
    if not ours or [piece.name for piece in ours] != [piece.name for piece in theirs]:
        return pairs, f"the clean text is {counted(len(one), 'token')}, the corrupted one {len(other)}"
    unlike = ""
    for mine, its in zip(ours, theirs, strict=True):
        both = list(zip(mine.tokens, its.tokens, strict=False))
        if len(mine.tokens) == len(its.tokens) and mine.name:
            pairs |= set(both)
            continue
        if mine.name:
            pairs |= {(mine.tokens[-1], its.tokens[-1])} if mine.tokens and its.tokens else set()
            unlike = unlike or (
                f"the slot {mine.name}: {mine.text!r} is {counted(len(mine.tokens), 'token')}, {its.text!r} is "
                f"{len(its.tokens)}"
            )
            continue
        for k, j in both:
            if one.ids[k] != other.ids[j]:
                break
            pairs.add((k, j))
        if [one.ids[k] for k in mine.tokens] != [other.ids[j] for j in its.tokens]:
            unlike = unlike or f"the text {mine.text!r}, which has other tokens in the corrupted prompt"
    return pairs, unlike


def _pieces(prompt: Prompt, variant: str, tokens: Encoded) -> Iterator[_Piece]:
    """The slots and the texts between them, from left to right; nothing where there are no slots or they overlap."""
    spans = sorted(prompt.slots.get(variant, {}).items(), key=lambda item: item[1])
    found: list[_Piece] = []
    at, done = tokens.before, 0
    for name, (start, end) in spans:
        own = tokens.tokens_since(start, end)
        if own.start < at:
            return
        found += [_Piece("", tokens.text[done:start], range(at, own.start)), _Piece(name, tokens.text[start:end], own)]
        at, done = own.stop, end
    if found:
        yield from [*found, _Piece("", tokens.text[done:], range(at, len(tokens)))]
