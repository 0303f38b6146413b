"""Claims about which corruptions components react to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from circuitspec.analysis.claims.claim_kind import Choices, ClaimKind, measure_head, noted_figure, undefined_or
from circuitspec.analysis.claims.claim_result import ClaimPart, ClaimResult, Judgement, part_of, together
from circuitspec.analysis.statistics.wording import falls, number
from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.records import Records
from circuitspec.experiments.ablation_source import corrupt_prompts
from circuitspec.experiments.experiment import Experiment, values_in
from circuitspec.experiments.levels import node_level
from circuitspec.experiments.planner import CLEAN, Measure, PlannedClaim, Planning
from circuitspec.hypothesis_file.schema.claims.traces_block import Traces

if TYPE_CHECKING:
    from circuitspec.analysis.claims.means_error import MeansError
    from circuitspec.analysis.statistics.scores import Gap


@dataclass(frozen=True)
class Traced:
    """Components noised with the values of one corruption, and that corruption's own run.

    `expected` says whether the claim has them react to it.
    """

    corruption: str
    expected: bool
    noised: Experiment
    corrupt: Experiment


@dataclass(frozen=True)
class PlannedTraces(PlannedClaim):
    """A run for each corruption.

    `patched` is the first of those to which there should be a reaction, `corrupt` what a corruption that breaks nothing
    is measured against.
    """

    measure: Measure = "reaction"
    traced: tuple[Traced, ...] = field(kw_only=True)

    @property
    def anchored(self) -> Mapping[Experiment, tuple[Experiment, Experiment]]:
        return {one.noised: (self.clean, one.corrupt) for one in self.traced}

    @property
    def falls(self) -> bool:
        return True


class TraceClaims(ClaimKind[Traces, PlannedTraces]):
    """Components are noised with the values of one corruption after another."""

    needs_circuit = True
    several = True

    def plan(self, claim: Traces, planning: Planning) -> PlannedTraces:
        section = planning.section(claim.nodes)
        corrupt = corrupt_prompts(planning.ablation)
        reference = planning.whole.all_ablated if corrupt is None else Experiment(corrupt)
        planning.name_anchor(reference)
        traced = []
        for name in _corruptions(claim, planning):
            noised = node_level.ablating(values_in(name), section)
            planning.name(Experiment(name), name)
            planning.name(noised, f"{', '.join(claim.nodes)} noised from {name}")
            traced.append(Traced(name, name in claim.to, noised, Experiment(name)))
        patched = next(one.noised for one in traced if one.expected)
        return PlannedTraces(planning.index, claim, patched, CLEAN, reference, traced=tuple(traced))

    def decide(self, planned: PlannedTraces, records: Records, between: Gap, error: MeansError | None) -> Judgement:
        assert isinstance(planned.claim, Traces)
        parts = tuple(_reaction(planned.claim, one, planned, records, between, error) for one in planned.traced)
        least = planned.claim.reaction_at_least
        surely = [
            p.name for p in parts if p.estimate is not None and p.estimate.low is not None and p.estimate.low >= least
        ]
        return Judgement(*together(parts, records.n_prompts), parts=parts, found=", ".join(surely) or "none")

    def describe(self, planned: PlannedTraces) -> str:
        return f"noising {self.distinction(planned)} from {', '.join(one.corruption for one in planned.traced)}"

    def distinction(self, planned: PlannedTraces) -> str:
        assert isinstance(planned.claim, Traces)
        return ", ".join(planned.claim.nodes)

    def choices(self, planned: PlannedTraces, made: Choices) -> str:
        return f"node level, resample, {made.where}"

    def measured(self, claim: ClaimResult) -> str:
        return f"{claim.metric} {falls(claim.metric)} by"

    def part_value(self, part: ClaimPart) -> str:
        """`0.02 [-0.01, 0.04] from flip`."""
        return f"{undefined_or(part)} from {part.name}" + (f" ({part.note})" if part.note else "")

    def found_words(self, claim: ClaimResult) -> str:
        return f"reacts to {claim.found}"

    def rows(self, planned: PlannedTraces, claim: ClaimResult, records: Records) -> list[list[str]]:
        """A row a corruption."""
        from circuitspec.analysis.statistics.scores import mean_of

        rows = [[claim.metric, "clean", "corrupt", "noised", measure_head(claim)]]
        for part, one in zip(claim.parts, planned.traced, strict=True):
            means = (number(mean_of(records[run][claim.metric])) for run in (planned.clean, one.corrupt, one.noised))
            rows.append([part.name, *means, noted_figure(part)])
        return rows


def _corruptions(claim: Traces, planning: Planning) -> Sequence[str]:
    """The task's corruptions, in its order; CS508 where one that the claim names is not among them."""
    known = planning.corruptions
    if known is None:
        return tuple(dict.fromkeys((*planning.named_corruptions, *claim.to)))
    lacking = [(i, name) for i, name in enumerate(claim.to) if name not in known]
    if lacking:
        raise CircuitspecError(
            *(
                Diagnostic(
                    "CS508",
                    f"the prompts have no corruption `{name}`",
                    planning.text.span((*planning.place, "to", i)),
                    hint=f"they have: {', '.join(known) or 'none'}",
                )
                for i, name in lacking
            )
        )
    return known


def _reaction(
    claim: Traces, one: Traced, planned: PlannedTraces, records: Records, reference: Gap, error: MeansError | None
) -> ClaimPart:
    """How far the score falls: a share of what this corruption takes away or, if it takes nothing, the file's own."""
    from circuitspec.analysis.claims.means_error import recovered
    from circuitspec.analysis.statistics.scores import MATERIAL, Anchors, gap

    own = gap(records, claim.metric, Anchors(planned.clean, one.corrupt))
    breaks = own.state == "sound" and abs(own.difference.value) >= MATERIAL * abs(reference.difference.value)
    whole = one.corrupt if breaks else planned.corrupt
    estimate = recovered(records, (one.noised, planned.clean, whole), claim.metric, error)
    least = claim.reaction_at_least if one.expected else -claim.others_at_most
    most = None if one.expected else claim.others_at_most
    note = "" if breaks else f"of what {planned.corrupt.base if whole.source is None else 'ablating all'} takes away"
    return part_of(one.corruption, estimate, least, most, "", note)
