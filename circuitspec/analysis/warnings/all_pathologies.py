"""Every known way in which this hypothesis's own metrics and prompts may mislead, as warnings."""

from __future__ import annotations

from collections.abc import Sequence

from circuitspec.analysis.claims.verdict import ClaimResult
from circuitspec.analysis.warnings.evidence_warnings import EvidenceWarning
from circuitspec.analysis.warnings.metric_warnings import (
    broken_kl,
    disagreeing,
    only_discrete,
    saturated,
    wrong_answer_only,
)
from circuitspec.analysis.warnings.prompt_warnings import (
    disagreeing_templates,
    partial_corruption,
    standing_behaviour,
    too_few_prompts,
)
from circuitspec.engine.records import Records
from circuitspec.experiments.planner import Plan
from circuitspec.prompts.prompt_set import PromptSet


def pathology_warnings(
    plan: Plan,
    records: Records,
    claims: Sequence[ClaimResult],
    prompts: PromptSet | None = None,
    variables: frozenset[str] = frozenset(),
) -> tuple[EvidenceWarning, ...]:
    """CS416 to CS424, in order of code.

    `prompts` are the texts behind `records`; without them nothing is said of answer orders and of slots.
    `variables` are the slots that the circuit is about (`variables.circuit_variables`). `claims` are those that
    `verdict.judge` made of the same plan and records, so that the claimed metrics are known to be finite.
    """
    if prompts is not None and len(prompts.prompts) != records.n_prompts:
        raise ValueError(f"{len(prompts.prompts)} prompts, but records over {records.n_prompts}")
    found = wrong_answer_only(plan, records, claims)
    found += saturated(plan, records, claims)
    found += disagreeing(plan, records, claims)
    found += broken_kl(plan, records, claims)
    found += only_discrete(claims)
    found += standing_behaviour(plan, records, claims)
    if prompts is not None:
        found += partial_corruption(plan, claims, prompts, variables)
    found += disagreeing_templates(plan, records, claims, prompts)
    found += too_few_prompts(claims, None if prompts is None else prompts.file)
    return tuple(found)
