"""Claims about how two parts of a circuit work together, from each and both noised and denoised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from circuitspec.analysis.claims.claim_kind import Choices, ClaimKind, measure_head, noted_figure
from circuitspec.analysis.claims.claim_result import ClaimResult, Judgement, part_of, together
from circuitspec.analysis.statistics.wording import number
from circuitspec.engine.records import Records
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.levels import node_level
from circuitspec.experiments.planner import CLEAN, Measure, PlannedClaim, Planning
from circuitspec.hypothesis_file.grammar.components import stage
from circuitspec.hypothesis_file.schema.claims.gate_block import Gate

if TYPE_CHECKING:
    from circuitspec.analysis.claims.means_error import Lookup, MeansError, Scores
    from circuitspec.analysis.statistics.gate_statistics import GateFinding, Part, Together
    from circuitspec.analysis.statistics.scores import Gap


@dataclass(frozen=True)
class GateRuns:
    """Two parts of a circuit, named as in the claim, patched alone and together: first, second, both."""

    names: tuple[str, str]
    noised: tuple[Experiment, Experiment, Experiment]  # in the clean run
    denoised: tuple[Experiment, Experiment, Experiment]  # in the corrupt run


@dataclass(frozen=True)
class PlannedGate(PlannedClaim):
    """The six runs of a gate; `patched` has both parts noised."""

    measure: Measure = "interaction"
    gate: GateRuns = field(kw_only=True)

    @property
    def anchored(self) -> Mapping[Experiment, tuple[Experiment, Experiment]]:
        return dict.fromkeys((*self.gate.noised, *self.gate.denoised), (self.clean, self.corrupt))


class GateClaims(ClaimKind[Gate, PlannedGate]):
    """The interaction of two parts in both directions says which gate they are."""

    several = True

    def plan(self, claim: Gate, planning: Planning) -> PlannedGate:
        first, second = claim.nodes
        corrupt = planning.corrupt()
        both = planning.section(claim.nodes, apart=True)  # where they overlap, that is told first
        sections = (planning.section((first,)), planning.section((second,)), both)
        noised = [node_level.ablating(planning.source, section) for section in sections]
        denoised = [node_level.denoising(corrupt, section) for section in sections]
        planning.name(Experiment(corrupt), "corrupt")
        for made, done in ((noised, "noised"), (denoised, "restored")):
            for run, name in zip(made, (first, second, f"{first}, {second}"), strict=True):
                planning.name(run, f"{name} {done}")
        runs = GateRuns((first, second), (noised[0], noised[1], noised[2]), (denoised[0], denoised[1], denoised[2]))
        return PlannedGate(planning.index, claim, noised[2], CLEAN, Experiment(corrupt), gate=runs)

    def decide(self, planned: PlannedGate, records: Records, between: Gap, error: MeansError | None) -> Judgement:
        from circuitspec.analysis.statistics.gate_statistics import BOUNDS

        assert isinstance(planned.claim, Gate)
        finding = _find(planned, records, error)
        low, high = BOUNDS[planned.claim.gate]
        parts = (
            part_of("noised", finding.noising.interaction, *low, "both together break next to nothing"),
            part_of("denoised", finding.denoising.interaction, *high, "both together restore next to nothing"),
        )
        return Judgement(*together(parts, records.n_prompts), parts=parts, found=finding.label)

    def describe(self, planned: PlannedGate) -> str:
        return f"noising and denoising {', '.join(planned.gate.names)}, and both"

    def distinction(self, planned: PlannedGate) -> str:
        return ", ".join(planned.gate.names)

    def choices(self, planned: PlannedGate, made: Choices) -> str:
        return made.gate_choices()

    def measured(self, claim: ClaimResult) -> str:
        return f"interaction on {claim.metric}"

    def rows(self, planned: PlannedGate, claim: ClaimResult, records: Records) -> list[list[str]]:
        """A row for noising and one for denoising: neither part patched, either, and both."""
        from circuitspec.analysis.statistics.scores import mean_of

        rows = [[claim.metric, "neither", *planned.gate.names, "both", measure_head(claim)]]
        directions = ((planned.clean, planned.gate.noised), (planned.corrupt, planned.gate.denoised))
        for part, (base, runs) in zip(claim.parts, directions, strict=True):
            means = (number(mean_of(records[run][claim.metric])) for run in (base, *runs))
            rows.append([part.name, *means, noted_figure(part)])
        return rows

    def interchangeable(self, claim: Gate) -> frozenset[str]:
        return frozenset(claim.nodes) if claim.gate == "or" else frozenset()


def _find(planned: PlannedGate, records: Records, error: MeansError | None) -> GateFinding:
    """The interactions of the two parts in both directions, and which gate they make."""
    from circuitspec.analysis.statistics.gate_statistics import Trio, find_gate, interaction

    metric, gate = planned.claim.metric, planned.gate
    noised, denoised = (Trio(*(records[run][metric] for run in trio)) for trio in (gate.noised, gate.denoised))
    clean, corrupt = records[planned.clean][metric], records[planned.corrupt][metric]
    finding = find_gate(noised, denoised, clean, corrupt, earlier=_earlier(*gate.noised[:2]))
    if error is None:
        return finding

    def again(found: Together, base: Experiment, trio: tuple[Experiment, Experiment, Experiment]) -> Together:
        def interacting(scores: Lookup) -> Scores:
            first, second, both = map(scores, trio)
            return interaction(scores(base), first, second, both)

        if found.interaction is None:
            return found
        return replace(found, interaction=error.recovered(records, interacting, metric, summed=True))

    noising = again(finding.noising, planned.clean, gate.noised)
    return replace(finding, noising=noising, denoising=again(finding.denoising, planned.corrupt, gate.denoised))


def _earlier(first: Experiment, second: Experiment) -> Part | None:
    """The part of which all comes before the other, None where they mix."""
    one, other = ([stage(site.component) or 0 for site in run.sites] for run in (first, second))
    if max(one) < min(other):
        return "first"
    return "second" if max(other) < min(one) else None
