"""Claims that one figure decides: a share of what lies between two anchors."""

from __future__ import annotations

from circuitspec.analysis.claims.claim_result import CROSSES, MIN_PROMPTS, Judgement, place, too_few
from circuitspec.analysis.claims.means_error import MeansError, recovered
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.engine.records import Records
from circuitspec.experiments.planner import PlannedClaim


def decide_by_one(planned: PlannedClaim, records: Records, error: MeansError | None) -> Judgement:
    """SUPPORTED where the interval lies inside the bound, REFUTED where it lies outside entirely."""
    estimate = share_between(planned, records, error)
    if estimate.interval is None:
        return Judgement("INCONCLUSIVE", "the clean and corrupt runs are too close for an interval", estimate)
    if records.n_prompts < MIN_PROMPTS:
        return Judgement("INCONCLUSIVE", too_few(records.n_prompts), estimate)
    status = place(estimate.interval, planned.claim.at_least, planned.claim.at_most)
    return Judgement(status, CROSSES if status == "INCONCLUSIVE" else "", estimate)


def share_between(planned: PlannedClaim, records: Records, error: MeansError | None) -> Estimate:
    """The share of the anchors' difference that the claim bounds."""
    zero, one = (planned.clean, planned.corrupt) if planned.falls else (planned.corrupt, planned.clean)
    return recovered(records, (planned.patched, zero, one), planned.claim.metric, error)
