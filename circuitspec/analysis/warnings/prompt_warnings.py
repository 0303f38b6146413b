"""Prompts that cannot carry the claims made on them: what corruptions leave, templates that differ, too few prompts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import scipy

from circuitspec.analysis import metric_choice
from circuitspec.analysis.claims.registry import kind_of
from circuitspec.analysis.claims.verdict import MIN_PROMPTS, ClaimResult, place
from circuitspec.analysis.statistics.plain_data import estimate_data
from circuitspec.analysis.statistics.prompt_groups import (
    Grouping,
    GroupScore,
    Heterogeneity,
    by_answer_order,
    by_column,
    by_template,
    group_scores,
    heterogeneity,
    runs_of,
)
from circuitspec.analysis.statistics.scores import Anchors, gap
from circuitspec.analysis.statistics.wording import bound, number, plural, with_interval
from circuitspec.analysis.variables import kept_slots
from circuitspec.analysis.warnings.evidence import CLAIMS, Evidence, EvidenceWarning, WarningKind
from circuitspec.analysis.warnings.metric_warnings import cases
from circuitspec.prompts.prompt_set import PromptsFile

# A prompt still stands when a quarter of the clean margin is left. Unrelated names leave the margin at zero, give or
# take as much as the whole of it: then 40 % of the prompts stand by chance, and half of them is beyond that.
STANDING = 0.25
MOST = 0.5
SURE = 0.05  # of the exact binomial test that most prompts stand
# Templates differ when chance would hardly do it (several claims are looked at, and warnings should be rare on sound
# evidence), and when one template's figure lies some 0.14 (twice the root of two means) from another's.
DIFFERENT = 0.01
SPREAD = 0.1
POWER = 0.8  # chances that the prompts asked for decide the claim
NO_NUMBER = 100  # times as many prompts as there are: then the value is the bound, for all practical purposes

_SHORT = 60  # characters of a template in a message


def standing_behaviour(evidence: Evidence) -> list[EvidenceWarning]:
    """CS421: on most prompts the corrupt run still prefers the right answer, by a good part of the clean margin."""
    plan, records = evidence.plan, evidence.records
    pairs = dict.fromkeys(Anchors(p.clean, p.corrupt) for p in plan.claims if p.between_behaviours)
    found = []
    for between in pairs:
        clean, corrupt = records[between.clean], records[between.corrupt]
        metric = metric_choice.for_standing(records, between)
        if metric is None or records.n_prompts < 2:
            continue
        margin = float(clean[metric].mean())
        stands = corrupt[metric] > STANDING * margin
        if not margin > 0 or stands.mean() <= MOST:
            continue
        test = scipy.stats.binomtest(int(stands.sum()), len(stands), MOST, alternative="greater")
        if test.pvalue > SURE or gap(records, metric, between).state != "sound":
            continue  # without a gap CS403 speaks
        label = plan.labels.get(between.corrupt, between.corrupt.digest[:8])
        preferred = int((corrupt[metric] > 0).sum())
        found.append(
            EvidenceWarning(
                "CS421",
                f"the corruption leaves the behaviour standing: in `{label}` the right answer is still preferred on "
                f"{preferred} of {plural(len(stands), 'prompt')}",
                f"{metric} falls from {number(margin)} to {number(float(corrupt[metric].mean()))} only, so that "
                "recovered performance is a share of that part of the behaviour alone",
                "corrupt all that the answer can be told from (more noise, more slots), so that the right answer "
                "becomes a wrong or a random one",
                {
                    "metric": metric,
                    "anchor": label,
                    "clean": margin,
                    "corrupt": float(corrupt[metric].mean()),
                    "preferred": preferred,
                    "standing": int(stands.sum()),
                    "n": len(stands),
                    "p_value": float(test.pvalue),
                },
            )
        )
    return found


STANDING_BEHAVIOUR = WarningKind(
    "CS421",
    ("ablation",),
    "the corruption leaves the behaviour standing",
    "The corrupt run differs from the clean one, so that recovered performance can be computed, but on most "
    "prompts (an exact binomial test rejects one half) it still prefers the right answer by more than a quarter of "
    "the clean run's mean margin. What is recovered is then a share of that part of the behaviour alone which the "
    "corruption takes away: a circuit may bring all of it back and leave out how the model does the rest. Gaussian "
    "noise just below the level that breaks the model does this, and so does a corruption of one of several cues. "
    "Use more noise, change more slots, or change the answer.",
    standing_behaviour,
)


def partial_corruption(evidence: Evidence) -> list[EvidenceWarning]:
    """CS422: values patched in from prompts that keep some of the slots that the circuit is about.

    For claims that confirm a circuit, and for values of the corrupted prompt itself: a mean goes over prompts that
    differ in all slots, whatever the corruption changes.
    """
    prompts, variables = evidence.prompts, evidence.variables
    if prompts is None:
        return []
    found: dict[str, EvidenceWarning] = {}
    for planned, claim in cases(evidence, lambda kind: kind.of_circuit):
        source = planned.patched.source
        if source is None or source.prompts is None or not source.is_recorded or str(source.prompts) in found:
            continue
        kept = sorted(kept_slots(prompts, source.prompts, variables, evidence.by_name))
        if not kept:
            continue
        varied = sorted(variables.difference(kept))
        found[str(source.prompts)] = EvidenceWarning(
            "CS422",
            f"the corruption {source.prompts} keeps {', '.join(kept)}",
            f"it varies {', '.join(varied) or 'none of the circuit’s variables'}; components that carry what it keeps "
            "are given clean values, ablated or not, so that nothing here tests whether they are in the circuit",
            "confirm with a corruption that changes all of "
            f"{', '.join(sorted(variables))}; keep this one for finding out what a component reads",
            {"claim": claim.index, "corruption": str(source.prompts), "kept": kept, "varied": varied},
        )
    return list(found.values())


PARTIAL_CORRUPTION = WarningKind(
    "CS422",
    ("ablation",),
    "a corruption that varies only part of the variables",
    "Patching traces the difference between two prompts. Values patched in from prompts that keep a slot are clean "
    "values as far as that slot goes, so that components which carry it may be left out of the circuit and nothing "
    "shows. Narrow corruptions are for finding out what a component reads; to confirm a circuit, change every slot "
    "that it is about: those that make the answers, those at or next to which its components act, and those that "
    "the file's corruptions change along with them. For IOI:\n\n    abc: {IO: $names, S1: $names, S2: "
    "$names}\n\nMeans are no part of this: they go over prompts that differ in all slots.",
    partial_corruption,
)


def disagreeing_templates(evidence: Evidence) -> list[EvidenceWarning]:
    """CS423: one figure for templates (or orders of the answers) of which each has another.

    For claims other than sufficiency, whose figure nobody quotes, only where templates are on different sides of the
    bound.
    """
    records, prompts = evidence.records, evidence.prompts
    groupings = [by_template(records.templates, prompts)]
    if prompts is not None and (order := by_answer_order(prompts)) is not None:
        groupings.insert(0, order)  # the coarser one says more where both differ
    if prompts is not None:
        groupings += [by_column(prompts, name) for name in prompts.by]
    found = []
    for planned, claim in cases(evidence):
        if claim.estimate is None or claim.estimate.interval is None:
            continue
        runs = runs_of(planned, records, claim.metric)
        tested = [(g, heterogeneity(runs, g, at_least=SPREAD)) for g in groupings]
        differ = [(g, h) for g, h in tested if h is not None and h.p_value <= DIFFERENT and h.spread >= SPREAD]
        scores = {g.name: group_scores(runs, g, level=claim.estimate.level) for g, _ in differ}
        differ = [(g, h) for g, h in differ if sum(s.recovered is not None for s in scores[g.name]) > 1]
        if differ and (kind_of(claim).claims_sufficiency or _on_both_sides(claim, scores)):
            found.append(_disagreement(claim, differ, scores))
    return found


DISAGREEING_TEMPLATES = WarningKind(
    "CS423",
    CLAIMS,
    "templates disagree",
    "One figure stands for kinds of prompts of which each has another: templates, or orders in which the answers "
    "are named. The IOI circuit recovers 79 % on ABBA and 119 % on BABA prompts, on average 99 %, which holds for "
    "neither. Warned of are differences that chance does not explain (a permutation test of the prompts' residuals "
    "from the common share, p at most 0.01) and that are not small (a standard deviation of 0.1 between kinds, "
    "after what prompts alone make of it); for claims other than `sufficient` only where kinds lie on different "
    "sides of the bound. `--prompts` lists the figures. Verify the kinds in hypothesis files of their own, or "
    "say in the hypothesis' `description` which of them the circuit serves.",
    disagreeing_templates,
)


def _on_both_sides(claim: ClaimResult, scores: Mapping[str, tuple[GroupScore, ...]]) -> bool:
    values = [s.recovered.value for group in scores.values() for s in group if s.recovered is not None]
    return len({place((value, value), claim.at_least, claim.at_most) for value in values}) > 1


def _disagreement(
    claim: ClaimResult,
    differ: Sequence[tuple[Grouping, Heterogeneity]],
    scores: Mapping[str, tuple[GroupScore, ...]],
) -> EvidenceWarning:
    assert claim.estimate is not None
    said = []
    for grouping, _ in differ:
        known = [(s.recovered, s) for s in scores[grouping.name] if s.recovered is not None]
        known.sort(key=lambda pair: pair[0].value)
        ends = [f"{with_interval(estimate)} ({_short(s.label)})" for estimate, s in (known[0], known[-1])]
        said.append(f"by {grouping.name} from {ends[0]} to {ends[1]}")
    kinds = "templates" if any(g.name in ("template", "answer order") for g, _ in differ) else "kinds of prompts"
    many = [f"{len(g.labels)} templates" for g, _ in differ if g.name == "template" and len(g.labels) > 2]
    return EvidenceWarning(
        "CS423",
        f"{kinds} disagree about `{claim.kind}`: recovered {claim.metric} {with_interval(claim.estimate)} is an "
        f"average over figures that run {said[0]}",
        "; ".join([*said[1:], *many, f"chance does this with p = {min(h.p_value for _, h in differ):.1g}"]),
        "verify each kind of prompt with a hypothesis file of its own, or say in the hypothesis' `description` which "
        "of them the circuit serves (--prompts lists the figures)",
        {
            "claim": claim.index,
            "metric": claim.metric,
            "recovered": estimate_data(claim.estimate),
            "groupings": [
                {
                    "by": grouping.name,
                    "p_value": test.p_value,
                    "spread": test.spread,
                    "groups": [
                        {
                            "label": s.label,
                            "n": s.n,
                            "recovered": None if s.recovered is None else estimate_data(s.recovered),
                        }
                        for s in scores[grouping.name]
                    ],
                }
                for grouping, test in differ
            ],
        },
    )


def _short(text: str) -> str:
    return text if len(text) <= _SHORT else text[: _SHORT - 3].rstrip() + "..."


def too_few_prompts(evidence: Evidence) -> list[EvidenceWarning]:
    """CS424: the interval is too wide for the bound; says how many prompts would narrow it enough."""
    file = None if evidence.prompts is None else evidence.prompts.file
    found = []
    for claim, name in _figures(evidence.claims):
        if claim.status != "INCONCLUSIVE" or claim.estimate is None or claim.estimate.interval is None:
            continue
        if claim.out_of_range:
            continue
        ends = [end for end in (claim.at_least, claim.at_most) if end is not None]
        if not ends:
            continue
        needed = prompts_needed(claim)
        if needed is not None and kind_of(claim).halves_prompts:
            needed *= 2
        distance = min(abs(claim.estimate.value - end) for end in ends)
        width = (claim.estimate.interval[1] - claim.estimate.interval[0]) / 2
        limits = bound(claim.at_least, claim.at_most)
        message = (
            f"{plural(claim.n, 'prompt')} do not decide `{claim.kind}`{name}: {with_interval(claim.estimate, ends)} is "
            f"known to {number(width)}, and the bound ({limits}) is {number(distance)} away"
        )
        found.append(
            EvidenceWarning(
                "CS424",
                message,
                "the value is as good as on the bound: no number of prompts that one would run tells them apart"
                if needed is None
                else f"about {needed} prompts like these would decide it in 4 of 5 draws",
                "choose a bound that the hypothesis can fail or pass"
                if needed is None
                else f"{_lacking(file, needed)}write `task: prompts: {needed}`",
                {
                    "claim": claim.index,
                    "metric": claim.metric,
                    "value": claim.estimate.value,
                    "half_width": width,
                    "distance": distance,
                    "n": claim.n,
                    "needed": needed,
                },
            )
        )
    return found


TOO_FEW_PROMPTS = WarningKind(
    "CS424",
    CLAIMS,
    "too few prompts for the bound",
    "The confidence interval reaches across the claim's bound, so that the claim is INCONCLUSIVE. An interval "
    "narrows with the root of the number of prompts; the number given is the one with which it would lie on one "
    "side in 4 of 5 draws, if the value stays where it is. Where that is more than 100 times as many, the value is "
    "as good as on the bound, and a bound further off says more. Prompts from a file: add some to it first, if it "
    "holds fewer.",
    too_few_prompts,
)


def _lacking(file: PromptsFile | None, needed: int) -> str:
    """What must be done before so many prompts can be asked for, to be said before it; "" unless a file is short."""
    return f"add prompts to {file.name}, which holds {file.holds}, and " if file and file.holds < needed else ""


def _figures(claims: Sequence[ClaimResult]) -> Iterator[tuple[ClaimResult, str]]:
    """Each claim, and one that several figures decide once for each of these, with that figure's name to print."""
    for claim in claims:
        if not kind_of(claim).prompts_decide:  # which takes more random circuits, not more prompts
            continue
        if not claim.parts:
            yield claim, ""
        for part in claim.parts if claim.status == "INCONCLUSIVE" else ():
            own = {"status": part.status, "estimate": part.estimate, "at_least": part.at_least, "at_most": part.at_most}
            yield replace(claim, **own), f" ({part.name})"  # type: ignore[arg-type]


