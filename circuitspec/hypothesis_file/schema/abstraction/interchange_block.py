"""A claim that components carry a variable: with their values of another prompt, the answer is what that asks for."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

from pydantic import Field, model_validator

from circuitspec.hypothesis_file.grammar import texts
from circuitspec.hypothesis_file.schema.abstraction.abstraction_block import FamilyName, VariableName
from circuitspec.hypothesis_file.schema.block import Share
from circuitspec.hypothesis_file.schema.claim_block import ClaimBlock, Place

IIA = "accuracy"  # the metric by which answers are compared with those of the high-level model


class AboutVariables(ClaimBlock):
    """A claim about variables of the `abstraction`, judged on its pairs."""

    pairs: tuple[FamilyName, ...] | None = Field(
        default=None,
        min_length=1,
        examples=[["other_names"]],
        description="The families of pairs on which it must hold (all of them, unless given).",
    )

    @property
    def metric(self) -> str:
        """How often the answer is the one that the high-level model asks for."""
        return IIA

    @property
    @abstractmethod
    def set_together(self) -> tuple[tuple[str, Place], ...]:
        """The variables that take the source's values, each with its place among the settings."""

    @property
    def set_apart(self) -> tuple[tuple[str, Place], ...]:
        """The variables that must stay, each with its place."""
        return ()

    @property
    def families(self) -> tuple[tuple[str, Place], ...]:
        """The families of pairs that it names, each with its place."""
        return tuple((name, ("pairs", i)) for i, name in enumerate(self.pairs or ()))


class Interchange(AboutVariables):
    """Components carry a variable: with their values from another prompt, the model answers as if it had that value.

    The base runs with the aligned components at their values in the source; the high-level model runs the base with
    the variable at its value in the source. The share of pairs with the same answer, of those whose answer must
    change, is the interchange intervention accuracy (IIA).
    """

    kind: Literal["interchange"] = "interchange"
    variable: VariableName | None = Field(
        default=None, examples=["position"], description="The variable; each family of pairs is judged by itself."
    )
    variables: dict[VariableName, FamilyName] | None = Field(
        default=None,
        min_length=2,
        examples=[{"position": "reversed", "answer": "other_names"}],
        description="Several variables at once instead, each from a source of its own: for each the family that its "
        "source is of.",
    )
    at_least: Share | None = Field(default=None, description="IIA on pairs whose answer must change is at least this.")
    at_most: Share | None = Field(default=None, description="It is at most this.")

    @model_validator(mode="after")
    def _one_or_several(self) -> Interchange:
        if (self.variable is None) == (self.variables is None) or (self.variables is not None and self.pairs):
            raise texts.problem(
                "CS187",
                "an interchange is of one variable, or of several with the family of each",
                hint="write variable: NAME, or variables: {NAME: FAMILY, OTHER: FAMILY}",
                key=True,
            )
        texts.check_bounds(at_least=self.at_least, at_most=self.at_most)
        return self

    @property
    def set_together(self) -> tuple[tuple[str, Place], ...]:
        if self.variables is None:
            assert self.variable is not None
            return ((self.variable, ("variable",)),)
        return tuple((name, ("variables", name)) for name in self.variables)

    @property
    def families(self) -> tuple[tuple[str, Place], ...]:
        if self.variables is None:
            return super().families
        return tuple((family, ("variables", name)) for name, family in self.variables.items())
