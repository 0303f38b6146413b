"""Pairs of prompts that cannot carry what is claimed of variables on them: one function a warning."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from circuitspec.analysis.claims.abstraction.pair_claims import PairTrial, PlannedPairs, figures_of, shares_of
from circuitspec.analysis.claims.claim_result import ClaimResult
from circuitspec.analysis.statistics.plain_data import estimate_data
from circuitspec.analysis.statistics.proportions import share_of
from circuitspec.analysis.statistics.wording import plural, with_interval
from circuitspec.analysis.warnings.abstraction.subspace_warnings import SUBSPACE_WARNINGS
from circuitspec.analysis.warnings.evidence import CLAIMS, Evidence, EvidenceWarning, WarningKind
from circuitspec.hypothesis_file.schema.abstraction.isolates_block import Isolates

LEFT_OUT = 0.2  # of the pairs: where more are left out, those that stay are chosen by the model
PAIRS = ("abstraction", "pairs")


def _claims(evidence: Evidence) -> Iterator[tuple[PlannedPairs, ClaimResult]]:
    for planned, claim in zip(evidence.plan.claims, evidence.claims, strict=True):
        if isinstance(planned, PlannedPairs):
            yield planned, claim


def _trials(evidence: Evidence) -> dict[tuple[object, ...], tuple[PairTrial, int]]:
    """Each intervention once, with the first claim about it."""
    found: dict[tuple[object, ...], tuple[PairTrial, int]] = {}
    for planned, _ in _claims(evidence):
        for trial in planned.trials:
            found.setdefault((trial.setting, trial.patched), (trial, planned.index))
    return found


# -- CS450 ------------------------------------------------------------------------------------------------------------


def indistinguishable(evidence: Evidence) -> list[EvidenceWarning]:
    """CS450: no pair of any family in which two variables, set to their values in the source, differ in the answer."""
    pairs = evidence.pairs
    if pairs is None:
        return []
    claimed = {name for planned, _ in _claims(evidence) for trial in planned.trials for name, _ in trial.setting}
    found = []
    for one, other in combinations(pairs.model.variables, 2):
        if not claimed & {one, other}:
            continue
        if any(any(pairs.told_apart(((one, name),), ((other, name),))) for name in pairs.families):
            continue
        families = ", ".join(pairs.families)
        found.append(
            EvidenceWarning(
                "CS450",
                f"no pair tells {one} from {other}: set to their values in the source, both ask for the same answer",
                f"looked at {plural(len(pairs), 'pair')} of each family: {families}; a component that carries one "
                "passes for carrying the other",
                "add a family of pairs in which only one of them changes, or leave out the variable that adds nothing",
                {"variables": [one, other], "families": list(pairs.families), "n": len(pairs)},
            )
        )
    return found


INDISTINGUISHABLE = WarningKind(
    "CS450",
    PAIRS,
    "pairs that cannot tell two variables apart",
    "In every pair of every family an intervention on the one variable asks for the same answer as an intervention on "
    "the other. Whatever the claims say of one then holds of the other as well: with sources that differ from their "
    "base in a name alone, a name passes for a position. Known before anything is run: `circuitspec check` prints for "
    "each two variables, in each family, the share of pairs that tells them apart. Add a family in which one changes "
    "and the other does not.",
    indistinguishable,
)


# -- CS451 ------------------------------------------------------------------------------------------------------------


def nothing_to_change(evidence: Evidence) -> list[EvidenceWarning]:
    """CS451: a claim that no pair could refute."""
    found = []
    for planned, claim in _claims(evidence):
        if any(any(mask) for trial in planned.trials for mask in trial.telling.values()):
            continue
        names = ", ".join(dict.fromkeys(trial.name for trial in planned.trials))
        isolating = isinstance(planned.claim, Isolates)
        what = (
            "in no pair does this variable leave the answer as it is and another one change it"
            if isolating
            else "the answer must change in no pair"
        )
        mend = (
            "add a family of pairs in which another variable changes the answer and this one does not; about the "
            "variable that is the `output` there is none, and its claim cannot be told"
            if isolating
            else "add a family of pairs in which the variable differs between base and source"
        )
        found.append(
            EvidenceWarning(
                "CS451",
                f"`{claim.kind}` is judged on nothing: {what}",
                f"looked at the pairs of {names}" + ("" if isolating else ": doing nothing scores 1 on all of them"),
                mend,
                {"claim": claim.index, "families": names},
            )
        )
    return found


NOTHING_TO_CHANGE = WarningKind(
    "CS451",
    CLAIMS,
    "a claim about variables that no pair can refute",
    "An `interchange` claim is judged on the pairs whose answer must change, and `isolates` on those whose answer must "
    "stay when its variable is set, and would change if another variable were set too. Here there are none, so that "
    "the claim is INCONCLUSIVE. Known before anything is run: `circuitspec check` prints the share of pairs whose "
    "answer must change, and with it what doing nothing would score.",
    nothing_to_change,
)


# -- CS452 ------------------------------------------------------------------------------------------------------------


def other_tokens_win(evidence: Evidence) -> list[EvidenceWarning]:
    """CS452: the answer asked for is the best candidate much more often than it is the likeliest token."""
    found = []
    for trial, index in _trials(evidence).values():
        shares = shares_of(figures_of(trial, evidence.records))
        among, top = shares["IIA, changed"], shares["top-1, changed"]
        if among is None or top is None or among.low is None or top.high is None:
            continue
        if top.high >= among.low:
            continue
        found.append(
            EvidenceWarning(
                "CS452",
                f"in pairs of {trial.name} the patched model says something else than any candidate: the answer asked "
                f"for is the best candidate in {with_interval(among)} of the pairs that must change, and the likeliest "
                f"token in {with_interval(top)}",
                "IIA compares the answers to base and source (and what the task calls wrong) alone; the patch leads "
                "the model to answers that neither prompt has",
                "look at what it says instead; align fewer components, or other positions",
                {
                    "claim": index,
                    "pairs": trial.name,
                    "iia": estimate_data(among),
                    "top_1": estimate_data(top),
                },
            )
        )
    return found


OTHER_TOKENS_WIN = WarningKind(
    "CS452",
    CLAIMS,
    "a patched model that answers with none of the candidates",
    "IIA counts a pair where the answer that the high-level model asks for is the likeliest of the pair's candidates: "
    "the answers to base and source, those under an intervention on any variable, and what the task calls wrong. Over "
    "the whole vocabulary that answer is the likeliest token in surely fewer of the pairs (the intervals do not meet). "
    "The patch then does more than to set the variable: it damages the model, or carries something that the high-level "
    "model does not have. Both figures are in the table; go by the second one.",
    other_tokens_win,
)


# -- CS453 ------------------------------------------------------------------------------------------------------------


def many_left_out(evidence: Evidence) -> list[EvidenceWarning]:
    """CS453: a good part of a family's pairs is left out, since the model answers base or source wrong."""
    found, seen = [], set()
    for trial, index in _trials(evidence).values():
        figures = figures_of(trial, evidence.records)
        lost = share_of(~figures.kept)
        if trial.sources in seen or lost is None or lost.low is None or lost.low <= LEFT_OUT:
            continue
        seen.add(trial.sources)
        found.append(
            EvidenceWarning(
                "CS453",
                f"{int((~figures.kept).sum())} of {plural(len(figures.kept), 'pair')} of {trial.name} are left out: "
                "the unpatched model answers base or source wrong",
                "what is left is what the model finds easy, and figures hold for that alone",
                "take prompts that the model does, base and source alike: a family that sets slots as no prompt of the "
                "task has them may ask for what it never does",
                {"claim": index, "pairs": trial.name, "left_out": estimate_data(lost)},
            )
        )
    return found


