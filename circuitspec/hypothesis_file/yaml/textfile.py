"""Files that a user names -> their text: the one place where size, kind and encoding are judged."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from pathlib import Path

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic, Span, split_lines
from circuitspec.runtime.files import TooLarge, read_regular


@dataclass(frozen=True)
class TextFile:
    """What a kind of file may be, and the codes for those that are not so."""

    called: str  # in messages: "the file of the list names"
    max_bytes: int
    unreadable: str
    too_large: str
    not_utf8: str
    if_missing: str = ""  # hints
    if_too_large: str = ""


def read_text_file(path: Path, kind: TextFile, where: Span | None = None) -> str:
    """The text of a UTF-8 file, without a byte order mark.

    `where` is the place at which the file is named, if one is. Raises CircuitspecError with one of the codes of `kind`.
    """
    return decoded(read_bytes(path, kind, where), path, kind)


def read_bytes(path: Path, kind: TextFile, where: Span | None = None) -> bytes:
    """The bytes of a text file; raises as `read_text_file`, but for what only the text can tell."""
    called = kind.called if where is not None else str(path)
    label = str(path) if where is not None else ""
    try:
        return read_regular(path, kind.max_bytes)
    except TooLarge:
        size = f"{kind.called} is larger than {kind.max_bytes // 1_000_000} MB"
        raise _refused(kind.too_large, size, where or Span(str(path), 1, 1), label, kind.if_too_large) from None
    except FileNotFoundError:
        looked = f"looked for {path}" if where is not None else ""
        raise _refused(kind.unreadable, f"{called} does not exist", where, looked, kind.if_missing) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise _refused(kind.unreadable, f"{called} cannot be read: {reason}", where, label) from None


def decoded(raw: bytes, path: Path, kind: TextFile) -> str:
    """The text of a file that begins with these bytes, without a byte order mark. Raises the code for no UTF-8."""
    body = raw.removeprefix(codecs.BOM_UTF8)
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        before = split_lines(body[: error.start].decode("utf-8"))
        place = Span(str(path), len(before), len(before[-1]) + 1)
        byte = f"byte {body[error.start]:#04x} at offset {len(raw) - len(body) + error.start}"
        message = f"{kind.called} is not UTF-8 text"
        raise _refused(kind.not_utf8, message, place, byte, "save the file as UTF-8") from None


def _refused(code: str, message: str, span: Span | None, label: str = "", hint: str = "") -> CircuitspecError:
    return CircuitspecError(Diagnostic(code, message, span, label, hint))
