"""A shipped model in float64 and its tokenizer, as Hugging Face objects, and plain hooks on it."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from circuitspec.models.zoo import zoo_path
from tests.api.support import S2, WORDS, ByHooks


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(zoo_path("ioi-tiny"))


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(zoo_path("ioi-tiny")).double()


@pytest.fixture(scope="module")
def hooks(model: Any, tokenizer: Any) -> ByHooks:
    found = ByHooks(model, tokenizer)
    assert all(
        ids[S2] == tokenizer(f" {b}").input_ids[-1] for ids, (_, b, _, _) in zip(found.clean, WORDS, strict=True)
    )
    return found
