"""`attribution` and `lens`, and the functions of the same tables, on the shipped model."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM, AutoTokenizer

import circuitspec
from circuitspec.cli import main
from circuitspec.models.zoo import zoo_path

FILE = (Path(__file__).parents[2] / "hypotheses" / "ioi-tiny.circuit.yaml").read_text("utf-8")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with a model and a task alone."""
    path = tmp_path / "task.circuit.yaml"
    path.write_text(FILE[: FILE.index("circuit:\n  groups")].replace("prompts: 100", "prompts: 12"), "utf-8")
    return path


def ran(*arguments: str) -> str:
    result = CliRunner().invoke(main, [*arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_attribution(file: Path) -> None:
    table = pd.read_csv(io.StringIO(ran("attribution", str(file), "--format", "csv")))
    layers = pd.read_csv(io.StringIO(ran("lens", str(file), "--format", "csv")))
    assert list(table["component"])[:3] == ["input", "a0.h0", "a0.h1"]
    assert len(table) == 1 + 16 + 4 + 1
    assert table["effect"].sum() == pytest.approx(layers["logit_diff"].iloc[-1], abs=1e-4)
    assert table["share"].sum() == pytest.approx(1, abs=1e-4)
    assert list(layers["component"]) == ["r0", "r1", "r2", "r3", "output"]
    largest = ran("attribution", str(file), "--top", "2", "--by-source").splitlines()
    assert len(largest) == 3
    assert largest[0].split() == ["component", "kind", "layer", "head", "position", "source", "effect", "share"]
    lines = [json.loads(line) for line in ran("lens", str(file), "--per-prompt", "--format", "json").splitlines()]
    assert len(lines) == 5 * 12
    assert lines[0]["layer"] is None
    assert "logit_diff" in ran("lens", str(file)).splitlines()[0]


def test_a_model_in_memory_is_taken_and_given_back(file: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(zoo_path("ioi-tiny"), dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(zoo_path("ioi-tiny"))
    model.train()
    mine, theirs = circuitspec.direct_attribution(file, model, tokenizer), circuitspec.direct_attribution(file)
    np.testing.assert_allclose(mine["effect"], theirs["effect"], atol=1e-5)
    np.testing.assert_allclose(
        circuitspec.logit_lens(file, model, tokenizer)["logit_diff"],
        circuitspec.logit_lens(file)["logit_diff"],
        atol=1e-5,
    )
    assert model.training
    with pytest.raises(TypeError, match="both a model and its tokenizer"):
        circuitspec.logit_lens(file, model)


def test_a_metric_that_does_not_fall_into_parts(file: Path) -> None:
    result = CliRunner().invoke(main, ["attribution", str(file), "--metric", "prob"])
    assert "CS394" in result.output
    assert "logit_diff or logit" in result.output
