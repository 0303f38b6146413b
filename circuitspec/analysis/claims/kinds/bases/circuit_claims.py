"""Claims about the whole circuit, which may have to hold under other methods too (`robust_to`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, TypeVar

from circuitspec.analysis.claims.claim_kind import ClaimKind, figure, measure_head
from circuitspec.analysis.claims.claim_result import MIN_PROMPTS, ClaimPart, ClaimResult, Judgement
from circuitspec.engine.records import Records
from circuitspec.experiments.circuits.method_grid import Methods, Patched
from circuitspec.experiments.circuits.robust_methods import claimed_methods, fitted_methods
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.planner import CLEAN, PlannedClaim, Planning
from circuitspec.hypothesis_file.schema.claim_block import OfCircuit
from circuitspec.hypothesis_file.yaml.source import SourceText

if TYPE_CHECKING:
    from circuitspec.analysis.claims.means_error import MeansError
    from circuitspec.analysis.statistics.scores import Gap

C = TypeVar("C", bound=OfCircuit)


@dataclass(frozen=True)
class PlannedOfCircuit(PlannedClaim):
    """A claim about the whole circuit; what is to hold under several methods has `methods`, the file's own among them.

    The other fields are about the file's own method.
    """

    methods: Methods | None = field(default=None, kw_only=True)

    @property
    def anchored(self) -> Mapping[Experiment, tuple[Experiment, Experiment]]:
        others = {} if self.methods is None else self.methods.anchored
        return {**super().anchored, **others}

    @property
    def judged_in_range(self) -> bool:
        """What is to hold under several methods says of each whether it lies out of range."""
        return self.methods is None

    def fitted(self, refused: Mapping[Experiment, str], text: SourceText) -> PlannedOfCircuit:
        if self.methods is None:
            return self
        assert isinstance(self.claim, OfCircuit)
        listed = ("claims", self.index, self.claim.kind, "robust_to")
        return replace(self, methods=fitted_methods(self.methods, self.claim.robust_to or (), listed, refused, text))


class CircuitClaims(ClaimKind[C, PlannedOfCircuit]):
    """What claims that the circuit suffices, and that it is needed, have in common."""

    needs_circuit = True
    of_circuit = True
    patched: ClassVar[Patched]
    """What is ablated: everything outside the circuit, or the circuit."""

    def planned(self, claim: C, run: Experiment, label: str, planning: Planning) -> PlannedOfCircuit:
        """The claim with this run of the file's own method, and those of the others."""
        planning.name_anchor(planning.anchor)
        planning.name(run, label)  # may be one of the anchors: all of the model, or nothing
        methods: Methods | None = None
        if claim.robust_to is not None:
            listed, known = (*planning.place, "robust_to"), planning.named_corruptions
            methods = claimed_methods(
                claim.robust_to, self.patched, listed, planning.ablation, known, planning.graph, planning.text
            )
            for other, its_label in methods.labels.items():
                planning.name(other, its_label)
        return PlannedOfCircuit(planning.index, claim, run, CLEAN, planning.anchor, methods=methods)

    def decide(self, planned: PlannedClaim, records: Records, between: Gap, error: MeansError | None) -> Judgement:
        from circuitspec.analysis.claims.many_run_claims import judge_methods
        from circuitspec.analysis.claims.single_figure import decide_by_one

        own = decide_by_one(planned, records, error)
        methods = planned.methods if isinstance(planned, PlannedOfCircuit) else None
        known = own.estimate is not None and own.estimate.interval is not None
        if methods is None or not known or records.n_prompts < MIN_PROMPTS:
            return own
        return replace(judge_methods(methods, planned.claim, records, error), estimate=own.estimate)

    def alike(self, claim: ClaimResult) -> bool:
        return bool(claim.parts) and claim.estimate is not None

    def said(self, claim: ClaimResult) -> str:
        return self.with_found(f"recovered {claim.metric} {figure(claim.parts[0])} as in the file", claim)

    def rows(self, planned: PlannedClaim, claim: ClaimResult, records: Records) -> list[list[str]]:
        """A row a method, with the reason where there is no figure, or one that may look to lie inside the bound."""
        head = [f"recovered {claim.metric}", measure_head(claim)]
        reasons = (f" ({part.reason})" if _needs_reason(part) else "" for part in claim.parts)
        return [head, *([part.name, figure(part) + why] for part, why in zip(claim.parts, reasons, strict=True))]


def _needs_reason(part: ClaimPart) -> bool:
    return part.estimate is None or (part.status == "REFUTED" and bool(part.reason))
