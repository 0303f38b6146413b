"""Files from elsewhere -> plain data: JSON, restricted pickles, PyTorch's tensors. Nothing in them is ever run."""

from __future__ import annotations

import codecs
import io
import json
import pickle
import pickletools
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic, Span
from circuitspec.runtime.collecting import uncollected
from circuitspec.runtime.files import TooLarge, read_regular

MAX_JSON_BYTES = 256_000_000
MAX_PICKLE_BYTES = 64_000_000
MAX_TORCH_BYTES = 1_000_000_000
MAX_DEPTH = 100  # of tuples in tuples

# what reading a damaged or hostile pickle was seen to raise
_PICKLE_ERRORS = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    ImportError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)


def unreadable(path: Path, message: str, hint: str = "") -> CircuitspecError:
    """CS382: the file is not there, too large, or not of the kind that its format is."""
    return CircuitspecError(Diagnostic("CS382", f"{path}: {message}", hint=hint))


def read_json(path: Path, small: Callable[[list[tuple[str, object]]], object] | None = None) -> object:
    """The value of a JSON file, NaN and infinity included, as Python's own writer writes them.

    `small` may make another value than a dict of an object's keys and values, or give None; that no key stands twice is
    then its affair.
    Raises CircuitspecError (CS382).
    """

    def made(pairs: list[tuple[str, object]]) -> object:
        found = None if small is None else small(pairs)
        return _no_repeats(pairs) if found is None else found

    text = _text(path)
    try:
        with uncollected():  # millions of values and none to throw away
            value: object = json.loads(text, object_pairs_hook=_no_repeats if small is None else made)
    except json.JSONDecodeError as error:
        place = Span(str(path), error.lineno, error.colno)
        raise CircuitspecError(Diagnostic("CS382", f"this is not JSON: {error.msg}", place)) from None
    except RecursionError:
        raise unreadable(path, "this JSON is nested too deeply") from None
    except ValueError as error:  # a key twice, a number of 5000 digits
        raise unreadable(path, f"this JSON cannot be read: {error}") from None
    return value


def _text(path: Path) -> str:
    try:
        return _read(path, MAX_JSON_BYTES).removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError:
        raise unreadable(path, "this is not JSON, which is UTF-8 text") from None


def _no_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return content


class _Unpickler(pickle.Unpickler):
    def __init__(self, raw: bytes, classes: Mapping[tuple[str, str], type]) -> None:
        super().__init__(io.BytesIO(raw))
        self._classes = classes

    def find_class(self, module: str, name: str) -> type:
        found = self._classes.get((module, name))
        if found is None:
            raise _RefusedError(f"{module}.{name}")
        return found


class _RefusedError(Exception):
    """A pickle asks for a class or function that is not known to be harmless."""


def read_pickle(path: Path, classes: Mapping[tuple[str, str], type]) -> object:
    """The value of a pickle of plain data and of these classes, by the names under which a pickle refers to them.

    Raises CircuitspecError: CS382 for what is no readable pickle, CS384 for one that asks for anything else.
    """
    return _unpickled(path, _read(path, MAX_PICKLE_BYTES), classes)


def read_pickle_or_tensors(path: Path, classes: Mapping[tuple[str, str], type]) -> object:
    """As `read_pickle` or `read_tensors`, whichever the file is."""
    raw = _read(path, MAX_PICKLE_BYTES)
    return _loaded(path, raw) if raw.startswith(b"PK") else _unpickled(path, raw, classes)


def read_tensors(path: Path, classes: Sequence[type] = ()) -> object:
    """The value of a file that `torch.save` wrote: plain data and tensors, on the CPU. Imports torch.

    `classes` are read, too, by their module and name: as empty objects that are given the attributes that the file has.
    Raises CircuitspecError: CS382 for what cannot be read, CS384 for a file that holds anything but data.
    """
    return _loaded(path, _read(path, MAX_TORCH_BYTES), classes)


