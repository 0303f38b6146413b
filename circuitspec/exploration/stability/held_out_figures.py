"""What a circuit, its members and its paths do on prompts that none of them was chosen on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.engine.cache.stored_runner import StoredRunner
from circuitspec.engine.runner import Runner
from circuitspec.exploration.search.circuit_selection import Entry, circuit_of
from circuitspec.exploration.search.path_search import Link, link_effects
from circuitspec.exploration.setting import ExplorationSetting, where_of

JUDGING = 16.0  # forwards that are kept back for what circuits do on prompts held out


@dataclass(frozen=True)
class HeldOutFigures:
    """Of one circuit: what it recovers, what is left without it, and what members and paths do by themselves.

    `sizes` are (drop, rise) of entries, and `links` of paths: of those that the allowance had room for.
    """

    described: str  # the prompts
    recovered: Estimate
    left: Estimate
    sizes: Mapping[Entry, tuple[float, float]] = field(default_factory=dict)
    links: Mapping[Link, tuple[float, float]] = field(default_factory=dict)


def on_other_prompts(setting: ExplorationSetting, runner: Runner, stored: StoredRunner) -> ExplorationSetting:
    """The same setting on a runner's prompts, of which nothing is known yet; runs count against the same allowance."""
    return replace(
        setting,
        runner=runner,
        stored=stored,
        records={},
        counted=None,
        by_prompt=False,
        estimated={},
        lots=(),
        _partly={},
    )


def judged(
    setting: ExplorationSetting, described: str, entries: Collection[Entry], links: Sequence[Link]
) -> HeldOutFigures:
    """A circuit's figures on a setting's prompts. Raises AllowanceSpent where there is no room for its own two."""
    kept = circuit_of(entries)
    whole = setting.sufficiency(kept), setting.necessity(kept)
    setting.run(whole)
    figures = HeldOutFigures(described, setting.recovered(whole[0]), setting.recovered(whole[1]))
    alone = {
        (component, place): (
            setting.ablated(component, where_of(place)),
            setting.denoised(component, where_of(place)),
        )
        for component, place in entries
    }
    left = frozenset(setting.run_some([run for pair in alone.values() for run in pair]))
    sizes = {
        (component, place): (setting.drop(component, where_of(place)), setting.rise(component, where_of(place)))
        for (component, place), pair in alone.items()
        if left.isdisjoint(pair)
    }
    left = frozenset(setting.run_some([run for link in links for run in link.runs]))
    paths = {link: link_effects(setting, link) for link in links if link.runs and left.isdisjoint(link.runs)}
    return replace(figures, sizes=sizes, links=paths)
