"""Declared paths over a model: what each hop names and where, the edges between hops, and what cannot be."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.graph.circuit_graph import CircuitGraph, lay_out
from circuitspec.graph.edge_circuit import edge_circuit
from circuitspec.graph.edges import Edge, Receiver
from circuitspec.graph.paths import Impossible, Stop, edges_of, everywhere, merged
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Input, KvHead, Logits, Mlp
from circuitspec.hypothesis_file.load_file import Document, parse_hypothesis
from tests.graph.test_circuit import FILE, SHAPE

EVERYWHERE = Where.everywhere()
END, A = Where.at("END"), Where.at("A")
PARALLEL = dataclasses.replace(SHAPE, has_resid_mid=False)
GROUPED = dataclasses.replace(SHAPE, n_heads=4)


def document(circuit: str) -> Document:
    return parse_hypothesis(FILE.format(circuit=circuit), "t.circuit.yaml")


def laid_out(*paths: str, groups: str = "{one: {nodes: [a0.h1], at: END}}", shape: Any = SHAPE) -> CircuitGraph:
    given = document(f"{{groups: {groups}, paths: {[*paths]}}}")
    return lay_out(given.hypothesis.circuit, shape, given.source)


def hops(*paths: str, **given: Any) -> tuple[tuple[Stop, ...], ...]:
    (path,) = laid_out(*paths, **given).paths
    return path.hops


def test_a_component_acts_where_the_path_says_else_where_its_groups_do_else_everywhere() -> None:
    groups = "{one: {nodes: [a0.h1, m0], at: END}, again: {nodes: [a0.h1], at: A}, two: {nodes: [a2]}}"
    assert hops("a0.h1@B, a0.h1, one, m1 -> two<k,v>, a2.h1<q>@{A,B} -> logits", groups=groups) == (
        (
            Stop(Head(0, 1), (), Where.at("B"), written=True),
            Stop(Head(0, 1), (), Where.at("A", "END")),  # of both of its groups
            Stop(Head(0, 1), (), END),  # of this one
            Stop(Mlp(0), (), END),
            Stop(Mlp(1), (), EVERYWHERE),
        ),
        (
            Stop(Head(2, 0), ("k", "v"), EVERYWHERE),
            Stop(Head(2, 1), ("k", "v"), EVERYWHERE),
            Stop(Head(2, 1), ("q",), Where.at("A", "B"), written=True),
        ),
        (Stop(Logits(), (), EVERYWHERE),),
    )


def test_ranges_wildcards_and_layers_stand_for_their_components() -> None:
    first, second, third = hops("a[0-1].h0, m* -> a2<v> -> logits")
    assert [stop.component for stop in first] == [Head(0, 0), Head(1, 0), Mlp(0), Mlp(1), Mlp(2)]
    assert [(stop.component, stop.ports) for stop in second] == [(Head(2, 0), ("v",)), (Head(2, 1), ("v",))]
    assert [stop.component for stop in third] == [Logits()]


def test_positions_of_edges() -> None:
    """Where the sender writes; queries and MLPs read at their own positions, keys, values and logits anywhere."""
    groups = "{late: {nodes: [a1.h0, m1], at: [END, A]}}"
    path = laid_out("input@A -> late", groups=groups).paths[0]
    kv = [Receiver(KvHead(1, 0), port) for port in ("k", "v")]  # type: ignore[arg-type]
    own = [Receiver(Head(1, 0), "q"), Receiver(Mlp(1))]
    assert edges_of(path, SHAPE) == (tuple(Edge(Input(), r, A) for r in (own[0], *kv, own[1])), ())
    path = laid_out("a0.h1 -> late", groups=groups).paths[0]  # that writes everywhere
    assert set(edges_of(path, SHAPE)[0]) == {
        *(Edge(Head(0, 1), r, EVERYWHERE) for r in kv),
        *(Edge(Head(0, 1), r, Where.at("A", "END")) for r in own),
    }
    path = laid_out("late -> logits", groups=groups).paths[0]
    assert {edge.where for edge in edges_of(path, SHAPE)[0]} == {Where.at("A", "END")}


def test_pairs_that_are_no_edges_and_why() -> None:
    senders = '{nodes: ["a0.h1@END", a2.h0, "m1@A"]}'
    (path,) = laid_out("some -> a1.h0<k>, a2.h1<q>@END, m2@{A,B}", groups=f"{{some: {senders}}}").paths
    edges, impossible = edges_of(path, SHAPE)
    k, q, mlp = Receiver(KvHead(1, 0), "k"), Receiver(Head(2, 1), "q"), Receiver(Mlp(2))
    assert set(edges) == {
        Edge(Head(0, 1), k, END),
        Edge(Head(0, 1), q, END),
        Edge(Head(2, 0), mlp, Where.at("A", "B")),
        Edge(Mlp(1), mlp, A),
    }
    place = ("circuit", "paths", 0)
    early, apart = "does not come before it", "writes at {}, and that reads at {}"
    assert set(impossible) == {
        Impossible("a0.h1", "m2", apart.format("END", "A and B"), place, out_of_order=False),
        Impossible("a2.h0", "a1.h0<k>", early, place, out_of_order=True),
        Impossible("a2.h0", "a2.h1<q>", early, place, out_of_order=True),
        Impossible("m1", "a1.h0<k>", early, place, out_of_order=True),
        Impossible("m1", "a2.h1<q>", apart.format("A", "END"), place, out_of_order=False),
    }


def test_where_groups_act_everywhere_their_positions_keep_no_edges_apart() -> None:
    groups = "{one: {nodes: [a0.h1], at: END}, two: {nodes: [m0, a1.h0], at: A}}"
    (path,) = laid_out("a0.h1 -> m0", groups=groups).paths
    assert edges_of(path, SHAPE)[0] == ()
    assert edges_of(everywhere(path), SHAPE) == ((Edge(Head(0, 1), Receiver(Mlp(0)), EVERYWHERE),), ())
    graph = laid_out("a0.h1 -> m0, a1.h0<q> -> logits", groups=groups)
    with pytest.raises(CircuitspecError):
        edge_circuit(graph, document("{groups: {one: {nodes: [a0.h1]}}}").source)
    kept = edge_circuit(graph, document("{groups: {one: {nodes: [a0.h1]}}}").source, everywhere=True)
    assert (kept.n_declared, kept.impossible) == (4, ())
    assert {where for by_sender in kept.kept.values() for where in by_sender.values()} == {EVERYWHERE}


def test_positions_written_in_a_path_hold_where_groups_act_everywhere() -> None:
    """The head of a group acts everywhere where its name stands alone, and where it is told otherwise there alone."""
    head, mlp = Head(0, 1), Receiver(Mlp(0))
    for text, where in (("a0.h1", EVERYWHERE), ("one", EVERYWHERE), ("a0.h1@A", A), ("a0.h1@{A,END}", A | END)):
        (path,) = laid_out(f"{text} -> m0").paths
        assert edges_of(everywhere(path), SHAPE) == ((Edge(head, mlp, where),), ())
        assert everywhere(everywhere(path)) == everywhere(path)
    (reader,) = laid_out("one -> m0@A").paths  # an MLP reads where it acts
    assert edges_of(everywhere(reader), SHAPE)[0] == (Edge(head, mlp, A),)
    (apart,) = laid_out("a0.h1@END -> m0@A").paths
    found, (impossible,) = edges_of(everywhere(apart), SHAPE)
    assert found == ()
    assert impossible.reason == "writes at END, and that reads at A"
    source = document("{groups: {one: {nodes: [a0.h1]}}}").source
    with pytest.raises(CircuitspecError) as error:
        edge_circuit(laid_out("a0.h1@END -> m0@A -> logits"), source, everywhere=True)
    assert {finding.code for finding in error.value.diagnostics} == {"CS227"}


def test_an_edge_declared_twice_lies_at_the_positions_of_both() -> None:
    paths = laid_out("a0.h1 -> m1", "a0.h1@A -> a1.h0, m1@{A,B}").paths
    found = merged([edge for path in paths for edge in edges_of(path, SHAPE)[0]])
    assert found[Receiver(Mlp(1))] == {Head(0, 1): Where.at("A", "END")}


def test_a_query_head_stands_for_its_kv_head() -> None:
    (path,) = laid_out("a0.h1 -> a1.h3<k>, a1.h2<k>, a1.kv1<v>", shape=GROUPED).paths
    k, v = Receiver(KvHead(1, 1), "k"), Receiver(KvHead(1, 1), "v")
    assert set(edges_of(path, GROUPED)[0]) == {Edge(Head(0, 1), k, END), Edge(Head(0, 1), v, END)}


# ------------------------------------------------------------------------------------------------------------- CS220


def test_a_path_names_what_the_model_does_not_have() -> None:
    with pytest.raises(CircuitspecError) as error:
        laid_out("a0.h1 -> a1.h7<q>", "m[0-9] -> logits")
    assert [(d.code, d.message, d.hint) for d in error.value.diagnostics] == [
        (
            "CS220",
            "the model has no a1.h7",
            "its 3 layers are a0 to a2, each with 2 heads, h0 to h1 (counted from 0)",
        ),
        ("CS220", "the model has no m[0-9]", "its 3 MLPs are m0 to m2 (counted from 0)"),
    ]


# ---------------------------------------------------------------------------------------------------- CS226 and CS227


def refused(circuit: str, shape: Any = SHAPE) -> list[tuple[str, str, str, str]]:
    """Code, message, the underlined text and hint of each finding."""
    given = document(circuit)
    with pytest.raises(CircuitspecError) as error:
        edge_circuit(lay_out(given.hypothesis.circuit, shape, given.source), given.source)
    return [(d.code, d.message, underlined(d, given), d.hint) for d in error.value.diagnostics]


def underlined(finding: Diagnostic, given: Document) -> str:
    assert finding.span is not None
    line = given.source.lines[finding.span.line - 1]
    end = finding.span.end_column
    return line[finding.span.column - 1 : None if end is None else end - 1]


BETWEEN = "edges and paths lie between heads, MLPs, input and logits"
STREAM = "name the heads and MLPs that write to the stream, or those that read it"
ORDER = "order the hops as the model computes them, and give both ends a common position"


@pytest.mark.parametrize(
    ("path", "message", "hint"),
    [
        ("a0.h1 -> m1.n3 -> logits", f"m1.n3 cannot stand here: {BETWEEN}", "name its MLP, m1"),
        ("r1 -> logits", f"r1 cannot stand here: {BETWEEN}", STREAM),
        ("a0.h1 -> r1.mid", f"r1.mid cannot stand here: {BETWEEN}", STREAM),
        (
            "a0.h1 -> a1.kv0<k> -> logits",
            "a1.kv0 cannot stand here: keys and values write nothing to the residual stream",
            "name the heads that read them: a path leaves a layer by its heads",
        ),
    ],
)
def test_what_edges_do_not_lie_between(path: str, message: str, hint: str) -> None:
    found = refused(f"{{groups: {{one: {{nodes: [a0.h1]}}}}, paths: ['{path}']}}")
    assert found == [("CS226", message, f"'{path}'", hint)]


def test_the_input_in_the_middle_of_a_path() -> None:
    found = refused(
        "{groups: {one: {nodes: [a0.h1]}, mixed: {nodes: [input, a1.h0]}}, paths: [one -> mixed -> logits]}"
    )
    message = "input cannot stand here: a path starts at `input` and ends at `logits`"
    assert found == [("CS226", message, "one -> mixed -> logits", "write it at that end of the path")]


def test_groups_and_free_components_without_edges() -> None:
    found = refused("{groups: {one: {nodes: [a0.h1, r1]}, two: {nodes: [m1.n3]}}, free: [m0.n2], paths: [a0.h1 -> m1]}")
    message = "{} has no edges: they lie between heads, MLPs, input and logits"
    assert found == [
        ("CS226", message.format("m0.n2"), "[m0.n2]", "name its MLP, m0, or write `level: node`"),
        ("CS226", message.format("m1.n3"), "{nodes: [m1.n3]}", "name its MLP, m1, or write `level: node`"),
        ("CS226", message.format("r1"), "{nodes: [a0.h1, r1]}", f"{STREAM}, or write `level: node`"),
    ]


@pytest.mark.parametrize(
    ("path", "shape", "message"),
    [
        (
            "a0.h1 -> m0 -> logits",
            PARALLEL,
            "there is no edge from a0.h1 to m0: a0.h1 does not come before it",
        ),
        (
            "a0.h1@END, m0@B -> m1@A -> logits",
            SHAPE,
            "there is no edge from a0.h1 to m1: a0.h1 writes at END, and that reads at A (and 1 more)",
        ),
        (
            "a0.h1@{END,B} -> a1.h0<q>@A -> logits",
            SHAPE,
            "there is no edge from a0.h1 to a1.h0<q>: a0.h1 writes at B and END, and that reads at A",
        ),
    ],
)
def test_hops_without_an_edge(path: str, shape: Any, message: str) -> None:
    found = refused(f"{{groups: {{one: {{nodes: [a0.h0]}}}}, paths: ['{path}']}}", shape)
    assert found == [("CS227", message, f"'{path}'", ORDER)]
