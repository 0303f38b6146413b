"""Text of unknown origin as a person may safely see it, and a program may safely read it in a log."""

from __future__ import annotations

import json
import re
import unicodedata

_BREAKS = "\n\t"
_COMMAND = re.compile(r"(?m)^(\s*)(:(?=:)|#(?=#\[))")  # how a line begins that a workflow's log takes for a command


def visible(text: str, *, lines: bool = False, mark: str = "<U+{:04X}>") -> str:
    """The text with every character that cannot be seen written out by `mark`, as in `<U+202E>`.

    Those are control and format characters (among them the marks that turn the direction of text around), lone
    surrogates (bytes of a file's name that are no text) and unusual separators. Tabs and line ends become spaces; with
    `lines` they stay.
    """
    kept = re.sub(r"\r\n?", "\n", text)
    if not lines:
        kept = re.sub(r"[\n\t]", " ", kept)
    return "".join(c if c in _BREAKS or _can_be_seen(c) else mark.format(ord(c)) for c in kept)


def no_command(text: str) -> str:
    """The text with no line that GitHub's runner takes for a workflow command.

    Those are lines with `::` or `##[` at their start; leading spaces do not count for the runner.
    """
    return _COMMAND.sub(lambda found: f"{found[1]}<U+{ord(found[2]):04X}>", text)


def as_json(content: object, *, indent: int | None = None) -> str:
    """A value as JSON, every character that cannot be seen as its escape: `\\u202e`. Without a newline at the end."""
    written = json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False)
    return "".join(c if c == "\n" or _can_be_seen(c) else json.dumps(c)[1:-1] for c in written)


def _can_be_seen(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
