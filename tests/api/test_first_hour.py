"""examples/first_hour.py: every figure that it prints, by plain hooks on the same model."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import circuitspec
from circuitspec.models.zoo import zoo_path
from tests.api.support import ByHooks
from tests.oracle import node
from tests.oracle.path import open_ends, path_patch

SCRIPT = Path(__file__).parents[2] / "examples" / "first_hour.py"
PRINTED = 0.00051  # three places


def test_it_has_fewer_than_forty_lines() -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    said = ast.get_docstring(ast.parse(text), clean=False)
    assert said is not None
    code = [line for line in text.replace(said, "").splitlines() if line.strip() and not line.startswith('"""')]
    assert len(code) < 40


def test_its_figures_are_those_of_hooks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(SCRIPT.read_text(encoding="utf-8"), str(SCRIPT), "exec"), names)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    prompts = names["result"].prompts.prompts
    rows = [{"clean": p.texts["clean"], "corrupt": p.texts, "answers": p.answers, "wrong": p.wrong} for p in prompts]
    hooks = ByHooks(names["model"], names["tokenizer"], rows)

    def mean(logits: list[torch.Tensor]) -> float:
        return float(hooks.score(logits)["logit_diff"].mean())

    clean, corrupt = (mean([run.logits[-1] for run in hooks.runs[name]]) for name in ("clean", "corrupt"))

    def recovered(logits: list[torch.Tensor]) -> float:
        return (mean(logits) - corrupt) / (clean - corrupt)

    noised = hooks.patched([(("head", 2, 2), -1)], "clean", "corrupt")
    table = [[float(cell) for cell in line[-2:]] for line in lines[1:4]]
    expected = [[clean, 1.0], [corrupt, 0.0], [mean(noised), recovered(noised)]]
    np.testing.assert_allclose(table, expected, atol=PRINTED)

    swept = [[float(cell) for cell in line[1:]] for line in lines[6:10]]
    for layer in range(4):
        for head in range(4):
            alone = hooks.patched([(("head", layer, head), -1)], "corrupt", "clean")
            assert swept[layer][head] == pytest.approx(recovered(alone), abs=PRINTED)
    assert (tmp_path / "first-hour.svg").read_text(encoding="utf-8").startswith("<?xml")

    exact = AutoModelForCausalLM.from_pretrained(zoo_path("ioi-tiny"), attn_implementation="eager").double()
    sources = [node.resample_values(exact, ids) for ids in hooks.corrupt]
    both = list(zip(hooks.clean, sources, strict=True))
    sent = ("head", 2, 2)
    end = (("head", 3, 0), {"q"}, None)
    out = [path_patch(exact, ids, new, sent, [("final",)], sender_positions=[len(ids) - 1])[-1] for ids, new in both]
    into = [open_ends(exact, ids, new, sent, [end], sender_positions=[len(ids) - 1])[-1] for ids, new in both]
    for line, logits in zip(lines[11:13], (out, into), strict=True):
        assert float(line[-1]) == pytest.approx(recovered(logits), abs=PRINTED)

    weights = [exact(torch.tensor([ids]), output_attentions=True).attentions[2][0, 2, -1] for ids in hooks.clean]
    average = torch.stack(weights).mean(0).detach()
    assert lines[13][6] == str(int(average.argmax()))
    assert float(lines[13][-1]) == pytest.approx(float(average.max()), abs=PRINTED)

    n = len(hooks.clean[0])
    every = [(("head", layer, head), at) for layer in range(4) for head in range(4) for at in range(n)]
    nothing = mean(
        hooks.patched(every + [(("mlp", layer), at) for layer in range(4) for at in range(n)], "clean", None)
    )
    necessary = (mean(hooks.patched([(("head", 2, 2), -1)], "clean", None)) - nothing) / (clean - nothing)
    assert lines[14][:2] == ["SUPPORTED", "necessary"]
    assert float(lines[14][-1]) == pytest.approx(necessary, abs=PRINTED)
    assert len(lines) == 15
    saved = circuitspec.load(tmp_path / "first-hour.circuit.yaml")
    assert "model" not in saved.parts
    with pytest.raises(circuitspec.CircuitspecError, match="CS516"):
        circuitspec.verify(saved)
