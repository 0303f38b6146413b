"""How a verification went whose prompts were drawn until its claims were decided, as values for reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from circuitspec.analysis.claims.claim_result import ClaimResult

Stopped = Literal["decided", "limit", "interrupted"]

WHY_STOPPED: dict[Stopped, str] = {
    "decided": "every claim that has a confidence sequence is decided",
    "limit": "the limit is reached",
    "interrupted": "interrupted: the verdict so far",
}


@dataclass(frozen=True)
class ClaimSequence:
    """One claim: after how many prompts its sequence decided it (None: not yet), and what a fixed number would say.

    A claim without a sequence (`has_sequence` false) is judged as if the number of prompts had been fixed. `fixed` is
    what that analysis says at the number of prompts used, `asked` at the number that the file asks for, if so many were
    used; neither holds for who looked before.
    """

    index: int
    has_sequence: bool
    decided_at: int | None
    fixed: ClaimResult
    asked: ClaimResult | None


@dataclass(frozen=True)
class SequenceFacts:
    """`used` prompts of at most `limit`, looked at after each of the `looks`; the file asks for `asked` of them."""

    used: int
    limit: int
    asked: int
    looks: tuple[int, ...]
    stopped: Stopped
    claims: tuple[ClaimSequence, ...]
