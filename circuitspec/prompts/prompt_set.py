"""Text-level prompts: clean, corruptions, answers, and where each slot stands. Imports no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import rfc8785

from circuitspec.hypothesis_file.schema.chat_block import Chat

if TYPE_CHECKING:
    from circuitspec.diagnostics.diagnostic import Span

CLEAN = "clean"
SHOWN = 6  # answers given as token ids, in a report's line


@dataclass(frozen=True)
class TextPlace:
    """The last token, or all tokens, of occurrence number `nth` (counted from 1) of a text in the clean prompt."""

    text: str
    nth: int = 1
    tokens: Literal["last", "all"] = "last"


Place: TypeAlias = int | tuple[int, ...] | TextPlace
"""Where a prompts file says that a position is: a token index, several, or a text."""

GivenAnswer: TypeAlias = str | int
"""A right or wrong answer: a text, or the number of a token of the model's vocabulary."""


@dataclass(frozen=True)
class Prompt:
    """One clean prompt with its corrupted twins.

    `slots[variant][slot]` is the character span of a slot in that variant's text, where variant is
    "clean" or a corruption; a slot's second occurrence is `S#2`. `positions` are those of a prompts file,
    otherwise empty: places by text, or indices that count the tokens of the clean text, without what the
    tokenizer puts in front of it (negative ones from the end). Answers are texts, or ids of tokens. A prompt may be
    given as token ids: then `ids` has those of every variant, and its texts are these ids as JSON until a tokenizer
    is at hand, and what they decode to from then on.
    """

    index: int
    template: int
    texts: Mapping[str, str]  # variant -> text; "clean" always present
    answers: tuple[GivenAnswer, ...]
    wrong: tuple[GivenAnswer, ...]
    slots: Mapping[str, Mapping[str, tuple[int, int]]] = field(default_factory=dict)
    positions: Mapping[str, Place] = field(default_factory=dict)
    where: str = ""  # for messages: "prompts.jsonl:12" or "templates[3]"
    span: Span | None = None  # where it was written, for diagnostics
    ids: Mapping[str, tuple[int, ...]] = field(
        default_factory=dict
    )  # variant -> token ids; empty where texts are given

    @property
    def content(self) -> dict[str, str | list[int]]:
        """What the model is given in each variant: texts, or token ids as they are."""
        return {
            variant: list(self.ids[variant]) if variant in self.ids else text for variant, text in self.texts.items()
        }

    @property
    def identity(self) -> str | tuple[int, ...]:
        """What tells prompts apart: the clean text, or the clean prompt's token ids."""
        return self.ids.get(CLEAN, self.texts[CLEAN])

    def described(self) -> str:
        """How messages name this prompt: `prompt 17 (templates[3])`."""
        return f"prompt {self.index} ({self.where})" if self.where else f"prompt {self.index}"


@dataclass(frozen=True)
class PromptsFile:
    """The file that prompts were read from, and how many it holds: as many as were asked for, or more."""

    name: str
    holds: int


@dataclass(frozen=True)
class Framing:
    """What is put around texts: special tokens, and a chat template."""

    special_tokens: Literal["auto", "none", "bos"] = "auto"
    chat: Chat | None = None

    @property
    def plain(self) -> dict[str, object]:
        """What is said of it, as the hypothesis writes it; empty where nothing is."""
        said: dict[str, object] = {} if self.special_tokens == "auto" else {"special_tokens": self.special_tokens}
        return said if self.chat is None else {**said, "chat": self.chat.model_dump(mode="json")}


@dataclass(frozen=True)
class ChatFrame:
    """What a chat template put around every prompt: the texts, and (at least, at most) how many tokens these are."""

    before: str
    behind: str
    tokens_before: int
    tokens_behind: int


