"""Expressions for token positions: `S1 + 1`, `S#2`, `last - 1`, or a token index."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from circuitspec.hypothesis_file.grammar.names import IDENTIFIER, NameSyntaxError

_EXPRESSION = re.compile(rf"({IDENTIFIER})(?:#([1-9][0-9]{{0,3}}))?(?:\s*([+-])\s*([0-9]{{1,5}}))?")
_HINT = "write a slot (its last token), S#2 (its second occurrence), S1 + 1, last, last - 1, or a token index such as 3"
MAX_INDEX = 99_999

Edge: TypeAlias = Literal["start", "last"]
EDGES = ("start", "last")


@dataclass(frozen=True)
class PositionExpr:
    """`offset` tokens after the anchor.

    The anchor is `start` (the first token that the model sees), `last` (its last) or a slot, of which the last token of
    occurrence number `occurrence` (counted from 1) is meant. A token index is `indexed`: it counts from the first
    token of the prompt's own text, after whatever the tokenizer puts in front of it.
    """

    anchor: str
    occurrence: int = 1
    offset: int = 0
    indexed: bool = False

    @property
    def slot(self) -> str | None:
        """The slot it starts from, if any."""
        return None if self.anchor in EDGES else self.anchor


def parse_position(value: str | int) -> PositionExpr:
    """The expression that a value of `positions:` spells.

    An index from 0 counts from the first token of the text, a negative one from the end (-1 is the last token).
    Raises NameSyntaxError.
    """
    if isinstance(value, int):
        if abs(value) > MAX_INDEX:
            raise NameSyntaxError(f"{value} is not a token index", 0, len(str(value)), _HINT)
        return (
            PositionExpr("start", offset=value, indexed=True) if value >= 0 else PositionExpr("last", offset=value + 1)
        )
    text = value.strip()
    match = _EXPRESSION.fullmatch(text)
    if match is None:
        raise NameSyntaxError(f"{text!r} is not a position", 0, len(value), _HINT)
    anchor, occurrence, sign, distance = match.groups()
    offset = 0 if distance is None else int(sign + distance)
    if anchor in EDGES and occurrence is not None:
        raise NameSyntaxError(f"there is only one {anchor}", 0, len(value), f"write {anchor}")
    if (anchor == "start" and offset < 0) or (anchor == "last" and offset > 0):
        raise NameSyntaxError(f"{text} lies outside the prompt", 0, len(value), _HINT)
    return PositionExpr(anchor, int(occurrence or 1), offset)


def format_position(position: PositionExpr) -> str:
    """The canonical spelling: `S#2 + 1`; of a token index, the index."""
    if position.indexed:
        return str(position.offset)
    base = position.anchor if position.occurrence == 1 else f"{position.anchor}#{position.occurrence}"
    if position.offset == 0:
        return base
    return f"{base} {'+' if position.offset > 0 else '-'} {abs(position.offset)}"
