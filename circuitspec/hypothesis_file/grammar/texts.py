"""Annotated types for the texts of a hypothesis: each is parsed where it stands and kept in canonical spelling.

An error raised here carries its diagnostic code as pydantic's error type; `problems` turns it into a
diagnostic with a place.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from typing import Annotated, NoReturn, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from circuitspec.hypothesis_file.grammar import names
from circuitspec.hypothesis_file.grammar.dictionary_places import FORMS, DictionaryPlace
from circuitspec.hypothesis_file.grammar.fields import parse_list_reference, parse_slot_rule, template_fields
from circuitspec.hypothesis_file.grammar.model_size import ModelSize
from circuitspec.hypothesis_file.grammar.names import IDENTIFIER, NameSyntaxError
from circuitspec.hypothesis_file.grammar.positions import EDGES, format_position, parse_position

RESERVED_CORRUPTION = "clean"


def problem(
    code: str,
    message: str,
    *,
    label: str = "",
    hint: str = "",
    offset: int | None = None,
    length: int = 1,
    at: tuple[str | int, ...] = (),
    key: bool = False,
) -> PydanticCustomError:
    """A validation error that says everything its diagnostic will say.

    `offset` and `length` are characters within a text; `at` leads from the value being validated to
    the part that is wrong; `key` points at that part's key.
    """
    context = {
        "message": message,
        "label": label,
        "hint": hint,
        "offset": offset,
        "length": length,
        "at": at,
        "key": key,
    }
    return PydanticCustomError(code, "{message}", context)


def did_you_mean(said: str, known: Iterable[str]) -> str:
    """`did you mean X?` for the closest of `known`; empty if none is close."""
    close = difflib.get_close_matches(said, list(known), n=1, cutoff=0.65)
    return f"did you mean {close[0]}?" if close else ""


def check_version(value: object) -> object:
    """Refuse a file of another format version (`true` is not 1 either)."""
    if isinstance(value, bool) or value != 1:
        raise problem(
            "CS116",
            f"this version of circuitspec reads format 1, not {value}",
            hint="write circuitspec: 1, or install the version of circuitspec that the file was written for",
        )
    return 1


def check_bounds(**bounds: float | None) -> None:
    """Refuse a claim without a bound, or whose lower bound exceeds its upper one."""
    (low_key, low), (high_key, high) = bounds.items()
    if low is None and high is None:
        raise problem(
            "CS121",
            "the claim has no bound, so nothing could refute it",
            hint=f"add {low_key} or {high_key}",
            key=True,
        )
    if low is not None and high is not None and low > high:
        raise problem(
            "CS122",
            f"{low_key} is larger than {high_key}, so the claim cannot hold",
            label=f"{low_key} is {low:g}, {high_key} is {high:g}",
            hint="exchange the two" if low_key.endswith("least") else "",
            at=(low_key,),
        )


def _raise(code: str, error: NameSyntaxError) -> NoReturn:
    raise problem(code, error.message, hint=error.hint, offset=error.offset, length=error.length) from None


def _node_number(value: object) -> object:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise problem("CS112", "{raw} is a number, not a component")
    return value


def _node(text: str, *, keeps_positions: bool = True) -> str:
    try:
        name = names.parse_name(text)
    except NameSyntaxError as error:
        _raise("CS117", error)
    positions = name.positions if keeps_positions else ()
    if name.ports:
        raise problem(
            "CS202",
            f"{text} names inputs, but a node is a whole component",
            hint=f"write {names.format_name(names.Name(name.target, (), positions))}; inputs belong in paths",
            offset=text.index("<"),
            length=text.index(">") - text.index("<") + 1,
        )
    if isinstance(name.target, names.Logits):
        raise problem(
            "CS208",
            f"{text.strip()} is part of every circuit and is never ablated",
            hint="leave it out here; paths may end at logits",
        )
    return names.format_name(name)


def _free_node(text: str) -> str:
    node = _node(text, keeps_positions=False)
    name = names.parse_name(node)
    if name.positions:
        raise problem(
            "CS210",
            f"{node} names positions, but a free component is free at all of them",
            hint=f"write {names.format_name(name.target)}",
            offset=text.index("@"),
            length=len(text.rstrip()) - text.index("@"),
        )
    return node


def _group_or_node(text: str) -> str:
    return text if names.is_group_name(text) else _node(text)


def _path(text: str) -> str:
    try:
        return names.canonical_path(text)
    except NameSyntaxError as error:
        _raise("CS203", error)


def _model_size(text: str) -> str:
    try:
        return str(ModelSize.parse(text))
    except ValueError as error:
        raise problem("CS115", str(error), hint="write layers, heads and channels, as in 12x12x768") from None


def _dictionary_place(text: str) -> str:
    try:
        return str(DictionaryPlace.parse(text))
    except ValueError as error:
        raise problem("CS182", str(error), hint=f"write {FORMS}") from None


def _template(text: str) -> str:
    try:
        template_fields(text)
    except NameSyntaxError as error:
        _raise("CS130", error)
    if not text.strip(" \t"):  # a line break may be an answer, spaces alone are none
        said = "blank: it holds nothing but spaces" if text else "empty"
        raise problem("CS130", f"the text is {said}", hint="write a sentence with slots, or a text such as ' {IO}'")
    return text


def _slot_rule(text: str) -> str:
    try:
        parse_slot_rule(text)
    except NameSyntaxError as error:
        _raise("CS129", error)
    return text.strip()


def _list_reference(text: str) -> str:
    try:
        parse_list_reference(text)
    except NameSyntaxError as error:
        _raise("CS129", error)
    return text.strip()


def _field_reference(text: str) -> str:
    body = text.strip()
    if re.fullmatch(rf"{IDENTIFIER}(?:\.[^.]+)?", body) is None:
        raise problem("CS129", f"{text!r} is not the name of a slot", hint="write SLOT, or SLOT.column")
    return body


def _position_text(text: str) -> str:
    try:
        return format_position(parse_position(text))
    except NameSyntaxError as error:
        _raise("CS140", error)


def _slot_occurrence(text: str) -> str:
    try:
        position = parse_position(text)
    except NameSyntaxError as error:
        _raise("CS140", error)
    if position.slot is None or position.offset:
        hint = "write {slot: S1, tokens: all}, or {slot: S1#2, tokens: all} for its second occurrence"
        raise problem("CS177", f"{text.strip()} is no slot, and has no tokens of its own", hint=hint)
    return format_position(position)


def _token_index(index: int) -> int:
    try:
        parse_position(index)
    except NameSyntaxError as error:
        _raise("CS140", error)
    return index


def _position_name(text: str) -> str:
    if names.is_position_name(text):
        return text
    bare = text.strip().removeprefix("@").replace(" ", "")
    hint = f"write {bare}" if names.is_position_name(bare) else "write a name such as END, S2 or S1+1"
    raise problem("CS149", f"{text!r} cannot be the name of a position", hint=hint)


def _named(what: str, pattern: str, example: str, reserved: tuple[str, ...] = ()) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text in reserved:
            raise problem("CS149", f"a {what} cannot be called {text}", label="the word has a meaning of its own")
        if re.fullmatch(pattern, text) is None:
            raise problem("CS149", f"{text!r} cannot be the name of a {what}", hint=f"write a name such as {example}")
        return text

    return check


def _group_name(text: str) -> str:
    if names.is_group_name(text):
        return text
    try:
        names.parse_name(text)
    except NameSyntaxError:
        raise problem(
            "CS149", f"{text!r} cannot be the name of a group", hint="write a name such as name_mover or name-mover"
        ) from None
    raise problem(
        "CS206",
        f"a group cannot be called {text}: that is the name of a component",
        hint="name the group after its role, as in name_mover",
    )


Node: TypeAlias = Annotated[str, BeforeValidator(_node_number), AfterValidator(_node)]
FreeNode: TypeAlias = Annotated[str, BeforeValidator(_node_number), AfterValidator(_free_node)]
GroupOrNode: TypeAlias = Annotated[str, BeforeValidator(_node_number), AfterValidator(_group_or_node)]
PathText: TypeAlias = Annotated[str, AfterValidator(_path)]
Template: TypeAlias = Annotated[str, AfterValidator(_template)]
SlotRule: TypeAlias = Annotated[str, AfterValidator(_slot_rule)]
ModelSizeText: TypeAlias = Annotated[str, AfterValidator(_model_size)]
ListReference: TypeAlias = Annotated[str, AfterValidator(_list_reference)]
FieldReference: TypeAlias = Annotated[str, AfterValidator(_field_reference)]
PositionText: TypeAlias = Annotated[str, AfterValidator(_position_text)]
TokenIndex: TypeAlias = Annotated[int, Field(strict=True), AfterValidator(_token_index)]
OccurrenceText: TypeAlias = Annotated[str, AfterValidator(_slot_occurrence)]
PositionName: TypeAlias = Annotated[str, AfterValidator(_position_name)]
DictionaryName: TypeAlias = Annotated[str, AfterValidator(_named("dictionary", names.DICTIONARY, "res8"))]
DictionaryPlaceText: TypeAlias = Annotated[str, AfterValidator(_dictionary_place)]
GroupName: TypeAlias = Annotated[str, AfterValidator(_group_name)]
SlotName: TypeAlias = Annotated[str, AfterValidator(_named("slot", IDENTIFIER, "S1", EDGES))]
ListName: TypeAlias = Annotated[str, AfterValidator(_named("list", IDENTIFIER, "names"))]
CorruptionName: TypeAlias = Annotated[
    str, AfterValidator(_named("corruption", r"[A-Za-z0-9_][A-Za-z0-9_-]*", "abc", (RESERVED_CORRUPTION,)))
]
