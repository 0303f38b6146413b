"""A throw-away metric, an entry and its name: run from the file to the report, and held to the model's own logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from circuitspec.engine.execution.compiler import borrowed
from circuitspec.hypothesis_file.load_file import load_hypothesis
from circuitspec.hypothesis_file.schema import block
from circuitspec.hypothesis_file.schema.json_schema import json_schema
from circuitspec.models.load import load_model
from circuitspec.pipelines.check import check_file
from circuitspec.pipelines.plan import plan_file
from circuitspec.pipelines.verify import VerifyOptions, verify
from circuitspec.prompts.output_metrics import METRICS, Metric
from circuitspec.reports.machine.json_document import to_document
from circuitspec.reports.text.text_report import render_text
from circuitspec.runtime.progress import Silent

FILE = Path(__file__).parents[1] / "hypotheses" / "toys" / "and.circuit.yaml"
NAME = "over_mean"


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Metric(
        NAME,
        "logits",
        "higher",
        "mean logit of the answers minus the mean of all logits",
        lambda run: run.mean(run.answers) - run.logits.mean(-1),
        linear=True,
    )
    monkeypatch.setitem(METRICS, NAME, entry)  # type: ignore[arg-type]
    monkeypatch.setattr(block, "OUTPUT_METRICS", (*block.OUTPUT_METRICS, NAME))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    text = FILE.read_text(encoding="utf-8")
    claims = f"claims:\n  - sufficient: {{metric: {NAME}, at_least: 0.5}}\n"
    path = tmp_path / "new.circuit.yaml"
    path.write_text(text[: text.index("claims:")] + claims, encoding="utf-8")
    return path


def test_from_the_file_to_the_report(registered: None, file: Path) -> None:
    assert check_file(file)[0] == ()
    assert f"sufficient: {{metric: {NAME}" in file.read_text(encoding="utf-8")
    plan_file(file)
    document = load_hypothesis(file)
    found = verify(document, VerifyOptions(negatives="off"), Silent())
    shown = render_text(found.verification)
    assert f"  {NAME} " in shown
    written: Any = to_document(found.verification)
    assert written["claims"][0]["metric"] == NAME

    loaded = load_model(document.hypothesis.model, document.base_dir, progress=lambda said: None)
    task, scores = found.task, []
    with borrowed(loaded.model), torch.no_grad():
        for ids, answers in zip(task.ids["clean"], task.answers, strict=True):
            logits = loaded.model(torch.tensor([ids])).logits[0, -1].double()
            scores.append(float(logits[answers].mean() - logits.mean()))
    (clean,) = (run for run in found.verification.plan.experiments if run == found.verification.plan.clean)
    np.testing.assert_allclose(found.verification.records[clean][NAME], scores, rtol=1e-5, atol=1e-5)


def test_the_name_is_known_where_it_is_registered_alone(registered: None, file: Path) -> None:
    assert NAME in str(json_schema())


def test_without_it_the_name_is_refused(file: Path) -> None:
    ((problem,), _) = check_file(file)
    assert problem.code == "CS114"
    assert "logit_diff" in str(problem.label)
