"""What a caller has set in torch for other work changes no figure, and is there again afterwards.

The right values are those of a torch of which nothing was set: autocast by torch's own word computes in another dtype.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from circuitspec.engine.attribution.restoration_screen import screen_restorations
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.validation.self_test import self_test
from circuitspec.experiments.experiment import EVERYWHERE, Experiment, Noised, Site, Source
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Mlp
from circuitspec.hypothesis_file.schema.blocks import ModelSpec
from circuitspec.models.in_memory.ambient_modes import as_in_a_new_process
from circuitspec.models.load import load_model
from tests.engine.support import FAMILIES, random_prompts, runner, task_of
from tests.engine.support import model as random_model

SITES = frozenset({Site(Head(0, 1), EVERYWHERE), Site(Mlp(1), Where.at("END"))})
EXPERIMENTS = [
    Experiment("clean"),
    Experiment("clean", Source("resample", "abc"), SITES),
    Experiment("clean", Source("zero", None), SITES),
    Experiment(Noised(1.0, EVERYWHERE, draws=2, seed=0), Source("resample", "clean"), SITES),
]
PROMPTS = random_prompts(seed=4, lengths=[6, 9, 7])


@contextlib.contextmanager
def default_dtype() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    torch.set_float32_matmul_precision(name)
    try:
        yield
        assert torch.get_float32_matmul_precision() == name
    finally:
        torch.set_float32_matmul_precision("highest")


@contextlib.contextmanager
def newer_precision() -> Iterator[None]:
    """As torch 2.9 has it; after that, the older interface refuses to answer."""
    if not hasattr(torch.backends.mkldnn, "matmul"):
        pytest.skip("this torch has no such setting")
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        yield
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
    finally:
        torch.set_float32_matmul_precision("highest")


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


SETTINGS: dict[str, Callable[[], Any]] = {
    "autocast to bfloat16": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "autocast to float16": lambda: torch.autocast("cpu", dtype=torch.float16),
    "no gradients": torch.no_grad,
    "gradients": torch.enable_grad,
    "default dtype": default_dtype,
    "default device": lambda: torch.device("meta"),
    "products in bfloat16": lambda: precision("medium"),
    "products in TF32": lambda: precision("high"),
    "products by the newer interface": newer_precision,
    "deterministic algorithms": deterministic,
}


def measured(model: Any) -> dict[str, np.ndarray]:
    with borrowed(model):
        run = runner(model, task_of(PROMPTS))
        self_test(run, edges=True)
        records = run.run(EXPERIMENTS)
        screen = screen_restorations(run, EXPERIMENTS[1], "logit_diff")
    found = {f"{i} {name}": values for i, e in enumerate(EXPERIMENTS) for name, values in records[e].items()}
    return found | {str(component): values for component, values in screen.effects.items()}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_changes_no_digit(setting: str) -> None:
    model = copy.deepcopy(random_model("llama", exactly=False, layers=2)).float()
    expected = measured(model)
    with SETTINGS[setting]():
        autocast, dtype = torch.is_autocast_enabled("cpu"), torch.get_default_dtype()
        device = torch.get_default_device()
        found = measured(model)
        assert (torch.is_autocast_enabled("cpu"), torch.get_default_dtype()) == (autocast, dtype)
        assert torch.get_default_device() == device
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_autocast_and_tuples_in_every_family(family: str) -> None:
    """With `return_dict: false` in its config a model returns tuples; with autocast it would compute in bfloat16."""
    model = copy.deepcopy(random_model(family, exactly=False, layers=2)).float()
    ids = torch.tensor([PROMPTS[0].clean])
    with torch.no_grad():
        alone = model(ids).logits[0, -1]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not torch.equal(model(ids).logits[0, -1].float(), alone)
    expected = [float(alone[PROMPTS[0].answers].mean() - alone[PROMPTS[0].wrong].mean())]
    model.config.return_dict = False
    with torch.autocast("cpu", dtype=torch.bfloat16), borrowed(model):
        records = runner(model, task_of(PROMPTS[:1])).run([Experiment("clean"), *EXPERIMENTS[1:2]])
    np.testing.assert_allclose(records[Experiment("clean")]["logit_diff"], expected, rtol=0, atol=1e-5)
    assert model.config.return_dict is False


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_model_is_loaded_as_in_a_new_process(setting: str) -> None:
    spec = ModelSpec(id="zoo:nobel")
    expected = load_model(spec, Path.cwd()).model.state_dict()
    with SETTINGS[setting](), warnings.catch_warnings():
        found = load_model(spec, Path.cwd()).model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def failing() -> None:
    with as_in_a_new_process():
        assert not torch.is_autocast_enabled("cpu")
        assert torch.get_default_dtype() == torch.float32
        assert torch.get_float32_matmul_precision() == "highest"
        raise ValueError("wrong")


def test_what_is_raised_within_leaves_no_trace() -> None:
    with precision("medium"), default_dtype(), torch.autocast("cpu", dtype=torch.bfloat16):
        with pytest.raises(ValueError, match="wrong"):
            failing()
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_default_dtype() == torch.float64
