"""Metrics that mislead about the runs at hand (Heimersheim & Nanda 2024, section 4): one function a warning.

Each returns nothing on evidence that it has no quarrel with, and looks at means before it draws any bootstrap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from circuitspec.analysis.claims.claim_kind import AnyKind
from circuitspec.analysis.claims.registry import kind_of
from circuitspec.analysis.claims.verdict import ClaimResult, place
from circuitspec.analysis.statistics import stats
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.plain_data import estimate_data
from circuitspec.analysis.statistics.prompt_groups import runs_of
from circuitspec.analysis.statistics.scores import Anchors, gap
from circuitspec.analysis.statistics.stats import Values
from circuitspec.analysis.statistics.wording import number, plural, with_interval
from circuitspec.analysis.warnings.evidence import CLAIMS, Evidence, EvidenceWarning, WarningKind
from circuitspec.engine.records import PromptValues, Records
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.planner import PlannedClaim
from circuitspec.prompts.output_metrics import METRICS

# A corruption that swaps the two answers moves both alike (the right one's share is 0.5), one that removes both moves
# the right one alone (1). Below a fifth, the measure is about the wrong answer.
WRONG_ONLY = 0.2
MOVED = 0.2  # of the anchors' difference: what moves less has no parts worth telling apart
# Probabilities are single-precision: what is left for all other tokens is known to about 1e-7, so to a hundredth here
LEAST_REST = 1e-5
CENSORED = 0.1  # of prompts: with more of them so certain, what the right answer gains is not known
SATURATED = 0.05  # nats from certainty, a probability of 0.951: all that is left to gain shows as less than this
APART = 0.1  # of recovered performance, between intervals that do not meet: what saturation hides
# One metric calls the behaviour recovered, another broken, when their intervals lie on either side of one half. (The
# probability's curve alone puts 0.8 of the logit difference at 0.6 to 0.9 of the probability.)
HALF = 0.5
BROKEN_KL = 0.1  # nats: below, total variation is less than 0.23 (Pinsker), and nothing broke

_LOGIT_DIFF = "logit_diff"
_DIFFERENCES = (_LOGIT_DIFF, "logprob_diff")  # the same of single tokens; of whole answers there is the second alone
_ROUNDED = ("prob", "prob_diff", "accuracy")  # what curves or rounds the logit difference
_BESIDE = ("prob", "accuracy")  # of these, what a claim about the logit difference is compared with
_SATURABLE = ("logprob", "prob", "prob_diff")

Case = tuple[PlannedClaim, ClaimResult]


def cases(evidence: Evidence, wanted: Callable[[AnyKind], bool] = lambda kind: True) -> Iterator[Case]:
    """Claims of these kinds about recovered performance that is in range, one for each run, anchors and metric."""
    seen = set()
    for planned, claim in zip(evidence.plan.claims, evidence.claims, strict=True):
        key = (planned.patched, planned.clean, planned.corrupt, claim.metric)
        if wanted(kind_of(planned)) and planned.measure == "recovered" and not claim.out_of_range and key not in seen:
            seen.add(key)
            yield planned, claim


def recovered_by(planned: PlannedClaim, records: Records, metric: str) -> Estimate | None:
    """What the claim's run recovers by another metric; None where that was not measured or has no ratio."""
    runs = [records[run] for run in (planned.patched, planned.clean, planned.corrupt)]
    if records.n_prompts < 2 or any(metric not in run or not np.isfinite(run[metric]).all() for run in runs):
        return None
    if gap(records, metric, Anchors(planned.clean, planned.corrupt)).state != "sound":
        return None
    own = runs_of(planned, records, metric)
    return stats.recovered(own.patched, own.zero, own.one)


# -- CS416 ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Move:
    """A rise of the logit difference from one run to another, and the right answer's share in it."""

    low: Experiment
    high: Experiment
    rise: float
    share: Estimate
    right: tuple[float, float]  # mean log odds of the right answer against all tokens but the two, in either run
    wrong: tuple[float, float]


