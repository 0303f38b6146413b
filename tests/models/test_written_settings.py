"""What `model:` sets beside the weights: attention, rotary scaling; `device_map`; text models inside checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    AutoTokenizer,
    FalconConfig,
    FalconForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
)

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.cache.store_keys import setting_of
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.hypothesis_file.load_file import digest, load_hypothesis
from circuitspec.hypothesis_file.schema.blocks import ModelSpec
from circuitspec.models.adopt import adopt_model
from circuitspec.models.families.text_models import TEXT_MODELS
from circuitspec.models.load import load_model
from circuitspec.models.shapes import read_shape
from circuitspec.models.zoo import zoo_path
from tests.engine.support import model as random_model
from tests.models.conftest import save_tokenizer

SIZES: dict[str, Any] = {
    "vocab_size": 200,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
IDS = torch.tensor([[3, 5, 7, 9, 11, 4, 2, 8]])


def saved(model: Any, folder: Path) -> None:
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(zoo_path("ioi-tiny")).save_pretrained(folder)


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    saved(LlamaForCausalLM(LlamaConfig(**SIZES)), tmp_path / "model")
    return tmp_path


def refused(spec: ModelSpec, folder: Path) -> tuple[str, str]:
    with pytest.raises(CircuitspecError) as error:
        load_model(spec, folder)
    (diagnostic,) = error.value.diagnostics
    return diagnostic.code, diagnostic.message


def test_a_file_that_says_nothing_keeps_its_digest() -> None:
    assert set(ModelSpec(id="a/b").model_dump()) == {"id", "revision", "dtype", "allow_pickle"}


@pytest.mark.parametrize("written", ["attention: eager", "adapter: ./lora", "rope_scaling: {type: linear, factor: 2}"])
def test_what_is_written_is_in_the_digest_that_locks_hold(tmp_path: Path, written: str) -> None:
    text = (Path(__file__).parents[2] / "hypotheses" / "ioi-tiny.circuit.yaml").read_text("utf-8")
    plain, other = tmp_path / "plain.circuit.yaml", tmp_path / "other.circuit.yaml"
    plain.write_text(text, "utf-8")
    other.write_text(text.replace("  id: zoo:ioi-tiny\n", f"  id: zoo:ioi-tiny\n  {written}\n", 1), "utf-8")
    assert digest(load_hypothesis(plain).hypothesis) != digest(load_hypothesis(other).hypothesis)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention(llama: Path, attention: Any) -> None:
    loaded = load_model(ModelSpec(id="./model", attention=attention), llama)
    assert loaded.model.config._attn_implementation == attention
    assert f"attention {attention}" in loaded.provenance.description
    assert setting_of(loaded).attention == attention
    built = load_model(ModelSpec(id="zoo:nobel", attention=attention), llama)
    assert built.model.config._attn_implementation == attention


def test_attention_that_leaves_something_out(tmp_path: Path) -> None:
    saved(Gemma2ForCausalLM(Gemma2Config(**SIZES, head_dim=8, sliding_window=4)), tmp_path / "model")
    code, said = refused(ModelSpec(id="./model", attention="sdpa"), tmp_path)
    assert code == "CS395"
    assert "Gemma 2" in said


def test_rotary_scaling(llama: Path) -> None:
    """Linear: as if every position were half as far."""
    plain = load_model(ModelSpec(id="./model", dtype="float64"), llama)
    scaling = {"type": "linear", "factor": 2.0}
    scaled = load_model(ModelSpec(id="./model", dtype="float64", rope_scaling=scaling), llama)
    assert "rotary positions scaled: linear, factor 2" in scaled.provenance.description
    model: Any = plain.model
    before = model(IDS).logits
    assert not torch.allclose(scaled.model(IDS).logits, before)
    assert setting_of(scaled).model != setting_of(plain).model  # what was measured before is not taken for it
    model.model.rotary_emb.inv_freq /= 2
    torch.testing.assert_close(scaled.model(IDS).logits, model(IDS).logits, rtol=0, atol=1e-9)
    kept = json.loads((llama / "model" / "config.json").read_text())
    assert "linear" not in str(kept)


@pytest.mark.parametrize("type_", ["dynamic", "yarn"])
def test_rotary_scaling_as_transformers_has_it(llama: Path, type_: Any) -> None:
    scaling = {"type": type_, "factor": 4.0, "original_positions": 16}
    scaled = load_model(ModelSpec(id="./model", dtype="float64", rope_scaling=scaling), llama)
    config = LlamaConfig.from_pretrained(llama / "model")
    config.rope_parameters = {
        "rope_type": type_,
        "factor": 4.0,
        "rope_theta": 10000.0,
        "original_max_position_embeddings": 16,
    }
    theirs = AutoModelForCausalLM.from_pretrained(llama / "model", config=config, dtype=torch.float64)
    torch.testing.assert_close(scaled.model(IDS).logits, theirs(IDS).logits, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["zoo:ioi-tiny", "zoo:nobel"])
def test_no_rotary_positions(tmp_path: Path, name: str) -> None:
    code, _ = refused(ModelSpec(id=name, rope_scaling={"type": "linear", "factor": 2.0}), tmp_path)
    assert code == "CS396"


def test_rotary_settings_of_a_model_that_does_not_use_them(tmp_path: Path) -> None:
    """A Falcon with scores that fall with distance has rotary settings all the same."""
    sizes = {key: SIZES[key] for key in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")}
    saved(FalconForCausalLM(FalconConfig(**sizes, alibi=True)), tmp_path / "model")
    code, said = refused(ModelSpec(id="./model", rope_scaling={"type": "linear", "factor": 2.0}), tmp_path)
    assert code == "CS396"
    assert "fall with distance" in said


# -- text models inside other checkpoints --------------------------------------------------------------------------

TEXT: dict[str, Any] = {**SIZES, "head_dim": 8, "sliding_window": 4, "query_pre_attn_scalar": 8}
VISION = {
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}


def test_the_text_model_of_gemma_3(tmp_path: Path) -> None:
    """Its numbers are those of the whole model on text, and of the text model saved by itself."""
    torch.manual_seed(0)
    config = Gemma3Config(text_config=TEXT, vision_config=VISION, mm_tokens_per_image=4, image_token_index=199)
    whole = Gemma3ForConditionalGeneration(config).double().eval()
    saved(whole, tmp_path / "whole")
    spec = ModelSpec(id="./whole", dtype="float64")
    assert read_shape(spec, tmp_path) is not None
    loaded = load_model(spec, tmp_path)
    assert isinstance(loaded.model, Gemma3ForCausalLM)
    assert loaded.architecture.family == "gemma3_text"
    assert loaded.shape == read_shape(spec, tmp_path)
    assert "the text model of a checkpoint of images and text" in loaded.provenance.description
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(IDS).logits, whole(input_ids=IDS).logits, rtol=0, atol=1e-9)
        by_itself = Gemma3ForCausalLM(loaded.model.config).double()
        by_itself.load_state_dict(loaded.model.state_dict())
        saved(by_itself, tmp_path / "alone")
        alone = load_model(ModelSpec(id="./alone", dtype="float64"), tmp_path)
        assert torch.equal(alone.model(IDS).logits, loaded.model(IDS).logits)
    # without a weight of the text model it is refused, as any other
    weights = load_file(tmp_path / "whole" / "model.safetensors")
    lost = next(name for name in weights if name.endswith("layers.1.mlp.up_proj.weight"))
    save_file(
        {n: t for n, t in weights.items() if n != lost}, tmp_path / "whole" / "model.safetensors", {"format": "pt"}
    )
    assert refused(spec, tmp_path)[0] == "CS310"


@pytest.mark.parametrize("whole", TEXT_MODELS)
def test_defaults_of_text_models_are_those_of_transformers(whole: str) -> None:
    known = CONFIG_MAPPING[TEXT_MODELS[whole].family]().to_dict()
    for key, value in TEXT_MODELS[whole].defaults.items():
        found = known[key]
        assert (found[0] if isinstance(found, list) else found) == value  # the same for every layer


@pytest.mark.parametrize("whole", ["gemma3n", "gemma4"])
def test_text_models_in_checkpoints_with_sound(whole: str, tmp_path: Path) -> None:
    """Weights as such checkpoints name them, keys and values among them that layers do not compute."""
    text = random_model(f"{whole}_text", exactly=False)
    text.save_pretrained(tmp_path / "whole")
    save_tokenizer(tmp_path / "whole")
    weights = {
        name.replace("model.", "model.language_model.", 1): tensor
        for name, tensor in load_file(tmp_path / "whole" / "model.safetensors").items()
    }
    weights["model.audio_tower.layers.0.weight"] = torch.ones(3)
    weights["model.embed_vision.weight"] = torch.ones(3)
    weights["model.language_model.layers.3.self_attn.k_proj.weight"] = torch.zeros(16, 32, dtype=torch.float64)
    save_file(weights, tmp_path / "whole" / "model.safetensors", {"format": "pt"})
    config = {"model_type": whole, "text_config": text.config.to_dict(), "audio_config": {}, "vision_config": {}}
    (tmp_path / "whole" / "config.json").write_text(json.dumps(config))
    spec = ModelSpec(id="./whole", dtype="float64")
    loaded = load_model(spec, tmp_path)
    assert loaded.architecture.family == f"{whole}_text"
    assert loaded.shape == read_shape(spec, tmp_path)
    ids = IDS % 60
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(ids).logits, text(ids).logits, rtol=0, atol=1e-5)  # scales in float32


@pytest.mark.parametrize(
    ("family", "said"), [("mllama_text_model", "no supported family"), ("llama4_text", "supported: save that one")]
)
def test_a_text_model_of_another_family_is_named(tmp_path: Path, family: str, said: str) -> None:
    (tmp_path / "model").mkdir()
    config = {"model_type": "llama4", "text_config": {"model_type": family}}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CircuitspecError) as error:
        read_shape(ModelSpec(id="./model"), tmp_path)
    (diagnostic,) = error.value.diagnostics
    assert diagnostic.code == "CS304"
    assert "'llama4'" in diagnostic.message
    assert f"{family}, which is {said}" in diagnostic.message


# -- device_map ----------------------------------------------------------------------------------------------------


def test_a_model_that_accelerate_holds_on_one_device() -> None:
    """Its forwards around modules change nothing, and are nobody's hooks."""
    accelerate = pytest.importorskip("accelerate")
    tokenizer: Any = AutoTokenizer.from_pretrained(zoo_path("ioi-tiny"))
    plain: Any = AutoModelForCausalLM.from_pretrained(zoo_path("ioi-tiny"), dtype=torch.float32)
    expected = plain(IDS).logits
    held = accelerate.dispatch_model(plain, {"": "cpu"}, force_hooks=True)
    assert any("forward" in vars(module) for module in held.modules())
    loaded = adopt_model(held, tokenizer)
    assert loaded.foreign.replaced == ()
    assert loaded.foreign.hooks == ()
    with borrowed(loaded.model):
        assert torch.equal(loaded.model(IDS).logits, expected)


def test_models_that_are_offloaded_or_spread() -> None:
    accelerate = pytest.importorskip("accelerate")
    tokenizer: Any = AutoTokenizer.from_pretrained(zoo_path("ioi-tiny"))
    model: Any = AutoModelForCausalLM.from_pretrained(zoo_path("ioi-tiny"))
    accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    with pytest.raises(CircuitspecError) as error:
        adopt_model(model, tokenizer)
    assert error.value.diagnostics[0].code == "CS393"
    assert "offloaded" in error.value.diagnostics[0].message
