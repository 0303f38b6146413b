"""Claims that several runs decide: gates, and what components trace."""

from __future__ import annotations

import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.experiments.experiment import Experiment, Site, Source
from circuitspec.experiments.planner import Plan, make_plan
from circuitspec.graph.circuit_graph import lay_out
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head
from circuitspec.hypothesis_file.load_file import parse_hypothesis
from tests.graph.test_circuit import FILE, SHAPE

CIRCUIT = "{groups: {one: {nodes: [a0.h1], at: END}, two: {nodes: [a2.h0]}}, free: ['m*'], paths: [one -> two<q>]}"
GATE = "  - gate: {nodes: [%s], is: and, metric: logit_diff}\n"
TRACES = "  - traces: {nodes: [one], to: [%s], metric: logit_diff}\n"
CLEAN, ABC = Experiment("clean"), Experiment("abc")
RESAMPLE = "{value: resample, from: abc}"


def plan(claims: str, ablation: str = RESAMPLE, corruptions: tuple[str, ...] | None = None, more: str = "") -> Plan:
    text = FILE.format(circuit=CIRCUIT).replace(RESAMPLE, ablation) + claims
    text = text.replace("abc: {A: $names, B: $names}", f"abc: {{A: $names, B: $names}}{more}")
    document = parse_hypothesis(text, "t.circuit.yaml")
    graph = lay_out(document.hypothesis.circuit, SHAPE, document.source)
    return make_plan(document.hypothesis, graph, document.source, corruptions)


def heads(*sites: tuple[int, int, str]) -> frozenset[Site]:
    return frozenset(Site(Head(a, h), Where.at(at) if at else Where.everywhere()) for a, h, at in sites)


ONE, OTHER = heads((0, 1, "END")), heads((1, 1, "A"))


@pytest.mark.parametrize("level", ["node", "edge", "path"])
def test_a_gate_takes_six_runs_at_node_level(level: str) -> None:
    ablation = f"{{value: mean_per_template, from: abc, level: {level}}}"
    text = GATE % "one, a1.h1@A"
    if level == "path":  # where nothing is free, and paths end in logits
        text = FILE.format(
            circuit=CIRCUIT.replace("one -> two<q>", "one -> two<q> -> logits").replace(", free: ['m*']", "")
        )
        document = parse_hypothesis(text.replace(RESAMPLE, ablation) + GATE % "one, a1.h1@A", "t.circuit.yaml")
        made = make_plan(
            document.hypothesis, lay_out(document.hypothesis.circuit, SHAPE, document.source), document.source
        )
    else:
        made = plan(text, ablation)
    planned = made.claims[1]
    assert planned.gate is not None
    means, clean = Source("mean_per_template", "abc"), Source("resample", "clean")
    sections = (ONE, OTHER, ONE | OTHER)
    assert planned.gate.noised == tuple(Experiment("clean", means, sites) for sites in sections)
    assert planned.gate.denoised == tuple(Experiment("abc", clean, sites) for sites in sections)
    assert (planned.clean, planned.corrupt) == (CLEAN, ABC)
    assert planned.patched == planned.gate.noised[2]
    assert planned.runs == (CLEAN, ABC, *planned.gate.noised, *planned.gate.denoised)
    assert [made.labels[run] for run in planned.gate.noised] == ["one noised", "a1.h1@A noised", "one, a1.h1@A noised"]
    assert made.labels[planned.gate.denoised[2]] == "one, a1.h1@A restored"
    assert set(planned.runs) <= set(made.experiments)
    assert set(planned.anchored.values()) == {(CLEAN, ABC)}


def test_positions_all_holds_for_the_groups_of_gates_and_traces() -> None:
    """What is written in the claim stays where it says."""
    made = plan(GATE % "one, a1.h1@A", "{value: resample, from: abc, positions: all}")
    assert made.claims[1].patched.sites == heads((0, 1, ""), (1, 1, "A"))
    for named, at in (("one", ""), ("a0.h1@A", "A"), ("a0.h1", "")):
        traced = plan((TRACES % "abc").replace("one", named), "{value: resample, from: abc, positions: all}")
        assert traced.claims[1].patched.sites == heads((0, 1, at))


def test_tracing_noises_from_one_corruption_after_another() -> None:
    made = plan(TRACES % "abc", "{value: mean, from: abc}", more=", flip: {A: =B, B: =A}")
    planned = made.claims[1]
    found = {one.corruption: (one.expected, one.noised, one.corrupt) for one in planned.traced}
    assert found == {
        "abc": (True, Experiment("clean", Source("resample", "abc"), ONE), ABC),
        "flip": (False, Experiment("clean", Source("resample", "flip"), ONE), Experiment("flip")),
    }
    assert (planned.clean, planned.corrupt, planned.patched) == (CLEAN, ABC, found["abc"][1])
    assert planned.anchored == {found["abc"][1]: (CLEAN, ABC), found["flip"][1]: (CLEAN, Experiment("flip"))}
    assert made.labels[found["flip"][1]] == "one noised from flip"
    assert made.labels[Experiment("flip")] == "flip"
    assert planned.falls


def test_under_zero_ablation_the_reference_is_the_ablated_model() -> None:
    made = plan(TRACES % "abc", "{value: zero}")
    assert made.labels[made.claims[1].corrupt] == "all ablated"


def test_corruptions_are_those_of_the_prompts_where_they_are_known() -> None:
    planned = plan(TRACES % "abc", corruptions=("other", "abc")).claims[1]
    assert [(one.corruption, one.expected) for one in planned.traced] == [("other", False), ("abc", True)]


@pytest.mark.parametrize(
    ("claims", "ablation", "code", "said"),
    [
        (GATE % "one, a0.h1@END", RESAMPLE, "CS223", "a0.h1 is declared twice"),
        (GATE % "one, a0.h1@A", RESAMPLE.replace("}", ", positions: all}"), "CS223", "a0.h1 is declared twice"),
        (GATE % "one, one", RESAMPLE, "CS223", "a0.h1 is declared twice"),
        (GATE % "one, m1", RESAMPLE, "CS222", "m1 is free"),
        (GATE % "one, a5.h0", RESAMPLE, "CS220", "a5.h0"),
        (GATE % "one, two", "{value: zero}", "CS509", "`zero` ablation has no corrupt prompts"),
        (TRACES.replace("[one]", "[m1]") % "abc", RESAMPLE, "CS222", "m1 is free"),
    ],
)
def test_claims_that_cannot_be(claims: str, ablation: str, code: str, said: str) -> None:
    with pytest.raises(CircuitspecError) as error:
        plan(claims, ablation)
    (finding,) = error.value.diagnostics
    assert (finding.code, said in finding.message) == (code, True)
    assert finding.span is not None


def test_a_corruption_that_the_prompts_do_not_have() -> None:
    with pytest.raises(CircuitspecError) as error:
        plan(TRACES % "abc", corruptions=("swap",))
    (finding,) = error.value.diagnostics
    assert (finding.code, finding.message) == ("CS508", "the prompts have no corruption `abc`")
    assert finding.hint == "they have: swap"
    assert finding.span is not None
    assert finding.span.line == len((FILE.format(circuit=CIRCUIT) + TRACES).splitlines())
