"""What a site's component has in unpatched runs, one vector a prompt: in the bases of pairs, and in their sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuitspec.engine.execution.batches import Batch, where_mask
from circuitspec.engine.forward import Forward
from circuitspec.engine.metrics.recorded_values import ValuesOf
from circuitspec.experiments.experiment import CLEAN_VALUES, Site, Source, values_in
from circuitspec.prompts.pairs.settings import source_variant


@dataclass(frozen=True)
class SiteValues:
    """The means over the site's positions, `[pair, width]`: of the bases, and by family of the sources."""

    base: NDArray[np.float64]
    sources: Mapping[str, NDArray[np.float64]]


def mean_at(at: Tensor, values: Tensor) -> Tensor:
    """The mean of values `[row, pos, width]` over the positions of bool `[row, pos]`, in float64; of none, zeros."""
    named = at.unsqueeze(-1)
    return values.double().masked_fill(~named, 0).sum(1) / named.sum(1).clamp(min=1)


@torch.no_grad()
def site_values(forward: Forward, values_of: ValuesOf, site: Site, families: Sequence[str]) -> SiteValues:
    """Those of a site whose component is one slice of one tensor: what interchanges take from sources and replace.

    `values_of` gives the values of runs (`source_values` of the runner). A forward for the bases and one for each
    family. Raises CS502 for values that are not finite.
    """
    (slot,) = forward.slots_of(site.component)
    shape = forward.loaded.shape
    width = slot.tap.width(shape) // slot.tap.units(shape)
    sources: dict[str | None, Source] = {None: CLEAN_VALUES}
    sources |= {name: values_in(source_variant(name)) for name in families}
    forward.expect(len(sources) * forward.task.n)

    def means(batch: Batch) -> dict[str | None, Tensor]:
        at = where_mask(forward.task, batch, site.where, forward.device)
        found = {}
        for name, source in sources.items():
            values = values_of(batch, source, frozenset({slot.tap}))[slot.tap]
            found[name] = mean_at(at, values[..., slot.unit * width : (slot.unit + 1) * width])
        return found

    rows = {name: np.zeros((forward.task.n, width)) for name in sources}
    for batch, found in forward.in_batches(means):
        for name, value in found.items():
            rows[name][list(batch.prompts)] = value.cpu().numpy()
    return SiteValues(rows[None], {name: rows[name] for name in families})
