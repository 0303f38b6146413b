"""The emitted bundle, run by pyvene alone, gives the engine's logits; so does pyvene's own loading of its config."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from circuitspec.analysis.claims.registry import make_plan
from circuitspec.cli import main
from circuitspec.engine.execution.compiler import Actions, borrowed
from circuitspec.engine.pyvene_export.bundle_content import make_bundle
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.planner import Plan
from circuitspec.graph.circuit_graph import lay_out
from circuitspec.hypothesis_file.load_file import Document, load_hypothesis
from circuitspec.models.load import LoadedModel, load_model
from circuitspec.models.zoo import zoo_path
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.prompt_set import TokenizedTask
from circuitspec.prompts.reference_prompts import ReferencePrompts
from circuitspec.prompts.tokens.tokenize import tokenize
from tests.engine.support import Silent
from tests.engine.support import model as random_model
from tests.models.conftest import save_tokenizer, tiny_llama
from tests.oracle import builders

TINY = Path(__file__).parents[2] / "hypotheses" / "ioi-tiny.circuit.yaml"
TABLED = ("gemma2", "gpt2", "gpt_neox", "llama", "mistral", "qwen2")
NAMES = ("Ann", "Bob", "Cid", "Dan", "Eve", "Fay")
WORDS = ("[UNK]", "then", "and", "went", "out", "gave", "to", *NAMES)

HYPOTHESIS = """
circuitspec: 1
name: any
model: {{id: ./model}}
task:
  templates: ["{{A}} and {{B}} went out {{B}} gave to", "then {{B}} and {{A}} went {{B}} gave to"]
  slots: {{A: $names, B: $names}}
  lists: {{names: [Ann, Bob, Cid, Dan, Eve, Fay]}}
  answer: " {{A}}"
  wrong: " {{B}}"
  corruptions:
    abc: {{A: $names, B: $names}}
  positions: {{END: last}}
  prompts: 8
circuit:
  groups:
    one: {{nodes: [a0.h1, a1.h0], at: A}}
    two: {{nodes: [a1.h3, m0], at: END}}
    three: {{nodes: [a0.h0, a0.h2]}}
ablation: {ablation}
claims: {claims}
"""
CLAIMS = "[{sufficient: {metric: logit_diff, at_least: 0.1}}, {necessary: {metric: logit_diff, at_most: 0.1}}]"
NODES = ['"m0.n3@{A,B}"', "m0.n5@END", "a0.kv1@B", "a1.kv0@END", "a1.h2@A", "m1@A", "r1@B", '"input@{A}"']
SECTION = f"[{{cross_section: {{nodes: [{', '.join(NODES)}], metric: logit_diff, at_least: 0.1}}}}]"
ABLATIONS = {
    "resample": ("{value: resample, from: abc, level: node}", CLAIMS),
    "mean_per_template": ("{value: mean_per_template, from: abc, level: node, reference: 12}", CLAIMS),
    "zero": ("{value: zero, level: node}", CLAIMS),
    "cross-section": ("{value: resample, from: abc, level: node}", SECTION),
}


@pytest.fixture(autouse=True)
def _one_tokenizer_for_all_families(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers picks a tokenizer by the model's family, and Qwen2's makes nothing of a list of words."""

    def read(directory: Path, n_vocab: int) -> PreTrainedTokenizerFast:
        return PreTrainedTokenizerFast.from_pretrained(directory)

    monkeypatch.setattr("circuitspec.models.load.load_tokenizer", read)


def written(tmp_path: Path, family: str, ablation: str, claims: str) -> Path:
    """A hypothesis file beside a random model of the family."""
    directory = tmp_path / "model"
    if family == "wide llama":
        model = tiny_llama()
    elif family == "longrope llama":  # prompts of 6 and of 7 words: other frequencies
        rope = {"rope_type": "longrope", "original_max_position_embeddings": 6, "rope_theta": 10000.0}
        factors = {"short_factor": [1.0] * 4, "long_factor": [5.0, 10.0, 20.0, 40.0]}
        model = builders.random_llama(3, "sdpa", exactly=False, layers=2, rope_parameters={**rope, **factors})
    else:
        model = random_model(family, layers=2, exactly=False)
    model.save_pretrained(directory)
    save_tokenizer(directory, WORDS)
    file = tmp_path / "any.circuit.yaml"
    file.write_text(HYPOTHESIS.format(ablation=ablation, claims=claims), encoding="utf-8")
    return file