def wrong_answer_only(evidence: Evidence) -> list[EvidenceWarning]:
    """CS416: the logit difference rises because the wrong answer falls, and the right one gains nothing."""
    found, plan, records = _moves(evidence), evidence.plan, evidence.records
    if not found:
        return []
    named = {run: plan.labels.get(run, run.digest[:8]) for pair in found for run in pair}
    said = [
        f"the right answer's share in its rise by {number(move.rise)} from `{named[move.low]}` to "
        f"`{named[move.high]}` is {with_interval(move.share, (WRONG_ONLY,))}"
        for move, _ in found.values()
    ]
    sides = [
        f"{named[move.high]} against {named[move.low]}: the right answer {_change(move.right)}, "
        f"the wrong one {_change(move.wrong)}"
        for move, _ in found.values()
    ]
    return [
        EvidenceWarning(
            "CS416",
            f"{_difference_of(records[plan.clean])} is moved by the wrong answer only: {'; '.join(said)}",
            f"log odds against all other tokens, {'; '.join(sides)}",
            "claim logprob or prob beside it: a run that is merely damaged also ranks the wrong answer lower",
            {
                "moves": [
                    {
                        "from": named[move.low],
                        "to": named[move.high],
                        "claim": index,
                        "rise": move.rise,
                        "share_of_right": estimate_data(move.share),
                        "right": list(move.right),
                        "wrong": list(move.wrong),
                    }
                    for move, index in found.values()
                ]
            },
        )
    ]


WRONG_ANSWER_ONLY = WarningKind(
    "CS416",
    CLAIMS,
    "logit difference moved by the wrong answer only",
    "The logit difference rises (from the corrupt run to the clean one, or to the circuit's) because the wrong "
    "answer falls, while the right answer gains less than a fifth of the rise, or loses. Any patch that damages "
    "the model brings its output nearer to uniform, and so lowers whatever answer the corrupt run prefers: the "
    "difference rises, and nothing was restored. The two answers are compared with all other tokens, by their "
    "log odds: a single logit has no fixed origin, and a log probability saturates. Look at logprob, prob and rank "
    "of the right answer in the same table, and claim one of them beside logit_diff:\n\n    - sufficient: {metric: "
    "logit_diff, at_least: 0.8, at_most: 1.2}\n    - sufficient: {metric: logprob, at_least: 0.6}\n\nIf the "
    "circuit is there to hold the wrong answer down, the warning says just that; write it into the description.",
    wrong_answer_only,
)


def _moves(evidence: Evidence) -> dict[tuple[Experiment, Experiment], tuple[_Move, int | None]]:
    """The rises that the wrong answer makes alone, and the claim that each is of (None: of the corruption's)."""
    records = evidence.records
    found: dict[tuple[Experiment, Experiment], tuple[_Move, int | None]] = {}
    for planned, claim in cases(evidence):
        if claim.metric not in _DIFFERENCES:
            continue
        between = (planned.corrupt, planned.clean)
        own = (planned.patched, planned.clean) if kind_of(claim).knocks_out else (planned.corrupt, planned.patched)
        whole = _rise(records, *between)
        for low, high in (between, own):
            if (low, high) in found or _rise(records, low, high) < MOVED * whole:
                continue
            move = _move(records, low, high)
            if move is not None:
                found[low, high] = (move, None if (low, high) == between else claim.index)
    return found


def _rise(records: Records, low: Experiment, high: Experiment) -> float:
    return float((_difference(records[high]) - _difference(records[low])).mean())


def _difference(run: PromptValues) -> Values:
    """The logit difference; of whole answers, which have no logits, that of their log probabilities."""
    return run[_difference_of(run)]


def _difference_of(run: PromptValues) -> str:
    return next((metric for metric in _DIFFERENCES if metric in run), _LOGIT_DIFF)


