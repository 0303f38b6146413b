"""Experiments -> records: prompts in batches, sources cached once and shared, each experiment run once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.ablation.ablation_values import MeanTable, mean_sources
from circuitspec.engine.ablation.other_lengths import on_columns_of
from circuitspec.engine.ablation.patched_values import STRATEGIES, Given, Values
from circuitspec.engine.execution.batches import Batch, PaddingSide, first_columns, laid_out, where_mask
from circuitspec.engine.execution.compiler import Actions
from circuitspec.engine.execution.executor import Executor
from circuitspec.engine.execution.masks import merged
from circuitspec.engine.execution.taps import Tap
from circuitspec.engine.execution.worked_out.readout import LogProbabilities, Readout
from circuitspec.engine.forward import CountsPrompts, Forward
from circuitspec.engine.levels.path_hops import Hops, blocks_before, taps_of_variant
from circuitspec.engine.metrics.internal_metrics import Internals
from circuitspec.engine.records import Records, single_runs, with_means
from circuitspec.engine.scheduling.batched_sweep import Measured, Sweeper
from circuitspec.engine.scheduling.needs import Needs, Unpatched, needs_of
from circuitspec.engine.scheduling.parts import KeepsParts
from circuitspec.engine.scheduling.shards import MeasuredShard, Measurement, RunnerSettings, Shard
from circuitspec.engine.validation.pattern_test import pattern_test
from circuitspec.experiments.averaging import grouping
from circuitspec.experiments.experiment import Experiment, Noised, Source, Variant, passes, texts_of
from circuitspec.experiments.levels.attention_pattern_rules import check_patterns
from circuitspec.experiments.levels.patched_tokens import check_counterparts
from circuitspec.hypothesis_file.grammar.internal_metric_names import Internal
from circuitspec.models.load import LoadedModel
from circuitspec.prompts.output_metrics import scored, targets
from circuitspec.prompts.own_metrics import OwnMetric, own_values, refused_whole_answers
from circuitspec.prompts.prompt_set import CLEAN, TokenizedTask

CLEAN_BYTES = 2**28  # of outputs of the clean run that are kept, at most

Columns = dict[str, NDArray[np.float64]]  # metric -> [prompt]
T = TypeVar("T")


class Runner(Forward):
    """Runs experiments on one model and task: which forwards they take, with which means and sweeps; see `Forward`.

    With `sweeps` off, each experiment has a forward of its own, from the beginning. `internals` are measured beside the
    metrics of the output, at node and edge level; projections of them along `directions`, `[d_model]` by name. `parted`
    means can be taken over parts of their prompts too. Metrics of the caller's `own` are measured of every run.
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
        own: Mapping[str, OwnMetric] | None = None,
    ) -> None:
        super().__init__(loaded, task, progress=progress, rows=rows, edges=edges, side=side, executor=executor)
        self._own: Mapping[str, OwnMetric] = own or {}
        self._described = tuple(internals), dict(directions or {}), sweeps
        self._parted = parted
        self._sweeper = Sweeper(self)
        self._internals = Internals(self, internals, directions or {}) if internals else None
        # what is computed past the stream is not there where a forward begins in the middle
        past = loaded.architecture.beyond is not None
        self._sweeps = sweeps and not internals and not loaded.frozen_routing and not past
        self.templates = np.array([p.template for p in task.prompts.prompts], dtype=np.int64)
        self._means: dict[Source, MeanTable] = {}
        self._learned_elsewhere: dict[Source, frozenset[Tap]] = {}
        self._clean: dict[Batch, LogProbabilities] | None = None  # those of the clean run, where they are kept
        self._patterns_tested = False

    def keep_clean(self) -> None:
        """Let the clean run's outputs be kept from one call to the next, as long as they are few: all divergences are
        measured against them, and searches call often."""
        self._clean = {}

    @property
    def measured_beside(self) -> tuple[str, ...]:
        """What decides which internal metrics are measured, at which tokens, and along which directions."""
        return () if self._internals is None else self._internals.described

    def _metrics(
        self,
        batch: Batch,
        logits: Tensor,
        clean_logprobs: Tensor | None,
        expected: str,
        names: Collection[str] | None,
    ) -> dict[str, Tensor]:
        """As a forward's, with metrics of the caller's own; not where gradients are taken, which no such metric has.

        Raises CS517 where one of these gives no number a row.
        """
        found = super()._metrics(batch, logits, clean_logprobs, expected, names)
        if not self._own or torch.is_grad_enabled():
            return found
        if self.task.sequences is not None:
            raise CircuitspecError(refused_whole_answers(self._own))
        told = self.task.of(expected)
        answers, wrong = (
            targets([side[p] for p in batch.prompts], logits.device) for side in (told.answers, told.wrong)
        )
        run = scored(logits, answers, wrong, clean_logprobs)
        return found | own_values(self._own, run, len(batch.prompts))

    @torch.no_grad()
    def run(
        self,
        experiments: Iterable[Experiment],
        parts: KeepsParts | None = None,
        among: Sequence[int] | None = None,
    ) -> Records:
        """Every metric of every experiment for every prompt; where noise is drawn, its mean over the draws.

        What `parts` know of a batch is not run; what is measured is handed to them after each forward. Where prompts
        `among` all are named, by their numbers, these alone are run, and the values are theirs, in this order; means go
        over what they always do.

        Raises CS366 for values that are patched at tokens to which none of the source corresponds.

        Memory does not grow with the number of prompts or experiments beyond the metrics themselves; where it runs
        out, rows are halved. Raises CS502 where logits or patched values are not finite, CS503 where a short cut of
        a sweep is not exact, CS547 where a single prompt does not fit in memory; CS514, CS519 and CS520 for attention
        patterns that cannot be patched.
        """
        asked = tuple(dict.fromkeys(experiments))
        wanted = single_runs(asked)
        prompts = list(range(self.task.n) if among is None else among)
        templates = self.templates[prompts]
        columns: dict[Experiment, Columns] = {e: {} for e in wanted}
        if not wanted or not prompts:
            return Records(columns, templates)
        check_counterparts(wanted, self.task)
        needs = self._needs(wanted)
        self._expect(wanted, needs, len(prompts))
        self._learn(needs)
        for _ in self.in_batches(lambda part: self._run_batch(part, needs, columns, parts), among=among):
            pass
        return with_means(self._recorded(columns, among), asked)

    def _recorded(self, columns: Mapping[Experiment, Columns], among: Sequence[int] | None) -> Records:
        """The records of all prompts, or of those `among` all, of columns that have a place for each prompt."""
        if among is None:
            return Records(columns, self.templates)
        rows = list(among)
        some = {run: {name: whole[rows] for name, whole in own.items()} for run, own in columns.items()}
        return Records(some, self.templates[rows])

    def take_means(self, other: Runner) -> None:
        """Use the means that another runner took, whose task has this one's prompts first, and the same reference."""
        self._means = dict(other._means)

    def _expect(self, wanted: Sequence[Experiment], needs: Needs, prompts: int) -> None:
        averaged = self.task.averaged.n / prompts
        expected = passes((*wanted, *needs.bases), frozenset({*self._means, *self._learned_elsewhere}), averaged)
        self.expect(round(expected * prompts))

    def _learn(self, needs: Needs) -> None:
        """The means that are patched."""
        for source, taps in sorted(mean_sources(needs.sources).items(), key=lambda item: str(item[0])):
            self._learn_means(source, taps)

    # ---------------------------------------------------------------------------------------------- by other processes

    @property
    def settings(self) -> RunnerSettings:
        """What makes a runner in another process run as this one does."""
        internals, directions, sweeps = self._described
        loaded, filled = self.loaded, self.rows.budget is not None
        return RunnerSettings(
            self.task,
            self.rows.whole,
            self.budget if self.rows.budget is None else self.rows.budget,
            filled,
            self.side,
            sweeps,
            internals,
            directions,
            self._parted,
            loaded.shape,
            loaded.dictionaries,
            loaded.frozen_routing,
        )

    @torch.no_grad()
    def announced(self, wanted: Sequence[Experiment], among: Sequence[int] | None = None) -> None:
        """Check that these single runs can be run, and count what every process runs for all of its shards of them: the
        means that it learns, once. Raises as `run` does before the first forward."""
        check_counterparts(wanted, self.task)
        needs = self._needs(wanted)
        self._expect(wanted, needs, self.task.n if among is None else len(among))
        for source, taps in mean_sources(needs.sources).items():
            wanted_taps = self._with_worked_out(taps)
            known = self._learned_elsewhere.get(source, frozenset())
            if source.prompts is not None and not wanted_taps <= known:
                self._learned_elsewhere[source] = wanted_taps
                self.count(len(grouping(self.task, source.kind, texts_of(source.prompts)).used))

    @torch.no_grad()
    def prepared_for(self, shard: Shard) -> Needs:
        """What `measured_shard` takes besides the shard; means that are patched are learned, unless they are known."""
        needs = self._needs(shard.experiments)
        self._learn(needs)
        return needs

    @torch.no_grad()
    def measured_shard(self, shard: Shard, needs: Needs) -> MeasuredShard:
        """All of a shard. Raises as `run` does."""
        numbers = {experiment: number for number, experiment in enumerate(shard.experiments)}
        before, checking = np.array(self.counted), self._sweeper.checking.copy()

        def work(part: Batch) -> list[Measurement]:
            rows = tuple(part.cases)
            return [
                Measurement(numbers[experiment], draw, rows, values)
                for draw, (experiment, values) in self._measured(part, needs, shard.experiments, None)
            ]

        found = [one for _, done in self.in_parts(shard.batch, work) for one in done]
        prompts, saved = np.array(self.counted) - before - (self._sweeper.checking - checking)
        return MeasuredShard(tuple(found), round(prompts), round(float(saved), 6))  # whatever was counted before

    def joined(
        self,
        experiments: Sequence[Experiment],
        found: Iterable[Iterable[Measurement]],
        among: Sequence[int] | None = None,
    ) -> Records:
        """Single runs from what was measured of their shards, these in the order of their batches."""
        columns: dict[Experiment, Columns] = {experiment: {} for experiment in experiments}
        for shard in found:
            for one in sorted(shard, key=lambda measured: (measured.draw, measured.experiment)):
                experiment = experiments[one.experiment]
                self._add(columns[experiment], experiment, list(one.prompts), one.draw, one.values)
        return self._recorded(columns, among)

    def counted_elsewhere(self, shard: MeasuredShard) -> None:
        """Another process ran a shard, and told the progress of it."""
        self.prompts_run += shard.prompts_run
        self._saved += shard.saved

    @torch.no_grad()
    def outputs(
        self, experiments: Sequence[Experiment], read: Callable[[Batch, Mapping[Experiment, Readout]], T]
    ) -> Iterator[tuple[Batch, list[T]]]:
        """What is `read` of the logits `[reading, vocabulary]` of these runs, batch by batch, once for every draw.

        Every run has a forward of its own. Raises as `run` does.
        """
        wanted = single_runs(experiments)
        check_counterparts(wanted, self.task)
        needs = needs_of(wanted, self, sweeps=False)
        averaged = self.task.averaged.n / self.task.n
        self.expect(round(passes(wanted, frozenset(self._means), averaged) * self.task.n))
        for source, taps in sorted(mean_sources(needs.sources).items(), key=lambda item: str(item[0])):
            self._learn_means(source, taps)

        def work(batch: Batch) -> list[T]:
            runs, found = Unpatched(self, batch, needs), list[T]()
            for draw in range(needs.draws):
                runs.next_draw(draw)
                found.append(read(batch, {run: self._logits(batch, run, needs, runs) for run in wanted}))
            return found

        yield from self.in_batches(work)

    def _logits(self, batch: Batch, experiment: Experiment, needs: Needs, runs: Unpatched) -> Readout:
        """The logits `[reading, vocabulary]` of one run by itself."""
        layout = self._laid_out_as(experiment.base)
        there = {source: self._values(batch, source, layout, needs, runs) for source in experiment.sources}
        patched = {} if experiment.source is None else there[experiment.source]
        return self._patched(batch, experiment, patched, needs, runs, there)[0]

    def _needs(self, wanted: Sequence[Experiment]) -> Needs:
        needs = needs_of(wanted, self, sweeps=self._sweeps)
        of_patterns = [experiment for experiment in wanted if experiment.patches_patterns]
        check_patterns(of_patterns, self.task)
        if of_patterns and not self._patterns_tested:
            pattern_test(self)
            self._patterns_tested = True
        if self._internals is not None:
            for variant in {experiment.base for experiment in wanted if experiment.source is None}:
                needs.record(variant, self._internals.taps("node"))
        return needs

    def _run_batch(
        self, batch: Batch, needs: Needs, columns: Mapping[Experiment, Columns], parts: KeepsParts | None
    ) -> None:
        """Put the metrics of this batch's prompts into the columns, instead of what an attempt before left there."""
        rows = list(batch.cases)

        for draw, (experiment, metrics) in self._measured(batch, needs, tuple(columns), parts):
            self._add(columns[experiment], experiment, rows, draw, metrics)

    def _add(
        self,
        columns: Columns,
        experiment: Experiment,
        rows: list[int],
        draw: int,
        metrics: Mapping[str, NDArray[np.float64]],
    ) -> None:
        """Put the metrics of these prompts into an experiment's columns: the mean over draws, the first of them 0."""
        for name, values in metrics.items():
            column = columns.setdefault(name, np.zeros(self.task.n))
            share = values / experiment.draws
            column[rows] = share if draw == 0 else column[rows] + share

    def _measured(
        self, batch: Batch, needs: Needs, experiments: Sequence[Experiment], parts: KeepsParts | None
    ) -> Iterator[tuple[int, Measured]]:
        """Each experiment's metrics, once for every one of its draws; what `parts` know is not run.

        A forward is run with all that it would have if nothing were known, or not at all: its rows decide how it
        rounds.
        """
        rows = list(batch.cases)
        runs = Unpatched(self, batch, needs)
        values: dict[tuple[Source, Variant], Mapping[Tap, Tensor]] = {}
        for draw in range(needs.draws):
            drawn = [e for e in experiments if draw < e.draws]
            known = {} if parts is None else parts.known(drawn, rows, draw)
            yield from ((draw, measured) for measured in known.items())
            runs.next_draw(draw)
            values = {one: kept for one, kept in values.items() if not isinstance(one[0].prompts, Noised)}
            single = [e for e in needs.single if draw < e.draws and e not in known]
            sweeps = [s for s in needs.sweeps if draw < s.draws and not known.keys() >= {*s.experiments}]
            if not single and not sweeps:
                continue
            sources = (*((s, e.base) for e in single for s in e.sources), *((s.source, s.base) for s in sweeps))
            for source, layout in dict.fromkeys((source, self._laid_out_as(base)) for source, base in sources):
                if (source, layout) not in values:
                    values[source, layout] = self._values(batch, source, layout, needs, runs)
            clean_logprobs = self._clean_logprobs(batch, needs, runs)
            last: tuple[Experiment, Readout, Mapping[Tap, Tensor]] | None = None
            for experiment in single:
                at = self._laid_out_as(experiment.base)
                patched = values[experiment.source, at] if experiment.source is not None else {}
                there = {source: values[source, at] for source in experiment.sources}
                if last is None or last[0] != experiment.run:  # the same run is scored by several answers
                    last = (experiment.run, *self._patched(batch, experiment, patched, needs, runs, there))
                _, read, recorded = last
                metrics = self.metrics(batch, read, clean_logprobs, experiment.expected)
                if self._internals is not None and experiment.level != "path":
                    anew = functools.partial(self._actions, batch, experiment, patched, needs, there)
                    metrics |= self._internals.measure(batch, experiment.base, anew, recorded, draw, experiment.level)
                measured = {name: metric.cpu().double().numpy() for name, metric in metrics.items()}
                if parts is not None:
                    parts.keep(experiment, rows, draw, measured)
                yield draw, (experiment, measured)
            for sweep in sweeps:
                unpatched = runs.of(sweep.base) if sweep.streams else None
                given = values[sweep.source, self._laid_out_as(sweep.base)]
                found = self._sweeper.run(sweep, batch, unpatched, given, clean_logprobs, draw, known, parts)
                yield from ((draw, one) for one in found)

    def _clean_logprobs(self, batch: Batch, needs: Needs, runs: Unpatched) -> LogProbabilities:
        """Those of the clean run; it is not run for them alone where they are kept."""
        if self._clean is not None and batch in self._clean and not needs.reads(CLEAN):
            self.progress.advance(len(batch.cases))
            return self._clean[batch]
        found = LogProbabilities(runs.of(CLEAN).readout)
        if self._clean is not None and batch not in self._clean and found.held:
            held = sum(one.nbytes for one in self._clean.values())
            if held + found.nbytes <= CLEAN_BYTES:
                self._clean[batch] = found
        return found

    def _values(
        self, batch: Batch, source: Source, base: Variant, needs: Needs, runs: Unpatched
    ) -> Mapping[Tap, Tensor]:
        """The source's values for this batch's rows, as the base's prompts lie in them."""
        summed = needs.by_contribution  # what has no value is taken times 0 there, and not left out
        return self.source_values(
            batch, source, needs.sources[source], base=base, known=runs.values_of, unknown=0.0 if summed else torch.nan
        )

    def _laid_out_as(self, base: Variant) -> Variant:
        """The variant whose prompts have the same tokens in the same places, by one name for all of them."""
        return texts_of(base) if texts_of(base) in self.task.own else CLEAN

    def _patched(
        self,
        batch: Batch,
        experiment: Experiment,
        values: Mapping[Tap, Tensor],
        needs: Needs,
        runs: Unpatched,
        all_values: Mapping[Source, Mapping[Tap, Tensor]],
    ) -> tuple[Readout, Mapping[Tap, Tensor]]:
        """What is read, `[reading, vocabulary]`, of an experiment's run, and what internal metrics are read from."""
        if experiment.source is None:
            plain = runs.of(experiment.base)
            return plain.readout, plain.recorded
        if experiment.level == "path":
            hops = Hops(
                experiment,
                self.stream,
                run=lambda actions: self.readout(batch, experiment.base, actions, runs.draw),
                source=values,
                columns=lambda where: where_mask(self.task, batch, where, self.device, experiment.base),
                base=runs.values_of(experiment.base),
                extra=lambda: self.expect(len(batch.cases)),
                first=lambda: first_columns(laid_out(self.task, batch, experiment.base)).to(self.device),
                variant=functools.cache(lambda name: self._of_variant(batch, experiment, name, needs, runs)),
            )
            return hops.readout(), {}
        actions = self._actions(batch, experiment, values, needs, all_values)
        if self._internals is not None:
            actions = replace(actions, record=actions.record | self._internals.taps(experiment.level))
        return self.readout(batch, experiment.base, actions, runs.draw)

    def _of_variant(
        self, batch: Batch, experiment: Experiment, name: str, needs: Needs, runs: Unpatched
    ) -> Mapping[Tap, Tensor]:
        """What an experiment along paths takes of the run on a variant that is not its base, as the base lies in rows.

        Such runs are let go with the experiment, unless they are recorded for others too.
        """
        taps = taps_of_variant(experiment, name, self.stream)
        if taps <= needs.recorded.get(name, frozenset()):
            found = runs.values_of(name)
        else:
            last = max(map(blocks_before, taps))
            wanted = Actions(record=taps, last_block=last if last < self.loaded.shape.n_layers else None)
            found = self.stream.with_scaled(self.readout(batch, name, wanted)[1])
        return on_columns_of(self.task, batch, self._laid_out_as(experiment.base), name, found, 0.0)

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
        base: Variant = CLEAN,
        known: Callable[[Variant], Values] | None = None,
        scaled: bool = False,
        unknown: float = 0.0,
    ) -> Values:
        """What `source` gives at `taps` for this batch's rows, broadcastable to `[row, pos, channel]`.

        Columns are those of the prompts of `base`. Where these have other lengths than the source's, `unknown` stands
        at tokens that no token of the source corresponds to: nothing may be patched there (`undefined_tokens`). Errors
        that dictionaries leave out are 0.

        The unpatched run that values are made of is among the `known` ones, or else is run now; with `scaled`, the
        values have what `Stream.with_scaled` adds to them.
        """

        def run() -> Values:
            assert source.prompts is not None
            if known is not None:
                return known(source.prompts)
            recorded = self.readout(batch, source.prompts, Actions(record=taps), draw)[1]
            return self.stream.with_scaled(recorded) if scaled else recorded

        def means() -> Values:
            self._learn_means(source.whole, taps)
            table = self._means[source.whole]
            assert source.prompts is not None
            there = laid_out(self.task, batch, source.prompts)
            return table.values(there, taps | table.derived, next(self.loaded.model.parameters()), source.part)

        def constant(number: float) -> Values:
            value = torch.full((1, 1, 1), number, dtype=self.dtype, device=self.device)
            return dict.fromkeys(self._with_worked_out(taps), value)

        values = STRATEGIES[source.kind](Given(run, means, constant))
        if source.prompts is not None:
            values = on_columns_of(self.task, batch, base, source.prompts, values, unknown)
        return {**values, **{tap: constant(0.0)[tap] for tap in self._left_out(taps)}}

    def _left_out(self, taps: frozenset[Tap]) -> frozenset[Tap]:
        """The errors among these taps that dictionaries leave out."""
        sites = {one.name for one in self.loaded.shape.dictionaries if one.error_left_out}
        return frozenset(tap for tap in taps if tap.kind == "error" and tap.dictionary in sites)

    def _with_worked_out(self, taps: frozenset[Tap]) -> frozenset[Tap]:
        """These taps, and those that `Stream.with_scaled` adds to their values."""
        kind = None if self._stream is None else self._stream.worked_out
        return taps if kind is None else taps | {Tap(tap.layer, kind) for tap in taps if tap.kind == "z"}

    @torch.no_grad()
    def _learn_means(self, source: Source, taps: frozenset[Tap]) -> None:
        known = frozenset() if source not in self._means else self._means[source].taps
        if source.prompts is None or self._with_worked_out(taps) <= known:
            return
        groups, averaged = grouping(self.task, source.kind, texts_of(source.prompts)), self.task.averaged
        table = MeanTable(groups, max(self.task.longest, averaged.longest), self._parted)
        record, prompts = Actions(record=taps), source.prompts

        def recorded(part: Batch) -> Mapping[Tap, Tensor]:
            return self.readout(part, prompts, record, task=averaged)[1]

        for batch in self._batches_of(averaged, self.rows.whole, self.side, groups.used):
            for part, values in self.in_parts(batch, recorded, averaged):
                laid = laid_out(averaged, part, prompts)
                table.add(laid, values if self._stream is None else self._stream.with_scaled(values))
        self._means[source] = table
