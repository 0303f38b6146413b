"""What values along paths may depend on: the entries of `circuit: carries`."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, Tag

from circuitspec.hypothesis_file.grammar import texts
from circuitspec.hypothesis_file.grammar.names import NameSyntaxError, canonical_path, is_group_name, parse_name
from circuitspec.hypothesis_file.schema.block import Text, form_of, one_form_of

EVERYTHING, NOTHING = "everything", "nothing"
_WANTED = "a list of slots and variables, such as [S1], or everything, or nothing"


def _carrier(text: str) -> str:
    """A group, a component or a path, as it is written: messages find it by this."""
    if is_group_name(text):
        return text
    try:
        if "->" in text:
            canonical_path(text)
        else:
            parse_name(text)
    except NameSyntaxError as error:
        hint = error.hint or "write a group, a component, or a path such as A -> B<q>"
        code = "CS203" if "->" in text else "CS117"
        raise texts.problem(code, error.message, hint=hint, key=True) from None
    return text


def _whole(value: object) -> object:
    if value not in (EVERYTHING, NOTHING):
        raise texts.problem("CS196", f"a path cannot carry {value}", hint=f"write {_WANTED}")
    return value


Carrier: TypeAlias = Annotated[str, AfterValidator(_carrier)]
Extent: TypeAlias = Literal["everything", "nothing"]
Carried: TypeAlias = Annotated[
    Annotated[Extent, BeforeValidator(_whole), Tag("<text>")] | Annotated[tuple[Text, ...], Tag("<list>")],
    one_form_of(form_of, _WANTED),
]
Carries: TypeAlias = Annotated[dict[Carrier, Carried], Field(min_length=1)]
