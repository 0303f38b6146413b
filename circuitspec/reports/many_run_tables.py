"""Claims that many runs decide, as tables and in words: subsets of the circuit, random circuits, several methods."""

from __future__ import annotations

from collections.abc import Iterator

from circuitspec.analysis.claims.claim_result import ClaimPart, ClaimResult
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.scores import mean_of
from circuitspec.analysis.statistics.wording import MISSING, briefly, number, plural
from circuitspec.analysis.verification_result import Verification
from circuitspec.experiments.planner import Measure, PlannedClaim
from circuitspec.reports.views import Table

MEASURES: frozenset[Measure] = frozenset({"incompleteness", "effect", "share beaten"})

_NAMED = 6  # nodes of a subset in a table; all of them are in the JSON


def is_of_many(claim: ClaimResult) -> bool:
    """Whether a claim's parts are many alike, of which sentences name the one that matters most."""
    return bool(claim.parts) and (claim.measure in MEASURES or claim.estimate is not None)


def said_of(claim: ClaimResult) -> str:
    """`incompleteness by logit_diff 0.31 [0.25, 0.37], worst of 19 subsets (...)`."""
    first = claim.parts[0]
    match claim.measure:
        case "incompleteness":
            line = (
                f"incompleteness by {claim.metric} {_figure(first)}, the worst of {plural(len(claim.parts), 'subset')}"
            )
        case "effect":
            least = next((part for part in claim.parts if part.estimate == main_estimate(claim)), first)
            line = f"effect on {claim.metric} {_figure(least)}, the smallest of {plural(len(claim.parts), 'node')}"
        case "share beaten":
            line = f"beats {_figure(first)} of random circuits by {claim.metric}"
        case _:
            line = f"recovered {claim.metric} {_figure(first)} as in the file"
    return f"{line} ({claim.found})" if claim.found else line


def rows_of(found: Verification, planned: PlannedClaim, claim: ClaimResult) -> list[list[str]]:
    """Rows of cells, the head first, for a claim of many parts."""
    match claim.measure:
        case "incompleteness":
            rows = [["K taken out", f"{claim.metric}: model less K", "circuit less K", _measure(claim)]]
            rows += [[_subset(part), *_means(part), _figure(part)] for part in claim.parts]
        case "effect":
            rows = [["node v", f"{claim.metric}: circuit less K", "less K and v", _measure(claim)]]
            rows += [[f"{part.name}, K: {_without(part)}", *_means(part), _figure(part)] for part in claim.parts]
        case "share beaten":
            rows = [[claim.metric, "circuit", "random: lowest", "median", "highest", _measure(claim)]]
            rows += [["random circuits", *_rivals(found, planned, claim), _figure(claim.parts[0])]]
        case _:
            rows = [[f"recovered {claim.metric}", _measure(claim)]]
            rows += [
                [part.name, _figure(part) + (f" ({part.reason})" if _needs_reason(part) else "")]
                for part in claim.parts
            ]
    return rows


def main_estimate(claim: ClaimResult) -> Estimate | None:
    """The figure that stands for all of them: the worst subset, the weakest node, the file's own method."""
    known = [part.estimate for part in claim.parts if part.estimate is not None]
    if claim.measure == "effect":
        return min(known, key=lambda estimate: estimate.value, default=None)
    return claim.estimate or next(iter(known), None)


def claim_tables(found: Verification) -> tuple[Table, ...]:
    """One table for every claim of many parts, for the page."""
    return tuple(_tables(found))


def _tables(found: Verification) -> Iterator[Table]:
    for place, (planned, claim) in enumerate(zip(found.plan.claims, found.claims, strict=True)):
        if is_of_many(claim):
            head, *rows = rows_of(found, planned, claim)
            caption = f"Claim {place + 1}, {claim.kind}: {said_of(claim)}"
            yield Table(
                ". ".join((caption, *(_sentence(note) for note in claim.notes))), tuple(head), tuple(map(tuple, rows))
            )


def _sentence(note: str) -> str:
    return note[:1].upper() + note[1:]


def _subset(part: ClaimPart) -> str:
    return f"{part.name}: {_listed(part.nodes)}" if part.nodes and _is_drawn(part.name) else part.name


def _is_drawn(name: str) -> bool:
    return name == "greedy" or name.startswith("random ")


def _without(part: ClaimPart) -> str:
    return part.note.removeprefix("without ")


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _means(part: ClaimPart) -> list[str]:
    return [number(value) for value in part.means]


def _rivals(found: Verification, planned: PlannedClaim, claim: ClaimResult) -> list[str]:
    assert planned.rivals is not None
    scores = sorted(mean_of(found.records[run][claim.metric]) for run in planned.rivals.kept)
    own = mean_of(found.records[planned.patched][claim.metric])
    return [number(value) for value in (own, scores[0], scores[len(scores) // 2], scores[-1])]


def _measure(claim: ClaimResult) -> str:
    levels = dict.fromkeys(p.estimate.level for p in claim.parts if p.estimate is not None and p.estimate.interval)
    name = "recovered" if claim.measure == "recovered" else claim.measure
    return name + "".join(f" [{level:.0%} CI]" for level in levels)


def _needs_reason(part: ClaimPart) -> bool:
    """Where there is no figure, or one that is outside although it may look to lie inside the bound."""
    return part.estimate is None or (part.status == "REFUTED" and bool(part.reason))


def _figure(part: ClaimPart) -> str:
    limits = [end for end in (part.at_least, part.at_most) if end is not None]
    return MISSING if part.estimate is None else briefly(part.estimate, limits)