def prompts_needed(claim: ClaimResult) -> int | None:
    """How many prompts would put the interval on one side of the bound with a chance of `POWER`; None if too many.

    An interval's ends come nearer with the root of the number of prompts. Taking the value for the true one, its
    next draw errs by as much again, so that the reach of an end is multiplied by 1 + z(power) / z(level).
    """
    estimate = claim.estimate
    assert estimate is not None
    assert estimate.interval is not None
    low, high = estimate.interval
    reach = (estimate.value - low, high - estimate.value)
    limits = [(claim.at_least, 1), (claim.at_most, -1)]  # which way is inside
    inside = all(end is None or sign * (estimate.value - end) >= 0 for end, sign in limits)
    ratios = []
    for end, sign in limits:
        if end is None:
            continue
        away = sign * (estimate.value - end)
        if inside:
            ratios.append(reach[0 if sign > 0 else 1] / away if away else math.inf)
        elif away < 0:
            ratios.append(reach[1 if sign > 0 else 0] / -away)
    margin = 1 + scipy.stats.norm.ppf(POWER) / scipy.stats.norm.ppf((1 + estimate.level) / 2)
    factor = max(ratios) * margin
    if not factor**2 <= NO_NUMBER:
        return None
    return max(MIN_PROMPTS, math.ceil(claim.n * factor**2))


PROMPT_WARNINGS = (STANDING_BEHAVIOUR, PARTIAL_CORRUPTION, DISAGREEING_TEMPLATES, TOO_FEW_PROMPTS)
