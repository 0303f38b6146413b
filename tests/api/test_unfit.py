"""Objects that cannot be verified as they are: one clear error before any work. TransformerLens bridges are opened."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, GPT2ForSequenceClassification

import circuitspec
from circuitspec.models.zoo import zoo_path
from tests.api.test_hooks import figures, small


@pytest.fixture
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(zoo_path("ioi-tiny"))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(zoo_path("ioi-tiny"))


@pytest.fixture(scope="module")
def expected(tokenizer: Any) -> circuitspec.Result:
    model = AutoModelForCausalLM.from_pretrained(zoo_path("ioi-tiny"))
    return circuitspec.verify(small(), model, tokenizer, negatives="off")


@pytest.fixture
def nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors come before the prompts are made."""
    monkeypatch.setattr("circuitspec.pipelines.preparation.build_prompts", None)


before_any_work = pytest.mark.usefixtures("nothing_is_run")


def refusal(call: Callable[[], object], code: str = "CS515") -> str:
    """Message and hint of the one diagnostic that a call raises."""
    with pytest.raises(circuitspec.CircuitspecError) as raised:
        call()
    (diagnostic,) = raised.value.diagnostics
    assert diagnostic.code == code
    return f"{diagnostic.message}; {diagnostic.hint}"


def refused(model: Any, tokenizer: Any) -> str:
    return refusal(lambda: circuitspec.verify(small(), model, tokenizer))


def same(one: circuitspec.Result, other: circuitspec.Result) -> None:
    for name, values in figures(one).items():
        np.testing.assert_allclose(figures(other)[name], values, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("around", [torch.inference_mode, torch.no_grad])
def test_verify_within_modes_without_gradients(
    around: Any, model: Any, tokenizer: Any, expected: circuitspec.Result
) -> None:
    with around():
        same(expected, circuitspec.verify(small(), model, tokenizer))  # the search for negatives takes gradients
        assert circuitspec.verify(small()).verdict == expected.verdict


@before_any_work
def test_a_model_made_under_inference_mode(model: Any, tokenizer: Any) -> None:
    with torch.inference_mode():
        made = copy.deepcopy(model)
    assert "outside of that block" in refused(made, tokenizer)


@before_any_work
@pytest.mark.filterwarnings("ignore")
def test_dynamic_quantisation(model: Any, tokenizer: Any) -> None:
    holder = nn.Sequential(nn.Linear(64, 64))  # torch quantises Linear alone; GPT-2's projections are Conv1D
    model.transformer.h[0].attn.c_proj = torch.ao.quantization.quantize_dynamic(holder, {nn.Linear})[0]
    assert "quantised" in refused(model, tokenizer)


class Linear8bitLt(nn.Module):
    """As bitsandbytes keeps weights: whole numbers, and their scale beside them."""

    __module__ = "bitsandbytes.nn.modules"

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(64, 64, dtype=torch.int8), requires_grad=False)


@before_any_work
def test_weights_of_eight_bits(model: Any, tokenizer: Any) -> None:
    for block in model.transformer.h:
        block.attn.c_proj = Linear8bitLt()
    said = refused(model, tokenizer)
    assert "4 Linear8bitLt" in said
    assert "unquantised" in said


@before_any_work
def test_weights_in_half_a_byte_more(model: Any, tokenizer: Any) -> None:
    weight = model.transformer.h[1].mlp.c_fc.weight
    weight.data = weight.data.to(torch.float8_e4m3fn)
    assert "float8_e4m3fn" in refused(model, tokenizer)


