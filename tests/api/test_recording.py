"""`record`: arrays of what components compute, against plain hooks and the model's own attention weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

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


def test_one_head_under_several_names(model: Any, tokenizer: Any) -> None:
    """Its weights are read once, however often it is named."""
    names = ["a1.h2.pattern@END", "a1.h*.pattern", "a1.h2.pattern@S2"]
    for arrays in circuitspec.record(model, tokenizer, ROWS, names).values():
        whole = arrays["a1.h2.pattern"]
        np.testing.assert_allclose(np.nansum(whole, axis=-1), 1, atol=1e-9)
        np.testing.assert_array_equal(arrays["a1.h2.pattern@END"], whole[:, -1])
        np.testing.assert_array_equal(arrays["a1.h2.pattern@S2"], whole[:, S2])


def test_all_tokens_of_a_position(model: Any, tokenizer: Any, hooks: ByHooks) -> None:
    """A position of several tokens is recorded at all of them, and one shorter than others ends in NaN."""
    spans = [[1, 2, 3], [2, 3], [1, 2, 3]]
    rows = [{**row, "positions": {**row["positions"], "SPAN": at}} for row, at in zip(ROWS, spans, strict=True)]
    names = ["a1.h2@SPAN", "r2@{S2,SPAN}", "a1.h2.pattern@SPAN", "a1.h2.pattern", "m1@S2"]
    found = circuitspec.record(model, tokenizer, rows, names)
    for variant, runs in zip(found, hooks.runs.values(), strict=True):
        arrays = found[variant]
        assert [arrays[name].shape[:2] for name in names] == [(3, 3), (3, 4), (3, 3), (3, 14), (3, 64)]
        for prompt, (run, at) in enumerate(zip(runs, spans, strict=True)):
            np.testing.assert_allclose(arrays["a1.h2@SPAN"][prompt, : len(at)], run.values["head", 1, 2][at], atol=1e-9)
            both = run.values["resid", 2, "pre"][[S2, *at]]
            np.testing.assert_allclose(arrays["r2@{S2,SPAN}"][prompt, : len(at) + 1], both, atol=1e-9)
            own = arrays["a1.h2.pattern"][prompt, at]
            np.testing.assert_array_equal(arrays["a1.h2.pattern@SPAN"][prompt, : len(at)], own)
            for name, length in (("a1.h2@SPAN", 0), ("r2@{S2,SPAN}", 1), ("a1.h2.pattern@SPAN", 0)):
                assert np.isnan(arrays[name][prompt, length + len(at) :]).all()


def test_a_model_that_takes_its_softmax_in_float32(tokenizer: Any) -> None:
    """As Llama's plain attention does, also in float64: weights add up to 1 as float32 does."""
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=32, attn_implementation="eager", **size)
    llama = LlamaForCausalLM(config).double().eval()
    found = circuitspec.record(llama, tokenizer, ROWS, "a1.h2.pattern")["clean"]["a1.h2.pattern"]
    for prompt, row in enumerate(ROWS):
        ids = torch.tensor([tokenizer(row["clean"]).input_ids])
        own = llama(ids, output_attentions=True).attentions[1][0, 2].detach()
        np.testing.assert_allclose(found[prompt], own, atol=1e-12)
    frame = circuitspec.sweep(llama, tokenizer, ROWS, "patterns", at="END", layers=[1])
    assert list(frame["head"]) == [0, 1, 2, 3]
