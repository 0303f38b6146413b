"""A claim that some components, or paths, alone bring the behaviour back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, model_validator

from circuitspec.hypothesis_file.grammar import texts
from circuitspec.hypothesis_file.schema.claim_block import Bounded, Mentioned, WithSources, WrongClaim


class CrossSection(Bounded, WithSources):
    """Restoring these components, or these paths, alone in the corrupted run brings the behaviour back."""

    kind: Literal["cross_section"] = "cross_section"
    nodes: tuple[texts.GroupOrNode, ...] | None = Field(
        default=None,
        min_length=1,
        examples=[["name_mover"]],
        description="Groups, at their positions, or components: at those written with them (a9.h6@END), else at all.",
    )
    paths: tuple[texts.PathText, ...] | None = Field(
        default=None,
        min_length=1,
        examples=[["input -> a0.h0<v>"]],
        description="Paths instead: every edge along them is restored, and nothing else (edge level); with `sources`, "
        "values travel along each path by itself (path level).",
    )

    @model_validator(mode="after")
    def _nodes_or_paths(self) -> CrossSection:
        if (self.nodes is None) == (self.paths is None):
            raise texts.problem(
                "CS158",
                "a cross-section is of nodes or of paths",
                hint="write nodes: [GROUP, ...], or paths: [A -> B, ...]"
                if self.nodes is None
                else "remove one of them",
                key=True,
            )
        return self

    @property
    def patches_edges(self) -> bool:
        return bool(self.paths)

    def named_corruptions(self) -> Mentioned:
        return self.named_sources()

    def wrong_here(self, level: str | None) -> Iterator[WrongClaim]:
        if self.sources is not None and self.paths is None:
            said = "sources are of paths, and this cross-section is of nodes"
            yield WrongClaim("CS198", said, ("sources",), "write paths: [A -> B, ...], or leave sources out", key=True)

    def named_nodes(self) -> Mentioned:
        return ((("nodes", i), name) for i, name in enumerate(self.nodes or ()))

    def named_paths(self) -> Mentioned:
        return ((("paths", i), text) for i, text in enumerate(self.paths or ()))
