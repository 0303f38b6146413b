"""Plain data -> the text of a hypothesis file: YAML that a person would have written, short values in one line."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from circuitspec.diagnostics.diagnostic import CircuitspecError

WIDTH = 118
_MARKS = ("?", ":", "-", ",")  # within brackets YAML may take a text that begins so for its own
_SPREAD = frozenset({"templates", "claims", "paths"})  # an entry a line, however short


def write_yaml(data: Mapping[str, Any]) -> str:
    """The data as YAML 1.2, in its own order, with an empty line between the blocks.

    Mappings and lists that fit into a line are written in one. Text that YAML would take for something else is quoted.
    Raises TypeError for what is neither text, a path, a number, a truth value, None, a list nor a mapping, and
    ValueError for data that would not be read again as they are.
    """
    from ruamel.yaml import YAML

    from circuitspec.hypothesis_file.yaml.emitter import FaithfulEmitter

    yaml = YAML()
    yaml.Emitter = FaithfulEmitter
    yaml.version = None
    yaml.width = WIDTH
    yaml.indent(mapping=2, sequence=4, offset=2)
    blocks: list[str] = []
    for key, value in data.items():
        written = io.StringIO()
        yaml.dump({_text(_key(key)): _laid_out(value, len(str(key)) + 2, key in _SPREAD)}, written)
        text = "".join(f"{line.rstrip(' ')}\n" for line in written.getvalue().split("\n")[:-1])  # lists are wrapped
        blocks.append(text if "\n" not in text.rstrip() and not isinstance(value, Mapping) else f"\n{text}\n")
    text = "".join(blocks).replace("\n\n\n", "\n\n").strip("\n") + "\n"
    _check(text, data)
    return text


def _check(text: str, data: Mapping[str, Any]) -> None:
    """Raises ValueError if the text is read as other data. Text that cannot be read is left to its reader to refuse."""
    from circuitspec.hypothesis_file.yaml.source import parse_source

    try:
        read = parse_source(text, "written").data
    except CircuitspecError:
        return
    given = _plain(data)
    if repr(read) != repr(given):  # 1 == 1.0 == True, but they are written in different ways
        raise ValueError(f"YAML does not keep this as it is: {_first_difference(given, read)}")


def _plain(value: Any) -> Any:
    """The value as a reader of the file finds it."""
    match value:
        case None | bool():
            return value
        case str():
            return str(value)
        case float():
            return float(value)
        case int():
            return int(value)
        case PurePath():
            return value.as_posix()
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case _:
            return [_plain(item) for item in value]


def _first_difference(given: Any, read: Any, where: str = "") -> str:
    """`task.templates[0]: 'a b' would be read as 'a  b'`."""
    steps: list[tuple[str, Any, Any]] = []
    if isinstance(given, dict) and isinstance(read, dict) and list(given) == list(read):
        steps = [(f"{where}.{key}".lstrip("."), given[key], read[key]) for key in given]
    elif isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        steps = [(f"{where}[{i}]", *pair) for i, pair in enumerate(zip(given, read, strict=True))]
    for step, before, after in steps:
        if repr(before) != repr(after):
            return _first_difference(before, after, step)
    return f"{where or 'the file'}: {given!r} would be read as {read!r}"


def _laid_out(value: Any, indent: int, spread: bool = False) -> Any:
    """The value as ruamel writes it: whatever fits between `indent` and the end of the line in one line.

    Of what is `spread` every entry begins a line, and so does the name of a claim.
    """
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    match value:
        case str():
            return _text(value)
        case None | bool() | int() | float() | PurePath():
            return _plain(value)
        case Mapping():
            found: Any = CommentedMap(
                {_text(_key(k)): _laid_out(v, indent + len(str(k)) + 4, k in _SPREAD) for k, v in value.items()}
            )
        case Sequence() if not isinstance(value, bytes | bytearray):
            found = CommentedSeq([_laid_out(item, indent + 4, spread) for item in value])
        case _:
            raise TypeError(f"a hypothesis file has no word for {type(value).__name__}: {value!r}")
    words = not isinstance(value, Mapping) and not any(isinstance(item, Mapping | list | tuple) for item in value)
    if not value or (not spread and (words or indent + _length(value) <= WIDTH)):
        found.fa.set_flow_style()
    else:
        found.fa.set_block_style()
    return found


def _text(value: str) -> str:
    """The text, in quotes where YAML might take it for something else."""
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString

    from circuitspec.hypothesis_file.yaml.compose import reads_as_text

    plain = value.isprintable() and not value.startswith(_MARKS) and (value == "" or reads_as_text(value))
    return str(value) if plain else DoubleQuotedScalarString(value)


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"the keys of a hypothesis file are text, not {type(key).__name__}: {key!r}")
    return key


def _length(value: Any) -> int:
    """About how long the value is in one line; quotes are counted for all text that might need them."""
    match value:
        case str():
            return len(value) + (0 if value.replace("_", "").replace(".", "").isalnum() else 2)
        case Mapping():
            return 2 + sum(_length(str(k)) + 2 + _length(v) + 2 for k, v in value.items())
        case Sequence():
            return 2 + sum(_length(item) + 2 for item in value)
        case _:
            return len(str(value))
