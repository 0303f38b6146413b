"""Loading local models: what comes out is what the files say, or an error with a code."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.utils import logging

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.graph.shape import ModelShape
from circuitspec.hypothesis_file.schema.blocks import ModelSpec
from circuitspec.models.load import LoadedModel, load_model
from tests.models.conftest import WORDS, save_tokenizer, tiny_gpt2, tiny_llama

CodeOf = Callable[[Callable[[], object]], str]
OLD = transformers.__version__.startswith("4.")
IDS = torch.tensor([[1, 5, 2, 7, 3]])


def load(directory: Path, **spec: Any) -> LoadedModel:
    return load_model(ModelSpec(id=str(directory), **spec), directory)


def message(call: Callable[[], object]) -> str:
    with pytest.raises(CircuitspecError) as raised:
        call()
    return "\n".join(f"{d.message} {d.hint}" for d in raised.value.diagnostics)


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(directory: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(directory / "model.safetensors")
    weights = {name: tensor.clone() for name, tensor in weights.items()}
    change(weights)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_gpt2_computes_what_was_saved(gpt2_dir: Path, dtype: str) -> None:
    loaded = load(gpt2_dir, dtype=dtype)
    expected = tiny_gpt2().to(getattr(torch, dtype))
    with torch.no_grad():
        assert torch.equal(loaded.model(IDS).logits, expected(IDS).logits)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {getattr(torch, dtype)}
    assert not loaded.model.training
    assert loaded.shape == ModelShape("gpt2", 3, 2, 2, 8, 4, 32, 17, 16)
    assert loaded.architecture.family == loaded.provenance.family == "gpt2"


def test_attention_only_adds_its_mlp_biases(tmp_path: Path) -> None:
    """`n_inner: 0`, which GPT-2's own MLP cannot compute: a model of one neuron whose weight is 0 does the same."""
    changes = {f"transformer.h.{layer}.mlp.c_proj.bias": torch.full((8,), 0.1 * layer - 0.2) for layer in range(3)}
    expected = tiny_gpt2(n_inner=1)
    expected.load_state_dict({**expected.state_dict(), **changes})
    for block in expected.transformer.h:
        torch.nn.init.zeros_(block.mlp.c_proj.weight)
    tiny_gpt2(n_inner=0).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    same = {name: tensor for name, tensor in expected.state_dict().items() if ".mlp.c_" not in name}
    edit_weights(
        tmp_path, lambda weights: weights.update({**{n: t for n, t in same.items() if n in weights}, **changes})
    )
    loaded = load(tmp_path)
    assert not loaded.shape.has_mlps
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(IDS).logits, expected(IDS).logits, rtol=0, atol=1e-6)


def test_llama_computes_what_was_saved(llama_dir: Path) -> None:
    loaded = load(llama_dir, dtype="float64")
    with torch.no_grad():
        assert torch.equal(loaded.model(IDS).logits, tiny_llama().double()(IDS).logits)
    assert loaded.shape == ModelShape("llama", 2, 4, 2, 12, 6, 10, 17, 32)


def test_provenance(llama_dir: Path) -> None:
    provenance = load(llama_dir).provenance
    # embedding and unembedding; q, k, v, o; gate, up, down; two norms a layer and the final one
    layer = 12 * 24 + 2 * 12 * 12 + 24 * 12 + 3 * 12 * 10 + 2 * 12
    assert provenance.n_parameters == 2 * 17 * 12 + 2 * layer + 12
    assert provenance.id == str(llama_dir)
    assert provenance.revision is None
    assert provenance.dtype == "float32"
    assert provenance.description == "tiny-llama"
    assert provenance.path == llama_dir


def test_tokenizer_knows_offsets(gpt2_dir: Path) -> None:
    encoded = load(gpt2_dir).tokenizer("When Mary gave", return_offsets_mapping=True)
    assert encoded["input_ids"] == [WORDS.index(word) for word in ("When", "Mary", "gave")]
    assert encoded["offset_mapping"] == [(0, 4), (5, 9), (10, 14)]


