"""Experiments -> records: prompts in batches, sources cached once and shared, each experiment run once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuitspec.diagnostics import CircuitspecError, Diagnostic
from circuitspec.engine.batches import Batch, PaddingSide, answer_logits, make_batches, model_inputs, where_mask
from circuitspec.engine.compile import Actions, Compiler
from circuitspec.engine.finite import broken_row, find_origin, spoken
from circuitspec.engine.interventions import Swap
from circuitspec.engine.noise import embedding_std, noise
from circuitspec.engine.records import Records
from circuitspec.engine.sources import MeanTable, mean_groups, mean_sources
from circuitspec.engine.taps import Slot, Tap, slots_of
from circuitspec.graph.nodes import NodeComponent
from circuitspec.graph.where import Where
from circuitspec.models.load import LoadedModel
from circuitspec.plan.experiment import Experiment, Noised, Source, Variant, passes, texts_of
from circuitspec.tasks.metrics import compute_metrics, targets, upcast
from circuitspec.tasks.prompts import CLEAN, TokenizedTask

EMBEDDINGS = Tap(-1, "embed")


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
        self.compiler = Compiler(loaded.model, loaded.architecture, loaded.shape)
        weight = next(loaded.model.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        self.batches = make_batches(task.lengths, rows, side)
        self.templates = np.array([p.template for p in task.prompts.prompts], dtype=np.int64)
        self._progress = progress
        self._means: dict[Source, MeanTable] = {}
        self._embedding_std: float | None = None
        self._prompts_run = 0

    @property
    def forwards(self) -> float:
        return self._prompts_run / self.task.n

    @torch.no_grad()
    def run(self, experiments: Iterable[Experiment]) -> Records:
        """Every metric of every experiment for every prompt; where noise is drawn, its mean over the draws.

        Memory does not grow with the number of prompts beyond the metrics themselves. Raises CS502 where
        logits or patched values are not finite.
        """
        wanted = tuple(dict.fromkeys(experiments))
        columns: dict[Experiment, dict[str, NDArray[np.float64]]] = {e: {} for e in wanted}
        if not wanted:
            return Records(columns, self.templates)
        sources = frozenset(e.source for e in wanted if e.source is not None)
        taps = {s: self.taps_of(e for e in wanted if e.source == s) for s in sources}
        self._progress.expect(passes(wanted, frozenset(self._means)) * self.task.n)
        for source in sorted(mean_sources(sources), key=str):
            self._learn_means(source, taps[source])
        for batch in self.batches:
            for experiment, metrics in self._run_batch(batch, wanted, taps):
                for name, values in metrics.items():
                    column = columns[experiment].setdefault(name, np.zeros(self.task.n))
                    column[list(batch.prompts)] += values.cpu().double().numpy() / experiment.draws
        return Records(columns, self.templates)

    def _run_batch(
        self, batch: Batch, experiments: Sequence[Experiment], taps: Mapping[Source, frozenset[Tap]]
    ) -> Iterator[tuple[Experiment, dict[str, Tensor]]]:
        """Each experiment's metrics, once for every draw."""
        plain: dict[Variant, Tensor] = {}  # logits of unpatched runs
        values: dict[Source, dict[Tap, Tensor]] = {}
        for draw in range(max(e.draws for e in experiments)):
            plain = {v: logits for v, logits in plain.items() if not isinstance(v, Noised)}
            values = {s: kept for s, kept in values.items() if not isinstance(s.prompts, Noised)}
            active = [e for e in experiments if draw < e.draws]
            for source in dict.fromkeys(e.source for e in active if e.source is not None):
                if source in values:
                    continue
                if source.kind == "resample" and source.prompts is not None:
                    record = Actions(record=taps[source])
                    plain[source.prompts], values[source] = self.forward(batch, source.prompts, record, draw)
                else:
                    values[source] = self.source_values(batch, source, taps[source])
            if CLEAN not in plain:
                plain[CLEAN], _ = self.forward(batch, CLEAN, Actions())
            clean_logprobs = upcast(plain[CLEAN]).log_softmax(-1)
            for experiment in active:
                if experiment.source is None:
                    if experiment.base not in plain:
                        plain[experiment.base], _ = self.forward(batch, experiment.base, Actions(), draw)
                    logits = plain[experiment.base]
                else:
                    swaps = self.swaps(batch, experiment, values[experiment.source])
                    logits, _ = self.forward(batch, experiment.base, Actions(swaps), draw)
                yield experiment, self.metrics(batch, logits, clean_logprobs)

    def forward(
        self, batch: Batch, variant: Variant, actions: Actions, draw: int = 0
    ) -> tuple[Tensor, dict[Tap, Tensor]]:
        """One forward of one batch: logits at the answers `[row, vocabulary]`, and the recorded taps.

        `draw` numbers the noise, where `variant` has any. Raises CS502, which names the first place that
        is not finite.
        """
        inputs = model_inputs(self.task, batch, variant, self.device)
        if isinstance(variant, Noised):
            actions = Actions(actions.swaps, actions.record, {EMBEDDINGS: self._noise(batch, variant, draw)})
        logits, recorded = self.compiler.forward(inputs, actions)
        self._prompts_run += len(batch.prompts)
        self._progress.advance(len(batch.prompts))
        answers = answer_logits(logits, batch)
        row = broken_row(answers.detach(), recorded, batch)
        if row is not None:
            loaded = self.loaded
            origin = find_origin(self.compiler, inputs, actions, batch, row, loaded.architecture, loaded.shape)
            prompt = batch.prompts[row]
            roles = [] if origin is None else [r for r, at in self.task.roles.items() if at[prompt] == origin.position]
            first = "run again, all was finite" if origin is None else f"first in {spoken(origin, roles)}"
            text = self.task.prompts.prompts[prompt].texts[texts_of(variant)]
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
        units: dict[tuple[Tap, Where], list[int]] = {}
        for site in experiment.sites:
            for slot in self.slots_of(site.component):
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

    def source_values(self, batch: Batch, source: Source, taps: frozenset[Tap], draw: int = 0) -> dict[Tap, Tensor]:
        """What `source` gives at `taps` for this batch's rows, broadcastable to `[row, pos, channel]`."""
        if source.prompts is None:
            zero = torch.zeros(1, 1, 1, dtype=self.dtype, device=self.device)
            return dict.fromkeys(taps, zero)
        if source.kind == "resample":
            return self.forward(batch, source.prompts, Actions(record=taps), draw)[1]
        self._learn_means(source, taps)
        return self._means[source].values(batch, taps, next(self.loaded.model.parameters()))

    def slots_of(self, component: NodeComponent) -> tuple[Slot, ...]:
        """The slices of this model's tensors that a component is."""
        return slots_of(component, self.loaded.architecture, self.loaded.shape)

    def taps_of(self, experiments: Iterable[Experiment]) -> frozenset[Tap]:
        """Every tap that some experiment patches."""
        return frozenset(slot.tap for e in experiments for site in e.sites for slot in self.slots_of(site.component))

    def expect(self, prompts: int) -> None:
        """Announce prompts that will be run otherwise than by `run`."""
        self._progress.expect(prompts)

    def count_backward(self, batch: Batch) -> None:
        """A backward pass costs about two forwards."""
        self._prompts_run += 2 * len(batch.prompts)
        self._progress.advance(2 * len(batch.prompts))

    def _noise(self, batch: Batch, noised: Noised, draw: int) -> Tensor:
        if self._embedding_std is None:
            self._embedding_std = embedding_std(self.loaded)
        drawn = noise(self.task, batch, noised, draw, self.loaded.shape.d_model)
        return (noised.std * self._embedding_std * drawn).to(self.dtype).to(self.device)

    @torch.no_grad()
    def _learn_means(self, source: Source, taps: frozenset[Tap]) -> None:
        if source.prompts is None or (source in self._means and taps <= self._means[source].taps):
            return
        table = MeanTable(mean_groups(self.task, source.kind), max(self.task.lengths))
        for batch in self.batches:
            _, values = self.forward(batch, source.prompts, Actions(record=taps))
            table.add(batch, values)
        self._means[source] = table


def _remedy(dtype: torch.dtype) -> str:
    if dtype == torch.float16:
        return "float16 holds nothing above 65504: use `dtype: bfloat16` or `dtype: float32`"
    return "the weights hold NaN or values that overflow: look at that component's, or load them again"
