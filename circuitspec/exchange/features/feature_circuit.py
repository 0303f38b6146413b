"""A circuit of features as values: which features and errors of which dictionaries, at which tokens, in which roles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class FeatureNode:
    """A feature of a dictionary, or its error (`index` None), at a token index or (None) at every token.

    `label` is what people call it; it decides nothing.
    """

    dictionary: str
    index: int | None
    position: int | None = None
    group: str = "features"
    label: str = ""

    @property
    def is_error(self) -> bool:
        return self.index is None

    @property
    def component(self) -> str:
        """As a hypothesis names it, without its position."""
        return f"sae:{self.dictionary}.{'error' if self.index is None else f'f{self.index}'}"


@dataclass(frozen=True)
class DeclaredDictionary:
    """A dictionary as a hypothesis declares it. `source` None: its files are to be named; `format` None: these tell."""

    name: str
    at: str
    source: str | None = None
    format: str | None = None
    skip_first: bool = False
    ablates_error: bool = False
    known_as: str = ""  # what the other tool calls it


@dataclass(frozen=True)
class FeatureCircuit:
    """The nodes by group, in the order in which these are to stand, and the dictionaries that they are of."""

    nodes: tuple[FeatureNode, ...]
    dictionaries: tuple[DeclaredDictionary, ...]

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def positions(self) -> tuple[int, ...]:
        """The token indices that are named, in order."""
        return tuple(sorted({node.position for node in self.nodes if node.position is not None}))

    @property
    def by_group(self) -> dict[str, tuple[FeatureNode, ...]]:
        groups: dict[str, list[FeatureNode]] = {}
        for node in self.nodes:
            groups.setdefault(node.group, []).append(node)
        return {name: tuple(nodes) for name, nodes in groups.items()}


def position_name(index: int) -> str:
    """What a hypothesis calls the token of this index."""
    return f"p{index}"


def distinct(nodes: Sequence[FeatureNode]) -> tuple[FeatureNode, ...]:
    """Each node once, by what it is and where, as it first stands."""
    found: dict[tuple[str, int | None, int | None], FeatureNode] = {}
    for node in nodes:
        found.setdefault((node.dictionary, node.index, node.position), node)
    return tuple(found.values())
