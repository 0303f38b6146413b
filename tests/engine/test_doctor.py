"""`circuitspec doctor`: sound models of every family pass, and what is broken is named by its site."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from circuitspec.cli import main
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.execution.compiler import Actions, Compiler, borrowed
from circuitspec.engine.execution.taps import Tap, TapKind, all_taps
from circuitspec.engine.runner import Runner
from circuitspec.engine.validation.self_test import self_test
from circuitspec.engine.validation.site_tests import Diagnosis, diagnose, random_task
from circuitspec.hypothesis_file.schema.blocks import ModelSpec
from circuitspec.models.load import LoadedModel, load_model
from tests.engine.support import FAMILIES, Silent
from tests.engine.support import model as random_model
from tests.matrix import LAYOUTS, LOOK_ALIKES
from tests.models.conftest import save_tokenizer
from tests.oracle import builders
from tests.waiting import without_progress


def saved(family: str, directory: Path) -> Path:
    random_model(family, layers=2, exactly=False).save_pretrained(directory)
    save_tokenizer(directory)
    return directory


def examined(loaded: LoadedModel) -> Diagnosis:
    progress = Silent()
    with borrowed(loaded.model):
        found = diagnose(loaded, progress)
    if not found.untested:
        assert progress.done == progress.expected
    return found


def load(directory: Path | str, dtype: Any = "float32") -> LoadedModel:
    return load_model(ModelSpec(id=str(directory), dtype=dtype), Path.cwd())


@pytest.mark.every_family
@pytest.mark.parametrize(
    ("family", "dtype"),
    [
        *((family, "float32") for family in FAMILIES),
        *((family, "bfloat16") for family in LAYOUTS),
        *(pytest.param(family, "bfloat16", marks=pytest.mark.nightly) for family in LOOK_ALIKES),
    ],
)
def test_every_site_of_every_family_is_sound(family: str, dtype: str, tmp_path: Path) -> None:
    loaded = load(saved(family, tmp_path), dtype)
    found = examined(loaded)
    assert found.problems == ()
    assert not found.untested
    assert {s.tap for s in found.sites} == all_taps(loaded.architecture, loaded.shape)
    assert [s.name for s in found.sites if s.silent or s.same_values] == []
    untold = ("k", "shared_neurons")  # what these lead to hangs on others too
    assert [s.name for s in found.sites if s.handed_on is None] == [s.name for s in found.sites if s.tap.kind in untold]
    assert all(s.own_values == 0 for s in found.sites)
    # a patch at a residual stream makes the run the other one: its effect is that run's distance, at every layer
    effects = [s.effect for s in found.sites if s.tap.kind in ("resid", "resid_mid")]
    assert effects == pytest.approx([effects[0]] * len(effects))


class Meddling:
    """Stands in for `Compiler.forward`: what it is told to do at some taps is lost or altered."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *taps: Tap, add: float | None = None) -> None:
        forward = Compiler.forward

        def meddled(compiler: Compiler, inputs: Mapping[str, Any], actions: Actions) -> Any:
            swaps = dict(actions.swaps)
            for tap in taps:
                swap = swaps.pop(tap, None)
                if swap is not None and add is not None:
                    swaps[tap] = replace(swap, source=swap.source + add)
            return forward(compiler, inputs, replace(actions, swaps=swaps))

        monkeypatch.setattr(Compiler, "forward", meddled)


