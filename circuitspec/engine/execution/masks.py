"""Experiments -> what is put where: masks over rows, positions and slices, with the values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from circuitspec.engine.execution.interventions import Projected, Swap
from circuitspec.engine.execution.taps import Tap
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.subspaces.subspace import Subspace
from circuitspec.graph.nodes import NodeComponent
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where


def swaps_of(
    experiments: Sequence[Experiment | None],
    values: Mapping[Tap, Tensor],
    columns: Callable[[Where], Tensor],
    units_of: Callable[[NodeComponent], Mapping[Tap, Sequence[int]]],
    shape: ModelShape,
    start: int = 0,
    rows: Sequence[Tensor] | None = None,
) -> dict[Tap, Swap]:
    """One swap for each tap that some experiment patches, of some of the prompts' rows for each experiment: of those
    that `rows` number, or of all. Rows of no experiment (None) are left as they are.

    `values` are the source's for all rows once, broadcastable to `[row, pos, channel]`, and `columns` says for these
    what a Where names, bool `[row, pos]`. Positions before `start` are left out.
    """
    masks: dict[Tap, dict[Subspace | None, Tensor]] = {}
    counts = None if rows is None else [len(one) for one in rows]
    for number, experiment in enumerate(experiments):
        units: dict[tuple[Tap, Where, Subspace | None], list[int]] = {}
        for site in () if experiment is None else experiment.sites:
            for tap, own in units_of(site.component).items():
                units.setdefault((tap, site.where, site.subspace), []).extend(own)
        for (tap, where, subspace), members in units.items():
            at = columns(where)[:, start:]
            first, after = number * len(at), (number + 1) * len(at)
            total = len(experiments) * len(at)
            if rows is not None and counts is not None:
                first, after, total = sum(counts[:number]), sum(counts[: number + 1]), sum(counts)
                at = at[rows[number]]
            for within in {None, subspace}:
                if within not in masks.setdefault(tap, {}):
                    shape_of_mask = (total, at.shape[1], tap.units(shape))
                    masks[tap][within] = torch.zeros(shape_of_mask, dtype=torch.bool, device=at.device)
            some = torch.zeros(tap.units(shape), dtype=torch.bool, device=at.device)
            some[members] = True
            masks[tap][subspace][first:after] |= at.unsqueeze(-1) & some
    every = None if rows is None else torch.cat(list(rows))
    return {
        tap: Swap(
            own[None],
            _copies(values[tap], len(experiments), start, every),
            projected=tuple(
                Projected(mask, basis_of(subspace, values[tap]))
                for subspace, mask in own.items()
                if subspace is not None
            ),
        )
        for tap, own in masks.items()
    }


def basis_of(subspace: Subspace, like: Tensor) -> Tensor:
    """The basis `[width, rank]` on the device of these values, in their dtype or (of narrower ones) in float32."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return torch.tensor(subspace.basis, dtype=dtype, device=like.device)


def merged(one: dict[Tap, Swap], other: dict[Tap, Swap]) -> dict[Tap, Swap]:
    """Both sets of swaps, which name no slice of a tap twice: each slice takes the values of its own."""
    return {**one, **{tap: _joined(one[tap], swap) if tap in one else swap for tap, swap in other.items()}}


def _joined(one: Swap, other: Swap) -> Swap:
    width = max(one.source.shape[-1], other.source.shape[-1]) // other.mask.shape[-1]
    taken = other.mask
    for part in other.projected:
        taken = taken | part.mask
    channels = taken.repeat_interleave(width, dim=-1)  # both are of runs: `[row, pos, unit * width]`
    source = torch.where(channels, other.source, one.source)
    return Swap(one.mask | other.mask, source, projected=(*one.projected, *other.projected))


def _copies(value: Tensor, copies: int, start: int, rows: Tensor | None) -> Tensor:
    """The value from `start` on, of these rows or in so many copies; what is the same everywhere stays as it is."""
    value = value if value.shape[1] == 1 else value[:, start:]
    if len(value) == 1:
        return value
    if rows is not None:
        return value[rows]
    return value if copies == 1 else value.repeat(copies, 1, 1)
