"""Candidates of which only those with a large effect are named: few prompts show which of them cannot have one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from circuitspec.analysis.statistics.looks import ends_at_look
from circuitspec.engine.records import Records
from circuitspec.experiments.experiment import Experiment
from circuitspec.graph.nodes import NodeComponent

Lots = Sequence[Sequence[int]]
"""The prompts, by their numbers, that come in before each look; none: all at once."""


class RunsOnSome(Protocol):
    """What runs experiments, on some of the prompts alone where these are named."""

    def run(self, experiments: Iterable[Experiment], among: Sequence[int] | None = None) -> Records: ...


@dataclass(frozen=True)
class Raced:
    """Runs that were made on all prompts; of the others the mean effect on those that were enough to drop them."""

    measured: Records
    dropped: Mapping[NodeComponent, tuple[float, int]]  # mean change of the metric, and by how many prompts


def raced(
    runs: Mapping[NodeComponent, Experiment],
    metric: str,
    base: NDArray[np.float64],
    least: NDArray[np.float64],
    templates: NDArray[np.int64],
    runner: RunsOnSome,
    lots: Lots,
) -> Raced:
    """These runs, but for those of which the first prompts show that they do not change the metric by `least`.

    What is looked for is a change with the sign of `least` `[prompt]`, as large in the mean. A run is dropped where the
    interval of its change lies short of that, of `base` `[prompt]`.
    """
    left, dropped = dict(runs), dict[NodeComponent, tuple[float, int]]()
    known: dict[NodeComponent, dict[int, Mapping[str, float]]] = {component: {} for component in runs}
    sign = float(np.sign(least.mean()))
    for number, lot in enumerate(lots[:-1]):
        if not left:
            break
        found = runner.run(tuple(left.values()), among=tuple(lot))
        for component, run in left.items():
            columns = found[run]
            known[component] |= {p: {m: float(of[i]) for m, of in columns.items()} for i, p in enumerate(lot)}
        seen = [prompt for one in lots[: number + 1] for prompt in one]
        changes = np.array([[known[c][p][metric] for p in seen] for c in left]) - base[seen]
        _, above = ends_at_look(sign * (changes - least[seen]), len(lots) - 1)
        for component, change, end in zip(tuple(left), changes, above, strict=True):
            if end < 0:
                dropped[component] = float(change.mean()), len(seen)
                del left[component]
    if not left:
        return Raced(Records({}, templates), dropped)
    if len(lots) < 2:
        return Raced(runner.run(tuple(left.values())), dropped)
    found = runner.run(tuple(left.values()), among=tuple(lots[-1]))
    for component, run in left.items():
        columns = found[run]
        known[component] |= {p: {m: float(of[i]) for m, of in columns.items()} for i, p in enumerate(lots[-1])}
    order = range(len(base))
    whole = {
        run: {name: np.array([known[component][p][name] for p in order]) for name in known[component][0]}
        for component, run in left.items()
    }
    return Raced(Records(whole, templates), dropped)
