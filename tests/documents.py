"""The code blocks of a document, in order, and what a reader would do with them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(
    r"(?:<!-- file: (?P<file>[^;>]+?)(?:; (?P<how>[^>]*))? -->\n)?```(?P<language>\w*)\n(?P<text>.*?)```", re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """A code block; `file` is what a comment above it says that it is, or changes, and `how`."""

    language: str
    text: str
    file: str
    how: str


def blocks(document: Path) -> Iterator[Block]:
    for found in _BLOCK.finditer(document.read_text(encoding="utf-8")):
        yield Block(found["language"], found["text"], found["file"] or "", (found["how"] or "").strip())


def commands(block: Block) -> Iterator[tuple[str, list[str]]]:
    """The commands of a console block, each with the lines that it is shown to print."""
    command, shown = "", []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            if command:
                yield command, shown
            command, shown = line[2:], []
        else:
            shown.append(line)
    if command:
        yield command, shown


def unlike(shown: list[str], printed: str) -> str:
    """The first line that is shown and not printed, in its place; empty if there is none. `...` is any lines."""
    lines, place, skipping = printed.splitlines(), 0, False
    for line in shown:
        if line == "...":
            skipping = True
            continue
        while skipping and place < len(lines) and lines[place] != line:
            place += 1
        if place == len(lines) or lines[place] != line:
            return line
        place, skipping = place + 1, False
    return "" if skipping or place == len(lines) else f"nothing, but printed is {lines[place]!r}"
