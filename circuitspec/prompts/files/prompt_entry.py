"""One prompt as a file gives it, and how such entries become a prompt set. Imports no torch."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from circuitspec.prompts.files.given_rows import GivenRow
from circuitspec.prompts.prompt_set import CLEAN, Place, Prompt, PromptSet, TextPlace
from circuitspec.prompts.task_findings import TaskFindings, meant
from circuitspec.prompts.templates.answer_rules import distinct

CORRUPT = "corrupt"  # the name of the one corruption of a file that does not name it

_BLANK, _HALF, _FORM = "blank", "half", "form"  # what can be wrong with the value of a key


def _not_blank(spaces: str | None) -> AfterValidator:
    def check(text: str) -> str:
        if _half_character(text):
            raise PydanticCustomError(_HALF, "half a character")
        if not text.strip(spaces):
            raise PydanticCustomError(_BLANK, "blank")
        return text

    return AfterValidator(check)


Text: TypeAlias = Annotated[str, Field(min_length=1)]
PromptText: TypeAlias = Annotated[str, _not_blank(None)]
AnswerText: TypeAlias = Annotated[str, _not_blank(" \t")]  # a line break is a token that a model may well predict
TokenId: TypeAlias = Annotated[int, Field(ge=0, le=10**9)]
TokenIds: TypeAlias = Annotated[list[TokenId], Field(min_length=1)]
TokenIndex: TypeAlias = Annotated[int, Field(ge=-(10**9), le=10**9)]


class TextPosition(BaseModel):
    """A position by text."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    text: PromptText
    nth: Annotated[int, Field(ge=1, le=10**9)] = 1
    tokens: Literal["last", "all"] = "last"


class Entry(BaseModel):
    """A line of a JSONL file; other formats are brought into this form. Answers are texts, or ids of tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    clean: PromptText | TokenIds
    corrupt: PromptText | TokenIds | dict[Text, PromptText | TokenIds] | None = None
    answers: list[AnswerText | TokenId] = []
    wrong: list[AnswerText | TokenId] = []
    positions: dict[Text, TokenIndex | Annotated[list[TokenIndex], Field(min_length=1)] | TextPosition] = {}
    template: Text | int | None = None

    @property
    def corruptions(self) -> Mapping[str, str | list[int]]:
        """name -> text, or token ids"""
        if self.corrupt is None:
            return {}
        return self.corrupt if isinstance(self.corrupt, dict) else {CORRUPT: self.corrupt}

    @property
    def variants(self) -> Mapping[str, str | list[int]]:
        """The clean prompt and its corruptions by name: texts, or token ids."""
        return {CLEAN: self.clean, **self.corruptions}


class AutoCircuitEntry(BaseModel):
    """A prompt of an auto-circuit file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    clean: PromptText | TokenIds
    corrupt: PromptText | TokenIds
    answers: list[AnswerText | TokenId] = []
    wrong_answers: list[AnswerText | TokenId] = []


@dataclass(frozen=True)
class Placed:
    """An entry, the row that it was read from, and what other columns say there."""

    entry: Entry
    row: GivenRow
    metadata: Mapping[str, str] = field(default_factory=dict)


# key -> what it must be, and how that is written
_FORMS: Mapping[str, tuple[str, str]] = {
    "clean": ("a text, or a list of token ids", '"clean": "..."'),
    "corrupt": ("a text, or an object of texts by corruption", '"corrupt": {"flip": "..."}'),
    "answers": ("a list of texts", '"answers": [" Mary"]'),
    "wrong": ("a list of texts", '"wrong": [" John"]'),
    "wrong_answers": ("a list of texts", '"wrong_answers": [" John"]'),
    "positions": (
        "an object of token indices, or of texts, by position",
        '"positions": {"S1": 4, "S2": {"text": "John", "nth": 2}}',
    ),
    "word_idxs": ("an object of token indices by position", '"word_idxs": {"S1": 4}'),
    "seq_labels": ("a list of texts", ""),
    "template": ("a text or a number", '"template": "ABBA"'),
}
USUAL_NAMES = {
    "wrong_answers": "wrong",
    "answer": "answers",
    "text": "clean",
    "prompt": "clean",
    "corrupted": "corrupt",
}


