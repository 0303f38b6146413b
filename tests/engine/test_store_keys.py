"""Keys change with everything that values depend on, one thing at a time, and with nothing else."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from circuitspec.engine.cache import store_keys as module
from circuitspec.engine.cache.store_keys import Keys, RunSetting, model_digest, setting_of
from circuitspec.experiments.experiment import Experiment, Noised, Site, Source
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head
from circuitspec.prompts.prompt_set import TokenizedTask
from tests.engine.support import loaded, random_prompts, task_of
from tests.oracle import builders

SETTING = RunSetting(
    model="m",
    dtype="float32",
    attention="sdpa",
    device="cpu",
    processor="x86_64",
    float32_matmul="highest",
    padding="right",
    packages=(("circuitspec", "1"), ("torch", "2"), ("transformers", "5"), ("pyvene", "0"), ("numpy", "2")),
    code="c",
)
A, B = Where.at("A"), Where.at("B")
NOISE = Noised(1.0, B, draws=1, seed=0)


def patching(source: Source, where: Where = A, base: Any = "clean") -> Experiment:
    return Experiment(base, source, frozenset({Site(Head(0, 1), where)}))


CLEAN = Experiment("clean")
RESAMPLE = patching(Source("resample", "abc"))
MEAN = patching(Source("mean_per_template", "abc"))
NOISED = patching(Source("resample", NOISE))
EXPERIMENTS = (CLEAN, Experiment("abc"), RESAMPLE, MEAN, NOISED)


def task() -> TokenizedTask:
    made = task_of(random_prompts(0, [5, 6, 7], templates=2))
    return replace(made, slot_tokens={"B": tuple((place,) for place in made.roles["B"])})


def changed(edit: Callable[[TokenizedTask], TokenizedTask]) -> set[Experiment]:
    """The experiments whose keys change when the task does."""
    before, after = Keys(SETTING, task()), Keys(SETTING, edit(task()))
    return {e for e in EXPERIMENTS if before.of(e) != after.of(e)}


ALL = set(EXPERIMENTS)


@pytest.mark.parametrize(
    "change",
    [
        *(
            {name: "other"}
            for name in ("model", "dtype", "attention", "device", "processor", "float32_matmul", "padding", "code")
        ),
        *(
            {"packages": tuple((n, "9" if n == name else v) for n, v in SETTING.packages)}
            for name, _ in SETTING.packages
        ),
    ],
    ids=str,
)
def test_everything_that_the_setting_holds_counts(change: dict[str, Any]) -> None:
    before, after = Keys(SETTING, task()), Keys(replace(SETTING, **change), task())
    assert before.context != after.context
    assert all(before.of(e) != after.of(e) for e in EXPERIMENTS)


def test_keys_are_of_32_bytes_and_of_one_experiment_each() -> None:
    keys = Keys(SETTING, task())
    variants = [
        *EXPERIMENTS,
        patching(Source("resample", "abc"), B),
        patching(Source("resample", "abc"), base="abc"),
        patching(Source("mean", "abc")),
        patching(Source("zero", None)),
        patching(Source("resample", replace(NOISE, seed=1))),
        patching(Source("resample", replace(NOISE, std=2.0))),
        patching(Source("resample", replace(NOISE, draws=2))),
        Experiment("clean", Source("resample", "abc"), frozenset({Site(Head(0, 2), A)})),
    ]
    assert len({keys.of(e) for e in variants}) == len(variants)
    assert {len(keys.of(e)) for e in variants} == {32}
    assert [keys.of(e) for e in variants] == [Keys(SETTING, task()).of(e) for e in variants]


def with_ids(variant: str, prompt: int = 1) -> Callable[[TokenizedTask], TokenizedTask]:
    def edit(task: TokenizedTask) -> TokenizedTask:
        rows = list(task.ids[variant])
        rows[prompt] = (rows[prompt][0] ^ 1, *rows[prompt][1:])
        return replace(task, ids={**task.ids, variant: tuple(rows)})

    return edit


def with_prompt(**change: Any) -> Callable[[TokenizedTask], TokenizedTask]:
    def edit(task: TokenizedTask) -> TokenizedTask:
        first, *others = task.prompts.prompts
        return replace(task, prompts=replace(task.prompts, prompts=(replace(first, **change), *others)))

    return edit


def with_role(role: str, places: tuple[int, ...]) -> Callable[[TokenizedTask], TokenizedTask]:
    return lambda task: replace(task, roles={**task.roles, role: places})


def test_what_all_experiments_read_of_the_task() -> None:
    """The clean run is part of each, since the divergence from it is measured."""
    assert changed(with_ids("clean")) == ALL
    assert changed(lambda t: replace(t, answers=((1,), *t.answers[1:]))) == ALL
    assert changed(lambda t: replace(t, wrong=((1,), *t.wrong[1:]))) == ALL
    assert changed(with_prompt(template=1)) == ALL
    assert changed(with_prompt(index=77)) == ALL
    assert changed(lambda t: task_of(random_prompts(0, [5, 6], templates=2))) == ALL


def test_corrupt_prompts_count_where_they_are_run() -> None:
    assert changed(with_ids("abc")) == ALL - {CLEAN, NOISED}


def test_positions_count_where_they_are_named() -> None:
    assert changed(with_role("A", (0, 0, 1))) == {RESAMPLE, MEAN, NOISED}
    assert changed(with_role("B", (0, 0, 1))) == {MEAN, NOISED}  # means are grouped by all positions
    assert changed(lambda t: replace(t, slot_tokens={"B": ((0,), (0,), (0,))})) >= {NOISED}
    assert not changed(lambda t: replace(t, slot_tokens={"B": ((0,), (0,), (0,))})) & {CLEAN, RESAMPLE}


def test_another_corruption_or_position_in_the_file_changes_nothing_else() -> None:
    assert changed(lambda t: replace(t, ids={**t.ids, "flip": t.ids["abc"]})) == set()
    assert changed(with_role("C", (0, 1, 2))) == {MEAN}


def test_what_the_model_does_not_read_does_not_count() -> None:
    assert changed(with_prompt(texts={"clean": "x", "abc": "y"}, where="prompts.jsonl:12")) == set()
    assert changed(lambda t: replace(t, prompts=replace(t.prompts, templates=("one", "two")))) == set()
    assert changed(lambda t: replace(t, partial_roles={"D": (1,)})) == set()


def edited(change: Callable[[Any], object]) -> str:
    model = builders.random_gpt2()
    change(model)
    return model_digest(model)


@torch.no_grad()
def next_float(tensor: torch.Tensor) -> None:
    flat = tensor.view(-1)
    flat[0] = torch.nextafter(flat[0], torch.tensor(torch.inf, dtype=tensor.dtype))


def test_the_model_is_what_computes() -> None:
    same = edited(lambda m: None)
    digests = [
        same,
        edited(lambda m: next_float(m.transformer.h[2].mlp.c_proj.weight)),
        edited(lambda m: next_float(m.transformer.ln_f.bias)),
        edited(lambda m: m.float()),
        edited(lambda m: m.to(torch.bfloat16)),
        edited(lambda m: setattr(m.config, "layer_norm_epsilon", 0.5)),
        edited(lambda m: setattr(m.config, "scale_attn_weights", False)),
        edited(lambda m: m.register_buffer("extra", torch.ones(1))),
        edited(lambda m: setattr(m, "__class__", type("Another", (type(m),), {}))),
    ]
    assert len(set(digests)) == len(digests)
    assert same == edited(lambda m: setattr(m.config, "_name_or_path", "elsewhere"))
    assert same == edited(lambda m: setattr(m.config, "transformers_version", "0"))
    assert same == edited(lambda m: m.requires_grad_(False))


def test_the_setting_is_what_runs_now(monkeypatch: pytest.MonkeyPatch) -> None:
    model = builders.random_gpt2()
    setting = setting_of(loaded(model))
    assert setting == setting_of(loaded(model), "right")
    assert setting.model == model_digest(model)
    assert (setting.dtype, setting.device, setting.padding) == ("float64", "cpu", "right")
    assert setting.attention == model.config._attn_implementation
    assert dict(setting.packages) == {
        name: importlib.metadata.version(name) for name in ("circuitspec", "torch", "transformers", "pyvene", "numpy")
    }
    assert setting_of(loaded(model), "left").padding == "left"
    assert setting_of(loaded(builders.random_gpt2(attn="eager"))).attention == "eager"
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    assert setting_of(loaded(model)).float32_matmul == "medium"


def test_the_code_that_computes_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "circuitspec"
    for part in module._COMPUTING:
        (package / part / "inner").mkdir(parents=True)
        (package / part / "inner" / "code.py").write_text("x = 1\n", encoding="utf-8")
    monkeypatch.setattr(module, "files", lambda name: tmp_path / name)
    digest = module._code_digest.__wrapped__
    before = digest()
    (package / "cli.py").write_text("y = 1\n", encoding="utf-8")
    (package / "engine" / "table.json").write_text("{}", encoding="utf-8")
    assert digest() == before
    seen = {before}
    for part in module._COMPUTING:
        (package / part / "inner" / "code.py").write_text("x = 2\n", encoding="utf-8")
        seen.add(digest())
    (package / "engine" / "code.py").write_text("", encoding="utf-8")
    seen.add(digest())
    assert len(seen) == len(module._COMPUTING) + 2


def test_the_code_is_found() -> None:
    names = [name for name, _ in module._sources(module.files("circuitspec") / "engine", "circuitspec.engine")]
    assert {"circuitspec.engine.runner.py", "circuitspec.engine.pyvene_export.bundle.run.py"} <= set(names)
