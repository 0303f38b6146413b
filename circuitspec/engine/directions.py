"""Directions that projections are taken along, from files of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from circuitspec.diagnostics import CircuitspecError, Diagnostic
from circuitspec.spec.internal import Internal, Projection
from circuitspec.spec.textfile import TextFile, read_text_file

MAX_BYTES = 10_000_000


def read_directions(metrics: Sequence[Internal], base_dir: Path, d_model: int) -> dict[str, Tensor]:
    """The direction of every projection by its file's name: d_model numbers, apart by commas or white space.

    Raises CS432 for a file that cannot be read, or that does not hold as many finite numbers.
    """
    return {m.along: _read(m.along, base_dir, d_model) for m in metrics if isinstance(m, Projection)}


def _read(name: str, base_dir: Path, d_model: int) -> Tensor:
    kind = TextFile(name, MAX_BYTES, unreadable="CS432", too_large="CS432", not_utf8="CS432")
    words = read_text_file(base_dir / name, kind).replace(",", " ").split()
    try:
        numbers = [float(word) for word in words]
    except ValueError as error:
        raise _wrong(f"{name} does not hold numbers alone: {error}") from error
    if len(numbers) != d_model or not all(map(math.isfinite, numbers)) or not any(numbers):
        raise _wrong(f"{name} holds {len(numbers)} numbers; the model's vectors have {d_model}, finite and not all 0")
    return torch.tensor(numbers, dtype=torch.float64)


def _wrong(message: str) -> CircuitspecError:
    return CircuitspecError(Diagnostic("CS432", message, hint="write one number for each of the model's dimensions"))
