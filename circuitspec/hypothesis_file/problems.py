"""pydantic's validation errors -> diagnostics: sentences with a code, a place and what to write instead."""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import Tag, ValidationError
from pydantic_core import ErrorDetails

from circuitspec.diagnostics.diagnostic import Diagnostic
from circuitspec.hypothesis_file.grammar.names import EXAMPLES
from circuitspec.hypothesis_file.grammar.texts import did_you_mean
from circuitspec.hypothesis_file.schema.block import Block
from circuitspec.hypothesis_file.schema.blocks import AblationChoices, Hypothesis
from circuitspec.hypothesis_file.schema.claims.all_blocks import CLAIMS
from circuitspec.hypothesis_file.yaml.source import Path_, SourceText

_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}
_LIMITS = {
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
}
_ONE_CLAIM = "write - sufficient: {metric: logit_diff, at_least: 0.8}"


@dataclass(frozen=True)
class Problem:
    """A diagnostic, and the path of the part that cannot be used because of it."""

    diagnostic: Diagnostic
    path: Path_


def problems_of(error: ValidationError, source: SourceText, at_most: int) -> tuple[list[Problem], int]:
    """A problem for each of the first validation errors, and how many more there are.

    `source.data` must be what was validated.
    """
    errors = [
        details
        for details in error.errors(include_url=False)
        if not (details["type"] == "too_short" and details["input"])  # its entries are wrong, which is told there
    ]
    return [_problem(details, source) for details in errors[:at_most]], max(0, len(errors) - at_most)


def describe(value: object) -> str:
    """What a value is, in a word or two."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value}"
        case str():
            return "text" if value else "an empty text"
        case list() | tuple():
            return "a list"
        case _:
            return "a mapping"


def dotted(path: Path_) -> str:
    """`circuit.groups.induction.nodes[2]`; `the file` for the top."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text or "the file"


def _problem(details: ErrorDetails, source: SourceText) -> Problem:
    loc, kind, context = details["loc"], details["type"], details.get("ctx", {})
    is_key = loc[-1:] == ("[key]",)
    path = path_of(loc, source.data)
    for part in (path, path[:-1]):
        if (braced := source.braced(part)) is not None:
            return _unquoted(braced, part, source)
    if kind.startswith("CS"):
        return _own_problem(kind, context, path, is_key, details["input"], source)
    if kind == "missing":
        return _missing(loc, path, source)
    if kind == "extra_forbidden":
        return _unknown_key(loc, path, source)
    place, found = dotted(path), describe(details["input"])
    span = source.span(path, key=is_key)
    if kind == "literal_error":
        choices = [str(choice) for choice in context.get("choices") or get_args(_plain(_annotation_at(loc)))]
        hint = did_you_mean(str(details["input"]), choices)
        message = f"{place} cannot be {_shown(details['input'], source.raw(path))}"
        return Problem(Diagnostic("CS114", message, span, f"one of {', '.join(choices)}", hint), path)
    if kind in ("model_attributes_type", "union_tag_not_found"):
        return Problem(Diagnostic("CS120", f"a claim is a mapping, not {found}", span, hint=_ONE_CLAIM), path)
    if kind == "finite_number":
        said = source.raw(path) or "this"
        return Problem(
            Diagnostic("CS123", f"{said} is not a number to compare with", span, hint="write a number such as 0.8"),
            path,
        )
    if kind in _LIMITS:
        wanted = _LIMITS[kind].format(**context)
        return Problem(Diagnostic("CS115", f"{place} must be {wanted}", span), path)
    if kind == "too_short" and path == ("claims",):
        message, hint = "the file claims nothing, so there is nothing to verify", _ONE_CLAIM
        return Problem(Diagnostic("CS124", message, source.span(path, key=True), hint=hint), path)
    if kind in ("too_short", "string_too_short"):
        hint = "write a text" if kind == "string_too_short" else "give it at least one entry"
        return Problem(Diagnostic("CS115", f"{place} must not be empty", span, hint=hint), path)
    wanted = details["msg"] if kind == "wrong_form" else _WANTED[kind]
    hint = _type_hint(kind, details["input"], source.raw(path), path)
    span = source.span(path, key=is_key or isinstance(details["input"], dict) or details["input"] is None)
    return Problem(Diagnostic("CS113", f"{place} must be {wanted}, not {found}", span, hint=hint), path)


def _unquoted(braced: str, path: Path_, source: SourceText) -> Problem:
    """CS172: `{IO}` without quotes, which YAML reads as a mapping with the key IO."""
    word = braced.strip("{} ")
    text = path[:2] in (("task", "templates"), ("task", "answer"), ("task", "wrong"))
    hint = f'put it in quotes: "{braced}"' if text else f"write {word}, without the braces"
    return Problem(
        Diagnostic("CS172", f"YAML reads {braced} as a mapping, not as text", source.span(path), "", hint), path
    )


def _own_problem(
    code: str, context: Mapping[str, Any], path: Path_, is_key: bool, value: object, source: SourceText
) -> Problem:
    path = (*path, *context["at"])
    if code == "CS112":
        return Problem(_number_as_name(value, path, source), path)
    hint = context["hint"]
    if code == "CS129":
        hint = _rule_for(value, source.data) or hint
    span = source.span(path, key=is_key or context["key"])
    if context["offset"] is not None and not is_key:
        span = source.inner_span(path, context["offset"], context["length"])
    return Problem(Diagnostic(code, context["message"], span, context["label"], hint), path)


