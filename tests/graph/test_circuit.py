"""Laying a circuit over a model, and arithmetic on positions."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.graph.circuit_graph import CircuitGraph, lay_out
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Input, KvHead, Mlp, Neuron, Resid
from circuitspec.hypothesis_file.load_file import parse_hypothesis

SHAPE = ModelShape("gpt2", n_layers=3, n_heads=2, n_kv_heads=2, d_model=8, d_head=4, d_mlp=16, n_vocab=50)

FILE = """
circuitspec: 1
name: test
model: {{id: somewhere/model}}
task:
  templates: ["{{A}} and {{B}} then {{A}}"]
  slots: {{A: $names, B: $names}}
  lists: {{names: [x, y, z, u, v]}}
  answer: " {{B}}"
  wrong: " {{A}}"
  corruptions: {{abc: {{A: $names, B: $names}}}}
  positions: {{END: last}}
  prompts: 5
circuit: {circuit}
ablation: {{value: resample, from: abc}}
claims:
  - sufficient: {{metric: logit_diff, at_least: 0.8}}
"""


def graph(circuit: str) -> CircuitGraph:
    document = parse_hypothesis(FILE.format(circuit=circuit), "t.circuit.yaml")
    return lay_out(document.hypothesis.circuit, SHAPE, document.source)


def findings(circuit: str) -> list[tuple[str, int | None, str]]:
    with pytest.raises(CircuitspecError) as error:
        graph(circuit)
    return [(d.code, d.span.line if d.span else None, d.message) for d in error.value.diagnostics]


def test_members_free_and_the_rest() -> None:
    laid = graph("{groups: {one: {nodes: [a0.h1, m1], at: END}, two: {nodes: [a2], at: [A, END]}}, free: [m0, m2]}")
    assert laid.circuit == {
        Head(0, 1): Where.at("END"),
        Mlp(1): Where.at("END"),
        Head(2, 0): Where.at("A", "END"),
        Head(2, 1): Where.at("A", "END"),
    }
    assert laid.free == {Mlp(0), Mlp(2)}
    assert laid.claimed == (Head(0, 0), Head(0, 1), Head(1, 0), Head(1, 1), Mlp(1), Head(2, 0), Head(2, 1))
    assert len(laid.universe) == 3 * (2 + 1)


def test_patterns_expand() -> None:
    laid = graph("{groups: {one: {nodes: ['a[0-1].h1', 'm*']}}}")
    assert set(laid.circuit) == {Head(0, 1), Head(1, 1), Mlp(0), Mlp(1), Mlp(2)}
    assert all(where.is_everywhere for where in laid.circuit.values())


def test_a_component_in_two_groups_is_kept_at_the_positions_of_both() -> None:
    laid = graph("{groups: {one: {nodes: [a0.h1], at: A}, two: {nodes: [a0.h1], at: END}}}")
    assert laid.circuit == {Head(0, 1): Where.at("A", "END")}


def test_what_the_model_does_not_have() -> None:
    found = findings("{groups: {one: {nodes: [a3.h0, a0.h2, a0.h1, m3]}}, free: ['a[1-4].h0']}")
    assert [code for code, _, _ in found] == ["CS220"] * 4
    assert [message for _, _, message in found] == [
        "the model has no a3.h0",
        "the model has no a0.h2",
        "the model has no m3",
        "the model has no a[1-4].h0",
    ]
    assert [line for _, line, _ in found] == [14] * 4


def test_everything_that_can_be_patched() -> None:
    laid = graph("{groups: {one: {nodes: [m1.n3, a0.kv1, r1, r2.mid, input], at: A}, two: {nodes: ['m0.n[4-5]', a1]}}}")
    at_a = dict.fromkeys([Neuron(1, 3), KvHead(0, 1), Resid(1), Resid(2, mid=True), Input()], Where.at("A"))
    everywhere = dict.fromkeys([Neuron(0, 4), Neuron(0, 5), Head(1, 0), Head(1, 1)], Where.everywhere())
    assert laid.circuit == at_a | everywhere


def test_an_mlp_of_which_a_neuron_is_named_stands_as_its_neurons() -> None:
    laid = graph("{groups: {one: {nodes: [m1.n3]}}, free: [m0, 'm2.n[0-14]']}")
    mlps = [Neuron(1, i) for i in range(16)] + [Neuron(2, 15)]
    assert set(laid.claimed) == {*(Head(layer, h) for layer in range(3) for h in range(2)), *mlps}
    assert len(laid.universe) == 3 * 2 + 1 + 16 + 16


def test_what_node_level_does_not_patch() -> None:
    assert findings("{groups: {one: {nodes: ['sae:res.f3']}}}")[0][0] == "CS183"  # no such dictionary
    for name in ("r1", "a0.kv0", "input"):
        ((code, _, message),) = findings("{groups: {one: {nodes: [a0.h0]}}, free: [" + name + "]}")
        assert code == "CS221"
        assert name in message


def test_a_stream_that_parallel_blocks_do_not_have() -> None:
    parallel = dataclasses.replace(SHAPE, has_resid_mid=False)
    document = parse_hypothesis(FILE.format(circuit="{groups: {one: {nodes: [r1, r1.mid]}}}"), "t.circuit.yaml")
    with pytest.raises(CircuitspecError) as error:
        lay_out(document.hypothesis.circuit, parallel, document.source)
    (finding,) = error.value.diagnostics
    assert finding.code == "CS225"
    assert "r2" in finding.hint


@pytest.mark.parametrize(
    ("circuit", "said"),
    [
        ("{groups: {one: {nodes: [m1, m1.n3]}}}", "m1.n3 is part of m1"),
        ("{groups: {one: {nodes: [m1.n3], at: A}, two: {nodes: [m1], at: END}}}", "m1 contains m1.n3"),
        ("{groups: {one: {nodes: [a1.kv0], at: A}, two: {nodes: [a1.h0], at: [A, END]}}}", "a1.h0 reads a1.kv0"),
        ("{groups: {one: {nodes: [a1.h1]}, two: {nodes: [a1.kv1], at: A}}}", "a1.kv1 is read by a1.h1"),
        ("{groups: {one: {nodes: [a1], at: A}, two: {nodes: [a1.kv1], at: A}}}", "a1.kv1 is read by a1.h1"),
        ("{groups: {one: {nodes: [input], at: A}, two: {nodes: [r0]}}}", "r0 is the same as input"),
        ("{groups: {one: {nodes: ['a*.h0']}, two: {nodes: ['a[1-2].h*']}}}", "a1.h0 is declared twice"),
        ("{groups: {one: {nodes: [a0.h0]}}, free: [m1, 'm1.n3']}", "m1 is free"),
    ],
)
def test_declarations_that_overlap(circuit: str, said: str) -> None:
    ((code, _, message),) = findings(circuit)
    assert code == "CS223"
    assert said in message


@pytest.mark.parametrize(
    "circuit",
    [
        "{groups: {one: {nodes: [a1.h1], at: A}, two: {nodes: [a1], at: END}}}",
        "{groups: {one: {nodes: [a1.kv1], at: A}, two: {nodes: [a1.h1], at: END}}}",
        "{groups: {one: {nodes: [a1.kv1, a1.h0]}}}",
        "{groups: {one: {nodes: [input], at: A}, two: {nodes: [r0], at: END}}}",
        "{groups: {one: {nodes: [m1.n3]}, two: {nodes: [m0, r1]}}}",
    ],
)
def test_declarations_that_do_not(circuit: str) -> None:
    assert graph(circuit).circuit


def test_a_head_and_its_whole_layer() -> None:
    """The same error as for any component that is declared twice; it needs no model."""
    with pytest.raises(CircuitspecError) as error:
        graph("{groups: {one: {nodes: [a1.h1]}, two: {nodes: [a1]}}}")
    assert [d.code for d in error.value.diagnostics] == ["CS201"]


@pytest.mark.parametrize(
    ("circuit", "said"),
    [
        ("{groups: {one: {nodes: [m1.n3]}}, free: ['m*']}", "m1 is free here and its neuron m1.n3 is declared"),
        ("{groups: {one: {nodes: [m1]}}, free: [m1.n3]}", "m1.n3 is free here and its MLP is declared"),
    ],
)
def test_an_mlp_is_free_whole_or_not(circuit: str, said: str) -> None:
    ((code, _, message),) = findings(circuit)
    assert code == "CS222"
    assert said in message


def test_free_and_declared() -> None:
    ((code, _, message),) = findings("{groups: {one: {nodes: [a0.h1, m1]}}, free: ['m*']}")
    assert code == "CS222"
    assert "m1" in message
    assert "one" in message


@pytest.mark.parametrize(
    "left", [Where.at("A"), Where.at("A", "B"), Where.except_at("A"), Where.everywhere(), Where.at()]
)
@pytest.mark.parametrize("right", [Where.at("B"), Where.except_at("B", "C"), Where.everywhere(), Where.at()])
def test_positions_are_a_set_algebra(left: Where, right: Where) -> None:
    """Against plain sets, over tokens that carry any combination of roles."""
    roles = ("A", "B", "C")
    tokens = [frozenset(c) for n in range(2) for c in itertools.combinations(roles, n)]  # at most one role a token

    def points(where: Where) -> set[frozenset[str]]:
        return {t for t in tokens if bool(t & where.roles) != where.inverted}

    assert points(~left) == set(tokens) - points(left)
    assert points(left | right) == points(left) | points(right)
    assert (~~left) == left
    assert left.meets(right) == right.meets(left)
    assert not points(left) & points(right) or left.meets(right)


def test_positions_meet() -> None:
    assert Where.at("A", "B").meets(Where.at("B", "C"))
    assert Where.everywhere().meets(Where.at("A"))
    assert Where.except_at("A").meets(Where.except_at("B"))
    assert Where.except_at("A").meets(Where.at("A", "B"))
    assert not Where.except_at("A").meets(Where.at("A"))
    assert not Where.at("A").meets(Where.at("B"))  # different roles are taken for different tokens
    assert not Where.everywhere().meets(Where.at())
