"""Every kind of claim, and what is done with the claims of a plan whatever their kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from circuitspec.analysis.claims.abstraction.interchange import InterchangeClaims
from circuitspec.analysis.claims.abstraction.isolates import IsolatesClaims
from circuitspec.analysis.claims.abstraction.scrubbed import ScrubbedClaims
from circuitspec.analysis.claims.claim_kind import AnyKind
from circuitspec.analysis.claims.claim_result import ClaimResult
from circuitspec.analysis.claims.kinds.beats_random import BeatsRandomClaims
from circuitspec.analysis.claims.kinds.complete import CompleteClaims
from circuitspec.analysis.claims.kinds.cross_section import CrossSectionClaims
from circuitspec.analysis.claims.kinds.gate import GateClaims
from circuitspec.analysis.claims.kinds.mediation import MediationClaims
from circuitspec.analysis.claims.kinds.minimal import MinimalClaims
from circuitspec.analysis.claims.kinds.necessary import NecessaryClaims
from circuitspec.analysis.claims.kinds.path import PathClaims
from circuitspec.analysis.claims.kinds.stable import StableClaims
from circuitspec.analysis.claims.kinds.sufficient import SufficientClaims
from circuitspec.analysis.claims.kinds.traces import TraceClaims
from circuitspec.engine.records import Records, RunsExperiments
from circuitspec.experiments.planner import Plan, PlannedClaim, plan_claims
from circuitspec.experiments.subspaces.subspace_files import StoredSubspace
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.hypothesis_file.schema.blocks import Hypothesis
from circuitspec.hypothesis_file.schema.claims.written_claim import Claim
from circuitspec.hypothesis_file.yaml.source import SourceText
from circuitspec.prompts.pairs.pair_set import PairSet

KINDS: dict[str, AnyKind] = {
    "sufficient": SufficientClaims(),
    "necessary": NecessaryClaims(),
    "cross_section": CrossSectionClaims(),
    "path": PathClaims(),
    "mediation": MediationClaims(),
    "gate": GateClaims(),
    "traces": TraceClaims(),
    "complete": CompleteClaims(),
    "minimal": MinimalClaims(),
    "beats_random": BeatsRandomClaims(),
    "stable": StableClaims(),
    "interchange": InterchangeClaims(),
    "isolates": IsolatesClaims(),
    "scrubbed": ScrubbedClaims(),
}
"""By the name in the file; one for each of `hypothesis.schema.claims.registry`."""


def kind_of(one: Claim | PlannedClaim | ClaimResult) -> AnyKind:
    """The kind of a claim, of a claim with its runs, or of a result."""
    return KINDS[one.claim.kind if isinstance(one, PlannedClaim) else one.kind]


def make_plan(
    hypothesis: Hypothesis,
    graph: CircuitGraph,
    text: SourceText,
    corruptions: Sequence[str] | None = None,
    pairs: PairSet | None = None,
    subspaces: Mapping[str, StoredSubspace] = MappingProxyType({}),
) -> Plan:
    """The experiments of the hypothesis's claims, as their kinds plan them. Raises as `plan_claims` does.

    `corruptions` are those of the prompts, `pairs` those of the abstraction; None where these are not at hand.
    """
    return plan_claims(hypothesis, graph, text, kind_of, corruptions, pairs, subspaces)


def search_claims(plan: Plan, records: Records, runner: RunsExperiments) -> tuple[Plan, Records]:
    """Look for the runs that claims which search are judged by.

    Returns the plan with these, and plan and records with the runs that judging them takes; what was tried beside
    is dropped. Where clean and corrupt runs do not differ nothing is looked for.
    """
    claims: list[PlannedClaim] = []
    for planned in plan.claims:
        if not planned.searches:
            claims.append(planned)
            continue
        found = kind_of(planned).search(planned, records, runner)
        claims.append(found.planned)
        plan = plan.naming(found.labels)
        records = records.merged(found.records)
    return replace(plan, claims=tuple(claims)), records


def claims_sufficiency(plan: Plan) -> Mapping[int, PlannedClaim]:
    """The claims, by their places, that the circuit alone does the task: components left outside can mislead these."""
    return {planned.index: planned for planned in plan.claims if kind_of(planned).claims_sufficiency}
