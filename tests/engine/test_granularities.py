"""Everything that can be patched, in every family and both directions, against the independent oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from circuitspec.analysis.claims.registry import make_plan
from circuitspec.engine.attribution.restoration_screen import screen_restorations
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.experiments.experiment import ZEROS, Experiment, Site, Source
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.members import Member
from circuitspec.graph.nodes import NodeComponent, is_node
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.component_kinds import HEAD, KV_HEAD, MIXER
from circuitspec.hypothesis_file.grammar.components import (
    Head,
    Input,
    KvHead,
    Mlp,
    Neuron,
    Resid,
    all_of,
)
from circuitspec.hypothesis_file.schema.blocks import AblationSpec, Hypothesis
from circuitspec.hypothesis_file.schema.claims.cross_section_block import CrossSection
from circuitspec.hypothesis_file.schema.claims.sufficient_block import Sufficient
from tests.engine.support import (
    FAMILIES,
    assert_same,
    loaded,
    oracle_component,
    oracle_records,
    oracle_sites,
    parts_of_mlp,
    random_prompts,
    runner,
    task_of,
)
from tests.engine.support import model as random_model
from tests.oracle import families, metrics, node

EVERYWHERE = Where.everywhere()
SOURCES = (Source("mean", "abc"), Source("mean_per_template", "abc"), ZEROS)


def components(model: Any) -> list[NodeComponent]:
    """Every head, MLP, key-value head and residual stream, `input`, and some neurons of a model of two layers."""
    shape = loaded(model).shape
    found: list[NodeComponent] = [Input(), Resid(0), Resid(1)]
    for layer in range(shape.n_layers):
        for kind in (HEAD, KV_HEAD, MIXER):
            found += [one for one in all_of(kind, layer, shape.counts) if is_node(one)]
        found += [Mlp(layer), *parts_of_mlp(model, layer)]
        found += [Resid(layer, mid=True)] if shape.has_resid_mid else []
    return found


def run(model: Any, prompts: list[node.Prompt], experiments: list[Experiment], **options: Any) -> Any:
    with borrowed(model):
        return runner(model, task_of(prompts), **options).run(experiments)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_single_component_in_both_directions(family: str) -> None:
    model = random_model(family, layers=2)
    prompts = random_prompts(seed=8, lengths=[6, 7])
    experiments = []
    for i, component in enumerate(components(model)):
        sites = frozenset({Site(component, (EVERYWHERE, Where.at("A"), Where.except_at("A", "B"))[i % 3])})
        experiments.append(Experiment("clean", Source("resample", "abc"), sites))
        experiments.append(Experiment("abc", Source("resample", "clean"), sites))
    records = run(model, prompts, experiments)
    for experiment in experiments:
        assert_same(records[experiment], oracle_records(model, prompts, experiment))


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", FAMILIES)
def test_many_at_once_at_positions_that_differ_from_prompt_to_prompt(family: str, side: str) -> None:
    model = random_model(family, layers=2)
    prompts = random_prompts(seed=9, lengths=[8, 5, 7, 4])
    sites = {
        Site(Head(0, 1), Where.at("A")),
        Site(Head(0, 2), Where.at("A", "B")),
        Site(KvHead(0, loaded(model).shape.n_kv_heads - 1), Where.at("B")),
        *(
            Site(part, where)
            for layer in range(2)
            for part, where in zip(parts_of_mlp(model, layer), (EVERYWHERE, *[Where.at("END", "A")] * 3), strict=False)
            if layer == 0 or loaded(model).shape.n_experts
        ),
        Site(Resid(1), Where.at("A")),
        Site(KvHead(1, 0), Where.except_at("END")),
        *([] if loaded(model).shape.n_experts else [Site(Mlp(1), Where.at("B", "END"))]),
    }
    experiment = Experiment("abc", Source("resample", "clean"), frozenset(sites))
    assert_same(run(model, prompts, [experiment], side=side)[experiment], oracle_records(model, prompts, experiment))


@pytest.mark.parametrize("family", FAMILIES)
def test_means_and_zeros_at_every_granularity(family: str) -> None:
    model = random_model(family, layers=2)
    prompts = random_prompts(seed=10, lengths=[5] * 4, templates=2)
    for prompt in prompts:  # a mean's positions must mean the same in its group
        prompt.roles.update(A=1 + prompt.template, B=3)
    sites = {
        Site(KvHead(0, loaded(model).shape.n_kv_heads - 1), Where.at("A")),
        *(Site(part, EVERYWHERE) for layer in (0, 1) for part in parts_of_mlp(model, layer)[1:]),
        Site(Resid(1), Where.at("B")),
        Site(Head(1, 0), EVERYWHERE),
    }
    experiments = [Experiment("clean", source, frozenset(sites)) for source in SOURCES]
    records = run(model, prompts, experiments, rows=3)
    for experiment in experiments:
        assert_same(records[experiment], oracle_records(model, prompts, experiment))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_whole_attention_layer_is_its_output(family: str) -> None:
    """All heads of a layer together are what the oracle patches as one: the output of the projection behind them."""
    model = random_model(family, layers=2)
    prompts = random_prompts(seed=11, lengths=[6, 5])
    heads = frozenset(Site(Head(1, h), Where.at("A")) for h in range(loaded(model).shape.n_heads))
    experiment = Experiment("clean", Source("resample", "abc"), heads)
    measured = run(model, prompts, [experiment])[experiment]["logit"]
    net = families.read(model)
    for prompt, value in zip(prompts, measured, strict=True):
        logits = node.noise(
            net, prompt.clean, node.resample_values(net, prompt.corrupt), {(("attn", 1), prompt.roles["A"])}
        )
        assert abs(logits[-1].numpy()[prompt.answers].mean() - value) < 1e-9


def test_patching_a_key_value_head_patches_all_heads_that_read_it() -> None:
    """Everywhere: the same as patching q of none, k and v of the group; seen in which heads' z changes."""
    model = random_model("llama", layers=2)
    prompts = random_prompts(seed=12, lengths=[6])
    net = families.read(model)
    clean = node.forward(net, prompts[0].clean, record=True).values
    source = node.resample_values(net, prompts[0].corrupt)
    patched = node.forward(
        net, prompts[0].clean, {(("kv", 0, 1), p): source["kv", 0, 1][p] for p in range(6)}, record=True
    ).values
    changed = {h for h in range(4) if not np.allclose(clean["head", 0, h], patched["head", 0, h])}
    assert changed == {2, 3}
    run_ = runner(model, task_of(prompts))
    experiment = Experiment("clean", Source("resample", "abc"), frozenset({Site(KvHead(0, 1), EVERYWHERE)}))
    with borrowed(model):
        assert_same(run_.run([experiment])[experiment], oracle_records(model, prompts, experiment))


