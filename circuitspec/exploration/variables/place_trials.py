"""Interchange of one variable at every place of a model: which runs that takes, and what they come to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from circuitspec.analysis.claims.abstraction.pair_claims import PairTrial, figures_of, shares_of
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.engine.records import Records
from circuitspec.experiments.experiment import Experiment, Site
from circuitspec.experiments.levels.interchange_level import interchanging
from circuitspec.exploration.request import SWEPT, Kind
from circuitspec.graph.nodes import is_node, nodes_of
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Component, all_of
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.prompts.pairs.pair_set import PairSet
from circuitspec.prompts.pairs.settings import Setting, scored_as, scored_as_base, source_variant

KINDS: tuple[Kind, ...] = ("resid", "attention", "mlps", "heads")
"""What an interchange can sweep, by the word for it."""


@dataclass(frozen=True)
class AlignedPlace:
    """A component at a position (or at several tokens of one), as it is written after `nodes` and `at`."""

    kind: Kind
    component: Component
    position: str

    @property
    def name(self) -> str:
        """`r5`, `a5`, `m5`, `a5.h1`."""
        return format_name(self.component)

    @property
    def layer(self) -> int:
        return self.component.place[0]

    @property
    def head(self) -> int | None:
        return self.component.place[1] if self.kind == "heads" else None


@dataclass(frozen=True)
class PlaceFigures:
    """What the interchange at one place comes to, on the pairs of one family.

    `kept` of the `pairs` count: those whose base and source the unpatched model answers right. `shares` are those of
    `shares_of`: IIA on pairs whose answer must change among them, and its companions. `moved` is the mean logit of the
    expected answer less that of the base's on the pairs that must change, without the patch and with it.
    """

    place: AlignedPlace
    family: str
    pairs: int
    kept: int
    shares: Mapping[str, Estimate | None]
    moved: tuple[float, float] | None

    @property
    def iia(self) -> Estimate | None:
        """None where no pair that counts must change."""
        return self.shares["IIA, changed"]

    @property
    def unchanged(self) -> Estimate | None:
        """The share of pairs whose answer must stay, and does; None where there are no such pairs that count."""
        return self.shares["unchanged"]


def places_of_kinds(
    kinds: Iterable[Kind], shape: ModelShape, positions: Sequence[str], layers: Iterable[int] | None = None
) -> tuple[AlignedPlace, ...]:
    """Every component of these kinds (in these layers) at every one of the positions; kinds that a model lacks have
    none."""
    chosen = tuple(range(shape.n_layers)) if layers is None else tuple(layers)
    found = []
    for kind in dict.fromkeys(kinds):
        row = SWEPT[kind]
        if row.per_layer(shape.counts) == 0:
            continue
        components = [one for layer in chosen for one in all_of(row, layer, shape.counts)]
        found += [AlignedPlace(kind, one, position) for one in components for position in positions]
    return tuple(found)


def place_trials(
    variable: str, places: Sequence[AlignedPlace], shape: ModelShape, pairs: PairSet
) -> dict[tuple[AlignedPlace, str], PairTrial]:
    """For each place and family the interchange of the variable there, scored by the answer that the high-level model
    asks for and by the base's: one run."""
    found = {}
    for family in pairs.families:
        setting: Setting = ((variable, family),)
        expected, own, source = scored_as(setting), scored_as_base(setting), source_variant(family)
        changed = pairs.changed(setting)
        base, unpatched = (Experiment("clean", expected=by) for by in (own, expected))
        for place in places:
            nodes = [one for one in nodes_of(place.component, shape) if is_node(one)]
            sites = frozenset(Site(node, Where.at(place.position)) for node in nodes)
            run = interchanging(setting, {variable: sites})
            patched, stayed = (replace(run, expected=by) for by in (expected, own))
            sources = (Experiment(source, expected=source),)
            found[place, family] = PairTrial(family, setting, patched, stayed, unpatched, base, sources, changed)
    return found


def runs_of_trials(trials: Iterable[PairTrial]) -> tuple[Experiment, ...]:
    """All that is to be run, each once; what shares a run side by side."""
    return tuple(dict.fromkeys(run for trial in trials for run in trial.runs))


def figures_at_places(trials: Mapping[tuple[AlignedPlace, str], PairTrial], records: Records) -> Iterator[PlaceFigures]:
    """The figures of each trial, in their order."""
    for (place, family), trial in trials.items():
        one = figures_of(trial, records)
        changed = one.kept & one.changed
        ends = (one.unpatched_difference[changed], one.difference[changed])
        moved = (float(np.mean(ends[0])), float(np.mean(ends[1]))) if changed.any() else None
        yield PlaceFigures(place, family, len(one.kept), int(one.kept.sum()), shares_of(one), moved)
