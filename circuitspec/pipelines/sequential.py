"""Prompts drawn, or read, in batches until every claim is decided: `verify --sequential`.

All prompts that may be used are made at first (that takes no model), in an order that says nothing of them: templates
take turns, and rows of a file are shuffled. They are run in batches, and after each batch the claims are looked at.
What is begun then goes on with the prompts that were used alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np

from circuitspec.analysis.claims.claim_result import ClaimResult
from circuitspec.analysis.claims.means_error import MeansError, means_error
from circuitspec.analysis.claims.registry import kind_of
from circuitspec.analysis.claims.sequences.prompts_needed import TUNED
from circuitspec.analysis.claims.sequences.sequence_facts import ClaimSequence, SequenceFacts, Stopped
from circuitspec.analysis.claims.sequences.sequential_estimates import SequentialEstimates
from circuitspec.analysis.claims.verdict import judge
from circuitspec.analysis.statistics.confidence_sequences import FIRST_LOOK
from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.records import Records
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import Experiment, means_of
from circuitspec.experiments.planner import Plan
from circuitspec.hypothesis_file.load_file import Document
from circuitspec.hypothesis_file.schema.blocks import TaskSpec
from circuitspec.pipelines.preparation import prompts_of
from circuitspec.pipelines.session import Begun, Session
from circuitspec.prompts.prompt_set import PromptSet, TokenizedTask
from circuitspec.prompts.reference_prompts import ReferencePrompts, chosen, first_size

STEP = 10  # prompts between looks, at least
GROWTH = 5  # .. and a fifth of those used so far
TIMES = 4  # the usual limit, as a multiple of the prompts that the file asks for
SEED = 0  # of the order of a file's rows


@dataclass(frozen=True)
class Sequential:
    """At most so many prompts; None: four times as many as the file asks for, or all rows of its prompts file."""

    most: int | None = None


@dataclass(frozen=True)
class PromptsToDraw:
    """All prompts that may be used, with a file that asks for so many; it `asked` for fewer, or as many."""

    document: Document
    prompts: PromptSet
    asked: int


def prompts_to_draw(document: Document, asked: Sequential) -> PromptsToDraw:
    """The prompts, as many as may be used. Raises as building prompts does, CS586 where these are too few."""
    hypothesis, task = document.hypothesis, document.hypothesis.task
    from_file = task.file is not None or task.fillings is not None
    own, _ = prompts_of(document)
    n = len(own.prompts)
    if not from_file:
        made = _drawn(document, n, asked)
    elif asked.most is None:
        unlimited = TaskSpec.model_construct(task.model_fields_set - {"prompts"}, **dict(task))
        made = replace(document, hypothesis=hypothesis.model_copy(update={"task": unlimited}))
    else:
        made = _with_prompts(document, asked.most)
    prompts, _ = prompts_of(made)
    if from_file:
        order = np.random.default_rng(SEED).permutation(len(prompts.prompts))
        prompts = prompts.chosen([int(i) for i in order])
    if len(prompts.prompts) < FIRST_LOOK:
        said = (
            f"{len(prompts.prompts)} prompts are too few to be looked at in batches: the first look is at {FIRST_LOOK}"
        )
        place = document.source.span(("task",))
        raise CircuitspecError(Diagnostic("CS586", said, place, hint="verify it without --sequential, or add prompts"))
    return PromptsToDraw(made, prompts, n)


def _drawn(document: Document, n: int, asked: Sequential) -> Document:
    """The file asking for as many prompts as may be drawn; of those that nobody asked for, as many as lists give."""
    if asked.most is not None:
        return _with_prompts(document, asked.most)
    for times in range(TIMES, 1, -1):
        more = _with_prompts(document, times * n)
        try:
            prompts_of(more)
        except CircuitspecError:
            continue
        return more
    return document


def _with_prompts(document: Document, n: int) -> Document:
    task = document.hypothesis.task.model_copy(update={"prompts": n})
    return replace(document, hypothesis=document.hypothesis.model_copy(update={"task": task}))


def with_reference(task: TokenizedTask, others: ReferencePrompts, asked: int) -> TokenizedTask:
    """The task with the prompts that means go over, as many as for the prompts that the file asks for."""
    return others.of(task, first_size(asked))


def check_sequential(plan: Plan, task: TokenizedTask) -> None:
    """CS586 where no claim has a sequence, CS587 where means go over the scored prompts themselves."""
    if not any(kind_of(planned).has_sequence for planned in plan.claims):
        kinds = ", ".join(dict.fromkeys(planned.claim.kind for planned in plan.claims)) or "none"
        said = f"no claim has a confidence sequence, so that nothing says when to stop (claims: {kinds})"
        raise CircuitspecError(Diagnostic("CS586", said, hint="verify it without --sequential"))
    if task.reference is None and means_of(plan.experiments):
        raise CircuitspecError(
            Diagnostic(
                "CS587",
                "means go over the scored prompts themselves, so that a figure would change with each prompt that is "
                "still to come",
                hint="name other prompts (`ablation: {reference: {file: ...}}`), use `value: resample`, or verify it "
                "without --sequential",
            )
        )


def looks_at(templates: int, limit: int) -> list[int]:
    """The numbers of prompts after which claims are looked at: whole rounds of the templates, and the limit.

    The first is at 20 prompts or more, each further one comes after at least 10 more, and a fifth of those so far.
    """

    def rounds(n: float) -> int:
        return math.ceil(n / templates) * templates

    found = [rounds(FIRST_LOOK)]
    while found[-1] < limit:
        found.append(found[-1] + rounds(max(STEP, found[-1] / GROWTH)))
    return [n for n in found if n < limit] + [limit]


class _Drawing:
    """Runs a plan on more and more prompts of a runner's task, and judges it."""

    def __init__(self, plan: Plan, runner: Runner, session: Session, asked: int) -> None:
        self._plan, self._runner, self._asked = plan, runner, asked
        self._progress = session.progress
        self._parts: list[Records] = []
        self._means: list[Records] = []
        self._error: MeansError | None = None
        self.looks: list[int] = []
        self.claims: tuple[ClaimResult, ...] = ()
        self.decided: dict[int, int] = {}
        self.measured: frozenset[Experiment] = frozenset()

    @property
    def done(self) -> bool:
        return all(
            claim.status != "INCONCLUSIVE" or not kind_of(planned).has_sequence
            for planned, claim in zip(self._plan.claims, self.claims, strict=True)
        )

    @property
    def records(self) -> Records:
        return _joined(self._parts)

    @property
    def error(self) -> SequentialEstimates:
        known = None if self._error is None else replace(self._error, records=_joined(self._means))
        nothing = Records({}, self.records.templates)
        whole = SequentialEstimates.over(known, nothing, tuple(self.looks), self._asked / TUNED)
        return whole.first(self.looks[-1])

    def go_on(self, n: int, keep: Callable[[Sequence[Experiment], Sequence[int]], Records]) -> None:
        """Run the prompts up to the first `n`, and judge the claims on all so far."""
        among = range(self.looks[-1] if self.looks else 0, n)
        records = keep(self._plan.experiments, among)
        asked: list[Experiment] = []

        class Runs:
            def run(self, experiments: Sequence[Experiment]) -> Records:
                asked.extend(experiments)
                return keep(tuple(experiments), among) if experiments else Records({}, records.templates)

        error = means_error(self._plan, self._runner.task, Runs())  # type: ignore[arg-type]
        self._error = error
        self._parts.append(records)
        if error is not None:
            self._means.append(error.records)
        self.looks.append(n)
        self.measured |= {*self._plan.experiments, *asked}
        self.claims = judge(self._plan.first(n), self.records, self.error)
        for planned, claim in zip(self._plan.claims, self.claims, strict=True):
            if claim.status != "INCONCLUSIVE" and kind_of(planned).has_sequence:
                self.decided.setdefault(planned.index, n)
            else:
                self.decided.pop(planned.index, None)

    def facts(self, limit: int, stopped: Stopped) -> SequenceFacts:
        n, records, error = self.looks[-1], self.records, self.error.fixed
        fixed = judge(self._plan.first(n), records, error)
        as_asked: tuple[ClaimResult | None, ...] = (None,) * len(fixed)
        if n >= self._asked:
            before = None if error is None else error.first(self._asked)
            as_asked = judge(self._plan.first(self._asked), records.first(self._asked), before)
        claims = tuple(
            ClaimSequence(planned.index, kind_of(planned).has_sequence, self.decided.get(planned.index), own, at)
            for planned, own, at in zip(self._plan.claims, fixed, as_asked, strict=True)
        )
        return SequenceFacts(n, limit, self._asked, tuple(self.looks), stopped, claims)


