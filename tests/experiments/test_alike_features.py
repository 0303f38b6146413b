"""Features that random circuits have in place of a circuit's, by hand-made shares of tokens at which each is active."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.experiments.circuits.alike_features import AlikeFeatures, alike_features
from circuitspec.experiments.circuits.random_circuits import RandomCircuits, random_circuits
from circuitspec.experiments.levels.node_level import circuit_positions
from circuitspec.experiments.levels.whole_circuit import whole_circuit
from circuitspec.graph.circuit_graph import lay_out
from circuitspec.graph.shape import DictionarySite
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Feature, OtherFeatures
from circuitspec.hypothesis_file.grammar.dictionary_places import DictionaryPlace
from circuitspec.hypothesis_file.load_file import parse_hypothesis
from tests.graph.test_circuit import FILE, SHAPE

SHAPED = replace(SHAPE, dictionaries=(DictionarySite("d", DictionaryPlace.parse("r1"), 8),))
CIRCUIT = "{groups: {one: {nodes: ['sae:d.f1@A', 'sae:d.f4@END']}}, free: ['a*', 'm*', 'sae:d.f6']}"
AT_A = np.array([0.0, 0.50, 0.45, 0.0, 0.90, 0.60, 0.51, 0.10])
AT_END = np.array([0.2, 0.0, 0.3, 0.3, 0.30, 0.9, 0.30, 0.0])


def shares(name: str, where: Where) -> NDArray[np.float64]:
    assert name == "d"
    return AT_A if where == Where.at("A") else AT_END


def drawn(count: int, most: int, circuit: str = CIRCUIT) -> tuple[AlikeFeatures, RandomCircuits]:
    text = FILE.format(circuit=circuit).replace("circuit:", "dictionaries: {d: {at: r1, from: ./d}}\ncircuit:", 1)
    document = parse_hypothesis(text, "t.circuit.yaml")
    graph, ablation = lay_out(document.hypothesis.circuit, SHAPED, document.source), document.hypothesis.ablation
    alike = alike_features(graph, circuit_positions(ablation, graph), shares, most)
    own = whole_circuit(ablation, graph, document.source)
    return alike, random_circuits(graph, own, count, 0, document.source, ("circuit",), alike=alike)


def test_the_nearest_that_are_active_and_not_free() -> None:
    """f6 is free, though nearest to f1 at A; f2, f3 and f4 are equally near to f4 at END, which makes three of two."""
    alike, _ = drawn(1, 2)
    numbers = {one.index: [other.index for other in found] for one, found in alike.candidates.items()}
    assert numbers == {1: [1, 2], 4: [2, 3, 4]}
    assert {one.index: share for one, share in alike.own.items()} == {1: 0.5, 4: 0.3}


def test_what_is_drawn() -> None:
    """Two different ones each time, at the places of those that they stand for, and all others are the outside."""
    alike, found = drawn(200, 3)
    pairs = set()
    for kept, out in zip(found.kept, found.knocked_out, strict=True):
        places = {s.component.index: s.where for s in out.sites if isinstance(s.component, Feature)}
        by_place = {where: index for index, where in places.items()}
        assert len(places) == 2
        pairs.add((by_place[Where.at("A")], by_place[Where.at("END")]))
        (others,) = (s.component for s in kept.sites if isinstance(s.component, OtherFeatures))
        assert others.named == frozenset((*places, 6))
        assert {s.component.index: s.where for s in kept.sites if isinstance(s.component, Feature)} == {
            index: ~where for index, where in places.items()
        }
    at_a, at_end = ([one.index for one in alike.candidates[f]] for f in (Feature("d", 1), Feature("d", 4)))
    assert pairs == {(a, b) for a in at_a for b in at_end if a != b} - {(1, 4)}
    assert found.active is not None
    own, others_share = found.active
    assert own == pytest.approx((0.5 + 0.3) / 2)
    every = [(AT_A[a] + AT_END[b]) / 2 for a, b in pairs]
    assert min(every) < others_share < max(every)


def test_too_few_are_active() -> None:
    """At END f4 alone is as near as one may be, and at A it is f1."""
    with pytest.raises(CircuitspecError) as error:
        drawn(10, 1, "{groups: {one: {nodes: ['sae:d.f1@A']}}, free: ['a*', 'm*']}")
    assert [finding.code for finding in error.value.diagnostics] == ["CS430"]
