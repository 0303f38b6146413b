"""Token positions by name: slots, positions given by a prompts file, and declared expressions. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from circuitspec.diagnostics.diagnostic import Span
from circuitspec.hypothesis_file.grammar.positions import PositionExpr, format_position, parse_position
from circuitspec.hypothesis_file.schema.position_blocks import NamedText, Position, SlotPosition
from circuitspec.prompts.prompt_set import CLEAN, Prompt, PromptSet, TextPlace
from circuitspec.prompts.task_findings import Path, TaskFindings, counted, meant
from circuitspec.prompts.templates.template import occurrence, slot_of
from circuitspec.prompts.text_places import occurrences
from circuitspec.prompts.tokens.encoding import Encoded, token_strings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Roles:
    """`of[name][i]` is a token of prompt i; `partial` maps slots that not all templates have to those without.

    `tokens[slot][i]` are all tokens of prompt i that a slot fills, at every place where it occurs; those of a second
    occurrence, `S#2`, are its own. `spans[name][i]` are all tokens of a position that is several of them in some
    prompt; `of` has the last of these.
    """

    of: Mapping[str, tuple[int, ...]]
    partial: Mapping[str, tuple[int, ...]]
    tokens: Mapping[str, tuple[tuple[int, ...], ...]]
    spans: Mapping[str, tuple[tuple[int, ...], ...]]


def find_roles(
    prompts: PromptSet,
    encoded: Sequence[Encoded],
    declared: Mapping[str, Position],
    tokenizer: PreTrainedTokenizerBase,
    findings: TaskFindings,
) -> Roles:
    """Every position of every clean prompt; `encoded` are the clean prompts, in order.

    Notes CS344 (a slot has no last token of its own), CS345 (a position is unknown or out of range) and CS360 (a text
    that a position names does not stand in its prompt).
    """
    places: list[dict[str, int]] = []
    several: list[dict[str, tuple[int, ...]]] = []
    for prompt, tokens in zip(prompts.prompts, encoded, strict=True):
        in_file = _file_places(prompt, tokens, tokenizer, findings)
        several.append(in_file)
        own = _slot_places(prompt, tokens, tokenizer, findings)
        own.update({name: at[-1] for name, at in in_file.items()})
        places.append(own)
    names = dict.fromkeys(name for own in places for name in own)
    roles = {name: tuple(own[name] for own in places) for name in names if all(name in own for own in places)}
    spans = {name: tuple(own[name] for own in several) for name in roles if all(name in own for own in several)}
    for name, value in declared.items():
        found = _declared(name, value, prompts, encoded, places, tokenizer, findings)
        if found is None:
            continue
        last = tuple(at[-1] for at in found)
        if name in roles and spans.get(name, tuple((at,) for at in roles[name])) != found:
            what = format_position(parse_position(value)) if isinstance(value, str | int) else "what is written here"
            findings.add(
                "CS345",
                f"{name} is the name of a slot and stands for its last token, not for {what}",
                ("task", "positions", name),
                hint="give the position another name",
            )
        else:
            roles[name], spans[name] = last, found
    partial = {name: _templates_without(name, prompts, places) for name in names if name not in roles}
    return Roles(
        roles,
        {name: templates for name, templates in partial.items() if templates},
        _slot_tokens(prompts, encoded, roles),
        {name: found for name, found in spans.items() if any(len(at) > 1 for at in found)},
    )


def _declared(
    name: str,
    value: Position,
    prompts: PromptSet,
    encoded: Sequence[Encoded],
    places: Sequence[Mapping[str, int]],
    tokenizer: PreTrainedTokenizerBase,
    findings: TaskFindings,
) -> tuple[tuple[int, ...], ...] | None:
    """The tokens of a declared position in every prompt; None (and a finding) when some prompt has none."""
    at: Path = ("task", "positions", name)
    pairs = list(zip(prompts.prompts, encoded, strict=True))
    match value:
        case str() | int():
            found = _evaluate(name, parse_position(value), prompts, encoded, places, findings)
            return None if found is None else tuple((place,) for place in found)
        case SlotPosition():
            expression = parse_position(value.slot)
            found = _evaluate(name, expression, prompts, encoded, places, findings)
            if found is None or value.tokens == "last":
                return None if found is None else tuple((place,) for place in found)
            slot = occurrence(expression.anchor, expression.occurrence)
            if any(slot not in prompt.slots.get(CLEAN, {}) for prompt, _ in pairs):
                message = f"{name}: {slot} is a position of the prompts, and no slot of a template"
                findings.add("CS345", message, at, hint=f"write {slot}, or say all its tokens where the prompts do")
                return None
            return tuple(
                tuple(tokens.tokens_of(*prompt.slots[CLEAN][slot])) or (place,)
                for (prompt, tokens), place in zip(pairs, found, strict=True)
            )
        case NamedText():
            said = TextPlace(value.text, value.nth, value.tokens)
            return tuple(_text_place(name, said, prompt, tokens, tokenizer, findings, at) for prompt, tokens in pairs)
    return tuple(_indexed_places(name, value, prompt, tokens, findings, at) for prompt, tokens in pairs)


def _slot_tokens(
    prompts: PromptSet, encoded: Sequence[Encoded], roles: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[tuple[int, ...], ...]]:
    found: dict[str, tuple[tuple[int, ...], ...]] = {}
    for name, places in roles.items():
        if not all(name in prompt.slots.get(CLEAN, {}) for prompt in prompts.prompts):
            continue
        found[name] = tuple(
            _filled(name, prompt, tokens, place)
            for prompt, tokens, place in zip(prompts.prompts, encoded, places, strict=True)
        )
    return found


def _filled(name: str, prompt: Prompt, tokens: Encoded, place: int) -> tuple[int, ...]:
    """The tokens of a slot's occurrences (of `S#2`: of that one); one token where the file says another place."""
    spans = prompt.slots[CLEAN]
    own = tokens.tokens_of(*spans[name])
    if own.stop != place + 1:
        return (place,)
    every = [spans[other] for other in spans if other == name or ("#" not in name and slot_of(other) == name)]
    return tuple(sorted({token for start, end in every for token in tokens.tokens_of(start, end)}))


