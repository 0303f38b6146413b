"""Subspaces that values alone tell, and a subspace in two parts by them: along the mean differences of a variable, and
across them. Imports no torch.

Makelov et al. (2023) split a direction into what later parts read and what they do not, and patch each part alone. This
split needs data alone: D is the span of the mean values of the variable's values less the mean of these. Of a basis R,
the part along is the span of P R, where P projects onto D, and the part across the span of R - P R. Each lies at right
angles to the other, and both together hold R.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ALONG, ACROSS, BOTH = "along the mean difference", "across it", "along and across"
MEANS, PCA = "difference of means", "PCA"
MOST_ROWS = 2000  # that principal directions are taken of
LEAST = 1e-3
"""Mean differences, and parts of a basis, that are smaller than this share of the largest are taken for rounding."""


@dataclass(frozen=True)
class SubspaceParts:
    """Orthonormal bases `[width, rank]` of the parts; None where there is nothing of the subspace in it."""

    along: NDArray[np.float64] | None
    across: NDArray[np.float64] | None

    @property
    def both(self) -> NDArray[np.float64]:
        """A basis of both parts together, each at the source's value by itself."""
        return np.concatenate([part for part in (self.along, self.across) if part is not None], axis=1)

    @property
    def bases(self) -> Mapping[str, NDArray[np.float64]]:
        """By name, those to patch beside the subspace itself: of a subspace with one part only, none."""
        if self.along is None or self.across is None:
            return {}
        return {ALONG: self.along, ACROSS: self.across, BOTH: self.both}


def mean_directions(values: NDArray[np.float64], told: Sequence[Hashable]) -> NDArray[np.float64] | None:
    """A basis of the span of mean differences, `[width, at most kinds - 1]`, of values `[n, width]`.

    `told` says what the variable is in each row; None where it is the same in all, or no mean differs.
    """
    means = centred_means(values, told)
    return None if means is None else span_of(means, least=LEAST)


def centred_means(values: NDArray[np.float64], told: Sequence[Hashable]) -> NDArray[np.float64] | None:
    """The means of `values` `[n, width]` by what the variable is there, less their mean; None of one kind alone."""
    kinds = {kind: number for number, kind in enumerate(dict.fromkeys(told))}
    if len(kinds) < 2:
        return None
    labels = np.array([kinds[one] for one in told])
    means = np.stack([values[labels == number].mean(0) for number in range(len(kinds))])
    centred: NDArray[np.float64] = means - means.mean(0)
    return centred


def means_basis(values: NDArray[np.float64], told: Sequence[Hashable], rank: int) -> NDArray[np.float64] | None:
    """The span of the means of `values` `[n, width]` by what the variable is there, less their mean: at most `rank`."""
    means = centred_means(values, told)
    return None if means is None else span_of(means, rank)


def pca_basis(values: NDArray[np.float64], rank: int) -> NDArray[np.float64] | None:
    """The first principal directions of `values` `[n, width]`, of many values by every few of them."""
    some = values[:: 1 + len(values) // MOST_ROWS]
    return span_of(some - some.mean(0), rank)


def split(basis: NDArray[np.float64], means: NDArray[np.float64]) -> SubspaceParts:
    """The parts of a basis `[width, rank]` along and across the span of orthonormal `means` `[width, m]`."""
    along = means @ (means.T @ basis)
    return SubspaceParts(_part(along), _part(basis - along))


def span_of(rows: NDArray[np.float64], rank: int | None = None, *, least: float = 1e-8) -> NDArray[np.float64] | None:
    """An orthonormal basis `[width, at most rank]` of the span of rows `[n, width]`, the largest directions first.

    Directions with less than the share `least` of the largest are left out; None where all are nothing.
    """
    _, sizes, directions = np.linalg.svd(rows, full_matrices=False)
    most = int((sizes > sizes[0] * least).sum()) if len(sizes) and sizes[0] > 0 else 0
    most = most if rank is None else min(rank, most)
    return np.ascontiguousarray(directions[:most].T) if most else None


def _part(columns: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """A basis of the span of columns that are parts of unit vectors, but for what is too short to be one."""
    directions, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    most = int((sizes > LEAST).sum())
    return np.ascontiguousarray(directions[:, :most]) if most else None
