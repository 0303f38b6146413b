"""A claim that a search on other prompts chooses the circuit's members again."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from circuitspec.hypothesis_file.schema.block import Count, Share
from circuitspec.hypothesis_file.schema.claim_block import ClaimBlock

Searchable: TypeAlias = Literal["logit_diff", "logit", "logprob", "logprob_diff", "prob", "prob_diff"]
Searches: TypeAlias = Annotated[int, Field(strict=True, ge=2, le=10_000)]


class Stable(ClaimBlock):
    """`explore`'s search, made anew on random halves of other prompts, chooses every member of the circuit that often.

    The prompts are drawn by the same rules; of those of a file they are the third that `explore` holds out.
    """

    kind: Literal["stable"] = "stable"
    metric: Searchable = Field(default="logit_diff", description="The score that is searched by.")
    at_least: Share = Field(examples=[0.8], description="Each member is chosen in at least this share of the searches.")
    searches: Searches = Field(default=50, description="On so many random halves of the prompts.")
    circuit: Literal["full", "helpful"] = Field(
        default="full",
        description="Which circuit of the search counts: the full one with negative components and backups, or that of "
        "helpful components alone, of the fewest heads.",
    )
    target: Share = Field(default=0.9, description="What the search's circuit is to recover.")
    exact: Count = Field(default=60, description="Effects patched exactly in the search, those with largest estimates.")

    @property
    def at_most(self) -> None:
        """There is no upper bound: 1 is the best."""
        return None
