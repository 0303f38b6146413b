"""Gemma 4 and Gemma 3n, whose stream is no plain sum: node level against the oracle, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from circuitspec.analysis.claims.registry import make_plan
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.attribution.direct_logit_attribution import direct_effects
from circuitspec.engine.attribution.lens import metrics_by_layer
from circuitspec.engine.attribution.node_attribution import attribute
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.levels.refusals import no_edges
from circuitspec.engine.validation.self_test import self_test
from circuitspec.engine.validation.site_tests import diagnose
from circuitspec.experiments.experiment import Experiment, Noised, Site, Source
from circuitspec.experiments.internal_metric_plans import internal_metrics
from circuitspec.exploration.request import ExploreOptions
from circuitspec.graph.circuit_graph import lay_out
from circuitspec.graph.nodes import NodeComponent
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.component_kinds import ATTENTION_PATTERN, HEAD, KV_HEAD
from circuitspec.hypothesis_file.grammar.components import Head, Input, KvHead, Mlp, Neuron, Resid, all_of
from circuitspec.hypothesis_file.load_file import parse_hypothesis
from circuitspec.models.families.family_table import architecture_of
from circuitspec.models.model_config import shape_of
from circuitspec.pipelines.explore import _lacking
from circuitspec.prompts.prompt_set import TokenizedTask
from tests.engine.support import (
    Silent,
    assert_same,
    loaded,
    oracle_component,
    oracle_sites,
    random_prompts,
    runner,
    task_of,
)
from tests.engine.support import model as random_model
from tests.engine.test_noise import drawn
from tests.matrix import STREAMS
from tests.oracle import families, metrics, node

LAYERS = 5
WHERES = (Where.at("A"), Where.at("B", "END"), Where.everywhere(), Where(frozenset({"A"}), inverted=True))


def components(family: str) -> list[NodeComponent]:
    """Some of every kind that the family has, of layers that compute keys and values and of those that do not."""
    found: list[NodeComponent] = [Head(layer, layer % 4) for layer in range(LAYERS)]
    found += [Mlp(layer) for layer in (0, 1, 3, 4)]
    found += [KvHead(0, 1), KvHead(1, 0), KvHead(2, 1), Neuron(2, 0), Neuron(2, 23), Neuron(0, 5)]
    if family == "gemma4_text":
        found += [Resid(1), Resid(4), Resid(2, mid=True), Input()]
    return found


def test_the_oracle_is_the_model() -> None:
    for family in STREAMS:
        model = random_model(family)
        (prompt,) = random_prompts(seed=1, lengths=[9])
        with torch.no_grad():
            own = model(input_ids=torch.tensor([prompt.clean])).logits[0]
        torch.testing.assert_close(node.forward(model, prompt.clean).logits, own, rtol=0, atol=1e-12)


def some_sites(family: str, seed: int) -> frozenset[Site]:
    """Half of the components, heads and neurons among them, each at positions of its own."""
    rng = np.random.default_rng(seed)
    found = [one for one in components(family) if not isinstance(one, Resid) and rng.random() < 0.5]
    return frozenset(Site(one, WHERES[rng.integers(0, len(WHERES))]) for one in found)


def records_of(model: Any, prompts: list[node.Prompt], experiment: Experiment, task: TokenizedTask) -> Any:
    """Every metric of every prompt by the oracle, the mean over draws where there is noise on the embeddings."""
    net: Any = families.read(model)
    unit = float(net.embed.std(unbiased=False)) * net.embed_scale

    def run(variant: Any, i: int, draw: int, patches: Any = None) -> node.Run:
        noised = isinstance(variant, Noised)
        ids = prompts[i].clean if noised or variant == "clean" else prompts[i].corrupt
        added = None
        if noised:
            added = torch.from_numpy(variant.std * unit * drawn(task, variant, draw, i, net.embed.shape[1]))
        found: node.Run = net.computed(ids, patches, added)
        return found

    def source(i: int, draw: int) -> node.Values:
        given = experiment.source
        assert given is not None
        if given.prompts is None:
            return {c: torch.zeros_like(v) for c, v in run("clean", i, 0).values.items()}
        if given.kind == "resample":
            return run(given.prompts, i, draw).values
        alike = [j for j, p in enumerate(prompts) if given.kind == "mean" or p.template == prompts[i].template]
        runs = [run(given.prompts, j, draw).values for j in alike]
        return {c: torch.stack([values[c] for values in runs]).mean(0) for c in runs[0]}

    draws = []
    for draw in range(experiment.draws):
        rows = []
        for i, prompt in enumerate(prompts):
            patches = {}
            if experiment.source is not None:
                values = source(i, draw)
                patches = {(c, p): values[c][p] for c, p in oracle_sites(prompt, experiment)}
            logits = run(experiment.base, i, draw, patches).logits[-1].numpy()
            clean = run("clean", i, 0).logits[-1].numpy()
            rows.append(metrics.metrics(logits, prompt.answers, prompt.wrong, clean))
        draws.append(metrics.columns(rows))
    return {name: np.mean([d[name] for d in draws], axis=0) for name in draws[0]}


def check(model: Any, prompts: list[node.Prompt], experiments: list[Experiment], side: Any = "right") -> None:
    task = task_of(prompts)
    with borrowed(model):
        records = runner(model, task, rows=3, side=side).run(experiments)
    for experiment in experiments:
        assert_same(records[experiment], records_of(model, prompts, experiment, task))


@pytest.mark.parametrize("family", STREAMS)
def test_circuits_in_both_directions(family: str) -> None:
    """Prompts of different length, positions from prompt to prompt; whatever else is patched in the same forward."""
    sites = some_sites(family, 1)
    experiments = [
        Experiment("clean", Source("resample", "abc"), sites),
        Experiment("abc", Source("resample", "clean"), sites),
        Experiment("clean", Source("zero", None), sites),
    ]
    check(random_model(family), random_prompts(seed=3, lengths=[5, 8, 6]), experiments)


@pytest.mark.nightly
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("family", STREAMS)
def test_more_circuits(family: str, seed: int, side: str, attention: str) -> None:
    sites = some_sites(family, 10 + seed)
    values = [Source("resample", "abc"), Source("zero", None)]
    experiments = [Experiment("clean", value, sites) for value in values]
    experiments += [
        Experiment("abc", Source("resample", "clean"), sites),
        Experiment("abc", Source("zero", None), sites),
    ]
    model = random_model(family, attention=attention)
    check(model, random_prompts(seed=seed, lengths=[5, 9, 7, 4, 9]), experiments, side)


@pytest.mark.nightly
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", ["mean", "mean_per_template"])
@pytest.mark.parametrize("family", STREAMS)
def test_means(family: str, kind: Any, side: str) -> None:
    prompts = random_prompts(seed=5, lengths=[9] * 4, templates=2)
    where = {"A": 2, "B": 4, "END": 8}
    prompts = [replace(p, roles={**where, "A": 2 + (p.template if kind != "mean" else 0)}) for p in prompts]
    sites = some_sites(family, 2)
    experiments = [Experiment(base, Source(kind, other), sites) for base, other in (("clean", "abc"), ("abc", "clean"))]
    check(random_model(family), prompts, experiments, side)


@pytest.mark.nightly
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", STREAMS)
def test_noise_on_the_embeddings(family: str, side: str) -> None:
    """It reaches the first block, and what each layer's own inputs are made of besides the token."""
    noised = Noised(3.0, Where.at("A", "END"), draws=2, seed=5)
    sites = frozenset({Site(Head(0, 1), Where.everywhere()), Site(KvHead(1, 0), Where.at("A")), *some_sites(family, 3)})
    experiments = [
        Experiment(noised),
        Experiment("clean", Source("resample", noised), sites),
        Experiment(noised, Source("resample", "clean"), sites),
    ]
    check(random_model(family), random_prompts(seed=21, lengths=[6, 4, 7]), experiments, side)