def _rule_for(value: object, data: Any) -> str:
    """What was probably meant by a slot's plain text: a list or a slot of that name."""
    task = data.get("task") if isinstance(data, dict) else None
    for key, sign in (("lists", "$"), ("slots", "=")):
        block = task.get(key) if isinstance(task, dict) else None
        if isinstance(block, dict) and isinstance(value, str) and value.strip() in block:
            return f"write {sign}{value.strip()}"
    return ""


def _number_as_name(value: object, path: Path_, source: SourceText) -> Diagnostic:
    raw = source.raw(path) or str(value)
    span = source.span(path)
    layer, dot, head = raw.partition(".")
    if dot and layer.isdigit() and head.isdigit():
        read = str(value)
        label = "a head's number after the point loses its zeros"
        if read != raw:
            label = f"YAML reads {raw} as {read}, which would be head {read.partition('.')[2]}"
        hint = f"write a{int(layer)}.h{int(head)}"
        return Diagnostic("CS112", f"{read} is a number, not a head", span, label, hint)
    hint = f"write a{raw} for the heads of layer {raw}, or m{raw} for its MLP" if raw.isdigit() else EXAMPLES
    return Diagnostic("CS112", f"{raw} is a number, not a component", span, hint=hint)


def _missing(loc: tuple[int | str, ...], path: Path_, source: SourceText) -> Problem:
    name = str(loc[-1])
    block = _block_at(loc[:-1])
    wanted = next(field for key, field in block.model_fields.items() if name in (key, field.alias))
    choices = [name for known in wanted.metadata if isinstance(known, AblationChoices) for name in known.names]
    examples = wanted.examples or get_args(_plain(wanted.annotation)) or choices
    diagnostic = Diagnostic(
        "CS111",
        f"{dotted(path)} needs the key {name}",
        source.span(path, key=True),
        hint=f"add it, as in {name}: {_flow(examples[0])}",
    )
    return Problem(diagnostic, path)


def _flow(value: object) -> str:
    """A value as YAML in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(inner) for inner in value) + "]"
    return str(value)


def _unknown_key(loc: tuple[int | str, ...], path: Path_, source: SourceText) -> Problem:
    name = str(loc[-1])
    fields = _block_at(loc[:-1]).model_fields
    known = [field.alias or key for key, field in fields.items() if key != "kind"]
    hint = did_you_mean(name, known) or f"the keys here are {', '.join(known)}"
    diagnostic = Diagnostic(
        "CS110", f"unknown key {name} in {dotted(path[:-1])}", source.span(path, key=True), hint=hint
    )
    return Problem(diagnostic, path)


def _type_hint(kind: str, value: object, raw: str | None, path: Path_) -> str:
    if not path:
        return "a hypothesis starts with circuitspec: 1; circuitspec init writes one to start from"
    if value is None:
        return "write a value after the colon, or remove the key" if isinstance(path[-1], str) else "remove the entry"
    if kind == "string_type" and isinstance(value, (bool, int, float)):
        return f'put it in quotes: "{raw}"'
    if kind == "tuple_type" and isinstance(value, str):
        return f"write [{value}]" if re.fullmatch(r"[A-Za-z][\w.+#*]*", value) else f'write ["{value}"]'
    if kind in ("int_type", "float_type", "bool_type") and isinstance(value, str):
        words = {"yes": "true", "on": "true", "no": "false", "off": "false"}
        if kind == "bool_type":
            return f"write {words.get(value.lower(), 'true or false')}"
        return "remove the quotes" if _is_number(value) else ""
    return ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _shown(value: object, raw: str | None) -> str:
    return raw if raw else describe(value)


def path_of(loc: tuple[int | str, ...], data: Any) -> Path_:
    """The path in the file that pydantic's location means: without the tags of unions and the like."""
    path: list[int | str] = []
    for step in loc:
        known = isinstance(data, dict) and step in data
        if known or (isinstance(data, list) and isinstance(step, int) and step < len(data)):
            data = data[step]
            path.append(step)
    return tuple(path)


def _block_at(loc: tuple[int | str, ...]) -> type[Block]:
    """The block whose keys stand at a location. Raises TypeError if none does (a fault of this module)."""
    found = _plain(_annotation_at(loc))
    if isinstance(found, type) and issubclass(found, Block):
        return found
    raise TypeError(f"no block at {loc}")


def _annotation_at(loc: tuple[int | str, ...]) -> Any:
    annotation: Any = Hypothesis
    for step in loc:
        annotation = _step(_plain(annotation), step)
    return annotation


def _step(annotation: Any, step: int | str) -> Any:
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        tagged = [member for member in get_args(annotation) if _has_tag(member, step)]
        return tagged[0] if tagged else CLAIMS[str(step)]
    if origin is tuple:
        return get_args(annotation)[0]
    if origin is dict:
        return get_args(annotation)[1]
    fields = annotation.model_fields
    name = next(key for key, field in fields.items() if step in (key, field.alias))
    return fields[name].annotation


def _has_tag(member: Any, tag: int | str) -> bool:
    return any(isinstance(item, Tag) and item.tag == tag for item in getattr(member, "__metadata__", ()))


def _plain(annotation: Any) -> Any:
    """Without Annotated and without `| None`."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
            continue
        members = [member for member in get_args(annotation) if member is not type(None)]
        if get_origin(annotation) in (Union, types.UnionType) and len(members) == 1:
            annotation = members[0]
            continue
        return annotation
