"""What a prompt's run depends on: the prompt, and nothing else that shares a batch with it or ran before it.

The right values are those of transformers, one prompt at a time, with plain PyTorch hooks (`tests.oracle.hooked`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from circuitspec.engine.execution.batches import make_batches
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.experiments.experiment import EVERYWHERE, Experiment, Site, Source
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Mlp
from circuitspec.models.families.rope import memoryless, reads_longest_row
from tests.engine.support import FAMILIES, oracle_component, random_prompts, runner, task_of
from tests.engine.support import model as random_model
from tests.oracle import builders, hooked, metrics, node

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


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family: str) -> None:
    """In single precision, with all that a family has of its own."""
    assert_each_is_alone(random_model(family, exactly=False).float(), LENGTHS, 2e-4)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["phi3", "llama", "qwen2", "mistral"])
def test_longrope(family: str, attention: str) -> None:
    """Frequencies for more than 12 tokens, or for fewer, by the longest row: prompts of 10 to 14 tokens."""
    model = with_rope(family, attention, **LONG)
    assert reads_longest_row(model)
    with torch.no_grad():  # the two really differ
        prompt = torch.tensor([builders.random_ids(0, 10)])
        padded = torch.cat([prompt, prompt[:, :4]], 1)
        assert (model(prompt).logits[0, -1] - model(padded).logits[0, 9]).abs().max() > 0.3
    assert_each_is_alone(model, LENGTHS, 1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
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
