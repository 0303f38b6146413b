"""Linear subspaces of a component's value, along which alone it is patched. Imports no torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

ORTHONORMAL = 1e-5
"""How far `R^T R` may be from the identity, entry by entry."""

_RANDOM = "random subspace"


@dataclass(frozen=True)
class Subspace:
    """The span of the orthonormal columns of a basis `[width, rank]`; equal where the numbers of the bases are."""

    digest: str
    width: int
    rank: int
    numbers: bytes = field(compare=False, repr=False)  # float64, row by row

    @classmethod
    def of(cls, basis: NDArray[np.floating]) -> Subspace:
        """The subspace of a basis. Raises ValueError where its columns are not orthonormal."""
        numbers = np.ascontiguousarray(basis, dtype="<f8")
        if numbers.ndim != 2 or not 0 < numbers.shape[1] <= numbers.shape[0]:
            raise ValueError(f"a basis has a column for each direction, and no more than rows; this is {numbers.shape}")
        off = deviation(numbers)
        if not off <= ORTHONORMAL:
            raise ValueError(f"its columns are not orthonormal: R^T R is off by {off:.2g}")
        width, rank = numbers.shape
        raw = numbers.tobytes()
        return cls(hashlib.sha256(f"{width}x{rank}:".encode() + raw).hexdigest(), width, rank, raw)

    @property
    def basis(self) -> NDArray[np.float64]:
        """`[width, rank]`."""
        return np.frombuffer(self.numbers, dtype="<f8").reshape(self.width, self.rank)

    def __str__(self) -> str:
        return f"rank {self.rank}"


def deviation(basis: NDArray[np.float64]) -> float:
    """How far the columns are from orthonormal: the largest entry of `|R^T R - I|`, infinite if not all are finite."""
    if not np.isfinite(basis).all():
        return float("inf")
    return float(np.abs(basis.T @ basis - np.eye(basis.shape[1])).max())


def principal_angles(one: NDArray[np.floating], other: NDArray[np.floating]) -> NDArray[np.float64]:
    """The angles between two subspaces, in radians, smallest first; of the spans of orthonormal columns.

    By sines where angles are small, which cosines cannot tell from 0.
    """
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if a.shape[1] < b.shape[1]:
        a, b = b, a
    cosines = np.linalg.svd(a.T @ b, compute_uv=False)
    sines = np.linalg.svd(b - a @ (a.T @ b), compute_uv=False)
    return np.sort(np.arctan2(np.sort(sines), np.sort(cosines)[::-1]))


def random_name(number: int) -> str:
    """What the random subspace of this number, from 0, is called among controls."""
    return f"{_RANDOM} {number + 1}"


def is_random(name: str) -> bool:
    """Whether a control is one of the random subspaces."""
    return name.startswith(_RANDOM)


def random_basis(width: int, rank: int, seed: int) -> NDArray[np.float64]:
    """An orthonormal basis `[width, rank]` of a subspace drawn uniformly."""
    drawn = np.random.default_rng([seed, width, rank]).standard_normal((width, rank))
    basis: NDArray[np.float64] = np.linalg.qr(drawn)[0]
    return basis