def _joined(parts: Sequence[Records]) -> Records:
    """Records of one set of experiments on prompts that follow each other."""
    values = {
        run: {name: np.concatenate([part[run][name] for part in parts]) for name in own}
        for run, own in parts[0].values.items()
    }
    return Records(values, np.concatenate([part.templates for part in parts]))


def draw_until_decided(
    plan: Plan, runner: Runner, session: Session, asked: int, stack: ExitStack
) -> tuple[Begun, SequenceFacts]:
    """Run the plan on the runner's prompts, batch by batch, until every claim with a sequence is decided.

    An interruption (KeyboardInterrupt) after the first look ends the drawing, and what was seen by then stands; what
    was measured is kept in the session's store, so that the same command goes on with it.
    Raises as running experiments does, CS511 and CS512 as `judge`.
    """
    task = runner.task
    drawing = _Drawing(plan, runner, session, asked)
    stopped: Stopped = "limit"
    templates = len({prompt.template for prompt in task.prompts.prompts})
    rotating = not task.prompts.file
    with session.kept_batches(runner) as keep:
        for n in looks_at(templates if rotating else 1, task.n):
            try:
                session.progress.stage(f"running prompts up to the first {n}")
                drawing.go_on(n, keep)
            except KeyboardInterrupt:
                if not drawing.looks:
                    raise
                stopped = "interrupted"
                break
            if drawing.done:
                stopped = "decided"
                break
    n = drawing.looks[-1]
    used = chosen(task, range(n))
    final = session.runner(used)
    final.take_means(runner)
    stored = stack.enter_context(session.kept(final, drawing.records.values))
    begun = Begun(final, stored, drawing.records, drawing.error, runner.prompts_run / n, drawing.measured)
    return begun, drawing.facts(task.n, stopped)
