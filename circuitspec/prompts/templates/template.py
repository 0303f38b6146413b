"""Texts with `{SLOT}` and `{SLOT.column}` in them: parsed once, filled in many times. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from circuitspec.hypothesis_file.grammar.fields import template_fields

Row: TypeAlias = str | Mapping[str, str]  # a list's entry, or a table's row


@dataclass(frozen=True)
class Shown:
    """A table's row of which one column is what the slot says; the others can be read by their names."""

    row: Mapping[str, str]
    column: str


Value: TypeAlias = Row | Shown
Values: TypeAlias = Mapping[str, Value]
CharSpans: TypeAlias = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Field:
    """A reference to a slot, or to one column of a slot that holds a table's row."""

    slot: str
    column: str | None = None

    def __str__(self) -> str:
        return self.slot if self.column is None else f"{self.slot}.{self.column}"

    def read(self, values: Values) -> str:
        """The text it stands for. Raises TypeError when a column is missing or superfluous."""
        value = values[self.slot]
        if isinstance(value, Shown):
            return value.row[self.column or value.column]
        if isinstance(value, str):
            if self.column is not None:
                raise TypeError(f"{self.slot} is text without columns")
            return value
        if self.column is None:
            raise TypeError(f"{self.slot} is a table's row")
        return value[self.column]


@dataclass(frozen=True)
class Template:
    """Literal text and fields, in order."""

    pieces: tuple[str | Field, ...]

    @property
    def fields(self) -> tuple[Field, ...]:
        return tuple(piece for piece in self.pieces if isinstance(piece, Field))

    def render(self, values: Values) -> str:
        return self.render_with_spans(values)[0]

    def render_with_spans(self, values: Values) -> tuple[str, CharSpans]:
        """The text and the characters of every slot in it.

        The n-th occurrence of a slot, whatever its column, is called `S` for n = 1, otherwise `S#n`.
        """
        text = ""
        seen: dict[str, int] = {}
        spans: CharSpans = {}
        for piece in self.pieces:
            filled = piece if isinstance(piece, str) else piece.read(values)
            if isinstance(piece, Field):
                count = seen[piece.slot] = seen.get(piece.slot, 0) + 1
                spans[occurrence(piece.slot, count)] = (len(text), len(text) + len(filled))
            text += filled
        return text, spans


def row_of(value: Value) -> Row:
    """The list's entry, or the table's whole row, that a slot holds."""
    return value.row if isinstance(value, Shown) else value


def showing(row: Row, column: str | None) -> Value:
    """The row with what a slot says of it. Raises TypeError for a column of an entry that has none."""
    if column is None:
        return row
    if isinstance(row, str):
        raise TypeError(f"{row!r} is text without columns")
    return Shown(row, column)


def occurrence(slot: str, number: int) -> str:
    """The name of a slot's n-th occurrence, counted from 1."""
    return slot if number == 1 else f"{slot}#{number}"


def slot_of(role: str) -> str:
    """The slot that an occurrence belongs to: `S#2` is one of `S`."""
    return role.partition("#")[0]


def parse_field(text: str) -> Field:
    """`SLOT` or `SLOT.column`."""
    slot, _, column = text.partition(".")
    return Field(slot, column or None)


def parse_template(text: str) -> Template:
    """A template as written in the file. Raises NameSyntaxError."""
    pieces: list[str | Field] = []
    end = 0
    for field in template_fields(text):
        pieces += [_literal(text[end : field.offset]), Field(field.slot, field.column)]
        end = field.offset + field.length
    pieces.append(_literal(text[end:]))
    return Template(tuple(piece for piece in pieces if piece))


def _literal(text: str) -> str:
    return text.replace("{{", "{").replace("}}", "}")
