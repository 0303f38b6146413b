"""Taking subsets out of a circuit: which runs that are, at node and at edge level."""

from __future__ import annotations

import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.experiments.circuits.subset_runs import (
    Cuts,
    complete_trials,
    cuts_of,
    drawn,
    minimal_trials,
    other_groups,
    refuse_parts,
)
from circuitspec.experiments.experiment import Experiment, Site, Source
from circuitspec.experiments.levels.node_level import circuit_positions
from circuitspec.graph.circuit_graph import CircuitGraph, lay_out
from circuitspec.graph.edge_circuit import edge_circuit
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Mlp
from circuitspec.hypothesis_file.load_file import parse_hypothesis
from circuitspec.hypothesis_file.schema.blocks import AblationSpec
from circuitspec.hypothesis_file.schema.claim_block import SubsetSearch
from circuitspec.hypothesis_file.schema.claims.complete_block import Complete
from circuitspec.hypothesis_file.schema.claims.minimal_block import MinimalSearch
from tests.graph.test_circuit import FILE, SHAPE

# 3 layers of 2 heads; a0.h1 plays two roles, each at a position of its own
CIRCUIT = "{groups: {one: {nodes: [a0.h1, a1.h0], at: END}, two: {nodes: [a2.h0, a0.h1@A]}}, free: ['m*'], paths: [%s]}"
NODES = ("a0.h1@END", "a0.h1@A", "a1.h0@END", "a2.h0")
ABC, MEANS = Source("resample", "abc"), Source("mean", "abc")


def laid(paths: str = "", text: str = CIRCUIT) -> tuple[CircuitGraph, AblationSpec]:
    document = parse_hypothesis(FILE.format(circuit=text % paths), "t.circuit.yaml")
    return lay_out(document.hypothesis.circuit, SHAPE, document.source), document.hypothesis.ablation


def at_nodes(**changed: object) -> Cuts:
    graph, ablation = laid()
    ablation = ablation.model_copy(update=changed)
    kept = circuit_positions(ablation, graph)
    return cuts_of(graph, ABC, kept, None, pinned=ablation.positions == "all")


def named(cuts: Cuts, *names: str) -> tuple:
    return tuple(node for node in cuts.nodes if node.name in names)


def heads(experiment: Experiment) -> dict[str, str]:
    found = {}
    for site in experiment.sites:
        assert isinstance(site.component, Head)
        found[f"a{site.component.layer}.h{site.component.head}"] = site.where.canonical()
    return found


def test_a_component_is_a_node_in_each_of_its_groups() -> None:
    cuts = at_nodes()
    assert tuple(node.name for node in cuts.nodes) == NODES
    assert [node.group for node in cuts.nodes] == ["one", "two", "one", "two"]


def test_with_positions_all_it_is_one_node() -> None:
    cuts = at_nodes(positions="all")
    assert tuple(node.name for node in cuts.nodes) == ("a0.h1", "a1.h0", "a2.h0")


def test_taking_nothing_out_is_the_circuit_and_the_model() -> None:
    cuts = at_nodes()
    outside = {"a0.h0": "*", "a0.h1": "-@{A,END}", "a1.h0": "-@END", "a1.h1": "*", "a2.h1": "*"}
    assert heads(cuts.circuit_without(())) == outside
    assert cuts.model_without(()) == Experiment("clean")


def test_a_node_is_taken_out_at_its_positions() -> None:
    """a0.h1 stays at A; a2.h0 goes everywhere."""
    cuts = at_nodes()
    out = named(cuts, "a0.h1@END", "a2.h0")
    everything = {"a0.h0": "*", "a0.h1": "-@A", "a1.h0": "-@END", "a1.h1": "*", "a2.h0": "*", "a2.h1": "*"}
    assert heads(cuts.circuit_without(out)) == everything
    assert heads(cuts.model_without(out)) == {"a0.h1": "@END", "a2.h0": "*"}
    assert cuts.model_without(out).source == ABC