class Adapted(nn.Module):
    """A layer with a low-rank adapter beside it, as peft lays it out."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base_layer = base
        self.lora_A = nn.ModuleDict({"default": nn.Linear(64, 4, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(4, 192, bias=False)})

    def forward(self, entering: torch.Tensor) -> torch.Tensor:
        added: torch.Tensor = self.lora_B["default"](self.lora_A["default"](entering))
        return self.base_layer(entering) + added


@before_any_work
def test_adapters_that_are_not_merged(model: Any, tokenizer: Any) -> None:
    model.transformer.h[1].attn.c_attn = Adapted(model.transformer.h[1].attn.c_attn)
    said = refused(model, tokenizer)
    assert "merge_and_unload()" in said
    assert "transformer.h.1.attn.c_attn" in said


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft 0.21 reads what transformers 5.23 calls by another name
@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")
def test_adapters_of_peft(model: Any, tokenizer: Any) -> None:
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(
        model, LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True, lora_alpha=0.01, init_lora_weights=False)
    )
    assert "merge_and_unload()" in refused(adapted, tokenizer)
    assert "merge_and_unload()" in refused(adapted.base_model.model, tokenizer)
    merged = adapted.merge_and_unload()
    assert circuitspec.verify(small(), merged, tokenizer, negatives="off").claims


@before_any_work
def test_objects_that_are_no_model(model: Any, tokenizer: Any) -> None:
    assert "configuration" in refused(nn.Linear(2, 2), tokenizer)
    for thing in ("gpt2", pd.DataFrame(), Path("model"), object()):
        assert type(thing).__name__ in refused(thing, tokenizer)
    for thing in ("gpt2", 3):
        assert "tokenizer" in refused(model, thing)
    assert "model.module" in refused(nn.DataParallel(model), tokenizer)
    assert "model._orig_mod" in refused(torch.compile(model, backend="eager"), tokenizer)


@before_any_work
def test_models_that_give_no_next_token(tokenizer: Any) -> None:
    bare = AutoModel.from_pretrained(zoo_path("ioi-tiny"))
    assert "AutoModelForCausalLM" in refused(bare, tokenizer)
    classifier = GPT2ForSequenceClassification(bare.config)
    assert "no causal language model" in refused(classifier, tokenizer)


@before_any_work
def test_hooks_on_every_module_there_is(model: Any, tokenizer: Any) -> None:
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert "remove them" in refused(model, tokenizer)
    finally:
        handle.remove()


@pytest.mark.parametrize(
    ("thing", "said"),
    [
        (None, "CS358: a NoneType holds no rows"),
        (3, "CS358: a int holds no rows"),
        (["p.jsonl"], "CS338: row 1 of the prompts: a prompt is not an object"),
        ({1, 2}, "CS338: row 1 of the prompts: a prompt is not an object"),
        (pd.DataFrame({"cleen": ["a"]}), "CS356"),
    ],
)
def test_a_task_that_is_none(thing: Any, said: str) -> None:
    parts = circuitspec.load(tiny()).parts
    with pytest.raises(circuitspec.CircuitspecError, match=said):
        circuitspec.hypothesis(**{**parts, "task": thing})


def tiny() -> Path:
    return Path(__file__).parents[2] / "hypotheses" / "ioi-tiny.circuit.yaml"


@pytest.mark.parametrize("part", ["model", "groups", "ablation", "claims"])
def test_other_parts_of_a_wrong_kind(part: str) -> None:
    with pytest.raises(TypeError, match=part):
        circuitspec.hypothesis(**{**circuitspec.load(tiny()).parts, part: pd.DataFrame({"a": [1]})})


@pytest.mark.parametrize("thing", [{"name": "x"}, None, pd.DataFrame()])
def test_a_hypothesis_that_is_none(thing: Any) -> None:
    with pytest.raises(TypeError, match="hypothesis"):
        circuitspec.verify(thing)


def test_a_file_that_does_not_exist(tmp_path: Path) -> None:
    for path in (tmp_path / "no.circuit.yaml", str(tmp_path / "no.circuit.yaml")):
        refusal(lambda path=path: circuitspec.verify(path), "CS100")


# -- TransformerLens ------------------------------------------------------------------------------


class StandIn(nn.Module):
    """In place of a module of the model, as a bridge's components are: with hook points around it."""

    def __init__(self, inside: nn.Module, *, factor: float = 1.0) -> None:
        super().__init__()
        self.hook_in, self.hook_out = nn.Identity(), nn.Identity()
        self.add_module("_original_component", inside)
        self.factor = factor

    def forward(self, entering: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        output: Any = self._original_component(self.hook_in(entering), *args, **kwargs)
        return self.hook_out(output) * self.factor if isinstance(output, torch.Tensor) else output


class TransformerBridge(nn.Module):
    """As TransformerLens's: the model inside is no submodule, and calling it gives logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.__dict__["original_model"] = model

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.original_model(ids).logits
        return logits


def bridged(model: Any, factor: float = 1.0) -> TransformerBridge:
    for i, block in enumerate(model.transformer.h):
        block.mlp, block.ln_1 = StandIn(block.mlp, factor=factor), StandIn(block.ln_1)
        block.attn.c_proj = StandIn(block.attn.c_proj)
        model.transformer.h[i] = StandIn(block)
    return TransformerBridge(model)


def test_a_bridge_is_opened(model: Any, tokenizer: Any, expected: circuitspec.Result) -> None:
    bridge = bridged(model)
    model.train()
    modules = list(model.modules())
    for given in (bridge, model):
        result = circuitspec.verify(small(), given, tokenizer, negatives="off")
        same(expected, result)
        assert "TransformerLens bridge" in result.verification.model.description
    assert list(model.modules()) == modules
    assert all(module.training for module in modules)


def test_hooks_on_a_bridge_are_named(model: Any, tokenizer: Any, expected: circuitspec.Result) -> None:
    bridge = bridged(model)
    model.transformer.h[2].hook_out.register_forward_hook(lambda *_: torch.zeros(()))
    result = circuitspec.verify(small(), bridge, tokenizer, negatives="off")
    same(expected, result)
    (warning,) = [w for w in result.warnings if w.code == "CS438"]
    assert "transformer.h.2.hook_out (forward hook)" in warning.message
    assert "hook" in refusal(lambda: circuitspec.verify(small(), bridge, tokenizer, keep_hooks=True))


@before_any_work
def test_a_bridge_that_computes_something_else(model: Any, tokenizer: Any) -> None:
    assert "bridge" in refused(bridged(model, factor=1.01), tokenizer)


class HookedTransformer(nn.Module):
    pass


@before_any_work
def test_a_hooked_transformer(tokenizer: Any) -> None:
    assert "AutoModelForCausalLM" in refused(HookedTransformer(), tokenizer)


@pytest.mark.skipif(importlib.util.find_spec("transformer_lens") is None, reason="transformer-lens is not installed")
def test_a_bridge_of_transformer_lens(model: Any, tokenizer: Any, expected: circuitspec.Result) -> None:
    from transformer_lens.model_bridge import TransformerBridge as Bridge

    bridge = Bridge.boot_transformers("gpt2", hf_model=model, tokenizer=tokenizer, device="cpu")
    for given in (bridge, bridge.original_model):
        same(expected, circuitspec.verify(small(), given, tokenizer, negatives="off"))
