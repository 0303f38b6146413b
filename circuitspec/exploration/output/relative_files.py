"""File names of a draft, which are relative to its folder: written anew where it goes to another. Imports no torch."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from circuitspec.hypothesis_file.yaml.source import SourceText, parse_source
from circuitspec.models.model_reference import local_model

_ANCHOR = re.compile(r"&\S+\s+")
_SCHEMA = re.compile(r"(\s*#\s*yaml-language-server:\s*\$schema=)(\S+)\s*")  # a comment that editors read


def rebased(text: str, folder: Path, other: Path) -> str:
    """A draft whose file names count from `folder`, as it must read in the `other` folder to name the same files.

    Its prompts file, word lists, files of pairs, dictionaries, local model and the schema that editors check it by;
    what is no relative path, such as a hub id, stays as it is.
    """
    if os.path.realpath(folder) == os.path.realpath(other):
        return text
    source = parse_source(text, "the draft")
    lines = list(source.lines)
    new = {source.span(path): _relative(file, other) for path, file in _files(source, folder)}
    for span in sorted(new, key=lambda span: (span.line, span.column), reverse=True):
        if span.end_column is not None:  # a name over several lines stays
            lines[span.line - 1] = _replaced(lines[span.line - 1], span.column - 1, span.end_column - 1, new[span])
    return "\n".join([*(_with_schema(line, folder, other) for line in lines), ""])


def _with_schema(line: str, folder: Path, other: Path) -> str:
    found = _SCHEMA.fullmatch(line)
    if found is None or Path(found[2]).is_absolute() or not (folder / found[2]).is_file():
        return line
    return found[1] + _relative(folder / found[2], other)


def _files(source: SourceText, folder: Path) -> Iterator[tuple[tuple[str, ...], Path]]:
    """The relative paths that the draft names, each with its place, and the files that they mean."""
    data = source.data
    assert isinstance(data, dict)  # it was a valid file
    task = data["task"]
    named: dict[tuple[str, ...], object] = {("task", key): task.get(key) for key in ("file", "fillings")}
    named |= {("task", "lists", name): written for name, written in task.get("lists", {}).items()}
    for name, family in data.get("abstraction", {}).get("pairs", {}).items():
        named |= {("abstraction", "pairs", name, "file"): family.get("file")}
    for name, dictionary in data.get("dictionaries", {}).items():
        named |= {("dictionaries", name, "from"): dictionary.get("from")}
    for path, written in named.items():
        if isinstance(written, str) and not Path(written).is_absolute():
            yield path, folder / written
    model = str(data["model"]["id"])
    found = local_model(model, folder)
    if found is not None and not model.startswith("~") and not Path(model).is_absolute():
        yield ("model", "id"), found


def _relative(file: Path, folder: Path) -> str:
    """The file's name from a folder, links to folders followed: `..` goes up from where they lead to."""
    whole = Path(os.path.realpath(file.parent), file.name)
    try:
        found = Path(os.path.relpath(whole, os.path.realpath(folder)))
    except ValueError:  # on another drive
        return whole.as_posix()
    named = found.as_posix()
    return named if named.startswith("../") else f"./{named}"


def _replaced(line: str, start: int, end: int, name: str) -> str:
    anchor = _ANCHOR.match(line[start:end])
    return line[:start] + (anchor[0] if anchor else "") + json.dumps(name, ensure_ascii=False) + line[end:]
