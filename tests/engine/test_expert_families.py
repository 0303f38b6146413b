"""Families with experts: one row of a batch moves no other, and a small case of each layout against the oracle."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoTokenizer

import circuitspec
from circuitspec.cli import main
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import Experiment, Site, Source
from circuitspec.graph.circuit_graph import lay_out
from circuitspec.graph.nodes import NodeComponent, expand
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Expert, ExpertNeuron, Head, Mlp, Routing, SharedNeuron
from circuitspec.hypothesis_file.grammar.internal_metric_names import parse_internal
from circuitspec.hypothesis_file.grammar.names import parse_name
from circuitspec.hypothesis_file.schema.blocks import CircuitSpec
from circuitspec.hypothesis_file.schema.claims.sufficient_block import Sufficient
from circuitspec.hypothesis_file.yaml.source import parse_source
from circuitspec.models.families.experts import BLOCK, serve
from circuitspec.models.zoo import zoo_path
from tests.engine.support import (
    Silent,
    assert_same,
    loaded,
    oracle_records,
    oracle_sites,
    random_prompts,
    runner,
    task_of,
)
from tests.engine.support import model as random_model
from tests.engine.test_against_oracle import oracle_circuit, plan_of, random_circuit
from tests.engine.test_granularities import claim_plan
from tests.matrix import WITH_EXPERTS
from tests.oracle import families, metrics, node

HYPOTHESES = Path(__file__).parents[2] / "hypotheses"

LAYOUTS = (
    "qwen2_moe",
    "gpt_oss",
    "llama4_text",
)  # experts and one for all; a pair handed on, and sinks; tokens in line


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_circuit_of_each_layout(kind: str) -> None:
    model = random_model(kind, layers=2)
    prompts = random_prompts(seed=5, lengths=[5, 7, 4])
    circuit, free = random_circuit(model, seed=1)
    plan = plan_of(model, circuit, free, "resample")
    with borrowed(model):
        records = runner(model, task_of(prompts), rows=3).run(plan.experiments)
    expected = node.sufficient(model, prompts, oracle_circuit(circuit), {("mlp", 0)}, "resample")
    assert_same(records[plan.circuit], expected.patched)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", ["mixtral", *(pytest.param(f, marks=pytest.mark.nightly) for f in WITH_EXPERTS)])
def test_no_row_of_a_batch_moves_another(kind: str, dtype: torch.dtype) -> None:
    """To the last digit: whatever the other rows are, in as many rows of as many tokens."""
    model = random_model(kind, layers=2, exactly=False, seed=4).to(dtype)
    ids = torch.arange(4 * 9).view(4, 9) * 7 % 60
    other = ids.clone()
    other[1:] = (ids[1:] + 13) % 60
    with torch.no_grad(), borrowed(model):
        one, two = (model(input_ids=rows, attention_mask=torch.ones_like(rows)).logits for rows in (ids, other))
    assert torch.equal(one[0], two[0])
    assert not torch.equal(one[1], two[1])


def test_experts_give_each_token_what_they_compute_of_it_alone() -> None:
    """More tokens than a block, some experts with none: as the family's own arithmetic has it, token by token."""
    model = random_model("mixtral", layers=1, exactly=False)
    experts: Any = model.model.layers[0].mlp.experts
    seeded = torch.Generator().manual_seed(0)
    tokens = torch.randn(3 * BLOCK + 1, model.config.hidden_size, generator=seeded, dtype=torch.float64)
    chosen = torch.tensor([[2, 0]] * (2 * BLOCK) + [[0, 2]] * (BLOCK + 1))
    weights = torch.rand(chosen.shape, generator=seeded, dtype=torch.float64)
    with torch.no_grad():
        served = serve(experts, tokens, chosen, weights)
        for i in (0, BLOCK - 1, BLOCK, 3 * BLOCK):
            for k in range(2):
                gate, up = (experts.gate_up_proj[chosen[i, k]] @ tokens[i]).chunk(2)
                alone = experts.down_proj[chosen[i, k]] @ (torch.nn.functional.silu(gate) * up)
                torch.testing.assert_close(served.added[i, k], weights[i, k] * alone, rtol=0, atol=1e-12)
        torch.testing.assert_close(served.summed(), experts(tokens, chosen, weights), rtol=0, atol=1e-12)


