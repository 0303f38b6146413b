"""Random circuits keep the size and the layer profile, whatever is drawn."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.experiments.circuits.circuit_tests import TestRuns, circuit_test_runs
from circuitspec.experiments.circuits.random_circuits import RandomCircuits, exchanged, random_circuits
from circuitspec.experiments.levels.whole_circuit import whole_circuit
from circuitspec.graph.circuit_graph import CircuitGraph, lay_out
from circuitspec.graph.edge_circuit import edge_circuit
from circuitspec.graph.relabel import enlarged, exchange
from circuitspec.graph.shape import ModelShape
from circuitspec.hypothesis_file.grammar.components import Head, KvHead, Mlp, Neuron
from circuitspec.hypothesis_file.load_file import Document, parse_hypothesis
from circuitspec.hypothesis_file.schema.blocks import AblationSpec
from circuitspec.hypothesis_file.yaml.source import SourceText
from tests.graph.test_circuit import FILE, SHAPE

WIDE = replace(SHAPE, n_heads=4, n_kv_heads=4)
GROUPED = replace(WIDE, n_kv_heads=2)
CIRCUIT = (
    "{groups: {one: {nodes: [a0.h1@A, a0.h2@END, m1]}, two: {nodes: [a2.h0]}}, free: [a0.h3, a1.h0, m0], "
    "paths: [one -> two<q>, 'a0.h1@A -> two<k>', two -> logits]}"
)


def laid(circuit: str = CIRCUIT, shape=WIDE) -> tuple[CircuitGraph, Document]:  # type: ignore[no-untyped-def]
    document = parse_hypothesis(FILE.format(circuit=circuit), "t.circuit.yaml")
    return lay_out(document.hypothesis.circuit, shape, document.source), document


def shuffled(graph: CircuitGraph, dice: Random, *, whole_groups: bool) -> CircuitGraph:
    """The circuit with components exchanged in groups and paths, everything else as it was."""
    of = exchange(graph, dice, whole_groups=whole_groups)
    members = tuple(replace(m, component=of.get(m.component, m.component)) for m in graph.members)
    paths = tuple(
        replace(p, hops=tuple(tuple(replace(s, component=of.get(s.component, s.component)) for s in h) for h in p.hops))
        for p in graph.paths
    )
    return replace(graph, members=members, paths=paths)


@pytest.mark.parametrize("level", ["node", "edge", "path"])
@pytest.mark.parametrize("shape", ["wide", "grouped"])
def test_exchanged_experiments_are_those_of_the_exchanged_circuit(level: str, shape: str) -> None:
    free = ", free: [a0.h3, a1.h0, m0]" if level != "path" else ""
    circuit = CIRCUIT.replace(", free: [a0.h3, a1.h0, m0]", free)
    graph, document = laid(circuit, WIDE if shape == "wide" else GROUPED)
    ablation = document.hypothesis.ablation.model_copy(update={"level": level})
    own = whole_circuit(ablation, graph, document.source)
    for seed in range(20):
        other = shuffled(graph, Random(seed), whole_groups=level != "node")
        of = exchange(graph, Random(seed), whole_groups=level != "node")
        expected = whole_circuit(ablation, other, document.source)
        assert exchanged(own.circuit, of) == expected.circuit
        assert exchanged(own.knocked_out, of) == expected.knocked_out
        assert expected.all_ablated == own.all_ablated


@pytest.mark.parametrize("shape", [WIDE, GROUPED], ids=["wide", "grouped"])
def test_what_is_measured_stays_in_its_place_while_the_circuit_is_exchanged(shape: ModelShape) -> None:
    """The receivers of a head inside which something is measured are its own in every circuit, not another head's."""
    laid_out, document = laid(shape=shape)
    graph = replace(laid_out, measured=frozenset({Head(1, 3), Mlp(2)}))
    ablation = document.hypothesis.ablation.model_copy(update={"level": "edge"})
    own = whole_circuit(ablation, graph, document.source)
    found = random_circuits(graph, own, 20, 5, document.source, ("circuit",))
    dice, expected = Random(5), []
    while len(expected) < 20:
        whole = whole_circuit(ablation, shuffled(graph, dice, whole_groups=True), document.source)
        if whole.circuit != own.circuit:
            expected.append((whole.circuit, whole.knocked_out))
    assert list(zip(found.kept, found.knocked_out, strict=True)) == expected


