"""Records -> claim results: SUPPORTED, REFUTED or INCONCLUSIVE, each with the numbers that decide it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from circuitspec.analysis.claims.claim_result import (
    CROSSES,
    MIN_PROMPTS,
    ClaimPart,
    ClaimResult,
    Status,
    part_of,
    place,
    together,
    too_few,
)
from circuitspec.analysis.claims.gate_statistics import BOUNDS, Part, Trio, find_gate, interaction
from circuitspec.analysis.claims.many_run_claims import Judgement, judge_methods, judge_random, judge_subsets
from circuitspec.analysis.claims.means_error import Lookup, MeansError, Scores, recovered
from circuitspec.analysis.statistics import stats
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.out_of_range import claim_out_of_range
from circuitspec.analysis.statistics.scores import MATERIAL, Anchors, Gap, gap
from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.records import Records
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.planner import GateRuns, Plan, PlannedClaim, Traced
from circuitspec.hypothesis_file.grammar.components import stage
from circuitspec.hypothesis_file.schema.blocks import CrossSection, Gate, Mediation, PathClaim, Traces
from circuitspec.hypothesis_file.schema.tested_claims import BeatsRandom, Complete, Minimal

__all__ = [
    "EXIT_CODES",
    "MIN_PROMPTS",
    "PATCHED_SET",
    "ClaimPart",
    "ClaimResult",
    "Status",
    "judge",
    "overall",
    "place",
]

EXIT_CODES: dict[Status, int] = {"SUPPORTED": 0, "REFUTED": 1, "INCONCLUSIVE": 4}

PATCHED_SET = {"sufficient": "everything outside the circuit", "necessary": "the circuit"}

_NOT_APART = "no ratio: the clean and corrupt runs do not differ (see CS403)"
_INVERTED = "no meaningful ratio: the corrupt run does better than the clean one (see CS403)"


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
    claim = planned.claim
    n = records.n_prompts

    def result(
        status: Status,
        reason: str = "",
        estimate: Estimate | None = None,
        parts: tuple[ClaimPart, ...] = (),
        found: str = "",
    ) -> ClaimResult:
        return ClaimResult(
            index=planned.index,
            kind=claim.kind,
            metric=claim.metric,
            status=status,
            estimate=estimate,
            at_least=claim.at_least,
            at_most=claim.at_most,
            n=n,
            reason=reason,
            experiment=_describe(planned),
            measure=planned.measure,
            parts=parts,
            found=found,
        )

    def judged(found: Judgement) -> ClaimResult:
        one = result(found.status, found.reason, parts=found.parts, found=found.found)
        return replace(one, notes=found.notes, n=found.n)

    if n < 2:
        return result("INCONCLUSIVE", f"one prompt has no confidence interval; a verdict needs {MIN_PROMPTS}")
    between = gap(records, claim.metric, Anchors(planned.clean, planned.corrupt))
    share = planned.measure == "direct share"
    behaviour = between if planned.broken is None else gap(records, claim.metric, _prompts(planned.broken))
    if share and behaviour.state != "sound":  # nothing is broken that paths could take a share of
        return result("INCONCLUSIVE", _NOT_APART if behaviour.state == "zero" else _INVERTED)
    if between.state == "zero":
        said = "both paths together have no effect to take a share of" if share else _NOT_APART
        return result("INCONCLUSIVE", said)
    if between.state == "inverted" and not share:  # of an effect that improves the metric, there are shares too
        return result("INCONCLUSIVE", _INVERTED)
    if outside := claim_out_of_range(planned, records):
        simple = planned.measure in ("recovered", "drop", "rise")
        return replace(
            result("INCONCLUSIVE", outside, _estimate(planned, records, error) if simple else None),
            out_of_range=outside,
        )
    if error is not None and n >= MIN_PROMPTS and (why := error.too_few(planned.patched)):
        return result("INCONCLUSIVE", why)
    match claim:
        case Gate() if planned.gate is not None:
            parts, found = _gate(claim, planned.gate, planned, records, error)
            return result(*together(parts, n), parts=parts, found=found)
        case Complete() | Minimal():
            return judged(judge_subsets(planned, records))
        case BeatsRandom():
            return judged(judge_random(planned, records))
        case Traces():
            parts = tuple(_reaction(claim, one, planned, records, between, error) for one in planned.traced)
            return result(*together(parts, n), parts=parts, found=_reacting(planned, parts))
    if share and (nothing := _next_to_nothing(planned, records, between)):
        return result("INCONCLUSIVE", nothing)
    estimate = _estimate(planned, records, error)
    if estimate.interval is None:
        return result("INCONCLUSIVE", "the clean and corrupt runs are too close for an interval", estimate)
    if n < MIN_PROMPTS:
        return result("INCONCLUSIVE", too_few(n), estimate)
    status = place(estimate.interval, claim.at_least, claim.at_most)
    own = result(status, CROSSES if status == "INCONCLUSIVE" else "", estimate)
    if planned.methods is None:
        return own
    under = judge_methods(planned, records, error)
    return replace(
        own, status=under.status, reason=under.reason, parts=under.parts, found=under.found, notes=under.notes
    )


def _estimate(planned: PlannedClaim, records: Records, error: MeansError | None) -> Estimate:
    """The share of the anchors' difference that the claim bounds."""
    zero, one = (planned.clean, planned.corrupt) if planned.falls else (planned.corrupt, planned.clean)
    return recovered(records, (planned.patched, zero, one), planned.claim.metric, error)


