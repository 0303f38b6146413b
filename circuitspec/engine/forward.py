"""One forward: a task's prompts, a model and actions in, logits and recordings out; in parts where memory runs out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from transformers import DynamicCache

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.ablation.embedding_noise import embedding_std, noise
from circuitspec.engine.execution.batch_size import LARGEST, late_bytes, rows_per_batch
from circuitspec.engine.execution.batches import (
    Batch,
    PaddingSide,
    answer_logits,
    check_equally_long,
    laid_out,
    make_batches,
    model_inputs,
    where_mask,
)
from circuitspec.engine.execution.compiler import Actions, Compiler
from circuitspec.engine.execution.executor import Executor
from circuitspec.engine.execution.finiteness import broken_row, find_origin, spoken
from circuitspec.engine.execution.interventions import Swap
from circuitspec.engine.execution.masks import swaps_of
from circuitspec.engine.execution.memory import Rows, budget_of, out_of_memory
from circuitspec.engine.execution.rounding import TOLERANCE
from circuitspec.engine.execution.taps import Slot, Tap, slots_of, units_of
from circuitspec.engine.execution.worked_out.readout import LogProbabilities, Readout, is_large, parts
from circuitspec.engine.levels.residual_stream import Stream
from circuitspec.experiments.experiment import Experiment, Noised, Variant, texts_of
from circuitspec.graph.nodes import NodeComponent
from circuitspec.models.families.rope import reads_longest_row
from circuitspec.models.load import LoadedModel
from circuitspec.prompts.output_metrics import compute_metrics, targets, upcast
from circuitspec.prompts.prompt_set import CLEAN, TokenizedTask
from circuitspec.prompts.sequence_metrics import sequence_metrics

EMBEDDINGS = Tap(-1, "embed")
KEPT_ROUTINGS = 4  # runs, of a batch each
T = TypeVar("T")


class CountsPrompts(Protocol):
    """Told about work to come and work done, counted in prompts run."""

    def expect(self, prompts: int) -> None: ...
    def advance(self, prompts: int) -> None: ...


class Forward:
    """Runs single batches of a task's prompts through a model, patched and read as `Actions` say.

    Use within `borrowed(model)`. The task's prompts lie in `batches` of at most `rows`; without a number, of as many as
    hold no more than `budget` bytes, the `edges` of the model worked out beside them or not. All runs of the model go
    through the `executor`, which is this process's if none is given. `forwards` counts prompts run, in units of one
    pass over all prompts; `forwards_saved` what of that was not computed, since it is as in the base run.
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
        executor: Executor | None = None,
    ) -> None:
        self.loaded = loaded
        self.task = task
        self.executor: Executor = (
            Compiler(loaded.model, loaded.architecture, loaded.shape, loaded.dictionaries)
            if executor is None
            else executor
        )
        weight = next(loaded.model.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        self.budget = budget_of(self.device)
        whole = self.rows_that_fit(edges=edges) if rows is None else rows
        self.rows = Rows(whole, lambda n, column: late_bytes(loaded.shape, n, column, self._dtype_name))
        self.by_length = reads_longest_row(loaded.model)
        self.batches = self._batches_of(task, whole, side)
        self.side: PaddingSide = side
        self.progress = progress
        self._slots: dict[NodeComponent, tuple[Slot, ...]] = {}
        self._units: dict[NodeComponent, Mapping[Tap, tuple[int, ...]]] = {}
        self._stream: Stream | None = None
        self._embedding_std: float | None = None
        self._routings: dict[tuple[Any, ...], Mapping[Tap, Tensor]] = {}
        self._unembedding_checked = False
        self.prompts_run = 0
        self._saved = 0.0

    def _batches_of(
        self, task: TokenizedTask, rows: int, side: PaddingSide, among: Sequence[int] | None = None
    ) -> tuple[Batch, ...]:
        """The prompts of a task (those `among` all) in batches. Raises CS368 where a prompt's rows must not differ in
        length, and do."""
        after = task.continuations
        if self.by_length:
            check_equally_long(task)
        return make_batches(task.lengths, rows, side, among, by_length=self.by_length, continuations=after)

    def on(self, task: TokenizedTask) -> Forward:
        """Forwards of other prompts, all in one batch, with what is compiled and known of the model."""
        loaded = replace(self.loaded, frozen_routing=False)  # self-tests patch what decides it
        other = Forward(loaded, task, rows=task.n, progress=self.progress, executor=self.executor)
        other._stream = self._stream
        return other

    def forward(
        self,
        batch: Batch,
        variant: Variant,
        actions: Actions,
        draw: int = 0,
        cache: DynamicCache | None = None,
        task: TokenizedTask | None = None,
    ) -> tuple[Tensor, dict[Tap, Tensor]]:
        """One forward of one batch: logits at the answers `[reading, vocabulary]`, and the recorded taps.

        As `readout`, with all logits at once.
        """
        answers, recorded = self._run(batch, variant, actions, draw, cache, task, whole=True)
        return answers.logits, recorded

    def readout(
        self,
        batch: Batch,
        variant: Variant,
        actions: Actions,
        draw: int = 0,
        cache: DynamicCache | None = None,
        task: TokenizedTask | None = None,
    ) -> tuple[Readout, dict[Tap, Tensor]]:
        """One forward of one batch: what it gives at the answers, and the recorded taps.

        A batch has one reading a row, or where answers of several tokens are scored more (`Batch.readings`).

        `draw` numbers the noise, where `variant` has any; keys and values go into an empty `cache`. The batch is of
        the prompts of another `task` where one is given: of those that means are over. Raises CS502, which names the
        first place that is not finite.
        """
        return self._run(batch, variant, actions, draw, cache, task, whole=False)

    def _run(
        self,
        batch: Batch,
        variant: Variant,
        actions: Actions,
        draw: int,
        cache: DynamicCache | None,
        task: TokenizedTask | None,
        *,
        whole: bool,
    ) -> tuple[Readout, dict[Tap, Tensor]]:
        task = self.task if task is None else task
        batch = laid_out(task, batch, variant)
        inputs = model_inputs(task, batch, variant, self.device)
        if isinstance(variant, Noised):
            actions = replace(actions, shifts={**actions.shifts, EMBEDDINGS: self._noise(task, batch, variant, draw)})
        if self.loaded.frozen_routing and (actions.swaps or actions.edits):
            actions = replace(actions, swaps=self._frozen(inputs, actions, (batch, variant, draw, id(task))))
        kept = {} if cache is None else {"past_key_values": cache, "use_cache": True}
        later = not whole and self.reads_later(batch, inputs)
        asked = replace(actions, before_unembedding=True) if later else actions
        found, recorded = self.executor.forward({**inputs, **kept}, asked)
        self.count(len(batch.cases))

        def not_finite(row: int) -> CircuitspecError:
            return self._not_finite(task, batch, variant, inputs, actions, row)

        answers = self.read(batch, found, not_finite) if later else Readout(answer_logits(found, batch))
        row = broken_row(answers.values.detach(), recorded, batch)
        if row is not None:
            raise not_finite(row)
        return answers, recorded

    def reads_later(self, batch: Batch, inputs: Mapping[str, Any]) -> bool:
        """Whether the logits of a forward of this batch would be large, and are computed afterwards."""
        return is_large(len(batch.prompts) * len(inputs["logits_to_keep"]), self.loaded.shape.n_vocab)

    def read(self, batch: Batch, entering: Tensor, not_finite: Callable[[int], CircuitspecError]) -> Readout:
        """A run of the batch of which `[row, kept position, d_model]` enters the unembedding: once a model it is seen
        that it makes the same logits of that as the model does, or CS503 is raised.

        `not_finite` says what is raised for a row whose logits are not.
        """
        if not self._unembedding_checked:
            self._check_unembedding()
        rows = torch.tensor([row for row, _ in batch.readings], device=self.device)

        def unembed(values: Tensor, readings: Tensor) -> Tensor:
            logits = self._unembedded(values.unsqueeze(1)).squeeze(1)
            broken = ~torch.isfinite(upcast(logits.detach()).sum(-1))
            if bool(broken.any()):
                raise not_finite(int(rows[readings[broken]].min()))
            return logits

        return Readout(answer_logits(entering, batch), unembed)

    def _unembedded(self, entering: Tensor) -> Tensor:
        """Logits `[row, position, vocabulary]` of what enters the unembedding."""
        ids = torch.zeros(entering.shape[:2], dtype=torch.long, device=entering.device)
        return self.executor.forward({"input_ids": ids, "use_cache": False}, Actions(unembedded=entering))[0]

    def _check_unembedding(self) -> None:
        """That logits computed afterwards are the model's own, on one prompt. Raises CS503 where they are not."""
        batch = self.batches[0].at_most(1)[0]
        inputs = model_inputs(self.task, batch, CLEAN, self.device)
        with torch.no_grad():
            whole = self.executor.forward(inputs, Actions())[0]
            entering = self.executor.forward(inputs, Actions(before_unembedding=True))[0]
            later = self._unembedded(entering)
        same = whole.shape == later.shape
        off = float((later - whole).abs().max()) / (float(whole.double().std()) or 1.0) if same else float("nan")
        if not off <= TOLERANCE[whole.dtype]:
            raise CircuitspecError(
                Diagnostic(
                    "CS503",
                    "computing logits after a forward, by the model's unembedding alone, "
                    f"changed them by {off:.2g} standard deviations, where {TOLERANCE[whole.dtype]:g} is rounding",
                    hint="this model does not compute its logits from its unembedding module token by token",
                )
            )
        self._unembedding_checked = True

    def _not_finite(
        self,
        task: TokenizedTask,
        batch: Batch,
        variant: Variant,
        inputs: Mapping[str, Any],
        actions: Actions,
        row: int,
    ) -> CircuitspecError:
        """CS502, with the first place in the run of this row that is not finite."""
        loaded = self.loaded
        origin = find_origin(self.executor, inputs, actions, batch, row, loaded.architecture, loaded.shape)
        prompt, own = batch.prompts[row], task.of(texts_of(variant))
        roles = [] if origin is None else [r for r in own.roles if origin.position in own.tokens_at(r, prompt)]
        first = "run again, all was finite" if origin is None else f"first in {spoken(origin, roles)}"
        text = task.prompts.text_of(prompt, texts_of(variant))
        return CircuitspecError(
            Diagnostic(
                "CS502",
                f"NaN or infinity in the run on the {variant} prompt {text!r}: {first}",
                hint=_remedy(self.dtype),
                data={"site": None if origin is None else origin.site, "prompt": prompt},
            )
        )

    def _frozen(self, inputs: Mapping[str, Any], actions: Actions, run: tuple[Any, ...]) -> dict[Tap, Swap]:
        """The swaps, and every router held to what it chooses in the same run with nothing patched."""
        shape = self.loaded.shape
        if run not in self._routings:
            taps = frozenset(Tap(n, "routing") for n in range(shape.n_layers) if n not in shape.dense_layers)
            with torch.no_grad():
                _, found = self.executor.forward(inputs, Actions(record=taps, shifts=actions.shifts))
            self.expect(len(run[0].cases))
            self.count(len(run[0].cases))
            self._routings = {**dict(list(self._routings.items())[1 - KEPT_ROUTINGS :]), run: found}
        swaps = dict(actions.swaps)
        for tap, value in self._routings[run].items():
            own = swaps.get(tap)
            source = value if own is None else torch.where(own.mask, own.source, value)
            swaps[tap] = Swap(torch.ones(*value.shape[:2], 1, dtype=torch.bool, device=value.device), source)
        return swaps

    # ------------------------------------------------------------------------------------------------------- memory

    def in_batches(
        self, work: Callable[[Batch], T], most: int | None = None, among: Sequence[int] | None = None
    ) -> Iterator[tuple[Batch, T]]:
        """The work done on all prompts of the task (those `among` all), batch by batch, as `in_parts` does it."""
        for batch in self.batches_of(among):
            yield from self.in_parts(batch, work, most=most)

    def batches_of(self, among: Sequence[int] | None) -> tuple[Batch, ...]:
        """The batches of all prompts of the task, or of those `among` all."""
        return self.batches if among is None else self._batches_of(self.task, self.rows.whole, self.side, among)

    def in_parts(
        self, batch: Batch, work: Callable[[Batch], T], task: TokenizedTask | None = None, most: int | None = None
    ) -> Iterator[tuple[Batch, T]]:
        """The work done on this batch, `most` rows at once; where memory runs out, on parts of half as many rows.

        Work that runs out of memory is begun anew on each part, so that it must leave nothing behind until it returns.
        Raises CS547 where a single prompt does not fit (one of the `task`, if the batch is of another's prompts).
        """
        waiting = [batch]
        while waiting:
            limit = self.rows.whole if most is None else min(self.rows.whole, most)
            part, *others = waiting.pop(0).at_most(limit)
            waiting[:0] = others
            before = self.prompts_run
            try:
                result = work(part)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if len(part.cases) == 1:
                    raise CircuitspecError(_too_large(task or self.task, part)) from error
            else:
                yield part, result
                continue
            self.expect(self.prompts_run - before)  # this was in vain
            self.rows.halve(len(part.prompts))
            waiting.insert(0, part)

    def rows_that_fit(self, *, edges: bool = False) -> int:
        """The batch size in prompts, so that what it holds stays within the budget."""
        shape, longest = self.loaded.shape, self.task.longest
        return rows_per_batch(shape, longest, self._dtype_name, self.budget, edges=edges)

    def fill_memory(self, budget: int | None = None) -> None:
        """Let forwards of sweeps take as many rows as fit into the budget (`budget` bytes, where it is another), by
        what they are seen to take."""
        self.rows.budget = self.budget if budget is None else budget
        self.rows.most_whole = LARGEST if self.device.type == "cpu" else None

    # ------------------------------------------------------------------------------------------------------ counting

    @property
    def forwards(self) -> float:
        return self.prompts_run / self.task.n

    @property
    def counted(self) -> tuple[int, float]:
        """Prompts run, and of how many of them the work was saved."""
        return self.prompts_run, self._saved

    @property
    def forwards_saved(self) -> float:
        return self._saved / self.task.n

    def expect(self, prompts: int) -> None:
        """Announce prompts that will be run."""
        self.progress.expect(prompts)

    def count(self, prompts: int, computed: float = 1.0) -> None:
        """Prompts were run; `computed` says what share of a whole forward that took."""
        self.prompts_run += prompts
        self._saved += prompts * (1 - computed)
        self.progress.advance(prompts)

    def count_backward(self, batch: Batch) -> None:
        """A backward pass costs about two forwards."""
        self.count(2 * len(batch.cases))

    # ------------------------------------------------------------------------------------------- the model and the task

    @property
    def stream(self) -> Stream:
        """What single senders add and single receivers compute, for edge and path level. Raises CS371."""
        if self._stream is None:
            self._stream = Stream(self.loaded)
        return self._stream

    def slots_of(self, component: NodeComponent) -> tuple[Slot, ...]:
        """The slices of this model's tensors that a component is."""
        if component not in self._slots:
            self._slots[component] = slots_of(component, self.loaded.architecture, self.loaded.shape)
        return self._slots[component]

    def units_of(self, component: NodeComponent) -> Mapping[Tap, tuple[int, ...]]:
        """The same by taps: the numbers of a component's slices in each."""
        if component not in self._units:
            self._units[component] = units_of(self.slots_of(component))
        return self._units[component]

    def taps_of(self, experiments: Iterable[Experiment]) -> frozenset[Tap]:
        """Every tap that some experiment patches."""
        sites = (site for e in experiments for patch in e.patches for site in patch.sites)
        return frozenset(tap for site in sites for tap in self.units_of(site.component))

    def swaps(self, batch: Batch, experiment: Experiment, values: Mapping[Tap, Tensor]) -> dict[Tap, Swap]:
        """The experiment's masks for this batch's rows, one for each tap it touches."""
        columns = functools.cache(lambda where: where_mask(self.task, batch, where, self.device, experiment.base))
        return swaps_of([experiment], values, columns, self.units_of, self.loaded.shape)

    def metrics(
        self,
        batch: Batch,
        logits: Tensor | Readout,
        clean_logprobs: Tensor | LogProbabilities | None,
        expected: str = CLEAN,
        names: Collection[str] | None = None,
    ) -> dict[str, Tensor]:
        """Every metric (or those in `names`) for each prompt of the batch, from logits `[reading, vocabulary]`.

        Right and wrong answers are those of the variant that is `expected`: of the clean prompts, whatever is run.
        `clean_logprobs` are those of the clean run, `[reading, vocabulary]`. Of many readings some are taken at once.
        """
        readout = Readout(logits) if isinstance(logits, Tensor) else logits
        clean = Readout(clean_logprobs) if isinstance(clean_logprobs, Tensor) else clean_logprobs
        found = [
            self._metrics(part, readout.part(own), None if clean is None else clean.part(own), expected, names)
            for part, own in parts(batch, self.loaded.shape.n_vocab)
        ]
        return found[0] if len(found) == 1 else {name: torch.cat([one[name] for one in found]) for name in found[0]}

    def _metrics(
        self,
        batch: Batch,
        logits: Tensor,
        clean_logprobs: Tensor | None,
        expected: str,
        names: Collection[str] | None,
    ) -> dict[str, Tensor]:
        if self.task.sequences is not None:
            if expected != CLEAN:
                raise CircuitspecError(_expected_elsewhere(expected))
            readings = batch.case_readings
            return sequence_metrics(self.task.sequences, batch.cases, readings, logits, clean_logprobs, names)
        own = self.task.of(expected)
        answers = targets([own.answers[p] for p in batch.prompts], logits.device)
        wrong = targets([own.wrong[p] for p in batch.prompts], logits.device)
        return compute_metrics(logits, answers, wrong, clean_logprobs, names)

    def clean_logprobs(self, batch: Batch) -> LogProbabilities:
        """The log probabilities of the clean run, `[reading, vocabulary]`: another forward."""
        with torch.no_grad():
            return LogProbabilities(self.readout(batch, CLEAN, Actions())[0])

    @property
    def _dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def _noise(self, task: TokenizedTask, batch: Batch, noised: Noised, draw: int) -> Tensor:
        if self._embedding_std is None:
            self._embedding_std = embedding_std(self.loaded)
        drawn = noise(task, batch, noised, draw, self.loaded.shape.d_model)
        return (noised.std * self._embedding_std * drawn).to(self.dtype).to(self.device)


def _too_large(task: TokenizedTask, batch: Batch) -> Diagnostic:
    (prompt,) = batch.cases
    return Diagnostic(
        "CS547",
        f"out of memory with a single prompt in a forward: {task.prompts.prompts[prompt].described()}, "
        f"{batch.width} tokens long",
        hint="use shorter prompts, a smaller dtype such as `dtype: bfloat16`, or a machine with more memory",
        data={"prompt": prompt, "tokens": batch.width},
    )


def _expected_elsewhere(expected: str) -> Diagnostic:
    return Diagnostic(
        "CS368",
        f"the answers of {expected} are expected, but where answers of several tokens are scored, only those of the "
        "clean prompts follow the prompts",
        hint="use answers of one token, or `score: first_token`",
    )


def _remedy(dtype: torch.dtype) -> str:
    if dtype == torch.float16:
        return "float16 holds nothing above 65504: use `dtype: bfloat16` or `dtype: float32`"
    return "the weights hold NaN or values that overflow: look at that component's, or load them again"
