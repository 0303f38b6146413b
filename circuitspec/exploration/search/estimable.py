"""Which metrics effects can be estimated of to first order. Importing this imports no torch."""

from __future__ import annotations

from circuitspec.hypothesis_file.grammar.internal_metric_names import is_internal
from circuitspec.prompts.output_metrics import METRICS


def inestimable(metric: str) -> str:
    """Why effects on a metric cannot be estimated to first order; empty where they can."""
    if is_internal(metric):
        return "it is read inside the model"
    known = METRICS.get(metric)  # what is none is refused elsewhere
    if known is not None and known.discrete:
        return "it moves in steps, so that it has no gradient"
    if known is not None and known.needs_clean:
        return "its gradient is zero at the clean run, where it is least"
    return ""


ESTIMABLE = tuple(metric for metric in METRICS if not inestimable(metric))
