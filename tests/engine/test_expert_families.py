"""Families with experts: one row of a batch moves no other, and a small case of each layout against the oracle."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import Experiment, Site, Source
from circuitspec.graph.nodes import NodeComponent
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Routing
from circuitspec.hypothesis_file.grammar.internal_metric_names import parse_internal
from circuitspec.models.families.experts import BLOCK, serve
from tests.engine.support import Silent, assert_same, loaded, oracle_sites, random_prompts, runner, task_of
from tests.engine.support import model as random_model
from tests.engine.test_against_oracle import oracle_circuit, plan_of, random_circuit
from tests.matrix import WITH_EXPERTS
from tests.oracle import node

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
