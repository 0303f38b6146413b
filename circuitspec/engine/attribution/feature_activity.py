"""Which features of dictionaries are active on a task's prompts, and which of them a patch would move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuitspec.engine.attribution.node_attribution import draws_of
from circuitspec.engine.execution.batches import Batch, laid_out, where_mask
from circuitspec.engine.execution.compiler import Actions
from circuitspec.engine.execution.taps import Tap
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import Experiment, Source, Variant
from circuitspec.graph.where import Where

Counts = Mapping[str, NDArray[np.int64]]
"""By dictionary, `[where, feature]`."""


@dataclass(frozen=True)
class FeatureActivity:
    """At how many tokens each feature is active, of those that are named by each `where`.

    `active[dictionary]` is `[where, feature]`, `tokens` `[where]`; over the prompts of all variants that were asked
    for. Active is a feature whose weight is not 0.
    """

    wheres: tuple[Where, ...]
    active: Counts
    tokens: NDArray[np.int64]

    def shares(self, dictionary: str, where: Where) -> NDArray[np.float64]:
        """`[feature]`: at what share of these tokens each is active."""
        place = self.wheres.index(where)
        share: NDArray[np.float64] = self.active[dictionary][place] / max(1, int(self.tokens[place]))
        return share


@torch.no_grad()
def feature_activity(runner: Runner, variants: Sequence[Variant], wheres: Sequence[Where]) -> FeatureActivity:
    """One pass over the prompts of each variant."""
    places = tuple(dict.fromkeys(wheres))
    found = _nothing(runner, len(places))
    tokens = np.zeros(len(places), dtype=np.int64)
    runner.expect(len(variants) * runner.task.n)

    def work(part: Batch) -> list[tuple[list[int], dict[str, list[Tensor]]]]:
        each = []
        for variant in variants:
            own = runner.readout(part, variant, Actions(record=frozenset(_taps(runner).values())))[1]
            masks = _masks(runner, part, variant, places)
            on = {name: own[tap] != 0 for name, tap in _taps(runner).items()}
            active = {name: [one[mask].sum(0) for mask in masks] for name, one in on.items()}
            each.append(([int(mask.sum()) for mask in masks], active))
        return each

    for _, each in runner.in_batches(work):
        for named, active in each:
            tokens += named
            _add(found, active)
    return FeatureActivity(places, found, tokens)


@torch.no_grad()
def moving_features(runner: Runner, base: Variant, source: Source, wheres: Sequence[Where]) -> Counts:
    """In how many prompts each feature is another in what is patched than in the base run, at some token of a `where`.

    Where it is in none, patching it there changes nothing at all. A pass over the prompts of the base, one over those
    of the source, unless its means are known.
    """
    found = _nothing(runner, len(wheres))
    taps = _taps(runner)
    record = frozenset(taps.values())
    draws = draws_of(base, source)
    runner.expect(draws * (1 + source.is_recorded) * runner.task.n)

    def moves(part: Batch, draw: int) -> dict[str, Tensor]:
        own = runner.readout(part, base, Actions(record=record), draw)[1]
        other = runner.source_values(part, source, record, draw, base=base)
        return {name: own[tap] != other[tap] for name, tap in taps.items()}

    def work(part: Batch) -> dict[str, list[Tensor]]:
        moved = moves(part, 0)
        for draw in range(1, draws):
            moved = {name: one | moved[name] for name, one in moves(part, draw).items()}
        masks = _masks(runner, part, base, wheres)
        return {name: [_by_case(one & mask.unsqueeze(-1), part) for mask in masks] for name, one in moved.items()}

    for _, counted in runner.in_batches(work):
        _add(found, counted)
    return found


@torch.no_grad()
def moved_features(runner: Runner, experiment: Experiment) -> dict[str, tuple[int, ...]]:
    """The features of each dictionary that an experiment moves: they have another weight in what is patched than they
    would have in its run, at some token where they are patched, in some prompt. To restore another one changes nothing.

    A pass over the prompts, and one over those of the source, unless its means are known.
    """
    source, wanted = experiment.source, runner.taps_of([experiment])
    assert source is not None, "nothing is patched"
    taps = {name: tap for name, tap in _taps(runner).items() if tap in wanted}
    runner.expect(experiment.draws * (1 + source.is_recorded) * runner.task.n)

    def moves(part: Batch, draw: int) -> dict[str, Tensor]:
        values = runner.source_values(part, source, wanted, draw, base=experiment.base)
        swaps = runner.swaps(part, experiment, values)
        own = runner.readout(part, experiment.base, Actions(swaps, record=frozenset(taps.values())), draw)[1]
        changed = {name: (own[tap] != swaps[tap].source) & swaps[tap].mask for name, tap in taps.items()}
        return {name: one.flatten(0, 1).any(0).cpu() for name, one in changed.items()}

    found: dict[str, Tensor] = {}
    for _, draws in runner.in_batches(lambda part: [moves(part, draw) for draw in range(experiment.draws)]):
        for moved in draws:
            found = {name: one | found[name] if name in found else one for name, one in moved.items()}
    return {name: tuple(one.nonzero().flatten().tolist()) for name, one in found.items()}


def _by_case(moved: Tensor, batch: Batch) -> Tensor:
    """`[row, pos, feature]` -> `[feature]`: in how many of a batch's prompts, whose rows are counted once."""
    rows = moved.any(1)
    if batch.continuations is None:
        return rows.sum(0)
    prompts = torch.tensor(np.searchsorted(batch.starts, range(len(batch.prompts)), side="right") - 1)
    cases = torch.zeros(len(batch.cases), rows.shape[-1], dtype=torch.long, device=rows.device)
    return (cases.index_add(0, prompts.to(rows.device), rows.long()) > 0).sum(0)


def _taps(runner: Runner) -> dict[str, Tap]:
    return {one.name: Tap(one.place.layer, "features", one.name) for one in runner.loaded.shape.dictionaries}


def _masks(runner: Runner, batch: Batch, variant: Variant, wheres: Sequence[Where]) -> list[Tensor]:
    there = laid_out(runner.task, batch, variant)
    return [where_mask(runner.task, there, where, runner.device, variant) for where in wheres]


def _nothing(runner: Runner, places: int) -> dict[str, NDArray[np.int64]]:
    sites = runner.loaded.shape.dictionaries
    return {one.name: np.zeros((places, one.n_features or 0), dtype=np.int64) for one in sites}


def _add(found: Mapping[str, NDArray[np.int64]], counted: Mapping[str, Sequence[Tensor]]) -> None:
    for name, each in counted.items():
        for place, count in enumerate(each):
            found[name][place] += count.cpu().numpy()