def _move(records: Records, low: Experiment, high: Experiment) -> _Move | None:
    """The rise, if there surely is one and the right answer's share in it is surely small."""
    right = [_right_log_odds(records[run]) for run in (low, high)]
    if right[0] is None or right[1] is None or records.n_prompts < 2:
        return None
    if float((_rest(records[high]) <= LEAST_REST).mean()) > CENSORED:
        return None
    before, after = right[0], right[1]
    difference = [_difference(records[run]) for run in (low, high)]
    rise, gain = difference[1] - difference[0], after - before
    if rise.mean() <= 0 or gain.mean() / rise.mean() >= WRONG_ONLY or stats.mean(rise).may_be(0.0):
        return None
    share = stats.recovered(gain, np.zeros_like(gain), rise)
    if share.high is None or share.high >= WRONG_ONLY:
        return None
    sides = (float(before.mean()), float(after.mean()))
    wrong = (float((before - difference[0]).mean()), float((after - difference[1]).mean()))
    return _Move(low, high, float(rise.mean()), share, sides, wrong)


def _right_log_odds(run: PromptValues) -> Values | None:
    """Log odds of the right answer against all tokens but the right and the wrong one; None where not all is measured.

    Unlike its logit it has no arbitrary origin (a run may shift all logits alike), and unlike its log probability it
    does not saturate. Less the logit difference it is the wrong answer's.
    """
    if not {_difference_of(run), "logprob", "prob", "prob_diff"} <= run.keys():
        return None
    values = run["logprob"] - np.log(np.maximum(_rest(run), LEAST_REST))
    return values if np.isfinite(values).all() and np.isfinite(_difference(run)).all() else None


def _rest(run: PromptValues) -> Values:
    """The probability of all tokens but the right and the wrong one."""
    return 1 - run["prob"] - (run["prob"] - run["prob_diff"])


def _change(ends: tuple[float, float]) -> str:
    return f"{number(ends[0])} -> {number(ends[1])}"


# -- CS417 ------------------------------------------------------------------------------------------------------------


def saturated(evidence: Evidence) -> list[EvidenceWarning]:
    """CS417: by log probability (or probability) both runs are certain, and what changed between them cannot show."""
    plan, records, found = evidence.plan, evidence.records, []
    for planned, claim in cases(evidence):
        runs = (records[planned.clean], records[planned.patched])
        if claim.metric not in _SATURABLE or claim.estimate is None or any("logprob" not in run for run in runs):
            continue
        near = np.logical_and(*(run["logprob"] > -SATURATED for run in runs))
        if near.mean() <= HALF:
            continue
        other, unsaturated = _unsaturated(planned, records)
        if unsaturated is None or not _apart(claim.estimate, unsaturated):
            continue
        found.append(
            EvidenceWarning(
                "CS417",
                f"{claim.metric} is saturated: on {int(near.sum())} of {plural(len(near), 'prompt')} `clean` and "
                f"`{plan.labels.get(planned.patched, planned.patched.digest[:8])}` are both within {SATURATED} nats "
                "of certainty",
                f"recovered {with_interval(claim.estimate, (HALF,))} by {claim.metric}, "
                f"{with_interval(unsaturated, (HALF,))} by {other}",
                f"claim {_difference_of(runs[0])}: it goes on changing where the right answer is certain",
                {
                    "claim": claim.index,
                    "metric": claim.metric,
                    "prompts": int(near.sum()),
                    "n": len(near),
                    "recovered": estimate_data(claim.estimate),
                    "by": other,
                    "recovered_unsaturated": estimate_data(unsaturated),
                },
            )
        )
    return found


SATURATED_METRIC = WarningKind(
    "CS417",
    CLAIMS,
    "a saturated metric",
    "A claim is about logprob, prob or prob_diff, and on most prompts the right answer has more than 95 % of the "
    "probability both in the clean run and in the patched one. Log probability cannot rise above 0, so that a "
    "patched run may lose much of the model's margin and still score as the clean one does; by logit difference it "
    "recovers a different share (the intervals do not meet). Claim logit_diff, or logit where there are no wrong "
    "answers.",
    saturated,
)


def _unsaturated(planned: PlannedClaim, records: Records) -> tuple[str, Estimate | None]:
    """The same by logit difference or, without wrong answers, by the right answer's log odds."""
    difference = _difference_of(records[planned.clean])
    estimate = recovered_by(planned, records, difference)
    if estimate is not None:
        return difference, estimate
    odds = {}
    for run in (planned.patched, planned.clean, planned.corrupt):
        logprob = records[run]["logprob"]
        odds[run] = {"log odds": logprob - np.log(np.maximum(-np.expm1(logprob), LEAST_REST))}
    return "log odds", recovered_by(planned, Records(odds, records.templates), "log odds")