@pytest.mark.parametrize(
    ("family", "side"),
    [
        ("gemma4_text", "left"),
        *(pytest.param(f, s, marks=pytest.mark.nightly) for f in STREAMS for s in ("right", "left")),
    ],
)
def test_every_kind_of_component(family: str, side: Any) -> None:
    """Each alone, in as many runs as make a sweep of other families; those that later layers read among them."""
    experiments = [
        Experiment("clean", Source("resample", "abc"), frozenset({Site(one, where)}))
        for one in components(family)
        for where in WHERES[1:2]
    ]
    check(random_model(family), random_prompts(seed=4, lengths=[6, 8]), experiments, side)


def test_a_patched_value_reaches_the_layers_that_read_it() -> None:
    """Layer 3 of the models reads what layer 2 has: with its own heads held, patching it moves those of layer 3."""
    for family in STREAMS:
        model, prompts = random_model(family), random_prompts(seed=8, lengths=[6])
        everywhere = Where.everywhere()
        held = frozenset({Site(Head(layer, h), everywhere) for layer in (2, 3) for h in range(4)})
        own, values = Source("resample", "clean"), frozenset({Site(KvHead(2, 0), everywhere)})
        experiments = [
            Experiment("clean", Source("resample", "abc"), values),
            Experiment("clean", own, held),
            Experiment("abc", own, frozenset({Site(KvHead(2, g), everywhere) for g in range(2)})),
        ]
        check(model, prompts, experiments)


