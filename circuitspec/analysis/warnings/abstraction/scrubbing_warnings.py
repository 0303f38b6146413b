"""Scrubbed circuits whose figure says less than it seems to: one function a warning."""

from __future__ import annotations

from collections.abc import Iterator

from circuitspec.analysis.claims.abstraction.scrubbed import PlannedScrub, ScrubFigures, figures_of
from circuitspec.analysis.claims.claim_result import ClaimResult
from circuitspec.analysis.statistics.wording import number, plural
from circuitspec.analysis.warnings.evidence import CLAIMS, Evidence, EvidenceWarning, WarningKind
from circuitspec.experiments.levels.scrub_level import NodeDraw
from circuitspec.prompts.prompt_set import TokenizedTask
from circuitspec.prompts.scrubbing.drawn_prompts import variant_of

MOVED = 0.25  # of what random prompts take away: by so much single prompts' scores may move
DIVERGED = 0.1  # of the KL divergence of random prompts' outputs: so much may be that of the scrubbed ones
FLIPPED = 0.05  # of the prompts: so many answers may change
TIMES = 4.0  # single prompts move so many times as far as their mean, where they cancel
UNTESTED = 0.2  # of the values: where more are those of the reference itself, a claim tests less than it says


def _claims(evidence: Evidence) -> Iterator[tuple[PlannedScrub, ClaimResult]]:
    for planned, claim in zip(evidence.plan.claims, evidence.claims, strict=True):
        if isinstance(planned, PlannedScrub) and claim.estimate is not None:
            yield planned, claim


# -- CS460 ------------------------------------------------------------------------------------------------------------


def cancelled(evidence: Evidence) -> list[EvidenceWarning]:
    """CS460: the mean over prompts is recovered, and single prompts are not."""
    found = []
    for planned, claim in _claims(evidence):
        figures = figures_of(planned, evidence.records)
        assert claim.estimate is not None
        lost = abs(1 - claim.estimate.value)
        broken = _broken(figures, lost)
        if lost > 0.5 or not broken:
            continue
        found.append(
            EvidenceWarning(
                "CS460",
                f"recovered on average ({claim.metric} {number(claim.estimate.value)}), and not prompt by prompt: "
                f"{', '.join(broken)}",
                "gains on some prompts make up for losses on others, so that the mean says little of what is carried",
                "look at single prompts (`--format json`, or the prompts' table), and let values carry what differs",
                {
                    "claim": claim.index,
                    "recovered": claim.estimate.value,
                    "moved": figures.moved,
                    "kl": float(figures.kl.mean()),
                    "kl_at_random": float(figures.random_kl.mean()),
                    "flips": None if figures.flips is None else float(figures.flips.mean()),
                },
            )
        )
    return found


def _broken(figures: ScrubFigures, lost: float) -> list[str]:
    """By what measures single prompts are broken more than their mean is, in words."""
    found = []
    if figures.moved > max(MOVED, TIMES * lost):
        found.append(f"a prompt's score moves by {number(figures.moved)} of what random prompts take away")
    kl, random = float(figures.kl.mean()), float(figures.random_kl.mean())
    if random > 0 and kl > max(DIVERGED, TIMES * lost) * random:
        found.append(f"the output moves by {number(kl)} nats ({number(random)} on random prompts)")
    if figures.flips is not None and float(figures.flips.mean()) > max(FLIPPED, TIMES * lost):
        found.append(f"{figures.flips.mean():.0%} of the answers change")
    return found


CANCELLED = WarningKind(
    "CS460",
    CLAIMS,
    "a scrubbed circuit that is right on average alone",
    "Recovered performance compares means over prompts. Where scrubbing raises the score of some prompts and lowers "
    "that of others, these cancel, and the mean is recovered although what the values are said to carry is not enough "
    "(or is something else altogether). So the runs are compared prompt by prompt too: how far scores move, the KL "
    "divergence from the clean run's output to the scrubbed one's, and how many answers change, all against random "
    "prompts.",
    cancelled,
)


# -- CS461 ------------------------------------------------------------------------------------------------------------


def untested(evidence: Evidence) -> list[EvidenceWarning]:
    """CS461: drawn prompts that are the reference again, in every draw: nothing else agrees with it."""
    found = []
    for planned, claim in _claims(evidence):
        task = evidence.task
        if task is None:
            continue
        shares = untested_shares(planned, task)
        most = {name: share for name, share in shares.items() if share > UNTESTED}
        if not most:
            continue
        said = ", ".join(f"{name} ({share:.0%})" for name, share in sorted(most.items(), key=lambda one: -one[1])[:5])
        found.append(
            EvidenceWarning(
                "CS461",
                f"{plural(len(most), 'value')} of {len(shares)} on the paths are hardly tested: for many prompts "
                "no other one was drawn than the reference itself",
                f"share of prompts whose value is that of the reference in all draws: {said}",
                "let them carry less, give the task longer lists, or a file more rows that agree",
                {"claim": claim.index, "untested": shares},
            )
        )
    return found


def untested_shares(planned: PlannedScrub, task: TokenizedTask) -> dict[str, float]:
    """Of every value that carries something, the share of prompts whose drawn one is its reference in every draw."""
    same: dict[str, list[bool]] = {}
    for draw in planned.draws:
        for one in draw.drawn:
            if one.node.carries is None:
                continue
            here = _same(one, task)
            known = same.setdefault(one.node.name, [True] * task.n)
            same[one.node.name] = [a and b for a, b in zip(known, here, strict=True)]
    return {name: sum(flags) / len(flags) for name, flags in same.items()}


def _same(one: NodeDraw, task: TokenizedTask) -> list[bool]:
    own, reference = (task.ids[variant_of(drawn)] for drawn in (one.prompts, one.reference))
    return [a == b for a, b in zip(own, reference, strict=True)]


UNTESTED_VALUES = WarningKind(
    "CS461",
    CLAIMS,
    "values that scrubbing hardly tests",
    "A value is tested by prompts that differ from the reference and agree with it on what the value carries. Where "
    "there are none (a value that carries all that prompts differ in, a prompts file with one row of a kind), the "
    "reference stands for itself, and the value passes whatever it carries.",
    untested,
)

SCRUBBING_WARNINGS = (CANCELLED, UNTESTED_VALUES)