def test_stages_are_reported_and_nothing_is_printed(gpt2_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    logging.enable_progress_bar()
    stages: list[str] = []
    load_model(ModelSpec(id=str(gpt2_dir)), gpt2_dir, progress=stages.append)
    assert stages == [f"loading {gpt2_dir}"]
    assert capfd.readouterr() == ("", "")
    assert logging.is_progress_bar_enabled()
    assert logging.get_verbosity() == logging.WARNING


def test_a_failed_load_restores_logging(gpt2_dir: Path, code_of: CodeOf) -> None:
    edit_weights(gpt2_dir, lambda weights: weights.pop("transformer.ln_f.weight"))
    logging.enable_progress_bar()
    assert code_of(lambda: load(gpt2_dir)) == "CS310"
    assert logging.is_progress_bar_enabled()
    assert logging.get_verbosity() == logging.WARNING


def test_sharded_weights(llama_dir: Path, code_of: CodeOf) -> None:
    (llama_dir / "model.safetensors").unlink()
    tiny_llama().save_pretrained(llama_dir, max_shard_size="2KB")
    shards = sorted(llama_dir.glob("model-*.safetensors"))
    assert len(shards) > 2
    with torch.no_grad():
        assert torch.equal(load(llama_dir).model(IDS).logits, tiny_llama()(IDS).logits)
    content = shards[1].read_bytes()
    shards[1].write_bytes(content[:-5])
    assert code_of(lambda: load(llama_dir)) == "CS309"
    assert shards[1].name in message(lambda: load(llama_dir))
    shards[1].unlink()
    assert code_of(lambda: load(llama_dir)) == "CS308"
    index = llama_dir / "model.safetensors.index.json"
    for garbage in ("{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}'):
        index.write_text(garbage)
        assert code_of(lambda: load(llama_dir)) == "CS309"
    for elsewhere in ('{"weight_map": {"a": "../x.safetensors"}}', '{"weight_map": {}}'):
        index.write_text(elsewhere)
        assert code_of(lambda: load(llama_dir)) == "CS308"


def test_checkpoint_of_the_hubs_gpt2(gpt2_dir: Path) -> None:
    """Its keys lack the `transformer.` prefix, and it stores the attention mask as a buffer of every layer."""

    def rename(weights: dict[str, torch.Tensor]) -> None:
        for name in list(weights):
            weights[name.removeprefix("transformer.")] = weights.pop(name)
        for layer in range(3):
            weights[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 16, 16).tril()

    edit_weights(gpt2_dir, rename)
    with torch.no_grad():
        assert torch.equal(load(gpt2_dir).model(IDS).logits, tiny_gpt2()(IDS).logits)


def test_old_llama_checkpoint_with_rotary_frequencies(llama_dir: Path) -> None:
    edit_weights(
        llama_dir, lambda weights: weights.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(3)})
    )
    with torch.no_grad():
        assert torch.equal(load(llama_dir).model(IDS).logits, tiny_llama()(IDS).logits)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop("model.layers.1.mlp.up_proj.weight"), "not in the files: model.layers.1.mlp.up_proj.weight"),
        (lambda w: w.pop("lm_head.weight"), "not in the files: lm_head.weight"),
        (lambda w: w.update(extra=torch.ones(1)), "not part of the model: extra"),
        (
            lambda w: w.update({"model.norm.weight": torch.ones(13)}),
            "of another shape: model.norm.weight",
        ),
    ],
)
def test_weights_that_do_not_fit(
    change: Callable[[dict[str, torch.Tensor]], object], said: str, llama_dir: Path, code_of: CodeOf
) -> None:
    edit_weights(llama_dir, change)
    assert code_of(lambda: load(llama_dir)) == "CS310"
    assert said in message(lambda: load(llama_dir))


def test_fewer_layers_in_config_than_in_weights(gpt2_dir: Path, code_of: CodeOf) -> None:
    edit_json(gpt2_dir / "config.json", n_layer=2)
    assert code_of(lambda: load(gpt2_dir)) == "CS310"


