"""Measured values that outlive their run: an append-only store, addressed by what the values depend on.

A store is a folder of segments. Each process that adds something adds a segment of its own, and nobody ever writes to
another's; so any number of processes write at once without locks, which network file systems do not keep reliably.
For the same reason it is no database: in SQLite's write-ahead mode all writers must be on one machine, and a
damaged page may cost every row, where here damage costs the entries that it hits.

A segment is a sequence of records, and a record is, numbers little-endian:

    magic      8 bytes   b"CSRECOR1"; the last character is the version of this format
    key       32 bytes   see `engine.cache.store_keys`
    length     8 bytes   of the payload
    checksum  32 bytes   SHA-256 of key and payload
    crc        4 bytes   CRC-32 of the 80 bytes before, so that `length` can be trusted without reading the payload
    payload              one line of JSON, {"metrics": [names], "prompts": n}, then the values as float64,
                         metric by metric, in the order of the prompts

Opening a store reads the heads alone. A process that is killed leaves at most one record without its end, the last of
its segment: it lies beyond the end of the file and does not count. Where a head is damaged, the next good one is looked
for; where a payload is, its checksum fails. Either way the entry is as good as absent, to be measured
and added again; nothing that does not match its checksums is ever returned.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import struct
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.records import PromptValues
from circuitspec.runtime.files import write_text_whole
from circuitspec.runtime.visible_text import as_json

_MAGIC = b"CSRECOR1"
_HEAD = struct.Struct("<8s32sQ32s")
_CRC = struct.Struct("<I")
_HEAD_BYTES = _HEAD.size + _CRC.size
_SUFFIX = ".records"
_ABOUT = "about.json"
_BLOCK = 2**20  # bytes read at once in search of the next record


@dataclass(frozen=True)
class _Place:
    """Where a record's payload lies, and the checksum it must have."""

    segment: str
    start: int
    length: int
    checksum: bytes


class Store:
    """Metrics per prompt by key, in one folder. Use as a context manager, or close it.

    `about` is written down in the folder for people; nothing reads it. In memory is where each entry lies, not
    its values. Raises CS545 where the folder cannot be written, CS546 where it cannot be read; with `spare` it is told
    of the first such failure instead, and from then on nothing is kept and nothing known.
    """

    def __init__(
        self,
        directory: Path,
        about: Mapping[str, object] | None = None,
        spare: Callable[[CircuitspecError], None] | None = None,
    ) -> None:
        self.directory = directory
        self.spare, self._off = spare, False
        self._places: dict[bytes, list[_Place]] = {}
        self._known: dict[str, int] = {}  # segment -> bytes of it that were looked through
        self._own: FileIO | None = None
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if about is not None and not (directory / _ABOUT).exists():
                write_text_whole(directory / _ABOUT, as_json(about, indent=1))
        except OSError as error:
            self._fail(_unwritable(directory, error), error)
        self.refresh()

    def _fail(self, problem: CircuitspecError, cause: OSError) -> None:
        if self.spare is None:
            raise problem from cause
        self._off, self._places = True, {}
        self.spare(problem)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back the file that this process writes to; the next `put` begins another."""
        if self._own is not None:
            self._own.close()
            self._own = None

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: bytes) -> bool:
        """Whether there is an entry; its payload is not looked at."""
        return key in self._places

    def refresh(self) -> None:
        """Take note of what other processes have added since."""
        if self._off:
            return
        try:
            with os.scandir(self.directory) as entries:
                sizes = {entry.name: entry.stat().st_size for entry in entries if entry.name.endswith(_SUFFIX)}
            for segment in sorted(sizes):
                if sizes[segment] > self._known.get(segment, 0):
                    self._look_through(segment)
        except OSError as error:
            self._fail(_unreadable(self.directory, error), error)

    def get(self, keys: Iterable[bytes]) -> dict[bytes, PromptValues]:
        """What is stored under these keys; those that are absent or damaged are left out."""
        found: dict[bytes, PromptValues] = {}
        wanted = {key: list(self._places[key]) for key in keys if key in self._places}
        while wanted:  # once, but for entries that were added again because they were damaged
            by_segment: dict[str, list[tuple[int, bytes, _Place]]] = defaultdict(list)
            for key, places in wanted.items():
                place = places.pop()
                by_segment[place.segment].append((place.start, key, place))
            for segment in sorted(by_segment):
                found |= self._read(segment, by_segment[segment])
            wanted = {key: places for key, places in wanted.items() if key not in found and places}
        return found

    def put(self, entries: Mapping[bytes, PromptValues], *, lasting: bool = True) -> None:
        """Add entries. When this returns, they outlive the process, and where `lasting` they are on the disk."""
        records, places, at = [], [], 0
        for key, values in entries.items():
            payload = _encode(values)
            checksum = hashlib.sha256(key + payload).digest()
            head = _HEAD.pack(_MAGIC, key, len(payload), checksum)
            records += [head, _CRC.pack(zlib.crc32(head)), payload]
            places.append((key, at + _HEAD_BYTES, len(payload), checksum))
            at += _HEAD_BYTES + len(payload)
        if not records or self._off:
            return
        appended = self._append(b"".join(records), lasting)
        if appended is None:
            return
        segment, start = appended
        for key, offset, length, checksum in places:
            self._places.setdefault(key, []).append(_Place(segment, start + offset, length, checksum))

    def _look_through(self, segment: str) -> None:
        """Note the records of a segment that are not known yet."""
        try:
            with (self.directory / segment).open("rb", buffering=0) as file:
                for key, start, length, checksum in _heads(file, self._known.get(segment, 0)):
                    self._places.setdefault(key, []).append(_Place(segment, start, length, checksum))
                    self._known[segment] = start + length
        except FileNotFoundError:  # someone made room meanwhile
            return

    def drop_own(self) -> None:
        """Remove what this process has put here since it last did so."""
        if self._own is None:
            return
        path = Path(str(self._own.name))
        self.close()
        self._known.pop(path.name, None)
        kept = {key: [place for place in places if place.segment != path.name] for key, places in self._places.items()}
        self._places = {key: places for key, places in kept.items() if places}
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            self._fail(_unwritable(self.directory, error), error)

    def drop_older(self, seconds: float) -> None:
        """Remove what nobody has added to for so long: it was left by processes that were killed."""
        if self._off:
            return
        oldest = time.time() - seconds
        try:
            with os.scandir(self.directory) as entries:
                left = [e.path for e in entries if e.name.endswith(_SUFFIX) and e.stat().st_mtime < oldest]
            for path in left:
                Path(path).unlink(missing_ok=True)
        except FileNotFoundError:  # another process was faster
            return
        except OSError as error:
            self._fail(_unwritable(self.directory, error), error)

    def _append(self, content: bytes, lasting: bool) -> tuple[str, int] | None:
        """Write to this process's own segment; its name, and where in it the content begins. None: it was not kept."""
        try:
            if self._own is None:
                name = f"{time.time_ns():016x}-{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}"
                self._own = FileIO(self.directory / name, "xb")
            start, rest = self._own.tell(), memoryview(content)
            while rest:
                rest = rest[self._own.write(rest) :]
            if lasting:
                os.fsync(self._own.fileno())  # where the disk is full, a network file system may say so only now
        except OSError as error:
            self.close()  # what was written of the content ends the segment: nothing may follow it
            self._fail(_unwritable(self.directory, error), error)
            return None
        segment = Path(str(self._own.name)).name
        self._known[segment] = self._own.tell()
        return segment, start

    def _read(self, segment: str, wanted: list[tuple[int, bytes, _Place]]) -> dict[bytes, PromptValues]:
        """The entries of one segment whose checksums hold."""
        found: dict[bytes, PromptValues] = {}
        try:
            with (self.directory / segment).open("rb", buffering=0) as file:
                for start, key, place in sorted(wanted, key=lambda entry: entry[0]):
                    file.seek(start)
                    payload = _exactly(file, place.length)
                    if hashlib.sha256(key + payload).digest() == place.checksum:
                        found[key] = _decode(payload)
        except FileNotFoundError:  # someone made room meanwhile
            return found
        except OSError as error:
            self._fail(_unreadable(self.directory, error), error)
        return found


