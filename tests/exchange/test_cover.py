"""Few paths that mean exactly the edges."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings

from circuitspec.exchange.edge_lists import EdgeList, Size, edge_list, grouped
from circuitspec.exchange.exporting import export_circuit
from circuitspec.exchange.imported_text import Surroundings, hypothesis_text
from circuitspec.exchange.path_cover import names_of, paths_of
from circuitspec.hypothesis_file.grammar.components import Head, Mlp
from circuitspec.hypothesis_file.load_file import parse_hypothesis
from tests.exchange.support import GPT2, SMALL, circuits, edges


def test_all_edges_of_gpt2_are_a_path_for_each_layer_of_receivers() -> None:
    paths = paths_of(EdgeList(GPT2, GPT2.possible))
    assert len(paths) == 25
    assert paths[0] == "input -> a0"
    assert paths[3] == "input, a[0-1], m0 -> m1"
    assert paths[-1] == "input, a*, m* -> logits"


@pytest.mark.parametrize(
    ("texts", "paths"),
    [
        (["input->a0.h0<q>", "input->a0.h0<k>", "input->a0.h0<v>"], ["input -> a0.h0"]),
        (["input->a0.h0<v>", "input->a0.h0<q>"], ["input -> a0.h0<q,v>"]),
        (["input->a0.h0<v>", "input->a0.h1<v>"], ["input -> a0<v>"]),
        (["a0.h0->m1", "m0->m1", "a0.h0->logits", "m0->logits"], ["a0.h0, m0 -> m1, logits"]),
        (["input->m0", "input->m1", "input->logits"], ["input -> m*, logits"]),
        (["a0.h0->logits", "a0.h1->logits", "a1.h0->logits", "a1.h1->logits"], ["a* -> logits"]),
        (["a0.h1->logits", "a1.h1->logits"], ["a*.h1 -> logits"]),
        (["input->m1", "a0.h0->m1", "input->logits"], ["input -> m1, logits", "a0.h0 -> m1"]),
        (  # by receivers, for that is shorter
            ["input->a1.h0<q>", "m0->a1.h0<q>", "a0.h0->a1.h0<q>", "input->logits", "m0->m1"],
            ["input, a0.h0, m0 -> a1.h0<q>", "m0 -> m1", "input -> logits"],
        ),
    ],
)
def test_paths_by_hand(texts: list[str], paths: list[str]) -> None:
    assert paths_of(edge_list(SMALL, edges(*texts))) == paths


def test_a_size_that_was_guessed_is_never_the_end_of_a_pattern() -> None:
    guessed = Size(2, 2, 2, inferred=True)
    assert paths_of(edge_list(guessed, edges("input->m0", "input->m1"))) == ["input -> m[0-1]"]
    assert names_of([Head(0, 0), Head(0, 1), Head(1, 0), Head(1, 1), Mlp(0)], guessed) == ["a[0-1].h[0-1]", "m0"]
    assert names_of([Head(0, 0), Head(0, 1), Head(1, 0), Head(1, 1), Mlp(0)], SMALL) == ["a*", "m0"]


def test_shared_keys_and_values_go_by_their_own_names() -> None:
    size = Size(1, 4, 4)
    joined, _ = grouped(edge_list(size, edges("input->a0.h0<k>", "input->a0.h1<v>", "input->a0.h3<q>")), 2)
    assert paths_of(joined) == ["input -> a0.kv0, a0.h3<q>"]


@given(circuits())
@settings(max_examples=60, deadline=None)
def test_paths_mean_exactly_the_edges(circuit: EdgeList) -> None:
    """Expanded by the model graph, which knows nothing of how they were found."""
    text = hypothesis_text(circuit, Surroundings("x", "x", None, None), ())
    found = export_circuit(parse_hypothesis(text), "edge-pruning", Path("edges.json"), circuit.size)
    assert found.edges.edges == circuit.edges