@pytest.mark.parametrize("side", ["right", pytest.param("left", marks=pytest.mark.nightly)])
@pytest.mark.parametrize("kind", ["qwen3_moe", *(pytest.param(f, marks=pytest.mark.nightly) for f in WITH_EXPERTS)])
def test_what_routers_choose_as_a_metric(kind: str, side: Any) -> None:
    """In the plain run, in one that is patched before the router, and in one whose routing is patched itself."""
    model = random_model(kind)
    layer = 1 if kind == "llama4_text" else 2
    prompts = random_prompts(seed=11, lengths=[5, 7, 4])
    internals = [parse_internal(f"routing(m{layer}.e{e}@A)") for e in range(4)]
    experiments = [Experiment("clean")]
    components: tuple[NodeComponent, ...] = (Head(0, 1), Routing(layer))
    for component in components:
        sites = frozenset({Site(component, Where.at("A"))})
        experiments.append(Experiment("clean", Source("resample", "abc"), sites))
    made = Runner(loaded(model), task_of(prompts), rows=2, progress=Silent(), side=side, internals=internals)
    with borrowed(model):
        records = made.run(experiments)
    for experiment in experiments:
        for i, prompt in enumerate(prompts):
            source = node.resample_values(model, prompt.corrupt)
            patches = {site: source[site[0]][site[1]] for site in oracle_sites(prompt, experiment)}
            weights = node.forward(model, prompt.clean, patches, record=True).values["routing", layer]
            for e, metric in enumerate(internals):
                assert records[experiment][str(metric)][i] == pytest.approx(
                    float(weights[prompt.roles["A"], e]), abs=1e-9
                )
    chosen = [records[experiments[0]][str(metric)] for metric in internals]
    assert min(min(values) for values in chosen) == 0


@pytest.mark.parametrize("side", ["right", pytest.param("left", marks=pytest.mark.nightly)])
@pytest.mark.parametrize("kind", ["qwen2_moe", *(pytest.param(f, marks=pytest.mark.nightly) for f in WITH_EXPERTS)])
def test_routing_of_the_run_that_is_patched(kind: str, side: Any) -> None:
    """Frozen, in both directions: every router gives what it gives in the base run; and that is another figure."""
    model = random_model(kind)
    prompts = random_prompts(seed=12, lengths=[5, 7, 4, 6, 6])
    sites = frozenset({Site(Head(0, 1), Where.at("A")), Site(Head(1, 2), Where.everywhere())})
    experiments = [
        Experiment("clean", Source("resample", "abc"), sites),
        Experiment("abc", Source("resample", "clean"), sites),
        Experiment("clean", Source("zero", None), sites),
    ]
    frozen = dataclasses.replace(loaded(model), frozen_routing=True)
    with borrowed(model):
        records = Runner(frozen, task_of(prompts), rows=3, progress=Silent(), side=side).run(experiments)
        free = runner(model, task_of(prompts)).run(experiments)
    net = families.read(model)
    for experiment in experiments:
        for i, prompt in enumerate(prompts):
            base, other = (
                (prompt.clean, prompt.corrupt) if experiment.base == "clean" else (prompt.corrupt, prompt.clean)
            )
            zero = experiment.source is not None and experiment.source.prompts is None
            source = node.zero_values(net, len(base)) if zero else node.resample_values(net, other)
            patches = {site: source[site[0]][site[1]] for site in oracle_sites(prompt, experiment)}
            own = node.forward(net, base, record=True).values
            held = {(c, p): value[p] for c, value in own.items() if c[0] == "routing" for p in range(len(base))}
            logits = node.forward(net, base, {**patches, **held}).logits[-1].numpy()
            clean = node.forward(net, prompt.clean).logits[-1].numpy()
            for name, value in metrics.metrics(logits, prompt.answers, prompt.wrong, clean).items():
                assert records[experiment][name][i] == pytest.approx(value, abs=1e-9)
    assert any(abs(records[e]["logit"] - free[e]["logit"]).max() > 1e-6 for e in experiments)