def test_head_count_changes_the_shape(gpt2_dir: Path) -> None:
    edit_json(gpt2_dir / "config.json", n_head=4)
    assert load(gpt2_dir).shape.d_head == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers(value: float, gpt2_dir: Path, code_of: CodeOf) -> None:
    edit_weights(gpt2_dir, lambda weights: weights["transformer.h.1.mlp.c_fc.weight"].view(-1)[37].fill_(value))
    assert code_of(lambda: load(gpt2_dir)) == "CS311"
    assert "transformer.h.1.mlp.c_fc.weight" in message(lambda: load(gpt2_dir))


def test_weights_too_large_for_float16(gpt2_dir: Path, code_of: CodeOf) -> None:
    edit_weights(gpt2_dir, lambda weights: weights["transformer.wte.weight"].view(-1)[0].fill_(1e6))
    assert code_of(lambda: load(gpt2_dir, dtype="float16")) == "CS311"
    assert "use float32 or bfloat16" in message(lambda: load(gpt2_dir, dtype="float16"))
    load(gpt2_dir, dtype="bfloat16")


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_truncated_weights(keep: int, gpt2_dir: Path, code_of: CodeOf) -> None:
    content = (gpt2_dir / "model.safetensors").read_bytes()
    (gpt2_dir / "model.safetensors").write_bytes(content[:keep])
    assert code_of(lambda: load(gpt2_dir)) == "CS309"


@pytest.mark.parametrize("content", [b"not weights at all", b"\x00" * 1000, b"\xff" * 1000])
def test_garbage_for_weights(content: bytes, gpt2_dir: Path, code_of: CodeOf) -> None:
    (gpt2_dir / "model.safetensors").write_bytes(content)
    assert code_of(lambda: load(gpt2_dir)) == "CS309"


def test_directory_without_weights(gpt2_dir: Path, code_of: CodeOf) -> None:
    (gpt2_dir / "model.safetensors").unlink()
    assert code_of(lambda: load(gpt2_dir)) == "CS308"
    (gpt2_dir / "tiny.Q4_1.gguf").write_bytes(b"GGUF")
    assert "name the GGUF file itself" in message(lambda: load(gpt2_dir))


@pytest.fixture
def pickled_dir(gpt2_dir: Path) -> Path:
    weights = load_file(gpt2_dir / "model.safetensors")
    (gpt2_dir / "model.safetensors").unlink()
    torch.save(weights, gpt2_dir / "pytorch_model.bin")
    return gpt2_dir


def test_pickled_weights_only_on_request(pickled_dir: Path, code_of: CodeOf) -> None:
    assert code_of(lambda: load(pickled_dir)) == "CS307"
    assert "allow_pickle: true" in message(lambda: load(pickled_dir))
    with torch.no_grad():
        assert torch.equal(load(pickled_dir, allow_pickle=True).model(IDS).logits, tiny_gpt2()(IDS).logits)


class _Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def test_pickle_that_runs_code_is_refused(pickled_dir: Path, tmp_path: Path, code_of: CodeOf) -> None:
    mark = tmp_path / "it-ran"
    for write in (torch.save, lambda bomb, path: path.write_bytes(pickle.dumps(bomb, protocol=2))):
        write(_Bomb(mark), pickled_dir / "pytorch_model.bin")
        assert code_of(lambda: load(pickled_dir, allow_pickle=True)) == "CS309"
        assert not mark.exists()


@pytest.mark.parametrize("keep", [0, 100, -100])
def test_truncated_pickle(keep: int, pickled_dir: Path, code_of: CodeOf) -> None:
    content = (pickled_dir / "pytorch_model.bin").read_bytes()
    (pickled_dir / "pytorch_model.bin").write_bytes(content[:keep])
    assert code_of(lambda: load(pickled_dir, allow_pickle=True)) == "CS309"


def test_safetensors_are_preferred_to_pickles(gpt2_dir: Path) -> None:
    (gpt2_dir / "pytorch_model.bin").write_bytes(b"not even a pickle")
    load(gpt2_dir, allow_pickle=True)


