"""Files, read only if they are files, and written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

_NOT_FILES = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
_NAME_BYTES = 255  # of a file's name, on the file systems in use


class TooLarge(OSError):
    """A file holds more bytes than it may."""


def read_regular(path: Path, at_most: int) -> bytes:
    """The bytes of a regular file. Nothing else is opened: a pipe or device could keep its reader waiting for ever.

    Raises OSError, among them FileNotFoundError and TooLarge; ValueError for a NUL in the path.
    """
    if what := not_a_file(path.stat().st_mode):
        raise OSError(0, f"it is {what}, not a regular file")
    with path.open("rb") as stream:
        raw = stream.read(at_most + 1)
    if len(raw) > at_most:
        raise TooLarge(0, f"it is larger than {at_most // 1_000_000} MB")
    return raw


def not_a_file(mode: int) -> str:
    """What a thing of this mode is that is no regular file: `a pipe`; empty for a file."""
    if stat.S_ISREG(mode):
        return ""
    return next((name for is_kind, name in _NOT_FILES if is_kind(mode)), "a device")


def put_in_place(path: Path, write: Callable[[Path], object]) -> None:
    """Have a file written aside, flush it to the disk, then rename it to `path`, whose mode it gets if that is there.

    So nobody meets half a file, or none where there was one, after a full disk or a crash either. A link is followed:
    what it leads to is replaced. A file that may not be written to is not replaced. What is no regular file (a
    terminal, a pipe) has nothing to lose and is written to as it is. Raises OSError, which names `path`.
    """
    try:
        mode = _mode_of(path)
        if mode is not None and not_a_file(mode) and not stat.S_ISDIR(mode):
            write(path)
            return
        if mode is not None and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        target = Path(os.path.realpath(path)) if path.is_symlink() else path
        aside = target.with_name(_name_aside(target.name))
        try:
            write(aside)
            if mode is not None:
                aside.chmod(stat.S_IMODE(mode))
            with aside.open("rb+") as stream:
                os.fsync(stream.fileno())  # a network file system may say only now that it is full
            os.replace(aside, target)
        finally:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
    except OSError as error:
        raise _naming(path, error) from error


def write_text_whole(path: Path, text: str) -> None:
    """Put UTF-8 text in place. Raises OSError, which names `path`."""
    write_whole(path, text.encode("utf-8"))


def write_whole(path: Path, content: bytes) -> None:
    """Put bytes in place. Raises OSError, which names `path`."""
    put_in_place(path, lambda aside: aside.write_bytes(content))


def _mode_of(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def _name_aside(name: str) -> str:
    """A name beside `name` that nobody else uses, and that is no longer than names may be."""
    mark = f".{os.getpid()}-{secrets.token_hex(4)}.part"
    kept = os.fsencode(name)[: _NAME_BYTES - 1 - len(mark)]
    return f".{os.fsdecode(kept)}{mark}"


def _naming(path: Path, error: OSError) -> OSError:
    """The same error about `path`, whichever file it was about."""
    return OSError(error.errno or 0, error.strerror or str(error), str(path))
