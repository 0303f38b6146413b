"""A model of every family, written to files and loaded again as a hypothesis names it, is the model of the oracle."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.runner import Runner
from circuitspec.engine.validation.self_test import self_test
from circuitspec.experiments.experiment import Experiment
from circuitspec.hypothesis_file.schema.blocks import ModelSpec
from circuitspec.models.families.family_table import architecture_of
from circuitspec.models.families.modules import verify_modules
from circuitspec.models.load import load_model
from circuitspec.models.model_config import shape_of
from tests.engine.support import FAMILIES, Silent, random_prompts, task_of
from tests.engine.support import model as random_model
from tests.models.conftest import save_tokenizer
from tests.oracle import builders, node


@pytest.mark.every_family
@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_computes_what_the_oracle_does(family: str, tmp_path: Path) -> None:
    """Also what the family's name stands for beside its modules: windows, caps, rotary bases.

    To single precision, in which transformers computes norms and angles.
    """
    model = random_model(family, layers=2, exactly=False)
    model.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    loaded = load_model(ModelSpec(id=str(tmp_path), dtype="float64"), tmp_path)
    assert loaded.architecture.family == loaded.shape.family == family
    prompts = random_prompts(seed=41, lengths=[9, 9])
    with borrowed(loaded.model):
        run = Runner(loaded, task_of(prompts), rows=2, progress=Silent())
        self_test(run)
        found = run.run([Experiment("clean")])[Experiment("clean")]["logit"]
    for prompt, value in zip(prompts, found, strict=True):
        expected = node.forward(model, prompt.clean).logits[-1].numpy()[prompt.answers].mean()
        assert abs(expected - value) < 1e-4


def test_gemma_2_with_an_attention_that_knows_no_cap_is_refused() -> None:
    """sdpa has no cap on attention scores: depending on its version, transformers refuses it or leaves it out."""
    model = builders.random_gemma2(layers=2)
    config = model.config.to_dict()
    verify_modules(model, architecture_of(config), shape_of(config))
    model.config._attn_implementation_internal = "sdpa"
    with pytest.raises(CircuitspecError) as error:
        verify_modules(model, architecture_of(config), shape_of(config))
    (finding,) = error.value.diagnostics
    assert finding.code == "CS313"
    assert "attn_implementation='eager'" in finding.message
