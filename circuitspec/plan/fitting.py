"""A plan cut down to what its prompts allow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from circuitspec.diagnostics import CircuitspecError, Diagnostic
from circuitspec.plan.experiment import Source
from circuitspec.plan.methods import Methods
from circuitspec.plan.planner import Plan
from circuitspec.spec.hypothesis import Necessary, Sufficient
from circuitspec.spec.source import Source as SourceText


def fitted(plan: Plan, refused: Mapping[Source, str], text: SourceText) -> Plan:
    """The plan without methods (`robust_to`) that need a mean which these prompts do not allow; `refused` says why.

    The file's own method stays, so that what is wrong with it is told. Raises CS167 where a claim gives such a method
    by its values.
    """
    claims, problems, lost = [], [], set()
    for planned in plan.claims:
        methods, claim = planned.methods, planned.claim
        if methods is None or not isinstance(claim, Sufficient | Necessary):
            claims.append(planned)
            continue
        left = _left(methods, refused)
        gone = {run.method: run for run in methods.runs if run not in left.runs}
        if gone and isinstance(claim.robust_to, dict) and "ablation" in claim.robust_to:
            why = next(one.reason for one in left.left_out if one.method in gone)
            named = next(iter(gone)).ablation
            place = ("claims", planned.index, claim.kind, "robust_to", "ablation")
            problems.append(
                Diagnostic("CS167", f"ablation {named} cannot be run here: {why}", text.span(place), hint="remove it")
            )
        lost |= {run for one in gone.values() for run in (one.patched, one.corrupt)}
        claims.append(replace(planned, methods=left))
    if problems:
        raise CircuitspecError(*problems)
    kept = {run for planned in claims for run in planned.runs} | {plan.clean, plan.corrupt}
    labels = {run: label for run, label in plan.labels.items() if run in kept or run not in lost}
    return replace(plan, claims=tuple(claims), labels=labels)


def _left(methods: Methods, refused: Mapping[Source, str]) -> Methods:
    left = methods.without(refused)
    own = [run for run in methods.runs if run.method == methods.own]
    if all(run in left.runs for run in own):
        return left
    return replace(
        left,
        runs=(*own, *left.runs),
        left_out=tuple(one for one in left.left_out if one.method != methods.own),
    )
