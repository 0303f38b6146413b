"""Experiments of a call, run and put into one table with the columns of every other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from circuitspec.analysis.statistics.scores import LOWER_IS_BETTER, Anchors, Gap, gaps
from circuitspec.engine.records import Records
from circuitspec.experiments.experiment import Experiment
from circuitspec.pipelines.interactive.memory_session import Laboratory, Manner
from circuitspec.prompts.output_metrics import METRICS
from circuitspec.prompts.prompt_set import CLEAN
from circuitspec.reports.text.data_frames import metric_names, run_prompts_frame, runs_frame
from circuitspec.reports.text.result_frame import ResultFrame

_CLEAN = Experiment(CLEAN)
_NOTHING = 1e-4  # of a metric's size: what differs by less may be rounding


@dataclass(frozen=True)
class Patched:
    """An experiment with its name, the way of patching that it is one of, and what columns say of it otherwise."""

    label: str
    run: Experiment
    way: Manner
    columns: Mapping[str, object] = field(default_factory=dict)


def measured(lab: Laboratory, wanted: Sequence[Patched], *, per_prompt: bool, unpatched: bool) -> ResultFrame:
    """A row for each experiment in this order (or for each of its prompts), the unpatched runs first if asked for."""
    anchors = {way: way.anchor(lab.loaded) for way in dict.fromkeys(one.way for one in wanted)}
    between = {one.run: Anchors(_CLEAN, anchors[one.way]) for one in wanted}
    bases = [
        (way.corruption or "", Experiment(way.corruption)) for way in anchors if way.corruption not in (None, CLEAN)
    ]
    plain = dict([("clean", _CLEAN), *bases]) if unpatched else {}
    first = next(iter(between.values()), Anchors(_CLEAN, _CLEAN))
    of_plain = {run: Anchors(_CLEAN, run if run.base != CLEAN else first.corrupt) for run in plain.values()}
    records = lab.stored.run([_CLEAN, *anchors.values(), *plain.values(), *between])
    labelled = [*plain.items(), *((one.label, one.run) for one in wanted)]
    metrics = metric_names(records)
    if per_prompt:
        frame = ResultFrame(run_prompts_frame(labelled, records, lab.task.prompts, metrics))
    else:
        pairs = {**of_plain, **between}
        divisors = {pair: _gaps(records, pair) for pair in dict.fromkeys(pairs.values())}
        frame = ResultFrame(runs_frame(labelled, records, pairs.__getitem__, divisors, metrics))
    rows = np.repeat(np.arange(len(labelled)), lab.task.n if per_prompt else 1)
    told: list[Mapping[str, object]] = [*({} for _ in plain), *(one.columns for one in wanted)]
    for name in dict.fromkeys(name for one in wanted for name in one.columns):
        known = frame[name] if name in frame else pd.Series("", index=frame.index)
        said = [told[row].get(name, old) for row, old in zip(rows, known, strict=True)]
        frame[name] = pd.Series(said, index=frame.index, dtype=known.dtype)
    return frame


def _gaps(records: Records, between: Anchors) -> dict[str, Gap]:
    """As `gaps`; of a single prompt, which has no interval that could contain zero, whatever differs is a gap."""
    found = gaps(records, between)
    return {metric: _of_one(gap) for metric, gap in found.items()} if records.n_prompts == 1 else found


def _of_one(gap: Gap) -> Gap:
    difference = gap.clean - gap.corrupt
    if abs(difference) <= _NOTHING * max(1.0, abs(gap.clean), abs(gap.corrupt)):
        return gap
    worse = gap.metric in METRICS and (difference < 0) != (gap.metric in LOWER_IS_BETTER)
    return replace(gap, state="inverted" if worse else "sound")
