"""Many node-level experiments on one base and source: rows of few forwards, which begin where the first patch is.

An experiment begins at the first block and the first column that it patches; what comes before is taken from the base
run (`engine.scheduling.partial_forward`). Experiments that begin alike share a forward, in which each has a copy of the
prompts as its rows, and masks of its own; where a forward has few tokens, others join it that begin later. Of patches
of features only the rows are run in which a feature moves (`engine.scheduling.feature_moves`); in all others the run is
the base run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.execution.batch_size import tokens_beside
from circuitspec.engine.execution.batches import (
    Batch,
    laid_out,
    later_columns,
    model_inputs,
    real_columns,
    some_inputs,
    where_mask,
)
from circuitspec.engine.execution.compiler import Actions, trims
from circuitspec.engine.execution.masks import swaps_of
from circuitspec.engine.execution.memory import PeakMemory, out_of_memory
from circuitspec.engine.execution.taps import Tap
from circuitspec.engine.execution.worked_out.readout import LogProbabilities, Readout
from circuitspec.engine.forward import Forward
from circuitspec.engine.scheduling.feature_moves import FeatureMoves, features_alone
from circuitspec.engine.scheduling.forward_cost import ForwardCost
from circuitspec.engine.scheduling.partial_forward import (
    BaseRun,
    Beginning,
    Shortcut,
    Start,
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
    by which they are scored: these take one run. `layers` are the first that each run patches, and `features` the taps
    of the features that it moves, where it does nothing else. Those that patch single positions or features alone are
    `positional`: they may begin at a later column.
    """

    base: Variant
    source: Source
    scored: tuple[tuple[Experiment, ...], ...]
    layers: tuple[int, ...]
    features: tuple[Tap | None, ...]
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
        found = {Tap(layer, "resid") for layer in set(self.layers).difference(first)}
        return frozenset(found | {tap for tap in self.features if tap is not None})


def sweeps_of(
    experiments: Iterable[Experiment],
    units_of: Callable[[NodeComponent], Mapping[Tap, Sequence[int]]],
    n_layers: int,
) -> tuple[BatchedSweep, ...]:
    """The sweeps among these experiments on a model of `n_layers`.

    Not of attention patterns, which are of whole rows from their first token.
    """
    groups: dict[tuple[Variant, Source], dict[Experiment, list[Experiment]]] = {}
    for experiment in experiments:
        apart = experiment.beside or experiment.patches_patterns  # what a forward of many rows has not
        if experiment.level == "node" and experiment.source is not None and not apart:
            runs = groups.setdefault((experiment.base, experiment.source), {})
            runs.setdefault(experiment.run, []).append(experiment)
    taps_of = cache(lambda component: frozenset(units_of(component)))
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
        layers = tuple(min(taps[0].layer, n_layers - 1) for taps, _ in found)  # features may be of what leaves the last
        features = tuple(features_alone(alike[0], taps) for taps, alike in found)
        positional = any(features) or any(not any(s.where.is_everywhere for s in run.sites) for run in members)
        sweeps.append(BatchedSweep(base, source, tuple(alike for _, alike in found), layers, features, positional))
    return tuple(sweeps)


@dataclass(frozen=True)
class Waiting:
    """A run that is to be made: where it begins, what is scored of it, and its rows, by their numbers in the batch.

    `features` is the tap of the features that it moves, where it does nothing else.
    """

    start: Start
    alike: tuple[Experiment, ...]
    rows: Tensor
    features: Tap | None

    @property
    def experiment(self) -> Experiment:
        return self.alike[0]


