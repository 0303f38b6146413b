"""Reports to files, each either whole or not there."""

from __future__ import annotations

from pathlib import Path

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.runtime.files import write_text_whole


def write_report(path: Path, text: str) -> None:
    """Write a report aside, then put it in place; its folder is made if need be. Raises CS513 where that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_whole(path, text)
    except OSError as error:
        message = f"the report cannot be written to {path}: {error.strerror or error}"
        raise CircuitspecError(Diagnostic("CS513", message, hint="name another file with --report")) from error
