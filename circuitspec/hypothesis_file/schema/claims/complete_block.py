"""A claim that nothing is missing from the circuit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from circuitspec.hypothesis_file.schema.block import MetricName, Positive
from circuitspec.hypothesis_file.schema.claim_block import ClaimBlock, SubsetSearch, WrongClaim


class Complete(ClaimBlock):
    """Nothing is missing: without any subset K of it, the circuit scores like the model without K.

    Incompleteness is |F(circuit without K) - F(model without K)|, as a share of clean - corrupt (Wang et al. 2022,
    section 4.2). Subsets are searched for on one half of the prompts and judged on the other.
    """

    kind: Literal["complete"] = "complete"
    metric: MetricName = Field(examples=["logit_diff"], description="The score.")
    at_most: Positive = Field(examples=[0.1], description="Incompleteness is at most this, whatever K.")
    subsets: SubsetSearch = Field(default=SubsetSearch(), description="Which subsets are tried.")

    @property
    def at_least(self) -> None:
        """There is no lower bound: 0 is the best."""
        return None

    def wrong_here(self, level: str | None) -> Iterator[WrongClaim]:
        if level == "path":
            message = f"{self.kind} takes nodes out of the circuit, and at path level there are only paths"
            yield WrongClaim("CS165", message, (), "write ablation: level: node (or edge)", key=True)
