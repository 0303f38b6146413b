"""The files of numbers that metrics project along and that subspaces are of, in a lock: by their digests.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from circuitspec.diagnostics.diagnostic import Diagnostic, Span
from circuitspec.experiments.direction_files import direction_places
from circuitspec.experiments.subspaces.subspace_files import subspace_places
from circuitspec.hypothesis_file.load_file import Document
from circuitspec.models.storage.cache import sha256_of
from circuitspec.repository.lock import digest_change


def lock_directions(document: Document) -> dict[str, str]:
    """SHA-256 by file name, of files that were read just now."""
    names = _places(document)
    return {name: sha256_of(document.base_dir / name) for name in sorted(names)}


def direction_drift(document: Document, locked: Mapping[str, str] | None) -> Iterator[Diagnostic]:
    """CS552 for a file that is not as it was, or is gone; a note where the lock does not say how it was.

    A file that is named anew, or no longer, is a change of the hypothesis and told there.
    """
    subspaces = subspace_places(document.hypothesis, document.source)
    for name, span in _places(document).items():
        what = "subspace" if name in subspaces else "direction"
        path = document.base_dir / name
        if locked is None:
            message = f"the lock has no digest of {name} ({what}), so whether it changed is not known"
            yield Diagnostic("CS552", message, span, hint="lock it anew: circuitspec lock FILE", severity="note")
            continue
        old, new = locked.get(name), _digest(path)
        if old not in (None, new):
            yield Diagnostic(
                "CS552",
                f"{name} ({what}) changed since it was locked: {digest_change(old, new)}",
                span,
                f"read from {path}",
                "put the file back that was locked, or lock the new one: circuitspec lock FILE",
                data={"file": name},
            )


def _places(document: Document) -> dict[str, Span]:
    hypothesis, text = document.hypothesis, document.source
    return {**direction_places(hypothesis, text), **subspace_places(hypothesis, text)}


def _digest(path: Path) -> str | None:
    try:
        return sha256_of(path) if path.is_file() else None
    except OSError:
        return None
