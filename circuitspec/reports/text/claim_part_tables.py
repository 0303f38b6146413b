"""Claims that several figures decide, as tables: gates, and what components trace."""

from __future__ import annotations

from circuitspec.analysis.claims.verdict import ClaimPart, ClaimResult
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.scores import mean_of
from circuitspec.analysis.statistics.wording import MISSING, briefly, number
from circuitspec.analysis.verification_result import Verification
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.planner import PlannedClaim
from circuitspec.reports.many_run_tables import is_of_many, rows_of


def parts_table(found: Verification, planned: PlannedClaim, claim: ClaimResult) -> list[list[str]]:
    """Rows of cells, the head first: for every figure the means that it is made from, and the figure itself.

    No rows for a claim that has no parts.
    """
    if not claim.parts:
        return []
    if is_of_many(claim):
        return rows_of(found, planned, claim)
    return _gate(found, planned, claim) if planned.gate is not None else _traced(found, planned, claim)


def _gate(found: Verification, planned: PlannedClaim, claim: ClaimResult) -> list[list[str]]:
    assert planned.gate is not None
    rows = [[claim.metric, "neither", *planned.gate.names, "both", _measure(claim)]]
    directions = ((planned.clean, planned.gate.noised), (planned.corrupt, planned.gate.denoised))
    for part, (base, runs) in zip(claim.parts, directions, strict=True):
        rows.append([part.name, *(_mean(found, run, claim) for run in (base, *runs)), _figure(part)])
    return rows


def _traced(found: Verification, planned: PlannedClaim, claim: ClaimResult) -> list[list[str]]:
    rows = [[claim.metric, "clean", "corrupt", "noised", _measure(claim)]]
    for part, one in zip(claim.parts, planned.traced, strict=True):
        runs = (planned.clean, one.corrupt, one.noised)
        rows.append([part.name, *(_mean(found, run, claim) for run in runs), _figure(part)])
    return rows


def _mean(found: Verification, run: Experiment, claim: ClaimResult) -> str:
    return number(mean_of(found.records[run][claim.metric]))


def _measure(claim: ClaimResult) -> str:
    estimates: list[Estimate] = [part.estimate for part in claim.parts if part.estimate is not None]
    levels = dict.fromkeys(estimate.level for estimate in estimates if estimate.interval is not None)
    return claim.measure + "".join(f" [{level:.0%} CI]" for level in levels)


def _figure(part: ClaimPart) -> str:
    limits = [end for end in (part.at_least, part.at_most) if end is not None]
    value = MISSING if part.estimate is None else briefly(part.estimate, limits)
    return f"{value} {part.note}".rstrip()
