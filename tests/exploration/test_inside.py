"""Metrics inside the model in exact sweeps, against arithmetic and against what the model itself hands out."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from circuitspec.cli import main
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.exploration.asked.subject import metric_inside
from circuitspec.exploration.exploration_findings import ExplorationFindings, ExploreOptions
from circuitspec.exploration.output.exploration_figures import pictures
from circuitspec.exploration.output.exploration_tables import effects_frame, sweeps_frame
from circuitspec.exploration.output.exploration_text import render_exploration as rendered
from circuitspec.hypothesis_file.grammar.components import Head, Mlp, Neuron
from circuitspec.hypothesis_file.grammar.internal_metric_names import Activation, Attention, Projection
from circuitspec.hypothesis_file.load_file import load_exploration
from circuitspec.hypothesis_file.schema.blocks import Exploration
from circuitspec.hypothesis_file.yaml.source import parse_leniently
from circuitspec.models.load import load_model
from circuitspec.pipelines.explore import explore
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.tokens.tokenize import tokenize
from circuitspec.runtime.progress import Silent
from tests.exploration.toys import POINTER, write

HYPOTHESES = Path(__file__).parents[2] / "hypotheses"


class Quiet(Silent):
    """Nobody waits."""


def explored(file: str, metric: str, **options: Any) -> ExplorationFindings:
    study = load_exploration(HYPOTHESES / file)
    return explore(study, ExploreOptions(metric=metric, **options), Quiet(), "explore")


@pytest.mark.nightly
def test_what_moves_the_neuron_of_nobel() -> None:
    """The neuron is on where both words are there: noising either input breaks it, restoring either alone does not.

    What comes after it, or writes elsewhere, is not even patched.
    """
    found = explored("toys/nobel.circuit.yaml", "{neuron: m1.n42, at: second}", start="resid")
    assert found.metric == "neuron(m1.n42@second)"
    clean, corrupt = found.corruptions["random"]
    assert clean > corrupt
    frame = effects_frame(found).set_index(["component", "position"])
    assert frame.loc[("a0.h0", "second"), ["drop", "rise"]].tolist() == pytest.approx([1.0, 0.0], abs=1e-4)
    patched = {name for name, _ in frame.index}
    assert patched <= {"a0.h0", "a0.h1", "a0.h2", "a0.h3", "a1.h0", "a1.h1", "a1.h2", "a1.h3", "m0"}
    others = [one for one in frame.index if one != ("a0.h0", "second")]
    assert frame.loc[others, "drop"].abs().max() < 1e-4
    assert frame["drop_estimate"].isna().all()
    swept = sweeps_frame(found)
    assert {"m0"} == {name for name in swept["component"] if name.startswith("m")}
    streams = swept[(swept["component"] == "r0") & (swept["position"] == "second") & (swept["direction"] == "noising")]
    # the embedding of Peace: half of the AND
    assert streams[streams["corruption"] == "random"]["share"].tolist() == pytest.approx([1.0], abs=1e-4)
    assert not found.circuits
    text = rendered(found)
    assert "on a metric inside the model, all exact" in text
    assert "a circuit for this metric: it is chosen with estimates, and this metric has none: it is read inside" in text
    assert "cross-sections of the file's circuit: they lie before the logits" in text
    assert not re.search(r"warning\[CS41[01]\]", text)
    assert "layers-and-heads" in pictures(found)


@pytest.mark.nightly
def test_attention_is_what_the_model_pays_with_a_head_silenced_by_a_plain_hook() -> None:
    """ioi-tiny: the attention of a late head, with an early one zeroed by hand, against the sweep of `zero`."""
    text = (HYPOTHESES / "ioi-tiny.circuit.yaml").read_text().replace("prompts: 100", "prompts: 12")
    file = HYPOTHESES / "ioi-tiny.circuit.yaml"
    study = replace(load_exploration(file), exploration=Exploration.model_validate(parse_leniently(text, "")[0].data))
    metric = Attention(Head(2, 2), "END", "S2")
    options = ExploreOptions(metric=str(metric), sweeps=("heads",), values=("zero",))
    found = explore(study, options, Quiet(), "explore")
    frame = sweeps_frame(found)
    frame = frame[(frame["position"] == "all") & (frame["direction"] == "noising") & (frame["value"] == "zero")]
    ours = dict(zip(frame["component"], frame[str(metric)], strict=True))
    assert set(ours) == {f"a{layer}.h{head}" for layer in (0, 1) for head in range(4)}
    loaded = load_model(study.exploration.model, study.base_dir, device="cpu", progress=lambda _: None)
    prompts = build_prompts(study.exploration.task, study.base_dir, study.source)
    for layer, head in ((0, 1), (1, 2)):
        theirs = _attention(loaded, [p.texts["clean"] for p in prompts.prompts], study, metric, (layer, head))
        assert ours[f"a{layer}.h{head}"] == pytest.approx(theirs, abs=1e-5)


def _attention(loaded: Any, texts: list[str], study: Any, metric: Attention, silenced: tuple[int, int]) -> float:
    """The head's mean attention, one prompt at a time, from the weights that transformers' own attention hands out."""
    prompts = build_prompts(study.exploration.task, study.base_dir, study.source)
    task = tokenize(prompts, study.exploration.task.positions, loaded.tokenizer, study.source)
    model, shape = loaded.model, loaded.shape
    layer, head = silenced

    def silence(module: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        z = inputs[0].clone()
        z[..., head * shape.d_head : (head + 1) * shape.d_head] = 0
        return (z, *inputs[1:])

    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    hook = model.transformer.h[layer].attn.c_proj.register_forward_pre_hook(silence)
    try:
        paid = []
        for number, text in enumerate(texts):
            ids = torch.tensor([loaded.tokenizer(text)["input_ids"]])
            with torch.no_grad():
                out = model(ids, output_attentions=True)
            weights = out.attentions[metric.head.layer][0, metric.head.head]
            source, target = (task.roles[role][number] for role in (metric.source, metric.target))
            paid.append(float(weights[source, target]))
        return float(np.mean(paid))
    finally:
        hook.remove()
        model.set_attn_implementation(before)


@pytest.mark.parametrize("metric", ["kl", "accuracy", "rank"])
@pytest.mark.parametrize(
    "options", [{"start": "resid"}, pytest.param({"sweeps": ("heads",)}, marks=pytest.mark.nightly)]
)
def test_metrics_of_the_output_that_cannot_be_estimated(metric: str, options: dict[str, Any], tmp_path: Path) -> None:
    """a0.h3 decides whether the logit of ` lit` is 4 or -4, beside those of all other tokens, which are 0."""
    study = load_exploration(write(POINTER, tmp_path))
    found = explore(study, ExploreOptions(metric=metric, **options), Quiet(), "explore")
    others = load_model(study.exploration.model, tmp_path, device="cpu", progress=lambda _: None).shape.n_vocab - 1
    totals = others + math.exp(4), others + math.exp(-4)
    kl = math.exp(4) / totals[0] * 8 + math.log(totals[1] / totals[0])
    expected = {"kl": (0.0, kl), "accuracy": (1.0, 0.0), "rank": (0.0, others)}
    assert found.corruptions["turned"] == pytest.approx(expected[metric], abs=1e-4)
    frame = effects_frame(found).set_index(["component", "position"])
    if "start" in options:
        assert frame.loc[("a1.h2", "END"), ["drop", "rise"]].tolist() == pytest.approx([1.0, 1.0], abs=1e-4)
        assert frame["drop_estimate"].isna().all()
    swept = sweeps_frame(found).set_index(["component", "position", "direction"])
    assert swept.loc[("a1.h2", "END", "noising"), "share"] == pytest.approx(1.0, abs=1e-4)
    assert not found.circuits
    text = rendered(found)
    assert "a circuit for this metric: it is chosen with estimates, and this metric has none" in text
    assert f"on {metric}, all exact" in text or "start" not in options


@pytest.mark.parametrize(
    ("metric", "said"), [("kl", "zero at the clean run"), ("accuracy", "moves in steps"), ("rank", "moves in steps")]
)
def test_they_go_with_exact_sweeps_alone(metric: str, said: str, tmp_path: Path) -> None:
    file = write(POINTER, tmp_path)
    with pytest.raises(CircuitspecError) as error:
        explore(load_exploration(file), ExploreOptions(metric=metric), Quiet(), "explore")
    (found,) = error.value.diagnostics
    assert found.code == "CS541"
    assert said in found.message
    assert found.hint is not None
    assert found.hint.endswith("or take one of logit_diff, logit, logprob, logprob_diff, prob, prob_diff")
    asked = ["explore", str(file), "--metric", metric, "--start", "resid", "--draft", str(tmp_path / "d.yaml")]
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())


def test_what_is_proposed_instead_can_be_estimated(tmp_path: Path) -> None:
    file = write(POINTER, tmp_path)
    file.write_text(file.read_text().replace('  wrong: " dark"\n', ""))
    with pytest.raises(CircuitspecError) as error:
        explore(load_exploration(file), ExploreOptions(), Quiet(), "explore")
    (found,) = error.value.diagnostics
    assert found.code == "CS350"
    assert found.hint == "add `wrong` to the task, or use one of logit, logprob, prob"


def test_estimates_need_a_metric_of_the_output() -> None:
    with pytest.raises(CircuitspecError) as error:
        explored("toys/nobel.circuit.yaml", "neuron(m1.n42@second)")
    (found,) = error.value.diagnostics
    assert found.code == "CS541"
    assert "nothing can be estimated of it, since it is read inside the model" in found.message
    assert found.span is None


@pytest.mark.parametrize(
    ("metric", "code", "said"),
    [
        ("logitdiff", "CS168", "--metric: logitdiff is no metric"),
        ("{attention: a0.h0, from: second}", "CS168", "--metric: attention needs to"),
        ("{neuron: m1.n42, at: second", "CS", ""),
        ("neuron(m7.n42@second)", "CS220", "m7"),
        ("neuron(m1.n42@END)", "CS507", "position `END` is not in every prompt"),
        ("attention(a0.h0, second -> first)", "CS541", "no head and no MLP that is searched comes before"),
    ],
)
def test_metrics_that_cannot_be_read(metric: str, code: str, said: str) -> None:
    with pytest.raises(CircuitspecError) as error:
        explored("toys/nobel.circuit.yaml", metric, start="resid")
    (found,) = error.value.diagnostics
    assert found.code.startswith(code)
    assert said in found.message


def test_metrics_are_written_as_in_claims() -> None:
    assert metric_inside("logit_diff") is None
    assert metric_inside("{attention: a9.h9, from: END, to: IO}") == Attention(Head(9, 9), "END", "IO")
    assert metric_inside("neuron(m1.n42@END)") == Activation(Neuron(1, 42), "END")
    assert metric_inside(" {projection: m3, at: END, along: probe.txt}") == Projection(Mlp(3), "END", "probe.txt")


def test_a_draft_needs_a_metric_of_the_output(tmp_path: Path) -> None:
    file = str(HYPOTHESES / "toys" / "nobel.circuit.yaml")
    asked = ["explore", file, "--metric", "neuron(m1.n42@second)", "--start", "resid"]
    done = CliRunner().invoke(main, [*asked, "--draft", str(tmp_path / "d.yaml")])
    assert done.exit_code == 2
    assert "it is read inside the model" in done.output


@pytest.mark.nightly
def test_noise_is_added_where_the_command_says() -> None:
    """Noise on the embeddings of both switches breaks the lamp; the file's own ablation stays what it is."""
    study = load_exploration(HYPOTHESES / "toys" / "and.circuit.yaml")
    options = ExploreOptions(sweeps=("mlps",), values=("resample", "gaussian"), noise_at=("A", "B"))
    found = explore(study, options, Quiet(), "explore")
    (grid,) = found.grids
    noisy = [one for one in grid.series if one.value == "gaussian"]
    assert {one.noising for one in noisy} == {True, False}
    assert {str(one.prompts) for one in noisy} == {"noise 3@{A,B}"} or all("A" in str(one.prompts) for one in noisy)
    frame = sweeps_frame(found).set_index(["component", "position", "value", "direction", "corruption"])
    assert frame.loc[("m1", "END", "resample", "noising", "both"), "share"] == pytest.approx(1.0, abs=1e-4)
    with pytest.raises(CircuitspecError) as error:
        explore(study, ExploreOptions(sweeps=("mlps",), values=("gaussian",), noise_at=("C",)), Quiet(), "explore")
    assert [one.code for one in error.value.diagnostics] == ["CS507"]
