"""Claims that take many runs: about every subset of the circuit, and against random circuits."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from circuitspec.hypothesis_file.grammar import texts
from circuitspec.hypothesis_file.schema.block import Block, Count, Flag, MetricName, Positive, Seed, Share

Few: TypeAlias = Annotated[int, Field(strict=True, ge=0, le=1000)]


class SubsetSearch(Block):
    """Which subsets K of the circuit are tried. Each takes two runs; `circuitspec plan` shows how many there are."""

    groups: Flag = Field(default=True, description="Try each group.")
    random: Few = Field(default=10, description="Random subsets: every node is in each with even odds.")
    greedy: Few = Field(
        default=5, description="Nodes that a greedy search for the worst subset takes out one by one (0: no search)."
    )
    candidates: Annotated[int, Field(strict=True, gt=0, le=10_000)] = Field(
        default=10, description="Nodes that the search tries at each step, drawn from those left."
    )
    seed: Seed = Field(default=0, description="Seed of what is drawn.")


class MinimalSearch(SubsetSearch):
    """Which subsets K are tried for a node that nothing and its own group do not settle; other groups are first."""

    random: Few = Field(default=3, description="Random subsets: every other node is in each with even odds.")
    greedy: Few = Field(
        default=2, description="Nodes that a greedy search adds one by one to the best subset so far (0: no search)."
    )
    candidates: Annotated[int, Field(strict=True, gt=0, le=10_000)] = Field(
        default=5, description="Nodes that the search tries at each step, drawn from those left."
    )


class Complete(Block):
    """Nothing is missing: without any subset K of it, the circuit scores like the model without K.

    Incompleteness is |F(circuit without K) - F(model without K)|, as a share of clean less corrupt (Wang et al. 2022,
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


class Minimal(Block):
    """Nothing is idle: for every node v there is a subset K of the rest without which v makes a difference.

    That is |F(circuit without K and v) - F(circuit without K)|, as a share of clean less corrupt (Wang et al. 2022,
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


class BeatsRandom(Block):
    """The circuit recovers more than random circuits: heads (and neurons) of each layer exchanged for others of it.

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