@pytest.mark.parametrize("kind", ["resid", "resid_mid", "v", "z", "neurons", "mlp"])
def test_a_patch_that_is_lost_is_named(kind: TapKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load(saved("llama", tmp_path))
    tap = Tap(1, kind)
    Meddling(monkeypatch, tap)
    found = examined(loaded)
    assert [s.tap for s in found.sites if found.off(s.handed_on)] == [tap]
    assert [s.tap for s in found.sites if s.silent] == [tap]
    (problem,) = found.problems
    assert problem.code == "CS503"
    assert tap.path(loaded.architecture) in problem.message


@pytest.mark.parametrize("kind", ["resid", "qkv", "z", "neurons", "mlp"])
def test_a_patch_that_is_lost_is_named_where_attention_and_mlp_are_parallel(
    kind: TapKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load(saved("gpt_neox", tmp_path))
    tap = Tap(0, kind)
    Meddling(monkeypatch, tap)
    found = examined(loaded)
    wrong = [s.tap for s in found.sites if found.off(s.handed_on)]
    assert wrong == [tap]


def test_lost_keys_are_listed_as_changing_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load(saved("llama", tmp_path))
    Meddling(monkeypatch, Tap(1, "k"))
    found = examined(loaded)
    assert found.problems == ()
    assert [s.name for s in found.sites if s.silent] == ["a1.kv* (keys)"]


def test_a_patch_of_other_values_than_were_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load(saved("qwen2", tmp_path))
    Meddling(monkeypatch, Tap(0, "mlp"), add=0.1)
    found = examined(loaded)
    assert [s.name for s in found.sites if found.off(s.own_values)] == ["m0"]
    assert [s.name for s in found.sites if found.off(s.handed_on)] == ["m0"]
    assert {p.code for p in found.problems} == {"CS503"}
    assert sum("m0 (model.layers[0].mlp.output)" in p.message for p in found.problems) == 2


def deafen(mlp: Any) -> None:
    """Make a module give its caller what it computed before any hook changed it."""
    kept: list[torch.Tensor] = []
    kind = type(mlp)

    class Deaf(kind):  # type: ignore[misc, valid-type]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            computed = super().forward(x)
            kept.append(computed.clone())
            return computed

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            super().__call__(x)
            return kept.pop()

    mlp.__class__ = Deaf


def test_a_model_that_ignores_what_is_patched_into_a_module(tmp_path: Path) -> None:
    """The self-tests of `verify` notice it, and the doctor names the module."""
    loaded = load(saved("gpt2", tmp_path))
    deafen(loaded.model.transformer.h[1].mlp)
    task = random_task(loaded)
    with borrowed(loaded.model), pytest.raises(CircuitspecError) as error:
        self_test(Runner(loaded, task, rows=2, progress=Silent()))
    assert [d.code for d in error.value.diagnostics] == ["CS503"]
    found = examined(loaded)
    assert [s.name for s in found.sites if found.off(s.handed_on)] == ["m1"]


def test_the_prompts() -> None:
    """Two lengths, tokens of the vocabulary, and another run that differs at every token; the same every time."""
    loaded = load("zoo:ioi-tiny")
    task = random_task(loaded)
    assert task == random_task(loaded)
    assert len(set(task.lengths)) == 2
    known = set(loaded.tokenizer.get_vocab().values())
    for clean, other in zip(task.ids["clean"], task.ids["other"], strict=True):
        assert len(clean) == len(other)
        assert all(a != b for a, b in zip(clean, other, strict=True))
        assert {*clean, *other} <= known


def test_a_model_that_breaks_when_padded_on_the_left_is_tested_without(tmp_path: Path) -> None:
    """Gemma 2 in float64: transformers computes the softmax in float32, and of a row with nothing in it makes NaN."""
    found = examined(load(saved("gemma2", tmp_path), "float64"))
    assert "NaN or infinity" in found.untested
    assert found.problems == ()
    assert len(found.sites) == 2 * 7


def doctor(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["doctor", *map(str, arguments)])


def test_the_report_of_a_sound_model() -> None:
    ran = doctor("zoo:ioi-tiny")
    assert ran.exit_code == 0
    assert without_progress(ran.stderr) == ""
    lines = ran.stdout.splitlines()
    assert lines[0].startswith("zoo:ioi-tiny   GPT-2 (gpt2)")
    assert lines[-1] == "SOUND   24 sites"
    assert sum("transformer.h[3].mlp.output" in line for line in lines) == 1
    assert "WRONG" not in ran.stdout


def test_the_report_as_json(tmp_path: Path) -> None:
    ran = doctor(saved("gpt_neox", tmp_path), "--format", "json", "--dtype", "float16")
    assert ran.exit_code == 0
    found = json.loads(ran.stdout)
    assert found["sound"] is True
    assert found["model"]["family"] == "gpt_neox"
    assert found["model"]["dtype"] == "float16"
    assert len(found["sites"]) == 2 * 5
    assert {s["site"] for s in found["sites"]} >= {"r0", "a1", "m1", "m0.n*"}
    refused = [g for g in found["granularities"] if not g["supported"]]
    assert [g["example"] for g in refused] == ["r0.mid"]
    assert all(g["why_not"] for g in refused)


def test_a_broken_model_has_exit_code_5_and_its_site_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Meddling(monkeypatch, Tap(1, "mlp"))
    directory = saved("gemma3_text", tmp_path)
    ran = doctor(directory)
    assert ran.exit_code == 5
    assert "error[CS503]" in ran.stderr
    assert "m1 (model.layers[1].mlp.output)" in ran.stderr
    (line,) = [line for line in ran.stdout.splitlines() if line.endswith("WRONG")]
    assert line.split()[0] == "m1"
    assert "NOT SOUND   1 of 14 sites" in ran.stdout
    as_json = json.loads(doctor(directory, "--format", "json").stdout)
    assert as_json["sound"] is False
    assert as_json["silent"] == ["m1"]


@pytest.mark.parametrize(("model", "code"), [("zoo:nothing", "CS302"), ("./nothing", "CS301"), ("a b", "CS300")])
def test_a_model_that_is_not_there(model: str, code: str) -> None:
    ran = doctor(model)
    assert ran.exit_code in (3, 5)
    assert f"error[{code}]" in ran.stderr
    assert ran.stdout == ""


def test_a_model_that_is_never_padded(tmp_path: Path) -> None:
    """Its rotary embedding goes by the longest row, so that all rows of a batch are equally long."""
    rope = {"rope_type": "longrope", "original_max_position_embeddings": 6, "rope_theta": 10000.0}
    factors = {"short_factor": [1.0] * 4, "long_factor": [5.0, 10.0, 20.0, 40.0]}
    model = builders.random_llama(3, "sdpa", exactly=False, layers=2, rope_parameters={**rope, **factors})
    model.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    found = examined(load(tmp_path))
    assert found.problems == ()
    assert found.by_length
    assert set(found.lengths) == {8}
    ran = doctor(tmp_path)
    assert ran.exit_code == 0
    assert "on random prompts of 8 tokens, never padded" in ran.stdout
    assert json.loads(doctor(tmp_path, "--format", "json").stdout)["batches_of_one_length"] is True


def test_usage() -> None:
    assert doctor("").exit_code == 2
    assert doctor("zoo:ioi-tiny", "--dtype", "int8").exit_code == 2