def test_model_code_is_never_run(gpt2_dir: Path, tmp_path: Path, code_of: CodeOf) -> None:
    mark = tmp_path / "it-ran"
    (gpt2_dir / "modeling_own.py").write_text(f"import os; os.mkdir({str(mark)!r})")
    edit_json(gpt2_dir / "config.json", auto_map={"AutoModelForCausalLM": "modeling_own.Own"})
    assert code_of(lambda: load(gpt2_dir)) == "CS306"
    edit_json(gpt2_dir / "config.json", auto_map={})
    assert code_of(lambda: load(gpt2_dir)) == "CS306"
    config = json.loads((gpt2_dir / "config.json").read_text())
    del config["auto_map"]
    (gpt2_dir / "config.json").write_text(json.dumps(config))
    edit_json(gpt2_dir / "tokenizer_config.json", auto_map={"AutoTokenizer": ["modeling_own.Own", None]})
    assert code_of(lambda: load(gpt2_dir)) == "CS306"
    assert not mark.exists()


def test_quantised_weights(gpt2_dir: Path, code_of: CodeOf) -> None:
    edit_json(gpt2_dir / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    assert code_of(lambda: load(gpt2_dir)) == "CS314"


def test_cross_attention(gpt2_dir: Path, code_of: CodeOf) -> None:
    edit_json(gpt2_dir / "config.json", add_cross_attention=True)
    assert code_of(lambda: load(gpt2_dir)) == "CS314"


def test_unknown_family(gpt2_dir: Path, code_of: CodeOf) -> None:
    edit_json(gpt2_dir / "config.json", model_type="codegen")
    assert code_of(lambda: load(gpt2_dir)) == "CS304"


@pytest.mark.parametrize(
    "changes",
    [
        {"activation_function": "no-such"},
        {"activation_function": 3},
        pytest.param(
            {"layer_norm_epsilon": "small"}, marks=pytest.mark.skipif(OLD, reason="transformers 4 checks no types")
        ),
        {"dtype": "float7"},
    ],
)
def test_config_that_transformers_refuses(changes: dict[str, object], gpt2_dir: Path) -> None:
    edit_json(gpt2_dir / "config.json", **changes)
    with pytest.raises(CircuitspecError) as raised:
        load(gpt2_dir)
    assert raised.value.diagnostics[0].code == "CS305"


def test_config_that_is_no_json(gpt2_dir: Path, code_of: CodeOf) -> None:
    (gpt2_dir / "config.json").write_text("{'model_type'")
    assert code_of(lambda: load(gpt2_dir)) == "CS305"


def test_generation_config_is_not_our_business(gpt2_dir: Path) -> None:
    (gpt2_dir / "generation_config.json").write_text("{")
    load(gpt2_dir)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"model": {"type": "Nonsense"}}', '{"version": "1.0", "model": 3}']
)
def test_unreadable_tokenizer(content: str, gpt2_dir: Path, code_of: CodeOf) -> None:
    (gpt2_dir / "tokenizer.json").write_text(content)
    assert code_of(lambda: load(gpt2_dir)) == "CS312"


def test_missing_tokenizer(gpt2_dir: Path, code_of: CodeOf) -> None:
    (gpt2_dir / "tokenizer.json").unlink()
    assert code_of(lambda: load(gpt2_dir)) == "CS312"
    (gpt2_dir / "tokenizer_config.json").unlink()
    assert code_of(lambda: load(gpt2_dir)) == "CS312"


