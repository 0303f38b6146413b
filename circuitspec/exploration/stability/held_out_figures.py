"""What a circuit, its members and its paths do on prompts that none of them was chosen on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.looks import looks_of
from circuitspec.engine.cache.stored_runner import StoredRunner
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import Experiment
from circuitspec.exploration.search.circuit_selection import Entry, circuit_of
from circuitspec.exploration.search.path_search import Link
from circuitspec.exploration.setting import CLEAN, ExplorationSetting, where_of

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
    parts_by: int | None = None  # on how many of the prompts members and paths were measured; None: all


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
        lots=looks_of(runner.templates) if setting.lots else (),
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
    setting.run([CLEAN, Experiment(setting.corrupt), setting.anchor])
    alone = {
        (component, place): (
            setting.ablated(component, where_of(place)),
            setting.denoised(component, where_of(place)),
        )
        for component, place in entries
    }
    some = setting.few
    left = frozenset(setting.run_some([run for pair in alone.values() for run in pair], among=some))
    sizes = {entry: _effects(setting, *pair) for entry, pair in alone.items() if left.isdisjoint(pair)}
    left = frozenset(setting.run_some([run for link in links for run in link.runs], among=some))
    paths = {link: _effects(setting, *link.runs) for link in links if link.runs and left.isdisjoint(link.runs)}
    return replace(figures, sizes=sizes, links=paths, parts_by=None if some is None else len(some))


def _effects(setting: ExplorationSetting, down: Experiment, up: Experiment) -> tuple[float, float]:
    """What a run drops and another restores, by the prompts on which parts are measured."""
    prompts = setting.few or tuple(range(setting.runner.task.n))
    corrupt = Experiment(setting.corrupt)
    clean, dropped, zero, raised, start = (
        float(setting.values_among(run, prompts).mean()) for run in (CLEAN, down, setting.anchor, up, corrupt)
    )
    return (clean - dropped) / (clean - zero), (raised - start) / (clean - start)
