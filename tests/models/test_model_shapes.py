"""Shapes from config.json alone."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.graph.shape import ModelShape
from circuitspec.hypothesis_file.schema.blocks import ModelSpec
from circuitspec.models.model_config import shape_of
from circuitspec.models.shapes import read_shape

CodeOf = Callable[[Callable[[], object]], str]
GPT2 = {"model_type": "gpt2", "n_layer": 12, "n_head": 12, "n_embd": 768, "vocab_size": 50257, "n_positions": 1024}
LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
}


def without(config: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in keys}


def test_gpt2_small() -> None:
    small = ModelShape("gpt2", 12, 12, 12, 768, 64, 3072, 50257, 1024)
    assert shape_of(GPT2) == small
    assert shape_of({**GPT2, "n_inner": None}) == small
    assert shape_of({**without(GPT2, "n_embd"), "hidden_size": 768}) == small  # the name transformers also takes
    assert shape_of({**GPT2, "n_inner": 1000}).d_mlp == 1000


def test_llama_with_grouped_queries() -> None:
    assert shape_of(LLAMA) == ModelShape("llama", 16, 32, 8, 2048, 64, 8192, 128256, 131072)
    assert shape_of({**LLAMA, "head_dim": 128}).d_head == 128
    assert shape_of({**LLAMA, "head_dim": None}).d_head == 64
    assert shape_of(without(LLAMA, "num_key_value_heads")).n_kv_heads == 32
    assert shape_of({**LLAMA, "num_key_value_heads": 1}).n_kv_heads == 1
    assert shape_of(without(LLAMA, "max_position_embeddings")).max_positions is None


@pytest.mark.parametrize(
    "config",
    [
        without(GPT2, "n_layer"),
        {**GPT2, "n_layer": "twelve"},
        {**GPT2, "n_layer": 0},
        {**GPT2, "n_layer": True},
        {**GPT2, "n_head": 7},
        {**GPT2, "n_embd": 768.0},
        without(LLAMA, "intermediate_size"),
        {**LLAMA, "num_key_value_heads": 5},
        {**LLAMA, "vocab_size": -1},
        without(LLAMA, "model_type"),
        {**GPT2, "n_layer": 1_001},
        {**GPT2, "n_layer": 10**9},
        {**GPT2, "n_layer": 1_000, "n_head": 128},
        {**GPT2, "n_head": 1_025, "n_embd": 1_025 * 64},
        {**GPT2, "n_head": 10**6, "n_embd": 10**6},
        {**LLAMA, "num_key_value_heads": 10**6},
        {**GPT2, "n_embd": 12 * 10**5},
        {**GPT2, "n_inner": 10**6 + 1},
        {**LLAMA, "head_dim": 10**6 + 1},
        {**GPT2, "vocab_size": 10**12},
        {**GPT2, "n_positions": 10**4000},
    ],
)
def test_config_that_gives_no_shape(config: dict[str, Any], code_of: CodeOf) -> None:
    assert code_of(lambda: shape_of(config)) == "CS305"


def test_the_largest_model() -> None:
    largest = {**GPT2, "n_layer": 1_000, "n_head": 100, "n_embd": 10**6, "n_inner": 10**6, "vocab_size": 10**7}
    assert shape_of(largest) == ModelShape("gpt2", 1_000, 100, 100, 10**6, 10**4, 10**6, 10**7, 1024)
    assert shape_of({**GPT2, "n_layer": 1, "n_head": 1_024, "n_embd": 1_024}).n_heads == 1_024


def test_an_absurd_size_is_named() -> None:
    with pytest.raises(CircuitspecError) as caught:
        shape_of({**GPT2, "n_layer": 10**9})
    (finding,) = caught.value.diagnostics
    assert finding.message == "the configuration gives the model 1000000000 layers; more than 1000 cannot be right"
    with pytest.raises(CircuitspecError, match="gives the model 7e40 tokens in the vocabulary"):
        shape_of({**GPT2, "vocab_size": 7 * 10**40})


@pytest.mark.skipif(os.name != "posix", reason="makes a pipe")
def test_a_pipe_is_refused_not_waited_for(gpt2_dir: Path, code_of: CodeOf) -> None:
    (gpt2_dir / "config.json").unlink()
    os.mkfifo(gpt2_dir / "config.json")
    assert code_of(lambda: read_shape(ModelSpec(id=str(gpt2_dir)), gpt2_dir)) == "CS305"


def test_shape_of_directories(gpt2_dir: Path, llama_dir: Path) -> None:
    assert read_shape(ModelSpec(id="./tiny-gpt2"), gpt2_dir.parent) == ModelShape("gpt2", 3, 2, 2, 8, 4, 32, 17, 16)
    assert read_shape(ModelSpec(id=str(llama_dir)), Path("/")) == ModelShape("llama", 2, 4, 2, 12, 6, 10, 17, 32)


def test_weights_are_not_needed(gpt2_dir: Path) -> None:
    (gpt2_dir / "model.safetensors").unlink()
    (gpt2_dir / "tokenizer.json").unlink()
    assert read_shape(ModelSpec(id=str(gpt2_dir)), gpt2_dir) is not None


@pytest.mark.parametrize(
    "content",
    [
        b'{"model_type": "gpt2", "n_layer": ' + b"9" * 5000 + b"}",
        b" " * 16_000_001,
        b"",
        b"{",
        b"[1, 2]",
        b"\xff\xfe\x00",
        b"null",
        b"[" * 100_000,
        b'{"model_type": "gpt2"}',
    ],
)
def test_unreadable_config(content: bytes, gpt2_dir: Path, code_of: CodeOf) -> None:
    (gpt2_dir / "config.json").write_bytes(content)
    assert code_of(lambda: read_shape(ModelSpec(id=str(gpt2_dir)), gpt2_dir)) == "CS305"


def test_directory_without_config(gpt2_dir: Path, code_of: CodeOf) -> None:
    (gpt2_dir / "config.json").unlink()
    assert code_of(lambda: read_shape(ModelSpec(id=str(gpt2_dir)), gpt2_dir)) == "CS305"


def test_unknown_family(gpt2_dir: Path, code_of: CodeOf) -> None:
    (gpt2_dir / "config.json").write_text(json.dumps({"model_type": "bert"}))
    assert code_of(lambda: read_shape(ModelSpec(id=str(gpt2_dir)), gpt2_dir)) == "CS304"


def test_random_bytes_never_give_a_traceback(gpt2_dir: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    whole = (gpt2_dir / "config.json").read_bytes()
    for _ in range(200):
        garbled = bytearray(whole)
        at = int(torch.randint(len(garbled), (1,), generator=generator))
        garbled[at] = int(torch.randint(256, (1,), generator=generator))
        (gpt2_dir / "config.json").write_bytes(garbled)
        with contextlib.suppress(CircuitspecError):
            read_shape(ModelSpec(id=str(gpt2_dir)), gpt2_dir)