def test_all_of_it_leaves_nothing() -> None:
    cuts = at_nodes()
    every = {f"a{layer}.h{head}": "*" for layer in range(3) for head in range(2)}
    assert heads(cuts.circuit_without(cuts.nodes)) == every
    assert heads(cuts.model_without(cuts.nodes)) == {"a0.h1": "@{A,END}", "a1.h0": "@END", "a2.h0": "*"}


def edges(experiment: Experiment) -> set[tuple[str, str, str]]:
    found = set()
    for reading in experiment.readings:
        receiver = f"{type(reading.receiver.component).__name__}{getattr(reading.receiver.component, 'layer', '')}"
        if isinstance(reading.receiver.component, Head):
            receiver = f"a{reading.receiver.component.layer}.h{reading.receiver.component.head}"
        for sent in reading.senders:
            sender = "input"
            if isinstance(sent.component, Head):
                sender = f"a{sent.component.layer}.h{sent.component.head}"
            elif isinstance(sent.component, Mlp):
                sender = f"m{sent.component.layer}"
            found.add((sender, receiver, sent.where.canonical()))
    return found


def at_edges() -> Cuts:
    text = CIRCUIT.replace(", free: ['m*']", "")
    graph, ablation = laid("one -> two<q>, two -> logits, a1.h0@END -> logits", text)
    document = parse_hypothesis(FILE.format(circuit=text % "one -> logits"), "t.circuit.yaml")
    kept = edge_circuit(graph, document.source).kept
    return cuts_of(graph, MEANS, circuit_positions(ablation, graph), kept, pinned=False)


def test_at_edge_level_a_node_goes_with_the_edges_that_leave_it() -> None:
    cuts = at_edges()
    whole, less = edges(cuts.circuit_without(())), edges(cuts.circuit_without(named(cuts, "a1.h0@END")))
    # a1.h0 is kept into the query of a2.h0 and into the logits at END, and so ablated everywhere else
    assert {("a1.h0", "a2.h0", "-@END"), ("a1.h0", "Logits", "-@END")} <= whole
    assert {("a1.h0", "a2.h0", "*"), ("a1.h0", "Logits", "*")} <= less
    # what a1.h0 reads makes no difference then; all else is as it was
    assert {receiver for _, receiver, _ in whole} - {receiver for _, receiver, _ in less} == {"a1.h0", "KvHead1"}
    others = {edge for edge in whole if edge[0] != "a1.h0" and edge[1] not in ("a1.h0", "KvHead1")}
    assert others == {edge for edge in less if edge[0] != "a1.h0"}


def test_at_edge_level_the_model_loses_every_edge_that_leaves_the_node() -> None:
    """a1.h0 sends to its layer's MLP, to layer 2 and to the logits."""
    cuts = at_edges()
    out = cuts.model_without(named(cuts, "a1.h0@END"))
    readers = {(receiver, where) for sender, receiver, where in edges(out) if sender == "a1.h0"}
    assert readers == {
        ("Mlp1", "@END"),
        ("a2.h0", "@END"),
        ("a2.h1", "@END"),
        ("KvHead2", "@END"),
        ("Mlp2", "@END"),
        ("Logits", "@END"),
    }
    assert {sender for sender, _, _ in edges(out)} == {"a1.h0"}
    assert sum(len(reading.senders) for reading in out.readings) == 1 + 2 + 2 * 2 + 1 + 1  # MLPs, q, k and v, logits


@pytest.mark.parametrize("pinned", [False, True])
def test_at_edge_level_what_paths_alone_name_is_taken_out_too(pinned: bool) -> None:
    """a1.h1 is in no group, and a0.h1 also sends from A, where its group is not; a2.h1 sends nothing that is read."""
    text = "{groups: {one: {nodes: [a0.h1], at: END}}, free: [m0], paths: [%s]}"
    paths = "input -> one<q> -> a1.h1<v>@A -> logits, 'a0.h1@A -> a2.h1<q>', 'a0.h1@A -> logits', m0 -> logits"
    graph, ablation = laid(paths, text)
    document = parse_hypothesis(FILE.format(circuit=text % paths), "t.circuit.yaml")
    kept = edge_circuit(graph, document.source, everywhere=pinned).kept
    cuts = cuts_of(graph, MEANS, circuit_positions(ablation, graph), kept, pinned=pinned)
    names = [node.name for node in cuts.nodes]
    assert names == (["a0.h1", "a1.h1@A"] if pinned else ["a0.h1@END", "a0.h1@A", "a1.h1@A"])
    left = {(s, r, w) for s, r, w in edges(cuts.circuit_without(cuts.nodes)) if s.startswith("a") and r == "Logits"}
    assert {where for _, _, where in left} == {"*"}  # no head is kept anywhere
    assert len(left) == 3 * 2