@pytest.mark.nightly
@pytest.mark.parametrize("family", STREAMS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_doctor_and_verify_find_nothing(family: str, dtype: torch.dtype) -> None:
    model = random_model(family, exactly=False).to(dtype)
    known = loaded(model)
    with borrowed(model):
        found = diagnose(known, Silent())
        self_test(runner(model, task_of(random_prompts(0, [5, 8]))))
    assert not found.problems
    assert not [site for site in found.sites if site.silent]


FILE = """\
circuitspec: 1
name: streams
model: {id: .}
task:
  templates: ["When {A} and {B} went to the store"]
  slots: {A: $names, B: $names}
  lists: {names: [Mary, John]}
  answer: " {A}"
  corruptions: {abc: {A: =B, B: =A}}
circuit:
  groups:
    first: {nodes: [NODE], at: A}
    last: {nodes: [a4.h1]}
  paths: [first -> last]
ablation: {value: resample, from: abc, level: LEVEL}
claims:
  - CLAIM
"""
SUFFICIENT = "sufficient: {metric: logit, at_least: 0.5}"


def planned(family: str, node: str, level: str = "node", claim: str = SUFFICIENT, *, paths: bool = True) -> None:
    text = FILE.replace("NODE", node).replace("LEVEL", level).replace("CLAIM", claim)
    text = text if paths else text.replace("  paths: [first -> last]\n", "")
    document = parse_hypothesis(text, "t.circuit.yaml")
    shape = loaded(random_model(family)).shape
    internal_metrics(document.hypothesis, shape, document.source)
    graph = lay_out(document.hypothesis.circuit, shape, document.source)
    make_plan(document.hypothesis, graph, document.source)


@pytest.mark.parametrize(
    ("family", "node", "said"),
    [
        ("gemma4_text", "a3.kv0", "layer 3 reads keys and values of an earlier one"),
        ("gemma3n_text", "a4.kv1", "layer 4 reads keys and values of an earlier one"),
        ("gemma4_text", "m4.n2", "MLP of layer 4 is of another width"),
        ("gemma4_text", "a1.h0.pattern", "values are normed"),
        ("gemma3n_text", "input", "several residual streams"),
        ("gemma3n_text", "r2", "several residual streams"),
        ("gemma3n_text", "r2.mid", "several residual streams"),
    ],
)
def test_what_these_families_do_not_have(family: str, node: str, said: str) -> None:
    with pytest.raises(CircuitspecError) as raised:
        planned(family, node, paths=False)
    (found,) = raised.value.diagnostics
    assert found.code == "CS225"
    assert said in found.message
    assert found.span is not None
    assert found.hint


@pytest.mark.parametrize("family", STREAMS)
def test_edges_and_paths_are_refused_before_anything_is_run(family: str) -> None:
    """Not the paths that a file at node level draws beside its claims."""
    planned(family, "a1.h0")
    path = "path: {of: first -> last, direction: noising, metric: logit, drop_at_least: 0.3}"
    for level, claim, line in (("edge", SUFFICIENT, 15), ("path", SUFFICIENT, 15), ("node", path, 17)):
        with pytest.raises(CircuitspecError) as raised:
            planned(family, "a1.h0", level, claim)
        (found,) = raised.value.diagnostics
        assert found.code == "CS325"
        assert found.span is not None
        assert found.span.line == line
        assert "later layers read keys and values of earlier ones" in found.message
        assert "level: node" in found.hint


def test_an_attention_weight_cannot_be_measured() -> None:
    claim = "sufficient: {metric: {attention: a1.h0, from: B, to: A}, at_least: 0.5}"
    with pytest.raises(CircuitspecError) as raised:
        planned("gemma4_text", "a1.h0", claim=claim)
    assert {d.code for d in raised.value.diagnostics} == {"CS225"}


@pytest.mark.parametrize("family", STREAMS)
def test_what_reads_the_stream_as_a_sum_is_refused(family: str) -> None:
    model = random_model(family)
    known = loaded(model)
    assert "no edges or paths" in no_edges(known)
    with borrowed(model):
        run = runner(model, task_of(random_prompts(0, [5, 8])))
        for call in (lambda: metrics_by_layer(run), lambda: direct_effects(run, [], "logit_diff")):
            with pytest.raises(CircuitspecError) as raised:
                call()
            assert [d.code for d in raised.value.diagnostics] == ["CS326"]
        with pytest.raises(CircuitspecError) as raised:
            self_test(run, edges=True)
        assert [d.code for d in raised.value.diagnostics] == ["CS325"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("enable_moe_block", True),
        ("attention_k_eq_v", True),
        ("hidden_size_per_layer_input", 0),
        ("use_bidirectional_attention", "all"),
    ],
)
def test_settings_of_gemma_4_that_are_refused(key: str, value: object) -> None:
    config = random_model("gemma4_text").config.to_dict()
    with pytest.raises(CircuitspecError) as raised:
        architecture_of({**config, key: value})
    assert raised.value.diagnostics[0].code == "CS314"


