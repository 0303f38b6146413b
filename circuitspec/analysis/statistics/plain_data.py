"""Estimates as plain values, for the `data` of warnings and for documents."""

from __future__ import annotations

from circuitspec.analysis.statistics.estimate import Estimate


def estimate_data(estimate: Estimate) -> dict[str, object]:
    """Value, interval (None where there is none), its level and method, and the number of prompts."""
    means = {"uncorrected": estimate.uncorrected, "means_error": estimate.means_error}
    return {
        "value": estimate.value,
        "ci": None if estimate.interval is None else list(estimate.interval),
        "level": estimate.level,
        "n": estimate.n,
        "method": estimate.method,
        **(means if estimate.means_error is not None or estimate.correction else {}),
    }