def profile(graph: CircuitGraph) -> Counter[tuple[str, int, str, str]]:
    return Counter(
        (type(m.component).__name__, getattr(m.component, "layer", -1), m.where.canonical(), m.group)
        for m in graph.members
    )


@pytest.mark.parametrize("whole_groups", [True, False])
def test_layers_positions_and_groups_stay(whole_groups: bool) -> None:
    graph, _ = laid()
    dice = Random(3)
    drawn = [shuffled(graph, dice, whole_groups=whole_groups) for _ in range(200)]
    assert {frozenset(profile(one).items()) for one in drawn} == {frozenset(profile(graph).items())}
    assert all(one.free == graph.free for one in drawn)
    assert all(Mlp(1) in one.circuit for one in drawn)
    # of 3 heads that are not free, two are placed in order: 3 * 2 ways; of layer 2 one of 4
    placed = Counter(tuple(m.component for m in one.members) for one in drawn)
    assert len(placed) == 3 * 2 * 4
    assert Head(0, 3) not in {m.component for one in drawn for m in one.members}


def test_every_circuit_is_as_likely() -> None:
    graph, _ = laid("{groups: {one: {nodes: [a2.h0@A, a2.h1@END]}}}")
    dice, n = Random(1), 6000
    seen = Counter(tuple(m.component for m in shuffled(graph, dice, whole_groups=False).members) for _ in range(n))
    assert len(seen) == 4 * 3
    error = (n / 12 * (1 - 1 / 12)) ** 0.5
    assert all(abs(count - n / 12) < 5 * error for count in seen.values())


def test_paths_go_with_their_components() -> None:
    graph, document = laid()
    own = edge_circuit(graph, document.source)
    dice = Random(0)
    for _ in range(20):
        other = shuffled(graph, dice, whole_groups=True)
        found = edge_circuit(other, document.source)
        assert (found.n_declared, found.n_kept) == (own.n_declared, own.n_kept)
        (two,) = (m.component for m in other.members if m.group == "two")
        assert {stop.component for stop in other.paths[0].hops[1]} == {two}
        at_a = next(m.component for m in other.members if m.where.canonical() == "@A")
        assert other.paths[1].hops[0][0].component == at_a


def test_key_value_heads_move_with_the_heads_that_read_them() -> None:
    circuit = "{groups: {one: {nodes: [a2.h0, a2.h1, a1.h2]}}, paths: ['input -> a2.kv0<k>', one -> logits]}"
    graph, document = laid(circuit, GROUPED)
    own = edge_circuit(graph, document.source)
    dice = Random(0)
    for _ in range(30):
        other = shuffled(graph, dice, whole_groups=True)
        layer_2 = {m.component.head for m in other.members if m.component.layer == 2}  # type: ignore[union-attr]
        kv = other.paths[0].hops[1][0].component
        assert isinstance(kv, KvHead)
        assert layer_2 == {2 * kv.head, 2 * kv.head + 1}
        assert edge_circuit(other, document.source).n_kept == own.n_kept


def test_neurons_are_exchanged_within_their_mlp() -> None:
    graph, _ = laid("{groups: {one: {nodes: [m1.n3, m1.n5]}}, free: [m0, m1.n0]}")
    dice, seen = Random(0), set()
    for _ in range(300):
        found = [m.component for m in shuffled(graph, dice, whole_groups=False).members]
        assert len(set(found)) == 2
        seen |= {c.index for c in found if isinstance(c, Neuron) and c.layer == 1}
    assert seen == set(range(1, SHAPE.d_mlp))


