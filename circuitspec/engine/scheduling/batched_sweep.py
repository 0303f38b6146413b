"""Many node-level experiments on one base and source: rows of few forwards, which begin where the first patch is.

An experiment begins at the first block and the first column that it patches; what comes before is taken from the base
run (`engine.scheduling.partial_forward`). Experiments that begin alike share a forward, in which each has a copy of the
prompts as its rows, and masks of its own; where a forward has few tokens, others join it that begin later.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.execution.batch_size import tokens_beside
from circuitspec.engine.execution.batches import Batch, copied, laid_out, model_inputs, where_mask
from circuitspec.engine.execution.compiler import Actions, trims
from circuitspec.engine.execution.masks import swaps_of
from circuitspec.engine.execution.memory import PeakMemory, out_of_memory
from circuitspec.engine.execution.taps import Slot, Tap
from circuitspec.engine.forward import Forward
from circuitspec.engine.scheduling.partial_forward import (
    BaseRun,
    Beginning,
    Shortcut,
    Start,
    broken,
    check_exact,
    first_column,
    inexact,
    may_cut,
)
from circuitspec.engine.scheduling.parts import KeepsParts
from circuitspec.experiments.experiment import Experiment, Source, Variant
from circuitspec.graph.nodes import NodeComponent
from circuitspec.graph.where import Where

ENOUGH = 4  # experiments of a sweep; fewer save less than what a short cut has to know first

Measured = tuple[Experiment, Mapping[str, NDArray[np.float64]]]
"""An experiment and its metrics for each row of a batch."""


@dataclass(frozen=True)
class BatchedSweep:
    """Node-level experiments with one base and one source.

    `scored` are experiments in the order in which they are run, those together that differ in nothing but the answers
    by which they are scored: these take one run. `layers` are the first that each run patches. Those that patch single
    positions alone are `positional`: they may begin at a later column.
    """

    base: Variant
    source: Source
    scored: tuple[tuple[Experiment, ...], ...]
    layers: tuple[int, ...]
    positional: bool

    @property
    def experiments(self) -> tuple[Experiment, ...]:
        """All of them, one after the other."""
        return tuple(one for alike in self.scored for one in alike)

    @property
    def draws(self) -> int:
        return self.scored[0][0].draws

    @property
    def streams(self) -> frozenset[Tap]:
        """What is to be recorded of the base run."""
        first = () if self.positional else (0,)
        return frozenset(Tap(layer, "resid") for layer in set(self.layers).difference(first))


def sweeps_of(
    experiments: Iterable[Experiment], slots_of: Callable[[NodeComponent], tuple[Slot, ...]]
) -> tuple[BatchedSweep, ...]:
    """The sweeps among these experiments. Not of attention patterns, which are of whole rows from their first token."""
    groups: dict[tuple[Variant, Source], dict[Experiment, list[Experiment]]] = {}
    for experiment in experiments:
        apart = experiment.beside or experiment.patches_patterns  # what a forward of many rows has not
        if experiment.level == "node" and experiment.source is not None and not apart:
            runs = groups.setdefault((experiment.base, experiment.source), {})
            runs.setdefault(experiment.run, []).append(experiment)
    taps_of = cache(lambda component: frozenset(slot.tap for slot in slots_of(component)))
    sweeps = []
    for (base, source), members in groups.items():
        if len(members) < ENOUGH:
            continue
        found = [
            (sorted(frozenset().union(*(taps_of(s.component) for s in run.sites))), tuple(alike))
            for run, alike in members.items()
        ]
        numbers = {taps: i for i, taps in enumerate(sorted({tuple(taps) for taps, _ in found}))}
        # those that patch the same tensors lie together, so that a pyvene model serves many forwards
        found.sort(key=lambda pair: numbers[tuple(pair[0])])
        positional = any(not any(s.where.is_everywhere for s in run.sites) for run in members)
        layers = tuple(taps[0].layer for taps, _ in found)
        sweeps.append(BatchedSweep(base, source, tuple(alike for _, alike in found), layers, positional))
    return tuple(sweeps)


@dataclass(frozen=True)
class SweepSetting:
    """What the experiments of a sweep share on one batch.

    `inputs` are the model's for these rows, `run` is the base run, with the sweep's streams recorded (None where all
    begin at the beginning); `values` are the source's, broadcastable to `[row, pos, channel]`; `clean_logprobs` is
    `[reading, vocabulary]`. `draw` numbers the noise, where there is any.
    """

    batch: Batch
    inputs: Mapping[str, Any]
    base: Variant
    run: BaseRun | None
    values: Mapping[Tap, Tensor]
    columns: Callable[[Where], Tensor]  # bool [row, pos]
    clean_logprobs: Tensor
    draw: int

    def first(self, rows: int, inputs: Mapping[str, Any]) -> SweepSetting:
        """The same for the first rows alone, whose inputs are these."""
        return SweepSetting(
            self.batch.first(rows),
            inputs,
            self.base,
            None if self.run is None else self.run.first(rows),
            {tap: value if len(value) == 1 else value[:rows] for tap, value in self.values.items()},
            lambda where: self.columns(where)[:rows],
            self.clean_logprobs[:rows],
            self.draw,
        )


class Sweeper:
    """Runs sweeps. Whether short cuts are exact on the model is found out before the first is taken."""

    def __init__(self, forward: Forward) -> None:
        self._forward = forward
        self._shortcut = Shortcut(forward)
        self._checked: set[str] = set()
        shape = forward.loaded.shape
        self._cost = ForwardCost(shape.n_layers, tokens_beside(shape, forward.device.type))

    def run(
        self,
        sweep: BatchedSweep,
        batch: Batch,
        run: BaseRun | None,
        values: Mapping[Tap, Tensor],
        clean_logprobs: Tensor,
        draw: int,
        known: Collection[Experiment] = (),
        parts: KeepsParts | None = None,
    ) -> Iterator[Measured]:
        """The metrics of every experiment that is not `known`. Raises CS502, and CS503 where a short cut is not exact.

        Forwards are cut as if nothing were known; those with nothing new are not run. What they measure is given to
        `parts`, which also tell what such a forward took.
        """
        task, device = self._forward.task, self._forward.device
        batch = laid_out(task, batch, sweep.base)
        columns = cache(lambda where: where_mask(task, batch, where, device, sweep.base))
        inputs = model_inputs(task, batch, sweep.base, device)
        here = SweepSetting(batch, inputs, sweep.base, run, values, columns, clean_logprobs, draw)
        waiting = self._ordered(sweep, here)
        self._check(here, [(start, alike[0]) for start, alike in waiting])
        rows, limit, done = len(batch.prompts), self._forward.rows, 0
        limit.forget()
        while done < len(waiting):
            room = limit.beginning_at(waiting[done][0].column, batch.width) // rows
            start, count = self._cost.together([begins for begins, _ in waiting[done:]], room, rows, batch.width)
            together = [alike for _, alike in waiting[done : done + count]]
            asked = [experiment for alike in together for experiment in alike]
            is_new = limit.is_new(count * rows, batch.width, start.column)
            before = parts.bytes_taken(asked, batch.cases, draw) if is_new and parts is not None else None
            if not known or not all(e in known for e in asked) or (is_new and before is None):
                meter = PeakMemory() if is_new else None
                try:
                    with meter or contextlib.nullcontext():
                        measured = self._measure(here, start, together)
                except (RuntimeError, MemoryError) as error:
                    if count == 1 or not out_of_memory(error):
                        raise
                    measured = None
                if measured is None:
                    limit.halve(count * rows)
                    continue
                if meter is not None and before is None:
                    before = meter.peak
                    if parts is not None:
                        parts.keep_bytes(asked, batch.cases, draw, before)
                for experiment, found in measured.items():
                    if experiment in known:
                        continue
                    if parts is not None:
                        parts.keep(experiment, batch.cases, draw, found)
                    yield experiment, found
            if before is not None:
                limit.seen(count * rows, batch.width, start.column, before)
            done += count

    def _ordered(self, sweep: BatchedSweep, here: SweepSetting) -> list[tuple[Start, tuple[Experiment, ...]]]:
        """The experiments by where they begin, first by the column; those of one run together."""
        cut = here.run is not None and may_cut(self._forward.loaded.model, here.batch)
        last = min(here.batch.answer_columns) if cut else 0
        wheres = {site.where for alike in sweep.scored for site in alike[0].sites}
        column = {where: first_column(here.columns(where), last) for where in wheres}
        starts = (
            Start(layer, min(column[site.where] for site in alike[0].sites))
            for layer, alike in zip(sweep.layers, sweep.scored, strict=True)
        )
        return sorted(zip(starts, sweep.scored, strict=True), key=lambda pair: (pair[0].column, pair[0].layer))

    def _measure(
        self, here: SweepSetting, start: Start, together: Sequence[tuple[Experiment, ...]]
    ) -> dict[Experiment, dict[str, NDArray[np.float64]]]:
        """Every metric of each experiment, `[row]`: one run for those that are alike, scored by each one's answers."""
        copies = len(together)
        logits = self._logits(here, start, [alike[0] for alike in together])
        clean, batch = here.clean_logprobs.repeat(copies, 1), here.batch.times(copies)
        found: dict[Experiment, dict[str, NDArray[np.float64]]] = {}
        for expected in dict.fromkeys(one.expected for alike in together for one in alike):
            metrics = self._forward.metrics(batch, logits, clean, expected)
            each = {name: values.cpu().double().numpy().reshape(copies, -1) for name, values in metrics.items()}
            for number, alike in enumerate(together):
                for experiment in alike:
                    if experiment.expected == expected:
                        found[experiment] = {name: values[number] for name, values in each.items()}
        return found

    def _logits(self, here: SweepSetting, start: Start, experiments: Sequence[Experiment]) -> Tensor:
        """Logits at the answers, `[reading, vocabulary]`, experiment after experiment."""
        forward = self._forward
        rows = here.batch.times(len(experiments))
        swaps = swaps_of(experiments, here.values, here.columns, forward.units_of, forward.loaded.shape, start.column)
        if start == Start():
            return forward.forward(rows, here.base, Actions(swaps), here.draw)[0]
        assert here.run is not None
        inputs = copied(here.inputs, len(experiments), start.column)
        begins = Beginning.of(here.run, start)
        answers = self._shortcut.answers(rows, inputs, Actions(swaps), begins, len(experiments))
        if bool((lost := broken(answers)).any()):
            self._explain(here, experiments[int(lost.nonzero()[0]) // len(here.batch.readings)])
        return answers

    def _explain(self, here: SweepSetting, experiment: Experiment) -> None:
        """Raise CS502 with the place that is not finite, which a whole forward finds."""
        self._whole(here, experiment)
        raise CircuitspecError(inexact("gave NaN or infinity where a whole forward does not"))

    def _whole(self, here: SweepSetting, experiment: Experiment) -> Tensor:
        forward = self._forward
        swaps = swaps_of([experiment], here.values, here.columns, forward.units_of, forward.loaded.shape)
        forward.expect(len(here.batch.cases))
        return forward.forward(here.batch, here.base, Actions(swaps), here.draw)[0]

    def _check(self, here: SweepSetting, waiting: Sequence[tuple[Start, Experiment]]) -> None:
        """Once a model: the short cut past most blocks, with the last MLP at the answers alone if some have that, and
        the one that takes over the most keys and values."""
        late = [waits for waits in waiting if waits[0].layer > 0]
        trimmed = [waits for waits in late if self._trims(waits[1])]
        new = trimmed or ([] if "blocks" in self._checked else late)
        if not {"blocks", "last MLP"} <= self._checked and self._are_exact(
            here, sorted(new, key=lambda pair: pair[0], reverse=True)
        ):
            self._checked |= {"blocks", "last MLP"} if trimmed else {"blocks"}
        cut = [waits for waits in waiting if waits[0].column > 0]
        if "columns" not in self._checked and self._are_exact(
            here, sorted(cut, key=lambda pair: (pair[0].layer, -pair[0].column))
        ):
            self._checked.add("columns")

    def _trims(self, experiment: Experiment) -> bool:
        return trims(self._forward.loaded.shape, self._forward.taps_of([experiment]))

    def _are_exact(self, here: SweepSetting, waiting: Sequence[tuple[Start, Experiment]]) -> bool:
        """Whether the first of these of which the logits tell something was compared, and found exact."""
        return any(self._compare(here, *one) for one in waiting)

    def _compare(self, here: SweepSetting, start: Start, experiment: Experiment) -> bool:
        """One experiment on two prompts, both ways; False where that tells nothing, as all logits are the same.

        With zeros in place of a residual stream, say, where nothing has a bias. Raises CS503 where the two ways differ
        by more than rounding.
        """
        some = here.batch.first(2)
        few = here.first(2, model_inputs(self._forward.task, some, here.base, self._forward.device))
        expected = self._whole(few, experiment)
        self._forward.expect(len(few.batch.cases))
        return check_exact(self._logits(few, start, [experiment]), expected, start)


@dataclass(frozen=True)
class ForwardCost:
    """What forwards take, if a block takes as long as for so many tokens `beside` those of its rows."""

    layers: int
    beside: int

    def of(self, start: Start, rows: int, width: int) -> int:
        """What a forward takes, in tokens times blocks."""
        return (self.layers - start.layer) * (self.beside + rows * (width - start.column))

    def together(self, waiting: Sequence[Start], room: int, prompts: int, width: int) -> tuple[Start, int]:
        """Where the next forward begins, and how many of the waiting experiments share it, which are in the order of
        their columns.

        As many as there is room of those that begin alike; then, all or none, the next that begin alike, as long as
        what is taken grows by no greater a share than what the experiments need.
        """
        begins, count, needed = waiting[0], 0, 0
        for start, alike in groupby(waiting):
            more = len([*alike])
            need = (self.layers - start.layer) * more * prompts * (width - start.column)
            if count == 0:
                count, needed = min(max(room, 1), more), need
                if count < more:
                    break
                continue
            both = Start(min(begins.layer, start.layer), begins.column)
            alone, joined = (
                self.of(where, number * prompts, width) for where, number in ((begins, count), (both, count + more))
            )
            if count + more > room or joined * needed > alone * (needed + need):
                break
            begins, count, needed = both, count + more, needed + need
        return begins, count
