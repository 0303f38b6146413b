"""About how many prompts `verify --sequential` will take, as lines of `plan`. Imports no torch."""

from __future__ import annotations

from circuitspec.analysis.claims.registry import kind_of
from circuitspec.analysis.claims.sequences.prompts_needed import (
    DISTANCE,
    MOST,
    SHARE_BEYOND,
    SPREAD,
    TUNED,
    distance_to,
    needed,
    needed_fixed,
    needed_of_share,
    spread_of,
)
from circuitspec.analysis.statistics.wording import number
from circuitspec.experiments.planner import Plan, PlannedClaim
from circuitspec.pipelines.with_locks.earlier_figures import EarlierFigures, Figure
from circuitspec.runtime.text_columns import aligned

ASSUMED = (
    f"assumed, as nothing is known of this file: figures {DISTANCE:g} from their bounds, that spread by {SPREAD:g} "
    "between prompts (in shares of what is broken)"
)


def sequence_plan(plan: Plan, n: int, earlier: EarlierFigures | None) -> str:
    """A line a claim, with what it rests on: figures of `earlier` results, or what is assumed."""
    source = ASSUMED if earlier is None else f"from the figures of {earlier.source}"
    rows = []
    for planned in plan.claims:
        known = () if earlier is None else earlier.each.get(planned.index, ())
        rows.append([f"   {planned.index + 1}: {planned.claim.kind}", _said(planned, n, tuple(known), earlier)])
    return f"prompts with --sequential, about ({source})\n{aligned(rows)}"


def _said(planned: PlannedClaim, n: int, known: tuple[Figure, ...], earlier: EarlierFigures | None) -> str:
    if not kind_of(planned).has_sequence:
        return "no confidence sequence: judged when the others are decided, as if that number had been fixed"
    if kind_of(planned).own_answers:
        return _of_share(planned, known)
    if earlier is not None and not known:
        return "no figure with an interval"
    tuned = n / TUNED
    if not known:
        return _counted(needed(SPREAD, DISTANCE, tuned), needed_fixed(SPREAD, DISTANCE))
    claim = planned.claim
    found = []
    for one in known:
        distance = distance_to(one.value, claim.at_least, claim.at_most)
        found.append((distance, spread_of(one.low, one.high, one.n), one))
    if kind_of(planned).several and (claim.at_least, claim.at_most) == (None, None):
        return "several figures, each with a bound of its own: not estimated"
    distance, spread, one = max(found, key=lambda each: each[1] / each[0] if each[0] else float("inf"))
    why = f"figure {number(one.value)}, {number(distance)} from its bound, spread {number(spread)}"
    return f"{_counted(needed(spread, distance, tuned), needed_fixed(spread, distance))} ({why})"


def _of_share(planned: PlannedClaim, known: tuple[Figure, ...]) -> str:
    """Of a claim about a share of pairs: of pairs that tell, and that the unpatched model answers right."""
    least, most = planned.claim.at_least, planned.claim.at_most
    if known:
        shares = [one.value for one in known]
    else:
        shares = [min(1.0, least + SHARE_BEYOND) if least is not None else max(0.0, (most or 0.0) - SHARE_BEYOND)]
    counts = [needed_of_share(share, least, most) for share in shares]
    worst = max(counts, key=lambda count: MOST if count is None else count)
    share = shares[counts.index(worst)]
    said = f"more than {MOST:,}" if worst is None else f"{worst:,}"
    return f"{said} pairs that tell (share {number(share)}{'' if known else ', assumed'})"


def _counted(sequence: int | None, fixed: int | None) -> str:
    """`40 (12 if their number is fixed)`."""
    if sequence is None or fixed is None:
        return f"more than {MOST:,}"
    return f"{sequence:,}; {max(fixed, 1):,} if their number is fixed"
