"""Records -> claim results: SUPPORTED, REFUTED or INCONCLUSIVE, each with the numbers that decide it."""

from __future__ import annotations

from collections.abc import Iterable

from circuitspec.analysis.claims.claim_result import (
    MIN_PROMPTS,
    ClaimPart,
    ClaimResult,
    Judgement,
    Status,
    place,
)
from circuitspec.analysis.claims.means_error import MeansError
from circuitspec.analysis.claims.registry import kind_of
from circuitspec.analysis.claims.sequences.sequential_estimates import SequentialEstimates
from circuitspec.analysis.claims.single_figure import share_between
from circuitspec.analysis.statistics import stats
from circuitspec.analysis.statistics.out_of_range import claim_out_of_range
from circuitspec.analysis.statistics.scores import Anchors, gap, worth
from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.records import Records
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.planner import Plan, PlannedClaim

__all__ = [
    "MIN_PROMPTS",
    "ClaimPart",
    "ClaimResult",
    "Status",
    "judge",
    "overall",
    "place",
]


def judge(plan: Plan, records: Records, error: MeansError | None = None) -> tuple[ClaimResult, ...]:
    """Decide every claim of the plan, in the file's order.

    A claim is SUPPORTED when the confidence interval of recovered performance (or of the drop, rise or direct
    share that it is about) lies inside its bound, REFUTED when it lies outside entirely, and INCONCLUSIVE between,
    when the anchors cannot be told apart (or are inverted), when a run lies out of all range of them, and when there
    are too few prompts for an interval. A claim with several parts is REFUTED if one of them is, and SUPPORTED if all
    are. Figures for which means are patched in are corrected and their intervals widened for the `error` of these,
    where it is known.
    Raises CS511 where a claimed metric is not finite, CS512 where it was not measured.
    """
    _require_measured(plan, records)
    return tuple(_judge(planned, plan, records, error) for planned in plan.claims)


def overall(claims: Iterable[ClaimResult]) -> Status:
    """REFUTED if any claim is, else INCONCLUSIVE if any is or nothing was claimed, else SUPPORTED."""
    found = {claim.status for claim in claims}
    if "REFUTED" in found:
        return "REFUTED"
    return "SUPPORTED" if found == {"SUPPORTED"} else "INCONCLUSIVE"


def _require_measured(plan: Plan, records: Records) -> None:
    problems = []
    for planned in plan.claims:
        metric = planned.claim.metric
        for run in planned.runs:
            if metric not in records[run]:
                measured = ", ".join(sorted(records[run])) or "nothing"
                problems.append(
                    Diagnostic(
                        "CS512",
                        f"claim {planned.index + 1} ({planned.claim.kind}) is about {metric}, "
                        f"which was not measured in `{_label(plan, run)}`",
                        hint=f"measured there: {measured}",
                    )
                )
            else:
                stats.require_finite(records[run][metric], f"{metric} in `{_label(plan, run)}`")
    if problems:
        raise CircuitspecError(*dict.fromkeys(problems))


def _label(plan: Plan, experiment: Experiment) -> str:
    return plan.labels.get(experiment, experiment.digest[:8])


def _judge(planned: PlannedClaim, plan: Plan, records: Records, error: MeansError | None) -> ClaimResult:
    kind, claim = kind_of(planned), planned.claim
    found = _judgement(planned, records, error)
    return ClaimResult(
        index=planned.index,
        kind=claim.kind,
        metric=claim.metric,
        status=found.status,
        estimate=found.estimate,
        at_least=claim.at_least,
        at_most=claim.at_most,
        n=records.n_prompts if found.n is None else found.n,
        reason=found.reason,
        experiment=kind.describe(planned),
        measure=planned.measure,
        parts=found.parts,
        found=found.found,
        notes=found.notes,
        out_of_range=found.out_of_range,
    )


def _judgement(planned: PlannedClaim, records: Records, error: MeansError | None) -> Judgement:
    """What stands in the way of any claim, and else what its kind decides."""
    kind, n = kind_of(planned), records.n_prompts
    if isinstance(error, SequentialEstimates) and not kind.has_sequence:
        error = error.fixed
    between = gap(records, planned.claim.metric, Anchors(planned.clean, planned.corrupt))
    if n < 2:
        said = f"one prompt has no confidence interval; a verdict needs {MIN_PROMPTS}"
        measured = not kind.several and between.difference.value * worth(between.metric) > 0
        return Judgement("INCONCLUSIVE", said, share_between(planned, records, None) if measured else None)
    if nothing := kind.no_ratio(planned, records, between):
        return Judgement("INCONCLUSIVE", nothing)
    if outside := claim_out_of_range(planned, records):
        estimate = None if kind.several else share_between(planned, records, error)
        return Judgement("INCONCLUSIVE", outside, estimate, out_of_range=outside)
    if error is not None and n >= MIN_PROMPTS and (why := error.too_few(planned.patched)):
        return Judgement("INCONCLUSIVE", why)
    return kind.decide(planned, records, between, error)
