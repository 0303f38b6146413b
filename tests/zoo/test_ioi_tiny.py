from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from circuitspec.models.zoo import zoo_path
from circuitspec.models.zoo.ioi_corpus import NAMES, ORDERS, TEST_TEMPLATES, Order, held_out_pairs, held_out_prompts


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(zoo_path("ioi-tiny"))


@pytest.fixture(scope="module")
def model() -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(zoo_path("ioi-tiny")).eval()


def test_it_is_a_small_gpt2_in_a_few_files(model: Any) -> None:
    config = model.config
    assert (config.model_type, config.n_layer, config.n_head) == ("gpt2", 4, 4)
    assert sum(file.stat().st_size for file in zoo_path("ioi-tiny").rglob("*")) < 5_000_000


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("template", TEST_TEMPLATES)
def test_it_does_ioi_on_pairs_never_seen_in_training(model: Any, tokenizer: Any, template: str, order: Order) -> None:
    prompts = held_out_prompts(template, order, 300, Random(f"{template} {order}"))
    ids = torch.tensor([tokenizer(prompt.text).input_ids for prompt in prompts])
    with torch.no_grad():
        final = model(ids).logits[:, -1]
    right = torch.tensor([tokenizer(f" {prompt.receiver}").input_ids for prompt in prompts])
    wrong = torch.tensor([tokenizer(f" {prompt.giver}").input_ids for prompt in prompts])
    assert right.shape == wrong.shape == (300, 1)
    assert (final.gather(1, right) > final.gather(1, wrong)).float().mean() > 0.95


def test_its_metrics_file_states_what_it_was_trained_with() -> None:
    metrics = json.loads((zoo_path("ioi-tiny") / "metrics.json").read_text("utf-8"))
    assert set(metrics["held_out_accuracy"]) == {f"template {n} {order}" for n in range(4) for order in ORDERS}
    assert min(metrics["held_out_accuracy"].values()) > 0.95
    assert metrics["held_out_pairs"] == len(held_out_pairs())
    assert metrics["seconds"] < 20 * 60


def test_names_are_single_tokens_with_and_without_their_space(tokenizer: Any) -> None:
    assert tokenizer.is_fast
    for name in NAMES:
        assert tokenizer.tokenize(f" {name}") == [f" {name}"]
        assert tokenizer.tokenize(name) == [name]


def test_offsets_include_the_space_as_gpt2s_do(tokenizer: Any) -> None:
    text = "Then, Mary and John met. John gave a ring to"
    encoded = tokenizer(text, return_offsets_mapping=True)
    pieces = [text[start:end] for start, end in encoded.offset_mapping]
    assert pieces == [
        "Then", ",", " Mary", " and", " John", " met", ".", " John", " gave", " a", " ring", " to",
    ]  # fmt: skip
    assert tokenizer.decode(encoded.input_ids) == text
    assert tokenizer(text + " Mary").input_ids[:-1] == encoded.input_ids  # an answer does not change what precedes it


@pytest.mark.slow
def test_a_short_training_run_writes_a_complete_directory(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = tmp_path / "new" / "model"
    command = [sys.executable, "-m", "circuitspec.models.zoo.train_ioi_tiny", "--out", str(out), "--steps", "3"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)

    assert done.stdout == ""
    assert "step 3" in done.stderr
    shipped = {file.name for file in zoo_path("ioi-tiny").iterdir()} - {"README.md"}
    assert {file.name for file in out.iterdir()} == shipped
    tokenizer, model = AutoTokenizer.from_pretrained(out), AutoModelForCausalLM.from_pretrained(out)
    assert model(tokenizer("Then, Mary", return_tensors="pt").input_ids).logits.shape == (1, 3, len(tokenizer))
    assert json.loads((out / "metrics.json").read_text("utf-8"))["recipe"]["steps"] == 3


def test_the_same_seed_gives_the_same_weights() -> None:
    from circuitspec.models.zoo.train_ioi_tiny import Recipe, train

    one, other = (train(Recipe(steps=2, batch=4))[0].state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
