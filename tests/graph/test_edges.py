"""The edges of a model and those that a hypothesis keeps: against the oracle, brute force and counts by hand."""

from __future__ import annotations

import itertools
from typing import Any

import networkx as nx
import numpy as np
import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.graph.edge_circuit import EdgeCircuit, Kept, edge_circuit, live_receivers, outside_edges, unfed
from circuitspec.graph.edges import (
    Receiver,
    Sender,
    count_edges,
    format_receiver,
    inputs_of,
    owners,
    precedes,
    receivers,
    sender_index,
    senders,
    senders_before,
)
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Input, KvHead, Logits, Mlp
from circuitspec.hypothesis_file.schema.blocks import CircuitSpec
from circuitspec.models.families.family_table import architecture_named
from circuitspec.models.model_config import shape_of
from tests.engine.support import FAMILIES, model
from tests.graph.drawn import FILE, Drawn, as_oracle, distinct, draw, tokens
from tests.oracle import edge, families
from tests.oracle import edge_circuit as oracle

EVERYWHERE = Where.everywhere()


def shape(family: str) -> ModelShape:
    return shape_of(model(family).config.to_dict())


def small(**changes: Any) -> ModelShape:
    sizes = {"family": "gpt2", "n_layers": 2, "n_heads": 2, "n_kv_heads": 2, "d_model": 8, "d_head": 4, "d_mlp": 16}
    return ModelShape(**{**sizes, "n_vocab": 50, **changes})


def every_edge(of: ModelShape) -> list[tuple[Sender, Receiver]]:
    order = senders(of)
    return [(s, r) for r in receivers(of) for s in order[: senders_before(r, of)]]


# ------------------------------------------------------------------------------------------------------- enumeration


@pytest.mark.parametrize("family", FAMILIES)
def test_every_edge_of_every_family(family: str) -> None:
    """As many, the same ones, in the order in which the oracle computes senders."""
    net, own = families.read(model(family)), shape(family)
    found = [as_oracle(s, r) for s, r in every_edge(own)]
    assert len(found) == len(set(found)) == count_edges(own)
    assert set(found) == set(edge.edges(net))
    assert [as_oracle(s, Receiver(Logits()))[0] for s in senders(own)] == edge.senders(net)
    assert [sender_index(s, own) for s in senders(own)] == list(range(len(senders(own))))
    assert {(s, r) for s in senders(own) for r in receivers(own) if precedes(s, r, own)} == set(every_edge(own))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # GPT-2 small: layer l has 13 l + 1 senders before it, 36 inputs of heads read these, and its MLP 12 more
        ({"n_layers": 12, "n_heads": 12, "n_kv_heads": 12}, 36 * (13 * 66 + 12) + (13 * 66 + 12 * 13) + (1 + 12 * 13)),
        # parallel blocks: the MLP does not read the heads beside it
        ({"has_resid_mid": False}, 6 * (1 + 4) + (1 + 4) + 7),
        # grouped queries: 2 q, 1 k, 1 v
        ({"n_kv_heads": 1}, 4 * (1 + 4) + (3 + 6) + 7),
        # attention only
        ({"d_mlp": 0}, 6 * (1 + 3) + 5),
    ],
)
def test_counts_by_hand(changes: dict[str, Any], expected: int) -> None:
    assert count_edges(small(**changes)) == expected


def test_gpt2_small_has_32491_edges() -> None:
    assert count_edges(small(n_layers=12, n_heads=12, n_kv_heads=12)) == 32_491


def test_inputs_owners_and_names_under_grouped_queries() -> None:
    grouped = small(n_heads=4, n_kv_heads=2)
    k, v = (Receiver(KvHead(1, 1), port) for port in ("k", "v"))  # type: ignore[arg-type]
    assert list(inputs_of(Head(1, 3), (), grouped)) == [Receiver(Head(1, 3), "q"), k, v]
    assert list(inputs_of(Head(1, 2), ("k",), grouped)) == [k]
    assert list(inputs_of(KvHead(1, 1), (), grouped)) == [k, v]
    assert list(inputs_of(Logits(), (), grouped)) == [Receiver(Logits())]
    assert owners(k, grouped) == (Head(1, 2), Head(1, 3))
    assert owners(Receiver(Mlp(0)), grouped) == (Mlp(0),)
    assert owners(Receiver(Logits()), grouped) == ()
    shown = [format_receiver(r, grouped) for r in (k, Receiver(Head(1, 3), "q"), Receiver(Mlp(0)), Receiver(Logits()))]
    assert shown == ["a1.kv1<k>", "a1.h3<q>", "m0", "logits"]
    assert format_receiver(Receiver(KvHead(1, 1), "k"), small()) == "a1.h1<k>"  # nothing is shared


