"""Experiments -> records: prompts in batches, sources cached once and shared, each experiment run once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.ablation.ablation_values import MeanTable, mean_sources
from circuitspec.engine.ablation.embedding_noise import embedding_std, noise
from circuitspec.engine.batched_sweep import Measured, Sweeper
from circuitspec.engine.execution.batch_size import LARGEST, late_bytes
from circuitspec.engine.execution.batches import (
    Batch,
    PaddingSide,
    answer_logits,
    make_batches,
    model_inputs,
    where_mask,
)
from circuitspec.engine.execution.compiler import Actions, Compiler
from circuitspec.engine.execution.finiteness import broken_row, find_origin, spoken
from circuitspec.engine.execution.interventions import Swap
from circuitspec.engine.execution.masks import swaps_of
from circuitspec.engine.execution.memory import Rows, out_of_memory
from circuitspec.engine.execution.taps import Slot, Tap, slots_of
from circuitspec.engine.levels.path_hops import Hops
from circuitspec.engine.levels.residual_stream import Stream
from circuitspec.engine.metrics.internal_metrics import Internals
from circuitspec.engine.needs import Needs, Unpatched, needs_of
from circuitspec.engine.records import Records
from circuitspec.experiments.averaging import grouping
from circuitspec.experiments.experiment import Experiment, Noised, Source, Variant, passes, texts_of
from circuitspec.graph.nodes import NodeComponent
from circuitspec.hypothesis_file.grammar.internal_metric_names import Internal
from circuitspec.models.families.rope import reads_longest_row
from circuitspec.models.load import LoadedModel
from circuitspec.prompts.output_metrics import compute_metrics, targets, upcast
from circuitspec.prompts.prompt_set import CLEAN, TokenizedTask

EMBEDDINGS = Tap(-1, "embed")
T = TypeVar("T")
Columns = dict[str, NDArray[np.float64]]  # metric -> [prompt]


class Parts(Protocol):
    """Keeps what a draw gave for some prompts, batch by batch, for a run that is interrupted and begun again.

    And what a forward with some experiments was seen to take in memory, by which those after it are cut.
    """

    def known(
        self, experiments: Sequence[Experiment], prompts: Sequence[int], draw: int
    ) -> Mapping[Experiment, Mapping[str, NDArray[np.float64]]]: ...
    def keep(
        self, experiment: Experiment, prompts: Sequence[int], draw: int, values: Mapping[str, NDArray[np.float64]]
    ) -> None: ...
    def bytes_taken(self, forward: Sequence[Experiment], prompts: Sequence[int], draw: int) -> int | None: ...
    def keep_bytes(self, forward: Sequence[Experiment], prompts: Sequence[int], draw: int, taken: int) -> None: ...


class Progress(Protocol):
    """Told about work to come and work done, counted in prompts run."""

    def expect(self, prompts: int) -> None: ...
    def advance(self, prompts: int) -> None: ...


class Runner:
    """Runs experiments on one model and task; holds the compiled interventions and the means.

    Use within `borrowed(model)`. `forwards` counts prompts run through the model, in units of one pass
    over all prompts; `forwards_saved` what of that was not computed, since it is as in the base run. With `sweeps`
    off, each experiment has a forward of its own, from the beginning. `internals` are measured beside the metrics of
    the output, at node and edge level; projections of them along `directions`, `[d_model]` by name. `parted` means
    can be taken over parts of their prompts too.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        task: TokenizedTask,
        *,
        rows: int,
        progress: Progress,
        side: PaddingSide = "right",
        sweeps: bool = True,
        internals: Sequence[Internal] = (),
        directions: Mapping[str, Tensor] | None = None,
        parted: bool = False,
    ) -> None:
        self.loaded = loaded
        self.task = task
        self._parted = parted
        self.compiler = Compiler(loaded.model, loaded.architecture, loaded.shape)
        weight = next(loaded.model.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        dtype = str(self.dtype).removeprefix("torch.")
        self.rows = Rows(rows, lambda positions, column: late_bytes(loaded.shape, positions, column, dtype))
        self.by_length = reads_longest_row(loaded.model)
        self.batches = make_batches(task.lengths, rows, side, by_length=self.by_length)
        self._slots: dict[NodeComponent, tuple[Slot, ...]] = {}
        self.sweeper = Sweeper(self)
        self._internals = Internals(self, internals, directions or {}) if internals else None
        self._sweeps = sweeps and not internals
        self.templates = np.array([p.template for p in task.prompts.prompts], dtype=np.int64)
        self._progress = progress
        self._means: dict[Source, MeanTable] = {}
        self._stream: Stream | None = None
        self._embedding_std: float | None = None
        self._prompts_run = 0
        self._saved = 0.0

    def on(self, task: TokenizedTask) -> Runner:
        """A runner of other prompts on the same model, with what is compiled and known of it; it counts for itself."""
        other = Runner(self.loaded, task, rows=task.n, progress=self._progress)
        other.compiler, other._stream = self.compiler, self._stream
        return other

    @property
    def measured_beside(self) -> tuple[str, ...]:
        """What decides which internal metrics are measured, at which tokens, and along which directions."""
        return () if self._internals is None else self._internals.described

    @property
    def forwards(self) -> float:
        return self._prompts_run / self.task.n

    @property
    def forwards_saved(self) -> float:
        return self._saved / self.task.n

    def count(self, prompts: int, computed: float = 1.0) -> None:
        """Prompts were run; `computed` says what share of a whole forward that took."""
        self._prompts_run += prompts
        self._saved += prompts * (1 - computed)
        self._progress.advance(prompts)

    @torch.no_grad()
    def run(self, experiments: Iterable[Experiment], parts: Parts | None = None) -> Records:
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
        self._progress.expect(round(expected * self.task.n))
        for source, taps in sorted(mean_sources(needs.sources).items(), key=lambda item: str(item[0])):
            self._learn_means(source, taps)
        for batch in self.batches:
            for _ in self._in_parts(batch, lambda part: self._run_batch(part, needs, columns, parts)):
                pass
        return Records(columns, self.templates)

    def _needs(self, wanted: Sequence[Experiment]) -> Needs:
        needs = needs_of(wanted, self, sweeps=self._sweeps)
        if self._internals is not None:
            for variant in {experiment.base for experiment in wanted if experiment.source is None}:
                needs.record(variant, self._internals.taps("node"))
        return needs

    def _in_parts(
        self, batch: Batch, work: Callable[[Batch], T], task: TokenizedTask | None = None
    ) -> Iterator[tuple[Batch, T]]:
        """The work done on this batch; where memory runs out, on parts of half as many rows, down to one."""
        waiting = [batch]
        while waiting:
            part, *others = waiting.pop(0).at_most(self.rows.whole)
            waiting[:0] = others
            before = self._prompts_run
            try:
                result = work(part)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if len(part.prompts) == 1:
                    raise CircuitspecError(_too_large(task or self.task, part)) from error
            else:
                yield part, result
                continue
            self.expect(self._prompts_run - before)  # this was in vain
            self.rows.halve(len(part.prompts))
            waiting.insert(0, part)

    @property
    def stream(self) -> Stream:
        """What single senders add and single receivers compute, for edge and path level. Raises CS371."""
        if self._stream is None:
            self._stream = Stream(self.loaded)
        return self._stream

    def _run_batch(
        self, batch: Batch, needs: Needs, columns: Mapping[Experiment, Columns], parts: Parts | None
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
        self, batch: Batch, needs: Needs, experiments: Sequence[Experiment], parts: Parts | None
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
            sources = (*(e.source for e in single if e.source is not None), *(sweep.source for sweep in sweeps))
            for source in dict.fromkeys(sources):
                if source not in values:
                    values[source] = self._values(batch, source, needs, runs)
            clean_logprobs = upcast(runs.of(CLEAN).logits).log_softmax(-1)
            for experiment in single:
                patched = values[experiment.source] if experiment.source is not None else {}
                logits, recorded = self._patched(batch, experiment, patched, needs, runs)
                metrics = self.metrics(batch, logits, clean_logprobs)
                if self._internals is not None and experiment.level != "path":
                    anew = functools.partial(self._actions, batch, experiment, patched, needs)
                    metrics |= self._internals.measure(batch, experiment.base, anew, recorded, draw, experiment.level)
                measured = {name: metric.cpu().double().numpy() for name, metric in metrics.items()}
                if parts is not None:
                    parts.keep(experiment, rows, draw, measured)
                yield draw, (experiment, measured)
            for sweep in sweeps:
                base = runs.of(sweep.base) if sweep.streams else None
                found = self.sweeper.run(sweep, batch, base, values[sweep.source], clean_logprobs, draw, known, parts)
                yield from ((draw, one) for one in found)

    def _values(self, batch: Batch, source: Source, needs: Needs, runs: Unpatched) -> Mapping[Tap, Tensor]:
        """The source's values for this batch's rows."""
        if source.kind == "resample" and source.prompts is not None:
            return runs.values_of(source.prompts)
        return self.source_values(batch, source, needs.sources[source])

    def _patched(
        self,
        batch: Batch,
        experiment: Experiment,
        values: Mapping[Tap, Tensor],
        needs: Needs,
        runs: Unpatched,
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
                columns=lambda where: where_mask(self.task, batch, where, self.device),
                base=runs.values_of(experiment.base),
                extra=lambda: self.expect(len(batch.prompts)),
            )
            return hops.logits(), {}
        actions = self._actions(batch, experiment, values, needs)
        if self._internals is not None:
            actions = replace(actions, record=actions.record | self._internals.taps(experiment.level))
        return self.forward(batch, experiment.base, actions, runs.draw)

    def _actions(self, batch: Batch, experiment: Experiment, values: Mapping[Tap, Tensor], needs: Needs) -> Actions:
        """What one forward does for an experiment at node or edge level: for one forward, since edits share values."""
        if experiment.source is None:
            return Actions()
        if experiment.level == "node":
            return Actions(self.swaps(batch, experiment, values))
        program = needs.programs[experiment]
        columns = {where: where_mask(self.task, batch, where, self.device) for where in program.wheres}
        return program.actions(columns, values)

    def forward(
        self,
        batch: Batch,
        variant: Variant,
        actions: Actions,
        draw: int = 0,
        cache: DynamicCache | None = None,
        task: TokenizedTask | None = None,
    ) -> tuple[Tensor, dict[Tap, Tensor]]:
        """One forward of one batch: logits at the answers `[row, vocabulary]`, and the recorded taps.

        `draw` numbers the noise, where `variant` has any; keys and values go into an empty `cache`. The batch is of
        the prompts of another `task` where one is given: of those that means are over. Raises CS502, which names the
        first place that is not finite.
        """
        task = self.task if task is None else task
        inputs = model_inputs(task, batch, variant, self.device)
        if isinstance(variant, Noised):
            actions = replace(actions, shifts={**actions.shifts, EMBEDDINGS: self._noise(task, batch, variant, draw)})
        kept = {} if cache is None else {"past_key_values": cache, "use_cache": True}
        logits, recorded = self.compiler.forward({**inputs, **kept}, actions)
        self.count(len(batch.prompts))
        answers = answer_logits(logits, batch)
        row = broken_row(answers.detach(), recorded, batch)
        if row is not None:
            loaded = self.loaded
            origin = find_origin(self.compiler, inputs, actions, batch, row, loaded.architecture, loaded.shape)
            prompt = batch.prompts[row]
            roles = [] if origin is None else [r for r, at in task.roles.items() if at[prompt] == origin.position]
            first = "run again, all was finite" if origin is None else f"first in {spoken(origin, roles)}"
            text = task.prompts.prompts[prompt].texts[texts_of(variant)]
            raise CircuitspecError(
                Diagnostic(
                    "CS502",
                    f"NaN or infinity in the run on the {variant} prompt {text!r}: {first}",
                    hint=_remedy(self.dtype),
                    data={"site": None if origin is None else origin.site, "prompt": prompt},
                )
            )
        return answers, recorded

    def swaps(self, batch: Batch, experiment: Experiment, values: Mapping[Tap, Tensor]) -> dict[Tap, Swap]:
        """The experiment's masks for this batch's rows, one for each tap it touches."""
        columns = functools.cache(lambda where: where_mask(self.task, batch, where, self.device))
        return swaps_of([experiment], values, columns, self.slots_of, self.loaded.shape)

    def metrics(self, batch: Batch, logits: Tensor, clean_logprobs: Tensor | None) -> dict[str, Tensor]:
        """Every metric for each row, from logits `[row, vocabulary]`."""
        answers = targets([self.task.answers[p] for p in batch.prompts], logits.device)
        wrong = targets([self.task.wrong[p] for p in batch.prompts], logits.device)
        return compute_metrics(logits, answers, wrong, clean_logprobs)

    def clean_logprobs(self, batch: Batch) -> Tensor:
        """Each row's log probabilities in the clean run, `[row, vocabulary]`: another forward."""
        with torch.no_grad():
            return upcast(self.forward(batch, CLEAN, Actions())[0]).log_softmax(-1)

    def source_values(self, batch: Batch, source: Source, taps: frozenset[Tap], draw: int = 0) -> dict[Tap, Tensor]:
        """What `source` gives at `taps` for this batch's rows, broadcastable to `[row, pos, channel]`."""
        if source.prompts is None:
            zero = torch.zeros(1, 1, 1, dtype=self.dtype, device=self.device)
            return dict.fromkeys(self._with_worked_out(taps), zero)
        if source.kind == "resample":
            return self.forward(batch, source.prompts, Actions(record=taps), draw)[1]
        self._learn_means(source.whole, taps)
        table = self._means[source.whole]
        return table.values(batch, taps | table.derived, next(self.loaded.model.parameters()), source.part)

    def slots_of(self, component: NodeComponent) -> tuple[Slot, ...]:
        """The slices of this model's tensors that a component is."""
        if component not in self._slots:
            self._slots[component] = slots_of(component, self.loaded.architecture, self.loaded.shape)
        return self._slots[component]

    def taps_of(self, experiments: Iterable[Experiment]) -> frozenset[Tap]:
        """Every tap that some experiment patches."""
        return frozenset(slot.tap for e in experiments for site in e.sites for slot in self.slots_of(site.component))

    def fill_memory(self, budget: int) -> None:
        """Let forwards of sweeps take as many rows as fit into so many bytes, by what they are seen to take."""
        self.rows.budget = budget
        self.rows.most_whole = LARGEST if self.device.type == "cpu" else None

    def expect(self, prompts: int) -> None:
        """Announce prompts that will be run otherwise than by `run`."""
        self._progress.expect(prompts)

    def count_backward(self, batch: Batch) -> None:
        """A backward pass costs about two forwards."""
        self.count(2 * len(batch.prompts))

    def _noise(self, task: TokenizedTask, batch: Batch, noised: Noised, draw: int) -> Tensor:
        if self._embedding_std is None:
            self._embedding_std = embedding_std(self.loaded)
        drawn = noise(task, batch, noised, draw, self.loaded.shape.d_model)
        return (noised.std * self._embedding_std * drawn).to(self.dtype).to(self.device)

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

        for batch in make_batches(
            averaged.lengths, self.rows.whole, self.batches[0].side, groups.used, by_length=self.by_length
        ):
            for part, values in self._in_parts(batch, recorded, averaged):
                table.add(part, values if self._stream is None else self._stream.with_scaled(values))
        self._means[source] = table


def _too_large(task: TokenizedTask, batch: Batch) -> Diagnostic:
    (prompt,) = batch.prompts
    return Diagnostic(
        "CS547",
        f"out of memory with a single prompt in a forward: {task.prompts.prompts[prompt].described()}, "
        f"{batch.width} tokens long",
        hint="use shorter prompts, a smaller dtype such as `dtype: bfloat16`, or a machine with more memory",
        data={"prompt": prompt, "tokens": batch.width},
    )


def _remedy(dtype: torch.dtype) -> str:
    if dtype == torch.float16:
        return "float16 holds nothing above 65504: use `dtype: bfloat16` or `dtype: float32`"
    return "the weights hold NaN or values that overflow: look at that component's, or load them again"
