"""Which experiments a hypothesis becomes."""

from __future__ import annotations

import pytest

from circuitspec.diagnostics import CircuitspecError
from circuitspec.graph.circuit import lay_out
from circuitspec.graph.where import Where
from circuitspec.plan.experiment import Experiment, Site, Source
from circuitspec.plan.planner import Plan, make_plan, restored
from circuitspec.spec.components import Head, Mlp
from circuitspec.spec.load import parse_hypothesis
from tests.graph.test_circuit import FILE, SHAPE

CIRCUIT = "{groups: {one: {nodes: [a0.h1], at: END}, two: {nodes: [a2.h0]}}, free: ['m*']}"


def plan(circuit: str = CIRCUIT, ablation: str = "{value: resample, from: abc}", claims: str = "") -> Plan:
    text = FILE.format(circuit=circuit).replace("{value: resample, from: abc}", ablation) + claims
    document = parse_hypothesis(text, "t.circuit.yaml")
    return make_plan(document.hypothesis, lay_out(document.hypothesis.circuit, SHAPE, document.source), document.source)


NECESSARY = "  - necessary: {metric: logit_diff, at_most: 0.3}\n"
OTHERS = {Head(0, 0), Head(1, 0), Head(1, 1), Head(2, 1)}


def test_sufficient_noises_the_complement_and_necessary_the_circuit() -> None:
    made = plan(claims=NECESSARY)
    source = Source("resample", "abc")
    everywhere = frozenset(Site(h, Where.everywhere()) for h in OTHERS)
    sufficient = Experiment("clean", source, everywhere | {Site(Head(0, 1), Where.except_at("END"))})
    necessary = Experiment(
        "clean", source, frozenset({Site(Head(0, 1), Where.at("END")), Site(Head(2, 0), Where.everywhere())})
    )
    assert [c.patched for c in made.claims] == [sufficient, necessary]
    assert dict(made.labels) == {
        Experiment("clean"): "clean",
        Experiment("abc"): "corrupt",
        sufficient: "circuit",
        necessary: "circuit ablated",
    }
    assert {e.direction for e in (sufficient, necessary)} == {"noising"}


def test_positions_all_keeps_the_circuit_everywhere() -> None:
    made = plan(ablation="{value: resample, from: abc, positions: all}", claims=NECESSARY)
    assert made.circuit.sites == {Site(h, Where.everywhere()) for h in OTHERS}
    assert made.claims[1].patched.sites == {Site(h, Where.everywhere()) for h in (Head(0, 1), Head(2, 0))}


def test_mean_ablation_has_the_fully_ablated_model_as_anchor() -> None:
    made = plan(ablation="{value: mean_per_template, from: abc}")
    heads = frozenset(Site(Head(a, h), Where.everywhere()) for a in range(3) for h in range(2))
    assert made.corrupt == Experiment("clean", Source("mean_per_template", "abc"), heads)
    assert made.labels[made.corrupt] == "all ablated"


def test_mlps_are_noised_unless_free() -> None:
    made = plan(circuit="{groups: {one: {nodes: [a0.h1, m1], at: END}}, free: [m0]}")
    assert {s.component for s in made.circuit.sites if isinstance(s.component, Mlp)} == {Mlp(1), Mlp(2)}


def test_a_circuit_that_is_the_whole_model_is_the_clean_run() -> None:
    made = plan(circuit="{groups: {one: {nodes: ['a*.h*']}}, free: ['m*']}")
    assert made.circuit == Experiment("clean")
    assert made.labels[made.circuit] == "clean"


def test_restoring_takes_a_component_out_of_the_patch() -> None:
    made = plan()
    more = restored(made.circuit, frozenset({Head(1, 1), Head(0, 1)}))
    assert {s.component for s in more.sites} == OTHERS - {Head(1, 1)}
    assert restored(made.circuit, frozenset(OTHERS | {Head(0, 1)})) == Experiment("clean")


def test_equal_claims_share_their_run() -> None:
    made = plan(claims="  - sufficient: {metric: kl, at_least: 0.2}\n")
    assert made.claims[0].patched == made.claims[1].patched
    assert len(made.experiments) == 3


@pytest.mark.parametrize(
    ("ablation", "claims"),
    [
        ("{value: resample, from: abc, level: edge}", ""),
        ("{value: zero}", ""),
        ("{value: resample, from: abc}", "  - cross_section: {nodes: [one], metric: logit_diff, at_least: 0.8}\n"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_runs(ablation: str, claims: str) -> None:
    with pytest.raises(CircuitspecError) as error:
        plan(ablation=ablation, claims=claims)
    (finding,) = error.value.diagnostics
    assert finding.code == "CS500"
    assert finding.span is not None


def test_an_experiment_without_sites_has_no_source() -> None:
    with pytest.raises(ValueError, match="source"):
        Experiment("clean", Source("resample", "abc"))


def test_the_digest_depends_on_content_alone() -> None:
    one, two = plan().circuit, plan(circuit=CIRCUIT.replace("one", "uno")).circuit
    assert one.digest == two.digest
    assert one.digest != restored(one, frozenset({Head(1, 1)})).digest
