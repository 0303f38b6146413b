"""What decides the claims of a plan. Imports no torch."""

from __future__ import annotations

from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.planner import Plan


def deciding(plan: Plan) -> tuple[Experiment, ...]:
    """The runs with means that decide claims by intervals over prompts: not those of claims about many runs."""
    found: dict[Experiment, None] = {}
    for planned in plan.claims:
        if not planned.holds_means:
            found |= {run: None for run in planned.runs if run.averages}
    return tuple(found)
