"""Plans of claims about subsets, random circuits and several methods."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from circuitspec.analysis.claims.kinds.beats_random import PlannedRivals
from circuitspec.analysis.claims.kinds.subset_claims import PlannedSubsets
from circuitspec.analysis.claims.registry import make_plan
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.experiments.circuits.additional_runs import plan_beside
from circuitspec.experiments.circuits.circuit_tests import TestRuns
from circuitspec.experiments.experiment import Experiment, Source
from circuitspec.experiments.planner import Plan
from circuitspec.experiments.requirements import fitted
from circuitspec.graph.circuit_graph import lay_out
from circuitspec.hypothesis_file.load_file import Document, parse_hypothesis
from tests.graph.test_circuit import FILE, SHAPE

CIRCUIT = "{groups: {one: {nodes: [a0.h1], at: END}, two: {nodes: [a2.h0]}}, paths: [one -> two<q> -> logits]}"
CLAIM = "  - sufficient: {metric: logit_diff, at_least: 0.8}\n"
RESAMPLE = "{value: resample, from: abc}"


def document(claim: str, circuit: str = CIRCUIT, ablation: str = RESAMPLE) -> Document:
    text = FILE.format(circuit=circuit).replace(CLAIM, f"  - {claim}\n").replace(RESAMPLE, ablation)
    return parse_hypothesis(text, "t.circuit.yaml")


def plan(claim: str, circuit: str = CIRCUIT, ablation: str = RESAMPLE) -> Plan:
    found = document(claim, circuit, ablation)
    graph = lay_out(found.hypothesis.circuit, SHAPE, found.source)
    return make_plan(found.hypothesis, graph, found.source, ["abc", "flip"])


@pytest.mark.parametrize("level", ["node", "edge"])
def test_subsets_are_run_with_the_anchors(level: str) -> None:
    ablation = f"{{value: resample, from: abc, level: {level}}}"
    made = plan("complete: {metric: logit_diff, at_most: 0.1, subsets: {random: 2}}", ablation=ablation)
    (claim,) = made.claims
    assert isinstance(claim, PlannedSubsets)
    assert (claim.measure, claim.clean, claim.corrupt) == ("incompleteness", Experiment("clean"), Experiment("abc"))
    nothing, whole, one, two = claim.trials.subsets[:4]
    assert (nothing.circuit, nothing.model) == (claim.patched, Experiment("clean"))
    assert made.labels[claim.patched] == "circuit"
    assert made.labels[one.circuit] == "circuit without one"
    assert made.labels[two.model] == "model without two"
    assert {whole.circuit.level, one.model.level} == {level}
    assert set(claim.runs) <= set(made.experiments)


def test_a_claim_of_minimality_is_planned_with_its_first_subsets() -> None:
    made = plan("minimal: {metric: logit_diff, at_least: 0.1}")
    (claim,) = made.claims
    assert isinstance(claim, PlannedSubsets)
    assert [(one.node.name, one.name) for one in claim.trials.removals] == [
        ("a0.h1@END", "nothing"),
        ("a2.h0", "nothing"),
    ]
    assert made.labels[claim.trials.removals[0].after] == "circuit without a0.h1@END"
    assert claim.measure == "effect"


def test_random_circuits_are_run_beside_the_circuit() -> None:
    made = plan("beats_random: {metric: logit_diff, circuits: 30}")
    (claim,) = made.claims
    assert isinstance(claim, PlannedRivals)
    assert (claim.measure, len(claim.rivals.kept)) == ("share beaten", 30)
    assert set(claim.runs) == {Experiment("clean"), Experiment("abc"), claim.patched, *claim.rivals.kept}
    assert {label.rpartition(" ")[0] for run, label in made.labels.items() if run in claim.rivals.kept} == {
        "random circuit"
    }


@pytest.mark.parametrize(
    ("claim", "circuit", "code", "said"),
    [
        ("complete: {metric: logit_diff, at_most: 0.1}", "{groups: {one: {nodes: [r1]}}}", "CS224", "`complete`"),
        ("beats_random: {metric: logit_diff}", "{groups: {one: {nodes: [input]}}}", "CS224", "`beats_random`"),
        ("beats_random: {metric: logit_diff}", "{groups: {one: {nodes: [m1]}}}", "CS430", "no random circuits"),
        (
            "sufficient: {metric: logit_diff, at_least: 0.8, robust_to: [level]}",
            "{groups: {one: {nodes: [a0.h1]}}}",
            "CS167",
            "there is no other level to run: edge level is about declared paths, and there are none",
        ),
        (
            "sufficient: {metric: logit_diff, at_least: 0.8, robust_to: {level: [edge]}}",
            "{groups: {one: {nodes: [m1.n2]}}, paths: [m1 -> logits]}",
            "CS167",
            "level edge cannot be run here: m1.n2 has no edges",
        ),
    ],
)
def test_claims_that_this_circuit_does_not_allow(claim: str, circuit: str, code: str, said: str) -> None:
    with pytest.raises(CircuitspecError) as error:
        plan(claim, circuit)
    (finding,) = error.value.diagnostics
    assert (finding.code, said in finding.message) == (code, True), finding.message
    assert finding.span is not None


def test_a_corruption_that_the_prompts_of_a_file_do_not_have() -> None:
    found = document("sufficient: {metric: logit_diff, at_least: 0.8, robust_to: {corruption: [abc]}}")
    graph = lay_out(found.hypothesis.circuit, SHAPE, found.source)
    with pytest.raises(CircuitspecError) as error:
        make_plan(found.hypothesis, graph, found.source, ["other"])
    assert [(d.code, d.hint) for d in error.value.diagnostics] == [("CS508", "they have: other")]


def names(made: Plan) -> set[tuple[str, str | None, str]]:
    methods = made.claims[0].methods
    assert methods is not None
    return {(run.method.ablation, run.method.corruption, run.method.direction) for run in methods.runs}


def test_methods_are_combined() -> None:
    made = plan("sufficient: {metric: logit_diff, at_least: 0.8, robust_to: [ablation, corruption]}")
    values = ("resample", "mean", "mean_per_template")
    assert names(made) == {(v, c, "noising") for v in values for c in ("abc", "flip")} | {("zero", None, "noising")}
    assert {run for one in made.claims for run in one.runs} <= set(made.experiments)
    made = plan("necessary: {metric: logit_diff, at_most: 0.3, robust_to: {direction: [denoising]}}")
    assert names(made) == {("resample", "abc", "noising"), ("resample", "abc", "denoising")}
    methods = made.claims[0].methods
    assert methods is not None
    assert [run.method.set for run in methods.runs] == ["circuit", "complement"]


MEAN = Source("mean", "abc")


def of_means(runs: Iterable[Experiment]) -> dict[Experiment, str]:
    return {run: "lengths differ" for run in runs if run.source == MEAN}


def test_methods_that_the_prompts_do_not_allow_are_left_out() -> None:
    found = document("sufficient: {metric: logit_diff, at_least: 0.8, robust_to: [ablation]}")
    made = plan("sufficient: {metric: logit_diff, at_least: 0.8, robust_to: [ablation]}")
    less = fitted(made, of_means(made.experiments), found.source)
    assert {name[0] for name in names(made)} - {name[0] for name in names(less)} == {"mean"}
    assert not any(run.source == MEAN for run in less.experiments)
    assert any(run.source == MEAN for run in made.experiments)
    methods = less.claims[0].methods
    assert methods is not None
    assert [(one.method.ablation, one.reason) for one in methods.left_out] == [("mean", "lengths differ")]


def test_what_the_file_gives_by_name_must_be_allowed() -> None:
    text = "sufficient: {metric: logit_diff, at_least: 0.8, robust_to: {ablation: [mean]}}"
    with pytest.raises(CircuitspecError) as error:
        fitted(plan(text), of_means(plan(text).experiments), document(text).source)
    assert [(d.code, d.message) for d in error.value.diagnostics] == [
        ("CS167", "ablation mean cannot be run here: lengths differ")
    ]


def test_the_files_own_method_stays_so_that_what_is_wrong_is_told() -> None:
    ablation = "{value: mean, from: abc}"
    text = "sufficient: {metric: logit_diff, at_least: 0.8, robust_to: [ablation]}"
    made = plan(text, ablation=ablation)
    less = fitted(made, of_means(made.experiments), document(text, ablation=ablation).source)
    methods = less.claims[0].methods
    assert methods is not None
    assert methods.runs[0].method == methods.own
    assert less.claims[0].patched.source == MEAN
    assert less.claims[0].patched in less.experiments


def test_what_is_run_beside_the_claims() -> None:
    found = document("sufficient: {metric: logit_diff, at_least: 0.8}")
    graph, ablation = lay_out(found.hypothesis.circuit, SHAPE, found.source), found.hypothesis.ablation
    nothing = plan_beside(ablation, graph, found.source, ["abc"], sweep=False, tests=False)
    assert (nothing.methods, nothing.tests, nothing.labels) == (None, None, {})
    both = plan_beside(ablation, graph, found.source, ["abc"], sweep=True, tests=True, refused=of_means)
    assert both.methods is not None
    assert isinstance(both.tests, TestRuns)
    assert {run for one in both.methods.runs for run in (one.patched, one.corrupt)} <= set(both.labels)
    assert set(both.tests.labels) <= set(both.labels)
    assert "lengths differ" in {one.reason for one in both.methods.left_out}
    none = plan_beside(
        ablation, graph, found.source, ["abc"], sweep=False, tests=True, refused=lambda runs: dict.fromkeys(runs, "why")
    )
    assert none.tests == "why"
    without = plan_beside(ablation, graph, found.source, ["abc"], sweep=True, tests=False, no_edges="heads are fused")
    assert without.methods is not None
    assert {run.method.level for run in without.methods.runs} == {"node"}
    assert {one.method.level for one in without.methods.left_out if one.reason == "heads are fused"} == {"edge", "path"}
