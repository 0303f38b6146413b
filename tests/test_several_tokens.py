"""From the file to the report: answers of several tokens, and clean and corrupted prompts of unequal lengths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.pyvene_export.bundle_content import make_bundle
from circuitspec.engine.runner import Runner
from circuitspec.experiments.circuits.method_grid import Method
from circuitspec.experiments.experiment import Experiment, Site, values_in
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head
from circuitspec.hypothesis_file.load_file import load_hypothesis
from circuitspec.models.load import LoadedModel, load_model
from circuitspec.pipelines.check import check_file
from circuitspec.pipelines.verify import Outcome, VerifyOptions, verify
from circuitspec.reports.text.text_report import render_text
from circuitspec.runtime.progress import Silent

FILE = """circuitspec: 1
name: several
model: {{id: zoo:ioi-tiny}}
task:
  templates: ["Then, {{IO}} and {{S1}} went to the {{place}}. {{S2}} gave a {{object}} to"]
  slots: {{IO: $names, S1: $names, S2: =S1, place: $places, object: $objects}}
  lists:
    names: [Mary, John, Paul, Anna, Peter, Laura, David, Emma, James, Sarah, Thomas, Alice]
    places: {places}
    other: {other}
    objects: [ring, book, ball, snack]
  answer: {answer}
  wrong: {wrong}
  corruptions: {{abc: {{IO: $names, S1: $names, S2: $names{more}}}}}
  positions: {{END: last}}
  prompts: 12
  {task}
