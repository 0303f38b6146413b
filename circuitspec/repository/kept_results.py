"""Results that are kept whole: where nothing has changed that a result depends on, it is shown again. Imports no torch.

A kept result is the saved result that `report` reads, under a key of all that it depends on: the hypothesis and every
file that it names, the model's files, the options, the versions of what computes and our own code, byte for byte. It
lies beside the stored measurements. What is damaged is as good as absent.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.hypothesis_file.load_file import Document
from circuitspec.models.families.family_table import SUPPORTED
from circuitspec.models.model_config import read_config
from circuitspec.models.model_reference import resolve_reference
from circuitspec.models.storage.cache import sha256_of
from circuitspec.reports.saved_result import REPORT, SavedViews, read_saved
from circuitspec.repository.environment import environment
from circuitspec.repository.model_files import model_files
from circuitspec.runtime.files import write_text_whole

AS_USUAL: Mapping[str, object] = {"said": (), "prompts": False, "batch": None, "to": "None"}
"""What `verify FILE` without options says of its call."""

_FOLDER = "results"
_WRITTEN = "written.json"
MOST_BYTES = 2_000_000_000  # of model, dictionaries and other files: what is read in a second or two
_COMMIT = re.compile("[0-9a-f]{40}")
_SHOWING = ("pandas", "pyarrow", "networkx", "jinja2")  # what tables and pages are made with


@dataclass(frozen=True)
class KeptResult:
    """Where the result of one call is kept, or will be."""

    folder: Path

    def found(self, directory: Path | None) -> SavedViews | None:
        """The result, if it is there and, where the call writes tables to `directory`, these are there as written."""
        try:
            written = json.loads((self.folder / _WRITTEN).read_text(encoding="utf-8")) if directory else {}
            if directory and any(sha256_of(directory / name) != digest for name, digest in written.items()):
                return None
            return read_saved(self.folder / REPORT)
        except (OSError, ValueError, AttributeError, CircuitspecError):
            return None

    def keep(self, report: str, directory: Path | None) -> None:
        """Keep a saved result, and what the tables in `directory` are. Raises OSError where that fails."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if directory:
            written = {path.name: sha256_of(path) for path in sorted(directory.iterdir()) if path.is_file()}
            write_text_whole(self.folder / _WRITTEN, json.dumps(written))
        write_text_whole(self.folder / REPORT, report)


def kept_result(
    document: Document, read: Sequence[Path], root: Path, options: Mapping[str, object], device: str
) -> KeptResult | None:
    """Where below the store's `root` the result of this call is kept; `read` are the files that the hypothesis names.

    None where it cannot be known without the model: of a hub model that is not in the local cache, or of a
    branch that may have moved; where something is not there, so that the run says what; and of more than `MOST_BYTES`
    of files, of which reading all takes longer than the answer may.
    """
    spec = document.hypothesis.model
    try:
        reference = resolve_reference(spec, document.base_dir)
        if reference.kind == "hub" and not _COMMIT.fullmatch(spec.revision or "") and not _offline():
            return None
        found = model_files(spec, document.base_dir, chat=document.hypothesis.task.chat is not None)
        dictionaries = document.hypothesis.dictionaries.values()
        on_hub = [one.source for one in dictionaries if not isinstance(one.source, str)]
        config = found.files.get("config.json") if found is not None else None
        if config is not None and read_config(config).get("model_type") not in SUPPORTED:
            return None  # an entry of another package, which may change
        if found is None or not all(_COMMIT.fullmatch(one.revision or "") for one in on_hub):
            return None
        folders = [document.base_dir / one.source for one in dictionaries if isinstance(one.source, str)]
        named = [*_regular([*read, *folders])]
        if sum(path.stat().st_size for path in {*named, *found.files.values()}) > MOST_BYTES:
            return None
        content = {
            "text": document.source.text,
            "called": [str(document.source.file), str(document.base_dir.resolve())],
            "files": [[str(path), sha256_of(path)] for path in named],
            "model": [found.revision, found.digests()],
            "options": dict(options),
            "environment": environment(device).model_dump(mode="json"),
            "python": [platform.python_version(), *(f"{name} {version(name)}" for name in _SHOWING)],
            "code": _code_digest(),
        }
    except (OSError, CircuitspecError):
        return None
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return KeptResult(root / _FOLDER / key[:32])


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def _regular(paths: Sequence[Path]) -> Iterator[Path]:
    """The files, and of folders all files in them."""
    for path in paths:
        yield from (one for one in sorted(path.rglob("*")) if one.is_file()) if path.is_dir() else (path,)


def _code_digest() -> str:
    """SHA-256 of everything that this package holds as text: within one version it changes while it is worked on."""
    hashed = hashlib.sha256()
    for name, content in sorted(_contents(files("circuitspec"), "")):
        hashed.update(f"{name} {len(content)}\n".encode())
        hashed.update(content)
    return hashed.hexdigest()


def _contents(folder: Traversable, name: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _contents(entry, f"{name}/{entry.name}")
        elif not entry.name.endswith((".pyc", ".safetensors")):
            yield f"{name}/{entry.name}", entry.read_bytes()
