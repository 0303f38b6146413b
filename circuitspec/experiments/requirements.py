"""A plan and its prompts: what they must have, and the plan cut down to what they allow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic, Span
from circuitspec.experiments.experiment import Experiment, Noised, texts_of
from circuitspec.experiments.internal_metric_plans import positions_of
from circuitspec.experiments.levels.attention_pattern_rules import check_patterns
from circuitspec.experiments.levels.patched_tokens import (
    Undefined,
    check_counterparts,
    undefined_at,
    where_and_why,
)
from circuitspec.experiments.planner import Plan, PlannedClaim
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.internal_metric_names import Internal
from circuitspec.hypothesis_file.schema.blocks import Hypothesis
from circuitspec.hypothesis_file.yaml.source import SourceText
from circuitspec.prompts.output_metrics import check_metrics
from circuitspec.prompts.pairs.pair_tokens import misplaced
from circuitspec.prompts.prompt_set import CLEAN, PromptSet, TokenizedTask
from circuitspec.prompts.scrubbing.drawn_prompts import DrawnPrompts


def refused_runs(experiments: Iterable[Experiment], task: TokenizedTask) -> dict[Experiment, str]:
    """Those that cannot be run on prompts with these tokens, and why (CS366, CS514, CS519, CS362)."""
    found: dict[Experiment, str] = {}
    for experiment in experiments:
        known = experiment.roles <= task.roles.keys() and all(texts_of(v) in task.ids for v in experiment.variants)
        if not known:  # which `check_plan_fits` tells
            continue
        try:
            check_patterns([experiment], task)
            if task.own:
                check_counterparts([experiment], task)
        except CircuitspecError as error:
            found[experiment] = error.diagnostics[0].message
            continue
        shared = _shared([experiment], task)
        if shared:
            found[experiment] = _said_shared(*shared[0])
    return found


def fitted(plan: Plan, refused: Mapping[Experiment, str], text: SourceText) -> Plan:
    """The plan without runs of its claims' other methods which these prompts do not allow; `refused` says why.

    What the file itself asks for stays, so that what is wrong with it is told. Raises CS167 where a claim gives such a
    method by its values (`robust_to`).
    """
    claims: list[PlannedClaim] = []
    problems: list[Diagnostic] = []
    lost: set[Experiment] = set()
    for planned in plan.claims:
        try:
            left = planned.fitted(refused, text)
        except CircuitspecError as error:
            problems += error.diagnostics
            continue
        lost |= set(planned.runs) - set(left.runs)
        claims.append(left)
    if problems:
        raise CircuitspecError(*problems)
    kept = {run for planned in claims for run in planned.runs} | {plan.clean, plan.corrupt}
    labels = {run: label for run, label in plan.labels.items() if run in kept or run not in lost}
    return replace(plan, claims=tuple(claims), labels=labels)


def check_plan_fits(plan: Plan, task: TokenizedTask, text: SourceText, internals: Sequence[Internal] = ()) -> None:
    """What the file names must be in the prompts: the corruption patched from, and every position in each prompt."""
    problems = []
    for variant in dict.fromkeys(texts_of(v) for v in plan.variants):
        if variant in task.ids:
            continue
        problems.append(
            Diagnostic(
                "CS508",
                f"the prompts have no corruption `{variant}`",
                text.span(("ablation", "from")),
                hint=f"they have: {', '.join(task.prompts.corruptions) or 'none'}",
                data={"lacking": variant},
            )
        )
    problems += _unlike_sources(plan, task, text) + moved(plan.drawn_prompts, plan.experiments, task, text)
    named = {role for e in plan.experiments for role in e.roles}
    named |= {role for metric in internals for role in positions_of(metric)}
    named |= {role for v in plan.variants if isinstance(v, Noised) for role in v.where.roles}
    for role in sorted(named - set(task.roles)):
        without = task.partial_roles.get(role, ())
        where = f"; templates without it: {', '.join(str(t) for t in without)}" if without else ""
        problems.append(
            Diagnostic(
                "CS507",
                f"position `{role}` is not in every prompt{where}",
                text.span(("circuit", "groups")),
                hint=f"positions that every prompt has: {', '.join(sorted(task.roles))}",
            )
        )
    if problems:
        raise CircuitspecError(*problems)
    check_patterns(plan.experiments, task, text)
    check_spans([role for metric in internals for role in positions_of(metric)], task, text.span(("claims",)))
    _check_overlap(plan, task, text)
    check_counterparts(plan.experiments, task)


def check_spans(read: Iterable[str], task: TokenizedTask, at: Span | None = None) -> None:
    """CS361 for positions of several tokens at which something of one token is read."""
    problems = [
        Diagnostic(
            "CS361",
            f"the position {role} is several tokens, and a metric inside the model is read at one",
            at,
            label=f"it is {max(map(len, task.spans[role]))} tokens in some prompt",
            hint="declare a position for the one that is meant, such as its last token",
        )
        for role in dict.fromkeys(read)
        if role in task.spans
    ]
    if problems:
        raise CircuitspecError(*problems)


def _check_overlap(plan: Plan, task: TokenizedTask, text: SourceText) -> None:
    """CS362 for positions that share tokens where different ones are taken for different tokens.

    At node level these are the positions of one component, at the others all that an experiment names.
    """
    shared = _shared(plan.experiments, task)
    if shared:
        raise CircuitspecError(
            *(
                Diagnostic(
                    "CS362",
                    _said_shared(one, two),
                    text.span(("task",), key=True),
                    hint=f"name {one} or {two} alone, or positions of different tokens",
                )
                for one, two in shared
            )
        )


def _shared(experiments: Iterable[Experiment], task: TokenizedTask) -> list[tuple[str, str]]:
    """The pairs of positions that are taken for different tokens, and share some."""
    if not task.spans:
        return []
    together: set[frozenset[str]] = set()
    for experiment in experiments:
        together |= {experiment.roles} if experiment.readings else {site.where.roles for site in experiment.sites}
    pairs = {(one, two) for roles in together for one, two in combinations(sorted(roles), 2)}
    return [pair for pair in sorted(pairs) if task.spans.keys() & {*pair} and overlap(task, *pair)]


def _said_shared(one: str, two: str) -> str:
    return f"the positions {one} and {two} share tokens, and what is patched would have to be told apart"


def overlap(task: TokenizedTask, one: str, other: str) -> bool:
    """Whether two positions share a token in some prompt."""
    return any({*task.tokens_at(one, i)} & {*task.tokens_at(other, i)} for i in range(task.n))


def _unlike_sources(plan: Plan, task: TokenizedTask, text: SourceText) -> list[Diagnostic]:
    """CS233 for sources of pairs that have no token where a value of theirs is patched into their base."""
    problems: dict[Diagnostic, None] = {}
    asked: dict[tuple[str, str, Where], None] = {}
    for experiment in plan.experiments:
        for patch in experiment.patches if task.own else ():
            variant = str(patch.source.prompts)
            if variant in task.prompts.beside:  # of corruptions `check_counterparts` speaks
                known = (site.where for site in patch.sites if site.where.roles <= task.roles.keys())
                asked.update({(texts_of(experiment.base), variant, where): None for where in known})
    for base, variant, where in asked:
        found = undefined_at(task, base, variant, [where])
        if found is not None:
            problems[_no_token(found, task, text)] = None
    return list(problems)


def moved(
    drawn_prompts: Iterable[DrawnPrompts], experiments: Iterable[Experiment], task: TokenizedTask, text: SourceText
) -> list[Diagnostic]:
    """CS242 for drawn prompts that have a position on the paths at another token than the clean ones."""
    drawn = {one.variant: one for one in drawn_prompts if one.variant in task.ids}
    roles = {role for e in experiments if drawn.keys() & {*e.sent_prompts} for role in e.roles} & set(task.roles)
    for variant, one in drawn.items():
        for role, number in misplaced(task, variant, roles):
            base = task.prompts.prompts[number]
            finding = Diagnostic(
                "CS242",
                f"position `{role}` is at another token in a prompt drawn for {one.spoken} than in {base.described()}",
                text.span(("circuit", "carries"), key=True),
                f"{task.prompts.text_of(number, variant)!r} for {base.texts[CLEAN]!r}",
                "let lists have entries of equally many tokens",
            )
            return [finding]
    return []


def _no_token(found: Undefined, task: TokenizedTask, text: SourceText) -> Diagnostic:
    base, source = task.prompts.prompts[found.prompt], task.prompts.text_of(found.prompt, found.source)
    at, why = where_and_why(found, task)
    return Diagnostic(
        "CS233",
        f"a source of {found.source} has no token for token {found.token} of {base.described()}, where it is patched "
        f"({at}): {why}",
        text.span(("abstraction", "pairs"), key=True),
        f"{source!r} for {base.texts[CLEAN]!r}",
        "align variables at named positions of equally many tokens (at: END), or let lists have such entries",
    )


def check_length(task: TokenizedTask, shape: ModelShape) -> None:
    """CS505 for a prompt of more tokens (with all but the last of an answer) than the model has positions."""
    limit = shape.max_positions
    rows = task.row_lengths
    longest = max(range(task.n), key=lambda i: rows[i])
    if limit is not None and rows[longest] > limit:
        prompt = task.prompts.prompts[longest]
        raise CircuitspecError(
            Diagnostic(
                "CS505",
                f"{prompt.described()} has {rows[longest]} tokens, the model takes {limit}",
                prompt.span,
                hint="use shorter prompts",
            )
        )


def check_claimed(hypothesis: Hypothesis, prompts: PromptSet, text: SourceText) -> None:
    """CS350 for metrics that the prompts have no answers for."""
    places = [text.span(("claims", i)) for i in range(len(hypothesis.claims))]
    check_metrics([claim.metric for claim in hypothesis.claims], prompts, places)
    if hypothesis.task.checks.accuracy is not None:
        check_metrics(["accuracy"], prompts, [text.span(("task", "checks", "accuracy"))])
