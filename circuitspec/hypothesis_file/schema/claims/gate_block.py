"""A claim about how two parts of a circuit work together."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from circuitspec.hypothesis_file.grammar import texts
from circuitspec.hypothesis_file.schema.block import MetricName
from circuitspec.hypothesis_file.schema.claim_block import ClaimBlock, Mentioned

GateName = Literal["and", "or", "additive"]


class Gate(ClaimBlock):
    """How two parts of a circuit work together: the score needs both (and), either (or), or is their sum (additive).

    Each and both are noised in the clean run and denoised in the corrupted one: six runs. What each does alone, added
    up, less what both do together, as a share of the latter, says which gate it is, in either direction.
    """

    kind: Literal["gate"] = "gate"
    nodes: tuple[texts.GroupOrNode, ...] = Field(
        examples=[["first", "second"]],
        description="The two: groups, at their positions, or components, at those written with them, else at all.",
        json_schema_extra={"minItems": 2, "maxItems": 2},
    )
    gate: GateName = Field(
        alias="is",
        description="and: noising either breaks what noising both breaks, and neither alone restores it. or: neither "
        "alone breaks it, and one alone restores it (also for a backup, which acts only where the other fails). "
        "additive: effects add up (the interaction lies within 0.1 of 0 both ways).",
    )
    metric: MetricName = Field(examples=["logit_diff"], description="The score.")

    @model_validator(mode="after")
    def _of_two(self) -> Gate:
        if len(self.nodes) != 2:
            raise texts.problem(
                "CS164",
                f"a gate is of two groups or components, not of {len(self.nodes)}",
                hint="write nodes: [A, B], and a group for what works as one",
                at=("nodes",),
                key=True,
            )
        return self

    @property
    def at_least(self) -> None:
        """Bounds are those of the gate it is said to be (`gate_statistics.BOUNDS`)."""
        return None

    @property
    def at_most(self) -> None:
        return None

    def named_nodes(self) -> Mentioned:
        return ((("nodes", i), name) for i, name in enumerate(self.nodes))
