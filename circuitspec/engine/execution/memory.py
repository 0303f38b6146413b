"""Memory: how much a forward takes, how it is told that it ran out, and how many rows are tried next."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from circuitspec.engine.execution.batch_size import BUDGET

SHARE = 0.25  # of what is free
_MEMINFO = Path("/proc/meminfo")

# of the allocators for processors and for Metal, which raise a plain RuntimeError
_SAID = ("DefaultCPUAllocator", "MPS backend out of memory")


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed for lack of memory."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(said in str(error) for said in _SAID)
    )


def free_bytes(device: torch.device) -> int | None:
    """The memory that is free where a model runs; None where the system does not say."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, for what comes next
        return int(free) + held
    if device.type == "cpu" and _MEMINFO.is_file():  # Linux; what caches hold counts as free
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def budget_of(device: torch.device) -> int:
    """Bytes of activations that a forward may hold: a share of what is free; no more than `BUDGET` on a processor."""
    free = free_bytes(device)
    if free is None:
        return BUDGET
    return int(free * SHARE) if device.type == "cuda" else min(BUDGET, int(free * SHARE))


class PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it, `peak` is the largest number of bytes held at once by tensors that were made within it.

    Counted by what operations return, on every device alike; what they use meanwhile and give back is not seen.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._held = 0
        self._known: set[int] = set()

    def __enter__(self) -> Self:
        self._collecting = gc.isenabled()
        gc.disable()  # what waits for it would be given back at a moment that depends on all that ran before
        return super().__enter__()  # type: ignore[no-any-return, no-untyped-call]

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        if self._collecting:
            gc.enable()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = {tensor.untyped_storage().data_ptr() for tensor in _tensors((args, kwargs or {}))}
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            if tensor.untyped_storage().data_ptr() not in given:  # no view of something, and not written in place
                self._note(tensor)
        return result

    def _note(self, made: Tensor) -> None:
        storage = made.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self._held += size
        self.peak = max(self.peak, self._held)
        weakref.finalize(storage, self._given_back, key, size).atexit = False

    def _given_back(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._held -= size


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))


@dataclass
class Rows:
    """How many rows a forward takes: `whole` ones, or as many late ones as hold no more memory.

    Both are halved when memory runs out. `bytes_of(positions, column)` is what a row holds that is so long and begins
    at that column, gradients included. With a `budget` in bytes, a forward without gradients takes as many rows as fill
    it by what rows were seen to take; at most `most_whole` whole ones.
    """

    whole: int
    bytes_of: Callable[[int, int], int]
    budget: int | None = None
    most_whole: int | None = None
    _most: int | None = None
    _share: float = 0.0  # of `bytes_of` that a row without gradients was seen to take, at most
    _largest: int = 0  # forward that was seen, by `bytes_of`

    def forget(self) -> None:
        """What was seen, so that how forwards are cut does not depend on what ran before; what did not fit stays."""
        self._share, self._largest = 0.0, 0

    def is_new(self, rows: int, positions: int, column: int) -> bool:
        """Whether no forward as large as this one was seen yet, and it matters what it takes."""
        return self.budget is not None and rows * self.bytes_of(positions, column) > self._largest

    def seen(self, rows: int, positions: int, column: int, taken: int) -> None:
        """A forward of so many rows took so many bytes."""
        expected = rows * self.bytes_of(positions, column)
        self._share = max(self._share, taken / expected)
        self._largest = max(self._largest, expected)

    def beginning_at(self, column: int, positions: int) -> int:
        """The rows of a forward that begins at this column; no more than twice the largest that was seen."""
        whole, of_whole = self.whole, self.bytes_of(positions, 0)
        if self.budget is not None and self._share:
            fitting = min(int(self.budget / (self._share * of_whole)), 2 * self._largest // of_whole)
            fitting = fitting if self.most_whole is None else min(fitting, self.most_whole)
            whole = max(whole, fitting)
        rows = whole * of_whole // self.bytes_of(positions, column)
        return rows if self._most is None else min(rows, self._most)

    def halve(self, tried: int) -> None:
        """A forward of `tried` rows did not fit."""
        self._most = max(1, tried // 2)
        self.whole = min(self.whole, self._most)
