"""Experiments -> records: prompts in batches, sources cached once and shared, each experiment run once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuitspec.diagnostics import CircuitspecError, Diagnostic
from circuitspec.engine.batches import Batch, PaddingSide, answer_logits, make_batches, model_inputs, where_mask
from circuitspec.engine.compile import Actions, Compiler
from circuitspec.engine.interventions import Swap
from circuitspec.engine.records import Records
from circuitspec.engine.sources import MeanTable, mean_groups, mean_sources
from circuitspec.engine.taps import Tap, slot_of
from circuitspec.graph.where import Where
from circuitspec.models.load import LoadedModel
from circuitspec.plan.experiment import Experiment, Source
from circuitspec.tasks.metrics import compute_metrics, targets
from circuitspec.tasks.prompts import CLEAN, TokenizedTask


class Progress(Protocol):
    """Told about work to come and work done, counted in prompts run."""

    def expect(self, prompts: int) -> None: ...
    def advance(self, prompts: int) -> None: ...


class Runner:
    """Runs experiments on one model and task; holds the compiled interventions and the means.

    Use within `borrowed(model)`. `forwards` counts prompts run through the model, in units of one pass
    over all prompts.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        task: TokenizedTask,
        *,
        rows: int,
        progress: Progress,
        side: PaddingSide = "right",
    ) -> None:
        self.loaded = loaded
        self.task = task
        self.compiler = Compiler(loaded.model, loaded.architecture)
        self.device = next(loaded.model.parameters()).device
        self.batches = make_batches(task.lengths, rows, side)
        self.templates = np.array([p.template for p in task.prompts.prompts], dtype=np.int64)
        self._progress = progress
        self._means: dict[Source, MeanTable] = {}
        self._prompts_run = 0

    @property
    def forwards(self) -> float:
        return self._prompts_run / self.task.n

    @torch.no_grad()
    def run(self, experiments: Iterable[Experiment]) -> Records:
        """Every metric of every experiment for every prompt.

        Memory does not grow with the number of prompts beyond the metrics themselves. Raises CS502 where
        logits are not finite.
        """
        wanted = tuple(dict.fromkeys(experiments))
        sources = frozenset(e.source for e in wanted if e.source is not None)
        taps = {s: taps_of(e for e in wanted if e.source == s) for s in sources}
        self._progress.expect(self._cost(wanted, sources) * self.task.n)
        for source in sorted(mean_sources(sources), key=str):
            self._learn_means(source, taps[source])
        columns: dict[Experiment, dict[str, NDArray[np.float64]]] = {e: {} for e in wanted}
        for batch in self.batches:
            for experiment, metrics in self._run_batch(batch, wanted, taps):
                for name, values in metrics.items():
                    column = columns[experiment].setdefault(name, np.full(self.task.n, np.nan))
                    column[list(batch.prompts)] = values.double().cpu().numpy()
        return Records(columns, self.templates)

    def _run_batch(
        self, batch: Batch, experiments: Sequence[Experiment], taps: Mapping[Source, frozenset[Tap]]
    ) -> Iterable[tuple[Experiment, dict[str, Tensor]]]:
        plain: dict[str, Tensor] = {}  # variant -> logits of its unpatched run
        values: dict[Source, dict[Tap, Tensor]] = {}
        for source, needed in taps.items():
            if source in self._means:
                values[source] = self._means[source].values(batch, needed, next(self.loaded.model.parameters()))
            else:
                plain[source.prompts], values[source] = self.forward(batch, source.prompts, Actions(record=needed))
        if CLEAN not in plain:
            plain[CLEAN], _ = self.forward(batch, CLEAN, Actions())
        clean_logprobs = upcast(plain[CLEAN]).log_softmax(-1)
        for experiment in experiments:
            if experiment.source is None:
                if experiment.base not in plain:
                    plain[experiment.base], _ = self.forward(batch, experiment.base, Actions())
                logits = plain[experiment.base]
            else:
                swaps = self.swaps(batch, experiment, values[experiment.source])
                logits, _ = self.forward(batch, experiment.base, Actions(swaps))
            yield experiment, self.metrics(batch, logits, clean_logprobs)

    def forward(self, batch: Batch, variant: str, actions: Actions) -> tuple[Tensor, dict[Tap, Tensor]]:
        """One forward of one batch: logits at the answers `[row, vocabulary]`, and the recorded taps."""
        logits, recorded = self.compiler.forward(model_inputs(self.task, batch, variant, self.device), actions)
        self._prompts_run += len(batch.prompts)
        self._progress.advance(len(batch.prompts))
        answers = answer_logits(logits, batch)
        if not torch.isfinite(answers).all():
            row = int((~torch.isfinite(answers)).any(-1).nonzero()[0])
            prompt = self.task.prompts.prompts[batch.prompts[row]]
            raise CircuitspecError(
                Diagnostic(
                    "CS502",
                    f"the model's logits are not finite for the {variant} prompt {prompt.texts[variant]!r}",
                    hint="try `dtype: float32`; if it stays, the weights or the patched values hold NaN or infinity",
                )
            )
        return answers, recorded

    def swaps(self, batch: Batch, experiment: Experiment, values: Mapping[Tap, Tensor]) -> dict[Tap, Swap]:
        """The experiment's masks for this batch's rows, one for each tap it touches."""
        units: dict[tuple[Tap, Where], list[int]] = {}
        for site in experiment.sites:
            slot = slot_of(site.component)
            units.setdefault((slot.tap, site.where), []).append(slot.unit)
        columns = {w: where_mask(self.task, batch, w, self.device) for w in {w for _, w in units}}
        masks: dict[Tap, Tensor] = {}
        for (tap, where), members in units.items():
            if tap not in masks:
                shape = (len(batch.prompts), batch.width, tap.units(self.loaded.shape))
                masks[tap] = torch.zeros(shape, dtype=torch.bool, device=self.device)
            masks[tap][:, :, members] |= columns[where].unsqueeze(-1)
        return {tap: Swap(mask, values[tap]) for tap, mask in masks.items()}

    def metrics(self, batch: Batch, logits: Tensor, clean_logprobs: Tensor | None) -> dict[str, Tensor]:
        """Every metric for each row, from logits `[row, vocabulary]`."""
        answers = targets([self.task.answers[p] for p in batch.prompts], logits.device)
        wrong = targets([self.task.wrong[p] for p in batch.prompts], logits.device)
        return compute_metrics(logits, answers, wrong, clean_logprobs)

    def source_values(self, batch: Batch, source: Source, taps: frozenset[Tap]) -> dict[Tap, Tensor]:
        """What `source` gives at `taps` for this batch's rows."""
        if source.kind != "resample":
            self._learn_means(source, taps)
            return self._means[source].values(batch, taps, next(self.loaded.model.parameters()))
        return self.forward(batch, source.prompts, Actions(record=taps))[1]

    def count_backward(self, batch: Batch) -> None:
        """A backward pass costs about two forwards."""
        self._prompts_run += 2 * len(batch.prompts)
        self._progress.advance(2 * len(batch.prompts))

    @torch.no_grad()
    def _learn_means(self, source: Source, taps: frozenset[Tap]) -> None:
        if source in self._means and taps <= self._means[source].taps:
            return
        table = MeanTable(mean_groups(self.task, source.kind), max(self.task.lengths))
        for batch in self.batches:
            _, values = self.forward(batch, source.prompts, Actions(record=taps))
            table.add(batch, values)
        self._means[source] = table

    def _cost(self, experiments: Sequence[Experiment], sources: frozenset[Source]) -> int:
        """Passes over all prompts that `run` will need."""
        plain = {e.base for e in experiments if e.source is None} | {CLEAN}
        recorded = {s.prompts for s in sources if s.kind == "resample"}
        means = sum(1 for s in mean_sources(sources) if s not in self._means)
        return means + len(plain | recorded) + sum(1 for e in experiments if e.source is not None)


def taps_of(experiments: Iterable[Experiment]) -> frozenset[Tap]:
    """Every tap that some experiment patches."""
    return frozenset(slot_of(site.component).tap for e in experiments for site in e.sites)


def upcast(logits: Tensor) -> Tensor:
    """At least float32: softmax over a vocabulary in half precision loses the tail."""
    return logits if logits.dtype == torch.float64 else logits.float()
