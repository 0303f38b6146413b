"""The right and wrong answers of a templated prompt, as texts. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TypeAlias, TypeVar

from circuitspec.prompts.templates.template import Field, Template, Value, Values

Said = TypeVar("Said", str, str | int)


@dataclass(frozen=True)
class Texts:
    """Each of these texts, its slots filled in."""

    templates: tuple[Template, ...]

    def read(self, values: Values) -> tuple[str, ...]:
        return distinct(template.render(values) for template in self.templates)


@dataclass(frozen=True)
class Numbers:
    """The entries of a list whose number lies above one slot's, or is at most another's (or both)."""

    entries: tuple[str, ...]
    above: Field | None
    at_most: Field | None

    def read(self, values: Values) -> tuple[str, ...]:
        """May be empty. Raises NotANumber."""
        low = None if self.above is None else number(self.above.read(values))
        high = None if self.at_most is None else number(self.at_most.read(values))
        return distinct(
            entry
            for entry in self.entries
            if (low is None or number(entry) > low) and (high is None or number(entry) <= high)
        )


@dataclass(frozen=True)
class OfCorruption:
    """What the prompt of a corruption asks for."""

    corruption: str


AnswerRule: TypeAlias = Texts | Numbers
WrongRule: TypeAlias = Texts | Numbers | OfCorruption


class NotANumber(ValueError):
    """An entry that a comparison of numbers met is none."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{text!r} is not a number")
        self.text = text


def number(text: str) -> Decimal:
    """The exact number that a text spells. Raises NotANumber."""
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        raise NotANumber(text) from None
    if not value.is_finite():
        raise NotANumber(text)
    return value


def entries_of(rows: Sequence[Value], column: str | None) -> tuple[str, ...]:
    """A list's entries, or one column of a table."""
    return distinct(Field("list", column).read({"list": row}) for row in rows)


def distinct(texts: Iterable[Said]) -> tuple[Said, ...]:
    """Without repeats, in order."""
    return tuple(dict.fromkeys(texts))