circuit: {{groups: {{inhibition: {{nodes: [a2.h2], at: END}}, last: {{nodes: [a3.h0, a3.h1], at: END}}}}, free: [m*]}}
ablation: {{value: {value}, from: abc}}
claims: [{claims}]
"""
ONE = "[store, park]"
TWO = "[store and park, school and garden]"


def file(tmp_path: Path, **changes: str) -> Path:
    usual = {
        "places": ONE,
        "other": ONE,
        "answer": '" {IO}"',
        "wrong": '" {S1}"',
        "more": "",
        "task": "",
        "value": "resample",
        "claims": "necessary: {metric: logit_diff, at_most: 0.9}",
    }
    path = tmp_path / "several.circuit.yaml"
    path.write_text(FILE.format(**{**usual, **changes}), encoding="utf-8")
    return path


def verified(path: Path, **options: Any) -> Outcome:
    return verify(load_hypothesis(path), VerifyOptions(**options), Silent())


WHOLE = {
    "answer": '[" {IO}.", " {IO} and"]',
    "wrong": '" {S1}."',
    "task": "score: sum_logprob",
    "claims": "sufficient: {metric: logprob_diff, at_least: 0.1}",
}


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load_model(
        load_hypothesis(Path(__file__).parents[1] / "hypotheses" / "ioi-tiny.circuit.yaml").hypothesis.model, Path()
    )


def test_whole_answers_from_the_file_to_the_report(tmp_path: Path, model: LoadedModel) -> None:
    """The clean run's figures are those of the model's own logits, one whole text after another."""
    found = verified(file(tmp_path, **WHOLE))
    shown = render_text(found.verification)
    assert "recovered logprob_diff" in shown
    assert "direct effects were not looked at" in shown
    records, task = found.verification.records, found.task
    clean = records[found.verification.plan.clean]
    assert set(clean) == {"logprob", "logprob_diff", "prob", "prob_diff", "accuracy", "kl"}
    tokenizer = model.tokenizer
    for k, prompt in enumerate(task.prompts.prompts):
        scores = []
        for answer in (*prompt.answers, *prompt.wrong):
            ids = tokenizer(prompt.texts["clean"] + answer)["input_ids"]
            start = len(task.ids["clean"][k])
            with torch.no_grad():
                logits = model.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
            scores.append(sum(float(logits[at - 1, ids[at]]) for at in range(start, len(ids))))
        first, second, wrong = scores
        assert clean["logprob"][k] == pytest.approx(np.logaddexp(first, second), abs=1e-4)
        assert clean["logprob_diff"][k] == pytest.approx((first + second) / 2 - wrong, abs=1e-4)
        assert clean["accuracy"][k] == float(max(first, second) > wrong)


def test_the_first_token_gives_the_numbers_of_that_answer(tmp_path: Path) -> None:
    """With ` Mary.` for ` Mary`: the same prompts, and the same figures to the last digit."""
    one = verified(file(tmp_path), negatives="off").verification
    first = verified(
        file(tmp_path, answer='" {IO}."', wrong='" {S1} and"', task="score: first_token"), negatives="off"
    ).verification
    assert one.claims[0].estimate == first.claims[0].estimate
    assert one.digest != first.digest


def test_the_accuracy_that_is_asked_for_is_that_of_whole_answers(tmp_path: Path) -> None:
    """` and` follows no name here: the answer with it loses against the wrong one without."""
    changes = {**WHOLE, "answer": '" {S1} and and"', "wrong": '" {IO}."'}
    path = file(tmp_path, **{**changes, "task": "score: sum_logprob\n  checks: {accuracy: 0.5}"})
    with pytest.raises(CircuitspecError, match="CS504"):
        verified(path, negatives="off")


def test_metrics_of_logits_are_refused(tmp_path: Path) -> None:
    for metric, instead in (("logit_diff", "logprob_diff"), ("logit", "logprob"), ("rank", "accuracy")):
        path = file(tmp_path, **{**WHOLE, "claims": f"necessary: {{metric: {metric}, at_most: 0.5}}"})
        (problem,), _ = check_file(path)
        assert problem.code == "CS181"
        assert instead in problem.hint


def test_positions_alone_are_patched_where_lengths_differ(tmp_path: Path) -> None:
    """Either way round: more tokens in the corrupted prompt, and more in the clean one."""
    for places, other in ((ONE, TWO), (TWO, ONE)):
        found = verified(file(tmp_path, places=places, other=other, more=", place: $other"))
        clean, corrupt = (found.task.ids[v] for v in ("clean", "abc"))
        assert all(len(a) != len(b) for a, b in zip(clean, corrupt, strict=True))
        assert found.verification.claims[0].estimate is not None


def test_everything_outside_the_circuit_needs_a_counterpart(tmp_path: Path) -> None:
    """Unless zeros are put there. The error names the prompt and the slot, and the entry that is longer."""
    changes = {"places": TWO, "other": ONE, "more": ", place: $other"}
    claims = "sufficient: {metric: logit_diff, at_least: 0.1}"
    path = file(tmp_path, **changes, claims=claims)
    problems, _ = check_file(path)
    assert problems[0].code == "CS366"
    assert {d.code for d in problems} == {"CS366", "CS343"}
    assert "the slot place: 'store and park' is 3 tokens" in problems[0].message or "'school" in problems[0].message
    assert "skip: [misaligned]" in problems[0].hint
    with pytest.raises(CircuitspecError, match="CS366"):
        verified(path)
    path.write_text(path.read_text(encoding="utf-8").replace("value: resample, from: abc", "value: zero"), "utf-8")
    assert verified(path, negatives="off").verification.claims[0].estimate is not None
    means = path.read_text(encoding="utf-8").replace("value: zero", "value: mean_per_template, from: clean")
    path.write_text(means, encoding="utf-8")
    assert verified(path, negatives="off").verification.claims[0].estimate is not None, "as the hint says"


def test_a_bundle_has_one_token_where_answers_are_read(tmp_path: Path, model: LoadedModel) -> None:
    task = verified(file(tmp_path, **WHOLE), negatives="off").task
    run = Experiment("clean", values_in("abc"), frozenset({Site(Head(0, 0), Where.at("END"))}))
    with borrowed(model.model), pytest.raises(CircuitspecError, match="CS368"):
        make_bundle({run: "one"}, Runner(model, task, progress=Silent()), {})


def codes(found: Outcome) -> set[str]:
    return {warning.code for warning in found.verification.warnings}


def test_answers_of_different_numbers_of_tokens_are_warned_of(tmp_path: Path) -> None:
    """CS444: the right answer has two tokens, the wrong one of them; not where both have two."""
    one = {**WHOLE, "answer": '" {IO}."', "wrong": '" {S1}"'}
    found = verified(file(tmp_path, **one), negatives="off").verification
    (warning,) = [warning for warning in found.warnings if warning.code == "CS444"]
    assert (warning.data["longer"], warning.data["shorter"]) == (12, 0)
    assert "CS444" not in codes(verified(file(tmp_path, **WHOLE), negatives="off"))
    kl = {**one, "claims": "sufficient: {metric: kl, at_least: 0.1}"}
    assert "CS444" not in codes(verified(file(tmp_path, **kl), negatives="off"))


def test_prompts_of_unequal_lengths_are_warned_of(tmp_path: Path) -> None:
    """CS445: with the piece that differs; and what is not looked at, where tokens outside the circuit lack values."""
    found = verified(file(tmp_path, places=TWO, other=ONE, more=", place: $other")).verification
    (warning,) = [warning for warning in found.warnings if warning.code == "CS445"]
    assert warning.data["prompts"] == 12
    assert "the slot place" in warning.message
    assert "were not looked at" in warning.detail
    assert found.effects is None
    other = verified(file(tmp_path, places=ONE, other=TWO, more=", place: $other")).verification
    (warning,) = [warning for warning in other.warnings if warning.code == "CS445"]
    assert "were not looked at" not in warning.detail
    assert other.effects is not None
    assert "CS445" not in codes(verified(file(tmp_path), negatives="off"))


UNEQUAL = {"places": TWO, "other": ONE, "more": ", place: $other"}  # nothing but positions can be patched


def test_other_methods_that_need_a_counterpart_are_left_out(tmp_path: Path) -> None:
    """Of a sweep and of `robust_to`, with the reason; those that are run have the figure of a file that says so."""
    found = verified(file(tmp_path, **UNEQUAL), negatives="off", sweep=True, tests=True).verification
    assert found.sweep is not None
    assert found.tests is not None
    wanted = Method("node", "zero", None, "declared", "noising", "circuit")
    (zero,) = [score for score in found.sweep.scores if score.method == wanted]
    path = file(tmp_path, **UNEQUAL)
    path.write_text(path.read_text(encoding="utf-8").replace("value: resample, from: abc", "value: zero"), "utf-8")
    alone = verified(path, negatives="off").verification
    assert zero.recovered is not None
    assert alone.claims[0].estimate is not None
    assert zero.recovered.value == pytest.approx(alone.claims[0].estimate.value, abs=1e-6)
    lacking = {one.method.ablation for one in found.sweep.left_out if "has no counterpart" in one.reason}
    assert lacking == {"mean", "mean_per_template", "resample"}
    (why,) = found.tests.not_run
    assert "has no counterpart" in why

    robust = "necessary: {{metric: logit_diff, at_most: 0.9, robust_to: {}}}"
    claim = verified(file(tmp_path, **UNEQUAL, claims=robust.format("[ablation]")), negatives="off").verification
    parts = {part.name: part for part in claim.claims[0].parts}
    assert any("zero" in name and part.estimate is not None for name, part in parts.items())
    for given, said in (
        ("{positions: [all]}", "positions all cannot be run here: .* has no counterpart"),
        ("[positions]", "there is no other positions to run: .* has no counterpart"),
    ):
        with pytest.raises(CircuitspecError, match=said) as caught:
            verified(file(tmp_path, **UNEQUAL, claims=robust.format(given)), negatives="off")
        assert {finding.code for finding in caught.value.diagnostics} == {"CS167"}


def test_other_methods_that_have_no_patterns_are_left_out(tmp_path: Path) -> None:
    path = file(tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace("a3.h0", "a3.h0.pattern"), encoding="utf-8")
    found = verified(path, negatives="off", sweep=True).verification.sweep
    assert found is not None
    assert {score.method.ablation for score in found.scores} == {"resample"}
    assert {"mean", "zero"} <= {one.method.ablation for one in found.left_out if "a3.h0.pattern" in one.reason}
