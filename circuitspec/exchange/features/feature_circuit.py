"""A circuit of features as values: which features and errors of which dictionaries, at which tokens, in which roles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from circuitspec.exchange.loss import counted


@dataclass(frozen=True)
class FeatureNode:
    """A feature of a dictionary, or its error (`index` None), at a token index, a named position, or (None) everywhere.

    `label` is what people call it; it decides nothing.
    """

    dictionary: str
    index: int | None
    position: int | str | None = None
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
        return tuple(sorted({node.position for node in self.nodes if isinstance(node.position, int)}))

    @property
    def by_group(self) -> dict[str, tuple[FeatureNode, ...]]:
        groups: dict[str, list[FeatureNode]] = {}
        for node in self.nodes:
            groups.setdefault(node.group, []).append(node)
        return {name: tuple(nodes) for name, nodes in groups.items()}


def position_name(position: int | str) -> str:
    """What a hypothesis calls the token of this index, or a position that has a name."""
    return f"p{position}" if isinstance(position, int) else position


def distinct(nodes: Sequence[FeatureNode]) -> tuple[FeatureNode, ...]:
    """Each node once, by what it is and where, as it first stands."""
    found: dict[tuple[str, int | None, int | str | None], FeatureNode] = {}
    for node in nodes:
        found.setdefault((node.dictionary, node.index, node.position), node)
    return tuple(found.values())


def sizes(nodes: Sequence[FeatureNode]) -> str:
    """`12 features and 1 error`."""
    errors = sum(node.is_error for node in nodes)
    features = counted(len(nodes) - errors, "feature")
    return f"{features} and {counted(errors, 'error')}" if errors else features
