"""A claim that components carry a variable and nothing of others."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from circuitspec.hypothesis_file.schema.abstraction.abstraction_block import VariableName
from circuitspec.hypothesis_file.schema.abstraction.interchange_block import AboutVariables
from circuitspec.hypothesis_file.schema.block import Share
from circuitspec.hypothesis_file.schema.claim_block import Place


class Isolates(AboutVariables):
    """Components carry nothing of other variables: these stay as they are in the base.

    Judged, for each of the others, on the pairs whose answer must stay when the variable takes its value in the
    source, and would change if the other one took its value too: the share that keeps the base's answer. Components
    that do nothing isolate everything, so this goes with an interchange claim about the same variable.
    """

    kind: Literal["isolates"] = "isolates"
    variable: VariableName = Field(examples=["position"], description="The variable that they carry.")
    others: tuple[VariableName, ...] | None = Field(
        default=None,
        min_length=1,
        examples=[["answer"]],
        description="The variables that they do not carry (all others, unless given).",
    )
    at_least: Share = Field(
        examples=[0.8], description="The share of these pairs that keeps the base's answer is at least this."
    )

    @property
    def at_most(self) -> None:
        return None

    @property
    def set_together(self) -> tuple[tuple[str, Place], ...]:
        return ((self.variable, ("variable",)),)

    @property
    def set_apart(self) -> tuple[tuple[str, Place], ...]:
        return tuple((name, ("others", i)) for i, name in enumerate(self.others or ()))