def validate(model: type[BaseModel], content: object, row: GivenRow, findings: TaskFindings) -> BaseModel | None:
    """`content` as `model`; None when it is not, with one finding (CS338) per wrong key."""
    if not isinstance(content, Mapping):
        hint = 'write {"clean": "...", ...}'
        row.note(findings, "CS338", "a prompt is not an object of keys and values", hint=hint)
        return None
    try:
        return model.model_validate(content)
    except ValidationError as error:
        kinds: dict[str, set[str]] = {}
        for one in error.errors():
            kinds.setdefault(str(one["loc"][0]), set()).add(_kind(one["type"], within=len(one["loc"]) > 1))
        for key, found in kinds.items():
            # a union tells what is wrong with each of its forms: the first of these says most
            kind = next(kind for kind in ("missing", "extra_forbidden", _HALF, _BLANK, _FORM) if kind in found)
            _note(model, key, kind, content.get(key), row, findings)
        return None


def _kind(error_type: str, *, within: bool) -> str:
    """What is wrong with a key's value, or with something `within` it."""
    own = {
        "missing": _FORM if within else "missing",
        "extra_forbidden": _FORM if within else "extra_forbidden",
        "string_unicode": _HALF,
        _HALF: _HALF,
        _BLANK: _BLANK,
    }
    return own.get(error_type, _FORM)


def _half_character(value: object) -> str:
    """The first lone surrogate in `value`, as JSON escapes it; empty if there is none."""
    if isinstance(value, str):
        return next((f"\\u{ord(one):04x}" for one in value if "\ud800" <= one <= "\udfff"), "")
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    return next(filter(None, map(_half_character, value)), "") if isinstance(value, list) else ""


def _note(model: type[BaseModel], key: str, kind: str, value: object, row: GivenRow, findings: TaskFindings) -> None:
    keys = list(model.model_fields)
    form, example = _FORMS.get(key, ("", ""))
    if kind == "missing":
        said, hint = f"`{key}` is missing", f"add `{key}`, {form}"
    elif kind == "extra_forbidden":
        usual = USUAL_NAMES.get(key)
        said, hint = f"there is no key `{key}`", f"did you mean {usual}?" if usual in keys else meant(key, keys)
    elif kind == _HALF:
        said = f"`{key}` holds half a character ({_half_character(value)})"
        hint = "write the character itself, or both halves of its escape, as in \\ud83d\\ude00"
    elif kind == _BLANK:
        whole = "is blank" if isinstance(value, str) else "holds a blank text"
        said, hint = f"`{key}` {whole}: nothing stands in it but spaces", "write a text"
    else:
        said, hint = f"`{key}` is not {form}", f"write {example}" if example else ""
    row.note(findings, "CS338", said, hint=hint)


def prompt_set(
    entries: Sequence[Placed],
    label: str,
    findings: TaskFindings,
    *,
    text_positions: bool = False,
    repeated: bool = False,
) -> PromptSet:
    """Prompts in the order of the file.

    Raises CircuitspecError: CS330, CS331, CS333, CS340 when an entry contradicts itself or the first one, CS351 when
    it repeats another, unless they may be `repeated`.
    """
    for placed, first in () if repeated else repeats(entries):
        _refuse_repeat(placed, first, findings)
    for placed in entries:
        for code, message, hint in contradictions(placed.entry):
            placed.row.note(findings, code, message, hint=hint)
        _check_alike(entries[0], placed, findings)
        _check_given_alike(entries[0], placed, findings)
    findings.check()
    labels = list(dict.fromkeys(label if p.entry.template is None else str(p.entry.template) for p in entries))
    prompts = tuple(
        Prompt(
            index=index,
            template=labels.index(label if placed.entry.template is None else str(placed.entry.template)),
            texts={name: _as_text(given) for name, given in placed.entry.variants.items()},
            answers=distinct(placed.entry.answers),
            wrong=distinct(placed.entry.wrong),
            positions={name: _place(said) for name, said in placed.entry.positions.items()},
            where=placed.row.where,
            span=placed.row.span,
            metadata=placed.metadata,
            ids={name: tuple(given) for name, given in placed.entry.variants.items() if isinstance(given, list)},
        )
        for index, placed in enumerate(entries)
    )
    return PromptSet(
        prompts,
        tuple(entries[0].entry.corruptions),
        tuple(labels),
        text_positions=text_positions,
    )


