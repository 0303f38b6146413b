"""Text-level prompts: clean, corruptions, answers, and where each slot stands. Imports no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import rfc8785

if TYPE_CHECKING:
    from circuitspec.diagnostics.diagnostic import Span

CLEAN = "clean"
Entry: TypeAlias = str | Mapping[str, str]
"""What a slot holds: an entry of a list, or a row of a table."""


@dataclass(frozen=True)
class TextPlace:
    """The last token of occurrence number `nth` (counted from 1) of a text in the clean prompt."""

    text: str
    nth: int = 1


@dataclass(frozen=True)
class Prompt:
    """One clean prompt with its corrupted twins.

    `slots[variant][slot]` is the character span of a slot in that variant's text, where variant is
    "clean" or a corruption; a slot's second occurrence is `S#2`. `fillings` are what the slots of a templated prompt
    hold, those included that its template does not show. `positions` are those of a prompts file,
    otherwise empty: places by text, or indices that count the tokens of the clean text, without what the
    tokenizer puts in front of it (negative ones from the end).
    """

    index: int
    template: int
    texts: Mapping[str, str]  # variant -> text; "clean" always present
    answers: tuple[str, ...]
    wrong: tuple[str, ...]
    slots: Mapping[str, Mapping[str, tuple[int, int]]] = field(default_factory=dict)
    positions: Mapping[str, int | TextPlace] = field(default_factory=dict)
    where: str = ""  # for messages: "prompts.jsonl:12" or "templates[3]"
    span: Span | None = None  # where it was written, for diagnostics
    fillings: Mapping[str, Mapping[str, Entry]] = field(default_factory=dict)  # variant -> slot -> entry of a list

    def described(self) -> str:
        """How messages name this prompt: `prompt 17 (templates[3])`."""
        return f"prompt {self.index} ({self.where})" if self.where else f"prompt {self.index}"


@dataclass(frozen=True)
class PromptsFile:
    """The file that prompts were read from, and how many it holds: as many as were asked for, or more."""

    name: str
    holds: int


@dataclass(frozen=True)
class PromptSet:
    """All prompts of a task; every prompt has the same corruptions.

    `text_positions` says that they come from an auto-circuit file. It counts in their digest alone (locks have it):
    token indices are read alike in every format.
    """

    prompts: tuple[Prompt, ...]
    corruptions: tuple[str, ...]
    templates: tuple[str, ...]  # a label per template number
    text_positions: bool = False
    lists: Mapping[str, str] = field(default_factory=dict)  # slot -> the list it is drawn from, for messages
    file: PromptsFile | None = None  # for messages, too
    beside: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # texts of further variants, by prompt

    def text_of(self, number: int, variant: str) -> str:
        """The text of prompt `number` in a variant."""
        return self.beside[variant][number] if variant in self.beside else self.prompts[number].texts[variant]


def plain_positions(prompt: Prompt) -> dict[str, int | dict[str, str | int]]:
    """The positions of a prompt as a prompts file writes them."""
    return {
        name: place if isinstance(place, int) else {"text": place.text, "nth": place.nth}
        for name, place in prompt.positions.items()
    }


def prompts_digest(prompt_set: PromptSet) -> str:
    """SHA-256 of what the prompts say: texts, answers, positions and template numbers, in their order.

    Where they come from (file names, lines, the templates' labels) does not count.
    """
    content: Any = {
        "prompts": [
            {
                "texts": dict(prompt.texts),
                "answers": list(prompt.answers),
                "wrong": list(prompt.wrong),
                "positions": plain_positions(prompt),
                "template": prompt.template,
            }
            for prompt in prompt_set.prompts
        ],
        "text_positions": prompt_set.text_positions,
    }
    return hashlib.sha256(rfc8785.dumps(content)).hexdigest()


@dataclass(frozen=True)
class TokenizedVariant:
    """One set of a task's prompts as the model takes them: the clean ones, a corruption's, or any other.

    `ids[i]` are the tokens of prompt i. `roles[name][i]` is the token index of position `name` in it, counted from the
    first token of the unpadded prompt. `answers[i]`, `wrong[i]` are token ids, of answers read at the last token.
    `slot_tokens[slot][i]` are all tokens that a slot fills, wherever it occurs; of a second occurrence, `S#2`, its own.
    """

    ids: tuple[tuple[int, ...], ...]
    answers: tuple[tuple[int, ...], ...]
    wrong: tuple[tuple[int, ...], ...]
    roles: Mapping[str, tuple[int, ...]]
    slot_tokens: Mapping[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class TokenizedTask:
    """The prompts of a task in all their variants: `of(variant)` are those of one.

    A corruption is aligned with the clean prompts token by token, and has their answers and positions: `roles`,
    `answers`, `wrong` and `slot_tokens` are those of the clean prompts and of all that is aligned with them. What is
    not has its `own`. `partial_roles` names the slots that some templates do not have (and those templates' numbers):
    they are no roles, since a role has a place in every prompt.
    """

    prompts: PromptSet
    ids: Mapping[str, tuple[tuple[int, ...], ...]]
    roles: Mapping[str, tuple[int, ...]]
    answers: tuple[tuple[int, ...], ...]
    wrong: tuple[tuple[int, ...], ...]
    partial_roles: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    slot_tokens: Mapping[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    reference: TokenizedTask | None = None  # other prompts, that means are over; None: these are
    own: Mapping[str, TokenizedVariant] = field(default_factory=dict)  # of variants that share not the clean ones'

    def of(self, variant: str) -> TokenizedVariant:
        """The tokens, answers and positions of one variant of the prompts."""
        if variant in self.own:
            return self.own[variant]
        return TokenizedVariant(self.ids[variant], self.answers, self.wrong, self.roles, self.slot_tokens)

    def with_variant(self, name: str, prompts: TokenizedVariant) -> TokenizedTask:
        """The task with one more set of prompts, which has answers and positions of its own.

        Raises ValueError unless each of them is as long as the clean prompt that it goes with.
        """
        if tuple(len(ids) for ids in prompts.ids) != self.lengths:
            raise ValueError(f"the prompts of {name} are not as long as the clean ones")
        return replace(self, ids={**self.ids, name: prompts.ids}, own={**self.own, name: prompts})

    @property
    def averaged(self) -> TokenizedTask:
        """The prompts that means are over: the reference, or these prompts themselves."""
        return self if self.reference is None else self.reference

    @property
    def n(self) -> int:
        """The number of prompts."""
        return len(self.prompts.prompts)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens per prompt, the same for every variant of it."""
        return tuple(len(ids) for ids in self.ids[CLEAN])
