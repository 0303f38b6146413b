"""A claim that the circuit alone does the task."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Literal

from circuitspec.hypothesis_file.schema.claim_block import Mentioned, OfCircuit, WithSources, WrongClaim


class Sufficient(OfCircuit, WithSources):
    """The circuit alone does the task: everything else is ablated."""

    kind: Literal["sufficient"] = "sufficient"

    def named_corruptions(self) -> Mentioned:
        return chain(super().named_corruptions(), self.named_sources())

    def wrong_here(self, level: str | None) -> Iterator[WrongClaim]:
        if self.sources is None:
            return
        if level not in (None, "path"):
            said = f"at {level} level nothing travels along paths, so they have no sources"
            yield WrongClaim(
                "CS198", said, ("sources",), "write ablation: {level: path}, or leave sources out", key=True
            )
        if self.robust_to is not None:
            said = "other methods have no sources of their own for paths"
            yield WrongClaim("CS198", said, ("sources",), "leave out robust_to, or sources", key=True)