def test_the_same_seed_draws_the_same() -> None:
    """By `Random.random` alone, which every version of Python draws alike."""
    graph, _ = laid("{groups: {one: {nodes: [a0.h0, a1.h1, a2.h2]}}}")
    dice = Random(7)
    numbers = Random(7)  # the order of four numbers drawn one after the other decides which head goes where
    order = [[i for _, i in sorted((numbers.random(), i) for i in range(4))] for _ in range(3)]
    found = [m.component for m in shuffled(graph, dice, whole_groups=False).members]
    assert found == [Head(layer, order[layer][layer]) for layer in range(3)]


def test_one_more_does_what_a_node_of_its_layer_does() -> None:
    graph, document = laid()
    own = edge_circuit(graph, document.source)
    added = Counter()
    for seed in range(300):
        larger = enlarged(graph, Random(seed))
        assert larger is not None
        new = larger.members[-1]
        assert new.component not in graph.circuit
        assert new.component not in graph.free
        twin = {m.component for m in graph.members if (m.where, m.group) == (new.where, new.group)}
        assert any(getattr(one, "layer", None) == getattr(new.component, "layer", 0) for one in twin)
        assert edge_circuit(larger, document.source).n_declared > own.n_declared
        added[new.component] += 1
    assert set(added) == {Head(0, 0), Head(2, 1), Head(2, 2), Head(2, 3)}


def test_at_edge_level_what_paths_alone_name_is_not_one_more() -> None:
    """Of the four heads of layer 2 one is in a group and two are in paths alone: the last is added, every time."""
    circuit = "{groups: {one: {nodes: [a2.h0]}}, paths: ['input -> one<q>, a2.h1<v>, a2.h2<v> -> logits']}"
    graph, document = laid(circuit)
    ablation = document.hypothesis.ablation.model_copy(update={"level": "edge"})
    found = runs(circuit, "edge")
    assert isinstance(found, TestRuns)
    member, path = graph.members[0], graph.paths[0]
    start, middle, end = path.hops
    hops = (start, (*middle, replace(middle[0], component=Head(2, 3))), end)
    added = replace(graph, members=(member, replace(member, component=Head(2, 3))), paths=(replace(path, hops=hops),))
    assert set(found.enlarged) == {whole_circuit(ablation, added, document.source).circuit}
    assert list(found.without) == ["a2.h0", "a2.h1", "a2.h2"]


def drawn(circuit: str, count: int = 40, level: str = "node") -> RandomCircuits:
    graph, document = laid(circuit)
    ablation = document.hypothesis.ablation.model_copy(update={"level": level})
    own = whole_circuit(ablation, graph, document.source)
    return random_circuits(graph, own, count, 0, document.source, ("circuit",))


def test_random_circuits_are_others_of_the_same_size() -> None:
    graph, document = laid()
    own = whole_circuit(document.hypothesis.ablation, graph, document.source)
    found = drawn(CIRCUIT)
    assert len(found.kept) == len(found.knocked_out) == 40
    assert own.circuit not in found.kept
    assert {len(run.sites) for run in found.knocked_out} == {len(own.knocked_out.sites)}
    assert found.n_different == len(set(found.kept)) <= 3 * 2 * 4 - 1
    assert found == drawn(CIRCUIT)


@pytest.mark.parametrize("circuit", ["{groups: {one: {nodes: [m1]}}}", "{groups: {one: {nodes: [a1, a2]}}}"])
def test_without_another_circuit_there_is_nothing_to_compare_with(circuit: str) -> None:
    with pytest.raises(CircuitspecError) as error:
        drawn(circuit)
    assert [d.code for d in error.value.diagnostics] == ["CS430"]


def runs(circuit: str, level: str = "node") -> TestRuns | str:
    graph, document = laid(circuit)
    ablation: AblationSpec = document.hypothesis.ablation.model_copy(update={"level": level})
    source: SourceText = document.source
    return circuit_test_runs(ablation, graph, source, circuits=5)