def _next_to_nothing(planned: PlannedClaim, records: Records, both: Gap) -> str:
    """Why no share is taken of the effect of both paths together: it is hardly any of what breaks the behaviour.

    KL falls off with the square and is never negative, so that its interval alone does not tell an effect from none.
    """
    assert planned.broken is not None
    whole = gap(records, both.metric, _prompts(planned.broken)).difference.value
    if abs(both.difference.value) >= MATERIAL * abs(whole):
        return ""
    return (
        f"both paths together change {both.metric} by {both.difference.value:.2g}, next to nothing of the "
        f"{whole:.2g} by which all of it changes"
    )


def _prompts(broken: Experiment) -> Anchors:
    """The behaviour itself, between which paths are patched."""
    return Anchors(Experiment("clean"), broken)


def _gate(
    claim: Gate, runs: GateRuns, planned: PlannedClaim, records: Records, error: MeansError | None
) -> tuple[tuple[ClaimPart, ...], str]:
    """The interactions of the two parts in both directions, and which gate they make."""
    metric = claim.metric
    noised, denoised = (Trio(*(records[run][metric] for run in trio)) for trio in (runs.noised, runs.denoised))
    clean, corrupt = records[planned.clean][metric], records[planned.corrupt][metric]
    finding = find_gate(noised, denoised, clean, corrupt, earlier=_earlier(*runs.noised[:2]))
    if error is not None and finding.noising.interaction is not None:
        first, second, both = runs.noised

        def interacting(scores: Lookup) -> Scores:
            base, together = scores(planned.clean), scores(both)
            return interaction(base, scores(first), scores(second), together)

        finding = replace(
            finding, noising=replace(finding.noising, interaction=error.recovered(records, interacting, metric))
        )
    low, high = BOUNDS[claim.gate]
    parts = (
        part_of("noised", finding.noising.interaction, *low, "both together break next to nothing"),
        part_of("denoised", finding.denoising.interaction, *high, "both together restore next to nothing"),
    )
    return parts, finding.label


def _earlier(first: Experiment, second: Experiment) -> Part | None:
    """The part of which all comes before the other, None where they mix."""
    one, other = ([stage(site.component) or 0 for site in run.sites] for run in (first, second))
    if max(one) < min(other):
        return "first"
    return "second" if max(other) < min(one) else None


def _reaction(
    claim: Traces, one: Traced, planned: PlannedClaim, records: Records, reference: Gap, error: MeansError | None
) -> ClaimPart:
    """How far the score falls: a share of what this corruption takes away or, if it takes nothing, the file's own."""
    own = gap(records, claim.metric, Anchors(planned.clean, one.corrupt))
    breaks = own.state == "sound" and abs(own.difference.value) >= MATERIAL * abs(reference.difference.value)
    whole = one.corrupt if breaks else planned.corrupt
    estimate = recovered(records, (one.noised, planned.clean, whole), claim.metric, error)
    least = claim.reaction_at_least if one.expected else -claim.others_at_most
    most = None if one.expected else claim.others_at_most
    note = "" if breaks else f"of what {planned.corrupt.base if whole.source is None else 'ablating all'} takes away"
    return part_of(one.corruption, estimate, least, most, "", note)


def _reacting(planned: PlannedClaim, parts: tuple[ClaimPart, ...]) -> str:
    """The corruptions to which there surely is a reaction, by the claim's own measure."""
    assert isinstance(planned.claim, Traces)
    least = planned.claim.reaction_at_least
    found = [p.name for p in parts if p.estimate is not None and p.estimate.low is not None and p.estimate.low >= least]
    return ", ".join(found) or "none"


def _describe(planned: PlannedClaim) -> str:
    claim, direction = planned.claim, planned.patched.direction
    match claim:
        case Gate():
            first, second = claim.nodes
            return f"noising and denoising {first}, {second}, and both"
        case Traces():
            corruptions = ", ".join(one.corruption for one in planned.traced)
            return f"noising {', '.join(claim.nodes)} from {corruptions}"
        case Complete():
            return "circuit and model without subsets of the circuit"
        case Minimal():
            return "the circuit without each of its nodes and a subset"
        case BeatsRandom():
            return f"the circuit and {claim.circuits} random circuits"
        case CrossSection():
            patched = ", ".join(claim.nodes or claim.paths or ())
        case PathClaim():
            patched = claim.of
        case Mediation():
            first, last = claim.of.partition(" -> ")[0], claim.of.rpartition(" -> ")[2]
            patched = f"{first} -> {last}, beside {claim.of}"
        case _:
            patched = PATCHED_SET[claim.kind]
    return f"{patched}: nothing to patch" if direction is None else f"{direction} {patched}"
