"""What each declared path does by itself: how far the score falls without it, and how far it alone brings it back."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from circuitspec.analysis.statistics import stats
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.scores import Anchors, gap
from circuitspec.engine.records import Records
from circuitspec.experiments.planner import Plan


@dataclass(frozen=True)
class PathEffect:
    """One declared path; both effects are shares of M(clean) - M(corrupt), None where there is no such run or ratio.

    `sleeps` where it belongs to a backup, declared or found, which is to have no effect by itself.
    """

    path: str
    metric: str
    drop: Estimate | None
    rise: Estimate | None
    sleeps: bool = False

    def is_idle(self, within: float) -> bool:
        """Whether all effects that could be measured surely lie closer to zero than `within`."""
        measured = [effect for effect in (self.drop, self.rise) if effect is not None]
        ends = [end for effect in measured for end in (effect.interval or (float("inf"),))]
        return not self.sleeps and bool(measured) and all(abs(end) < within for end in ends)


def path_effects(
    plan: Plan, records: Records, metric: str, standing_in: Collection[str] = ()
) -> tuple[PathEffect, ...]:
    """The effects of the declared paths, in the file's order; none where they were not run.

    `standing_in` are components that were seen to act where others are lost, and whose paths so sleep.
    """
    found = []
    for check in plan.checks:
        drop = rise = None
        if metric in records[check.ablated] and _sound(records, metric, Anchors(plan.clean, check.anchor)):
            runs = (check.ablated, plan.clean, check.anchor)
            drop = stats.recovered(*(records[run][metric] for run in runs))
        restored, corrupt = check.restored, check.corrupt
        restorable = restored is not None and corrupt is not None and metric in records[restored]
        if restored and corrupt and restorable and _sound(records, metric, Anchors(plan.clean, corrupt)):
            runs = (restored, corrupt, plan.clean)
            rise = stats.recovered(*(records[run][metric] for run in runs))
        sleeps = check.sleeps or any(stop and stop <= set(standing_in) for stop in check.joins)
        found.append(PathEffect(check.text, metric, drop, rise, sleeps))
    return tuple(found)


def _sound(records: Records, metric: str, between: Anchors) -> bool:
    known = metric in records[between.clean] and metric in records[between.corrupt]
    return known and records.n_prompts > 1 and gap(records, metric, between).state == "sound"