@pytest.mark.parametrize("level", ["node", "edge"])
def test_the_runs_of_all_tests(level: str) -> None:
    found = runs(CIRCUIT, level)
    assert isinstance(found, TestRuns)
    assert (found.not_run, len(found.enlarged)) == ((), 5)
    assert list(found.without) == ["a0.h1@A", "a0.h2@END", "m1", "a2.h0"]
    assert found.rivals is not None
    everything = {
        found.model,
        found.circuit,
        found.knocked_out,
        found.anchor,
        *found.rivals.kept,
        *found.rivals.knocked_out,
        *found.without.values(),
        *found.enlarged,
    }
    assert set(found.labels) == everything


@pytest.mark.parametrize("level", ["node", "edge"])
def test_declared_backups_are_not_tested_for_minimality(level: str) -> None:
    """They make no difference while what they back up is there, and are no less a part of the circuit for it."""
    found = runs(CIRCUIT.replace("nodes: [a2.h0]", "nodes: [a2.h0], effect: backup"), level)
    assert isinstance(found, TestRuns)
    assert list(found.without) == ["a0.h1@A", "a0.h2@END", "m1"]
    (said,) = found.not_run
    assert said.startswith("minimality of a2.h0: declared as backup")


def test_what_cannot_be_tested_is_said() -> None:
    found = runs("{groups: {one: {nodes: [m1]}}}")
    assert isinstance(found, TestRuns)
    assert found.rivals is None
    assert [said.partition(":")[0] for said in found.not_run] == ["sufficiency and partial necessity", "minimality"]
    assert runs("{groups: {one: {nodes: [r1]}}}") == (
        "the circuit holds residual streams, of which nothing can be said to lie outside"
    )


def test_more_circuits_than_a_plan_can_hold_are_refused_before_they_are_drawn() -> None:
    """By their size: 12 layers of 12 heads at node level are a few kilobytes each, edges a hundred times that."""
    graph, document = laid()
    for level, most in (("node", 100_000), ("edge", 20_000)):
        ablation = document.hypothesis.ablation.model_copy(update={"level": level})
        own = whole_circuit(ablation, graph, document.source)
        with pytest.raises(CircuitspecError) as error:
            random_circuits(graph, own, 1_000_000, 0, document.source, ("circuit",))
        (refused,) = error.value.diagnostics
        assert refused.code == "CS173"
        allowed = int(re.sub(r"\D", "", refused.hint))
        assert 1_000 <= allowed <= most * 10
        with pytest.raises(CircuitspecError):
            random_circuits(graph, own, allowed + 1, 0, document.source, ("circuit",))


@pytest.mark.parametrize("level", ["node", "edge"])
def test_draws_share_what_they_patch(level: str) -> None:
    """A component at a place is one object in all draws, so that a plan of many circuits stays small."""
    graph, document = laid()
    own = whole_circuit(document.hypothesis.ablation.model_copy(update={"level": level}), graph, document.source)
    drawn = random_circuits(graph, own, 30, 0, document.source, ("circuit",))
    runs = (*drawn.kept, *drawn.knocked_out)
    patched = [site for run in runs for site in run.sites]
    patched += [sent for run in runs for reading in run.readings for sent in reading.senders]  # type: ignore[misc]
    assert len({id(one) for one in patched}) <= 4 * len(set(patched))
    assert len(patched) > 10 * len(set(patched))


def test_circuits_that_are_not_asked_for_knocked_out_are_not_made() -> None:
    graph, document = laid()
    own = whole_circuit(document.hypothesis.ablation, graph, document.source)
    both = random_circuits(graph, own, 5, 0, document.source, ("circuit",))
    kept = random_circuits(graph, own, 5, 0, document.source, ("circuit",), knocked_out=False)
    assert (kept.kept, kept.knocked_out) == (both.kept, ())
    assert len(both.knocked_out) == 5
