"""What is to be said of the means that were patched in: how noisy they are, and what was done about it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from circuitspec.analysis.claims.claim_result import ClaimResult
from circuitspec.analysis.claims.means_error import ENOUGH, FEWEST, MARGIN, MeansError, share_of
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.wording import number, plural, with_interval
from circuitspec.analysis.warnings.evidence_warnings import EvidenceWarning
from circuitspec.experiments.experiment import means_of
from circuitspec.experiments.planner import Plan
from circuitspec.prompts.prompt_set import TokenizedTask


def means_warnings(
    plan: Plan, claims: Sequence[ClaimResult], error: MeansError | None, task: TokenizedTask, asked: int | None = None
) -> tuple[EvidenceWarning, ...]:
    """CS404, CS434 and CS435, for claims that rest on means; `asked` is how many other prompts the file asks for."""
    if not means_of(run for planned in plan.claims for run in planned.runs):
        return ()
    found = [*noisy_means(plan, claims, error, task), *fixed_means(plan, claims, error, task)]
    return (*found, *too_few_others(task, asked))


def noisy_means(
    plan: Plan, claims: Iterable[ClaimResult], error: MeansError | None, task: TokenizedTask
) -> Iterator[EvidenceWarning]:
    """CS404: what is left of the means' error is a good part of an interval, or it cannot be told."""
    if error is None:
        return
    thin = next((why for planned in plan.claims if (why := error.too_few(planned.patched))), "")
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
    noisy = [(claim, name, figure) for claim, name, figure in _figures(claims) if share_of(figure) > ENOUGH]
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


def fixed_means(
    plan: Plan, claims: Iterable[ClaimResult], error: MeansError | None, task: TokenizedTask
) -> Iterator[EvidenceWarning]:
    """CS434: the means' error is not in intervals of claims about many runs."""
    many = [one for one in plan.claims if one.holds_means and one.patched.averages]
    known = [figure for _, _, figure in _figures(claims) if figure.means_error is not None]
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


def too_few_others(task: TokenizedTask, asked: int | None) -> Iterator[EvidenceWarning]:
    """CS435: the lists do not give as many other prompts as the file asks for."""
    if asked is None or task.averaged.n >= asked:
        return
    yield EvidenceWarning(
        "CS435",
        f"means go over {plural(task.averaged.n, 'other prompt')}, not over the {asked} that `reference` asks for",
        "the lists give no more that are none of the scored prompts and tokenise like one of them",
        f"lengthen the lists, score fewer prompts, or write `reference: {task.averaged.n}`",
        {"asked": asked, "averaged": task.averaged.n},
    )


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