def test_empty_tokenizer(gpt2_dir: Path, code_of: CodeOf) -> None:
    content = json.loads((gpt2_dir / "tokenizer.json").read_text())
    content["model"]["vocab"], content["added_tokens"] = {}, []
    (gpt2_dir / "tokenizer.json").write_text(json.dumps(content))
    (gpt2_dir / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    assert code_of(lambda: load(gpt2_dir)) == "CS312"


def test_tokenizer_of_another_model(gpt2_dir: Path, code_of: CodeOf) -> None:
    save_tokenizer(gpt2_dir, ("[UNK]", *(f"word{i}" for i in range(17))))
    assert code_of(lambda: load(gpt2_dir)) == "CS312"
    save_tokenizer(gpt2_dir, ("[UNK]", *(f"word{i}" for i in range(16))))
    load(gpt2_dir)


@pytest.mark.parametrize("device", ["gpu", "", "meta", "cuda:99", "mps:3"])
def test_device_that_is_not_there(device: str, gpt2_dir: Path, code_of: CodeOf) -> None:
    assert code_of(lambda: load_model(ModelSpec(id=str(gpt2_dir)), gpt2_dir, device=device)) == "CS318"


def test_model_that_does_not_fit(gpt2_dir: Path, code_of: CodeOf, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr("transformers.PreTrainedModel.to", exhausted)
        assert code_of(lambda: load(gpt2_dir)) == "CS318"
    for error in (RuntimeError("DefaultCPUAllocator: can't allocate memory: 99 bytes"), MemoryError("99 bytes")):

        def out_of_memory(*args: object, error: Exception = error, **kwargs: object) -> None:
            raise error

        monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", out_of_memory)
        assert code_of(lambda: load(gpt2_dir)) == "CS318"


def test_model_with_a_module_missing(gpt2_dir: Path, code_of: CodeOf, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loaded model is held against the table: here a library whose GPT-2 is built otherwise."""
    from transformers.models.gpt2 import modeling_gpt2

    original = modeling_gpt2.GPT2LMHeadModel.eval

    def without_norm(self: Any) -> Any:
        self.transformer.h[1].ln_2 = None
        return original(self)

    monkeypatch.setattr(modeling_gpt2.GPT2LMHeadModel, "eval", without_norm)
    assert code_of(lambda: load(gpt2_dir)) == "CS313"


def test_the_model_outlives_its_directory(gpt2_dir: Path) -> None:
    loaded = load(gpt2_dir)
    shutil.rmtree(gpt2_dir)
    with torch.no_grad():
        assert torch.equal(loaded.model(IDS).logits, tiny_gpt2()(IDS).logits)


@pytest.mark.nightly
def test_stdout_stays_empty(gpt2_dir: Path) -> None:
    code = (
        "from pathlib import Path; from circuitspec.models.load import load_model; "
        "from circuitspec.hypothesis_file.schema.blocks import ModelSpec; "
        f"load_model(ModelSpec(id={str(gpt2_dir)!r}), Path('.'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_weights_that_are_whole_numbers(llama_dir: Path, code_of: CodeOf) -> None:
    """Quantised weights without a word about it in config.json; transformers takes -128 to 127 for weights."""

    def quantised(weights: dict[str, torch.Tensor]) -> None:
        name = "model.layers.0.mlp.up_proj.weight"
        weights[name] = (weights[name] * 100).to(torch.int8)

    edit_weights(llama_dir, quantised)
    assert code_of(lambda: load(llama_dir)) == "CS353"
    assert "model.layers.0.mlp.up_proj.weight (I8)" in message(lambda: load(llama_dir))


def test_pickled_weights_that_are_whole_numbers(llama_dir: Path, code_of: CodeOf) -> None:
    weights = load_file(llama_dir / "model.safetensors")
    (llama_dir / "model.safetensors").unlink()
    torch.save(
        {k: v.to(torch.uint8) if "up_proj" in k else v for k, v in weights.items()}, llama_dir / "pytorch_model.bin"
    )
    assert code_of(lambda: load(llama_dir, allow_pickle=True)) == "CS353"


def test_masks_in_old_checkpoints_are_no_weights(gpt2_dir: Path) -> None:
    edit_weights(gpt2_dir, lambda w: w.update({"transformer.h.0.attn.bias": torch.ones(1, 1, 8, 8, dtype=torch.uint8)}))
    load(gpt2_dir)


@pytest.mark.parametrize("same", [True, False])
def test_an_unembedding_that_the_config_ties_to_another(gpt2_dir: Path, same: bool, code_of: CodeOf) -> None:
    """GPT-2 ties the two unless told otherwise; which of them a file's own one gives way to depends on the version."""

    def own(weights: dict[str, torch.Tensor]) -> None:
        weights["lm_head.weight"] = weights["transformer.wte.weight"].clone() + (0.0 if same else 0.1)

    edit_weights(gpt2_dir, own)
    if same:
        load(gpt2_dir)
        return
    assert code_of(lambda: load(gpt2_dir)) == "CS354"
    edit_json(gpt2_dir / "config.json", tie_word_embeddings=False)
    loaded = load(gpt2_dir)
    held = load_file(gpt2_dir / "model.safetensors")
    assert torch.equal(loaded.model.lm_head.weight, held["lm_head.weight"])