def test_the_shape_of_layers_that_differ() -> None:
    config = random_model("gemma4_text").config.to_dict()
    shape = shape_of(config)
    assert shape.d_heads == (8, 12, 8, 8, 12)
    assert shape.d_mlps == (24, 24, 24, 48, 48)
    assert shape.keys_from == (0, 1, 2, 2, 1)
    older = {key: value for key, value in config.items() if key != "per_layer_config"}  # and by name, or by default
    assert shape_of({**older, "global_head_dim": 20}).d_heads == (8, 20, 8, 8, 20)
    assert shape_of(older).d_heads == (8, 512, 8, 8, 512)
    third = random_model("gemma3n_text").config.to_dict()
    assert shape_of(third).d_mlp == 24
    assert shape_of({**third, "intermediate_size": [24, 24, 30, 24, 24]}).d_mlps == (24, 24, 30, 24, 24)
    for wrong in (
        {"num_kv_shared_layers": 5},
        {"intermediate_size": [24, "x", 24, 24, 24]},
        {"intermediate_size": [24]},
    ):
        with pytest.raises(CircuitspecError) as raised:
            shape_of({**third, **wrong})
        assert raised.value.diagnostics[0].code == "CS305"


@pytest.mark.parametrize("family", STREAMS)
def test_estimates_are_derivatives(family: str) -> None:
    """Of node-level patches, faded in by a small step: no sum over the stream is asked for."""
    model = random_model(family)
    chosen: list[NodeComponent] = [Head(2, 1), Head(4, 0), Mlp(1), KvHead(2, 0)]
    prompts = random_prompts(seed=2, lengths=[6, 8])
    with borrowed(model):
        run = runner(model, task_of(prompts))
        found = attribute(run, "clean", Source("resample", "abc"), "logit_diff", chosen, [Where.everywhere()])
    step = 1e-5
    for component in chosen:
        slopes = []
        for prompt in prompts:
            own, other = (node.resample_values(model, ids) for ids in (prompt.clean, prompt.corrupt))
            key = oracle_component(component)
            measured = []
            for sign in (1, -1):
                moved = own[key] + sign * step * (other[key] - own[key])
                patches = {(key, p): moved[p] for p in range(len(prompt.clean))}
                logits = node.forward(model, prompt.clean, patches).logits[-1].numpy()
                clean = node.forward(model, prompt.clean).logits[-1].numpy()
                measured.append(metrics.metrics(logits, prompt.answers, prompt.wrong, clean)["logit_diff"])
            slopes.append((measured[0] - measured[1]) / (2 * step))
        np.testing.assert_allclose(found.per_prompt[component], slopes, rtol=1e-5, atol=1e-8)


def test_sweeps_take_what_a_layer_computes() -> None:
    for family in STREAMS:
        counts = loaded(random_model(family)).shape.counts
        assert [len(all_of(KV_HEAD, layer, counts)) for layer in range(LAYERS)] == [2, 2, 2, 0, 0]
        assert [len(all_of(HEAD, layer, counts)) for layer in range(LAYERS)] == [4] * LAYERS
        assert not all_of(ATTENTION_PATTERN, 0, counts)
    asked = ExploreOptions(metric="logit_diff", start="resid", sweeps=("resid", "patterns", "heads"))
    shape = loaded(random_model("gemma3n_text")).shape
    assert [d.code for d in _lacking(asked, shape)] == ["CS325", "CS563", "CS563"]
    shape = loaded(random_model("gemma4_text")).shape
    assert [d.code for d in _lacking(asked, shape)] == ["CS325", "CS563"]
    assert not _lacking(asked, loaded(random_model("llama")).shape)
