"""The whole pipeline under zero ablation and noise, on a compiled toy, in numbers that the oracle gives."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from circuitspec.engine.ablation.embedding_noise import embedding_std
from circuitspec.experiments.experiment import Noised
from circuitspec.hypothesis_file.load_file import Document, parse_hypothesis
from circuitspec.models.load import load_model
from circuitspec.pipelines.verify import Outcome, VerifyOptions, verify
from circuitspec.reports.machine.json_document import to_document
from circuitspec.reports.text.text_report import render_text
from tests.engine.support import Silent, oracle_records
from tests.engine.test_noise import drawn
from tests.oracle import node

FILE = (Path(__file__).parents[2] / "hypotheses" / "toys" / "nobel.circuit.yaml").read_text(encoding="utf-8")
ABLATION = "{value: resample, from: random, level: node, positions: declared}"


class Quiet(Silent):
    def stage(self, text: str) -> None: ...


def document(ablation: str, claims: str, dtype: str = "float64") -> Document:
    assert ABLATION in FILE
    text = FILE.replace(ABLATION, ablation).replace("id: zoo:nobel", f"id: zoo:nobel\n  dtype: {dtype}")
    return parse_hypothesis(text[: text.index("claims:")] + f"claims: [{claims}]\n", "t.circuit.yaml", Path())


def verified(document: Document) -> Outcome:
    progress = Quiet()
    outcome = verify(document, VerifyOptions(), progress)
    assert progress.done == progress.expected
    return outcome


def prompts_of(outcome: Outcome) -> list[node.Prompt]:
    task = outcome.task
    return [
        node.Prompt(
            list(task.ids["clean"][i]),
            list(task.ids["random"][i]),
            task.prompts.prompts[i].template,
            list(task.answers[i]),
            list(task.wrong[i]),
            {role: places[i] for role, places in task.roles.items()},
        )
        for i in range(task.n)
    ]


def check(outcome: Outcome, model: Any, noise: Any = None) -> None:
    """Every run of the plan, the restored components of the search for negatives aside."""
    found = outcome.verification
    for experiment in (e for p in found.plan.claims for e in (p.clean, p.corrupt, p.patched)):
        expected = oracle_records(model, prompts_of(outcome), experiment, noise)
        for metric, values in found.records[experiment].items():
            np.testing.assert_allclose(values, expected[metric], rtol=0, atol=1e-6, err_msg=metric)


def test_zero_ablation() -> None:
    """All biases of the toy are zero but m1.n42's own: with the heads and neurons gone nothing says Prize."""
    claims = "sufficient: {metric: logit_diff, at_least: 0.9}}, {necessary: {metric: logit_diff, at_most: 0.1}"
    hypothesis = document("{value: zero}", "{" + claims + "}")
    outcome = verified(hypothesis)
    check(outcome, load_model(hypothesis.hypothesis.model, Path()).model)
    found = outcome.verification
    assert [c.status for c in found.claims] == ["SUPPORTED", "SUPPORTED"]
    assert "node level, zero, declared positions" in render_text(found)
    methodology: Any = to_document(found)["methodology"]
    assert methodology["source"] is None
    assert methodology["noised"] == ["heads", "MLPs", "neurons"]


def test_gaussian_noise() -> None:
    """Noise on the two words that matter; restoring the neuron that reads them restores nearly all."""
    claims = (
        "{sufficient: {metric: logit_diff, at_least: 0.9}}, {necessary: {metric: logit_diff, at_most: 0.2}}, "
        "{cross_section: {nodes: [prize], metric: logit_diff, at_least: 0.9}}"
    )
    hypothesis = document("{value: gaussian, at: [first, second], std: 3, draws: 3, seed: 1}", claims)
    outcome = verified(hypothesis)
    loaded = load_model(hypothesis.hypothesis.model, Path())

    def noise(noised: Noised, draw: int, prompt: int) -> torch.Tensor:
        values = drawn(outcome.task, noised, draw, prompt, loaded.shape.d_model)
        return torch.from_numpy(noised.std * embedding_std(loaded) * values)

    check(outcome, loaded.model, noise)
    found = outcome.verification
    assert [c.status for c in found.claims] == ["SUPPORTED"] * 3
    text = render_text(found)
    described = "clean + noise of 3 std at first, second (3 draws)"
    assert f"ablating the circuit: node level, gaussian from {described}, declared positions" in text
    assert f"denoising prize: node level, clean values into {described}, declared positions" in text


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_self_tests_are_reported(dtype: str) -> None:
    hypothesis = document(ABLATION, "{necessary: {metric: logit_diff, at_most: 0.5}}", dtype)
    found = verified(hypothesis).verification
    tested: Any = to_document(found)["self_test"]
    assert all(math.isfinite(tested[name]) and tested[name] < 0.1 for name in ("own_values", "all_patched"))
    assert ("bfloat16: in the self-tests" in render_text(found)) == (dtype == "bfloat16")