# ------------------------------------------------------------------------------------------------- declared and free


def edge_tokens(kept: Kept, prompt: Any) -> dict[Any, set[int]]:
    return {as_oracle(s, r): tokens(w, prompt) for r, by_sender in kept.items() for s, w in by_sender.items()}


def kept_tokens(found: EdgeCircuit, prompt: Any) -> dict[Any, set[int]]:
    return edge_tokens(found.kept, prompt)


def is_hopless(net: Any, prompt: Any, drawn: Drawn, positions: str) -> bool:
    """Whether some two neighbouring hops have no edge between them, one by one."""
    hops = [[*two] for path in drawn.paths for two in itertools.pairwise(path)]
    return any(not any(oracle.declared_edges(net, prompt, [two], drawn.members, positions).values()) for two in hops)


@pytest.mark.parametrize("positions", ["declared", "all"])
@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama"])
def test_random_circuits_keep_what_the_oracle_keeps(family: str, positions: str) -> None:
    """Groups, free MLPs, ports, positions, kv heads; and CS227 exactly where a hop has no edge."""
    net, own = families.read(model(family)), shape(family)
    (prompt,) = distinct([6])
    compared = refused = 0
    for seed in range(60):
        drawn = draw(own, seed)
        if is_hopless(net, prompt, drawn, positions):
            with pytest.raises(CircuitspecError) as error:
                edge_circuit(drawn.graph(own), FILE, everywhere=positions == "all")
            assert {finding.code for finding in error.value.diagnostics} == {"CS227"}
            refused += 1
            continue
        found = edge_circuit(drawn.graph(own), FILE, everywhere=positions == "all")
        expected = oracle.kept_edges(net, prompt, drawn.paths, drawn.members, drawn.free, positions)
        assert kept_tokens(found, prompt) == {e: where for e, where in expected.items() if where}, drawn.spec
        nothing = oracle.kept_edges(net, prompt, [], {}, drawn.free, positions)
        assert edge_tokens(outside_edges(drawn.graph(own)), prompt) == nothing
        compared += 1
    assert compared > 20
    assert refused > 5


@pytest.mark.parametrize("positions", ["declared", "all"])
@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama"])
def test_a_circuit_keeps_all_that_is_kept_with_nothing_declared(family: str, positions: str) -> None:
    """Edge by edge and position by position, also where `input` is in a group: what is declared only adds edges."""
    own = shape(family)
    (prompt,) = distinct([6])
    compared = narrowed = 0
    for seed in range(200, 280):
        drawn = draw(own, seed, start=True)
        graph = drawn.graph(own)
        try:
            found = edge_circuit(graph, FILE, everywhere=positions == "all")
        except CircuitspecError:
            continue
        kept, nothing = kept_tokens(found, prompt), edge_tokens(outside_edges(graph), prompt)
        assert all(where <= kept.get(e, set()) for e, where in nothing.items()), drawn.spec
        assert {e: kept[e] for e in nothing if e[0] == ("input",)} == {
            e: set(range(6)) for e in nothing if e[0] == ("input",)
        }
        compared += bool(nothing)
        narrowed += bool(nothing) and drawn.members[("input",)] is not None
    assert compared > 10
    assert narrowed > 4


def test_input_in_a_group_is_input_named_at_its_positions() -> None:
    """At edge level a group of `input` is a name for it: both ways of writing keep the same edges."""
    grouped = circuit(["names -> a0.h0<v> -> logits"], ("m*",), names=(["input"], ["A"]), one=(["a0.h0"], "END"))
    named = circuit(["input@A -> a0.h0<v> -> logits"], ("m*",), one=(["a0.h0"], "END"))
    assert grouped.kept == named.kept
    assert grouped.declared == named.declared


def circuit(paths: list[str], free: tuple[str, ...] = (), own: ModelShape | None = None, **groups: Any) -> EdgeCircuit:
    nodes = {name: {"nodes": nodes, "at": at} for name, (nodes, at) in groups.items()}
    spec = Drawn(CircuitSpec.model_validate({"groups": nodes, "free": free, "paths": paths}), [], {}, [])
    return edge_circuit(spec.graph(own or small()), FILE)


def test_a_free_component_is_kept_everywhere_wherever_a_path_names_it() -> None:
    found = circuit(["one -> m0@END -> logits"], ("m0",), one=(["a0.h0"], "END"))
    assert found.kept[Receiver(Logits())] == {Mlp(0): EVERYWHERE}
    assert found.kept[Receiver(Mlp(0))] == {Input(): EVERYWHERE, Head(0, 0): Where.at("END")}