@dataclass(frozen=True)
class AroundPrompts:
    """What stands around the clean prompts as the model takes them.

    `in_front` is the fewest and the most special tokens that were put in front of a prompt, `bos_twice` the number of
    prompts that begin with two BOS tokens. `answers` are the ids of answers and wrong answers that were given as such,
    with what each decodes to.
    """

    special_tokens: Literal["auto", "none", "bos"] = "auto"
    in_front: tuple[int, int] = (0, 0)
    given_ids: bool = False
    bos_twice: int = 0
    chat: ChatFrame | None = None
    answers: tuple[tuple[int, str], ...] = ()

    @property
    def told(self) -> bool:
        """Whether there is anything to say: not of texts around which the tokenizer, left to itself, puts nothing."""
        return self != AroundPrompts()

    @property
    def described(self) -> str:
        """In words, for reports."""
        return "; ".join(filter(None, (self._frame(), self._answers())))

    def _frame(self) -> str:
        if self.given_ids:
            return "token ids as they are given, no special token put in front"
        fewest, most = self.in_front
        count = "no" if most == 0 else str(most) if fewest == most else f"{fewest} to {most}"
        said = f"{count} special token{'' if most == 1 else 's'} put in front (special_tokens: {self.special_tokens})"
        if self.chat is None:
            return said
        return (
            f"the tokenizer's chat template, {self.chat.tokens_before} tokens before the prompt and "
            f"{self.chat.tokens_behind} behind it; {said}"
        )

    def _answers(self) -> str:
        if not self.answers:
            return ""
        shown = ", ".join(f"{one} is {text!r}" for one, text in self.answers[:SHOWN])
        more = f" and {len(self.answers) - SHOWN} more" if len(self.answers) > SHOWN else ""
        return f"answers given as token ids: {shown}{more}"


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
    framing: Framing = field(default_factory=Framing)


PlainPlace: TypeAlias = int | list[int] | dict[str, str | int]


def plain_positions(prompt: Prompt) -> dict[str, PlainPlace]:
    """The positions of a prompt as a prompts file writes them."""
    return {name: _plain_place(place) for name, place in prompt.positions.items()}


def _plain_place(place: Place) -> PlainPlace:
    match place:
        case int():
            return place
        case tuple():
            return list(place)
    last: dict[str, str | int] = {"text": place.text, "nth": place.nth}
    return last if place.tokens == "last" else {**last, "tokens": place.tokens}


def prompts_digest(prompt_set: PromptSet) -> str:
    """SHA-256 of what the prompts say: texts, answers, positions and template numbers, in their order; and of what is
    to be put around them, where the file says so.

    Where they come from (file names, lines, the templates' labels) does not count.
    """
    content: Any = {
        "prompts": [
            {
                "texts": prompt.content,
                "answers": list(prompt.answers),
                "wrong": list(prompt.wrong),
                "positions": plain_positions(prompt),
                "template": prompt.template,
            }
            for prompt in prompt_set.prompts
        ],
        "text_positions": prompt_set.text_positions,
        **prompt_set.framing.plain,
    }
    return hashlib.sha256(rfc8785.dumps(content)).hexdigest()


@dataclass(frozen=True)
class TokenizedVariant:
    """One set of a task's prompts as the model takes them: the clean ones, a corruption's, or any other.

    `ids[i]` are the tokens of prompt i. `roles[name][i]` is the token index of position `name` in it, counted from the
    first token of the unpadded prompt. `answers[i]`, `wrong[i]` are token ids, of answers read at the last token.
    `slot_tokens[slot][i]` are all tokens that a slot fills, wherever it occurs; of a second occurrence, `S#2`, its own.
    `spans[name][i]` are all tokens of a position that is several, in order; `roles` has the last of them.
    """

    ids: tuple[tuple[int, ...], ...]
    answers: tuple[tuple[int, ...], ...]
    wrong: tuple[tuple[int, ...], ...]
    roles: Mapping[str, tuple[int, ...]]
    slot_tokens: Mapping[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    spans: Mapping[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)

    def tokens_at(self, role: str, prompt: int) -> tuple[int, ...]:
        """The tokens of a position: one, but for spans."""
        return self.spans[role][prompt] if role in self.spans else (self.roles[role][prompt],)


@dataclass(frozen=True)
class TokenizedTask:
    """The prompts of a task in all their variants: `of(variant)` are those of one.

    A corruption is aligned with the clean prompts token by token, and has their answers and positions: `roles`,
    `answers`, `wrong`, `slot_tokens` and `spans` are those of the clean prompts and of all that is aligned with them.
    What is not has its `own`. `partial_roles` names the slots that some templates do not have (and those templates'
    numbers): they are no roles, since a role has a place in every prompt.
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
    spans: Mapping[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    decoded: Mapping[int, str] = field(default_factory=dict)  # what answers that were given as token ids stand for
    around: AroundPrompts = field(default_factory=AroundPrompts)

    def of(self, variant: str) -> TokenizedVariant:
        """The tokens, answers and positions of one variant of the prompts."""
        if variant in self.own:
            return self.own[variant]
        return TokenizedVariant(self.ids[variant], self.answers, self.wrong, self.roles, self.slot_tokens, self.spans)

    def tokens_at(self, role: str, prompt: int) -> tuple[int, ...]:
        """The tokens of a position of a clean prompt: one, but for spans."""
        return self.spans[role][prompt] if role in self.spans else (self.roles[role][prompt],)

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