def hypothesis_of(circuit: str, claim: str) -> str:
    """A file that freezes the routing."""
    task = (HYPOTHESES / "ioi-tiny.circuit.yaml").read_text(encoding="utf-8").partition("\ncircuit:\n")[0]
    task = task.replace("prompts: 100", "prompts: 8")
    task = re.sub(r"\n  checks:.*", "", task)
    ablation = "ablation: {value: resample, from: abc, routing: frozen}"
    return f"{task}\ncircuit: {circuit}\n{ablation}\nclaims:\n  - {claim}\n"


def test_routing_is_frozen_where_there_is_any(tmp_path: Path) -> None:
    file = tmp_path / "t.circuit.yaml"
    file.write_text(hypothesis_of("{groups: {one: {nodes: [a0.h1]}}}", "necessary: {metric: kl, at_most: 0.5}"))
    with pytest.raises(CircuitspecError) as raised:
        circuitspec.verify(file)
    assert [(d.code, d.message) for d in raised.value.diagnostics] == [
        ("CS398", "the model has no experts, among which to choose")
    ]


@pytest.mark.parametrize("command", ["explore", "compile"])
def test_what_lets_routers_choose_anew_says_so(command: str, tmp_path: Path) -> None:
    file = tmp_path / "t.circuit.yaml"
    file.write_text(hypothesis_of("{groups: {one: {nodes: [a0.h1]}}}", "necessary: {metric: kl, at_most: 0.5}"))
    words = [command, str(file), *(["--emit", str(tmp_path / "out")] if command == "compile" else [])]
    ran = CliRunner().invoke(main, words)
    assert ran.exit_code == 5
    assert "t.circuit.yaml" in ran.stderr
    assert "error[CS398]: routing is frozen by `verify` alone" in ran.stderr


@pytest.mark.nightly
def test_routing_in_a_file(tmp_path: Path) -> None:
    """Reports say that it is frozen; along paths it is refused."""
    tokenizer = AutoTokenizer.from_pretrained(zoo_path("ioi-tiny"))
    model = random_model("qwen2_moe", vocab_size=len(tokenizer), exactly=False, max_position_embeddings=64)
    file = tmp_path / "t.circuit.yaml"
    circuit = "{groups: {one: {nodes: [m1.e0, m1.shared, a0.h1]}}, paths: [a0.h1 -> logits]}"
    file.write_text(hypothesis_of(circuit, "sufficient: {metric: kl, at_least: 0.5}"))
    result = circuitspec.verify(file, model, tokenizer)
    assert "routing of the run patched" in str(result)
    path = "path: {of: a0.h1 -> logits, direction: noising, metric: kl, drop_at_least: 0.1}"
    file.write_text(hypothesis_of(circuit, path))
    with pytest.raises(CircuitspecError) as raised:
        circuitspec.verify(file, model, tokenizer)
    assert [d.code for d in raised.value.diagnostics] == ["CS398"]