def _apart(one: Estimate, other: Estimate) -> bool:
    """Whether two recovered performances differ: materially, and with intervals that do not meet."""
    if one.interval is None or other.interval is None or abs(one.value - other.value) < APART:
        return False
    return one.interval[1] < other.interval[0] or other.interval[1] < one.interval[0]


# -- CS418, CS419 -----------------------------------------------------------------------------------------------------


def disagreeing(evidence: Evidence) -> list[EvidenceWarning]:
    """CS418: by the claim's bound logit difference says one thing and probability or accuracy the opposite."""
    records, found = evidence.records, []
    explained = {warning.data["claim"] for warning in saturated(evidence)}
    # where the right answer gains nothing its probability cannot: CS416 has said why
    unmoved = {claim for _, claim in _moves(evidence).values()}
    for planned, claim in cases(evidence):
        difference = _difference_of(records[planned.clean])
        others = list(_BESIDE if claim.metric in _DIFFERENCES else (difference,) if claim.metric in _ROUNDED else ())
        if claim.estimate is None or claim.index in explained:
            continue
        others = [metric for metric in others if metric != "prob" or claim.index not in unmoved]
        opposite = {m: e for m in others if (e := _opposite(planned, claim, claim.estimate, records, m)) is not None}
        if not opposite:
            continue
        listed = ", ".join(f"{with_interval(e, (HALF,))} by {m}" for m, e in opposite.items())
        found.append(
            EvidenceWarning(
                "CS418",
                f"metrics disagree about `{claim.kind}`: recovered {with_interval(claim.estimate, (HALF,))} by "
                f"{claim.metric}, but {listed}",
                "more than half is recovered by one, less than half by the other: probability and accuracy jump where "
                "the right answer overtakes others, and depend on all other tokens too",
                f"trust {difference} where only the answers matter; if the probability matters, claim it as well, with "
                "a bound of its own",
                {
                    "claim": claim.index,
                    "metric": claim.metric,
                    "recovered": estimate_data(claim.estimate),
                    "by": {metric: estimate_data(estimate) for metric, estimate in opposite.items()},
                },
            )
        )
    return found


DISAGREEING_METRICS = WarningKind(
    "CS418",
    CLAIMS,
    "metrics disagree",
    "By the claim's own bound, logit difference says that the behaviour is recovered and probability or accuracy "
    "that it is broken, or the other way round; the intervals lie on either side of one half, so that this is more "
    "than the curve of the probability. Probability depends on all other tokens (a circuit without the components "
    "that say `a name comes next` may tell the names apart and give neither a chance), and accuracy only shows "
    "what crosses a threshold. Where metrics disagree logit difference is the one to trust about the choice "
    "between the answers; if the claim is meant to say more, add a claim about prob with a bound of its own.",
    disagreeing,
)


def _opposite(
    planned: PlannedClaim, claim: ClaimResult, mine: Estimate, records: Records, metric: str
) -> Estimate | None:
    """What `metric` says, where it decides the claim the other way and lies on the other side of one half."""
    rough = _rough(planned, records, metric)
    if rough is None or (rough < HALF) == (mine.value < HALF):
        return None
    other = recovered_by(planned, records, metric)
    if other is None or other.interval is None or mine.interval is None:
        return None
    said = place(other.interval, claim.at_least, claim.at_most)
    across = mine.interval[0] > HALF > other.interval[1] or mine.interval[1] < HALF < other.interval[0]
    return other if across and {claim.status, said} == {"SUPPORTED", "REFUTED"} else None


def _rough(planned: PlannedClaim, records: Records, metric: str) -> float | None:
    """The ratio of means alone."""
    if any(metric not in records[run] for run in (planned.patched, planned.clean, planned.corrupt)):
        return None
    runs = runs_of(planned, records, metric)
    return runs.recovered if np.isfinite(runs.gap) and runs.gap != 0 else None


