"""Experiments -> what is put where: masks over rows, positions and slices, with the values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter

import torch
from torch import Tensor

from circuitspec.engine.execution.interventions import Projected, Swap
from circuitspec.engine.execution.taps import Slot, Tap
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.subspaces.subspace import Subspace
from circuitspec.graph.nodes import NodeComponent
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where

_tap_of: Callable[[Slot], Tap] = attrgetter("tap")


def swaps_of(
    experiments: Sequence[Experiment],
    values: Mapping[Tap, Tensor],
    columns: Callable[[Where], Tensor],
    slots_of: Callable[[NodeComponent], tuple[Slot, ...]],
    shape: ModelShape,
    start: int = 0,
) -> dict[Tap, Swap]:
    """One swap for each tap that some experiment patches, its rows a copy of the prompts for each experiment.

    `values` are the source's for one copy, broadcastable to `[row, pos, channel]`, and `columns` says for one copy
    what a Where names, bool `[row, pos]`. Positions before `start` are left out.
    """
    masks: dict[Tap, dict[Subspace | None, Tensor]] = {}
    for number, experiment in enumerate(experiments):
        units: dict[tuple[Tap, Where, Subspace | None], list[int]] = {}
        for site in experiment.sites:
            for tap, slots in groupby(slots_of(site.component), _tap_of):  # thousands of one tap, of other features
                units.setdefault((tap, site.where, site.subspace), []).extend(slot.unit for slot in slots)
        for (tap, where, subspace), members in units.items():
            at = columns(where)[:, start:]
            for within in {None, subspace}:
                if within not in masks.setdefault(tap, {}):
                    shape_of_mask = (len(experiments), *at.shape, tap.units(shape))
                    masks[tap][within] = torch.zeros(shape_of_mask, dtype=torch.bool, device=at.device)
            masks[tap][subspace][number][:, :, members] |= at.unsqueeze(-1)
    return {
        tap: Swap(
            own[None].flatten(0, 1),
            _copies(values[tap], len(experiments), start),
            projected=tuple(
                Projected(mask.flatten(0, 1), basis_of(subspace, values[tap]))
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


def _copies(value: Tensor, copies: int, start: int) -> Tensor:
    """The value from `start` on, one copy after the other; what is the same everywhere stays as it is."""
    value = value if value.shape[1] == 1 else value[:, start:]
    return value if len(value) == 1 or copies == 1 else value.repeat(copies, 1, 1)
