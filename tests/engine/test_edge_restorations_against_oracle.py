"""Components restored on top of a circuit of edges: the run in which they have their edges back, against the oracle."""

from __future__ import annotations

import numpy as np
import pytest

from circuitspec.engine.execution.compiler import borrowed
from circuitspec.experiments.experiment import Experiment, Source
from circuitspec.experiments.follow_ups.restorations import restorations
from circuitspec.experiments.levels.edge_level import keeping
from circuitspec.experiments.planner import Plan
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.edge_circuit import EdgeCircuit, Kept, free_edges
from circuitspec.graph.edges import Receiver, Sender
from circuitspec.graph.members import Member
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Input, KvHead, Logits, Mlp
from tests.engine.support import TOLERANCE, loaded, model, runner, task_of
from tests.engine.test_edges_against_oracle import Edges, every_edge, oracle_edges, prompts_for

SOURCE = Source("resample", "abc")
EVERYWHERE, AT_A = Where.everywhere(), Where.at("A")
FIRST, SECOND = Head(0, 0), Head(1, 1)
ACTING: dict[Sender, Where] = {Input(): EVERYWHERE, FIRST: EVERYWHERE, SECOND: AT_A, Mlp(0): EVERYWHERE}


def circuit(shape: ModelShape) -> tuple[CircuitGraph, EdgeCircuit]:
    """Two heads and a free MLP; the second head reads the first one by its queries alone."""
    members = (Member(FIRST, EVERYWHERE, "first", "positive"), Member(SECOND, AT_A, "second", "positive"))
    graph = CircuitGraph(shape, members, frozenset({Mlp(0)}))
    kv = KvHead(0, 0)
    declared: Kept = {
        Receiver(FIRST, "q"): {Input(): EVERYWHERE},
        Receiver(kv, "k"): {Input(): EVERYWHERE},
        Receiver(kv, "v"): {Input(): EVERYWHERE},
        Receiver(SECOND, "q"): {FIRST: EVERYWHERE},
        Receiver(Logits()): {FIRST: EVERYWHERE, SECOND: AT_A},
    }
    return graph, EdgeCircuit(shape, declared, free_edges(graph, {FIRST: EVERYWHERE, SECOND: AT_A}), ())


def readers(receiver: Receiver, shape: ModelShape) -> set[Head | Mlp]:
    component = receiver.component
    if isinstance(component, KvHead):
        return {
            Head(component.layer, h)
            for h in range(shape.n_heads)
            if h * shape.n_kv_heads // shape.n_heads == component.head
        }
    return set() if isinstance(component, Logits) else {component}


def kept_edges(edges: EdgeCircuit, back: set[Sender], shape: ModelShape) -> Edges:
    """The circuit's, and all between a restored component and a part of the circuit, a free one, input or logits."""
    kept: Edges = {(s, r): where for r, by_sender in edges.kept.items() for s, where in by_sender.items()}
    acting = ACTING | dict.fromkeys(back, EVERYWHERE)
    for sender, receiver in every_edge(shape):
        reading = readers(receiver, shape)
        into = bool(reading & back) and sender in acting
        out_of = sender in back and (receiver.component == Logits() or bool(reading & set(acting)))
        if into or out_of:
            kept[sender, receiver] = acting[sender]
    return kept


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_restored_components_have_their_edges_back(family: str) -> None:
    m = model(family, exactly=True)
    shape = loaded(m).shape
    graph, edges = circuit(shape)
    alone = keeping(edges.kept, SOURCE, shape)
    plan = Plan(labels={}, clean=Experiment("clean"), corrupt=Experiment("abc"), circuit=alone, claims=(), edges=edges)
    outside = restorations(plan, graph)
    assert outside is not None
    everything = [Head(layer, h) for layer in range(shape.n_layers) for h in range(shape.n_heads)]
    everything += [Mlp(layer) for layer in range(shape.n_layers)]  # type: ignore[list-item]
    assert set(outside.components) == set(everything) - {FIRST, SECOND, Mlp(0)}
    prompts = prompts_for("resample", seed=11)
    run = runner(m, task_of(prompts), rows=4)
    for back in ({Head(0, 1)}, {Mlp(1)}, {Head(1, 0), Mlp(1)}, set()):
        experiment = outside.with_back(frozenset(back))
        with borrowed(m):
            found = run.run([experiment])[experiment]
        kept = kept_edges(edges, set(back), shape)
        ablated: Edges = {e: ~kept[e] if e in kept else EVERYWHERE for e in every_edge(shape)}
        expected = oracle_edges(m, prompts, {e: w for e, w in ablated.items() if not w.is_nowhere}, SOURCE, "clean")
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=0, atol=TOLERANCE, err_msg=f"{family} {name} {back}")
        assert (experiment == alone) is not bool(back)
