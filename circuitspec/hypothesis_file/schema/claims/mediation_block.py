"""A claim about how one part acts on another: through a third, or directly as well."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, model_validator

from circuitspec.hypothesis_file.grammar import texts
from circuitspec.hypothesis_file.grammar.names import parse_path
from circuitspec.hypothesis_file.schema.block import Bound
from circuitspec.hypothesis_file.schema.claim_block import OfPath, WrongClaim


class Mediation(OfPath):
    """How A reaches C: through B alone (mediation), or directly as well (amplification), in `of: A -> B -> C`.

    The direct share is the effect of patching A -> C, as a share of that of patching A -> C and A -> B -> C together.
    """

    kind: Literal["mediation"] = "mediation"
    direction: Literal["noising", "denoising"] = Field(
        default="noising", description="Break the clean run, or restore the corrupted one."
    )
    direct_at_least: Bound | None = Field(
        default=None, description="The direct share is at least this (amplification: B adds to what A does itself)."
    )
    direct_at_most: Bound | None = Field(
        default=None, description="The direct share is at most this (0.1: A acts through B, and hardly otherwise)."
    )

    @model_validator(mode="after")
    def _bounds(self) -> Mediation:
        texts.check_bounds(direct_at_least=self.direct_at_least, direct_at_most=self.direct_at_most)
        return self

    @property
    def at_least(self) -> float | None:
        return self.direct_at_least

    @property
    def at_most(self) -> float | None:
        return self.direct_at_most

    def wrong_here(self, level: str | None) -> Iterator[WrongClaim]:
        hops = len(parse_path(self.of).hops)
        if hops != 3:
            message = f"mediation is about A -> B -> C, and this path has {hops} hops"
            hint = "name what acts, what it should act through, and what it acts on"
            yield WrongClaim("CS160", message, ("of",), hint)
