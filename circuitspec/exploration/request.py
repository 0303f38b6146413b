"""What an exploration is asked for. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from circuitspec.hypothesis_file.grammar.component_kinds import (
    ATTENTION,
    ATTENTION_PATTERN,
    EXPERT,
    EXPERT_NEURON,
    FEATURE,
    HEAD,
    MLP,
    NEURON,
    RESID,
    ComponentKind,
    Counts,
)
from circuitspec.hypothesis_file.grammar.components import IN_LAYERS, Component, all_of

if TYPE_CHECKING:
    from circuitspec.engine.cache.stored_runner import StorePlace

Start = Literal["estimates", "resid"]
Kind: TypeAlias = str
"""What `--sweep` calls a kind of components: a key of SWEPT."""

SWEPT: Mapping[Kind, ComponentKind] = {
    "resid": RESID,
    "attention": ATTENTION,
    "mlps": MLP,
    "heads": HEAD,
    "patterns": ATTENTION_PATTERN,
    "experts": EXPERT,
    "neurons": NEURON,
    "expert_neurons": EXPERT_NEURON,
    "features": FEATURE,
}
"""What a sweep can be of, from coarse to fine."""

MOST_FEATURES = 1000  # of dictionaries, that may be taken into a circuit: those with the largest estimates


def searched_for(kind: ComponentKind) -> ComponentKind | None:
    """Of what some must be searched, not free, for a sweep of a kind to be of anything; None where it needs none."""
    whole = kind.stands_for or kind.part_of or kind.aspect_of or kind
    whole = whole.part_of or whole
    return whole if whole.has_outside else None


def spots_of_kind(
    kind: ComponentKind, searched: Collection[Component], counts: Counts, streams: int
) -> list[Component]:
    """Every component of a kind that a sweep patches, layer by layer: those that are `searched`, or make up what is, or
    are part of it; and where nothing can be searched or free, such as the residual stream, all of the first `streams`
    layers.
    """
    wanted = searched_for(kind)
    if wanted is None:
        return [one for layer in range(streams) for one in all_of(kind, layer, counts)]
    own = [
        component
        for component in searched
        if wanted in (component.kind, kind.stands_for and component.kind.in_place_of)
    ]
    if kind.stands_for is not None:
        return [IN_LAYERS[kind](layer, 0) for layer in sorted({component.place[0] for component in own})]
    if kind.aspect_of is not None:
        there = [c for c in own if kind.why_absent(counts, c.place[0]) is None]
        return [IN_LAYERS[kind](*component.place) for component in there]
    if kind.part_of is not None:
        return [unit for component in own for unit in all_of(kind, component.place[0], counts)]
    return own


@dataclass(frozen=True)
class ExploreOptions:
    """What is searched and how far.

    free: names of components that are never patched, such as `m*`. exact: how many of the largest estimated
    effects are patched exactly. steps: of integrated gradients. start: with estimates for everything, or with exact
    sweeps from the residual stream on. neurons: those of MLPs in circuits and in such sweeps are looked into.
    sweeps: kinds of components that are swept one and all; values: what sweeps patch in (that of the file, where none
    is named). max_forwards: passes over all prompts.
    """

    metric: str = "logit_diff"
    free: tuple[str, ...] = ()
    target: float = 0.9
    knee: bool = False  # of the circuits on the way to the target, take the one at the knee of the frontier
    exact: int = 60
    linked: int = 12  # members between which direct paths are patched
    steps: int = 1
    rows: int | None = None
    device: str = "cpu"
    store: StorePlace = None  # where experiments are looked up and kept; None: nowhere
    start: Start = "estimates"
    neurons: bool = False
    sweeps: tuple[Kind, ...] = ()
    values: tuple[str, ...] = ()
    max_forwards: float | None = None
    drawn: int = 20  # of what has small estimates, patched exactly to see what estimates miss
    dropping: bool = False  # estimates that see effects which cancel
    recomputing: bool = False  # estimates that see effects through saturated attention
    paths: int = 300  # direct paths that are patched exactly
    noise_at: tuple[str, ...] = ()  # where sweeps of `gaussian` add noise, if not where the file says
    sections: int = 50  # cross-sections that are restored, of each circuit
    thorough: bool = False  # everything that is patched is run on all prompts, whatever few of them say
    sections_only: bool = False  # of the circuit that the file declares, and nothing else is looked at
    stability: int = 0  # halves of the prompts on which the search is repeated

    @property
    def patches_paths(self) -> bool:
        """Whether direct paths between a circuit's members are patched."""
        return self.linked > 0 and not self.sections_only
