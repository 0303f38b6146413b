"""Patches of features, before they are run: how far each feature moves, and in which rows and columns any does.

A feature is active at few tokens, so that most patches of one change nothing in most rows, and where they change
something it is late. What a patch adds to the value that the dictionary takes apart is known from the base run, whose
features are encoded once for all experiments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from circuitspec.dictionaries.dictionary import Dictionary
from circuitspec.engine.execution.taps import Tap
from circuitspec.experiments.experiment import Experiment, Site
from circuitspec.graph.nodes import NodeComponent
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Feature, OtherFeatures


def features_alone(experiment: Experiment, taps: Sequence[Tap]) -> Tap | None:
    """The one tap of `taps`, those that an experiment patches, if all that it does is to move features there."""
    if len(taps) != 1 or taps[0].kind != "features" or any(site.subspace is not None for site in experiment.sites):
        return None
    components = {site.component for site in experiment.sites}
    single = {one.index for one in components if isinstance(one, Feature)}
    several = [one for one in components if isinstance(one, OtherFeatures)]
    once = len(several) <= 1 and all(single <= one.named for one in several)  # no feature is named twice
    return taps[0] if once else None


@dataclass(frozen=True)
class FeatureMoves:
    """Of an experiment: its features by number, and how far each moves, `[row, pos, feature]` in the base's rows."""

    numbers: Tensor
    moved: Tensor

    @classmethod
    def of(
        cls,
        experiment: Experiment,
        units_of: Callable[[NodeComponent], Mapping[Tap, Sequence[int]]],
        base: Tensor,
        source: Tensor,
        columns: Callable[[Where], Tensor],
        told: Tensor,
    ) -> FeatureMoves:
        """`base` and `source` are the features of both runs, `[row, pos, n_features]` or broadcastable to it; `columns`
        says what a Where names, bool `[row, pos]`, as `told` does of the tokens of which the dictionary says
        something."""
        at: dict[frozenset[Where], list[int]] = {}
        for component, wheres in _by_component(experiment.sites).items():
            (units,) = units_of(component).values()
            at.setdefault(wheres, []).extend(units)
        numbers = torch.tensor([n for units in at.values() for n in units], device=base.device)
        given = source if source.shape[-1] == 1 else source[..., numbers]
        named = torch.cat(
            [_named(wheres, columns).unsqueeze(-1).expand(-1, -1, len(n)) for wheres, n in at.items()], -1
        )
        moved = torch.where(named & told.unsqueeze(-1), given - base[..., numbers], 0.0)
        return cls(numbers, moved)

    @property
    def changed(self) -> Tensor:
        """bool `[row, pos]`: where any feature moves."""
        return (self.moved != 0).any(-1)

    def added(self, dictionary: Dictionary, rows: Tensor, start: int) -> Tensor:
        """What is added to the value in some rows, from a column on: `[row, pos, d_out]`."""
        return dictionary.summed(self.moved[rows, start:], self.numbers)


def _by_component(sites: Sequence[Site] | frozenset[Site]) -> dict[NodeComponent, frozenset[Where]]:
    found: dict[NodeComponent, set[Where]] = {}
    for site in sites:
        found.setdefault(site.component, set()).add(site.where)
    return {component: frozenset(wheres) for component, wheres in found.items()}


def _named(wheres: frozenset[Where], columns: Callable[[Where], Tensor]) -> Tensor:
    first, *others = (columns(where) for where in wheres)
    for one in others:
        first = first | one
    return first
