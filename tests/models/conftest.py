"""Tiny random models in temporary directories, as `save_pretrained` writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

WORDS = ("[UNK]", "When", "Mary", "and", "John", "went", "to", "the", "store", ",", "gave", "a", "ring")


@pytest.fixture(autouse=True)
def _no_progress_bars() -> None:
    logging.disable_progress_bar()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIRCUITSPEC_CACHE", str(tmp_path_factory.mktemp("cache")))


def save_tokenizer(directory: Path, words: tuple[str, ...] = WORDS) -> None:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(directory)


def tiny_gpt2(**changes: Any) -> GPT2LMHeadModel:
    """3 layers, 2 heads of 4 channels, 17 tokens, 16 positions."""
    torch.manual_seed(0)
    sizes = {"n_layer": 3, "n_head": 2, "n_embd": 8, "vocab_size": 17, "n_positions": 16}
    return GPT2LMHeadModel(GPT2Config(**{**sizes, "bos_token_id": 0, "eos_token_id": 0, **changes})).eval()


def tiny_llama(**changes: Any) -> LlamaForCausalLM:
    """2 layers, 4 heads of 6 channels over 2 key-value heads: heads together are wider than the residual stream."""
    torch.manual_seed(0)
    sizes = {
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_size": 12,
        "head_dim": 6,
        "intermediate_size": 10,
        "vocab_size": 17,
        "max_position_embeddings": 32,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    return LlamaForCausalLM(LlamaConfig(**{**sizes, **changes})).eval()


@pytest.fixture
def gpt2_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "tiny-gpt2"
    tiny_gpt2().save_pretrained(directory)
    save_tokenizer(directory)
    return directory


@pytest.fixture
def llama_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "tiny-llama"
    tiny_llama().save_pretrained(directory)
    save_tokenizer(directory)
    return directory


@pytest.fixture
def code_of() -> Callable[[Callable[[], object]], str]:
    """The code of the one diagnostic that a call raises."""
    from circuitspec.diagnostics.diagnostic import CircuitspecError

    def run(call: Callable[[], object]) -> str:
        with pytest.raises(CircuitspecError) as raised:
            call()
        (diagnostic,) = raised.value.diagnostics
        assert diagnostic.message
        assert diagnostic.hint
        return diagnostic.code

    return run
