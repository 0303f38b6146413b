"""After a verification: what each part of a scrubbed circuit costs, and which entries could carry less."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from circuitspec.analysis.claims.abstraction.scrub_costs import ScrubCosts, costs_of, runs_of_claim
from circuitspec.analysis.claims.abstraction.scrubbed import PlannedScrub
from circuitspec.analysis.claims.verdict import judge
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.records import Records
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.follow_ups.scrub_parts import labels_of
from circuitspec.experiments.planner import Plan
from circuitspec.experiments.requirements import moved
from circuitspec.hypothesis_file.load_file import Document
from circuitspec.hypothesis_file.schema.blocks import Hypothesis
from circuitspec.pipelines.abstraction.pair_preparation import with_all_drawn
from circuitspec.pipelines.session import Session
from circuitspec.prompts.prompt_set import TokenizedTask

if TYPE_CHECKING:
    from circuitspec.analysis.claims.means_error import MeansError


@dataclass(frozen=True)
class FollowedUp:
    """The plan and the records with the runs of all that was taken apart, on a task that has their prompts."""

    plan: Plan
    records: Records
    task: TokenizedTask
    costs: tuple[ScrubCosts, ...] = ()
    forwards: float = 0.0
    looked_up: frozenset[Experiment] = frozenset()


def scrubbed_apart(
    plan: Plan,
    records: Records,
    error: MeansError | None,
    hypothesis: Hypothesis,
    document: Document,
    session: Session,
    task: TokenizedTask,
    *,
    every: bool,
) -> FollowedUp:
    """Each part of scrubbing alone and, for claims that are not supported (or `every` one), the circuit without it.

    Raises CS242 for a prompt that is drawn for this and has its positions at other tokens.
    """
    scrubs = tuple(one for one in plan.claims if isinstance(one, PlannedScrub))
    if not scrubs:
        return FollowedUp(plan, records, task)
    session.progress.stage("scrubbing the circuit part by part")
    judged = judge(replace(plan, claims=scrubs), records, error)
    asked = [
        (one, runs_of_claim(one, hypothesis, document.source, thorough=every or claim.status != "SUPPORTED"))
        for one, claim in zip(scrubs, judged, strict=True)
        if claim.estimate is not None
    ]
    drawn = tuple(dict.fromkeys(prompts for _, runs in asked for draw in runs.draws for prompts in draw.prompts))
    labels = {draw.scrubbed: label for _, runs in asked for label, draw in labels_of(runs).items()}
    new = [one for one in drawn if one.variant not in task.ids]
    task = with_all_drawn(task, new, document, session.loaded.tokenizer)
    if problems := moved(drawn, labels, task, document.source):
        raise CircuitspecError(*problems)
    runner = session.runner(task)
    with session.kept(runner) as stored:
        records = records.merged(stored.run(labels))
    costs = tuple(costs_of(one, runs, records) for one, runs in asked)
    anchors = {draw.scrubbed: (plan.clean, draw.nothing_kept) for _, runs in asked for draw in labels_of(runs).values()}
    plan = replace(plan.naming(labels), beside={**anchors, **plan.beside})
    return FollowedUp(plan, records, task, costs, runner.forwards, frozenset(stored.looked_up))
