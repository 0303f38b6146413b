"""Claims that components carry nothing of other variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from circuitspec.analysis.claims.abstraction.pair_claims import PairClaims, PairFigures, PlannedPairs
from circuitspec.analysis.claims.claim_kind import noted_figure
from circuitspec.analysis.claims.claim_result import ClaimResult
from circuitspec.engine.records import Records
from circuitspec.experiments.planner import Planning
from circuitspec.hypothesis_file.schema.abstraction.isolates_block import Isolates
from circuitspec.prompts.pairs.settings import Setting

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class IsolatesClaims(PairClaims[Isolates]):
    """The share that keeps the base's answer, of pairs that it would leave if another variable came along."""

    @property
    def untold(self) -> str:
        return "in no pair does this variable leave the answer as it is and the other one change it"

    def telling(self, claim: Isolates, setting: Setting, planning: Planning) -> Mapping[str, tuple[bool, ...]]:
        """Pairs that the variable leaves, and the other one, set as well, would change."""
        assert planning.pairs is not None
        pairs, ((_, family),) = planning.pairs, setting
        own = {name for name, _ in claim.set_together}
        others = claim.others or tuple(name for name in planning.abstraction.variables if name not in own)
        stays = [not changed for changed in pairs.changed(setting)]
        found = {}
        for other in others:
            apart = pairs.told_apart(setting, (*setting, (other, family)))
            found[f"{other} ({family})"] = tuple(a and b for a, b in zip(stays, apart, strict=True))
        return found

    def hits(self, figures: PairFigures) -> NDArray[np.bool_]:
        return figures.stays

    def describe(self, planned: PlannedPairs) -> str:
        return f"isolation by {super().describe(planned)}"

    def measured(self, claim: ClaimResult) -> str:
        return "keeps the base's answer"

    def found(self, planned: PlannedPairs, records: Records) -> str:
        """Nothing: what all pairs say is the interchange claim's."""
        return ""

    def rows(self, planned: PlannedPairs, claim: ClaimResult, records: Records) -> list[list[str]]:
        """A row for each other variable in each family."""
        head = ["other variable", "pairs that tell", "keeps the base's answer [95% CI]"]
        rows = [head]
        for part in claim.parts:
            rows.append([part.name, "0" if part.estimate is None else str(part.estimate.n), noted_figure(part)])
        return rows