MANY_LEFT_OUT = WarningKind(
    "CS453",
    PAIRS,
    "many pairs left out",
    "Pairs of which the unpatched model answers the base or the source wrong say nothing about what a component "
    "carries, and are left out. Here that is surely more than a fifth of a family's pairs (by Wilson's interval). The "
    "rest is no sample of the family any more. Where it is not surely less than half of the pairs that a claim is "
    "about, no verdict rests on them.",
    many_left_out,
)


# -- CS454 ------------------------------------------------------------------------------------------------------------


def single_family(evidence: Evidence) -> list[EvidenceWarning]:
    """CS454: an interchange claim on one family of pairs alone."""
    found = []
    for planned, claim in _claims(evidence):
        denies = planned.claim.at_least is None  # that it is carried at all: one family may show that
        if isinstance(planned.claim, Isolates) or denies or len(planned.trials[0].setting) > 1:
            continue
        telling = [trial for trial in planned.trials if any(trial.changed)]
        if len(telling) != 1:
            continue
        name = telling[0].name
        found.append(
            EvidenceWarning(
                "CS454",
                f"`{claim.kind}` rests on one family of pairs, {name}",
                "whatever else differs between base and source in all of these pairs may be what is carried",
                "add a family in which the variable changes and other things change, too",
                {"claim": claim.index, "pairs": name},
            )
        )
    return found


SINGLE_FAMILY = WarningKind(
    "CS454",
    CLAIMS,
    "one family of pairs",
    "The answer must change in one family of pairs alone. There, everything that goes with the variable changes as "
    "well: where sources differ from their base in who is named second, components that carry the name pass for "
    "components that carry the position. A second family, in which names change too, tells the two apart. "
    "`circuitspec align`, which learns on all families at once, says it also where one of them does surely better than "
    "every other.",
    single_family,
)


ABSTRACTION_WARNINGS = (
    INDISTINGUISHABLE,
    NOTHING_TO_CHANGE,
    OTHER_TOKENS_WIN,
    MANY_LEFT_OUT,
    SINGLE_FAMILY,
    *SUBSPACE_WARNINGS,
)
