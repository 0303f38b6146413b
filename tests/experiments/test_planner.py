"""Which experiments a hypothesis becomes."""

from __future__ import annotations

import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.experiments.experiment import Experiment, Noised, Site, Source, passes
from circuitspec.experiments.levels.node_level import restored
from circuitspec.experiments.planner import Plan, make_plan
from circuitspec.graph.circuit_graph import lay_out
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, KvHead, Mlp, Neuron, Resid
from circuitspec.hypothesis_file.load_file import parse_hypothesis
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


SECTION = "  - cross_section: {nodes: [%s], metric: logit_diff, at_least: 0.8}\n"


def test_a_cross_section_restores_its_nodes_in_the_corrupt_run() -> None:
    made = plan(claims=SECTION % 'one, a1.h1@A, "r2@{A,END}"')
    sites = {
        Site(Head(0, 1), Where.at("END")),
        Site(Head(1, 1), Where.at("A")),
        Site(Resid(2), Where.at("A", "END")),
    }
    planned = made.claims[1]
    assert planned.patched == Experiment("abc", Source("resample", "clean"), frozenset(sites))
    assert (planned.clean, planned.corrupt) == (Experiment("clean"), Experiment("abc"))
    assert planned.patched.direction == "denoising"
    assert made.labels[planned.patched] == "one, a1.h1@A, r2@{A,END} restored"


def test_under_mean_ablation_a_cross_section_starts_from_the_corrupt_prompts() -> None:
    made = plan(ablation="{value: mean_per_template, from: abc}", claims=SECTION % "two")
    sufficient, section = made.claims
    assert section.patched == Experiment(
        "abc", Source("resample", "clean"), frozenset({Site(Head(2, 0), Where.everywhere())})
    )
    assert section.corrupt == Experiment("abc")
    assert made.labels[section.corrupt] == "corrupt"
    assert made.corrupt == sufficient.corrupt
    assert made.labels[made.corrupt] == "all ablated"


def test_positions_all_restores_groups_everywhere_and_keeps_positions_written_in_the_claim() -> None:
    made = plan(ablation="{value: resample, from: abc, positions: all}", claims=SECTION % "one, a1.h1@A")
    assert made.claims[1].patched.sites == {Site(Head(0, 1), Where.everywhere()), Site(Head(1, 1), Where.at("A"))}


def test_under_positions_all_claims_about_other_positions_are_other_runs() -> None:
    """Each under its own name; runs are the same only where the positions are."""
    entries = {"a0.h1@A": Where.at("A"), "a0.h1@END": Where.at("END"), "a0.h1": Where.everywhere()}
    claims = "".join(SECTION % entry for entry in (*entries, "one"))
    made = plan(ablation="{value: resample, from: abc, positions: all}", claims=claims)
    for planned, (entry, where) in zip(made.claims[1:], entries.items(), strict=False):
        assert planned.patched.sites == {Site(Head(0, 1), where)}
        assert made.labels[planned.patched] == f"{entry} restored"
    assert made.claims[4].patched == made.claims[3].patched  # the group's head at all positions


def test_only_what_claims_ask_for_is_run() -> None:
    text = FILE.format(circuit="{groups: {one: {nodes: [r1, a1.kv1], at: A}}}")
    text = text.replace("  - sufficient: {metric: logit_diff, at_least: 0.8}\n", SECTION % "one" + NECESSARY)
    document = parse_hypothesis(text, "t.circuit.yaml")
    graph = lay_out(document.hypothesis.circuit, SHAPE, document.source)
    made = make_plan(document.hypothesis, graph, document.source)
    sites = frozenset({Site(Resid(1), Where.at("A")), Site(KvHead(1, 1), Where.at("A"))})
    assert list(made.labels.values()) == ["clean", "corrupt", "one restored", "circuit ablated"]
    assert made.claims[0].patched == Experiment("abc", Source("resample", "clean"), sites)
    assert made.claims[1].patched == Experiment("clean", Source("resample", "abc"), sites)
    assert made.corrupt == Experiment("abc")


def test_zero_ablation_has_the_fully_ablated_model_as_anchor() -> None:
    made = plan(ablation="{value: zero}")
    heads = frozenset(Site(Head(a, h), Where.everywhere()) for a in range(3) for h in range(2))
    assert made.corrupt == Experiment("clean", Source("zero", None), heads)
    assert made.circuit.source == Source("zero", None)
    assert made.variants == ("clean",)