@dataclass(frozen=True)
class SweepSetting:
    """What the experiments of a sweep share on one batch.

    `inputs` are the model's for these rows, `run` is the base run, with the sweep's streams recorded (None where all
    begin at the beginning); `values` are the source's, broadcastable to `[row, pos, channel]`; `clean_logprobs` are
    `[reading, vocabulary]`. `draw` numbers the noise, where there is any.
    """

    batch: Batch
    inputs: Mapping[str, Any]
    base: Variant
    run: BaseRun | None
    values: Mapping[Tap, Tensor]
    columns: Callable[[Where], Tensor]  # bool [row, pos]
    clean_logprobs: LogProbabilities
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
            self.clean_logprobs.some(slice(rows)),
            self.draw,
        )

    @property
    def every_row(self) -> Tensor:
        return torch.arange(len(self.batch.prompts), device=self.clean_logprobs.device)

    def readings_of(self, rows: Tensor) -> Tensor:
        """The numbers of these rows' readings, row by row."""
        if self.batch.continuations is None:
            return rows
        first = [*accumulate((1 + more for more in self.batch.continued), initial=0)]
        return torch.tensor([r for row in rows.tolist() for r in range(first[row], first[row + 1])], device=rows.device)


class Sweeper:
    """Runs sweeps. Whether short cuts are exact on the model is found out before the first is taken."""

    def __init__(self, forward: Forward) -> None:
        self._forward = forward
        self._shortcut = Shortcut(forward)
        self._checked: set[str] = set()
        self.checking = np.zeros(2)  # prompts run to find that out, and what of them was saved
        shape = forward.loaded.shape
        self._cost = ForwardCost(shape.n_layers, tokens_beside(shape, forward.device.type))

    def run(
        self,
        sweep: BatchedSweep,
        batch: Batch,
        run: BaseRun | None,
        values: Mapping[Tap, Tensor],
        clean_logprobs: LogProbabilities,
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
        ordered = self._ordered(sweep, here)
        unmoved = cache(lambda expected: self._unmoved(here, expected))
        counted = np.array(self._forward.counted)
        self._check(here, ordered)
        self.checking += np.array(self._forward.counted) - counted

        def new(measured: Mapping[Experiment, Mapping[str, NDArray[np.float64]]]) -> Iterator[Measured]:
            for experiment, found in measured.items():
                if experiment in known:
                    continue
                if parts is not None:
                    parts.keep(experiment, batch.cases, draw, found)
                yield experiment, found

        waiting = [one for one in ordered if len(one.rows)]
        for one in ordered:
            if not all(experiment in known for experiment in one.alike):
                self._forward.count(len(batch.cases) - len(_cases(batch, one.rows)), computed=0.0)
            if not len(one.rows):
                yield from new({experiment: unmoved(experiment.expected) for experiment in one.alike})
        limit, done = self._forward.rows, 0
        limit.forget()
        while done < len(waiting):
            room = limit.beginning_at(waiting[done].start.column, batch.width)
            begin = [(one.start, len(one.rows)) for one in waiting[done:]]
            start, count = self._cost.together(begin, room, batch.width)
            together = waiting[done : done + count]
            rows = sum(len(one.rows) for one in together)
            asked = [experiment for one in together for experiment in one.alike]
            is_new = limit.is_new(rows, batch.width, start.column)
            before = parts.bytes_taken(asked, batch.cases, draw) if is_new and parts is not None else None
            if not known or not all(e in known for e in asked) or (is_new and before is None):
                meter = PeakMemory() if is_new else None
                try:
                    with meter or contextlib.nullcontext():
                        measured = self._measure(here, start, together, unmoved)
                except (RuntimeError, MemoryError) as error:
                    if count == 1 or not out_of_memory(error):
                        raise
                    measured = None
                if measured is None:
                    limit.halve(rows)
                    continue
                if meter is not None and before is None:
                    before = meter.peak
                    if parts is not None:
                        parts.keep_bytes(asked, batch.cases, draw, before)
                yield from new(measured)
            if before is not None:
                limit.seen(rows, batch.width, start.column, before)
            done += count

    def _ordered(self, sweep: BatchedSweep, here: SweepSetting) -> list[Waiting]:
        """The runs by where they begin, first by the column."""
        cut = here.run is not None and may_cut(self._forward.loaded, here.batch)
        last = min(here.batch.answer_columns) if cut else 0
        wheres = {site.where for alike in sweep.scored for site in alike[0].sites}
        column = {where: first_column(here.columns(where), last) for where in wheres}
        found = []
        for layer, features, alike in zip(sweep.layers, sweep.features, sweep.scored, strict=True):
            rows, begins = here.every_row, min(column[site.where] for site in alike[0].sites)
            if features is not None:
                changed = self._moves(here, alike[0], features).changed
                rows, begins = _whole_cases(here.batch, changed.any(1)), first_column(changed, last)
            found.append(Waiting(Start(layer, begins), alike, rows, features))
        return sorted(found, key=lambda one: (one.start.column, one.start.layer))

    def _moves(self, here: SweepSetting, experiment: Experiment, features: Tap) -> FeatureMoves:
        assert here.run is not None
        forward, base = self._forward, here.run.recorded[features]
        site = forward.loaded.shape.dictionary(features.dictionary)
        told = later_columns(here.batch) if site is not None and site.skips_first else real_columns(here.batch)
        source = here.values[features]
        return FeatureMoves.of(experiment, forward.units_of, base, source, here.columns, told.to(base.device))

    def _unmoved(self, here: SweepSetting, expected: str) -> dict[str, NDArray[np.float64]]:
        """Every metric of the base run itself, `[row]`."""
        assert here.run is not None
        metrics = self._forward.metrics(here.batch, here.run.readout, here.clean_logprobs, expected)
        return {name: values.cpu().double().numpy() for name, values in metrics.items()}

    def _measure(
        self,
        here: SweepSetting,
        start: Start,
        together: Sequence[Waiting],
        unmoved: Callable[[str], Mapping[str, NDArray[np.float64]]],
    ) -> dict[Experiment, dict[str, NDArray[np.float64]]]:
        """Every metric of each experiment, `[row]`: one run for those that are alike, scored by each one's answers.

        Of rows that are not run the metrics are those of the base run, which `unmoved` tells by who expects them.
        """
        read = self._readout(here, start, together)
        rows = torch.cat([one.rows for one in together])
        clean, batch = here.clean_logprobs.some(here.readings_of(rows)), here.batch.some(rows.tolist())
        cases = [_cases(here.batch, one.rows) for one in together]
        ends = [*accumulate(map(len, cases), initial=0)]
        found: dict[Experiment, dict[str, NDArray[np.float64]]] = {}
        for expected in dict.fromkeys(e.expected for one in together for e in one.alike):
            metrics = self._forward.metrics(batch, read, clean, expected)
            each = {name: values.cpu().double().numpy() for name, values in metrics.items()}
            for one, own, (first, after) in zip(together, cases, pairwise(ends), strict=True):
                whole = len(own) == len(here.batch.cases)
                for experiment in one.alike:
                    if experiment.expected != expected:
                        continue
                    found[experiment] = {
                        name: values[first:after] if whole else _put(unmoved(expected)[name], own, values[first:after])
                        for name, values in each.items()
                    }
        return found

    def _readout(self, here: SweepSetting, start: Start, together: Sequence[Waiting]) -> Readout:
        """What is read at the answers, `[reading, vocabulary]`, run after run."""
        forward = self._forward
        rows = torch.cat([one.rows for one in together])
        batch = here.batch.some(rows.tolist())
        actions = self._actions(here, start, together)
        if start == Start():
            return forward.readout(batch, here.base, actions, here.draw)[0]
        assert here.run is not None
        inputs = some_inputs(here.inputs, batch, rows, start.column)

        def not_finite(row: int) -> CircuitspecError:
            ends = accumulate(len(one.rows) for one in together)
            return self._explained(
                here, next(one.experiment for one, end in zip(together, ends, strict=True) if row < end)
            )

        return self._shortcut.readout(batch, inputs, actions, Beginning.of(here.run, start), rows, not_finite)

    def _actions(self, here: SweepSetting, start: Start, together: Sequence[Waiting]) -> Actions:
        """What is patched in each run's rows, one after the other, from a column on."""
        forward = self._forward
        of_rows = [one.rows for one in together]
        swapping = [None if one.features is not None else one.experiment for one in together]
        swaps = swaps_of(
            swapping, here.values, here.columns, forward.units_of, forward.loaded.shape, start.column, of_rows
        )
        shifts: dict[Tap, Tensor] = {}
        first = 0
        for one in together:
            after = first + len(one.rows)
            if one.features is not None:
                dictionary = forward.loaded.dictionaries[one.features.dictionary]
                written = one.features.explained(forward.loaded.shape)[1]
                added = self._moves(here, one.experiment, one.features).added(dictionary, one.rows, start.column)
                if written not in shifts:
                    total = sum(map(len, of_rows))
                    shifts[written] = torch.zeros(total, *added.shape[1:], dtype=forward.dtype, device=forward.device)
                shifts[written][first:after] = added.to(forward.dtype)
            first = after
        return Actions(swaps, shifts=shifts)

    def _explained(self, here: SweepSetting, experiment: Experiment) -> CircuitspecError:
        """CS502 with the place that is not finite, which a whole forward finds; CS503 where it finds none."""
        try:
            self._whole(here, experiment)
        except CircuitspecError as found:
            return found
        return CircuitspecError(inexact("gave NaN or infinity where a whole forward does not"))

    def _whole(self, here: SweepSetting, experiment: Experiment) -> Tensor:
        forward = self._forward
        swaps = swaps_of([experiment], here.values, here.columns, forward.units_of, forward.loaded.shape)
        forward.expect(len(here.batch.cases))
        return forward.forward(here.batch, here.base, Actions(swaps), here.draw)[0]

    def _check(self, here: SweepSetting, waiting: Sequence[Waiting]) -> None:
        """Once a model: the short cut past most blocks, with the last MLP at the answers alone if some have that, and
        the one that takes over the most keys and values."""
        late = [waits for waits in waiting if waits.start.layer > 0]
        trimmed = [waits for waits in late if self._trims(waits)]
        new = trimmed or ([] if "blocks" in self._checked else late)
        if not {"blocks", "last MLP"} <= self._checked and self._are_exact(
            here, sorted(new, key=lambda waits: waits.start, reverse=True)
        ):
            self._checked |= {"blocks", "last MLP"} if trimmed else {"blocks"}
        cut = [waits for waits in waiting if waits.start.column > 0]
        if "columns" not in self._checked and self._are_exact(
            here, sorted(cut, key=lambda waits: (waits.start.layer, -waits.start.column))
        ):
            self._checked.add("columns")

    def _trims(self, waits: Waiting) -> bool:
        shape = self._forward.loaded.shape
        if waits.features is not None:
            return trims(shape, (), [waits.features.explained(shape)[1]])
        return trims(shape, self._forward.taps_of([waits.experiment]))

    def _are_exact(self, here: SweepSetting, waiting: Sequence[Waiting]) -> bool:
        """Whether the first of these of which the logits tell something was compared, and found exact."""
        return any(self._compare(here, one) for one in waiting)

    def _compare(self, here: SweepSetting, waits: Waiting) -> bool:
        """One experiment on two prompts, both ways; False where that tells nothing, as all logits are the same.

        With zeros in place of a residual stream, say, where nothing has a bias. Raises CS503 where the two ways differ
        by more than rounding.
        """
        some = here.batch.first(2)
        few = here.first(2, model_inputs(self._forward.task, some, here.base, self._forward.device))
        expected = self._whole(few, waits.experiment)
        self._forward.expect(len(few.batch.cases))
        found = self._readout(few, waits.start, [replace(waits, rows=few.every_row)]).logits
        return check_exact(found, expected, waits.start)


def _cases(batch: Batch, rows: Tensor) -> list[int]:
    """The prompts of these rows, by their numbers in the batch."""
    of = batch.case_of
    return [*dict.fromkeys(of[row] for row in rows.tolist())]


def _whole_cases(batch: Batch, chosen: Tensor) -> Tensor:
    """The numbers of all rows of the prompts of which some row is chosen in bool `[row]`."""
    if batch.continuations is None:
        return chosen.nonzero().flatten()
    of = torch.tensor(batch.case_of, device=chosen.device)
    return torch.isin(of, of[chosen]).nonzero().flatten()


def _put(whole: NDArray[np.float64], cases: Sequence[int], values: NDArray[np.float64]) -> NDArray[np.float64]:
    found = whole.copy()
    found[list(cases)] = values
    return found
