"""What a prompt's run depends on: the prompt, and nothing else that shares a batch with it or ran before it.

The right values are those of transformers, one prompt at a time, with plain PyTorch hooks (`tests.oracle.hooked`).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from circuitspec.engine.attribution.edge_attribution import attribute_edges
from circuitspec.engine.attribution.node_attribution import attribute
from circuitspec.engine.execution.batches import make_batches
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.experiments.experiment import EVERYWHERE, Experiment, Site, Source
from circuitspec.experiments.levels.path_level import path_set, travelling
from circuitspec.graph.edges import Edge, Receiver
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Logits, Mlp
from circuitspec.models.families.rope import memoryless, reads_longest_row
from tests.engine.support import FAMILIES, loaded, oracle_component, random_prompts, runner, task_of
from tests.engine.support import model as random_model
from tests.engine.test_edges_against_oracle import experiment_of, oracle_receiver, oracle_sender, random_edges
from tests.engine.test_paths_against_oracle import FILE, declared, pieces, stop
from tests.oracle import builders, edge, families, hooked, metrics, node, tree

ROWS = (1, 3, 100)
LENGTHS = [10, 14, 12, 14, 10, 13]
LONG = {
    "rope_type": "longrope",
    "original_max_position_embeddings": 12,
    "short_factor": [1.0, 1.0],
    "long_factor": [5.0, 40.0],
    "rope_theta": 10000.0,
}
ABC = Source("resample", "abc")
PLAIN = [Experiment("clean"), Experiment("abc")]
PATCHED = [
    Experiment("clean", ABC, frozenset({Site(component, where)}))
    for component, where in [
        (Head(0, 1), EVERYWHERE),
        (Head(1, 2), Where.at("A")),
        (Head(2, 0), Where.at("END")),
        (Mlp(1), Where.at("B", "END")),
        (Mlp(0), EVERYWHERE),
    ]
]


def with_rope(family: str, attention: str = "sdpa", **rope: Any) -> Any:
    """A random model of three layers whose rotary embedding is of this type, and which takes 32 tokens."""
    given = {"partial_rotary_factor": 0.5} if family == "phi3" else {}
    numbers = {"original_max_position_embeddings": 12} if family == "phi3" and "short_factor" in rope else {}
    if family != "phi3" and "short_factor" in rope:
        rope = {**rope, "short_factor": [1.0] * 4, "long_factor": [5.0, 10.0, 20.0, 40.0]}
    return builders.BUILDERS[family](
        seed=3, attn=attention, exactly=False, rope_parameters={**rope, **given}, **numbers, **given
    )


def alone(model: Any, prompts: list[node.Prompt], experiment: Experiment) -> dict[str, np.ndarray]:
    """Every metric, each prompt by itself."""
    names = hooked.NAMES[model.config.model_type]

    def run(ids: list[int], patches: Any = None) -> Any:
        return hooked.forward(model, ids, names, patches)

    rows = []
    for prompt in prompts:
        patches = {}
        if experiment.source is not None:
            values = run(prompt.corrupt).values
            for site in experiment.sites:
                named = {prompt.roles[role] for role in site.where.roles}
                places = [p for p in range(len(prompt.clean)) if (p in named) != site.where.inverted]
                component = oracle_component(site.component)
                patches |= {(component, p): values[component][p] for p in places}
        base = prompt.clean if experiment.base == "clean" else prompt.corrupt
        clean = run(prompt.clean).logits[-1].numpy()
        rows.append(metrics.metrics(run(base, patches).logits[-1].numpy(), prompt.answers, prompt.wrong, clean))
    return metrics.columns(rows)


def assert_each_is_alone(model: Any, lengths: list[int], tolerance: float) -> None:
    prompts = random_prompts(seed=7, lengths=lengths)
    expected = {e: alone(model, prompts, e) for e in (*PLAIN, *PATCHED)}
    for rows in ROWS:
        with borrowed(model):
            records = runner(model, task_of(prompts), rows).run([*PLAIN, *PATCHED])
        for experiment, values in expected.items():
            for name, column in values.items():
                np.testing.assert_allclose(
                    records[experiment][name], column, rtol=0, atol=tolerance, err_msg=f"{rows} rows, {name}"
                )


@pytest.mark.parametrize("family", [family for family in FAMILIES if family in hooked.NAMES])
def test_every_family(family: str) -> None:
    """In single precision, with all that a family has of its own."""
    assert_each_is_alone(random_model(family, exactly=False).float(), LENGTHS, 2e-4)


@pytest.mark.parametrize("attention", ["sdpa", pytest.param("eager", marks=pytest.mark.nightly)])
@pytest.mark.parametrize(
    "family",
    [
        "phi3",
        pytest.param("llama", marks=pytest.mark.nightly),
        pytest.param("qwen2", marks=pytest.mark.nightly),
        pytest.param("mistral", marks=pytest.mark.nightly),
    ],
)
def test_longrope(family: str, attention: str) -> None:
    """Frequencies for more than 12 tokens, or for fewer, by the longest row: prompts of 10 to 14 tokens."""
    model = with_rope(family, attention, **LONG)
    assert reads_longest_row(model)
    with torch.no_grad():  # the two really differ
        prompt = torch.tensor([builders.random_ids(0, 10)])
        padded = torch.cat([prompt, prompt[:, :4]], 1)
        assert (model(prompt).logits[0, -1] - model(padded).logits[0, 9]).abs().max() > 0.3
    assert_each_is_alone(model, LENGTHS, 1e-5)


def by_length(length: int) -> Any:
    """The oracle's own net for prompts of `length` tokens: frequencies and their factor worked out by hand."""
    plain = families.read(builders.BUILDERS["llama"](seed=3, attn="sdpa", exactly=False))  # the weights are the same
    factors = torch.tensor([5.0, 10.0, 20.0, 40.0] if length > 12 else [1.0] * 4, dtype=torch.float64)
    frequencies = families.inverse_frequencies(10000.0, 8) / factors
    longer = with_rope("llama", **LONG).config.max_position_embeddings / 12
    stretched = 1 + math.log(longer) / math.log(12)  # of queries and of keys by the root of it
    layers = [
        replace(one, attention=replace(one.attention, rope=frequencies, scale=one.attention.scale * stretched))
        for one in plain.layers
    ]
    return replace(plain, layers=layers)


