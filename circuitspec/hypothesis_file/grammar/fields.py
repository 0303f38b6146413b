"""The small texts inside a task: `{SLOT}` in templates, `$list` and `=SLOT` in slots."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from circuitspec.hypothesis_file.grammar.names import IDENTIFIER, NameSyntaxError

_TOKEN = re.compile(r"\{\{|\}\}|\{[^{}]*\}|[{}]")
_FIELD = re.compile(rf"({IDENTIFIER})(?:\.([^.{{}}:!]+))?")
_LIST = re.compile(rf"\$({IDENTIFIER})(?:\.(.+))?")


@dataclass(frozen=True)
class TemplateField:
    """`{slot}` or `{slot.column}`, starting at character `offset` of the template, `length` characters long."""

    slot: str
    column: str | None
    offset: int
    length: int


@dataclass(frozen=True)
class Draw:
    """`$list`: one entry of a list; `$table.column`: a row of a table, of which `{SLOT}` shows that column."""

    list: str
    column: str | None = None


@dataclass(frozen=True)
class Copy:
    """`=SLOT`: what another slot holds; `=SLOT.column`: its row of a table, of which `{SLOT}` shows that column."""

    slot: str
    column: str | None = None


SlotRule: TypeAlias = Draw | Copy


def template_fields(text: str) -> tuple[TemplateField, ...]:
    """The fields of a template in order; `{{` and `}}` stand for braces.

    Raises NameSyntaxError.
    """
    fields = []
    for token in _TOKEN.finditer(text):
        said, offset = token[0], token.start()
        if said in ("{{", "}}"):
            continue
        if said in ("{", "}"):
            raise NameSyntaxError(
                f"this {said} has no partner",
                offset,
                1,
                "write {SLOT}; a brace of the text itself is doubled: {{ or }}",
            )
        field = _FIELD.fullmatch(said[1:-1])
        if field is None:
            raise NameSyntaxError(
                f"{said} does not name a slot",
                offset,
                len(said),
                "write {SLOT} or {SLOT.column}; braces of the text itself are doubled: {{ and }}",
            )
        fields.append(TemplateField(field[1], field[2], offset, len(said)))
    return tuple(fields)


def parse_slot_rule(text: str) -> SlotRule:
    """What a slot is filled with. Raises NameSyntaxError."""
    body = text.strip()
    named = _FIELD.fullmatch(body[1:].strip())
    if body[:1] in ("$", "=") and named is not None:
        return Draw(named[1], named[2]) if body[0] == "$" else Copy(named[1], named[2])
    raise NameSyntaxError(
        f"{text!r} says neither which list to draw from nor which slot to copy",
        0,
        len(text),
        "write $list to draw an entry or =SLOT to copy a slot; a constant is a list of one entry",
    )


def parse_list_reference(text: str) -> tuple[str, str | None]:
    """`$list` or `$table.column`, as (list, column). Raises NameSyntaxError."""
    match = _LIST.fullmatch(text.strip())
    if match is None:
        raise NameSyntaxError(f"{text!r} does not name a list", 0, len(text), "write $list, or $table.column")
    return match[1], match[2]
