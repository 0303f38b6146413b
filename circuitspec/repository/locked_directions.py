"""The files of numbers that metrics project along, that subspaces are of and that dictionaries are, in a lock: by their
digests.

Imports no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic, Span
from circuitspec.dictionaries.declared_dictionaries import dictionary_files
from circuitspec.experiments.direction_files import direction_places
from circuitspec.experiments.subspaces.subspace_files import subspace_places
from circuitspec.hypothesis_file.load_file import Document
from circuitspec.models.storage.cache import sha256_of
from circuitspec.repository.lock import digest_change


def lock_directions(document: Document) -> dict[str, str]:
    """SHA-256 by file name, of files that were read just now."""
    return {name: _sha256(document, name) for name in sorted(_places(document))}


def direction_drift(document: Document, locked: Mapping[str, str] | None) -> Iterator[Diagnostic]:
    """CS552 for a file that is not as it was, or is gone; a note where the lock does not say how it was.

    A file that is named anew, or no longer, is a change of the hypothesis and told there.
    """
    subspaces = subspace_places(document.hypothesis, document.source)
    dictionaries = {spec.source for spec in document.hypothesis.dictionaries.values()}
    for name, span in _places(document).items():
        what = "dictionary" if name in dictionaries else "subspace" if name in subspaces else "direction"
        path = document.base_dir / name
        if locked is None:
            message = f"the lock has no digest of {name} ({what}), so whether it changed is not known"
            yield Diagnostic("CS552", message, span, hint="lock it anew: circuitspec lock FILE", severity="note")
            continue
        old, new = locked.get(name), _digest(document, name)
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
    dictionaries = {
        spec.source: text.span(("dictionaries", name, "from")) for name, spec in hypothesis.dictionaries.items()
    }
    return {**direction_places(hypothesis, text), **subspace_places(hypothesis, text), **dictionaries}


def _digest(document: Document, name: str) -> str | None:
    try:
        return _sha256(document, name)
    except (OSError, CircuitspecError):
        return None


def _sha256(document: Document, name: str) -> str:
    """Of one file its own; of a dictionary that of the names and digests of all files that it is read from."""
    specs = {key: spec for key, spec in document.hypothesis.dictionaries.items() if spec.source == name}
    if not specs:
        return sha256_of(document.base_dir / name)
    read = dictionary_files(specs, document.base_dir, document.source)
    parts = sorted({(path.name, sha256_of(path)) for files in read.values() for path in files})
    return hashlib.sha256("".join(f"{one} {digest}\n" for one, digest in parts).encode()).hexdigest()
