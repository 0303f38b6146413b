"""From a file to a model that can be patched, one way for all commands.

The prompts are built, the model is loaded (with the prompts' tokens made and checked before any weight is read), a
runner is made and tests itself, and what it measures is kept in a store. Each command says what it asks of these steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from circuitspec.analysis.claims.means_error import ENOUGH, MeansError, larger_size, largest_share, means_error
from circuitspec.analysis.claims.verdict import judge
from circuitspec.analysis.task_behaviour import AnswerStanding, Instead, standing, worth_a_look
from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.cache.stored_runner import StoredRunner, StorePlace, stored_batches, stored_runner
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.execution.executor import Executor
from circuitspec.engine.metrics.answer_shares import what_is_said
from circuitspec.engine.records import PromptValues, Records, SelfTest
from circuitspec.engine.runner import Runner
from circuitspec.engine.validation.self_test import self_test
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.planner import Plan
from circuitspec.experiments.requirements import check_length
from circuitspec.hypothesis_file.grammar.internal_metric_names import Internal
from circuitspec.hypothesis_file.load_file import Document, Study
from circuitspec.hypothesis_file.schema.blocks import Subject
from circuitspec.models.load import LoadedModel, Ready, load_model
from circuitspec.prompts.own_metrics import OwnMetric
from circuitspec.prompts.prompt_set import PromptSet, TokenizedTask
from circuitspec.prompts.reference_prompts import ReferencePrompts
from circuitspec.prompts.tokens.answer_forms import answer_forms
from circuitspec.prompts.tokens.tokenize import tokenize
from circuitspec.runtime.progress import Progress
from circuitspec.runtime.visible_text import visible
from circuitspec.workers.shard_worker import LoadsWorkers, computing_with

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast

    from circuitspec.graph.shape import ModelShape

Prepared = TypeVar("Prepared")
Loading: TypeAlias = Callable[[Ready], LoadedModel]
"""Gives a model; what it is called with is told the shape and the tokenizer before weights are read."""

ExecutorOf: TypeAlias = Callable[[LoadedModel], Executor]
"""Makes what runs a loaded model, for each runner anew."""


def from_file(file: Document | Study, subject: Subject, device: str, progress: Progress) -> Loading:
    """Loads the model that the file names. Raises CircuitspecError (CS300 to CS319, CS353, CS354, CS386).

    These are findings about the file's `model: id`; what is found before weights are read keeps the place it has.
    """

    def loading(ready: Ready) -> LoadedModel:
        found_before: list[CircuitspecError] = []

        def first(shape: ModelShape, tokenizer: PreTrainedTokenizerFast) -> None:
            try:
                ready(shape, tokenizer)
            except CircuitspecError as error:
                found_before.append(error)
                raise

        progress.stage(f"loading {visible(subject.model.id)}")
        try:
            with file.blamed_on("model", "id"):
                return load_model(subject.model, file.base_dir, device=device, progress=progress.stage, ready=first)
        except CircuitspecError:
            if found_before:
                raise found_before[0] from None
            raise

    return loading


def check_routing_free(file: Document | Study) -> None:
    """CS398 where a file freezes what routers choose: only `verify` does, and the figures of others would differ."""
    ablation = (file.hypothesis if isinstance(file, Document) else file.exploration).ablation
    if ablation is None or ablation.routing == "free":
        return
    said = "routing is frozen by `verify` alone: everything else lets routers choose anew in each run"
    hint = "remove routing from a copy of the file for this command"
    raise CircuitspecError(Diagnostic("CS398", said, file.source.span(("ablation", "routing")), hint=hint))


def from_memory(loaded: LoadedModel) -> Loading:
    """Gives a model that is loaded already."""

    def loading(ready: Ready) -> LoadedModel:
        ready(loaded.shape, loaded.tokenizer)
        return loaded

    return loading


def opened(
    loading: Loading, prepare: Callable[[ModelShape, PreTrainedTokenizerFast], Prepared]
) -> tuple[LoadedModel, Prepared]:
    """The model, and what is prepared for it before any weight is read."""
    made: list[Prepared] = []
    loaded = loading(lambda shape, tokenizer: made.append(prepare(shape, tokenizer)))
    return loaded, made[0]


def tokens_of(
    file: Document | Study,
    subject: Subject,
    prompts: PromptSet,
    shape: ModelShape,
    tokenizer: PreTrainedTokenizerFast,
    *,
    unequal: bool = False,
) -> TokenizedTask:
    """The prompts as the model takes them; with `unequal`, corruptions may have other lengths than the clean prompts.

    Raises CircuitspecError where it cannot, CS505 for one that is too long.
    """
    task = tokenize(prompts, subject.task.positions, tokenizer, file.source, unequal=unequal)
    check_length(task, shape)
    return task


@dataclass(frozen=True)
class Session:
    """A loaded model and how its runs are made.

    Batches are as large as memory allows, unless `rows` gives the batch size; where `edges` are
    patched, with what these hold. `filled` lets forwards of sweeps fill the memory too. `internals` are measured beside
    the metrics of the output, projections along `directions`; `parted` means can be taken over parts of their prompts.
    An `executor` runs the model elsewhere; `workers`, which have loaded the same model, run shards of the experiments,
    and what is run here is computed with as many threads as each of them has. A model whose own hooks take part is run
    one prompt at a time, in whole forwards, as their owner's program does. Metrics of the caller's `own` are measured
    too, and are in no store. Outputs of the clean run are kept from one call to the next, where that is asked for
    (`keeps_clean`).
    """

    loaded: LoadedModel
    progress: Progress
    rows: int | None = None
    edges: bool = False
    filled: bool = False
    parted: bool = False
    internals: Sequence[Internal] = ()
    directions: Mapping[str, Tensor] = field(default_factory=dict)
    store: StorePlace = None
    executor: ExecutorOf | None = None
    workers: LoadsWorkers | None = None
    own: Mapping[str, OwnMetric] = field(default_factory=dict)
    keeps_clean: bool = False

    @property
    def keeps_hooks(self) -> bool:
        return self.loaded.foreign.runs_hooks

    def runner(self, task: TokenizedTask) -> Runner:
        """What runs experiments on this task."""
        runner = Runner(
            self.loaded,
            task,
            rows=1 if self.keeps_hooks else self.rows,
            edges=self.edges,
            progress=self.progress,
            sweeps=not self.keeps_hooks,
            internals=self.internals,
            directions=self.directions,
            parted=self.parted,
            executor=None if self.executor is None else self.executor(self.loaded),
            own=self.own,
        )
        if self.filled and self.rows is None:
            runner.fill_memory()
        if self.keeps_clean:
            runner.keep_clean()
        return runner

    def kept(
        self, runner: Runner, known: Mapping[Experiment, PromptValues] | None = None
    ) -> AbstractContextManager[StoredRunner]:
        """The runner with the store: what was measured before is looked up, also what is `known` without it.

        Raises CS545 and CS546.
        """
        store = None if self.own else self.store
        return stored_runner(runner, store, self.progress, known=known, workers=self.workers)

    def kept_batches(
        self, runner: Runner
    ) -> AbstractContextManager[Callable[[Sequence[Experiment], Sequence[int]], Records]]:
        """What runs experiments on some of the runner's prompts, with the store. Raises CS545 and CS546."""
        return stored_batches(runner, None if self.own else self.store)

    @contextmanager
    def tested(self, task: TokenizedTask, *, edges: bool = False) -> Iterator[tuple[Runner, SelfTest]]:
        """The model borrowed, and a runner whose patching was found to be exact on it, of `edges` too if asked for.

        Raises CS352 and CS503 where it is not.
        """

        def test(runner: Runner) -> SelfTest:
            self.progress.stage("testing that patching is exact on this model")
            return self_test(runner, edges=edges)

        found: SelfTest | None = None
        if self.keeps_hooks:  # what hooks change would look like sites that are not where they should be
            with borrowed(self.loaded.model):
                found = test(self.runner(task))
        with computing_with(self.workers), borrowed(self.loaded.model, keep_hooks=self.keeps_hooks):
            runner = self.runner(task)
            yield runner, found or test(runner)


