"""How prompts were drawn until claims were decided, as text, a table of the page, and data."""

from __future__ import annotations

from collections.abc import Sequence

from circuitspec.analysis.claims.claim_kind import limits
from circuitspec.analysis.claims.claim_result import ClaimResult
from circuitspec.analysis.claims.registry import kind_of
from circuitspec.analysis.claims.sequences.sequence_facts import WHY_STOPPED, ClaimSequence, SequenceFacts
from circuitspec.analysis.statistics.plain_data import estimate_data
from circuitspec.analysis.statistics.wording import with_interval
from circuitspec.analysis.verification_result import Verification
from circuitspec.reports.views import Table
from circuitspec.runtime.text_columns import aligned
from circuitspec.runtime.visible_text import visible

_NOTE = (
    "intervals of claims hold however often they were looked at; the columns on the right, and all other intervals of "
    "this report, are those of a number of prompts that was fixed beforehand, and do not hold for who looked before"
)


def sequence_text(found: Verification) -> tuple[str, ...]:
    """One block; none where the number of prompts was fixed."""
    facts = found.sequence
    if facts is None:
        return ()
    head, *rows = _rows(found, facts)
    table = aligned([[f"  {visible(row[0])}", *map(visible, row[1:])] for row in (head, *rows)])
    return (f"{sequence_said(facts)}\n\n{table}\n  note: {_NOTE}",)


def sequence_said(facts: SequenceFacts) -> str:
    """`prompts drawn until decided: 20 of at most 400 (...)`."""
    return (
        f"prompts drawn until decided: {facts.used} of at most {facts.limit} (the file asks for {facts.asked}), looked "
        f"at after {', '.join(map(str, facts.looks))}; {WHY_STOPPED[facts.stopped]}"
    )


def sequence_tables(found: Verification) -> tuple[Table, ...]:
    """The same for the page."""
    if found.sequence is None:
        return ()
    head, *rows = _rows(found, found.sequence)
    caption = f"{sequence_said(found.sequence)}. {_NOTE[:1].upper()}{_NOTE[1:]}"
    return (Table(caption[:1].upper() + caption[1:], tuple(head), tuple(map(tuple, rows)), prose=(0, 1, 2, 3)),)


def _rows(found: Verification, facts: SequenceFacts) -> list[list[str]]:
    """A row a claim: when it was decided, and what a fixed number of prompts says."""
    rows = [["claim", "decided after", f"if {facts.used} prompts had been fixed", f"of the first {facts.asked}"]]
    for planned, one in zip(found.plan.claims, facts.claims, strict=True):
        which = kind_of(planned).distinction(planned)
        name = f"{one.index + 1}: {planned.claim.kind}" + (f", {which}" if which else "")
        asked = "not reached" if one.asked is None else _figures(one.asked)
        rows.append([name, _decided(one), _figures(one.fixed), asked])
    return rows


def _decided(one: ClaimSequence) -> str:
    if not one.has_sequence:
        return "no sequence: judged as if fixed"
    return "not decided" if one.decided_at is None else f"{one.decided_at} prompts"


def _figures(claim: ClaimResult) -> str:
    """`SUPPORTED 0.88 [0.84, 0.91]`; of several figures the status alone."""
    if claim.estimate is None:
        return claim.status
    return f"{claim.status} {with_interval(claim.estimate, limits(claim))}"


def sequence_data(found: Verification) -> dict[str, object] | None:
    """The same for programs; what `fixed` and `asked` say is not valid for who looked before."""
    facts = found.sequence
    if facts is None:
        return None
    return {
        "used": facts.used,
        "limit": facts.limit,
        "asked": facts.asked,
        "looks": list(facts.looks),
        "stopped": facts.stopped,
        "claims": [
            {
                "index": one.index,
                "has_sequence": one.has_sequence,
                "decided_at": one.decided_at,
                "if_fixed": _fixed(one.fixed),
                "asked": None if one.asked is None else _fixed(one.asked),
            }
            for one in facts.claims
        ],
    }


def _fixed(claim: ClaimResult) -> dict[str, object]:
    figures: Sequence[tuple[str, object]] = [
        (part.name, None if part.estimate is None else estimate_data(part.estimate)) for part in claim.parts
    ]
    return {
        "status": claim.status,
        "n": claim.n,
        "valid_under_peeking": False,
        "estimate": None if claim.estimate is None else estimate_data(claim.estimate),
        "parts": dict(figures),
    }
