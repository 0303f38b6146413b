"""One circuit under every combination of the six choices: which runs that is, and which combinations say nothing."""

from __future__ import annotations

import pytest

from circuitspec.experiments.circuits.method_grid import (
    CHOICES,
    Method,
    MethodRun,
    Methods,
    all_values,
    combinations,
    own_method,
    plan_methods,
)
from circuitspec.experiments.experiment import Experiment, Noised, Source
from circuitspec.experiments.levels import edge_level, node_level
from circuitspec.graph.circuit_graph import CircuitGraph, lay_out
from circuitspec.graph.edge_circuit import edge_circuit
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.load_file import Document, parse_hypothesis
from circuitspec.hypothesis_file.schema.blocks import AblationSpec
from tests.graph.test_circuit import FILE, SHAPE

CIRCUIT = "{groups: {one: {nodes: [a0.h1], at: END}, two: {nodes: [a2.h0]}}, paths: [one -> two<q> -> logits]%s}"
OWN = Method("node", "resample", "abc", "declared", "noising", "complement")
ABC, CLEAN = Source("resample", "abc"), Source("resample", "clean")


def laid(circuit: str = CIRCUIT % "", **changed: object) -> tuple[CircuitGraph, AblationSpec, Document]:
    document = parse_hypothesis(FILE.format(circuit=circuit), "t.circuit.yaml")
    graph = lay_out(document.hypothesis.circuit, SHAPE, document.source)
    return graph, document.hypothesis.ablation.model_copy(update=changed), document


def every(circuit: str = CIRCUIT % "", corruptions: tuple[str, ...] = ("abc", "flip"), **changed: object) -> Methods:
    graph, ablation, document = laid(circuit, **changed)
    own = own_method(ablation)
    return plan_methods(own, all_values(ablation, corruptions), ablation, graph, document.source)


def test_all_combinations_are_run_or_left_out_with_a_reason() -> None:
    found = every()
    # 3 levels, 2 sets of positions, 2 patched sets; noising with 3 values from 2 corruptions or with zeros, denoising
    # into 2 corruptions
    assert len(found.runs) == 3 * 2 * 2 * ((3 * 2 + 1) + 2)
    reasons = {(one.method.direction, one.method.ablation): one.reason for one in found.left_out}
    assert reasons == {("denoising", "zero"): "zero ablation has no corrupt prompts to restore anything in"}
    assert found.runs[0].method == found.own == OWN
    methods = [run.method for run in found.runs] + [one.method for one in found.left_out]
    assert len(set(methods)) == len(methods)


def by_method(found: Methods) -> dict[Method, MethodRun]:
    return {run.method: run for run in found.runs}


def test_directions_and_sets_at_node_level() -> None:
    graph, ablation, _ = laid()
    found = by_method(every())
    inside = node_level.circuit_positions(ablation, graph)
    outside = {c: ~inside.get(c, Where.at()) for c in graph.claimed}
    patched = {
        (direction, set_): found[Method("node", "resample", "flip", "declared", direction, set_)]
        for direction in ("noising", "denoising")
        for set_ in ("complement", "circuit")
    }
    flip = Source("resample", "flip")
    assert patched["noising", "complement"].patched == node_level.ablating(flip, outside)
    assert patched["noising", "circuit"].patched == node_level.ablating(flip, inside)
    assert patched["denoising", "circuit"].patched == node_level.denoising("flip", inside)
    left = {c: where for c, where in outside.items() if not where.is_nowhere}
    assert patched["denoising", "complement"].patched == node_level.denoising("flip", left)
    assert {run.corrupt for run in patched.values()} == {Experiment("flip")}
    assert {run.clean for run in patched.values()} == {Experiment("clean")}


def test_edges_in_both_directions() -> None:
    graph, _, document = laid()
    declared = edge_circuit(graph, document.source).declared
    found = by_method(every())
    noised = found[Method("edge", "resample", "abc", "declared", "noising", "circuit")].patched
    restored = found[Method("edge", "resample", "abc", "declared", "denoising", "circuit")].patched
    assert noised == edge_level.ablating(declared, ABC, SHAPE)
    assert (restored.base, restored.source, restored.readings) == ("abc", CLEAN, noised.readings)
    assert restored == edge_level.restoring(graph.paths, "abc", SHAPE)


