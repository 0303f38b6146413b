"""Text-level prompts: clean, corruptions, answers, and where each slot stands. Imports no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import rfc8785

from circuitspec.hypothesis_file.schema.chat_block import Chat

if TYPE_CHECKING:
    from circuitspec.diagnostics.diagnostic import Diagnostic, Span

CLEAN = "clean"
SHOWN = 6  # answers given as token ids, in a report's line

Score: TypeAlias = Literal["first_token", "sum_logprob"]
"""How answers of several tokens are scored: `task.score` of a file."""


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
    "clean" or a corruption; a slot's second occurrence is `S#2`. `fillings` are what the slots of a templated prompt
    hold, those included that its template does not show. `positions` are those of a prompts file,
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
    metadata: Mapping[str, str] = field(default_factory=dict)  # what other columns of a prompts file say of it
    ids: Mapping[str, tuple[int, ...]] = field(
        default_factory=dict
    )  # variant -> token ids; empty where texts are given
    fillings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # variant -> slot -> what it holds

    @property
    def values(self) -> Mapping[str, Any]:
        """What variables are computed from: what slots hold, or what other columns of a prompts file say."""
        return self.fillings[CLEAN] if self.fillings else self.metadata

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
class RowChoice:
    """Which rows of a prompts file became prompts.

    `rows[i]` is the number of the row (from 0) that prompt i was read from, `left_out` are rows without a prompt, each
    with why. `skip` says what else is left out once the prompts are tokens, and `wanted` how many prompts are then
    asked for (None: all); `settled` that this is done. Then `looked_at` rows were needed.
    """

    rows: tuple[int, ...]
    left_out: tuple[tuple[int, str], ...] = ()
    skip: tuple[str, ...] = ()
    wanted: int | None = None
    settled: bool = False
    looked_at: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """How many of the rows that were looked at are left out, by why."""
        found = [why for number, why in self.left_out if not self.settled or number < self.looked_at]
        return {why: found.count(why) for why in sorted(set(found))}


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
    layout: str = ""  # how its rows were read, in words; empty for the form of `circuitspec` itself
    by: tuple[str, ...] = ()  # the columns by whose values figures are broken down
    choice: RowChoice | None = None  # where rows may be left out
    framing: Framing = field(default_factory=Framing)
    score: Score | None = None  # None: every answer is one token
    beside: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # texts of further variants, by prompt

    def text_of(self, number: int, variant: str) -> str:
        """The text of prompt `number` in a variant."""
        return self.beside[variant][number] if variant in self.beside else self.prompts[number].texts[variant]

    def chosen(self, numbers: Sequence[int]) -> PromptSet:
        """Some of the prompts, numbered anew; templates that none of them has are left out."""
        used = list(dict.fromkeys(self.prompts[i].template for i in numbers))
        prompts = tuple(
            replace(self.prompts[i], index=index, template=used.index(self.prompts[i].template))
            for index, i in enumerate(numbers)
        )
        choice = self.choice
        if choice is not None:
            choice = replace(choice, rows=tuple(choice.rows[i] for i in numbers))
        beside = {name: tuple(texts[i] for i in numbers) for name, texts in self.beside.items()}
        templates = tuple(self.templates[t] for t in used)
        return replace(self, prompts=prompts, templates=templates, choice=choice, beside=beside)


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

    Where they come from (file names, lines, the templates' labels) does not count, nor how answers are scored.
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


TokenIds: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class AnswerSequences:
    """Answers of one or several tokens, scored by the summed log probability of their tokens (teacher forcing).

    `answers[i]` and `wrong[i]` are the token sequences of prompt i. What follows the prompt in a run is one of its
    `continuations`: an answer without its last token, at whose place nothing more is read. Every prompt has one
    at least; of answers of one token it is empty.
    """

    answers: tuple[tuple[TokenIds, ...], ...]
    wrong: tuple[tuple[TokenIds, ...], ...]

    @cached_property
    def continuations(self) -> tuple[tuple[TokenIds, ...], ...]:
        """The different ones of each prompt, in the order of its answers and then its wrong answers."""
        return tuple(
            tuple(dict.fromkeys(one[:-1] for one in (*answers, *wrong))) or ((),)
            for answers, wrong in zip(self.answers, self.wrong, strict=True)
        )


@dataclass(frozen=True)
class TokenizedVariant:
    """One set of a task's prompts as the model takes them: the clean ones, a corruption's, or any other.

    `ids[i]` are the tokens of prompt i. `roles[name][i]` is the token index of position `name` in it, counted from the
    first token of the unpadded prompt. `answers[i]`, `wrong[i]` are token ids, of answers read at the last token.
    `slot_tokens[slot][i]` are all tokens that a slot fills, wherever it occurs; of a second occurrence, `S#2`, its own.
    `spans[name][i]` are all tokens of a position that is several, in order; `roles` has the last of them.

    Where its prompts are not aligned with the clean ones token by token, `pairs[i]` are the tokens that correspond,
    (of the clean prompt, of this one), and `unlike` says of each prompt that has another layout which piece of it is.
    A token that is in several pairs has no counterpart that is known.
    """

    ids: tuple[tuple[int, ...], ...]
    answers: tuple[tuple[int, ...], ...]
    wrong: tuple[tuple[int, ...], ...]
    roles: Mapping[str, tuple[int, ...]]
    slot_tokens: Mapping[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    spans: Mapping[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    pairs: tuple[tuple[tuple[int, int], ...], ...] | None = None
    unlike: Mapping[int, str] = field(default_factory=dict)

    def tokens_at(self, role: str, prompt: int) -> tuple[int, ...]:
        """The tokens of a position: one, but for spans."""
        return self.spans[role][prompt] if role in self.spans else (self.roles[role][prompt],)


@dataclass(frozen=True)
class TokenizedTask:
    """The prompts of a task in all their variants: `of(variant)` are those of one.

    A corruption that is aligned with the clean prompts token by token has their answers and positions: `roles`,
    `answers`, `wrong`, `slot_tokens` and `spans` are those of the clean prompts and of all that is aligned with them.
    What is not has its `own`, and may have other lengths (`counterparts`). `partial_roles` names the slots that some
    templates do not have (and those templates' numbers): they are no roles, since a role has a place in every prompt.
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
    sequences: AnswerSequences | None = None  # of answers of several tokens; `answers` and `wrong` are then empty
    misfits: tuple[Diagnostic, ...] = ()  # what gives corruptions other lengths: said where that is in the way

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

        Raises ValueError unless each of them is as long as the clean prompt that it goes with, or it says which tokens
        correspond.
        """
        if prompts.pairs is None and tuple(len(ids) for ids in prompts.ids) != self.lengths:
            raise ValueError(f"the prompts of {name} are not as long as the clean ones")
        return replace(self, ids={**self.ids, name: prompts.ids}, own={**self.own, name: prompts})

    def counterparts(self, base: str, source: str) -> tuple[tuple[int, ...], ...] | None:
        """For every token of each of `base`'s prompts the token of `source`'s that corresponds to it, -1 for none.

        None where they correspond one by one, all of them.
        """
        if self.corresponds(base, source):
            return None
        return tuple(self.counterparts_of(base, source, prompt) for prompt in range(self.n))

    def corresponds(self, base: str, source: str) -> bool:
        """Whether the tokens of two variants correspond one by one, all of them."""
        return base == source or all(v not in self.own or self.own[v].pairs is None for v in (base, source))

    def counterparts_of(self, base: str, source: str, prompt: int) -> tuple[int, ...]:
        """The same for one prompt."""
        there, here = self._pairs(source, prompt), self._pairs(base, prompt)
        of_clean: dict[int, set[int]] = {}
        for clean, token in there:
            of_clean.setdefault(clean, set()).add(token)
        own: dict[int, set[int]] = {}
        for clean, token in here:
            own.setdefault(token, set()).update(of_clean.get(clean, ()))
        found = (own.get(token, set()) for token in range(len(self.ids[base][prompt])))
        return tuple(next(iter(its)) if len(its) == 1 else -1 for its in found)

    def _pairs(self, variant: str, prompt: int) -> tuple[tuple[int, int], ...]:
        own = self.own.get(variant)
        if own is None or own.pairs is None:
            return tuple((token, token) for token in range(len(self.ids[CLEAN][prompt])))
        return own.pairs[prompt]

    @property
    def averaged(self) -> TokenizedTask:
        """The prompts that means are over: the reference, or these prompts themselves."""
        return self if self.reference is None else self.reference

    @property
    def n(self) -> int:
        """The number of prompts."""
        return len(self.prompts.prompts)

    @property
    def continuations(self) -> tuple[tuple[TokenIds, ...], ...] | None:
        """What follows each prompt in a run, one row for each; None where nothing follows any."""
        if self.sequences is None or not any(one for own in self.sequences.continuations for one in own):
            return None
        return self.sequences.continuations

    @property
    def row_lengths(self) -> tuple[int, ...]:
        """Tokens of each prompt's longest row in a run on any variant: the prompt and what follows it."""
        after = [max(map(len, own)) for own in self.continuations or (((),),) * self.n]
        return tuple(max(len(ids[i]) for ids in self.ids.values()) + more for i, more in enumerate(after))

    @property
    def longest(self) -> int:
        """Tokens of the longest row of a run on any variant."""
        return max(self.row_lengths)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens per clean prompt; of a variant whose prompts are aligned with the clean ones, too."""
        return tuple(len(ids) for ids in self.ids[CLEAN])
