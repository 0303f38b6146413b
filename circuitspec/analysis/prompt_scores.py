"""What each prompt and each template adds to a claim's figure: the distribution behind one number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from circuitspec.analysis.claims.verdict import ClaimResult
from circuitspec.analysis.statistics.prompt_groups import (
    GroupScore,
    Runs,
    group_scores,
    groupings,
    runs_of,
)
from circuitspec.analysis.statistics.stats import LEVEL, Values
from circuitspec.engine.records import Records
from circuitspec.experiments.planner import PlannedClaim
from circuitspec.prompts.prompt_set import PromptSet

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
WORST = 5
SAME = 1e-4  # of recovered performance: rounding of the model's arithmetic

Against = Literal["short", "too much", "off"]


@dataclass(frozen=True)
class PromptScore:
    """One prompt: the metric in the run in question and at the anchors, and what the prompt adds to the claim's figure.

    The mean of `contribution` over all prompts is the recovered performance; `against` says how far the prompt
    speaks against the claim, in the same unit.
    """

    prompt: int  # its place in the records
    patched: float
    zero: float
    one: float
    contribution: float
    against: float


@dataclass(frozen=True)
class PromptView:
    """The prompts behind one claim.

    `quantiles` are of the contributions, in the order of `QUANTILES`. `groups` holds a table per way of sorting
    prompts that has more than one group. `worst` are the prompts that speak most against the claim: by `reason`,
    those whose run falls furthest short of the upper anchor (a claim of `at_least`), that keep the most (`at_most`),
    or that are furthest off on either side (both); none where all prompts say the same.
    """

    metric: str
    n: int
    quantiles: tuple[float, ...]
    groups: tuple[tuple[str, tuple[GroupScore, ...]], ...]
    worst: tuple[PromptScore, ...]
    reason: Against


def prompt_view(
    planned: PlannedClaim, claim: ClaimResult, records: Records, prompts: PromptSet, *, worst: int = WORST
) -> PromptView | None:
    """The prompts behind the claim; None where it has no figure.

    A contribution is (patched - zero) over the mean of (one - zero), `zero` and `one` the anchors at which 0 and 1
    are recovered: a prompt's own ratio would be decided by the prompts whose own anchors are close.
    """
    if claim.estimate is None:
        return None
    runs = runs_of(planned, records, claim.metric)
    contributions = (runs.patched - runs.zero) / runs.gap
    reason, against = _against(claim, runs, contributions)
    differ = float(np.ptp(against)) > SAME
    order = np.argsort(-against, kind="stable")[: worst if differ else 0]
    several = groupings(records.templates, prompts)
    return PromptView(
        claim.metric,
        records.n_prompts,
        tuple(float(q) for q in np.quantile(contributions, QUANTILES)),
        tuple((g.name, group_scores(runs, g, level=LEVEL)) for g in several),
        tuple(
            PromptScore(
                int(i),
                float(runs.patched[i]),
                float(runs.zero[i]),
                float(runs.one[i]),
                float(contributions[i]),
                float(against[i]),
            )
            for i in order
        ),
        reason,
    )


def _against(claim: ClaimResult, runs: Runs, contributions: Values) -> tuple[Against, Values]:
    """How far each prompt speaks against the claim."""
    if claim.at_least is None:
        return "too much", contributions
    short = (runs.one - runs.patched) / runs.gap
    return ("short", short) if claim.at_most is None else ("off", np.abs(short))
