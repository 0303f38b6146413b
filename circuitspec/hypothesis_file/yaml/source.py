"""Text of a hypothesis file -> plain data that knows where each key and value stands.

YAML 1.2 by ruamel.yaml's pure parser. Its events are turned into data here, so that nesting, aliases
and tags are judged before anything is built from them, and every key and value keeps its place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic, Span, in_order, split_lines
from circuitspec.hypothesis_file.yaml.compose import compose
from circuitspec.hypothesis_file.yaml.textfile import TextFile, read_text_file
from circuitspec.hypothesis_file.yaml.yaml_nodes import YamlNode

MAX_BYTES = 1_000_000
_BRACED = re.compile(r"\{\s*[A-Za-z_][^{}:,]*\}")

_FILE = TextFile(
    "the file",
    MAX_BYTES,
    unreadable="CS100",
    not_utf8="CS101",
    too_large="CS102",
    if_too_large="move long word lists to .txt or .csv files and prompts to a .jsonl file, and name those here",
)

Path_: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True)
class SourceText:
    """A file's text, its plain data, and the place of each part of it.

    A path leads from the top to a part: keys and list indices, such as `("circuit", "paths", 0)`. `beside` are files
    that the text names and that are not on disk (yet): name -> text.
    """

    file: str
    text: str
    data: object
    root: YamlNode = field(repr=False)
    beside: Mapping[str, str] = field(default_factory=dict, repr=False)

    @cached_property
    def lines(self) -> tuple[str, ...]:
        """The lines of the text, without line ends."""
        return split_lines(self.text)

    def span(self, path: Path_, key: bool = False) -> Span:
        """Where the value at `path` stands, or with `key` its key.

        Where nothing stands at `path`, the key (or list entry) of the nearest part above it.
        """
        node, key_span = self.root, None
        for step in path:
            child = node.child(step)
            if child is None:
                return key_span or node.span
            key_span = node.entries[step][0].span if isinstance(step, str) else None
            node = child
        return key_span if key and key_span is not None else node.span

    def inner_span(self, path: Path_, offset: int, length: int) -> Span:
        """Where `length` characters from `offset` on of the text at `path` stand.

        The whole text where it is not written in one line as it is (escapes, folded lines).
        """
        span = self.span(path)
        text = self.raw(path)
        line = self.lines[span.line - 1]
        if not text or span.end_column is None:
            return span
        start = line.find(text, span.column - 1, span.end_column - 1)
        if start < 0:
            return span
        first = start + 1 + min(offset, len(text))
        return Span(span.file, span.line, first, max(first + 1, min(first + length, start + 1 + len(text))))

    def braced(self, path: Path_) -> str | None:
        """A mapping at `path` that is written as a word in braces, `{IO}`; None if there is none."""
        node: YamlNode | None = self.root
        for step in path:
            node = None if node is None else node.child(step)
        if node is None or not isinstance(node.value, dict) or node.span.end_column is None:
            return None
        text = self.lines[node.span.line - 1][node.span.column - 1 : node.span.end_column - 1]
        return text if _BRACED.fullmatch(text) else None

    def raw(self, path: Path_) -> str | None:
        """The spelling of the scalar at `path`, as `9.10` for the number 9.1; None if it is no scalar."""
        node: YamlNode | None = self.root
        for step in path:
            node = None if node is None else node.child(step)
        if node is None or isinstance(node.value, (dict, list)):
            return None
        return node.text


def read_text(path: Path) -> str:
    """The text of a hypothesis file, without a byte order mark.

    Raises CircuitspecError: CS100 cannot be read, CS101 not UTF-8, CS102 too large.
    """
    return read_text_file(path, _FILE)


def parse_source(text: str, file: str) -> SourceText:
    """Text as data with places.

    Raises CircuitspecError with every finding (CS103 to CS109, CS115, CS118, CS119).
    """
    source, findings = parse_leniently(text, file)
    if findings:
        raise CircuitspecError(*in_order(findings))
    return source


def parse_leniently(text: str, file: str) -> tuple[SourceText, tuple[Diagnostic, ...]]:
    """Text as data with places, and the findings that left something to go on with.

    Raises CircuitspecError where nothing is left to go on with.
    """
    if not text.strip():
        raise CircuitspecError(
            Diagnostic(
                "CS103", "the file is empty", Span(file, 1, 1), hint="circuitspec init writes a file to start from"
            )
        )
    root, findings = compose(text, file)
    return SourceText(file, text, root.value, root), findings