def _templates_without(name: str, prompts: PromptSet, places: Sequence[Mapping[str, int]]) -> tuple[int, ...]:
    lacking = {prompt.template for prompt, own in zip(prompts.prompts, places, strict=True) if name not in own}
    return tuple(sorted(lacking))


def _slot_places(
    prompt: Prompt, tokens: Encoded, tokenizer: PreTrainedTokenizerBase, findings: TaskFindings
) -> dict[str, int]:
    """The last token of every slot; of a slot without one, token 0 (and a finding)."""
    places = {}
    at: Path | Span = prompt.span or ("task", "templates", prompt.template)
    for role, (start, end) in prompt.slots.get(CLEAN, {}).items():
        found = tokens.tokens_of(start, end)
        places[role] = found.stop - 1 if found else 0
        if not found:
            findings.add(
                "CS344",
                f"the slot {role} of {prompt.described()} has no token of its own",
                at,
                label=f"it holds {tokens.text[start:end]!r}",
                hint="fill it with text that the tokenizer keeps",
            )
        elif (last := tokens.spans[found.stop - 1])[1] > end:
            both = token_strings(tokenizer, [tokens.ids[found.stop - 1]])
            findings.add(
                "CS344",
                f"the last token of the slot {role} of {prompt.described()} also holds the text after it",
                at,
                label=f"the token {both} holds {tokens.text[start:end]!r} and {tokens.text[end : last[1]]!r}",
                hint="put a space after the slot, or choose entries that the tokenizer keeps apart from what follows",
            )
    return places


def _file_places(
    prompt: Prompt, tokens: Encoded, tokenizer: PreTrainedTokenizerBase, findings: TaskFindings
) -> dict[str, tuple[int, ...]]:
    return {
        role: _text_place(role, said, prompt, tokens, tokenizer, findings, prompt.span)
        if isinstance(said, TextPlace)
        else _indexed_places(role, (said,) if isinstance(said, int) else said, prompt, tokens, findings, prompt.span)
        for role, said in prompt.positions.items()
    }


def _indexed_places(
    role: str, said: tuple[int, ...], prompt: Prompt, tokens: Encoded, findings: TaskFindings, at: Path | Span | None
) -> tuple[int, ...]:
    """Indices count the tokens of the text; what the tokenizer puts in front of it has none. In order, each once."""
    own, places = len(tokens) - tokens.before, set()
    for one in said:
        place = one + (tokens.before if one >= 0 else len(tokens))
        if not tokens.before <= place < len(tokens):
            findings.add(
                "CS345",
                f"the position {role} of {prompt.described()} is token {one}, but the prompt has "
                f"{counted(own, 'token')}",
                at,
                hint=f"write an index from {-own} to {own - 1}" + _not_counted(tokens.before),
            )
        places.add(place)
    return tuple(sorted(places))


