"""Which features may take the place of a circuit's in a random circuit: as active ones of the same dictionary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circuitspec.experiments.experiment import Source, Variant
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.nodes import NodeComponent
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Feature, OtherFeatures

NEAREST = 20  # as active features, of which one is drawn

Shares = Callable[[str, Where], NDArray[np.float64]]
"""Of a dictionary, at some positions: `[feature]`, the share of the tokens there at which each is active."""


@dataclass(frozen=True)
class AlikeFeatures:
    """For each feature of a circuit those of which one is drawn, and at what share of tokens features are active.

    `own[feature]` is the share at its positions in the circuit, `others[feature]` those of its candidates there.
    """

    candidates: Mapping[Feature, tuple[Feature, ...]]
    own: Mapping[Feature, float]
    others: Mapping[Feature, Mapping[Feature, float]]


def has_features(graph: CircuitGraph) -> bool:
    """Whether a circuit names features one by one."""
    return any(isinstance(component, Feature) for component in graph.circuit)


def compared_prompts(source: Source) -> tuple[Variant, ...]:
    """The prompts on which it is counted how active features are: the clean ones, and those that values come from."""
    given = source.prompts
    return ("clean",) if given is None or given == "clean" else ("clean", given)


def alike_features(
    graph: CircuitGraph, positions: Mapping[NodeComponent, Where], shares: Shares, most: int = NEAREST
) -> AlikeFeatures:
    """Of every feature of the circuit the `most` of its dictionary whose share of active tokens is nearest to its own.

    Shares are those at the positions at which the feature is in the circuit. Where several are as near as the last of
    them, all of these; so there may be more. None that is active at no token there, or that is free; the circuit's own
    are among them, as heads are exchanged among all heads of a layer.
    """
    candidates: dict[Feature, tuple[Feature, ...]] = {}
    own: dict[Feature, float] = {}
    others: dict[Feature, dict[Feature, float]] = {}
    free = {(one.dictionary, one.index) for one in graph.free if isinstance(one, Feature)}
    circuit = {(one.dictionary, one.index) for one in graph.circuit if isinstance(one, Feature)}
    all_free = {one.dictionary for one in graph.free if isinstance(one, OtherFeatures)}
    for feature, where in positions.items():
        if not isinstance(feature, Feature):
            continue
        name = feature.dictionary
        share = shares(name, where)
        active: list[int] = np.flatnonzero(share).tolist()
        usable = [
            number
            for number in active
            if (name, number) not in free and (name not in all_free or (name, number) in circuit)
        ]
        distance = {number: abs(float(share[number] - share[feature.index])) for number in usable}
        ranked = sorted(usable, key=lambda number: (distance[number], number))
        furthest = distance[ranked[min(most, len(ranked)) - 1]] if ranked else 0.0
        near = [Feature(name, number, feature.layer) for number in ranked if distance[number] <= furthest]
        candidates[feature] = tuple(near)
        own[feature] = float(share[feature.index])
        others[feature] = {one: float(share[one.index]) for one in near}
    return AlikeFeatures(candidates, own, others)
