"""A claim that what the parts of a circuit carry is all that the task needs of them: causal scrubbing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, Tag

from circuitspec.hypothesis_file.grammar.texts import RESERVED_CORRUPTION
from circuitspec.hypothesis_file.schema.block import Seed, Text, Through, form_of, one_form_of
from circuitspec.hypothesis_file.schema.claim_block import Bounded, Mentioned

DrawnBy: TypeAlias = Annotated[
    Annotated[Text, Tag("<text>")] | Annotated[tuple[Text, ...], Field(min_length=1), Tag("<list>")],
    one_form_of(form_of, "a corruption, clean, or a list of them"),
]


class Scrubbed(Bounded):
    """With every value on the paths replaced by one that agrees on what it carries alone, the task is still done.

    Each use of a component on a path is computed by itself (the circuit as a tree), from inputs of prompts that agree
    with the reference on what is carried (`circuit: carries`), and what no path names comes from random prompts.
    """

    kind: Literal["scrubbed"] = "scrubbed"
    drawn_by: DrawnBy | None = Field(
        default=None,
        alias="from",
        examples=["abc", ["clean", "abc"]],
        description="How slots that are not carried are drawn: as in this corruption of a prompt that is drawn anew "
        "(that of `ablation`, unless given), or, with clean, as the task draws them. Of a list, each slot by one of "
        "them, with even odds. Prompts of a file are drawn from its rows, whatever is written here.",
    )
    draws: Annotated[int, Field(strict=True, gt=0, le=100)] = Field(
        default=4, description="How many times all prompts are drawn for each reference."
    )
    seed: Seed = Field(default=0, description="Seed of the draws.")
    through: Through | None = Field(
        default=None,
        examples=[["mlp"]],
        description="What values may pass through between two hops: MLPs that no path names ([mlp], unless given here "
        "or under `ablation`), or nothing but the residual stream ([]).",
    )

    @property
    def rules(self) -> tuple[str, ...]:
        """The names under `from`; empty where there is none."""
        if self.drawn_by is None:
            return ()
        return (self.drawn_by,) if isinstance(self.drawn_by, str) else self.drawn_by

    def named_corruptions(self) -> Mentioned:
        return self._named()

    def _named(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        for i, name in enumerate(self.rules):
            if name != RESERVED_CORRUPTION:
                yield ("from",) if isinstance(self.drawn_by, str) else ("from", i), name
