"""A claim that the circuit recovers more than random ones of its size."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from circuitspec.hypothesis_file.grammar import texts
from circuitspec.hypothesis_file.schema.block import Count, MetricName, Seed, Share
from circuitspec.hypothesis_file.schema.claim_block import ClaimBlock


class BeatsRandom(ClaimBlock):
    """The circuit recovers more than random circuits: heads (and neurons) of each layer exchanged for others of it, and
    features of dictionaries for others that are as active.

    The null hypothesis is that it beats at most the share `quantile` of all such circuits (Shi et al. 2024).
    """

    kind: Literal["beats_random"] = "beats_random"
    metric: MetricName = Field(examples=["logit_diff"], description="The score.")
    circuits: Count = Field(default=100, description="Random circuits that are drawn; each takes a run.")
    at_most_p: Annotated[float, Field(strict=True, gt=0, lt=0.5, allow_inf_nan=False)] = Field(
        default=0.05, description="The p-value of the null hypothesis is at most this."
    )
    quantile: Share = Field(default=0.9, description="The share of random circuits that is to be beaten.")
    seed: Seed = Field(default=0, description="Seed of what is drawn.")

    @model_validator(mode="after")
    def _can_reject(self) -> BeatsRandom:
        if not 0 < self.quantile < 1:
            raise texts.problem(
                "CS166",
                f"no test can show that a share of {self.quantile:g} is beaten",
                hint="write a quantile between 0 and 1, such as 0.9",
                at=("quantile",),
            )
        if self.quantile**self.circuits > self.at_most_p:
            raise texts.problem(
                "CS166",
                f"{self.circuits} random circuits are too few: beating all of them has p = "
                f"{self.quantile**self.circuits:.2g}",
                label=f"at_most_p is {self.at_most_p:g}",
                hint="raise `circuits` (29 for a quantile of 0.9 at 0.05)",
                at=("circuits",) if "circuits" in self.model_fields_set else (),
                key="circuits" not in self.model_fields_set,
            )
        return self

    @property
    def at_least(self) -> float:
        """The share to be beaten."""
        return self.quantile

    @property
    def at_most(self) -> None:
        """There is no upper bound."""
        return None
