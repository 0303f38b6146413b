"""Which component reacts to which corruption: the strongest, noised from and denoised in every corruption in turn.

Heimersheim and Nanda (2024), section 2.6: corruptions that change one property each tell what a component traces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from circuitspec.experiments.experiment import CLEAN_VALUES, Experiment, values_in
from circuitspec.experiments.levels.node_level import ablating, denoising
from circuitspec.exploration.search.component_sweep import MATERIAL, ComponentSweep
from circuitspec.exploration.search.effect_estimates import Entry, estimate_nodes
from circuitspec.exploration.search.estimable import inestimable
from circuitspec.exploration.setting import CLEAN, ExplorationSetting, places_of, where_of
from circuitspec.hypothesis_file.grammar.components import sort_key

MOST = 20  # components looked at, of the strongest, for each corruption


@dataclass(frozen=True)
class Reaction:
    """What a component does with one corruption: lost when noised from it, won when restored in its run.

    Shares of the largest distance between the clean prompts and any corruption's, so that corruptions compare.
    """

    drop: float
    rise: float

    @property
    def reacts(self) -> bool:
        return max(abs(self.drop), abs(self.rise)) >= MATERIAL


@dataclass(frozen=True)
class CorruptionTraces:
    """Reactions by component and position, then by corruption."""

    corruptions: tuple[str, ...]
    reactions: Mapping[Entry, Mapping[str, Reaction]]

    def traced(self, entry: Entry) -> tuple[str, ...]:
        """The corruptions that a component reacts to."""
        return tuple(name for name, reaction in self.reactions[entry].items() if reaction.reacts)


def trace(setting: ExplorationSetting, found: ComponentSweep, corruptions: Sequence[str]) -> CorruptionTraces | None:
    """Every corruption against the components that are strong in the sweep, or by estimate in any corruption.

    What reacts to another corruption than the sweep's alone would otherwise go unseen. None for fewer than two
    corruptions. Raises AllowanceSpent.
    """
    if len(corruptions) < 2:
        return None
    setting.run([CLEAN, *(Experiment(name) for name in corruptions)])
    clean = float(setting.values(CLEAN).mean())
    corrupt = {name: float(setting.values(Experiment(name)).mean()) for name in corruptions}
    widest = max(abs(clean - one) for one in corrupt.values())
    exact = [e for e in found.exact if e.size >= MATERIAL and len(places_of(e.where)) == 1][:MOST]
    entries = {(e.component, place): None for e in exact for place in places_of(e.where)}
    for name in () if inestimable(setting.metric) else corruptions:
        entries |= dict.fromkeys(_strongest(setting, name, widest))
    down = {(c, r, n): ablating(values_in(n), {c: where_of(r)}) for c, r in entries for n in corruptions}
    up = {(c, r, n): denoising(n, {c: where_of(r)}) for c, r in entries for n in corruptions}
    setting.run([*down.values(), *up.values()])
    reactions: dict[Entry, dict[str, Reaction]] = {}
    for (component, role, name), run in down.items():
        drop = (clean - float(setting.values(run).mean())) / widest
        rise = (float(setting.values(up[component, role, name]).mean()) - corrupt[name]) / widest
        reactions.setdefault((component, role), {})[name] = Reaction(drop, rise)
    strength = {entry: max(max(abs(r.drop), abs(r.rise)) for r in own.values()) for entry, own in reactions.items()}
    ordered = sorted(reactions, key=lambda entry: (-strength[entry], sort_key(entry[0]), entry[1]))
    return CorruptionTraces(
        tuple(corruptions), {entry: reactions[entry] for entry in ordered if strength[entry] >= MATERIAL}
    )


def _strongest(setting: ExplorationSetting, corruption: str, widest: float) -> list[Entry]:
    """By first-order estimates of noising from this corruption and of restoring in its run."""
    down = estimate_nodes(setting, "clean", values_in(corruption)).effects
    up = estimate_nodes(setting, corruption, CLEAN_VALUES).effects
    sizes = {
        (component, place): max(abs(down[component, where]), abs(up[component, where])) / widest
        for component, where in down
        for place in places_of(where)
    }
    large = [entry for entry, size in sizes.items() if size >= MATERIAL]
    return sorted(large, key=lambda entry: (-sizes[entry], sort_key(entry[0]), entry[1]))[:MOST]
