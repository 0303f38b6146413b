"""Claims that a search on other prompts chooses the circuit's members again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from circuitspec.analysis.claims.claim_kind import Bars, ClaimKind, figure, measure_head
from circuitspec.analysis.claims.claim_result import MIN_PROMPTS, ClaimPart, ClaimResult, Judgement, part_of, together
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.wording import number, plural
from circuitspec.diagnostics.diagnostic import Diagnostic
from circuitspec.engine.records import Records
from circuitspec.experiments.planner import CLEAN, Measure, PlannedClaim, Planning
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.edges import is_writer
from circuitspec.graph.nodes import NodeComponent
from circuitspec.hypothesis_file.grammar.components import Input
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.hypothesis_file.schema.blocks import AblationSpec
from circuitspec.hypothesis_file.schema.claims.stable_block import Stable
from circuitspec.hypothesis_file.yaml.source import Path_, SourceText

if TYPE_CHECKING:
    from circuitspec.analysis.claims.means_error import MeansError
    from circuitspec.analysis.statistics.scores import Gap

ALL_TOKENS = "all tokens"
Member = tuple[NodeComponent, str]
"""A component of the circuit at a position, or at all tokens."""

Z2 = 1.96**2
FEW, ROUNDS, BACKUPS = 16, 12, 500  # of a search: entries taken out one by one, rounds of growing, backups tried


@dataclass(frozen=True)
class Reselected:
    """What searches on other prompts chose: `chosen[member]` is whether each of them did.

    `on` are the prompts, in words, and `prompts` how many each search was made on. Where no search could be made, `why`
    says so, and nothing was chosen.
    """

    on: str
    prompts: int
    chosen: Mapping[Member, tuple[bool, ...]] = field(default_factory=dict)
    others: tuple[str, ...] = ()  # core of the searches, and not in the circuit
    why: str = ""


@dataclass(frozen=True)
class PlannedStable(PlannedClaim):
    """The members to be chosen again; `patched` is the circuit's own run. Searches `found` what."""

    measure: Measure = "chosen"
    members: tuple[Member, ...] = field(kw_only=True)
    entries: int = field(kw_only=True)  # components at positions that are searched
    found: Reselected | None = field(default=None, kw_only=True)

    holds_means: ClassVar[bool] = True

    @property
    def most_reselecting(self) -> int:
        """How many runs on other prompts the searches take at most; far fewer where they agree."""
        claim = self.claim
        assert isinstance(claim, Stable)
        each = 2 * FEW + 6 * ROUNDS + (2 * min(BACKUPS, self.entries) if claim.circuit == "full" else 0)
        return 2 * min(claim.exact, self.entries) + claim.searches * each