def test_the_input_reaches_free_components_everywhere_whatever_its_group_says() -> None:
    found = circuit(["names -> a0.h0<v>"], ("m*",), names=(["input"], ["A", "B"]))
    assert found.kept[Receiver(Mlp(1))] == {Input(): EVERYWHERE, Head(0, 0): EVERYWHERE, Mlp(0): EVERYWHERE}
    assert found.kept[Receiver(KvHead(0, 0), "v")] == {Input(): Where.at("A", "B")}
    elsewhere = circuit(["input@A -> a0.h0<v>"], ("m*",), one=(["a0.h0"], "END"))
    assert elsewhere.kept[Receiver(Mlp(0))] == {Input(): EVERYWHERE, Head(0, 0): Where.at("END")}


def test_a_kv_head_of_the_circuit_is_a_receiver_and_its_query_heads_are_not_parts_of_it() -> None:
    grouped = small(n_heads=4, n_kv_heads=2)
    found = circuit(["a0.h0 -> a1.kv1", "a1.h3 -> logits"], ("m*",), grouped, one=(["a1.kv1"], None))
    assert found.free[Receiver(KvHead(1, 1), "k")] == {Mlp(0): EVERYWHERE}
    assert found.free[Receiver(Head(1, 3), "q")] == {Mlp(0): EVERYWHERE}
    assert Receiver(Head(1, 2), "q") not in found.free
    assert Receiver(KvHead(1, 0), "k") not in found.free
    assert Head(1, 2) not in found.free[Receiver(Mlp(1))]


def test_components_that_nothing_feeds() -> None:
    assert unfed_of(["a0.h0 -> a1.h1<q> -> logits"]) == ("a0.h0",)
    assert unfed_of(["input -> a0.h0<v>", "a0.h0 -> a1.h1<q> -> logits"]) == ()
    assert unfed_of(["a0.h0, m0 -> a1.h1 -> logits", "a1.h0 -> logits"]) == ("a0.h0", "m0", "a1.h0")
    assert unfed_of(["a0.h0, m0 -> a1.h1 -> logits", "a1.h0 -> logits"], ("m0",)) == ("a0.h0",)


def unfed_of(paths: list[str], free: tuple[str, ...] = ()) -> tuple[str, ...]:
    spec = CircuitSpec.model_validate({"groups": {"one": {"nodes": ["a1.h1"]}}, "paths": paths, "free": free})
    graph = Drawn(spec, [], {}, []).graph(small())
    return unfed(edge_circuit(graph, FILE), graph)


# ------------------------------------------------------------------------------------------------------------ pruning


def reachable(own: ModelShape, carried: set[tuple[Sender, Receiver]]) -> frozenset[Receiver]:
    """Receivers from which something gets to the logits: through what computes from them, and edges that carry it."""
    graph = nx.DiGraph()
    graph.add_nodes_from(receivers(own))
    for sender, receiver in carried:
        computing = [sender]
        if isinstance(sender, Head) and own.heads_hang_together:  # a norm mixes a layer's heads
            computing = [Head(sender.layer, h) for h in range(own.n_heads)]
        for one in computing:
            if not isinstance(one, Input):
                graph.add_edges_from((read, receiver) for read in inputs_of(one, (), own))
    return frozenset({Receiver(Logits()), *nx.ancestors(graph, Receiver(Logits()))})


@pytest.mark.parametrize("share", [0.03, 0.1, 0.3])
@pytest.mark.parametrize("family", FAMILIES)
def test_live_receivers_are_those_that_reach_the_logits(family: str, share: float) -> None:
    own = shape(family)
    assert own.plain_sum == architecture_named(family).plain_sum
    edges = every_edge(own)
    rng = np.random.default_rng(len(family))
    for _ in range(10):
        kept: dict[Receiver, dict[Sender, Where]] = {}
        cut: dict[Receiver, dict[Sender, Where]] = {}
        carried, left = set(), set()
        for sender, receiver in edges:
            where = EVERYWHERE if rng.random() < 0.5 else Where.at("A")
            if rng.random() < share:
                kept.setdefault(receiver, {})[sender] = where
                carried.add((sender, receiver))
            if rng.random() < 1 - share:
                cut.setdefault(receiver, {})[sender] = where
            if cut.get(receiver, {}).get(sender) != EVERYWHERE:  # at some position it carries its own value
                left.add((sender, receiver))
        assert live_receivers(kept, own) == reachable(own, carried)
        assert live_receivers(None, own, cut) == reachable(own, left)
    assert live_receivers({}, own) == {Receiver(Logits())}
    assert live_receivers(None, own) == set(receivers(own))
