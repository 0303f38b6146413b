"""LoRA adapters: in a directory named by the file, and beside the weights of a model in memory."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.hypothesis_file.schema.blocks import ModelSpec
from circuitspec.models.adopt import adopt_model
from circuitspec.models.load import load_model
from circuitspec.models.zoo import zoo_path
from circuitspec.repository.model_files import model_files

CONFIG: dict[str, Any] = {"peft_type": "LORA", "r": 3, "lora_alpha": 6, "target_modules": ["c_attn"], "bias": "none"}
LAYER = "transformer.h.1.attn.c_attn"


def matrices(rank: int = 3) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.randn(rank, 64, generator=random), torch.randn(192, rank, generator=random)


def written(folder: Path, weights: dict[str, Tensor] | None = None, **config: Any) -> Path:
    """An adapter of a GPT-2 of 64 channels, by hand."""
    a, b = matrices()
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}))
    name = f"base_model.model.{LAYER}"
    save_file(weights or {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}, folder / "adapter_model.safetensors")
    return folder


def spec(**settings: Any) -> ModelSpec:
    return ModelSpec(id="zoo:ioi-tiny", dtype="float64", **settings)


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, 6 / 3),
        ({"use_rslora": True}, 6 / math.sqrt(3)),
        ({"alpha_pattern": {"h.1.attn.c_attn": 12}}, 12 / 3),
        ({"alpha_pattern": {"h.0.attn.c_attn": 12}}, 6 / 3),
    ],
)
def test_an_adapter_in_a_directory_is_added_to_the_weights(tmp_path: Path, config: Any, scale: float) -> None:
    """W + scale * B A, in the layout of GPT-2's projections, and nowhere else; the base's files stay."""
    written(tmp_path / "lora", **config)
    a, b = matrices()
    plain, adapted = (load_model(one, tmp_path) for one in (spec(), spec(adapter="./lora")))
    expected = plain.model.get_submodule(LAYER).weight.double() + scale * (b.double() @ a.double()).T
    after = dict(adapted.model.named_parameters())
    for name, weight in plain.model.named_parameters():
        wanted = expected if name == f"{LAYER}.weight" else weight
        torch.testing.assert_close(after[name], wanted, rtol=0, atol=1e-12)
    assert "adapter lora (LORA, rank 3) merged" in adapted.provenance.description
    files = model_files(spec(adapter="./lora"), tmp_path)
    assert files is not None
    assert {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"} < set(files.files)


NAME = f"base_model.model.{LAYER}"


@pytest.mark.parametrize(
    ("config", "weights", "said"),
    [
        ({"peft_type": "IA3"}, None, "of the kind IA3"),
        ({"use_dora": True}, None, "has use_dora"),
        ({"modules_to_save": ["lm_head"]}, None, "has modules_to_save"),
        ({"bias": "all"}, None, "has bias"),
        ({"r": 4}, None, "the rank is said to be 4"),
        ({"lora_alpha": None}, None, "does not say"),
        ({}, {f"{NAME}.lora_A.weight": torch.ones(3, 64)}, "only A"),
        ({}, {f"{NAME}.other": torch.ones(3)}, "no pair of low-rank matrices"),
        (
            {},
            {f"{NAME}x.lora_A.weight": torch.ones(3, 64), f"{NAME}x.lora_B.weight": torch.ones(192, 3)},
            "the model has no",
        ),
        (
            {},
            {f"{NAME}.lora_A.weight": torch.ones(3, 32), f"{NAME}.lora_B.weight": torch.ones(192, 3)},
            "changes transformer.h.1.attn.c_attn by (32, 192)",
        ),
        (
            {},
            {
                "base_model.model.lm_head.lora_A.weight": torch.ones(3, 64),
                "base_model.model.lm_head.lora_B.weight": torch.ones(192, 3),
            },
            "shares its weights",
        ),
    ],
)
def test_adapters_that_cannot_be_merged(tmp_path: Path, config: Any, weights: Any, said: str) -> None:
    written(tmp_path / "lora", weights, **config)
    with pytest.raises(CircuitspecError) as error:
        load_model(spec(adapter="lora"), tmp_path)
    (diagnostic,) = error.value.diagnostics
    assert diagnostic.code == "CS392"
    assert said in diagnostic.message


def test_no_adapter_there(tmp_path: Path) -> None:
    with pytest.raises(CircuitspecError) as error:
        load_model(spec(adapter="./nothing"), tmp_path)
    assert error.value.diagnostics[0].code == "CS392"


# -- in memory -----------------------------------------------------------------------------------------------------


class Layer(nn.Module):
    """A projection with a low-rank adapter beside it, as peft lays it out and merges it."""

    def __init__(self, base: Any) -> None:
        super().__init__()
        a, b = matrices()
        self.base_layer = base
        self.lora_A = nn.ParameterDict({"default": nn.Parameter(a)})
        self.lora_B = nn.ParameterDict({"default": nn.Parameter(b)})

    def merge(self) -> None:
        with torch.no_grad():
            self.base_layer.weight += 2 * (self.lora_B["default"] @ self.lora_A["default"]).T

    def get_base_layer(self) -> Any:
        return self.base_layer


class AdapterConfig:
    peft_type = "LORA"
    r = 3


def adapted() -> Any:
    model: Any = AutoModelForCausalLM.from_pretrained(zoo_path("ioi-tiny"), dtype=torch.float32)
    model.transformer.h[1].attn.c_attn = Layer(model.transformer.h[1].attn.c_attn)
    model.peft_config = {"default": AdapterConfig(), "unused": AdapterConfig()}
    model.active_adapters = lambda: ["default"]
    return model


def test_adapters_in_memory_are_merged_into_a_copy_or_named() -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(zoo_path("ioi-tiny"))
    model = adapted()
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    with pytest.raises(CircuitspecError) as error:
        adopt_model(model, tokenizer)
    (diagnostic,) = error.value.diagnostics
    assert diagnostic.code == "CS515"
    assert "default (LORA, rank 3)" in diagnostic.message
    assert "unused" not in diagnostic.message
    assert "merge_adapters=True" in diagnostic.hint
    loaded = adopt_model(model, tokenizer, merge_adapters=True)
    assert "adapters merged: default (LORA, rank 3)" in loaded.provenance.description
    a, b = matrices()
    merged = loaded.model.get_submodule(LAYER).weight
    torch.testing.assert_close(merged, before[f"{LAYER}.base_layer.weight"] + 2 * (b @ a).T)
    assert {name: True for name, _ in model.named_parameters()} == dict.fromkeys(before, True)
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


def test_adapters_that_cannot_be_taken_into_the_weights() -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(zoo_path("ioi-tiny"))
    model = adapted()
    del Layer.merge
    try:
        with pytest.raises(CircuitspecError) as error:
            adopt_model(model, tokenizer, merge_adapters=True)
    finally:
        Layer.merge = lambda self: None  # type: ignore[method-assign]
    assert error.value.diagnostics[0].code == "CS515"
    assert "cannot be merged" in error.value.diagnostics[0].message


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft 0.21 reads what transformers 5.23 calls by another name
def test_as_peft_does_it(tmp_path: Path) -> None:
    """Its own files and its own merging, of a Llama."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    base = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=200,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
    )
    base.save_pretrained(tmp_path / "base")
    tokenizer: Any = AutoTokenizer.from_pretrained(zoo_path("ioi-tiny"))
    tokenizer.save_pretrained(tmp_path / "base")
    config = peft.LoraConfig(r=2, lora_alpha=5, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    wrapped = peft.get_peft_model(copy.deepcopy(base), config)
    wrapped.save_pretrained(tmp_path / "lora")
    ids = torch.tensor([[3, 5, 7, 9]])
    expected = wrapped(ids).logits
    from_files = load_model(ModelSpec(id="./base", adapter="./lora"), tmp_path)
    torch.testing.assert_close(from_files.model(ids).logits, expected)
    for given in (wrapped, wrapped.base_model.model):
        from_memory = adopt_model(given, tokenizer, merge_adapters=True)
        torch.testing.assert_close(from_memory.model(ids).logits, expected)
        assert "default (LORA, rank 2)" in from_memory.provenance.description or given is not wrapped
    torch.testing.assert_close(wrapped(ids).logits, expected)