def test_completeness_tries_each_set_once() -> None:
    trials = complete_trials(at_nodes(), SubsetSearch(random=3, greedy=2, candidates=2, seed=5))
    names = [one.name for one in trials.subsets]
    assert names[:4] == ["nothing", "all of it", "one", "two"]
    assert len({frozenset(one.taken) for one in trials.subsets}) == len(trials.subsets)
    assert [node.name for node in trials.subsets[2].taken] == ["a0.h1@END", "a1.h0@END"]
    assert trials.most_runs == 2 * 2 * 2  # circuit and model, two steps, two candidates
    assert trials.labels[trials.subsets[2].circuit] == "circuit without one"
    assert trials.labels[trials.subsets[2].model] == "model without one"
    assert complete_trials(at_nodes(), SubsetSearch(groups=False, random=0)).runs == tuple(
        dict.fromkeys(
            run
            for taken in ((), at_nodes().nodes)
            for run in (at_nodes().circuit_without(taken), at_nodes().model_without(taken))
        )
    )


def test_minimality_tries_nothing_and_the_rest_of_the_group_first() -> None:
    cuts = at_nodes()
    trials = minimal_trials(cuts, MinimalSearch(random=3, greedy=2, candidates=2))
    tried = {(one.node.name, one.name): [node.name for node in one.taken] for one in trials.removals}
    assert tried["a1.h0@END", "nothing"] == []
    assert tried["a1.h0@END", "rest of one"] == ["a0.h1@END"]
    assert len(tried) == 2 * len(NODES)
    (one,) = (r for r in trials.removals if (r.node.name, r.name) == ("a1.h0@END", "rest of one"))
    assert heads(one.before)["a1.h0"] == "-@END"
    assert heads(one.after)["a1.h0"] == "*"
    assert one.before == cuts.circuit_without(named(cuts, "a0.h1@END"))
    assert one.after == cuts.circuit_without(named(cuts, "a0.h1@END", "a1.h0@END"))
    # the other group once, and with each node; 3 random sets likewise; two steps of two candidates, two runs each
    assert trials.most_runs == (1 + 3) + 4 * (1 + 3 + 2 * 2 * 2)
    assert list(other_groups(cuts, cuts.nodes[0])) == ["two"]


def test_random_subsets_take_every_node_with_even_odds() -> None:
    nodes = at_nodes().nodes
    sets = drawn(nodes, 4000, seed=1)
    for node in nodes:
        share = sum(node in one for one in sets) / len(sets)
        assert abs(share - 0.5) < 5 * (0.25 / len(sets)) ** 0.5
    assert sets == drawn(nodes, 4000, seed=1)
    assert sets != drawn(nodes, 4000, seed=2)


def test_parts_without_an_outside_are_refused() -> None:
    graph, _ = laid(text="{groups: {one: {nodes: [a0.h1, r1]}}, paths: [%s]}")
    document = parse_hypothesis(FILE.format(circuit="{groups: {one: {nodes: [a0.h1, r1]}}}"), "t.circuit.yaml")
    with pytest.raises(CircuitspecError) as error:
        refuse_parts(Complete(metric="logit_diff", at_most=0.1), 0, graph, document.source)
    (finding,) = error.value.diagnostics
    assert (finding.code, "r1" in finding.message) == ("CS224", True)


def test_sites_outside_are_what_sufficiency_ablates() -> None:
    """By hand: the claimed heads without the positions at which the circuit has them."""
    sites = at_nodes().circuit_without(()).sites
    assert Site(Head(1, 0), Where.except_at("END")) in sites
    assert not any(isinstance(site.component, Mlp) for site in sites)  # they are free