def _heads(file: FileIO, start: int) -> Iterator[tuple[bytes, int, int, bytes]]:
    """From `start` on, every record that is there in full: key, where its payload starts, its length and checksum."""
    size = os.fstat(file.fileno()).st_size
    at: int | None = start
    while at is not None and at + _HEAD_BYTES <= size:
        file.seek(at)
        head = _parse(_exactly(file, _HEAD_BYTES))
        if head is None:
            at = _next_head(file, at + 1, size)
            continue
        key, length, checksum = head
        at += _HEAD_BYTES
        if at + length > size:
            return
        yield key, at, length, checksum
        at += length


def _parse(head: bytes) -> tuple[bytes, int, bytes] | None:
    """Key, length and checksum, if this is the head of a record."""
    if len(head) < _HEAD_BYTES or _CRC.unpack_from(head, _HEAD.size)[0] != zlib.crc32(head[: _HEAD.size]):
        return None
    magic, key, length, checksum = _HEAD.unpack_from(head)
    return (key, length, checksum) if magic == _MAGIC else None


def _next_head(file: FileIO, start: int, size: int) -> int | None:
    """Where the next record begins, at `start` or later."""
    while start + _HEAD_BYTES <= size:
        file.seek(start)
        block = _exactly(file, min(_BLOCK + _HEAD_BYTES - 1, size - start))
        found = block.find(_MAGIC)
        while 0 <= found <= len(block) - _HEAD_BYTES:
            if _parse(block[found : found + _HEAD_BYTES]) is not None:
                return start + found
            found = block.find(_MAGIC, found + 1)
        start += _BLOCK
    return None


def _exactly(file: FileIO, length: int) -> bytes:
    """So many bytes, fewer only where the file ends."""
    parts = []
    while length > 0:
        part = file.read(length)
        if not part:
            break
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _encode(values: PromptValues) -> bytes:
    table = np.array(list(values.values()), dtype="<f8")
    return json.dumps({"metrics": list(values), "prompts": table.shape[-1]}).encode() + b"\n" + table.tobytes()


def _decode(payload: bytes) -> dict[str, NDArray[np.float64]]:
    """The values of a payload whose checksum holds."""
    line = payload.index(b"\n") + 1
    header = json.loads(payload[:line])
    shape = len(header["metrics"]), header["prompts"]
    table = np.frombuffer(payload, dtype="<f8", offset=line).reshape(shape).astype(np.float64)
    return dict(zip(header["metrics"], table, strict=True))


def _unwritable(directory: Path, error: OSError) -> CircuitspecError:
    return CircuitspecError(
        Diagnostic(
            "CS545",
            f"results cannot be stored in {directory}: {error.strerror or error}",
            hint="what was stored before is untouched; make room, name another folder with --store, or use --no-store",
        )
    )


def _unreadable(directory: Path, error: OSError) -> CircuitspecError:
    return CircuitspecError(
        Diagnostic(
            "CS546",
            f"the store {directory} cannot be read: {error.strerror or error}",
            hint="name another folder with --store, or use --no-store",
        )
    )
