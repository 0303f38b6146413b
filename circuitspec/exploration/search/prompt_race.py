"""Racing over prompts: all candidates on few prompts, and on the rest of them only those that may still matter.

Most of what a search patches does next to nothing, and a few prompts tell. After each look at more prompts a candidate
is dropped when the interval of its effect lies below what counts as an effect, in either direction. What is not dropped
is measured on all prompts, so that whatever is taken for an effect is measured as it would be without a race. A drop
may be wrong; `analysis.statistics.looks` bounds how often.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circuitspec.analysis.statistics.looks import ends_at_look
from circuitspec.experiments.experiment import Experiment
from circuitspec.exploration.forward_budget import AllowanceSpent
from circuitspec.exploration.setting import CLEAN, ExplorationSetting


@dataclass(frozen=True)
class Racer:
    """A patched run, the one without the patch, and the one that differs from the clean one by all there is.

    Its effect is how far the score rises above the `base` run's, or with `falls` how far it falls below it, as a share
    of clean - zero.
    """

    run: Experiment
    base: Experiment
    zero: Experiment
    falls: bool = False
    doubted: bool = False  # an estimate calls it large: it may be so on few prompts, of which none came in at first


@dataclass(frozen=True)
class Standing:
    """What a patched run does, as a share of clean - zero, by how many prompts (None: all).

    `dropped` where these were enough to see that it is next to nothing.
    """

    effect: float
    by: int | None = None
    dropped: bool = False


def at_first_look(setting: ExplorationSetting, runs: Iterable[Experiment]) -> dict[Experiment, float]:
    """What each of these ablating runs recovers on the prompts of the first look; of all, where nothing is raced."""
    lot = setting.lots[0] if setting.lots else None
    wanted = tuple(dict.fromkeys(runs))
    if lot is None or not wanted:
        setting.run(wanted)
        return {run: setting.share(run) for run in wanted}
    setting.run([CLEAN, setting.anchor])
    if setting.run_some(wanted, among=lot):
        raise AllowanceSpent(setting.allowance.reason)
    clean, zero = (float(setting.values_among(run, lot).mean()) for run in (CLEAN, setting.anchor))
    return {run: (float(setting.values_among(run, lot).mean()) - zero) / (clean - zero) for run in wanted}


def race(
    setting: ExplorationSetting, racers: Iterable[Racer], least: float, *, settling: bool = False
) -> dict[Racer, Standing]:
    """How each of them stands; those are dropped whose effect is smaller than `least` in either direction.

    Where the allowance ends, the last of them are missing. What is not dropped is known of all prompts; or, where it is
    only to be settled on which side of `least` effects lie (`settling`), of as many as that takes.
    """
    wanted = tuple(dict.fromkeys(racers))
    setting.run([CLEAN, *(one for racer in wanted for one in (racer.base, racer.zero))])
    found: dict[Racer, Standing] = {}
    running = [racer for racer in wanted if racer.run not in setting.records]
    lots = setting.lots or (tuple(range(setting.runner.task.n)),)
    for number, lot in enumerate(lots[:-1]):
        left = frozenset(setting.run_some((racer.run for racer in running), among=lot))
        running = [racer for racer in running if racer.run not in left]
        seen = [prompt for one in lots[: number + 1] for prompt in one]
        trusted = [racer for racer in running if number or len(lots) < 3 or not racer.doubted]
        small = _small(setting, trusted, seen, least, len(lots) - 1)
        found |= {racer: Standing(_effect(setting, racer, seen), len(seen), dropped=True) for racer in small}
        large = _large(setting, running, seen, least, len(lots) - 1) if settling else frozenset()
        found |= {racer: Standing(_effect(setting, racer, seen), len(seen), dropped=False) for racer in large}
        running = [racer for racer in running if racer not in found]
    left = frozenset(setting.run_some(racer.run for racer in running))
    for racer in wanted:
        if racer not in found and racer.run not in left and racer.run in setting.records:
            change = setting.values(racer.run) - setting.values(racer.base)
            whole = setting.values(CLEAN) - setting.values(racer.zero)
            effect = float(change.mean() / whole.mean()) * (-1 if racer.falls else 1)
            found[racer] = Standing(effect)
    return {racer: found[racer] for racer in wanted if racer in found}


def _small(
    setting: ExplorationSetting, racers: Sequence[Racer], prompts: Sequence[int], least: float, looks: int
) -> frozenset[Racer]:
    """Those whose effect lies between -least and least, by the interval at this look."""
    (_, above), (below, _) = _beside(setting, racers, prompts, least, looks)
    return frozenset(racer for racer, b, a in zip(racers, below, above, strict=True) if b > 0 > a)


def _large(
    setting: ExplorationSetting, racers: Sequence[Racer], prompts: Sequence[int], least: float, looks: int
) -> frozenset[Racer]:
    """Those whose effect lies beyond least, or below -least, by the interval at this look."""
    (below, _), (_, above) = _beside(setting, racers, prompts, least, looks)
    return frozenset(racer for racer, b, a in zip(racers, below, above, strict=True) if b > 0 or a < 0)


_Ends = tuple[NDArray[np.float64], NDArray[np.float64]]


def _beside(
    setting: ExplorationSetting, racers: Sequence[Racer], prompts: Sequence[int], least: float, looks: int
) -> tuple[_Ends, _Ends]:
    """The ends of the intervals of how far effects lie above least, and of how far above -least; `[racer]` each.

    A share is above a number where the mean of change - number * whole is above zero (Fieller), whatever its error.
    """
    if not racers:
        none = np.zeros(0)
        return (none, none), (none, none)
    effects = np.stack([_changes(setting, racer, prompts) for racer in racers])
    wholes = np.stack([_wholes(setting, racer, prompts) for racer in racers])
    return ends_at_look(effects - least * wholes, looks), ends_at_look(effects + least * wholes, looks)


def _effect(setting: ExplorationSetting, racer: Racer, prompts: Sequence[int]) -> float:
    changes, wholes = _changes(setting, racer, prompts), _wholes(setting, racer, prompts)
    return float(changes.mean() / wholes.mean())


def _changes(setting: ExplorationSetting, racer: Racer, prompts: Sequence[int]) -> NDArray[np.float64]:
    """How far the score rises or falls, `[prompt]`; towards the clean one is up."""
    change = setting.values_among(racer.run, prompts) - setting.values(racer.base)[list(prompts)]
    return (-change if racer.falls else change) * _sign(setting, racer)


def _wholes(setting: ExplorationSetting, racer: Racer, prompts: Sequence[int]) -> NDArray[np.float64]:
    whole = setting.values(CLEAN) - setting.values(racer.zero)
    return whole[list(prompts)] * _sign(setting, racer)


def _sign(setting: ExplorationSetting, racer: Racer) -> float:
    """Scores that fall with what is right are turned over, so that the whole is positive."""
    return float(np.sign((setting.values(CLEAN) - setting.values(racer.zero)).mean()))


def settled_by(standings: Mapping[Racer, Standing]) -> dict[int, int]:
    """How many were settled on some prompts alone, by how many these were."""
    counts: dict[int, int] = {}
    for one in standings.values():
        if one.by is not None:
            counts[one.by] = counts.get(one.by, 0) + 1
    return counts
