"""A claim about which corruptions components react to."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from circuitspec.hypothesis_file.grammar import texts
from circuitspec.hypothesis_file.schema.block import MetricName, Share
from circuitspec.hypothesis_file.schema.claim_block import ClaimBlock, Mentioned


class Traces(ClaimBlock):
    """What components react to: the named corruptions, and none of the task's other ones.

    They are noised with the values of one corruption after another. The reaction is the fall of the score, as a share
    of what that corruption takes away; where it takes nothing away, of what `ablation: from:` takes away.
    """

    kind: Literal["traces"] = "traces"
    nodes: tuple[texts.GroupOrNode, ...] = Field(
        min_length=1,
        examples=[["previous_token"]],
        description="Groups or components, noised together, at the positions as for cross_section.",
    )
    to: tuple[str, ...] = Field(
        min_length=1, examples=[["abc"]], description="The corruptions to which they react; to no other."
    )
    metric: MetricName = Field(examples=["logit_diff"], description="The score.")
    reaction_at_least: Share = Field(
        default=0.5, alias="at_least", description="The reaction to each of the named corruptions is at least this."
    )
    others_at_most: Share = Field(
        default=0.1, description="The reaction to every other corruption is at most this, in either direction."
    )

    @model_validator(mode="after")
    def _apart(self) -> Traces:
        if self.others_at_most >= self.reaction_at_least:
            written = "others_at_most" if "others_at_most" in self.model_fields_set else "at_least"
            raise texts.problem(
                "CS122",
                "what counts as a reaction must be more than what counts as none",
                label=f"at_least is {self.reaction_at_least:g}, others_at_most is {self.others_at_most:g}",
                hint="write at_least: 0.5, others_at_most: 0.1",
                at=(written,),
            )
        return self

    @property
    def at_least(self) -> None:
        """Every corruption has bounds of its own."""
        return None

    @property
    def at_most(self) -> None:
        return None

    def named_nodes(self) -> Mentioned:
        return ((("nodes", i), name) for i, name in enumerate(self.nodes))

    def named_corruptions(self) -> Mentioned:
        return ((("to", i), name) for i, name in enumerate(self.to))