def test_noise_stands_in_for_the_corrupt_prompts() -> None:
    made = plan(ablation="{value: gaussian, at: [A, END], std: 2, draws: 4, seed: 7}", claims=SECTION % "two")
    noised = Noised(2.0, Where.at("A", "END"), 4, 7)
    assert made.corrupt == Experiment(noised)
    assert made.circuit.source == Source("resample", noised)
    assert made.claims[1].patched.base == noised
    assert made.claims[1].patched.source == Source("resample", "clean")
    assert {e.draws for e in made.experiments} == {1, 4}
    assert made.variants == ("clean", noised)
    default = plan(ablation="{value: gaussian, at: A}")
    assert default.corrupt == Experiment(Noised(3.0, Where.at("A"), 10, 0))
    assert default.circuit.digest != made.circuit.digest


def test_neurons_are_noised_one_by_one() -> None:
    made = plan(circuit="{groups: {one: {nodes: [m1.n3], at: END}}, free: [m0, m2, 'a*']}")
    assert made.circuit.sites == {
        Site(Neuron(1, 3), Where.except_at("END")),
        *(Site(Neuron(1, i), Where.everywhere()) for i in range(16) if i != 3),
    }


@pytest.mark.parametrize(
    ("claims", "ablation", "code", "said"),
    [
        (SECTION % "one", "{value: zero}", "CS509", "`zero` ablation has no corrupt prompts"),
        (SECTION % "a3.h0", "", "CS220", "a3.h0"),
        (SECTION % "m1.n16", "", "CS220", "m1.n16"),
        (SECTION % "r3", "", "CS220", "r3"),
        (SECTION % "a1.kv2", "", "CS220", "a1.kv2"),
        (SECTION % "m1", "", "CS222", "m1 is free"),
        (SECTION % "m1.n4", "", "CS222", "m1 is free, so it is never patched, and this claim patches m1.n4"),
        (SECTION % "two, a2.h0@A", "", "CS223", "a2.h0 is declared twice, by two and by a2.h0@A"),
        (SECTION % "two, a2.kv0@A", "", "CS223", "a2.kv0 is read by a2.h0"),
        (SECTION % "a2.h0, a2", "", "CS223", "a2.h0 is declared twice"),
    ],
)
def test_cross_sections_that_cannot_be(claims: str, ablation: str, code: str, said: str) -> None:
    with pytest.raises(CircuitspecError) as error:
        plan(ablation=ablation or "{value: resample, from: abc}", claims=claims)
    (finding,) = error.value.diagnostics
    assert finding.code == code
    assert said in finding.message
    assert finding.span is not None


@pytest.mark.parametrize("name", ["r1", "a1.kv1", "input"])
def test_what_has_no_outside_cannot_be_sufficient(name: str) -> None:
    with pytest.raises(CircuitspecError) as error:
        plan(circuit="{groups: {one: {nodes: [a0.h1, NAME], at: END}}}".replace("NAME", name))
    (finding,) = error.value.diagnostics
    assert finding.code == "CS224"
    assert name in finding.message


def test_the_cost_counts_every_pass() -> None:
    zero, mean, resample = (
        plan(ablation=a, claims=NECESSARY)
        for a in ("{value: zero}", "{value: mean, from: abc}", "{value: resample, from: abc}")
    )
    assert passes(zero.experiments) == 1 + 3  # clean; all ablated, circuit, circuit ablated
    assert passes(mean.experiments) == 1 + 1 + 3  # and the mean
    assert passes(resample.experiments) == 2 + 2  # clean, abc; circuit, circuit ablated
    noisy = plan(ablation="{value: gaussian, at: A, draws: 4}", claims=NECESSARY)
    assert passes(noisy.experiments) == 1 + 4 + 2 * 4
    source = mean.circuit.source
    assert source is not None
    assert passes(mean.experiments, frozenset({source})) == 1 + 3


def test_zeros_come_from_no_prompts() -> None:
    with pytest.raises(ValueError, match="zeros"):
        Source("zero", "abc")
    with pytest.raises(ValueError, match="zeros"):
        Source("mean", None)


def test_an_experiment_without_sites_has_no_source() -> None:
    with pytest.raises(ValueError, match="source"):
        Experiment("clean", Source("resample", "abc"))


def test_the_digest_depends_on_content_alone() -> None:
    one, two = plan().circuit, plan(circuit=CIRCUIT.replace("one", "uno")).circuit
    assert one.digest == two.digest
    assert one.digest != restored(one, frozenset({Head(1, 1)})).digest
