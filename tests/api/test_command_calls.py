"""`explore`, `plan`, `check`, `report`, `lock` from Python, and metrics of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

import circuitspec
from circuitspec.cli import main
from circuitspec.hypothesis_file.yaml.source import parse_source
from circuitspec.hypothesis_file.yaml.yaml_writer import write_yaml
from tests.api.support import ROWS, ByHooks
from tests.api.test_api import TINY


def tiny_task(prompts: int = 16) -> dict[str, Any]:
    whole: Any = parse_source(TINY.read_text(encoding="utf-8"), "f").data
    return {**whole["task"], "prompts": prompts}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The shipped model on few prompts, and one claim."""
    built = circuitspec.hypothesis(
        "tiny",
        model="zoo:ioi-tiny",
        task=tiny_task(),
        groups={"inhibition": "a2.h2@END"},
        ablation=circuitspec.ablation("resample", from_="abc"),
        claims=[circuitspec.claim("necessary", metric="logit_diff", at_most=0.5)],
    )
    path = tmp_path / "tiny.circuit.yaml"
    built.save(path)
    return path


def first_answer(run: Any) -> torch.Tensor:
    return run.mean(run.answers) - run.logits.mean(-1)


def test_a_metric_of_ones_own_is_measured_in_every_run(model: Any, tokenizer: Any, hooks: ByHooks) -> None:
    frame = circuitspec.sweep(model, tokenizer, ROWS, at="END", layers=[2], metric=first_answer, unpatched=True)
    sites: list[Any] = [[(("head", 2, head), -1)] for head in range(4)]
    runs = [hooks.patched(site, "clean", "corrupt") for site in sites]
    unpatched = [[run.logits[-1] for run in hooks.runs[name]] for name in ("clean", "corrupt")]

    def score(logits: list[torch.Tensor]) -> float:
        pairs = zip(logits, hooks.targets, strict=True)
        return float(np.mean([float(one[answer] - one.mean()) for one, (answer, _) in pairs]))

    clean, corrupt = map(score, unpatched)
    np.testing.assert_allclose(frame["first_answer"], [clean, corrupt, *map(score, runs)], atol=1e-9)
    shares = [(score(logits) - corrupt) / (clean - corrupt) for logits in runs]
    np.testing.assert_allclose(frame["recovered_first_answer"][2:], shares, atol=1e-9)


def test_it_is_called_own_metric_or_by_name(model: Any, tokenizer: Any) -> None:
    found = circuitspec.patch(model, tokenizer, ROWS, "m1", metric=lambda run: run.logits[:, 0])
    assert "own_metric" in found
    named = circuitspec.patch(model, tokenizer, ROWS, "m1", metric={"first": lambda run: run.logits[:, 0]})
    assert named.loc[0, "first"] == found.loc[0, "own_metric"]
    with pytest.raises(ValueError, match="cannot be called 'kl'"):
        circuitspec.patch(model, tokenizer, ROWS, "m1", metric={"kl": lambda run: run.logits[:, 0]})
    with pytest.raises(TypeError, match="without a store"):
        circuitspec.patch(model, tokenizer, ROWS, "m1", metric=first_answer, store="records")


@pytest.mark.parametrize("metric", [lambda run: run.logits, lambda run: 1.0, lambda run: run.nothing])
def test_a_metric_that_gives_no_numbers(model: Any, tokenizer: Any, metric: Any) -> None:
    with pytest.raises(circuitspec.CircuitspecError, match="CS517"):
        circuitspec.patch(model, tokenizer, ROWS, "m1", metric=metric)


def test_a_verification_says_that_it_measured_one(saved: Path) -> None:
    result = circuitspec.verify(saved, negatives="off", metric=first_answer)
    (warning,) = (one for one in result.warnings if one.code == "CS446")
    assert warning.data["metrics"] == ["first_answer"]
    assert "warning[CS446]: not in the file: 1 metric of the caller's own (first_answer)" in str(result)
    assert "\n  first_answer  " in str(result)
    assert np.isfinite(result.frame["first_answer"]).all()
    plain = circuitspec.verify(saved, negatives="off")
    assert not [one for one in plain.warnings if one.code == "CS446"]
    pd.testing.assert_series_equal(plain.frame["logit_diff"], result.frame["logit_diff"])
    with pytest.raises(circuitspec.CircuitspecError, match="CS518"):
        circuitspec.lock(saved, metric=first_answer)


