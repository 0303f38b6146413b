"""Prompts that were drawn until claims were decided: CS480 to CS482."""

from __future__ import annotations

from circuitspec.analysis.statistics.wording import plural
from circuitspec.analysis.warnings.evidence import CLAIMS, Evidence, EvidenceWarning, WarningKind


def without_sequence(evidence: Evidence) -> tuple[EvidenceWarning, ...]:
    """CS480: claims that have no confidence sequence, judged when the others were decided."""
    facts = evidence.sequence
    if facts is None:
        return ()
    lacking = [one.index for one in facts.claims if not one.has_sequence]
    if not lacking:
        return ()
    named = ", ".join(f"{i + 1} ({evidence.plan.claims[i].claim.kind})" for i in lacking)
    return (
        EvidenceWarning(
            "CS480",
            f"no confidence sequence: {'claim' if len(lacking) == 1 else 'claims'} {named}",
            f"judged after {plural(facts.used, 'prompt')}, when the other claims ended the drawing, as if that number "
            "had been fixed beforehand",
            "verify these claims without --sequential",
            {"claims": lacking, "used": facts.used},
        ),
    )


WITHOUT_SEQUENCE = WarningKind(
    "CS480",
    CLAIMS,
    "a claim without a confidence sequence was judged at a stop that others chose",
    "`verify --sequential` ends when all claims are decided whose figures are shares, or ratios of means, over "
    "prompts. `complete` and `minimal` search on half of the prompts, and `beats_random` counts random circuits: for "
    "these there is no interval that holds however often it is looked at. They are judged once, at the end, as after a "
    "fixed number of prompts. When that end comes depends on the same prompts, so that the verdict is no more than an "
    "indication. Put such claims into a file of their own and verify it without `--sequential`.",
    without_sequence,
)


def interrupted(evidence: Evidence) -> tuple[EvidenceWarning, ...]:
    """CS481: the drawing was interrupted, and the verdict is that of the prompts so far."""
    facts = evidence.sequence
    if facts is None or facts.stopped != "interrupted":
        return ()
    return (
        EvidenceWarning(
            "CS481",
            f"interrupted after {plural(facts.used, 'prompt')} of at most {facts.limit}: this is the verdict so far",
            "intervals of claims hold all the same; nothing was looked for outside the circuit, nor at its parts",
            "run the same command again to go on",
            {"used": facts.used, "limit": facts.limit},
        ),
    )


INTERRUPTED = WarningKind(
    "CS481",
    CLAIMS,
    "drawing prompts was interrupted",
    "A confidence sequence holds at all numbers of prompts at once, so that the drawing may be ended at any time and "
    "for any reason, and the verdict so far stands. What `verify` does beside (negative components, the circuit's "
    "parts one by one) was left out. What was measured is in the store, and the same command goes on with it.",
    interrupted,
)


def undecided(evidence: Evidence) -> tuple[EvidenceWarning, ...]:
    """CS482: the limit was reached, and some claim is undecided."""
    facts = evidence.sequence
    if facts is None or facts.stopped != "limit":
        return ()
    left = [one.index for one in facts.claims if one.has_sequence and one.decided_at is None]
    if not left:
        return ()
    named = ", ".join(f"{i + 1} ({evidence.plan.claims[i].claim.kind})" for i in left)
    return (
        EvidenceWarning(
            "CS482",
            f"not decided by {plural(facts.used, 'prompt')}, the most that were to be used: "
            f"{'claim' if len(left) == 1 else 'claims'} {named}",
            "",
            "--at-most N draws more, if the lists give more; where means are patched in, their own error stays however "
            "many prompts there are: `ablation: {reference: N}`",
            {"claims": left, "used": facts.used},
        ),
    )


UNDECIDED = WarningKind(
    "CS482",
    CLAIMS,
    "the limit of prompts was reached before all claims were decided",
    "`verify --sequential` draws at most four times as many prompts as the file asks for, or N with `--at-most N`, and "
    "reads at most the rows of a prompts file. A claim whose figure lies close to its bound takes many: four times as "
    "many for half the distance. `plan` says about how many. The error of means that are patched in is the same for "
    "all prompts and stays; more reference prompts make it smaller.",
    undecided,
)

SEQUENCE_WARNINGS = (WITHOUT_SEQUENCE, INTERRUPTED, UNDECIDED)
