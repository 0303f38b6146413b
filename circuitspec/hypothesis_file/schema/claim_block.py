"""What claims have in common: the facts that every kind tells of itself, and settings that several share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field, Tag, model_validator

from circuitspec.hypothesis_file.grammar import texts
from circuitspec.hypothesis_file.grammar.ablation_kinds import varied_values
from circuitspec.hypothesis_file.schema.block import (
    Block,
    Bound,
    Flag,
    MetricName,
    Seed,
    Text,
    Through,
    form_of,
    one_form_of,
)
from circuitspec.hypothesis_file.schema.carries_block import Carrier

Place: TypeAlias = tuple[str | int, ...]
"""Where something stands among the settings of a claim."""
Mentioned: TypeAlias = Iterator[tuple[Place, str]]
"""Names in a claim, each with its place."""


@dataclass(frozen=True)
class WrongClaim:
    """What is wrong with a claim in this file: the parts of a diagnostic, at a place among its settings."""

    code: str
    message: str
    place: Place
    hint: str
    key: bool = False


class ClaimBlock(Block):
    """A claim: what it may say is in its fields, what it names and cannot be is said here.

    Each kind has a name for `kind`, a `metric` and two bounds, of which one may be None.
    """

    if TYPE_CHECKING:

        @property
        def kind(self) -> str: ...

        @property
        def metric(self) -> str: ...

        @property
        def at_least(self) -> float | None: ...

        @property
        def at_most(self) -> float | None: ...

    output_only: ClassVar[bool] = False
    """Whether its runs leave nothing to measure but the output."""

    @property
    def patches_edges(self) -> bool:
        """Whether edges are patched for it, whatever the level of the file."""
        return False

    def named_nodes(self) -> Mentioned:
        """The groups and components that it names."""
        return iter(())

    def named_paths(self) -> Mentioned:
        """The paths that it names."""
        return iter(())

    def named_corruptions(self) -> Mentioned:
        """The corruptions that it names."""
        return iter(())

    def wrong_here(self, level: str | None) -> Iterator[WrongClaim]:
        """What else is wrong with it in a file of this level of ablation (None: not known)."""
        return iter(())


class Bounded(ClaimBlock):
    """A score with a lower bound, an upper bound, or both."""

    metric: MetricName = Field(examples=["logit_diff"], description="The score.")
    at_least: Bound | None = Field(
        default=None, description="Recovered performance is at least this (1 is the whole model)."
    )
    at_most: Bound | None = Field(
        default=None, description="Recovered performance is at most this (1 is the whole model)."
    )

    @model_validator(mode="after")
    def _bounds(self) -> Bounded:
        texts.check_bounds(at_least=self.at_least, at_most=self.at_most)
        return self


ChoiceName = Literal["level", "ablation", "corruption", "positions", "direction"]
RobustTo: TypeAlias = Annotated[
    Annotated[tuple[ChoiceName, ...], Tag("<list>")]
    | Annotated[dict[ChoiceName, Annotated[tuple[Text, ...], Field(min_length=1)]], Tag("<mapping>")],
    one_form_of(form_of, "a list of choices such as [ablation, corruption], or their values: {ablation: [mean, zero]}"),
]


def _methods(choice: str) -> tuple[str, ...] | None:
    """The values of a choice; None where they are the task's own."""
    known: dict[str, tuple[str, ...]] = {
        "level": ("node", "edge", "path"),
        "ablation": varied_values(),
        "positions": ("declared", "all"),
        "direction": ("noising", "denoising"),
    }
    return known.get(choice)


class WithSources(ClaimBlock):
    """A claim whose paths may have sources of their own."""

    ADDED = ("sources",)

    sources: dict[Carrier, Text] | None = Field(
        default=None,
        min_length=1,
        examples=[{"input@S1 -> a2.h2": "abc"}],
        description="Path level: corruptions from which the starts of paths take their values, instead of what the "
        "claim patches otherwise. By the component or group that a path starts with, or by the beginning of the path "
        "(A -> B<q>); of several that fit, the longest counts.",
    )

    def named_sources(self) -> Mentioned:
        """The corruptions under `sources`."""
        given = {} if self.sources is None else self.sources
        return ((("sources", key), name) for key, name in given.items())


class OfCircuit(Bounded):
    """A claim about the whole circuit, which may have to hold under other methods too."""

    ADDED = ("robust_to",)

    robust_to: RobustTo | None = Field(
        default=None,
        examples=[["ablation", "corruption"]],
        description="Choices of method under all values (and combinations) of which the claim holds: level, ablation, "
        "corruption, positions, direction; or the values themselves: {ablation: [mean, zero]}. Others are as in the "
        "file.",
    )

    @model_validator(mode="after")
    def _known_methods(self) -> OfCircuit:
        named = [*(self.robust_to or ())]
        if self.robust_to is not None and not named:
            raise texts.problem(
                "CS167", "robust_to names nothing", hint="write [ablation, corruption]", at=("robust_to",)
            )
        for i, choice in enumerate(named):
            if choice in named[:i]:
                raise texts.problem("CS167", f"{choice} is named twice", hint="remove one", at=("robust_to", i))
        if not isinstance(self.robust_to, dict):
            return self
        for choice, values in self.robust_to.items():
            known = _methods(choice)
            for i, value in enumerate(values):
                if known is not None and value not in known:
                    raise texts.problem(
                        "CS167",
                        f"there is no {choice} {value}",
                        hint=texts.did_you_mean(value, known) or f"write {', '.join(known)}",
                        at=("robust_to", choice, i),
                    )
        return self

    def named_corruptions(self) -> Mentioned:
        named = self.robust_to.get("corruption", ()) if isinstance(self.robust_to, dict) else ()
        return ((("robust_to", "corruption", i), name) for i, name in enumerate(named))


class OfPath(ClaimBlock):
    """A claim about one path: it is patched as Wang et al. (2022, appendix B) do."""

    of: texts.PathText = Field(examples=["s_inhibition -> name_mover<q>"], description="The path: A -> B<q>.")
    metric: MetricName = Field(examples=["logit_diff"], description="The score.")
    through: Through | None = Field(
        default=None,
        examples=[["mlp"]],
        description="What the effect may pass through between two hops: MLPs, which are then recomputed ([mlp], unless "
        "given here or under `ablation`), or nothing but the residual stream ([]).",
    )

    output_only: ClassVar[bool] = True

    def named_paths(self) -> Mentioned:
        yield ("of",), self.of


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
