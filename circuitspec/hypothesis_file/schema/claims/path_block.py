"""A claim about what one path carries."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from circuitspec.hypothesis_file.grammar import texts
from circuitspec.hypothesis_file.schema.block import Bound
from circuitspec.hypothesis_file.schema.claim_block import Mentioned, OfPath, WithSources


class PathClaim(OfPath, WithSources):
    """Breaking a path in the clean run lowers the score, or restoring it in the corrupted run raises it."""

    kind: Literal["path"] = "path"
    direction: Literal["noising", "denoising"] = Field(description="Break the clean run, or restore the corrupted one.")
    drop_at_least: Bound | None = Field(
        default=None, description="Noising: the score falls by at least this share of what the corruption takes away."
    )
    drop_at_most: Bound | None = Field(
        default=None, description="Noising: the score falls by at most this share of what the corruption takes away."
    )
    rise_at_least: Bound | None = Field(
        default=None, description="Denoising: the score rises by at least this share of what the corruption takes away."
    )
    rise_at_most: Bound | None = Field(
        default=None, description="Denoising: the score rises by at most this share of what the corruption takes away."
    )

    @model_validator(mode="after")
    def _bounds(self) -> PathClaim:
        right, wrong = ("drop", "rise") if self.direction == "noising" else ("rise", "drop")
        for end in ("at_least", "at_most"):
            if getattr(self, f"{wrong}_{end}") is not None:
                raise texts.problem(
                    "CS159",
                    f"{self.direction} a path makes the score {'fall' if right == 'drop' else 'rise'}",
                    hint=f"write {right}_{end}",
                    at=(f"{wrong}_{end}",),
                    key=True,
                )
        least, most = f"{right}_at_least", f"{right}_at_most"
        texts.check_bounds(**{least: getattr(self, least), most: getattr(self, most)})
        return self

    def named_corruptions(self) -> Mentioned:
        return self.named_sources()

    @property
    def at_least(self) -> float | None:
        return self.drop_at_least if self.direction == "noising" else self.rise_at_least

    @property
    def at_most(self) -> float | None:
        return self.drop_at_most if self.direction == "noising" else self.rise_at_most
