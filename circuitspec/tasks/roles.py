"""Token positions by name: slots, positions given by a prompts file, and declared expressions. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from circuitspec.diagnostics import Span
from circuitspec.spec.positions import PositionExpr, format_position, parse_position
from circuitspec.tasks.encoding import Encoded, token_strings
from circuitspec.tasks.findings import Findings, Path, counted, meant
from circuitspec.tasks.prompts import CLEAN, Prompt, PromptSet
from circuitspec.tasks.templates import occurrence, slot_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Roles:
    """`of[name][i]` is a token of prompt i; `partial` maps slots that not all templates have to those without.

    `tokens[slot][i]` are all tokens of prompt i that a slot fills, at every place where it occurs; those of a second
    occurrence, `S#2`, are its own.
    """

    of: Mapping[str, tuple[int, ...]]
    partial: Mapping[str, tuple[int, ...]]
    tokens: Mapping[str, tuple[tuple[int, ...], ...]]


def find_roles(
    prompts: PromptSet,
    encoded: Sequence[Encoded],
    declared: Mapping[str, str | int],
    tokenizer: PreTrainedTokenizerBase,
    findings: Findings,
) -> Roles:
    """Every position of every clean prompt; `encoded` are the clean prompts, in order.

    Notes CS344 (a slot has no last token of its own) and CS345 (a position is unknown or out of range).
    """
    places: list[dict[str, int]] = []
    for prompt, tokens in zip(prompts.prompts, encoded, strict=True):
        own = _slot_places(prompt, tokens, tokenizer, findings)
        own.update(_file_places(prompt, tokens, prompts.text_positions, findings))
        places.append(own)
    names = dict.fromkeys(name for own in places for name in own)
    roles = {name: tuple(own[name] for own in places) for name in names if all(name in own for own in places)}
    for name, value in declared.items():
        expression = parse_position(value)
        found = _evaluate(name, expression, prompts, encoded, places, findings)
        if found is not None and roles.get(name, found) != found:
            findings.add(
                "CS345",
                f"{name} is the name of a slot and stands for its last token, not for {format_position(expression)}",
                ("task", "positions", name),
                hint="give the position another name",
            )
        elif found is not None:
            roles[name] = found
    partial = {name: _templates_without(name, prompts, places) for name in names if name not in roles}
    return Roles(
        roles,
        {name: templates for name, templates in partial.items() if templates},
        _slot_tokens(prompts, encoded, roles),
    )


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
    prompt: Prompt, tokens: Encoded, tokenizer: PreTrainedTokenizerBase, findings: Findings
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


def _file_places(prompt: Prompt, tokens: Encoded, text_positions: bool, findings: Findings) -> dict[str, int]:
    places = {}
    for role, said in prompt.positions.items():
        first = tokens.before if text_positions else 0
        place = said + (first if said >= 0 else len(tokens))
        if not 0 <= place < len(tokens):
            findings.add(
                "CS345",
                f"the position {role} of {prompt.described()} is token {said}, "
                f"but the prompt has {counted(len(tokens), 'token')}",
                prompt.span,
                hint=f"write an index from {-len(tokens)} to {len(tokens) - first - 1}",
            )
        places[role] = place
    return places


def _evaluate(
    name: str,
    expression: PositionExpr,
    prompts: PromptSet,
    encoded: Sequence[Encoded],
    places: Sequence[Mapping[str, int]],
    findings: Findings,
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
    outside: list[tuple[Prompt, int]] = []
    for prompt, tokens, own in zip(prompts.prompts, encoded, places, strict=True):
        base = own[anchor] if anchor is not None else 0 if expression.anchor == "start" else len(tokens) - 1
        found.append(base + expression.offset)
        if not 0 <= found[-1] < len(tokens):
            outside.append((prompt, len(tokens)))
    if outside:
        prompt, length = outside[0]
        place = found[prompt.index]
        findings.add(
            "CS345",
            f"{name} = {format_position(expression)} lies outside {prompt.described()}: "
            f"it would be token {place}, and the prompt has tokens 0 to {length - 1}",
            at,
            label=f"outside {len(outside)} of {len(places)} prompts",
            hint="write a position inside every prompt, such as last",
        )
        return None
    return tuple(found)
