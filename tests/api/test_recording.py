"""`record`: arrays of what components compute, against plain hooks and the model's own attention weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import circuitspec
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.metrics.recorded_values import Wanted, record_values
from circuitspec.experiments.experiment import Experiment
from circuitspec.hypothesis_file.grammar.components import Head
from circuitspec.models.zoo import zoo_path
from circuitspec.prompts.prompt_set import CLEAN
from tests.api.support import ROWS, S2, ByHooks
from tests.engine.support import FAMILIES, random_prompts, runner, task_of
from tests.engine.support import model as random_model


def test_activations_are_those_of_hooks(model: Any, tokenizer: Any, hooks: ByHooks) -> None:
    names = ["a2.h2@END", "a1.h*", "m1@{S2,END}", "r3", "m0.n5", "logits", "a1.h2<k>@S2", "a1.kv2@S2"]
    given: list[torch.Tensor] = []
    handle = model.transformer.h[1].attn.c_attn.register_forward_hook(lambda _, args, output: given.append(output[0]))
    for ids in (*hooks.clean, *hooks.corrupt):
        model(torch.tensor([ids]))
    handle.remove()
    projected = {"clean": given[: len(ROWS)], "abc": given[len(ROWS) :]}
    found = circuitspec.record(model, tokenizer, ROWS, names)
    assert list(found) == ["clean", "abc"]
    for variant, runs in zip(found, hooks.runs.values(), strict=True):
        arrays = found[variant]
        assert list(arrays)[:5] == ["a2.h2@END", "a1.h0", "a1.h1", "a1.h2", "a1.h3"]
        for prompt, run in enumerate(runs):
            want = {
                "a2.h2@END": run.values["head", 2, 2][-1],
                "a1.h3": run.values["head", 1, 3],
                "m1@{S2,END}": run.values["mlp", 1][[S2, -1]],
                "r3": run.values["resid", 3, "pre"],
                "m0.n5": run.values["neuron", 0, 5],
                "logits": run.logits[-1],
                "a1.h2<k>@S2": projected[variant][prompt][S2, 64 + 32 : 64 + 48].detach(),
            }
            both = [projected[variant][prompt][S2, start : start + 16].detach() for start in (64 + 32, 128 + 32)]
            want["a1.kv2@S2"] = torch.cat(both)
            for name, value in want.items():
                np.testing.assert_allclose(arrays[name][prompt], value, atol=1e-9, err_msg=name)


def test_patterns_are_the_models_own(tokenizer: Any, hooks: ByHooks) -> None:
    eager = AutoModelForCausalLM.from_pretrained(zoo_path("ioi-tiny"), attn_implementation="eager").double()
    found = circuitspec.record(eager, tokenizer, ROWS, ["a1.h2.pattern", "a3.h*.pattern@END"])
    for prompt, ids in enumerate(hooks.clean):
        weights = eager(torch.tensor([ids]), output_attentions=True).attentions
        np.testing.assert_allclose(found["clean"]["a1.h2.pattern"][prompt], weights[1][0, 2].detach(), atol=1e-6)
        for head in range(4):
            own = found["clean"][f"a3.h{head}.pattern@END"][prompt]
            np.testing.assert_allclose(own, weights[3][0, head, -1].detach(), atol=1e-6)


def test_a_patched_run_is_recorded_as_patched(model: Any, tokenizer: Any, hooks: ByHooks) -> None:
    names = ["a2.h2@END", "a1.h3@S2", "r3@END", "a2.h2.pattern@END", "logits"]
    found = circuitspec.record(model, tokenizer, ROWS, names, patched="a1.h3@S2")
    assert list(found) == ["clean", "abc", "a1.h3@S2 noising abc"]
    arrays = found["a1.h3@S2 noising abc"]
    assert np.abs(arrays["a2.h2.pattern@END"] - found["clean"]["a2.h2.pattern@END"]).max() > 1e-6
    np.testing.assert_allclose(arrays["a2.h2.pattern@END"].sum(-1), 1.0, atol=1e-9)
    for prompt, (ids, other) in enumerate(zip(hooks.clean, hooks.runs["corrupt"], strict=True)):
        new = other.values["head", 1, 3][S2]
        run = hooks.run(ids, {(("head", 1, 3), S2): new})
        np.testing.assert_allclose(arrays["a1.h3@S2"][prompt], new, atol=1e-9)
        np.testing.assert_allclose(arrays["a2.h2@END"][prompt], run.values["head", 2, 2][-1], atol=1e-9)
        np.testing.assert_allclose(arrays["r3@END"][prompt], run.values["resid", 3, "pre"][-1], atol=1e-9)
        np.testing.assert_allclose(arrays["logits"][prompt], run.logits[-1], atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_patterns_of_every_layout(family: str) -> None:
    """Prompts of unlike length, more tokens than a head has channels, grouped key-value heads."""
    model = random_model(family, attention="eager")
    prompts = random_prompts(5, [11, 7])
    wanted = [Wanted(f"a{layer}.h1.pattern", pattern=Head(layer, 1)) for layer in range(2)]
    runs = runner(model, task_of(prompts))
    # before the model is borrowed: transformers records them by hooks, which are set aside with all others
    attended = [model(torch.tensor([own.clean]), output_attentions=True).attentions for own in prompts]
    with borrowed(model):
        found = record_values(runs, runs.source_values, Experiment(CLEAN), wanted)
    for layer in range(2):
        for prompt, own in enumerate(prompts):
            weights = attended[prompt][layer][0, 1].detach()
            n, array = len(own.clean), found[f"a{layer}.h1.pattern"][prompt]
            np.testing.assert_allclose(array[:n, :n], weights, atol=1e-9)
            assert np.isnan(array[n:]).all()


@pytest.mark.parametrize(
    ("name", "code"),
    [("m1.pattern", "CS202"), ("a1.h0<q,k>", "CS202"), ("a9.h0.pattern", "CS220"), ("a1.h0@S9", "CS507")],
)
def test_what_cannot_be_recorded(model: Any, tokenizer: Any, name: str, code: str) -> None:
    with pytest.raises(circuitspec.CircuitspecError) as error:
        circuitspec.record(model, tokenizer, ROWS, name)
    assert [one.code for one in error.value.diagnostics] == [code]
