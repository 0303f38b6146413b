"""Claims that many figures decide, or that stand beside controls, as tables with captions."""

from __future__ import annotations

from collections.abc import Iterator

from circuitspec.analysis.claims.claim_result import ClaimResult
from circuitspec.analysis.claims.registry import kind_of
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.verification_result import Verification
from circuitspec.reports.views import Table


def main_estimate(claim: ClaimResult) -> Estimate | None:
    """The figure that stands for all of them: the worst subset, the weakest node, the file's own method."""
    return kind_of(claim).main_estimate(claim)


def claim_tables(found: Verification) -> tuple[Table, ...]:
    """One table for every claim of many parts alike, or with controls, for the page."""
    return tuple(_tables(found))


def _tables(found: Verification) -> Iterator[Table]:
    for place, (planned, claim) in enumerate(zip(found.plan.claims, found.claims, strict=True)):
        kind = kind_of(planned)
        if kind.alike(claim) or (kind.has_controls and claim.parts):
            head, *rows = kind.rows(planned, claim, found.records)
            said = kind.said(claim) if kind.alike(claim) else kind.value(claim)
            caption = f"Claim {place + 1}, {claim.kind}: {said}"
            yield Table(
                ". ".join((caption, *(_sentence(note) for note in claim.notes))), tuple(head), tuple(map(tuple, rows))
            )


def _sentence(note: str) -> str:
    return note[:1].upper() + note[1:]