def claim_plan(
    model: Any, members: dict[NodeComponent, Where], claims: list[Any], ablation: dict[str, Any], free: Any = ()
) -> Any:
    declared = tuple(Member(c, w, "one", "positive") for c, w in members.items())
    graph = CircuitGraph(loaded(model).shape, declared, frozenset(free))
    spec = AblationSpec.model_validate(ablation)
    return make_plan(Hypothesis.model_construct(ablation=spec, claims=tuple(claims)), graph, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("ablation", [{"value": "resample", "from": "abc"}, {"value": "zero"}])
@pytest.mark.parametrize("family", ["gpt2", "gemma2", "phi3"])
def test_a_circuit_of_neurons(family: str, ablation: dict[str, Any]) -> None:
    """One neuron of m1 and one head are kept; m0 is free; every other head and every other neuron of m1 is ablated."""
    model = random_model(family, layers=2)
    prompts = random_prompts(seed=13, lengths=[6] * 3)
    kept: dict[NodeComponent, Where] = {Neuron(1, 3): Where.at("A", "END"), Head(0, 2): EVERYWHERE}
    plan = claim_plan(model, kept, [Sufficient(metric="logit_diff", at_least=0.5)], ablation, {Mlp(0)})
    records = run(model, prompts, list(plan.experiments))
    net = families.read(model)
    for i, prompt in enumerate(prompts):
        source = node.zero_values(net, 6) if ablation["value"] == "zero" else node.resample_values(net, prompt.corrupt)
        sites: set[node.Site] = {(("head", a, h), p) for a in range(2) for h in range(4) for p in range(6)}
        sites -= {(("head", 0, 2), p) for p in range(6)}
        sites |= {(("neuron", 1, n), p) for n in range(net.layers[1].mlp.w_out.shape[0]) for p in range(6)}
        sites -= {(("neuron", 1, 3), prompt.roles[role]) for role in ("A", "END")}
        clean = node.forward(net, prompt.clean).logits[-1].numpy()
        logits = node.noise(net, prompt.clean, source, sites)[-1].numpy()
        for name, value in metrics.metrics(logits, prompt.answers, prompt.wrong, clean).items():
            assert abs(records[plan.circuit][name][i] - value) < 1e-9


def test_a_cross_section_restores_its_components_in_the_corrupt_run() -> None:
    model = random_model("llama", layers=2)
    prompts = random_prompts(seed=14, lengths=[6, 7, 5])
    claim = CrossSection(metric="logit_diff", nodes=("one", "a1.kv1@A", "r1@B", "m1"), at_least=0.5)
    plan = claim_plan(model, {Head(0, 0): Where.at("END")}, [claim], {"value": "resample", "from": "abc"})
    (planned,) = plan.claims
    records = run(model, prompts, list(plan.experiments))
    net = families.read(model)
    for i, p in enumerate(prompts):
        sites = {(("head", 0, 0), p.roles["END"]), (("kv", 1, 1), p.roles["A"]), (("resid", 1, "pre"), p.roles["B"])}
        sites |= {(("mlp", 1), position) for position in range(len(p.clean))}
        assert oracle_sites(p, planned.patched) == sites
        clean = node.forward(net, p.clean).logits[-1].numpy()
        for run_, logits in (
            (planned.patched, node.denoise(net, p, sites)),
            (planned.corrupt, node.forward(net, p.corrupt).logits),
            (planned.clean, node.forward(net, p.clean).logits),
        ):
            for name, value in metrics.metrics(logits[-1].numpy(), p.answers, p.wrong, clean).items():
                assert abs(records[run_][name][i] - value) < 1e-9


def test_restoring_the_input_or_a_whole_residual_stream_restores_everything() -> None:
    model = random_model("gpt2", layers=2)
    prompts = random_prompts(seed=15, lengths=[6, 7])
    experiments = [
        Experiment("abc", Source("resample", "clean"), frozenset({Site(c, EVERYWHERE)}))
        for c in (Input(), Resid(1), Resid(1, mid=True))
    ]
    records = run(model, prompts, [Experiment("clean"), *experiments])
    for experiment in experiments[:2]:
        assert_same(records[experiment], dict(records[Experiment("clean")]))
    # the mid-block stream holds all that comes before it
    assert_same(records[experiments[2]], dict(records[Experiment("clean")]))


@pytest.mark.parametrize("activation", ["gelu_new", "relu"])
def test_the_screen_of_neurons_is_the_derivative(activation: str) -> None:
    """A ReLU's backward pass reads its own output, which is the tensor that is patched."""
    model = random_model("gpt2", layers=2, activation_function=activation)
    prompts = random_prompts(seed=16, lengths=[6, 5])
    kept: dict[NodeComponent, Where] = {Neuron(1, 3): Where.at("A"), Neuron(0, 2): EVERYWHERE}
    plan = claim_plan(
        model, kept, [Sufficient(metric="logit_diff", at_least=0.5)], {"value": "resample", "from": "abc"}
    )
    net = families.read(model)
    with borrowed(model):
        screen = screen_restorations(runner(model, task_of(prompts)), plan.circuit, "logit_diff")
    assert len(screen.effects) == 2 * (4 + 128) - 1
    where = {s.component: s.where for s in plan.circuit.sites}
    step = 1e-6
    for component in (Neuron(1, 3), Neuron(1, 4), Neuron(0, 100), Head(0, 1)):
        mine = oracle_component(component)
        for i, p in enumerate(prompts):
            source = node.resample_values(net, p.corrupt)
            patched = {(c, k): source[c][k] for c, k in oracle_sites(p, plan.circuit)}
            # what the component itself computes in the run in which all others are patched
            others = {site: value for site, value in patched.items() if site[0] != mine}
            own = node.forward(net, p.clean, others, record=True).values[mine]
            named = {p.roles[r] for r in where[component].roles}
            at = [k for k in range(len(p.clean)) if (k in named) != where[component].inverted]
            faded = {**patched, **{(mine, k): (1 - step) * source[mine][k] + step * own[k] for k in at}}
            both = [node.forward(net, p.clean, patches).logits[-1].numpy() for patches in (faded, patched)]
            slope = np.subtract(*[b[p.answers].mean() - b[p.wrong].mean() for b in both]) / step
            np.testing.assert_allclose(screen.effects[component][i], slope, rtol=1e-3, atol=1e-5)