def _place(said: int | list[int] | TextPosition) -> Place:
    match said:
        case int():
            return said
        case list():
            return tuple(said)
    return TextPlace(said.text, said.nth, said.tokens)


def _as_text(given: str | list[int]) -> str:
    """The text, or token ids as JSON until there is a tokenizer to decode them."""
    return given if isinstance(given, str) else json.dumps(given)


def repeats(entries: Sequence[Placed]) -> Iterator[tuple[Placed, Placed]]:
    """Every prompt whose clean text an earlier one has, with that one: together they are one observation, not two."""
    first: dict[str, Placed] = {}
    for placed in entries:
        earlier = first.setdefault(_as_text(placed.entry.clean), placed)
        if earlier is not placed:
            yield placed, earlier


def _refuse_repeat(placed: Placed, first: Placed, findings: TaskFindings) -> None:
    own, other = placed.row, first.row
    where = other.place
    if own.span is not None and other.span is not None and not own.by_number and own.span.line == other.span.line:
        where = f"{where}, column {other.span.column}"
    findings.add(
        "CS351",
        f"the prompt on {own.place} has the same clean text as that on {where}",
        own.span,
        label=f"first on {where}",
        hint="remove one of them, or write `skip: [repeats]` in the task; several corruptions of one prompt belong in "
        "one `corrupt` mapping (in a .csv file, in columns corrupt:NAME)",
    )


def contradictions(entry: Entry) -> Iterator[tuple[str, str, str]]:
    """What an entry says against itself: code, message and hint."""
    both = {*entry.answers} & {*entry.wrong}
    if both:
        shown = ", ".join(sorted(map(repr, both)))
        yield "CS330", f"{shown} is both an answer and a wrong answer", "remove one of them"
    for name, text in entry.corruptions.items():
        if name == CLEAN:
            yield "CS333", f"a corruption cannot be called {CLEAN}", "give it another name"
        if text == entry.clean:
            hint = "a corrupted prompt must differ from the clean one"
            yield "CS331", f"the corruption {name} leaves the clean text as it is", hint


def unlike_most(entries: Sequence[Placed]) -> list[Placed]:
    """Those that have other corruptions or positions than most, or lack what most have (CS340 elsewhere)."""
    has = [
        (
            frozenset(placed.entry.corruptions),
            frozenset(placed.entry.positions),
            bool(placed.entry.answers),
            bool(placed.entry.wrong),
            placed.entry.template is None,
            tuple(isinstance(given, list) for given in placed.entry.variants.values()),
        )
        for placed in entries
    ]
    most = Counter(has).most_common(1)
    return [placed for placed, own in zip(entries, has, strict=True) if own != most[0][0]]


def _check_given_alike(first: Placed, placed: Placed, findings: TaskFindings) -> None:
    """CS340 for texts among token ids: special tokens are put around the one and not around the other."""
    by_ids = isinstance(first.entry.clean, list)
    if any(isinstance(given, list) != by_ids for given in placed.entry.variants.values()):
        placed.row.note(
            findings,
            "CS340",
            "some prompts are texts and others are token ids",
            hint="give all prompts and corruptions as texts, or all as lists of token ids",
        )


def _check_alike(first: Placed, placed: Placed, findings: TaskFindings) -> None:
    def names(what: str, one: Sequence[str], other: Sequence[str]) -> None:
        if set(one) != set(other):
            placed.row.note(
                findings,
                "CS340",
                f"this prompt has {what} {', '.join(other) or 'none'}; the first one has {', '.join(one) or 'none'}",
                hint=f"give every prompt the same {what}",
            )

    def presence(key: str, one: object, other: object) -> None:
        if bool(one) != bool(other):
            said = ("has", "has not") if other else ("has no", "has")
            placed.row.note(
                findings,
                "CS340",
                f"this prompt {said[0]} `{key}`; the first one {said[1]}",
                hint=f"give `{key}` in every prompt or in none",
            )

    names("corruptions", tuple(first.entry.corruptions), tuple(placed.entry.corruptions))
    names("positions", tuple(first.entry.positions), tuple(placed.entry.positions))
    presence("answers", first.entry.answers, placed.entry.answers)
    presence("wrong", first.entry.wrong, placed.entry.wrong)
    presence("template", first.entry.template is not None, placed.entry.template is not None)