def broken_kl(evidence: Evidence) -> list[EvidenceWarning]:
    """CS419: the answers are told apart as before, but the next-token distribution is not the model's."""
    plan, records, found = evidence.plan, evidence.records, []
    claimed = {planned.patched for planned, claim in cases(evidence) if claim.metric == "kl"}
    for planned, claim in cases(evidence, lambda kind: kind.claims_sufficiency):
        if claim.metric not in _DIFFERENCES or claim.status != "SUPPORTED" or planned.patched in claimed:
            continue
        rough = _rough(planned, records, "kl")
        if rough is None or rough >= HALF or claim.estimate is None or not (claim.estimate.low or 0.0) > HALF:
            continue
        mean = float(records[planned.patched]["kl"].mean())
        by_kl = recovered_by(planned, records, "kl")
        if mean < BROKEN_KL or by_kl is None or by_kl.high is None or by_kl.high >= HALF:
            continue
        corrupt = float(records[planned.corrupt]["kl"].mean())
        found.append(
            EvidenceWarning(
                "CS419",
                f"the logit difference is recovered, the output is not: {with_interval(claim.estimate, (HALF,))} "
                f"by {claim.metric}, {with_interval(by_kl, (HALF,))} by kl",
                f"the circuit's next-token distribution is {number(mean)} nats from the clean one, that of "
                f"`{plan.labels.get(planned.corrupt, planned.corrupt.digest[:8])}` {number(corrupt)}: KL counts every "
                "departure, also those that negative components would have compensated",
                "look at prob and rank of the answer in the circuit's run; add what restores them, or claim kl with "
                "the bound that you stand for",
                {
                    "claim": claim.index,
                    "recovered": estimate_data(claim.estimate),
                    "recovered_kl": estimate_data(by_kl),
                    "kl": mean,
                    "kl_corrupt": corrupt,
                },
            )
        )
    return found


BROKEN_OUTPUT = WarningKind(
    "CS419",
    CLAIMS,
    "logit difference recovered, output not",
    "The circuit recovers the logit difference within the claim's bound, but less than half of the way back to the "
    "clean run's next-token distribution by KL divergence (and that by more than 0.1 nats). KL counts every "
    "departure from the model, in either direction: helpful and harmful components left out together cancel in the "
    "logit difference and add up in KL, and so does all that the model says beside the two answers. Look at CS401 "
    "(negative components), at prob and rank of the answer; then add what restores them, or claim `kl` with the "
    "bound that the hypothesis stands for.",
    broken_kl,
)


# -- CS420 ------------------------------------------------------------------------------------------------------------


def only_discrete(evidence: Evidence) -> list[EvidenceWarning]:
    """CS420: every claim is about a metric that jumps."""
    metrics = sorted({claim.metric for claim in evidence.claims if not kind_of(claim).own_answers})
    if not metrics or not all(metric in METRICS and METRICS[metric].discrete for metric in metrics):
        return []
    return [
        EvidenceWarning(
            "CS420",
            f"only discrete metrics are claimed: {', '.join(metrics)}",
            "a component may halve the model's confidence without crossing a threshold, or seem to do everything "
            "because it crosses one",
            f"add a claim about {_difference_of(evidence.records[evidence.plan.clean])} (or logprob, where there is no "
            "wrong answer)",
            {"metrics": metrics},
        )
    ]


ONLY_DISCRETE = WarningKind(
    "CS420",
    CLAIMS,
    "only discrete metrics are claimed",
    "Accuracy and rank jump where the right answer overtakes another token and see nothing of what happens in "
    "between: a component that halves the model's confidence may not show, and one among many may seem to do "
    "everything because it crosses the threshold. Keep the claim if accuracy is what the hypothesis is about, and "
    "add one about a continuous metric: logit_diff, or logprob where there is no wrong answer.",
    only_discrete,
)


METRIC_WARNINGS = (WRONG_ANSWER_ONLY, SATURATED_METRIC, DISAGREEING_METRICS, BROKEN_OUTPUT, ONLY_DISCRETE)
