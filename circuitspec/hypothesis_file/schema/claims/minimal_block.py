"""A claim that nothing in the circuit is idle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from circuitspec.hypothesis_file.schema.block import MetricName, Positive
from circuitspec.hypothesis_file.schema.claim_block import ClaimBlock, Few, SubsetSearch, WrongClaim


class MinimalSearch(SubsetSearch):
    """Which subsets K are tried for a node that nothing and its own group do not settle; other groups are first."""

    random: Few = Field(default=3, description="Random subsets: every other node is in each with even odds.")
    greedy: Few = Field(
        default=2, description="Nodes that a greedy search adds one by one to the best subset so far (0: no search)."
    )
    candidates: Annotated[int, Field(strict=True, gt=0, le=10_000)] = Field(
        default=5, description="Nodes that the search tries at each step, drawn from those left."
    )


class Minimal(ClaimBlock):
    """Nothing is idle: for every node v there is a subset K of the rest without which v makes a difference.

    That is |F(circuit without K and v) - F(circuit without K)|, as a share of clean - corrupt (Wang et al. 2022,
    section 4.3). Subsets are searched for on one half of the prompts and judged on the other.
    """

    kind: Literal["minimal"] = "minimal"
    metric: MetricName = Field(examples=["logit_diff"], description="The score.")
    at_least: Positive = Field(examples=[0.01], description="Every node makes at least this difference, given its K.")
    subsets: MinimalSearch = Field(default=MinimalSearch(), description="Which subsets are tried.")

    @property
    def at_most(self) -> None:
        """There is no upper bound."""
        return None

    def wrong_here(self, level: str | None) -> Iterator[WrongClaim]:
        if level == "path":
            message = f"{self.kind} takes nodes out of the circuit, and at path level there are only paths"
            yield WrongClaim("CS165", message, (), "write ablation: level: node (or edge)", key=True)