@pytest.mark.parametrize("kind", ["qwen2_moe", *(pytest.param(f, marks=pytest.mark.nightly) for f in WITH_EXPERTS)])
def test_a_circuit_of_neurons_of_experts(kind: str) -> None:
    """Its MLP stands for its experts, and the expert for its neurons: all others are ablated, and biases stay."""
    model = random_model(kind, layers=2)
    shape = loaded(model).shape
    layer = 0 if 1 in shape.dense_layers else 1
    prompts = random_prompts(seed=6, lengths=[6] * 3)
    kept: dict[NodeComponent, Where] = {ExpertNeuron(layer, 0, 2): Where.at("A", "END"), Head(0, 2): Where.everywhere()}
    kept |= {SharedNeuron(layer, 3): Where.everywhere()} if shape.has_shared else {}
    plan = claim_plan(
        model, kept, [Sufficient(metric="kl", at_least=0.5)], {"value": "resample", "from": "abc"}, {Mlp(1 - layer)}
    )
    sites = {site.component: site.where for site in plan.circuit.sites}
    ablated = [
        *(Expert(layer, e) for e in range(shape.n_experts) if e != 0),
        *(ExpertNeuron(layer, 0, n) for n in range(shape.d_expert)),
        *(SharedNeuron(layer, n) for n in range(shape.d_shared) if n != 3),
        *(Head(i, h) for i in range(2) for h in range(4) if (i, h) != (0, 2)),
    ]
    assert sites == {one: ~kept.get(one, Where.at()) for one in ablated}
    with borrowed(model):
        records = runner(model, task_of(prompts)).run(plan.experiments)
    for experiment in plan.experiments:
        assert_same(records[experiment], oracle_records(model, prompts, experiment))


def test_all_neurons_of_an_expert_are_the_expert() -> None:
    """Where its output has no bias, another run's neurons and its output are one patch."""
    model = random_model("qwen3_moe", layers=1)
    prompts, source = random_prompts(seed=6, lengths=[6, 7]), Source("resample", "abc")
    where = Where.everywhere()
    width = loaded(model).shape.d_expert
    neurons = Experiment("clean", source, frozenset(Site(ExpertNeuron(0, 2, n), where) for n in range(width)))
    whole = Experiment("clean", source, frozenset({Site(Expert(0, 2), where)}))
    with borrowed(model):
        records = runner(model, task_of(prompts)).run([neurons, whole, Experiment("clean")])
    assert_same(records[neurons], dict(records[whole]))
    assert any(abs(records[neurons]["logit"] - records[Experiment("clean")]["logit"]) > 1e-6)


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ("m1.e0.n2, m1.e0", "m1.e0 contains m1.e0.n2, which is declared too"),
        ("m1.e0, m1.e0.n2", "m1.e0.n2 is part of m1.e0, which is declared too"),
        ("m1.e0.n2, m1", "m1 contains m1.e0.n2, which is declared too"),
        ("m1, m1.shared.n2", "m1.shared.n2 is part of m1, which is declared too"),
        ("m1.e0.n2, m1.e1, m1.shared.n2", ""),
    ],
)
def test_what_holds_an_expert_and_its_neurons(nodes: str, said: str) -> None:
    shape = loaded(random_model("qwen2_moe", layers=2)).shape
    spec = CircuitSpec.model_validate({"groups": {"one": {"nodes": nodes.split(", ")}}})
    source = parse_source(f"circuit: {{groups: {{one: {{nodes: [{nodes}]}}}}}}", "t.circuit.yaml")
    found = [] if said else [""]
    try:
        lay_out(spec, shape, source)
    except CircuitspecError as error:
        found = [f"{d.code} {d.message}" for d in error.diagnostics]
    assert found == [f"CS223 declarations overlap: {said}" if said else ""]


@pytest.mark.parametrize(
    ("name", "code"),
    [("m1.e0.n10", "CS220"), ("m1.e4.n0", "CS220"), ("m1.shared.n14", "CS220"), ("m1.n0", "CS225")],
)
def test_neurons_that_no_expert_has(name: str, code: str) -> None:
    shape = loaded(random_model("qwen2_moe", layers=2)).shape
    problems: list[Any] = []
    assert expand(parse_name(name), shape, parse_source("a: b", "t.circuit.yaml"), ("a",), problems) == ()
    assert [problem.code for problem in problems] == [code]
