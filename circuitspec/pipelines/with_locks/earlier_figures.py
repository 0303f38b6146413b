"""What a file's claims came to before: from its lock, or from the result that the store keeps. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.hypothesis_file.load_file import Document, digest
from circuitspec.repository.kept_results import AS_USUAL, kept_result
from circuitspec.repository.lock import lock_path
from circuitspec.repository.lock_file import read_lock


@dataclass(frozen=True)
class Figure:
    """A value with its interval, of so many prompts."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class EarlierFigures:
    """`each` claim's figures by its place in the file, and in words where they are from."""

    source: str
    each: Mapping[int, Sequence[Figure]]


def earlier_figures(document: Document, root: Path | None, device: str, read: Sequence[Path]) -> EarlierFigures | None:
    """The figures of the file as it is now, of its lock or of the plain `verify FILE`; None where there are none.

    `root` is that of the store, `read` are the files that the hypothesis names.
    """
    try:
        lock = read_lock(lock_path(Path(document.source.file))).lock
    except CircuitspecError:
        lock = None
    if lock is not None and lock.hypothesis.digest == digest(document.hypothesis):
        claims = [claim.model_dump(mode="json") for claim in lock.claims]
        return EarlierFigures("the lock", {i: _figures(claim) for i, claim in enumerate(claims)})
    kept = None if root is None else kept_result(document, read, root, AS_USUAL, device)
    views = None if kept is None else kept.found(None)
    if views is None:
        return None
    listed: Any = views.document["claims"]
    return EarlierFigures("the last `verify`", {int(claim["index"]): _figures(claim) for claim in listed})


def _figures(claim: Mapping[str, Any]) -> list[Figure]:
    """Those of a claim, or of its parts, that have an interval of some length."""
    found = []
    for one in (claim, *(claim.get("parts") or ())):
        value, ci = one.get("value"), one.get("ci")
        if value is not None and ci is not None:
            found.append(Figure(float(value), float(ci[0]), float(ci[1]), int(claim["n"])))
    return found
