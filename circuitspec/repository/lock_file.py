"""Locks on disk: YAML, so that a change can be read in a diff and shown at its line."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic, Span
from circuitspec.hypothesis_file.problems import dotted
from circuitspec.hypothesis_file.yaml.source import Path_, SourceText, parse_source
from circuitspec.hypothesis_file.yaml.textfile import TextFile, read_text_file
from circuitspec.repository.lock import LOCK_VERSION, Lock, checksums
from circuitspec.runtime.files import write_text_whole
from circuitspec.runtime.visible_text import visible

MAX_BYTES = 64_000_000

_ANEW = "restore it from version control, or write it anew: circuitspec lock FILE"


@dataclass(frozen=True)
class LockFile:
    """A lock, the places of its parts, and what shows that it is not as it was written."""

    lock: Lock
    source: SourceText
    damage: tuple[Diagnostic, ...] = ()

    def span(self, *path: str | int) -> Span:
        return self.source.span(path)


def read_lock(path: Path) -> LockFile:
    """Read a lock.

    Raises CircuitspecError: CS550 where it cannot be read, CS551 where it is no lock of a version known here, CS103 to
    CS119 where it is not YAML. Parts that do not match their checksums are told as `damage` (CS551), not raised: what
    they say may still help to name what changed.
    """
    kind = TextFile(
        "the lock",
        MAX_BYTES,
        unreadable="CS550",
        too_large="CS550",
        not_utf8="CS551",
        if_missing="write it with: circuitspec lock FILE",
    )
    source = parse_source(read_text_file(path, kind), str(path))
    data = source.data
    if not isinstance(data, dict) or "lock_version" not in data:
        raise _no_lock("this is no lock", source.span(()), "a lock begins with `lock_version`")
    if data["lock_version"] != LOCK_VERSION:
        raise _no_lock(
            f"this is a lock of version {data['lock_version']}; version {LOCK_VERSION} is known here",
            source.span(("lock_version",)),
            "use the circuitspec that wrote it, or write it anew: circuitspec lock FILE",
        )
    try:
        lock = Lock.model_validate({key: value for key, value in data.items() if key != "checksums"})
    except ValidationError as error:
        raise CircuitspecError(*(_misfit(source, e["loc"], e["msg"]) for e in error.errors()[:20])) from error
    return LockFile(lock, source, _damage(source, data))


def _no_lock(message: str, span: Span, hint: str) -> CircuitspecError:
    return CircuitspecError(Diagnostic("CS551", message, span, hint=hint))


def _misfit(source: SourceText, path: Path_, message: str) -> Diagnostic:
    said = f"`{dotted(path)}` is not what a lock says there: {message[:1].lower()}{message[1:]}"
    return Diagnostic("CS551", said, source.span(path), hint=_ANEW)


def _damage(source: SourceText, data: dict[str, Any]) -> tuple[Diagnostic, ...]:
    written = data.get("checksums")
    found = checksums(data)
    if not isinstance(written, dict):
        return (Diagnostic("CS551", "the lock has no checksums", source.span(()), hint=_ANEW),)
    damage = []
    for name in (name for name in {**found, **written} if found.get(name) != written.get(name)):
        path: Path_ = (name,)
        if name not in found:
            called = f"the checksum of `{name}`"
        elif name.startswith("claims["):
            index = int(name[len("claims[") : -1])
            path, claim = ("claims", index), data["claims"][index]
            called = f"claim {index + 1} ({claim['claim']}, {claim['metric']})"
        else:
            called = f"`{name}`"
        message = f"{called} was changed after the lock was written"
        label = "it does not match its checksum in the lock"
        damage.append(Diagnostic("CS551", message, source.span(path), label, _ANEW))
    return tuple(damage)


def render_lock(lock: Lock, hypothesis: str) -> str:
    """The lock as YAML; `hypothesis` is the name of the file that it is of."""
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap
    from ruamel.yaml.scalarstring import LiteralScalarString

    plain: dict[str, Any] = lock.content()
    content = CommentedMap(_quoted({**plain, "checksums": checksums(plain)}))
    content["hypothesis"]["content"] = LiteralScalarString(plain["hypothesis"]["content"])
    content["prompts"]["lines"] = LiteralScalarString(plain["prompts"]["lines"])
    content.yaml_set_start_comment(f"Written by `circuitspec lock {visible(hypothesis)}`; not to be edited by hand.")
    yaml = YAML()
    yaml.width = 10_000
    stream = io.StringIO()
    yaml.dump(content, stream)
    return stream.getvalue()


def _quoted(value: Any) -> Any:
    """Every text in quotes, so that no digest or version can be taken for a number."""
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString

    match value:
        case str():
            return DoubleQuotedScalarString(value)
        case dict():
            return {key: _quoted(item) for key, item in value.items()}
        case list():
            return [_quoted(item) for item in value]
    return value


def write_lock(path: Path, lock: Lock, hypothesis: str) -> None:
    """Write the lock aside, then put it in place. Raises CS557 where that fails; what was there before then stays."""
    try:
        write_text_whole(path, render_lock(lock, hypothesis))
    except OSError as error:
        message = f"the lock cannot be written to {path}: {error.strerror or error}"
        raise CircuitspecError(Diagnostic("CS557", message)) from error
