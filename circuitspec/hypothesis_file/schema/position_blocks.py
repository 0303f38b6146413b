"""What may stand under `task.positions`: an expression, a token index or several, all tokens of a slot or of a text."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, Tag

from circuitspec.hypothesis_file.grammar import texts
from circuitspec.hypothesis_file.grammar.positions import parse_position
from circuitspec.hypothesis_file.schema.block import Block, Count, Text, form_of, one_form_of

Tokens: TypeAlias = Literal["last", "all"]


class SlotPosition(Block):
    """The tokens of a slot."""

    slot: texts.OccurrenceText = Field(examples=["S", "S#2"], description="The slot, or one occurrence of it (S#2).")
    tokens: Tokens = Field(default="last", description="Its last token, or all of its tokens.")


class NamedText(Block):
    """The tokens of a text that stands in every clean prompt."""

    text: Text = Field(examples=["gave"], description="Words of the prompt, without the space before them.")
    nth: Count = Field(default=1, description="Which occurrence, counted from 1, left to right.")
    tokens: Tokens = Field(default="last", description="Its last token, or all of its tokens.")


def _position_form(value: object) -> str | None:
    if isinstance(value, SlotPosition) or (isinstance(value, dict) and "slot" in value):
        return "<slot>"
    return form_of(value)


Position: TypeAlias = Annotated[
    Annotated[texts.PositionText, Tag("<text>")]
    | Annotated[texts.TokenIndex, Tag("<index>")]
    | Annotated[tuple[texts.TokenIndex, ...], Tag("<list>"), Field(min_length=1)]
    | Annotated[SlotPosition, Tag("<slot>")]
    | Annotated[NamedText, Tag("<mapping>")],
    one_form_of(
        _position_form,
        "a position such as S1 + 1 or last, a token index, a list of them, {slot: S1} or {text: gave}",
    ),
]


def anchor_of_position(position: str | int | tuple[int, ...] | SlotPosition | NamedText) -> str | None:
    """The slot (without the number of its occurrence) that a position is told by, if any."""
    match position:
        case str() | int():
            return parse_position(position).slot
        case SlotPosition():
            return parse_position(position.slot).slot
        case _:
            return None