def test_longrope_on_edges_and_paths() -> None:
    """Prompts of 10 to 14 tokens, each as in the oracle's net for its length, and as by itself."""
    model = with_rope("llama", **LONG)
    nets = {length: by_length(length) for length in set(LENGTHS)}
    prompts = random_prompts(seed=7, lengths=LENGTHS)
    for prompt in prompts:  # the oracle's net is the model
        with torch.no_grad():
            given = model(torch.tensor([prompt.clean])).logits[0]
        np.testing.assert_allclose(node.forward(nets[len(prompt.clean)], prompt.clean).logits, given, atol=1e-5)
    shape = loaded(model).shape
    ablated = random_edges(shape, 3, 0.5)
    path = declared((stop(Head(0, 1)),), (stop(Head(1, 2), Where.at("A", "END"), ("v",)),), (stop(Logits()),))
    paths = travelling("clean", ABC, path_set([path], shape, FILE), [path], through=(), keep=False)
    edges = experiment_of(ablated, ABC)

    def by_oracle(prompt: node.Prompt) -> tuple[Any, Any]:
        net, n = nets[len(prompt.clean)], len(prompt.clean)
        kept: dict[Any, Any] = dict.fromkeys(edge.edges(net))
        for (sender, receiver), where in ablated.items():
            named = {prompt.roles[role] for role in where.roles}
            cut = {p for p in range(n) if (p in named) != where.inverted}
            kept[oracle_sender(sender), oracle_receiver(receiver)] = set(range(n)) - cut
        other = edge.contributions(net, prompt.corrupt)
        own, ablating = node.resample_values(net, prompt.clean), node.resample_values(net, prompt.corrupt)
        whole = pieces(net, prompt, [path])
        return (
            edge.edge_run(net, prompt.clean, other, kept).logits[-1].numpy(),
            tree.tree(net, prompt.clean, whole, ablating, own, ())[-1].numpy(),
        )

    expected: dict[Experiment, list[dict[str, float]]] = {edges: [], paths: []}
    for prompt in prompts:
        clean = node.forward(nets[len(prompt.clean)], prompt.clean).logits[-1].numpy()
        for experiment, logits in zip((edges, paths), by_oracle(prompt), strict=True):
            expected[experiment].append(metrics.metrics(logits, prompt.answers, prompt.wrong, clean))
    for rows in ROWS:
        with borrowed(model):
            found = runner(model, task_of(prompts), rows).run([edges, paths])
            single = [runner(model, task_of([prompt])).run([edges, paths]) for prompt in prompts] if rows == 3 else []
        for experiment, values in expected.items():
            for name, column in metrics.columns(values).items():
                np.testing.assert_allclose(found[experiment][name], column, rtol=0, atol=1e-5, err_msg=name)
                for alone_, value in zip(single, found[experiment][name], strict=False):
                    np.testing.assert_allclose(alone_[experiment][name], [value], rtol=0, atol=1e-9, err_msg=name)


