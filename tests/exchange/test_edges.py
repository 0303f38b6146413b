"""The neutral value: which edges there are, cuts by score, and what lies on a way from input to logits."""

from __future__ import annotations

from dataclasses import replace

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuitspec.exchange.edge_lists import (
    EdgeList,
    Size,
    at_least,
    connected,
    edge_list,
    grouped,
    strongest,
    ungrouped,
)
from circuitspec.hypothesis_file.grammar.components import Head, Input, KvHead, Logits, Mlp
from tests.exchange.support import GPT2, SMALL, edges, sizes


def test_edges_of_known_models_are_counted_right() -> None:
    """GPT-2 small has 32,491 edges; a layer of parallel blocks has one less a head."""
    assert int(GPT2.possible.sum()) == 32_491
    assert int(replace(GPT2, parallel=True).possible.sum()) == 32_491 - 12 * 12
    # one layer of one head: input to q, k, v, m0 and logits; a0.h0 to m0 and logits; m0 to logits
    assert int(Size(1, 1, 1).possible.sum()) == 8
    assert int(Size(1, 1, 1, has_mlps=False).possible.sum()) == 5


def test_a_size_is_read_and_written() -> None:
    assert Size.parse("12x12x768") == GPT2
    assert Size.parse("2x4-parallel") == Size(2, 4, 4, parallel=True)
    assert str(Size(1, 2, 1, 8, parallel=True)) == "1 layer of 2 heads (1 key-value heads), 8 channels, parallel blocks"
    for wrong in ("12", "0x3", "12x12x", "axb", "12x12x768-serial", ""):
        with pytest.raises(ValueError, match="LAYERSxHEADS"):
            Size.parse(wrong)
    with pytest.raises(ValueError, match="too many edges"):
        Size.parse("1000x1000")


def test_an_edge_list_holds_edges_and_nodes() -> None:
    found = edge_list(SMALL, edges("input->a0.h1<v>", "a0.h1->m1", "m1->logits"))
    assert found.edges == edges("input->a0.h1<v>", "a0.h1->m1", "m1->logits")
    assert found.nodes == {Head(0, 1), Mlp(1)}
    assert len(found) == 3
    for impossible in ("m1->a0.h0<q>", "a0.h0->a0.h1<q>", "m0->m0"):
        with pytest.raises(ValueError, match="does not have"):
            edge_list(SMALL, edges(impossible))
    with pytest.raises(ValueError, match="does not have"):
        edge_list(replace(SMALL, parallel=True), edges("a0.h0->m0"))
    with pytest.raises(ValueError, match="does not have"):
        edge_list(SMALL, edges("input->a2.h0<q>"))


def _scored(size: Size, seed: int) -> EdgeList:
    rng = np.random.default_rng(seed)
    scores = np.where(size.possible, np.round(rng.normal(size=size.possible.shape), 1), 0.0)  # rounded: with ties
    scores[0, -1] = np.nan
    return EdgeList(size, np.zeros(size.possible.shape, bool), scores)


@given(sizes(), st.integers(0, 1000), st.integers(1, 60), st.floats(0, 2))
@settings(max_examples=40, deadline=None)
def test_cuts_are_by_the_size_of_scores(size: Size, seed: int, count: int, threshold: float) -> None:
    """Against sorting the edges one by one."""
    whole = _scored(size, seed)
    assert whole.scores is not None
    magnitudes = sorted(
        (abs(s) for s, p in zip(whole.scores.flat, size.possible.flat, strict=True) if p and s == s), reverse=True
    )
    nonzero = [m for m in magnitudes if m > 0]
    best, cut = strongest(whole, count)
    found = sorted((abs(s) for s in whole.scores[best.kept].tolist()), reverse=True)
    assert found == nonzero[:count]
    assert cut.scored == len(nonzero)
    assert cut.ties == (nonzero[count:].count(nonzero[count - 1]) if count <= len(nonzero) else 0)
    assert len(at_least(whole, threshold)[0]) == sum(m >= threshold for m in nonzero)
    assert not at_least(whole, threshold)[0].kept[0, -1]
    positive = sorted((s for s in whole.scores[size.possible].tolist() if s > 0), reverse=True)
    signed, _ = strongest(whole, count, signed=True)
    assert sorted(whole.scores[signed.kept].tolist(), reverse=True) == positive[:count]
    assert len(at_least(whole, threshold, signed=True)[0]) == sum(s >= threshold for s in positive)


@given(sizes(), st.integers(0, 2**32), st.sampled_from([0.05, 0.15, 0.4]))
@settings(max_examples=60, deadline=None)
def test_connected_edges_lie_on_a_way_from_input_to_logits(size: Size, seed: int, share: float) -> None:
    """Against networkx's reachability."""
    kept = size.possible & (np.random.default_rng(seed).random(size.possible.shape) < share)
    whole = EdgeList(size, kept)
    graph = nx.DiGraph([("input", "logits")])
    graph.remove_edge("input", "logits")
    named = []
    for sender, receiver in whole.edges:
        component = receiver.component
        end = Head(component.layer, component.head) if isinstance(component, KvHead) else component
        start = "input" if isinstance(sender, Input) else sender
        named.append((start, "logits" if isinstance(end, Logits) else end, (sender, receiver)))
        graph.add_edge(*named[-1][:2])
    below = nx.descendants(graph, "input") | {"input"}
    above = nx.ancestors(graph, "logits") | {"logits"}
    wanted = {edge for start, end, edge in named if start in below and end in above}
    assert connected(whole).edges == wanted


def test_shared_keys_and_values_are_joined_and_parted() -> None:
    size = Size(1, 4, 4)
    single = edge_list(size, edges("input->a0.h0<k>", "input->a0.h1<k>", "input->a0.h2<v>", "input->a0.h0<q>"))
    joined, added = grouped(single, 2)
    assert added == 1  # a0.h3<v> shares with a0.h2<v>
    assert {(r.component, r.port) for _, r in joined.edges} == {
        (KvHead(0, 0), "k"),
        (KvHead(0, 1), "v"),
        (Head(0, 0), "q"),
    }
    assert joined.nodes == {Head(0, 0), Head(0, 1), Head(0, 2), Head(0, 3)}
    parted = ungrouped(joined)
    assert parted.edges == single.edges | edges("input->a0.h3<v>")
    assert grouped(parted, 2)[1] == 0
    assert ungrouped(single) is single
    assert grouped(single, 4) == (single, 0)


def test_an_edge_list_cannot_be_changed() -> None:
    found = edge_list(SMALL, edges("input->logits"))
    with pytest.raises(ValueError, match="read-only"):
        found.kept[0, 0] = True
    with pytest.raises(ValueError, match="scores"):
        at_least(found, 0.5)
