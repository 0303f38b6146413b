"""Experiments -> records: prompts in batches, sources cached once and shared, each experiment run once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuitspec.engine.ablation.ablation_values import MeanTable, mean_sources
from circuitspec.engine.ablation.patched_values import STRATEGIES, Given, Values
from circuitspec.engine.execution.batches import Batch, PaddingSide, make_batches, where_mask
from circuitspec.engine.execution.compiler import Actions
from circuitspec.engine.execution.executor import Executor
from circuitspec.engine.execution.masks import merged
from circuitspec.engine.execution.taps import Tap
from circuitspec.engine.forward import CountsPrompts, Forward
from circuitspec.engine.levels.path_hops import Hops
from circuitspec.engine.metrics.internal_metrics import Internals
from circuitspec.engine.records import Records
from circuitspec.engine.scheduling.batched_sweep import Measured, Sweeper
from circuitspec.engine.scheduling.needs import Needs, Unpatched, needs_of
from circuitspec.engine.scheduling.parts import KeepsParts
from circuitspec.experiments.averaging import grouping
from circuitspec.experiments.experiment import Experiment, Noised, Source, Variant, passes
from circuitspec.hypothesis_file.grammar.internal_metric_names import Internal
from circuitspec.models.load import LoadedModel
from circuitspec.prompts.output_metrics import upcast
from circuitspec.prompts.prompt_set import CLEAN, TokenizedTask

Columns = dict[str, NDArray[np.float64]]  # metric -> [prompt]


class Runner(Forward):
    """Runs experiments on one model and task: which forwards they take, with which means and sweeps; see `Forward`.

    With `sweeps` off, each experiment has a forward of its own, from the beginning. `internals` are measured beside the
    metrics of the output, at node and edge level; projections of them along `directions`, `[d_model]` by name. `parted`
    means can be taken over parts of their prompts too.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        task: TokenizedTask,
        *,
        progress: CountsPrompts,
        rows: int | None = None,
        edges: bool = False,
        side: PaddingSide = "right",
        sweeps: bool = True,
        internals: Sequence[Internal] = (),
        directions: Mapping[str, Tensor] | None = None,
        parted: bool = False,
        executor: Executor | None = None,
    ) -> None:
        super().__init__(loaded, task, progress=progress, rows=rows, edges=edges, side=side, executor=executor)
        self._parted = parted
        self._sweeper = Sweeper(self)
        self._internals = Internals(self, internals, directions or {}) if internals else None
        self._sweeps = sweeps and not internals
        self.templates = np.array([p.template for p in task.prompts.prompts], dtype=np.int64)
        self._means: dict[Source, MeanTable] = {}

    @property
    def measured_beside(self) -> tuple[str, ...]:
        """What decides which internal metrics are measured, at which tokens, and along which directions."""
        return () if self._internals is None else self._internals.described

    @torch.no_grad()
    def run(self, experiments: Iterable[Experiment], parts: KeepsParts | None = None) -> Records:
        """Every metric of every experiment for every prompt; where noise is drawn, its mean over the draws.

        What `parts` know of a batch is not run; what is measured is handed to them after each forward.

        Memory does not grow with the number of prompts or experiments beyond the metrics themselves; where it runs
        out, rows are halved. Raises CS502 where logits or patched values are not finite, CS503 where a short cut of
        a sweep is not exact, CS547 where a single prompt does not fit in memory.
        """
        wanted = tuple(dict.fromkeys(experiments))
        columns: dict[Experiment, Columns] = {e: {} for e in wanted}
        if not wanted:
            return Records(columns, self.templates)
        needs = self._needs(wanted)
        averaged = self.task.averaged.n / self.task.n
        expected = passes((*wanted, *needs.bases), frozenset(self._means), averaged)
        self.expect(round(expected * self.task.n))
        for source, taps in sorted(mean_sources(needs.sources).items(), key=lambda item: str(item[0])):
            self._learn_means(source, taps)
        for _ in self.in_batches(lambda part: self._run_batch(part, needs, columns, parts)):
            pass
        return Records(columns, self.templates)

    def _needs(self, wanted: Sequence[Experiment]) -> Needs:
        needs = needs_of(wanted, self, sweeps=self._sweeps)
        if self._internals is not None:
            for variant in {experiment.base for experiment in wanted if experiment.source is None}:
                needs.record(variant, self._internals.taps("node"))
        return needs

    def _run_batch(
        self, batch: Batch, needs: Needs, columns: Mapping[Experiment, Columns], parts: KeepsParts | None
    ) -> None:
        """Put the metrics of this batch's prompts into the columns, instead of what an attempt before left there."""
        rows = list(batch.prompts)

        def add(experiment: Experiment, draw: int, metrics: Mapping[str, NDArray[np.float64]]) -> None:
            for name, values in metrics.items():
                column = columns[experiment].setdefault(name, np.zeros(self.task.n))
                share = values / experiment.draws
                column[rows] = share if draw == 0 else column[rows] + share

        for draw, (experiment, metrics) in self._measured(batch, needs, tuple(columns), parts):
            add(experiment, draw, metrics)

    def _measured(
        self, batch: Batch, needs: Needs, experiments: Sequence[Experiment], parts: KeepsParts | None
    ) -> Iterator[tuple[int, Measured]]:
        """Each experiment's metrics, once for every one of its draws; what `parts` know is not run.

        A forward is run with all that it would have if nothing were known, or not at all: its rows decide how it
        rounds.
        """
        rows = list(batch.prompts)
        runs = Unpatched(self, batch, needs)
        values: dict[Source, Mapping[Tap, Tensor]] = {}
        for draw in range(needs.draws):
            drawn = [e for e in experiments if draw < e.draws]
            known = {} if parts is None else parts.known(drawn, rows, draw)
            yield from ((draw, measured) for measured in known.items())
            runs.next_draw(draw)
            values = {s: kept for s, kept in values.items() if not isinstance(s.prompts, Noised)}
            single = [e for e in needs.single if draw < e.draws and e not in known]
            sweeps = [s for s in needs.sweeps if draw < s.draws and not known.keys() >= {*s.experiments}]
            if not single and not sweeps:
                continue
            sources = (*(source for e in single for source in e.sources), *(sweep.source for sweep in sweeps))
            for source in dict.fromkeys(sources):
                if source not in values:
                    values[source] = self._values(batch, source, needs, runs)
            clean_logprobs = upcast(runs.of(CLEAN).logits).log_softmax(-1)
            last: tuple[Experiment, Tensor, Mapping[Tap, Tensor]] | None = None
            for experiment in single:
                patched = values[experiment.source] if experiment.source is not None else {}
                if last is None or last[0] != experiment.run:  # the same run is scored by several answers
                    last = (experiment.run, *self._patched(batch, experiment, patched, needs, runs, values))
                _, logits, recorded = last
                metrics = self.metrics(batch, logits, clean_logprobs, experiment.expected or CLEAN)
                if self._internals is not None and experiment.level != "path":
                    anew = functools.partial(self._actions, batch, experiment, patched, needs, values)
                    metrics |= self._internals.measure(batch, experiment.base, anew, recorded, draw, experiment.level)
                measured = {name: metric.cpu().double().numpy() for name, metric in metrics.items()}
                if parts is not None:
                    parts.keep(experiment, rows, draw, measured)
                yield draw, (experiment, measured)
            for sweep in sweeps:
                base = runs.of(sweep.base) if sweep.streams else None
                found = self._sweeper.run(sweep, batch, base, values[sweep.source], clean_logprobs, draw, known, parts)
                yield from ((draw, one) for one in found)

    def _values(self, batch: Batch, source: Source, needs: Needs, runs: Unpatched) -> Mapping[Tap, Tensor]:
        """The source's values for this batch's rows."""
        return self.source_values(batch, source, needs.sources[source], known=runs.values_of)

    def _patched(
        self,
        batch: Batch,
        experiment: Experiment,
        values: Mapping[Tap, Tensor],
        needs: Needs,
        runs: Unpatched,
        all_values: Mapping[Source, Mapping[Tap, Tensor]],
    ) -> tuple[Tensor, Mapping[Tap, Tensor]]:
        """Logits `[row, vocabulary]` of an experiment's run, and what internal metrics are read from."""
        if experiment.source is None:
            plain = runs.of(experiment.base)
            return plain.logits, plain.recorded
        if experiment.level == "path":
            hops = Hops(
                experiment,
                self.stream,
                run=lambda actions: self.forward(batch, experiment.base, actions, runs.draw),
                source=values,
                columns=lambda where: where_mask(self.task, batch, where, self.device, experiment.base),
                base=runs.values_of(experiment.base),
                extra=lambda: self.expect(len(batch.prompts)),
            )
            return hops.logits(), {}
        actions = self._actions(batch, experiment, values, needs, all_values)
        if self._internals is not None:
            actions = replace(actions, record=actions.record | self._internals.taps(experiment.level))
        return self.forward(batch, experiment.base, actions, runs.draw)

    def _actions(
        self,
        batch: Batch,
        experiment: Experiment,
        values: Mapping[Tap, Tensor],
        needs: Needs,
        all_values: Mapping[Source, Mapping[Tap, Tensor]],
    ) -> Actions:
        """What one forward does for an experiment at node or edge level: for one forward, since edits share values.

        `values` are those of its own source, `all_values` also those of what is patched beside.
        """
        if experiment.source is None:
            return Actions()
        if experiment.level == "node":
            swaps = self.swaps(batch, experiment, values)
            for patch in experiment.patches[1:]:
                alone = replace(experiment.run, source=patch.source, sites=patch.sites, beside=frozenset())
                swaps = merged(swaps, self.swaps(batch, alone, all_values[patch.source]))
            return Actions(swaps)
        program = needs.programs[experiment]
        at = functools.partial(where_mask, self.task, batch, device=self.device, variant=experiment.base)
        columns = {where: at(where) for where in program.wheres}
        return program.actions(columns, values)

    def source_values(
        self,
        batch: Batch,
        source: Source,
        taps: frozenset[Tap],
        draw: int = 0,
        *,
        known: Callable[[Variant], Values] | None = None,
        scaled: bool = False,
    ) -> Values:
        """What `source` gives at `taps` for this batch's rows, broadcastable to `[row, pos, channel]`.

        The unpatched run that values are made of is among the `known` ones, or else is run now; with `scaled`, the
        values have what `Stream.with_scaled` adds to them.
        """

        def run() -> Values:
            assert source.prompts is not None
            if known is not None:
                return known(source.prompts)
            recorded = self.forward(batch, source.prompts, Actions(record=taps), draw)[1]
            return self.stream.with_scaled(recorded) if scaled else recorded

        def means() -> Values:
            self._learn_means(source.whole, taps)
            table = self._means[source.whole]
            return table.values(batch, taps | table.derived, next(self.loaded.model.parameters()), source.part)

        def constant(number: float) -> Values:
            value = torch.full((1, 1, 1), number, dtype=self.dtype, device=self.device)
            return dict.fromkeys(self._with_worked_out(taps), value)

        return STRATEGIES[source.kind](Given(run, means, constant))

    def _with_worked_out(self, taps: frozenset[Tap]) -> frozenset[Tap]:
        """These taps, and those that `Stream.with_scaled` adds to their values."""
        kind = None if self._stream is None else self._stream.worked_out
        return taps if kind is None else taps | {Tap(tap.layer, kind) for tap in taps if tap.kind == "z"}

    @torch.no_grad()
    def _learn_means(self, source: Source, taps: frozenset[Tap]) -> None:
        known = frozenset() if source not in self._means else self._means[source].taps
        if source.prompts is None or self._with_worked_out(taps) <= known:
            return
        groups, averaged = grouping(self.task, source.kind), self.task.averaged
        table = MeanTable(groups, max(self.task.lengths), self._parted)
        record, prompts = Actions(record=taps), source.prompts

        def recorded(part: Batch) -> Mapping[Tap, Tensor]:
            return self.forward(part, prompts, record, task=averaged)[1]

        for batch in make_batches(averaged.lengths, self.rows.whole, self.side, groups.used, by_length=self.by_length):
            for part, values in self.in_parts(batch, recorded, averaged):
                table.add(part, values if self._stream is None else self._stream.with_scaled(values))
        self._means[source] = table
