"""Direct logit attribution and the logit lens of whole models, against plain torch on the oracle's streams."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.experiments.experiment import Experiment
from circuitspec.pipelines.whole_model.direct_attribution import attribution_frame
from circuitspec.pipelines.whole_model.logit_lens import lens_frame
from tests.engine.support import FAMILIES, TOLERANCE, WITH_PATTERNS, model, random_prompts, runner, task_of
from tests.oracle import families, node

LENGTHS = [9, 6, 9]


def plain_difference(logits: Any, prompt: node.Prompt) -> float:
    return float(logits[prompt.answers].mean() - logits[prompt.wrong].mean())


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_add_up_to_the_clean_logit_difference(family: str) -> None:
    """Of every prompt, also with heads split by the tokens that they attend to; a cap on logits taken off first."""
    random = model(family)
    prompts = random_prompts(seed=4, lengths=LENGTHS)
    with borrowed(random):
        run = runner(random, task_of(prompts))
        whole = attribution_frame(run, per_prompt=True)
        split = attribution_frame(run, per_prompt=True, by_source=True) if family in WITH_PATTERNS else whole
    cap = getattr(random.config, "final_logit_softcapping", None)
    for number, prompt in enumerate(prompts):
        logits = node.forward(random, prompt.clean).logits[-1]
        uncapped = logits if cap is None else cap * torch.atanh(logits / cap)
        expected = plain_difference(uncapped, prompt)
        for frame in (whole, split):
            assert frame[frame["prompt"] == number]["effect"].sum() == pytest.approx(expected, abs=TOLERANCE)
    if family not in WITH_PATTERNS:
        return
    heads = whole[whole["kind"] == "head"].groupby(["component", "prompt"])["effect"].sum()
    by_source = split[split["kind"] == "head"].groupby(["component", "prompt"])["effect"].sum()
    assert np.abs(heads - by_source).max() < TOLERANCE
    assert set(split[split["kind"] == "head"]["source"]) == {"A", "B", "END", "other tokens"}
    assert list(whole["component"].iloc[:: len(prompts)][:2]) == ["input", "a0.h0"]
    assert whole["component"].iloc[-1] == "biases"


def test_one_head_by_the_tokens_it_attends_to() -> None:
    """GPT-2, by hand: weight times value times output weights times the unembedding's difference, over the last norm's
    divisor."""
    random = model("gpt2")
    (prompt,) = random_prompts(seed=4, lengths=[7])
    with borrowed(random):
        frame = attribution_frame(runner(random, task_of([prompt])), by_source=True)
    net, run = families.read(random), node.forward(random, prompt.clean, record=True)
    final = run.values["resid", len(net.layers), "pre"][-1]
    head = random.transformer.ln_f
    spread = torch.sqrt(final.var(unbiased=False) + head.eps)
    unembedding = random.lm_head.weight.double()
    direction = unembedding[prompt.answers].mean(0) - unembedding[prompt.wrong].mean(0)
    direction = (direction * head.weight.double()) / spread
    direction = direction - direction.mean()
    pattern, block = run.patterns[1, 2][-1], net.layers[1].attention
    d_head = block.wo.shape[1]
    for role in ("A", "B", "END"):
        if [prompt.roles[other] for other in ("A", "B", "END")].count(prompt.roles[role]) > 1:
            continue
        token = prompt.roles[role]
        value = run.values["kv", 1, 2][token, d_head:]
        expected = float(pattern[token] * value @ block.wo[2] @ direction)
        row = frame[(frame["component"] == "a1.h2") & (frame["source"] == role)]
        assert float(row["effect"].iloc[0]) == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_lens_is_the_models_own_head_on_each_stream(family: str) -> None:
    random = model(family)
    prompts = random_prompts(seed=4, lengths=LENGTHS)
    with borrowed(random):
        run = runner(random, task_of(prompts))
        frame = lens_frame(run, per_prompt=True)
        output = run.run([Experiment("clean")])[Experiment("clean")]
    net = families.read(random)
    for number, prompt in enumerate(prompts):
        whole = node.forward(random, prompt.clean, record=True)
        own = frame[frame["prompt"] == number]
        assert list(own["component"]) == [*(f"r{n}" for n in range(len(net.layers))), "output"]
        for layer, (_, row) in enumerate(own.iterrows()):
            logits = net.finish(whole.values["resid", layer, "pre"])[-1]
            probability = logits.softmax(-1)
            best = logits[prompt.answers].max()
            assert row["logit_diff"] == pytest.approx(plain_difference(logits, prompt), abs=TOLERANCE)
            assert row["prob"] == pytest.approx(float(probability[prompt.answers].sum()), abs=TOLERANCE)
            assert row["rank"] == int((logits > best).sum())
        for metric, values in output.items():  # the last layer is the model's output, to the last digit
            assert row[metric] == values[number]


def test_a_metric_that_is_no_sum_is_refused() -> None:
    random = model("gpt2")
    with borrowed(random), pytest.raises(CircuitspecError) as error:
        attribution_frame(runner(random, task_of(random_prompts(seed=4, lengths=[5]))), "prob")
    assert error.value.diagnostics[0].code == "CS394"