def test_longrope_in_estimates_by_attribution() -> None:
    """Of nodes and of edges: derivatives along the patch in the oracle's net for each prompt's length."""
    model = with_rope("llama", **LONG)
    prompts = random_prompts(seed=7, lengths=LENGTHS)
    heads = (Head(0, 1), Head(1, 2))
    links = [Edge(Head(0, 1), Receiver(Head(2, 0), "q"), EVERYWHERE), Edge(Head(0, 1), Receiver(Mlp(1)), Where.at("A"))]
    step, expected = 1e-5, dict[object, list[float]]()
    for prompt in prompts:
        net = by_length(len(prompt.clean))
        tokens = range(len(prompt.clean))

        def slope(moved: Any, prompt: node.Prompt = prompt) -> float:
            ends = [
                metrics.metrics(moved(share)[-1].numpy(), prompt.answers, prompt.wrong, moved(0.0)[-1].numpy())
                for share in (step, -step)
            ]
            return float(ends[0]["logit_diff"] - ends[1]["logit_diff"]) / (2 * step)

        own, other = (node.resample_values(net, ids) for ids in (prompt.clean, prompt.corrupt))
        for head in heads:
            one = oracle_component(head)

            def node_moved(share: float, one: Any = one, own: Any = own, other: Any = other, net: Any = net) -> Any:
                patch = {(one, p): own[one][p] + share * (other[one][p] - own[one][p]) for p in tokens}  # noqa: B023
                return node.forward(net, prompt.clean, patch).logits  # noqa: B023

            expected.setdefault(head, []).append(slope(node_moved))
        for link in links:
            sender, mine, theirs = (
                oracle_sender(link.sender),
                *(edge.contributions(net, ids) for ids in (prompt.clean, prompt.corrupt)),
            )
            cut = set(tokens) if link.where.is_everywhere else {prompt.roles[role] for role in link.where.roles}
            kept: dict[Any, Any] = dict.fromkeys(edge.edges(net))
            kept[sender, oracle_receiver(link.receiver)] = set(tokens) - cut

            def edge_moved(share: float, sender: Any = sender, mine: Any = mine, theirs: Any = theirs) -> Any:
                values = {**mine, sender: mine[sender] + share * (theirs[sender] - mine[sender])}
                return edge.edge_run(net, prompt.clean, values, kept).logits  # noqa: B023

            expected.setdefault(link, []).append(slope(edge_moved))
    for rows in ROWS:
        with borrowed(model):
            run = runner(model, task_of(prompts), rows)
            nodes = attribute(run, "clean", ABC, "logit_diff", heads, (EVERYWHERE,))
            edges = attribute_edges(run, "clean", ABC, "logit_diff", links)
        for head in heads:
            np.testing.assert_allclose(nodes.per_prompt[head], expected[head], rtol=1e-4, atol=1e-5)
        for link in links:
            assert edges.effects[link] == pytest.approx(np.mean(expected[link]), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("family", ["llama", pytest.param("gpt_neox", marks=pytest.mark.nightly)])
def test_dynamic_rope_that_has_run_a_longer_text_before(family: str) -> None:
    """It keeps the frequencies of the longest text, also for one of exactly as many tokens as it was trained for."""
    kind = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    fresh = builders.BUILDERS[family](
        seed=3, attn="sdpa", exactly=False, rope_parameters=kind, max_position_embeddings=14
    )
    used = builders.BUILDERS[family](
        seed=3, attn="sdpa", exactly=False, rope_parameters=kind, max_position_embeddings=14
    )
    used(torch.tensor([builders.random_ids(1, 30)]))
    prompts = random_prompts(seed=7, lengths=[14, 14, 10, 14])
    grown = dict(used.named_buffers())
    expected = {e: alone(fresh, prompts, e) for e in (*PLAIN, *PATCHED)}
    for rows in ROWS:
        with borrowed(used):
            records = runner(used, task_of(prompts), rows).run([*PLAIN, *PATCHED])
        for experiment, values in expected.items():
            np.testing.assert_allclose(records[experiment]["logit_diff"], values["logit_diff"], rtol=0, atol=1e-5)
    assert all(torch.equal(value, grown[name]) for name, value in used.named_buffers())  # as it came
    assert used(torch.tensor([builders.random_ids(1, 14)])).logits.isfinite().all()


def test_dynamic_rope_beyond_what_it_was_trained_for_does_not_hang_on_the_order() -> None:
    """Texts of 20, 30 and 20 tokens: the third runs like the first."""
    kind = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    model = with_rope("llama", **kind)
    for module in model.modules():
        if hasattr(module, "rope_type"):
            module.original_max_seq_len = module.max_seq_len_cached = 14
            module.config.max_position_embeddings = 14
    short, long = (torch.tensor([builders.random_ids(seed, n)]) for seed, n in [(0, 20), (1, 30)])
    with torch.no_grad():
        alone = model(short).logits
        model(long)
        assert (model(short).logits - alone).abs().max() > 0.1  # as transformers has it
        with memoryless(model):
            model(long)
            assert torch.equal(model(short).logits, alone)


def test_batches_by_length() -> None:
    batches = make_batches([5, 3, 5, 4, 3, 5], 2, by_length=True)
    assert [b.prompts for b in batches] == [(1, 4), (3,), (0, 2), (5,)]
    assert [b.width for b in batches] == [3, 4, 5, 5]
    assert make_batches([], 2, by_length=True) == make_batches([], 2) == ()
    assert not any(reads_longest_row(random_model(family)) for family in FAMILIES)
