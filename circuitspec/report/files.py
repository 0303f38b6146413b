"""Reports to files, each either whole or not there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from circuitspec.diagnostics import CircuitspecError, Diagnostic


def write_report(path: Path, text: str) -> None:
    """Write a report aside, then put it in place; its folder is made if need be. Raises CS513 where that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        put_in_place(path, lambda aside: aside.write_text(text, encoding="utf-8"))
    except OSError as error:
        message = f"the report cannot be written to {path}: {error.strerror or error}"
        raise CircuitspecError(Diagnostic("CS513", message, hint="name another file with --report")) from error


def put_in_place(path: Path, write: Callable[[Path], object]) -> None:
    """Write aside, then rename, so that a reader, or a crash, never meets half a file. Raises OSError."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(aside)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
