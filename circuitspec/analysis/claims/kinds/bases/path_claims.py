"""Claims about one path, which is patched by itself (Wang et al. 2022, appendix B)."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

from circuitspec.analysis.claims.claim_kind import Choices, ClaimKind
from circuitspec.experiments.planner import PlannedClaim, Planning
from circuitspec.hypothesis_file.schema.claim_block import OfPath

C = TypeVar("C", bound=OfPath)
P = TypeVar("P", bound=PlannedClaim)


class PathPatching(ClaimKind[C, P]):
    """What claims about a path have in common."""

    claimed_metrics_only: ClassVar[bool] = True

    def through(self, claim: C, planning: Planning) -> tuple[str, ...] | None:
        """What effects pass through on the claim's path: its own setting, else that of the ablation."""
        return planning.ablation.through if claim.through is None else claim.through

    def distinction(self, planned: P) -> str:
        return f"{self.of(planned)} {'noised' if planned.patched.base == 'clean' else 'denoised'}"

    def subject(self, claim: Any) -> str:
        return f"{claim.kind}: {claim.of}"

    def choices(self, planned: P, made: Choices) -> str:
        return made.path_choices(planned.patched)

    def of(self, planned: P) -> str:
        """The path, as the file names it."""
        assert isinstance(planned.claim, OfPath)
        return planned.claim.of
