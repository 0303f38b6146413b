"""The Python interface, with a model in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import circuitspec
from circuitspec.models.zoo import zoo_path

TINY = Path(__file__).parents[2] / "hypotheses" / "ioi-tiny.circuit.yaml"


@pytest.fixture
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(zoo_path("ioi-tiny"))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(zoo_path("ioi-tiny"))


@pytest.fixture(scope="module")
def result() -> circuitspec.Result:
    return circuitspec.verify(TINY)


def state(model: Any) -> dict[str, Any]:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs")
    return {
        "training": [m.training for m in model.modules()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "dtype": [p.dtype for p in model.parameters()],
        "hooks": [[dict(getattr(m, name)) for name in hooks] for m in model.modules()],
        "gradients": [p.grad for p in model.parameters()],
    }


def test_result(result: circuitspec.Result) -> None:
    assert result.verdict == "SUPPORTED"
    assert [claim.status for claim in result.claims] == ["SUPPORTED"] * len(result.claims)
    frame = result.frame.set_index("experiment")
    sufficient = next(c for c in result.claims if c.kind == "sufficient")
    top, bottom = frame.loc["clean", "logit_diff"], frame.loc["all ablated", "logit_diff"]
    recovered = (frame.loc["circuit", "logit_diff"] - bottom) / (top - bottom)
    assert sufficient.estimate is not None
    assert sufficient.estimate.uncorrected == pytest.approx(recovered, rel=1e-9)
    assert abs(sufficient.estimate.correction) < 0.02  # for what noise is left in the means
    means = result.prompt_frame.groupby("experiment")["logit_diff"].mean()
    np.testing.assert_allclose(means[frame.index], frame["logit_diff"], rtol=1e-9)
    assert str(result).startswith("ioi-tiny")


def test_a_model_in_memory_gives_the_same_numbers(result: circuitspec.Result, model: Any, tokenizer: Any) -> None:
    document = circuitspec.load(TINY)
    again = circuitspec.verify(document, model, tokenizer)
    np.testing.assert_allclose(again.frame["logit_diff"], result.frame["logit_diff"], rtol=1e-6)
    assert again.verification.model.description.startswith("in memory")


def test_the_model_comes_back_as_it_was(model: Any, tokenizer: Any) -> None:
    model.train()
    model.transformer.h[0].mlp.eval()
    model.transformer.wte.weight.requires_grad_(False)
    calls: list[str] = []
    model.transformer.h[1].register_forward_hook(lambda *_: calls.append("mine"))
    before = state(model)
    circuitspec.verify(TINY, model, tokenizer, negatives="off")
    assert state(model) == before
    assert calls == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_also_when_a_run_breaks_off(model: Any, tokenizer: Any, error: type[BaseException]) -> None:
    model.train()
    model.transformer.h[1].register_forward_hook(lambda *_: None)
    before = state(model)
    forward, calls = model.transformer.h[2].forward, []

    def failing(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 9:
            raise error
        return forward(*args, **kwargs)

    model.transformer.h[2].forward = failing
    with pytest.raises(error):
        circuitspec.verify(TINY, model, tokenizer)
    assert state(model) == before


def test_bfloat16_is_the_models_own_and_is_said(model: Any, tokenizer: Any) -> None:
    found = circuitspec.verify(TINY, model.to(torch.bfloat16), tokenizer, negatives="off").verification
    assert found.model.dtype == "bfloat16"
    assert next(model.parameters()).dtype == torch.bfloat16


def test_a_model_of_mixed_dtypes_is_refused(model: Any, tokenizer: Any) -> None:
    model.transformer.h[0].mlp.to(torch.float64)
    with pytest.raises(circuitspec.CircuitspecError) as error:
        circuitspec.verify(TINY, model, tokenizer)
    assert error.value.diagnostics[0].code == "CS370"


def test_a_model_needs_its_tokenizer(model: Any) -> None:
    with pytest.raises(TypeError, match="tokenizer"):
        circuitspec.verify(TINY, model)