@dataclass(frozen=True)
class Begun:
    """The plan's experiments, run with means over as many prompts as it takes, and what is to run more of them."""

    runner: Runner
    stored: StoredRunner
    records: Records
    error: MeansError | None
    forwards: float  # of runs with means over fewer prompts
    measured: frozenset[Experiment]  # in these


def begin(
    plan: Plan,
    runner: Runner,
    session: Session,
    others: ReferencePrompts | None,
    stack: ExitStack,
    check: Callable[[Records], None] = lambda records: None,
) -> Begun:
    """Run the plan; where means prove to be too noisy, again with means over more prompts, if more can be drawn.

    `others` draws them; `check` may refuse what was measured. What is begun ends with the `stack`.
    """
    forwards, measured = 0.0, set[Experiment]()
    while True:
        with ExitStack() as inner:
            stored = inner.enter_context(session.kept(runner))
            records = stored.run(plan.experiments)
            check(records)
            error = means_error(plan, runner.task, stored)
            share = 0.0 if error is None else largest_share(judge(plan, records, error))
            larger = None if others is None else _larger(runner.task, others, share)
            if larger is None:
                if error is not None and error.reference and share > ENOUGH:
                    error = means_error(plan, runner.task, stored, halves=True)
                stack.push(inner.pop_all())
                return Begun(runner, stored, records, error, forwards, frozenset(measured))
        forwards += runner.forwards
        measured |= {experiment for experiment in stored.measured if not experiment.averages}
        session.progress.stage(f"taking means over {larger.averaged.n} prompts")
        runner = session.runner(larger)


def _larger(task: TokenizedTask, others: ReferencePrompts, share: float) -> TokenizedTask | None:
    """The task with a larger reference, where there is one and the means' share of an interval asks for it."""
    if task.reference is None or not others.grows:
        return None
    size = larger_size(task.n, task.reference.n, share)
    found = None if size is None else others.of(task, size)
    return found if found is not None and found.averaged.n > task.reference.n and found.reference else None


def behaviour(runner: Runner, clean: PromptValues) -> tuple[AnswerStanding | None, Instead | None]:
    """How the right answers stand in the clean run and, where they hardly do, what is said instead: one more pass."""
    task, tokenizer = runner.task, runner.loaded.tokenizer
    found = standing(clean, task, runner.loaded.shape.n_vocab)
    if found is None or not worth_a_look(found, clean):
        return found, None
    forms = answer_forms(task, tokenizer)
    said = what_is_said(runner, [form.ids for form in forms])
    spelled = {one: tokenizer.decode([one], clean_up_tokenization_spaces=False) for one in set(said.likeliest)}
    return found, Instead(forms, said.probabilities, clean["prob"], [spelled[one] for one in said.likeliest])
