"""Claims that components carry a variable, or several at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from circuitspec.analysis.claims.abstraction.pair_claims import PairClaims, PairFigures
from circuitspec.experiments.planner import Planning
from circuitspec.hypothesis_file.schema.abstraction.interchange_block import Interchange
from circuitspec.prompts.pairs.settings import Setting, families_of, in_words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class InterchangeClaims(PairClaims[Interchange]):
    """The share of pairs whose answer must change, and changes to the one that the high-level model asks for."""

    @property
    def untold(self) -> str:
        return "in no pair must the answer change"

    def telling(self, claim: Interchange, setting: Setting, planning: Planning) -> Mapping[str, tuple[bool, ...]]:
        assert planning.pairs is not None
        name = ", ".join(families_of(setting)) if len(setting) == 1 else in_words(setting)
        return {name: planning.pairs.changed(setting)}

    def hits(self, figures: PairFigures) -> NDArray[np.bool_]:
        return figures.hit
