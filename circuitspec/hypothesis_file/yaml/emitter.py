"""ruamel's emitter, but that it breaks no text over lines in a way that a reader takes for another text."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ruamel.yaml.emitter import Emitter

_SINGLE_SPACE = re.compile("(?<=[^ ]) (?=[^ ])")


class FaithfulEmitter(Emitter):
    """Breaks lines only at a single space, for which a reader takes the line end.

    ruamel breaks double-quoted text also at escapes, where a reader then finds a space that nobody wrote; plain text at
    two spaces, of which a reader finds one; and plain keys, which YAML does not allow at all.
    """

    def write_double_quoted(self, text: str, split: bool = True) -> None:
        self.write_indicator('"', True)
        words = _SINGLE_SPACE.split(text) if split else [text]
        for place, word in enumerate(words):
            written = "".join(map(self._escaped, word))
            if place and self.column + 1 + len(written) > self.best_width:
                self.write_indent()
            elif place:
                written = f" {written}"
            self.stream.write(written)
            self.column += len(written)
        self.whitespace = self.indention = False
        self.write_indicator('"', False)

    def write_plain(self, text: str, split: bool = True) -> None:
        if split and "  " not in text:
            super().write_plain(text, split)
            return
        with self._endless_lines():
            super().write_plain(text, split=False)

    def _escaped(self, char: str) -> str:
        if char in self.ESCAPE_REPLACEMENTS:
            return f"\\{self.ESCAPE_REPLACEMENTS[char]}"
        if char.isprintable():
            return char
        code = ord(char)
        return f"\\x{code:02X}" if code <= 0xFF else f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}"

    @contextmanager
    def _endless_lines(self) -> Iterator[None]:
        width, self.best_width = self.best_width, sys.maxsize
        try:
            yield
        finally:
            self.best_width = width
