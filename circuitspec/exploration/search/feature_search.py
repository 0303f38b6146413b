"""Which features of dictionaries an exploration looks at: those that patching moves at all, and of these the largest.

Of tens of thousands of features a few hundred are active on a task's prompts. One that has the same weight in what is
patched as in the run itself, at every token of a position and in every prompt, changes nothing there: its effect is 0,
and it is no candidate. The others are estimated all at once, and those with the largest estimates are searched: patched
one by one, and taken into circuits. What is not searched is ablated in every circuit, as all that is outside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from circuitspec.engine.attribution.feature_activity import moving_features
from circuitspec.experiments.experiment import CLEAN_VALUES
from circuitspec.exploration.request import MOST_FEATURES
from circuitspec.exploration.search.component_sweep import Effect
from circuitspec.exploration.setting import ExplorationSetting, where_of
from circuitspec.graph.dictionary_nodes import is_of_dictionary
from circuitspec.graph.nodes import Ablatable
from circuitspec.graph.shape import DictionarySite
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import DictionaryError, Feature, sort_key

PASSES = 4  # over all prompts, to see which features move: clean and source, corrupt and clean


@dataclass(frozen=True)
class SearchedDictionary:
    """Of a dictionary's features: how many there are, how many move at a searched position, how many are searched."""

    name: str
    place: str
    n_features: int
    moving: int
    searched: int

    @property
    def dead(self) -> int:
        return self.n_features - self.moving


@dataclass
class FeatureSearch:
    """The features of a setting's dictionaries; `prompts[dictionary]` is in how many each moves, `[place, feature]`."""

    setting: ExplorationSetting
    prompts: Mapping[str, NDArray[np.float64]]

    @classmethod
    def begin(cls, setting: ExplorationSetting) -> FeatureSearch:
        """Find out which move, and let these be claimed. Raises AllowanceSpent."""
        found = cls(setting, _moving(setting))
        setting.claimed = tuple(sorted((*found._errors, *found._features), key=sort_key))
        return found

    @property
    def _errors(self) -> list[Ablatable]:
        sites = self.setting.sites
        return [DictionaryError(one.name, one.place.layer) for one in sites if not one.error_stays]

    @property
    def _features(self) -> list[Feature]:
        layers = {one.name: one.place.layer for one in self.setting.sites}
        return [
            Feature(name, int(number), layers[name])
            for name, counted in self.prompts.items()
            for number in np.flatnonzero(counted.any(0))
        ]

    def moves(self, component: Ablatable, where: Where) -> bool:
        """Whether a patch there changes the value at all, in some prompt."""
        if not isinstance(component, Feature):
            return True
        return bool(self.prompts[component.dictionary][self._places[where], component.index])

    @cached_property
    def _places(self) -> dict[Where, int]:
        return {where_of(place): number for number, place in enumerate(self.setting.places)}

    def narrow(self, estimated: Sequence[Effect]) -> None:
        """From now on, search those with the largest estimates alone; without any, those that move in most prompts."""
        largest: dict[Ablatable, float] = {}
        for effect in estimated:
            largest[effect.component] = max(largest.get(effect.component, 0.0), effect.estimated)
        if not estimated:
            largest = {one: float(self.prompts[one.dictionary][:, one.index].max()) for one in self._features}
        features = [one for one in largest if isinstance(one, Feature)]
        chosen = sorted(features, key=lambda one: (-largest[one], sort_key(one)))[:MOST_FEATURES]
        self.setting.claimed = tuple(sorted((*self._errors, *chosen), key=sort_key))

    def still(self, site: DictionarySite) -> Feature | None:
        """A feature of a dictionary that does not move anywhere; None where all do."""
        idle = np.flatnonzero(~self.prompts[site.name].any(0))
        return Feature(site.name, int(idle[0]), site.place.layer) if len(idle) else None

    @property
    def searched(self) -> tuple[SearchedDictionary, ...]:
        claimed = [one for one in self.setting.claimed if isinstance(one, Feature)]
        return tuple(
            SearchedDictionary(
                site.name,
                str(site.place),
                site.n_features or 0,
                int(self.prompts[site.name].any(0).sum()),
                sum(one.dictionary == site.name for one in claimed),
            )
            for site in self.setting.sites
        )


def _moving(setting: ExplorationSetting) -> dict[str, NDArray[np.float64]]:
    wheres = [where_of(place) for place in setting.places]
    names = [site.name for site in setting.sites]

    def compute(_: object) -> dict[str, list[float]]:
        setting.allowance.require(PASSES)
        down = moving_features(setting.runner, "clean", setting.source, wheres)
        up = moving_features(setting.runner, setting.corrupt, CLEAN_VALUES, wheres)
        return {name: np.maximum(down[name], up[name]).ravel().astype(float).tolist() for name in names}

    asked = ["moving features", setting.source, setting.corrupt, [where.canonical() for where in wheres], names]
    found = setting.recalled.get(asked, compute)
    return {name: found[name].reshape(len(wheres), -1) for name in names}


def of_features(kept: Mapping[Ablatable, Where]) -> frozenset[str]:
    """The dictionaries of which something is kept."""
    return frozenset(one.dictionary for one in kept if is_of_dictionary(one))