def _not_counted(before: int) -> str:
    """What a hint adds about tokens in front of the text."""
    return f" (without {counted(before, 'token')} that the tokenizer puts in front of the text)" if before else ""


def _text_place(
    role: str,
    said: TextPlace,
    prompt: Prompt,
    tokens: Encoded,
    tokenizer: PreTrainedTokenizerBase,
    findings: TaskFindings,
    at: Path | Span | None,
) -> tuple[int, ...]:
    """The last token (or all) of an occurrence of a text; token 0 (and a finding, CS360) where there is none."""
    first, end_of_text = tokens.own_text
    found = [one for one in occurrences(said.text, tokens.text) if first <= one[0] and one[1] <= end_of_text]
    if len(found) < said.nth:
        inside = said.text in tokens.text[first:end_of_text] and not found
        findings.add(
            "CS360",
            f"the position {role} of {prompt.described()} is occurrence {said.nth} of {said.text!r}, which the clean "
            f"text holds {counted(len(found), 'time')}",
            at,
            label="it is given as token ids" if prompt.ids else "only inside other words" if inside else "",
            hint="give the index of a token, or a list of them"
            if prompt.ids
            else 'write {"text": ..., "nth": ...} with a text of the prompt; nth counts from 1, left to right',
        )
        return (0,)
    start, end = found[said.nth - 1]
    touched = tokens.tokens_of(start, end)
    if not touched or tokens.spans[touched.stop - 1][1] > end:
        token = token_strings(tokenizer, [tokens.ids[touched.stop - 1]]) if touched else "none"
        findings.add(
            "CS360",
            f"the position {role} of {prompt.described()}: {said.text!r} does not end where a token ends",
            at,
            label=f"the token there is {token}",
            hint="name a text up to the end of a token",
        )
    if not touched:
        return (0,)
    return tuple(touched) if said.tokens == "all" else (touched.stop - 1,)


def _evaluate(
    name: str,
    expression: PositionExpr,
    prompts: PromptSet,
    encoded: Sequence[Encoded],
    places: Sequence[Mapping[str, int]],
    findings: TaskFindings,
) -> tuple[int, ...] | None:
    """The token in every prompt; None (and one finding) when some prompt has none."""
    at = ("task", "positions", name)
    anchor = None if expression.slot is None else occurrence(expression.slot, expression.occurrence)
    if anchor is not None:
        lacking = [prompt for prompt, own in zip(prompts.prompts, places, strict=True) if anchor not in own]
        if len(lacking) == len(places):
            known = dict.fromkeys(role for own in places for role in own)
            hint = meant(anchor, ["start", "last", *known])
            findings.add("CS345", f"{name}: there is no slot or position {anchor}", at, hint=hint)
            return None
        if lacking:
            message = f"{name}: {anchor} does not occur in {lacking[0].described()}"
            hint = "a position needs a place in every prompt: give every template this slot"
            findings.add("CS345", message, at, label=f"{len(lacking)} of {len(places)} prompts lack it", hint=hint)
            return None
    found = []
    outside: list[tuple[Prompt, Encoded]] = []
    for prompt, tokens, own in zip(prompts.prompts, encoded, places, strict=True):
        first = tokens.before if expression.indexed else 0
        base = own[anchor] if anchor is not None else first if expression.anchor == "start" else len(tokens) - 1
        found.append(base + expression.offset)
        if not 0 <= found[-1] < len(tokens):
            outside.append((prompt, tokens))
    if outside:
        prompt, tokens = outside[0]
        first = tokens.before if expression.indexed else 0
        place, length = found[prompt.index] - first, len(tokens) - first
        findings.add(
            "CS345",
            f"{name} = {format_position(expression)} lies outside {prompt.described()}: "
            f"it would be token {place}, and the prompt has tokens 0 to {length - 1}",
            at,
            label=f"outside {len(outside)} of {len(places)} prompts",
            hint="write a position inside every prompt, such as last" + _not_counted(first),
        )
        return None
    return tuple(found)
