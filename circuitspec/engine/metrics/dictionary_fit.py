"""How well a dictionary explains the value that it takes apart, in the clean run."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from circuitspec.engine.execution.batches import Batch, later_columns
from circuitspec.engine.execution.compiler import Actions
from circuitspec.engine.execution.taps import Tap
from circuitspec.engine.forward import Forward
from circuitspec.graph.shape import DictionarySite
from circuitspec.prompts.prompt_set import CLEAN


@dataclass(frozen=True)
class DictionaryFit:
    """Over all tokens of the clean prompts but each one's first, whose vectors are of another size in most models.

    unexplained: the squared error over the squared distance of values from their mean. active: how many features are,
    at a token. seen: how many are active at any token, of `n_features`. Both means are nan where no prompt has a second
    token.
    """

    name: str
    place: str
    unexplained: float
    active: float
    seen: int
    n_features: int

    @property
    def dead(self) -> float:
        """The share of features that are active at none of these tokens."""
        return 1 - self.seen / self.n_features if self.n_features else math.nan


@torch.no_grad()
def dictionary_fits(forward: Forward) -> tuple[DictionaryFit, ...]:
    """Of every dictionary that the model has beside it: one pass over the prompts."""
    shape = forward.loaded.shape
    sums = [_Sums(site, shape.n_layers) for site in shape.dictionaries]
    if not sums:
        return ()
    record = frozenset(tap for one in sums for tap in (one.features, one.error, one.features.explained(shape)[1]))
    forward.expect(forward.task.n)

    def recorded(batch: Batch) -> dict[Tap, Tensor]:
        return forward.readout(batch, CLEAN, Actions(record=record))[1]

    for batch, values in forward.in_batches(recorded):
        later = later_columns(batch)
        for one in sums:
            explained = one.features.explained(shape)[1]
            one.add(*(values[tap][later.to(values[tap].device)] for tap in (one.features, one.error, explained)))
    return tuple(one.fit for one in sums)


class _Sums:
    def __init__(self, site: DictionarySite, n_layers: int) -> None:
        self._site, layer = site, site.place.layer
        self.features, self.error = Tap(layer, "features", site.name), Tap(layer, "error", site.name)
        self._count = self._active = 0
        self._error = self._square = 0.0
        self._total: Tensor | None = None
        self._seen: Tensor | None = None

    def add(self, features: Tensor, error: Tensor, value: Tensor) -> None:
        """Of some tokens: `[token, n_features]` and twice `[token, d]`."""
        on = features != 0
        wide = value.double()
        self._count += len(value)
        self._active += int(on.sum())
        self._error += float(error.double().square().sum())
        self._square += float(wide.square().sum())
        self._total = wide.sum(0) if self._total is None else self._total + wide.sum(0)
        self._seen = on.any(0) if self._seen is None else self._seen | on.any(0)

    @property
    def fit(self) -> DictionaryFit:
        assert self._total is not None, "no prompt was run"
        assert self._seen is not None
        site, n_features = self._site, self._site.n_features or 0
        if not self._count:
            return DictionaryFit(site.name, str(site.place), math.nan, math.nan, 0, n_features)
        variance = self._square - float(self._total.square().sum()) / self._count
        return DictionaryFit(
            site.name,
            str(site.place),
            self._error / variance if variance > 0 else float("inf") if self._error else 0.0,
            self._active / self._count,
            int(self._seen.sum()),
            n_features,
        )
