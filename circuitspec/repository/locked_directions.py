"""Files that a result depends on beside prompts and weights, in a lock, by their digests: of directions, of subspaces,
of dictionaries, of pairs, and prompts files whose columns variables are computed from.

Imports no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import rfc8785

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic, Span
from circuitspec.dictionaries.declared_dictionaries import dictionary_files
from circuitspec.experiments.direction_files import direction_places
from circuitspec.experiments.subspaces.subspace_files import subspace_places
from circuitspec.hypothesis_file.checks.pair_places import pair_places
from circuitspec.hypothesis_file.load_file import Document
from circuitspec.models.storage.cache import sha256_of
from circuitspec.models.storage.hub import fetch_folder
from circuitspec.repository.lock import digest_change


def lock_directions(document: Document) -> dict[str, str]:
    """SHA-256 by file name, of files that were read just now."""
    found = {name: _digest(document, name) for name in sorted(_places(document))}
    return {name: digest for name, digest in found.items() if digest is not None}


def direction_drift(document: Document, locked: Mapping[str, str] | None) -> Iterator[Diagnostic]:
    """CS552 for a file that is not as it was, or is gone; a note where the lock does not say how it was.

    A file that is named anew, or no longer, is a change of the hypothesis and told there.
    """
    fetched = {one.named for one in document.hypothesis.dictionaries.values() if not isinstance(one.source, str)}
    kinds = {name: kind for kind, places in _by_kind(document).items() for name in places}
    for name, span in _places(document).items():
        what = kinds[name]
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
                "" if name in fetched else f"read from {path}",
                "put the file back that was locked, or lock the new one: circuitspec lock FILE",
                data={"file": name},
            )


def _by_kind(document: Document) -> dict[str, dict[str, Span]]:
    """The files by what they are, each with where it is named."""
    hypothesis, text = document.hypothesis, document.source
    named = hypothesis.dictionaries
    spec, task = hypothesis.abstraction, hypothesis.task
    columns = {task.file: text.span(("task", "file"))} if spec is not None and task.file is not None else {}
    if task.file is not None and task.file in text.beside:  # given in memory
        columns = {}
    return {
        "direction": dict(direction_places(hypothesis, text)),
        "subspace": subspace_places(hypothesis, text),
        "dictionary": {spec.named: text.span(("dictionaries", name, "from")) for name, spec in named.items()},
        "pairs": pair_places(spec, text),
        "columns of prompts": columns,
    }


def _places(document: Document) -> dict[str, Span]:
    return {name: span for places in _by_kind(document).values() for name, span in places.items()}


def _digest(document: Document, name: str) -> str | None:
    """SHA-256 of a file; of a folder, and of a dictionary, that of the names and digests of the files that are read.

    None where there is nothing to read.
    """
    path = document.base_dir / name
    specs = {key: spec for key, spec in document.hypothesis.dictionaries.items() if spec.named == name}
    try:
        if specs:
            read = dictionary_files(specs, document.base_dir, document.source, fetch_folder)
            return _joint({path for files in read.values() for path in files})
        if path.is_dir():
            return _joint({one for one in path.iterdir() if one.is_file()})
        return sha256_of(path) if path.is_file() else None
    except (OSError, CircuitspecError):
        return None


def _joint(files: Collection[Path]) -> str:
    inside = sorted((one.name, sha256_of(one)) for one in files)
    return hashlib.sha256(rfc8785.dumps([list(one) for one in inside])).hexdigest()
