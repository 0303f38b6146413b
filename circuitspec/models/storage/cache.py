"""Directories that are costly to make and can be made again: built once, whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic

_MANIFEST = "manifest.json"
_LOCK_SECONDS = 3600  # longer than any build: a waiting process then reports rather than hangs


def cache_root() -> Path:
    """`$CIRCUITSPEC_CACHE`, or `circuitspec` in the user's cache folder. Raises CS319 for a user without a home."""
    explicit = os.environ.get("CIRCUITSPEC_CACHE")
    if explicit:
        return _expanded(explicit)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return _expanded(base) / "circuitspec"


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # no HOME, and a user whom the system does not know, as in many containers
        raise _unusable(f"this user has no home folder, which {path} begins with") from error


def cached_directory(kind: str, key: str, build: Callable[[Path], None]) -> Path:
    """The cached directory `kind/key`, made by `build(empty directory)` unless it is there and its checksums hold.

    Processes that want the same one wait for each other. It is built aside and renamed into place, so that an
    interrupted build leaves nothing that looks whole; what a killed process left of one is removed by the next that
    wants any of this kind. Raises CS319 where the cache cannot be written.
    """
    from filelock import FileLock, Timeout

    parent = cache_root() / kind
    final = parent / key
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with FileLock(parent / f"{key}.lock", timeout=_LOCK_SECONDS):
            if not is_whole(final):
                _build(final, build)
            _remove_abandoned(parent, key)
    except Timeout as error:
        raise _unusable(f"another process has held {parent / key}.lock for an hour") from error
    except OSError as error:
        raise _unusable(f"{parent} cannot be used as a cache: {error}") from error
    return final


def is_whole(directory: Path, only: str | None = None) -> bool:
    """Whether the directory holds every file of its manifest (or just the file `only`), each with its checksum."""
    try:
        manifest = json.loads((directory / _MANIFEST).read_text(encoding="utf-8"))
        checksums = {only: manifest[only]} if only is not None else dict(manifest)
        return bool(checksums) and all(sha256_of(directory / name) == digest for name, digest in checksums.items())
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return False


def sha256_of(file: Path) -> str:
    """Hex SHA-256 of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _remove_abandoned(parent: Path, held: str) -> None:
    """Remove what killed processes left of their builds. Who builds holds its key's lock; we hold that of `held`."""
    from filelock import FileLock, Timeout

    for left in parent.glob(".*-*"):
        key = left.name[1:].rpartition("-")[0]
        with contextlib.suppress(Timeout, OSError):  # it is being built, or is not ours to remove
            if key == held:
                shutil.rmtree(left, ignore_errors=True)
            elif (parent / f"{key}.lock").exists():
                with FileLock(parent / f"{key}.lock", timeout=0):
                    shutil.rmtree(left, ignore_errors=True)


def _build(final: Path, build: Callable[[Path], None]) -> None:
    building = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=final.parent))
    try:
        build(building)
        checksums = {path.name: sha256_of(path) for path in sorted(building.iterdir())}
        (building / _MANIFEST).write_text(json.dumps(checksums, indent=1), encoding="utf-8")
        if final.exists():  # a broken one
            shutil.rmtree(final)
        building.rename(final)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _unusable(message: str) -> CircuitspecError:
    return CircuitspecError(
        Diagnostic("CS319", message, hint="set CIRCUITSPEC_CACHE to a folder you can write to, with room for the model")
    )