def prepared(document: Document) -> tuple[LoadedModel, Plan, TokenizedTask]:
    hypothesis = document.hypothesis
    loaded = load_model(hypothesis.model, document.base_dir)
    plan = make_plan(hypothesis, lay_out(hypothesis.circuit, loaded.shape, document.source), document.source)
    prompts = build_prompts(hypothesis.task, document.base_dir, document.source)
    task = tokenize(prompts, hypothesis.task.positions, loaded.tokenizer, document.source)
    if hypothesis.ablation.value in ("mean", "mean_per_template"):
        given = hypothesis.task, hypothesis.ablation, document.base_dir, document.source
        task = ReferencePrompts(*given, loaded.tokenizer).of(task)
        assert task.reference is not None
    return loaded, plan, task


@torch.no_grad()
def by_engine(runner: Runner, experiment: Experiment) -> Tensor:
    """The answer logits of every prompt, `[prompt, vocabulary]`."""
    found: dict[int, Tensor] = {}
    for batch in runner.batches:
        actions = Actions()
        if experiment.source is not None:
            values = runner.source_values(batch, experiment.source, runner.taps_of([experiment]))
            actions = Actions(runner.swaps(batch, experiment, values))
        logits, _ = runner.forward(batch, experiment.base, actions)
        found |= dict(zip(batch.prompts, logits, strict=True))
    return torch.stack([found[i] for i in range(runner.task.n)])


@torch.no_grad()
def by_bundle(directory: Path, model: Any) -> dict[str, Tensor]:
    """As the bundle's own runner does it, in this process and on this model."""
    bundle = runpy.run_path(str(directory / "run.py"))["Bundle"](model)
    told = json.loads((directory / "sources" / "prompts.json").read_text(encoding="utf-8"))
    found = {}
    for experiment in told["experiments"]:
        file = (experiment["source"] or {}).get("file")
        means = load_file(directory / "sources" / file) if file else None
        prompts = range(len(told["variants"][experiment["base"]]))
        found[experiment["name"]] = torch.stack([bundle.run(experiment, i, told["variants"], means) for i in prompts])
    return found


def compiled(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["compile", *map(str, arguments)])


def assert_same(found: dict[str, Tensor], document: Document) -> None:
    loaded, plan, task = prepared(document)
    with borrowed(loaded.model):
        runner = Runner(loaded, task, rows=8, progress=Silent())
        expected = {label: by_engine(runner, experiment) for experiment, label in plan.labels.items()}
    assert set(found) == set(expected)
    for label, logits in expected.items():
        assert float((found[label] - logits).abs().max()) < 1e-5, label
    patched = [label for experiment, label in plan.labels.items() if experiment.sites]
    assert patched
    for label in patched:  # the comparison would be empty if patching did nothing
        assert float((expected[label] - expected["clean"]).abs().max()) > 1e-2


