"""Minimal cuts against every subset of nodes."""

from __future__ import annotations

import itertools

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuitspec.graph.cuts import minimal_cuts


def brute_force(graph: nx.DiGraph, start: int, end: int) -> set[frozenset[int]]:
    inner = [n for n in graph if n not in (start, end)]
    cutting = set()
    for size in range(len(inner) + 1):
        for subset in itertools.combinations(inner, size):
            rest = graph.subgraph(set(graph) - set(subset))
            if not nx.has_path(rest, start, end) and not any(c <= set(subset) for c in cutting):
                cutting.add(frozenset(subset))
    return cutting


@given(st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)).filter(lambda e: e[0] < e[1]), max_size=20))
def test_every_minimal_cut_of_an_acyclic_graph(edges: set[tuple[int, int]]) -> None:
    graph = nx.DiGraph(sorted(edges))
    graph.add_nodes_from([0, 7])
    found = list(minimal_cuts(graph, 0, 7))
    assert len(found) == len(set(found))
    if (0, 7) in edges or not nx.has_path(graph, 0, 7):
        assert found == []
    else:
        assert set(found) == brute_force(graph, 0, 7)


def test_those_near_the_start_come_first_and_there_is_an_end() -> None:
    graph = nx.DiGraph()
    for layer in range(6):
        for before in [f"{layer - 1}{x}" for x in "abc"] if layer else ["input"]:
            graph.add_edges_from((before, f"{layer}{x}") for x in "abc")
    graph.add_edges_from((f"5{x}", "logits") for x in "abc")
    cuts = list(minimal_cuts(graph, "input", "logits"))
    assert cuts == [frozenset(f"{layer}{x}" for x in "abc") for layer in range(6)]
    assert list(minimal_cuts(graph, "input", "logits", most=2)) == cuts[:2]


@pytest.mark.parametrize("edges", [[], [("input", "a")], [("input", "logits"), ("input", "a"), ("a", "logits")]])
def test_without_a_path_or_with_a_direct_edge_there_is_no_cut(edges: list[tuple[str, str]]) -> None:
    assert list(minimal_cuts(nx.DiGraph(edges), "input", "logits")) == []