def test_means_and_zeros_are_measured_from_the_ablated_model() -> None:
    graph, _, _ = laid()
    everywhere = {c: Where.everywhere() for c in graph.claimed}
    for run in every().runs:
        method = run.method
        if (method.level, method.direction) != ("node", "noising"):
            continue
        if method.ablation == "resample":
            assert run.corrupt == Experiment(method.corruption or "")
        else:
            source = Source("zero", None) if method.ablation == "zero" else Source(method.ablation, method.corruption)
            assert run.corrupt == node_level.ablating(source, everywhere)


def test_what_has_clean_values() -> None:
    keeps = {(m.direction, m.set): m.keeps_circuit for m in (run.method for run in every().runs)}
    assert keeps == {
        ("noising", "complement"): True,
        ("denoising", "circuit"): True,
        ("noising", "circuit"): False,
        ("denoising", "complement"): False,
    }


def reasons(found: Methods) -> dict[str, str]:
    return {one.method.level: one.reason for one in found.left_out if one.method.ablation != "zero"}


@pytest.mark.parametrize(
    ("circuit", "level", "said"),
    [
        ("{groups: {one: {nodes: [a0.h1]}}}", "edge", "edge level is about declared paths, and there are none"),
        ("{groups: {one: {nodes: [m1.n2]}}, paths: [m1.n2 -> logits]}", "edge", "m1.n2 has no edges"),
        (CIRCUIT % ", free: [a1.h1]", "path", "at path level a1.h1 is sent along a path or frozen, and cannot be free"),
        ("{groups: {one: {nodes: [r1]}}, paths: [a0.h1 -> logits]}", "node", "what lies outside r1 is not defined"),
    ],
)
def test_levels_that_the_circuit_does_not_allow(circuit: str, level: str, said: str) -> None:
    assert said in reasons(every(circuit))[level]


def test_noise_is_tried_where_the_file_adds_it() -> None:
    found = every(value="gaussian", source=None, at="A", std=2.0, draws=3)
    assert found.own == Method("node", "gaussian", None, "declared", "noising", "complement")
    noised = [run for run in found.runs if run.method.ablation == "gaussian"]
    assert {run.method.direction for run in noised} == {"noising", "denoising"}
    own = found.runs[0]
    assert own.patched.source == Source("resample", Noised(2.0, Where.at("A"), 3, 0))
    means = [run.patched for run in found.runs if run.method.ablation == "mean"]
    assert {run.source for run in means} == {Source("mean", "abc"), Source("mean", "flip")}
    assert all(run.method.corruption is None for run in noised)  # it is added to the clean prompts


def test_clean_values_into_the_clean_run_say_nothing() -> None:
    found = every(value="mean", source="clean")
    said = {(one.method.ablation, one.method.direction): one.reason for one in found.left_out}
    assert said["resample", "noising"] == "clean values into the clean run change nothing"
    assert by_method(found)[found.own].patched.source == Source("mean", "clean")


def test_only_what_is_wanted_is_varied() -> None:
    graph, ablation, document = laid()
    wanted = {"ablation": ("mean", "zero"), "positions": ("all",)}
    assert combinations(OWN, wanted) == (
        OWN,
        Method("node", "mean", "abc", "all", "noising", "complement"),
        Method("node", "zero", None, "all", "noising", "complement"),
    )
    found = plan_methods(OWN, wanted, ablation, graph, document.source)
    assert [OWN.differences(run.method) for run in found.runs] == [
        (),
        ("ablation", "positions"),
        ("ablation", "corruption", "positions"),
    ]
    assert set(found.labels) == {run for one in found.runs for run in (one.patched, one.clean, one.corrupt)}


def test_methods_that_the_prompts_do_not_allow_are_dropped() -> None:
    found = every()
    of_means = [run for run in found.labels if run.source == Source("mean", "abc")]
    less = found.without(dict.fromkeys(of_means, "prompts differ in length"))
    lost = [one for one in less.left_out if one.reason == "prompts differ in length"]
    assert len(lost) == 3 * 2 * 2
    assert {(one.method.ablation, one.method.corruption) for one in lost} == {("mean", "abc")}
    assert len(less.runs) == len(found.runs) - len(lost)


def test_methods_in_words() -> None:
    assert str(OWN) == "node level, noising the complement, resample from abc, declared positions"
    zeros = Method("edge", "zero", None, "all", "noising", "circuit")
    assert str(zeros) == "edge level, noising the circuit, zero, all positions"
    denoised = Method("node", "resample", "abc", "declared", "denoising", "circuit")
    assert str(denoised) == "node level, denoising the circuit, clean values into abc, declared positions"
    assert [denoised.value(choice) for choice in CHOICES] == [
        "node",
        "clean values",
        "abc",
        "declared",
        "denoising",
        "circuit",
    ]