def _unpickled(path: Path, raw: bytes, classes: Mapping[tuple[str, str], type]) -> object:
    try:
        _check_pickle(raw)
        value: object = _Unpickler(raw, classes).load()
    except _RefusedError as error:
        raise _refused(path, str(error)) from None
    except _PICKLE_ERRORS as error:
        raise unreadable(path, f"this is not a pickle that can be read: {error}") from None
    return value


_PUTS, _GETS = ("PUT", "BINPUT", "LONG_BINPUT"), ("GET", "BINGET", "LONG_BINGET")
_TUPLES = ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3")


def _check_pickle(raw: bytes) -> None:
    """Refuse (ValueError) what would bring the reader down before it could refuse anything.

    A remembered value under a huge number makes it allocate memory for all smaller ones, and the hash of a tuple nested
    a million deep overflows its stack. So the program is followed here without being run, with only the depth of tuples
    for values (-1 marks where a slice of the stack starts).
    """
    stack: list[int] = []
    memo: dict[int, int] = {}
    for opcode, argument, _ in pickletools.genops(raw):
        name = opcode.name
        if name in _PUTS or name == "MEMOIZE":
            place = len(memo) if name == "MEMOIZE" else int(argument)  # type: ignore[arg-type]
            if not 0 <= place <= len(raw):
                raise ValueError(f"it numbers a value {place}")
            memo[place] = stack[-1]
            continue
        if name in _GETS:
            stack.append(memo[int(argument)])  # type: ignore[arg-type]
            continue
        if name == "MARK":
            stack.append(-1)
            continue
        taken, count = [], len(opcode.stack_before)
        if pickletools.markobject in opcode.stack_before:
            while (depth := stack.pop()) != -1:
                taken.append(depth)
            count = opcode.stack_before.index(pickletools.markobject)
        taken += [stack.pop() for _ in range(count)]
        depth = 1 + max(taken, default=0) if name in _TUPLES else taken[0] if name == "DUP" else 0
        if depth > MAX_DEPTH:
            raise ValueError(f"tuples are nested more than {MAX_DEPTH} deep")
        stack += [depth] * len(opcode.stack_after)


def _loaded(path: Path, raw: bytes, classes: Sequence[type] = ()) -> object:
    import torch

    _check_archive(path, raw)
    with warnings.catch_warnings(), torch.serialization.safe_globals([*classes]):
        warnings.simplefilter("ignore")
        try:
            value: object = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            # its own message recommends to load the file without protection, so it is not passed on
            wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
            if wanted is not None:
                raise _refused(path, wanted[1]) from None
            raise unreadable(path, "PyTorch cannot read it as tensors and plain data") from None
        except (*_PICKLE_ERRORS, RuntimeError, AssertionError, OSError):
            raise unreadable(path, "PyTorch cannot read it") from None
    return value


def _check_archive(path: Path, raw: bytes) -> None:
    """Refuse (CS382) an archive that would unpack to far more than it seems to hold, and a pickle in it as above."""
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > MAX_TORCH_BYTES:
                raise ValueError(f"it unpacks to more than {MAX_TORCH_BYTES // 1_000_000} MB")
            for entry in entries:
                if entry.filename.endswith(".pkl"):
                    _check_pickle(archive.read(entry))
    except (*_PICKLE_ERRORS, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, OSError) as error:
        raise unreadable(path, f"this is no file that torch.save wrote: {error}") from None


def _refused(path: Path, what: str) -> CircuitspecError:
    return CircuitspecError(
        Diagnostic(
            "CS384",
            f"{path} is refused: it asks for {what}",
            hint="a circuit is plain data; a pickle that asks for other things can run any program. "
            "Load it where you trust it, and save the edges as JSON",
        )
    )


def _read(path: Path, at_most: int) -> bytes:
    try:
        return read_regular(path, at_most)
    except TooLarge:
        raise unreadable(path, f"the file is larger than {at_most // 1_000_000} MB") from None
    except FileNotFoundError:
        raise unreadable(path, "there is no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise unreadable(path, f"the file cannot be read: {reason}") from None