def run_alone(directory: Path, model: Path) -> dict[str, Tensor]:
    """run.py as a process of its own, in which circuitspec cannot be imported."""
    (directory / "sitecustomize.py").write_text("import sys\nsys.modules['circuitspec'] = None\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(directory), "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(
        [sys.executable, "run.py", "--model", str(model)],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    return load_file(directory / "logits.safetensors")


@pytest.mark.parametrize("ablation", ["mean_per_template", pytest.param("resample", marks=pytest.mark.nightly)])
@pytest.mark.nightly
def test_the_bundle_of_ioi_tiny_run_by_pyvene_alone(ablation: str, tmp_path: Path) -> None:
    text = TINY.read_text(encoding="utf-8")
    assert "value: mean_per_template" in text
    file = tmp_path / "tiny.circuit.yaml"
    value = "mean_per_template, reference: 120" if ablation == "mean_per_template" else ablation
    file.write_text(text.replace("value: mean_per_template", f"value: {value}"), encoding="utf-8")
    ran = compiled(file, "--emit", tmp_path / "bundle")
    assert ran.exit_code == 0, ran.stderr
    config = json.loads((tmp_path / "bundle" / "config.json").read_text(encoding="utf-8"))
    assert {row[1] for row in config["representations"]} == {"head_attention_value_output"}
    model = zoo_path("ioi-tiny")
    assert model is not None
    assert_same(run_alone(tmp_path / "bundle", model), load_hypothesis(file))


@pytest.mark.nightly
def test_the_bundle_of_a_llama_run_by_pyvene_alone(tmp_path: Path) -> None:
    file = written(tmp_path, "llama", *ABLATIONS["mean_per_template"])
    ran = compiled(file, "--emit", tmp_path / "bundle")
    assert ran.exit_code == 0, ran.stderr
    config = json.loads((tmp_path / "bundle" / "config.json").read_text(encoding="utf-8"))
    assert {row[1] for row in config["representations"]} == {"head_attention_value_output", "mlp_output"}
    assert_same(run_alone(tmp_path / "bundle", tmp_path / "model"), load_hypothesis(file))


@pytest.mark.parametrize(
    "ablation",
    [pytest.param(name, marks=[pytest.mark.nightly] * (name == "cross-section")) for name in sorted(ABLATIONS)],
)
@pytest.mark.parametrize("family", [*TABLED, "wide llama", "longrope llama"])
def test_the_bundle_gives_the_logits_of_the_engine(family: str, ablation: str, tmp_path: Path) -> None:
    """Every family that pyvene has a table of; the wide Llama's heads together are wider than its residual stream."""
    file = written(tmp_path, family, *ABLATIONS[ablation])
    ran = compiled(file, "--emit", tmp_path / "bundle")
    assert ran.exit_code == 0, ran.stderr
    document = load_hypothesis(file)
    model = load_model(document.hypothesis.model, document.base_dir).model
    assert_same(by_bundle(tmp_path / "bundle", model), document)


def test_a_mean_over_all_prompts(tmp_path: Path) -> None:
    file = written(tmp_path, "gpt2", "{value: mean, from: abc, level: node, reference: 12}", CLAIMS)
    text = file.read_text(encoding="utf-8").replace('"{A} and {B} went out {B} gave to", ', "")
    file.write_text(text, encoding="utf-8")
    assert compiled(file, "--emit", tmp_path / "bundle").exit_code == 0
    document = load_hypothesis(file)
    assert_same(by_bundle(tmp_path / "bundle", load_model(document.hypothesis.model, tmp_path).model), document)


@pytest.mark.parametrize("family", TABLED)
def test_pyvene_loads_the_config(family: str, tmp_path: Path) -> None:
    """With the unit locations of one prompt, pyvene's own loading gives what the bundle's runner gives."""
    from circuitspec.engine.execution.interventions import pyvene

    file = written(tmp_path, family, "{value: resample, from: abc, level: node, positions: all}", CLAIMS)
    document = load_hypothesis(file)
    assert compiled(file, "--emit", tmp_path / "bundle").exit_code == 0
    model = load_model(document.hypothesis.model, tmp_path).model
    expected = by_bundle(tmp_path / "bundle", model)
    where = json.loads((tmp_path / "bundle" / "unit_locations.json").read_text(encoding="utf-8"))
    told = json.loads((tmp_path / "bundle" / "sources" / "prompts.json").read_text(encoding="utf-8"))
    loaded = pyvene.IntervenableModel.load(str(tmp_path / "bundle"), model)
    assert len(loaded.interventions) == len(where["interventions"])
    for name, at in where["experiments"].items():
        places = at["locations"][0]
        if len(places) < len(where["interventions"]):
            continue  # the config has all of them, which only some experiments use
        locations = [place for _, place in places]
        channels = [at["channels"].get(str(i)) for i, _ in places]
        base, other = ({"input_ids": torch.tensor([told["variants"][v][0]])} for v in ("clean", "abc"))
        subspaces = [c and [c] for c in channels] if any(channels) else None
        _, patched = loaded(base, [other], {"sources->base": (locations, locations)}, subspaces=subspaces)
        assert float((patched.logits[0, -1] - expected[name][0]).abs().max()) < 1e-5


def test_two_experiments_with_one_label_keep_both_names(tmp_path: Path) -> None:
    loaded, plan, task = prepared(load_hypothesis(TINY))
    labels = dict.fromkeys(plan.labels, "the same")
    with borrowed(loaded.model):
        bundle = make_bundle(labels, Runner(loaded, task, rows=8, progress=Silent()), {})
    assert list(bundle.names.values()) == ["the same", "the same (2)", "the same (3)", "the same (4)"]


@pytest.mark.parametrize("family", ["gemma3_text", "olmo2", "phi3", "qwen3"])
def test_a_family_that_pyvene_has_no_table_of(family: str, tmp_path: Path) -> None:
    ran = compiled(written(tmp_path, family, *ABLATIONS["zero"]), "--emit", tmp_path / "bundle")
    assert ran.exit_code == 5
    assert "error[CS530]" in ran.stderr
    assert not (tmp_path / "bundle").exists()


def test_noise_on_the_embeddings(tmp_path: Path) -> None:
    file = written(tmp_path, "gpt2", "{value: gaussian, at: [A], level: node}", CLAIMS)
    ran = compiled(file, "--emit", tmp_path / "bundle")
    assert ran.exit_code == 5
    assert "error[CS531]" in ran.stderr


def test_a_bundle_is_replaced_only_with_force_and_nothing_else_is(tmp_path: Path) -> None:
    file, bundle = written(tmp_path, "gpt2", *ABLATIONS["zero"]), tmp_path / "deep" / "bundle"
    assert compiled(file, "--emit", bundle).exit_code == 0
    assert sorted(p.name for p in bundle.parent.iterdir()) == ["bundle"]
    (bundle / "run.py").write_text("old", encoding="utf-8")
    refused = compiled(file, "--emit", bundle)
    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert (bundle / "run.py").read_text(encoding="utf-8") == "old"
    assert compiled(file, "--emit", bundle, "--force").exit_code == 0
    assert "pyvene" in (bundle / "run.py").read_text(encoding="utf-8")
    (bundle / "thesis.tex").write_text("mine", encoding="utf-8")
    refused = compiled(file, "--emit", bundle, "--force")
    assert refused.exit_code == 2
    assert "thesis.tex" in refused.stderr
    assert (bundle / "thesis.tex").exists()
    (tmp_path / "empty").mkdir()
    assert compiled(file, "--emit", tmp_path / "empty").exit_code == 0
    assert compiled(file, "--emit", file).exit_code == 2


def test_the_current_directory_is_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, "gpt2", *ABLATIONS["zero"])
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert compiled(file, "--emit", ".", "--force").exit_code == 2


def test_a_bundle_that_cannot_be_written_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, bundle = written(tmp_path, "gpt2", *ABLATIONS["zero"]), tmp_path / "bundle"
    assert compiled(file, "--emit", bundle).exit_code == 0
    before = {p.name: p.stat().st_size for p in bundle.iterdir()}
    move = os.replace

    def failing(source: Path, target: Path) -> None:
        if Path(source).name == "new":
            raise OSError(28, "No space left on device")
        move(source, target)

    monkeypatch.setattr(os, "replace", failing)
    ran = compiled(file, "--emit", bundle, "--force")
    assert ran.exit_code == 5
    assert "error[CS532]" in ran.stderr
    assert "No space left" in ran.stderr
    assert {p.name: p.stat().st_size for p in bundle.iterdir()} == before
    (tmp_path / "blocked").write_text("", encoding="utf-8")
    assert "CS532" in compiled(file, "--emit", tmp_path / "blocked" / "bundle").stderr


def test_the_readme_says_what_each_experiment_is(tmp_path: Path) -> None:
    assert compiled(TINY, "--emit", tmp_path / "bundle").exit_code == 0
    text = (tmp_path / "bundle" / "README.md").read_text(encoding="utf-8")
    assert "| all ablated | clean | mean_per_template of abc | 16 |" in text
    assert "python run.py --model MODEL" in text
