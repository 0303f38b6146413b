"""Which metric to go by, where the claims leave it open: one rule for each use.

A rule takes the first that was measured in the clean run, of the claimed metrics that suit the use, in the order of the
claims, and of `logit_diff` and `logit`, which suit every use and are measured wherever the task has answers (of several
tokens: of `logprob_diff` and `logprob`). What suits is decided by three properties of a metric: linear in the logits
(`logit_diff`, `logit`), smooth (neither discrete nor KL, which falls off with the square near the clean run), and
better where it is higher.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from circuitspec.analysis.claims.registry import claims_sufficiency
from circuitspec.analysis.statistics.scores import Anchors, Gap, gap
from circuitspec.engine.records import Records
from circuitspec.experiments.planner import Plan
from circuitspec.hypothesis_file.grammar.internal_metric_names import is_internal
from circuitspec.prompts.output_metrics import METRICS

OF_ANSWERS = ("logit_diff", "logit", "logprob_diff", "logprob")
"""The first two are linear in the logits, and measured wherever answers are single tokens; otherwise the others are."""


def for_parts(plan: Plan, records: Records) -> str | None:
    """What a circuit's parts are judged by: a claimed metric that is linear in the logits, else one of the answers.

    Direct effects are defined for these alone. None where the task has no answers.
    """
    return _first(records, plan, (*_linear(claimed(plan)), *OF_ANSWERS))


def for_parts_between_anchors(plan: Plan, records: Records) -> str | None:
    """The same, but None where the anchors do not differ by it, or there is a single prompt."""
    metric = for_parts(plan, records)
    if metric is None or records.n_prompts < 2:
        return None
    return metric if gap(records, metric, Anchors(plan.clean, plan.corrupt)).state == "sound" else None


def for_parts_as_claimed(plan: Plan, records: Records) -> str | None:
    """What a circuit's parts are judged by besides: the first claimed metric that does not jump, of which more is
    better. None where none was claimed.
    """
    smooth = (m for m in claimed(plan) if m in METRICS and not METRICS[m].discrete and METRICS[m].better == "higher")
    return _first(records, plan, smooth)


def for_negatives(plan: Plan, records: Records) -> str | None:
    """What components outside the circuit are called negative by: the sufficiency claim's metric, if it is smooth.

    None where there is no such claim, or the task has no answers to measure a smooth metric by.
    """
    sufficient = [planned.claim.metric for planned in claims_sufficiency(plan).values()]
    return _first(records, plan, (*_smooth(sufficient), *OF_ANSWERS)) if sufficient else None


def for_paths(plan: Plan, records: Records) -> str:
    """What declared paths are measured by: a claimed metric linear in the logits, else one that is measured anyway.

    A discrete metric stays where it is, KL falls off with the square, and probabilities saturate: by those a path
    would seem idle that is not.
    """
    names = claimed(plan)
    return _first(records, plan, (*_linear(names), *OF_ANSWERS, *_smooth(names))) or names[0]


def for_other_methods(plan: Plan, records: Records) -> str:
    """What other methods and random circuits are compared by: the first claim's metric if it is one inside the model,
    else a claimed smooth one.
    """
    names = claimed(plan)
    if is_internal(names[0]):
        return names[0]
    return _first(records, plan, (*_smooth(names), *OF_ANSWERS)) or names[0]


def for_circuits_by_size(plan: Plan, records: Records, gaps: Mapping[str, Gap]) -> str | None:
    """What a picture of circuits by size shows: the first claimed metric that the circuit's own run was measured by,
    between anchors that differ (`gaps`, by metric). None where there is none.
    """
    sound = (m for m in claimed(plan) if m in gaps and gaps[m].state == "sound")
    return next((m for m in sound if m in records[plan.circuit]), None)


def for_standing(records: Records, between: Anchors) -> str | None:
    """What tells whether a corrupt run still prefers the right answer: above 0 where it does.

    None where there are no wrong answers and no accuracy was measured.
    """
    runs = (records[between.clean], records[between.corrupt])
    return next((m for m in ("logit_diff", "logprob_diff", "accuracy") if all(m in run for run in runs)), None)


def claimed(plan: Plan) -> list[str]:
    """The metrics of the claims, in their order."""
    return [planned.claim.metric for planned in plan.claims]


def _linear(metrics: Iterable[str]) -> list[str]:
    return [m for m in metrics if m in METRICS and METRICS[m].linear]


def _smooth(metrics: Iterable[str]) -> list[str]:
    return [m for m in metrics if m in METRICS and not METRICS[m].discrete and m != "kl"]


def _first(records: Records, plan: Plan, metrics: Iterable[str]) -> str | None:
    return next((m for m in metrics if m in records[plan.clean]), None)