class StableClaims(ClaimKind[Stable, PlannedStable]):
    """The share of searches that choose each member."""

    needs_circuit = True
    several = True
    prompts_decide = False  # more searches would

    def refused(
        self, claim: Stable, place: Path_, ablation: AblationSpec, graph: CircuitGraph, text: SourceText
    ) -> Iterable[Diagnostic]:
        """CS252 for a circuit that no search finds, CS253 for too few searches to show that much."""
        span = text.span(place)
        for why, hint in _not_searched(ablation, graph):
            yield Diagnostic("CS252", f"stable: {why}", span, hint=hint)
        most = claim.searches / (claim.searches + Z2)
        if most < claim.at_least:
            said = f"{claim.searches} searches cannot show {claim.at_least:g}: chosen in all of them is "
            said += f"{number(most)} or more, with 95 % confidence"
            yield Diagnostic("CS253", said, span, hint="raise `searches` (16 for at_least: 0.8), or ask for less")

    def plan(self, claim: Stable, planning: Planning) -> PlannedStable:
        planning.name_anchor(planning.anchor)
        planning.name(planning.whole.circuit, "circuit")
        graph = planning.graph
        members = tuple(
            (component, place)
            for component, where in graph.circuit.items()
            if not isinstance(component, Input)
            for place in ((ALL_TOKENS,) if where.is_everywhere else sorted(where.roles))
        )
        entries = len(graph.claimed) * max(1, len({place for _, place in members}))
        ends = (CLEAN, planning.anchor)
        return PlannedStable(planning.index, claim, planning.whole.circuit, *ends, members=members, entries=entries)

    def decide(self, planned: PlannedStable, records: Records, between: Gap, error: MeansError | None) -> Judgement:
        from circuitspec.analysis.claims.many_run_claims import confirmed
        from circuitspec.analysis.claims.subset_search import ALPHA

        claim, found = planned.claim, planned.found
        assert isinstance(claim, Stable)
        if found is None or found.why:
            why = "it was not searched again" if found is None else found.why
            return Judgement("INCONCLUSIVE", why, n=0 if found is None else found.prompts)
        tests = len(found.chosen)
        parts = []
        for member, hits in found.chosen.items():
            part = part_of(_name(member), _share(hits), claim.at_least, None, "")
            parts.append(confirmed(part, tests, lambda own=hits: _share(own, 1 - ALPHA / tests)))  # type: ignore[misc]
        parts.sort(key=_value)
        status, reason = together(tuple(parts), max(found.prompts, MIN_PROMPTS))
        said = f"least often {parts[0].name}"
        if found.others:
            said += f"; as often as that, and not in the circuit: {', '.join(found.others)}"
        notes = (
            f"the search of `explore` made anew on {claim.searches} random halves ({plural(found.prompts, 'prompt')} "
            f"each) of {found.on}; counted is its circuit "
            + ("with negative components" if claim.circuit == "full" else "of helpful components alone"),
            "halves share prompts: intervals (Wilson) say how near a share is to that of all halves of these prompts, "
            "not what further prompts would give",
            f"the claim holds if all intervals lie inside the bound, and a member refutes it only with an interval "
            f"widened for all {tests} (Bonferroni, {1 - ALPHA / tests:.2%})",
        )
        return Judgement(status, reason, parts=tuple(parts), found=said, notes=notes, n=found.prompts)

    def describe(self, planned: PlannedStable) -> str:
        return "the search repeated on other prompts"

    def measured(self, claim: ClaimResult) -> str:
        return f"chosen by {claim.metric}"

    def alike(self, claim: ClaimResult) -> bool:
        return bool(claim.parts)

    def said(self, claim: ClaimResult) -> str:
        """`chosen by logit_diff 0.94 [0.84, 0.98], the least of 13 members (least often a2.h3@S1)`."""
        least = f"{figure(claim.parts[0])}, the least of {plural(len(claim.parts), 'member')}"
        return self.with_found(f"{self.measured(claim)} {least}", claim)

    def rows(self, planned: PlannedStable, claim: ClaimResult, records: Records) -> list[list[str]]:
        return [["member", measure_head(claim)], *([part.name, figure(part)] for part in claim.parts)]

    def picture(self, claim: ClaimResult) -> Bars | None:
        if not claim.parts:
            return None
        return Bars(
            title=f"Claim {claim.index + 1}, stable: how often each member is chosen again",
            series=claim.metric,
            quantity="share of the searches",
            parts=claim.parts,
            note="A row is a member of the circuit; the search was repeated on random halves of other prompts.",
        )


def _not_searched(ablation: AblationSpec, graph: CircuitGraph) -> Iterator[tuple[str, str]]:
    """Why no search finds such a circuit, and what to write instead."""
    if ablation.level != "node":
        yield f"searches choose components, and at {ablation.level} level a circuit is its paths", "write level: node"
    elif ablation.positions == "all":
        yield "searches choose components at named positions", "write ablation: {positions: declared}"
    named = [c for c in graph.circuit if not isinstance(c, Input)]
    others = [format_name(c) for c in named if not is_writer(c) or c in graph.free]
    if others or any(not is_writer(c) for c in graph.claimed):
        said = f"{', '.join(others[:5])} is none of these" if others else "the file takes MLPs apart"
        yield f"searches choose among whole heads and MLPs, and {said}", "leave the claim out for such a circuit"
    elif not named:
        yield "the circuit has no members", "declare some under circuit: groups"


def reselected(planned: PlannedStable, found: Reselected) -> PlannedStable:
    """The claim with what searches chose."""
    return replace(planned, found=found)


def _share(hits: tuple[bool, ...], level: float | None = None) -> Estimate:
    import numpy as np

    from circuitspec.analysis.statistics.proportions import share_of
    from circuitspec.analysis.statistics.stats import LEVEL

    found = share_of(np.array(hits, dtype=np.bool_), level or LEVEL)
    assert found is not None
    return found


def _name(member: Member) -> str:
    component, place = member
    return format_name(component) if place == ALL_TOKENS else f"{format_name(component)}@{place}"


def _value(part: ClaimPart) -> float:
    return 0.0 if part.estimate is None else part.estimate.value
