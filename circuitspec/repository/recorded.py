"""A result from a file: what `verify --format json` printed, what `--output-dir` saved, or a lock. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic, Span
from circuitspec.hypothesis_file.problems import dotted
from circuitspec.hypothesis_file.yaml.textfile import TextFile, read_text_file
from circuitspec.reports.saved_result import REPORT, VERSION_KEY, read_saved
from circuitspec.repository.lock import Environment, LockedClaim, Number, Status
from circuitspec.repository.lock_file import MAX_BYTES, read_lock


@dataclass(frozen=True)
class Recorded:
    """What two results are compared by; None for what the file does not say.

    Digests of the model's files and of directions, by file name, and seeds are in locks alone.
    """

    file: str
    name: str
    hypothesis_digest: str
    prompts_digest: str | None
    model: str
    revision: str | None
    dtype: str
    environment: Environment | None
    claims: tuple[LockedClaim, ...]
    files: Mapping[str, str] | None = None
    directions: Mapping[str, str] | None = None
    seeds: Mapping[str, int] | None = None


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class _Named(_Read):
    name: str
    digest: str


class _Model(_Read):
    id: str
    revision: str | None
    dtype: str


class _ClaimPart(_Read):
    name: str
    value: Number | None
    ci: tuple[Number, Number] | None


class _Claim(_Read):
    claim: str
    metric: str
    experiment: str
    measure: str
    status: Status
    value: Number | None
    ci: tuple[Number, Number] | None
    n: int
    parts: tuple[_ClaimPart, ...] = ()


class _Result(_Read):
    format_version: Literal[1]
    hypothesis: _Named
    model: _Model
    prompts_digest: str | None
    claims: tuple[_Claim, ...]
    environment: Environment | None = None


def read_recorded(path: Path) -> Recorded:
    """Read a result or a lock; of a folder the result that is saved in it.

    Raises CircuitspecError: CS558 for a file that is neither, CS551 for a lock that was changed after it was written,
    CS548 and CS549 for a saved result that cannot be read.
    """
    if path.is_dir():
        path = path / REPORT
    kind = TextFile(path.name, MAX_BYTES, unreadable="CS558", too_large="CS558", not_utf8="CS558")
    text = read_text_file(path, kind)
    if not text.lstrip().startswith("{"):
        return _from_lock(path)
    try:
        content = json.loads(text)
        saved = isinstance(content, dict) and VERSION_KEY in content
        found = _Result.model_validate(read_saved(path).document if saved else content)
    except ValidationError as error:
        first = error.errors()[0]
        message = f"{path.name} is no result of `verify --format json`: `{dotted(first['loc'])}`: {first['msg']}"
        raise _neither(message, path) from error
    except (ValueError, RecursionError) as error:
        raise _neither(f"{path.name} is not JSON: {error}", path) from error
    return Recorded(
        str(path),
        found.hypothesis.name,
        found.hypothesis.digest,
        found.prompts_digest,
        found.model.id,
        found.model.revision,
        found.model.dtype,
        found.environment,
        tuple(LockedClaim(**claim.model_dump()) for claim in found.claims),
    )


def _from_lock(path: Path) -> Recorded:
    read = read_lock(path)
    if read.damage:
        raise CircuitspecError(*read.damage)
    lock = read.lock
    return Recorded(
        str(path),
        lock.hypothesis.name,
        lock.hypothesis.digest,
        lock.prompts.digest,
        lock.model.id,
        lock.model.revision,
        lock.model.dtype,
        lock.environment,
        lock.claims,
        lock.model.files,
        lock.directions,
        lock.seeds,
    )


def _neither(message: str, path: Path) -> CircuitspecError:
    hint = "give what `circuitspec verify FILE --format json` prints, a folder of --output-dir, or a lock"
    return CircuitspecError(Diagnostic("CS558", message, Span(str(path), 1, 1), hint=hint))