def test_a_verification_keeps_and_looks_up(saved: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    first, again = (circuitspec.verify(saved, negatives="off", store=store) for _ in range(2))
    assert (first.verification.cost.n_stored, again.verification.cost.n_stored > 0) == (0, True)
    pd.testing.assert_frame_equal(first.frame, again.frame)


def test_a_lock_is_that_of_the_command(saved: Path) -> None:
    path = circuitspec.lock(saved)
    assert path == saved.with_name("tiny.circuit.lock")
    done = CliRunner().invoke(main, ["verify", "--locked", str(saved)], catch_exceptions=False)
    assert done.exit_code == 0, done.output


def test_what_cannot_be_locked(saved: Path) -> None:
    document = circuitspec.load(saved)
    with pytest.raises(circuitspec.CircuitspecError, match="CS518"):
        circuitspec.lock(document.replace(name="another"))
    with pytest.raises(circuitspec.CircuitspecError, match="CS516"):
        circuitspec.lock(document.replace(model=None))


def test_a_check_says_what_the_command_says(saved: Path, tmp_path: Path) -> None:
    found = circuitspec.check(saved)
    assert found
    done = CliRunner().invoke(main, ["check", str(saved)], catch_exceptions=False)
    assert repr(found) == done.output.rstrip()
    wrong = tmp_path / "wrong.circuit.yaml"
    wrong.write_text(saved.read_text(encoding="utf-8").replace("a2.h2@END", "a2.h9@END"), encoding="utf-8")
    found = circuitspec.check(wrong)
    assert not found
    assert [one.code for one in found] == ["CS220"]
    assert "a2.h9" in found._repr_html_()
    assert circuitspec.check(circuitspec.load(saved))


def test_a_plan_says_what_the_command_says(saved: Path, model: Any) -> None:
    done = CliRunner().invoke(main, ["plan", str(saved)], catch_exceptions=False)
    assert circuitspec.plan(saved) == done.output.rstrip("\n")
    assert repr(circuitspec.plan(circuitspec.load(saved))) == done.output.rstrip("\n")
    unnamed = circuitspec.load(saved).replace(model=None)
    with pytest.raises(circuitspec.CircuitspecError, match="CS516"):
        circuitspec.plan(unnamed)
    assert "experiment" in circuitspec.plan(unnamed, model)
    exploring = circuitspec.plan(tiny_task(), model)
    assert "forward passes at most" in exploring
    assert exploring._repr_html_().startswith("<pre")


def test_explore_says_beforehand_what_its_options_take(tmp_path: Path) -> None:
    file = tmp_path / "task.yaml"
    task = {"circuitspec": 1, "name": "tiny", "model": {"id": "zoo:ioi-tiny"}, "task": tiny_task()}
    file.write_text(write_yaml(task), encoding="utf-8")
    done = CliRunner().invoke(main, ["explore", str(file), "--sweep", "heads", "--plan"], catch_exceptions=False)
    assert done.exit_code == 0
    stages = dict(line.strip().rsplit(maxsplit=1) for line in done.output.splitlines() if line.startswith("   "))
    # 16 heads at IO, S1, S1#2/S2, place, object, END, others and all, from two corruptions' worth of ways
    assert int(stages["sweeps"]) % 16 == 0
    plain = CliRunner().invoke(main, ["plan", str(file)], catch_exceptions=False)
    assert "sweeps" not in plain.output


def test_a_report_of_what_was_saved(saved: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["verify", str(saved), "--output-dir", str(out), "--negatives", "off"]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert circuitspec.report(out).splitlines()[0] == done.output.splitlines()[0]
    assert circuitspec.report(out, "json").startswith("{")
    with pytest.raises(ValueError, match="give one of"):
        circuitspec.report(out, "word")


@pytest.mark.nightly
def test_an_exploration_of_a_model_in_memory(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    free = ("a0", "a1", "m*")
    found = circuitspec.explore(tiny_task(12), model, tokenizer, free=free, exact=4, store=tmp_path / "store")
    assert {"component", "position", "drop", "rise"} <= {*found.effects.columns}
    draft = found.draft
    assert draft is not None
    assert "model" not in draft.parts
    assert circuitspec.verify(draft, model, tokenizer, negatives="off").claims
    assert "<svg" in found._repr_html_()
    assert repr(found).startswith("<Explored 'in memory'")
    with pytest.raises(circuitspec.CircuitspecError, match="CS516"):
        circuitspec.explore(tiny_task())
    with pytest.raises(TypeError, match="neither"):
        circuitspec.explore(tiny_task(), model)
