"""What is to be said of the means that were patched in: how noisy they are, and what was done about it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from circuitspec.analysis.claims.claim_result import ClaimResult
from circuitspec.analysis.claims.means_error import ENOUGH, FEWEST, MARGIN, share_of
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.wording import number, plural, with_interval
from circuitspec.analysis.warnings.evidence import CLAIMS, Evidence, EvidenceWarning, WarningKind
from circuitspec.experiments.experiment import means_of
from circuitspec.prompts.prompt_set import TokenizedTask


def noisy_means(evidence: Evidence) -> Iterator[EvidenceWarning]:
    """CS404: what is left of the means' error is a good part of an interval, or it cannot be told."""
    error, task = evidence.means_error, _averaged(evidence)
    if error is None or task is None:
        return
    thin = next((why for planned in evidence.plan.claims if (why := error.too_few(planned.patched))), "")
    if thin:
        needed = FEWEST * max(len(groups.sizes) for groups in error.groupings.values())
        yield EvidenceWarning(
            "CS404",
            thin,
            "such means still carry what those few prompts say; no interval that takes them into account can be had",
            f"{_more(task)}, or raise `task: prompts:` to {needed} or more",
            {"share": None, "averaged": task.averaged.n, "needed": needed, "reference": error.reference},
        )
        return
    noisy = [(claim, name, figure) for claim, name, figure in _figures(evidence.claims) if share_of(figure) > ENOUGH]
    if not noisy:
        return
    claim, name, worst = max(noisy, key=lambda one: share_of(one[2]))
    assert worst.interval is not None
    assert worst.means_error is not None
    share, length = share_of(worst), worst.interval[1] - worst.interval[0]
    needed = math.ceil(MARGIN * task.averaged.n * (share / ENOUGH) ** 2)
    yield EvidenceWarning(
        "CS404",
        f"the means are noisy: their standard error is {number(worst.means_error)} of the {number(length)} that the "
        f"interval of `{claim.kind}`{name} is long",
        f"they go over {_prompts(task)}; noise in them moved {claim.metric} by about {number(-worst.correction)}, "
        f"which is corrected: {with_interval(worst)} instead of {number(worst.uncorrected)}",
        f"write `reference: {needed}`" if task.reference is not None else _more(task),
        {
            "claim": claim.index,
            "metric": claim.metric,
            "means_error": worst.means_error,
            "length": length,
            "share": share,
            "correction": worst.correction,
            "averaged": task.averaged.n,
            "needed": needed if task.reference is not None else None,
            "reference": error.reference,
        },
    )


NOISY_MEANS = WarningKind(
    "CS404",
    ("task",),
    "noisy means",
    "The means that are patched in are themselves estimates. Noise in them moves recovered performance about, "
    "and it damages the circuit that runs on them, so that it also moves it down. Both are measured, with "
    "means over parts of the prompts: the value is corrected, and the interval holds what is left. This "
    "warning says that what is left is more than a tenth of the interval's length, so that a good part of the "
    "uncertainty is about the means and not about the circuit; or that the means go over fewer than 5 prompts "
    "each, with which no correction can be had and no verdict is given.\n\nTake means over more prompts. "
    "Where prompts are drawn, `ablation: {reference: 2000}` draws so many others for the means; where they "
    "come from a file, `ablation: {reference: {file: more.jsonl}}` names more of them, which need no other "
    "answers or positions than those that are scored.",
    noisy_means,
)


def fixed_means(evidence: Evidence) -> Iterator[EvidenceWarning]:
    """CS434: the means' error is not in intervals of claims about many runs."""
    task = _averaged(evidence)
    if task is None:
        return
    many = [one for one in evidence.plan.claims if one.holds_means and one.patched.averages]
    known = [figure for _, _, figure in _figures(evidence.claims) if figure.means_error is not None]
    if not many or (task.reference is not None and known and max(map(share_of, known)) <= ENOUGH):
        return
    kinds = ", ".join(dict.fromkeys(f"`{one.claim.kind}`" for one in many))
    said = "no other claim shows how noisy they are" if not known else "CS404 says how noisy they are"
    yield EvidenceWarning(
        "CS434",
        f"intervals and p-values of {kinds} hold the means fixed",
        f"they go over {_prompts(task)}, and {said}; to make all of many runs again with other means takes too long",
        _more(task) if task.reference is None else f"write `reference: {4 * task.averaged.n}`",
        {"claims": [one.index for one in many], "averaged": task.averaged.n},
    )


FIXED_MEANS = WarningKind(
    "CS434",
    CLAIMS,
    "an interval that holds the means fixed",
    "The error of the means that are patched in is measured by running what decides a claim again with other "
    "means. Claims about many runs (`complete`, `minimal`, `beats_random`) would take too long that way: "
    "their intervals and p-values are those of the prompts alone. All their runs share the same means, so "
    "that differences between them are less affected than any of them. The warning is given where means are "
    "over the scored prompts themselves, and where another claim shows that they are noisy, or none shows "
    "anything. Take means over more other prompts: `ablation: {reference: 2000}`, or `reference: {file: "
    "more.jsonl}`.",
    fixed_means,
)


def too_few_others(evidence: Evidence) -> Iterator[EvidenceWarning]:
    """CS435: the lists do not give as many other prompts as the file asks for."""
    asked, task = evidence.asked, _averaged(evidence)
    if asked is None or task is None or task.averaged.n >= asked:
        return
    yield EvidenceWarning(
        "CS435",
        f"means go over {plural(task.averaged.n, 'other prompt')}, not over the {asked} that `reference` asks for",
        "the lists give no more that are none of the scored prompts and tokenise like one of them",
        f"lengthen the lists, score fewer prompts, or write `reference: {task.averaged.n}`",
        {"asked": asked, "averaged": task.averaged.n},
    )


TOO_FEW_OTHERS = WarningKind(
    "CS435",
    CLAIMS,
    "fewer reference prompts than asked for",
    "`ablation: reference:` asks for more prompts than the lists give besides those that are scored: others "
    "are drawn by the same rules, have other texts, and are used only if they tokenise like one of those that "
    "are scored. Means go over as many as there are. Lengthen the lists, or ask for fewer.",
    too_few_others,
)


def _averaged(evidence: Evidence) -> TokenizedTask | None:
    """The task whose prompts means go over; None where no claim rests on means."""
    rests = means_of(run for planned in evidence.plan.claims for run in planned.runs)
    return evidence.task if rests else None


def _figures(claims: Iterable[ClaimResult]) -> Iterator[tuple[ClaimResult, str, Estimate]]:
    for claim in claims:
        if claim.estimate is not None:
            yield claim, "", claim.estimate
        for part in claim.parts:
            if part.estimate is not None:
                yield claim, f" ({part.name})", part.estimate


def _prompts(task: TokenizedTask) -> str:
    if task.reference is None:
        return f"the {plural(task.n, 'prompt')} that are scored"
    return plural(task.reference.n, "reference prompt")


def _more(task: TokenizedTask) -> str:
    if task.prompts.file is not None:
        return "name a file of more prompts for the means: `ablation: {reference: {file: more.jsonl}}`"
    return "take the means over other prompts than the scored ones: `ablation: {reference: 2000}`, with longer lists"


MEANS_WARNINGS = (NOISY_MEANS, FIXED_MEANS, TOO_FEW_OTHERS)
