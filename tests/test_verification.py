"""The whole pipeline on models whose right answer is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from circuitspec.analysis.circuit_effects.negative_components import Search
from circuitspec.analysis.statistics import stats
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.verification_result import Verification
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.hypothesis_file.load_file import Document, digest, load_hypothesis, parse_hypothesis
from circuitspec.pipelines import session
from circuitspec.pipelines.check import check_file
from circuitspec.pipelines.plan import plan_file
from circuitspec.pipelines.verify import VerifyOptions, verify
from circuitspec.reports.machine.json_document import to_document
from circuitspec.reports.text.text_report import render_text
from circuitspec.runtime.progress import Silent

HYPOTHESES = Path(__file__).parents[1] / "hypotheses"
TOYS = HYPOTHESES / "toys"


class Quiet(Silent):
    """Nobody waits."""


def run(document: Document, search: Search = "screen") -> Verification:
    return verify(document, VerifyOptions(negatives=search), Quiet()).verification


def edited(file: Path, *changes: tuple[str, str]) -> Document:
    text = file.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return parse_hypothesis(text, str(file))


def refused(document: Document) -> set[str]:
    with pytest.raises(CircuitspecError) as error:
        run(document)
    return {d.code for d in error.value.diagnostics}


LEFT_OUT = HYPOTHESES / "toys" / "negative-left-out.circuit.yaml"
TINY = HYPOTHESES / "ioi-tiny.circuit.yaml"


@pytest.mark.parametrize("search", ["screen", "exact"])
def test_a_negative_head_left_out_is_named_with_both_figures(search: Search) -> None:
    """On paper: clean 6 - 2 = 4, corrupt -4; with the negative head noised 6 + 2 = 8, which recovers 150 %."""
    found = run(load_hypothesis(LEFT_OUT), search)
    left_out, above = found.warnings
    assert (left_out.code, above.code) == ("CS401", "CS402")
    (component,) = left_out.data["components"]  # type: ignore[misc, attr-defined]
    assert component["component"] == "a1.h2"
    assert component["effect"] == pytest.approx(-4, abs=1e-3)
    assert left_out.data["recovered_declared"]["value"] == pytest.approx(1.5, abs=1e-4)  # type: ignore[index, call-overload]
    assert left_out.data["recovered_restored"]["value"] == pytest.approx(1.0, abs=1e-4)  # type: ignore[index, call-overload]
    text = render_text(found)
    assert "negative components are left out: a1.h2 (-0.50" in text
    assert "recovered logit_diff 1.50 as declared, 1.00 with all of them restored" in text
    said = to_document(found)["negatives"]
    assert said["search"] == search  # type: ignore[index, call-overload]
    assert said["found"] == 1  # type: ignore[index, call-overload]


def test_not_looking_for_negatives_is_said() -> None:
    found = run(load_hypothesis(LEFT_OUT), "off")
    assert [w.code for w in found.warnings] == ["CS402"]
    assert "were not looked for" in render_text(found)


def test_a_sound_circuit_has_no_warning_and_says_what_was_searched() -> None:
    found = run(load_hypothesis(HYPOTHESES / "toys" / "negative.circuit.yaml"))
    assert found.warnings == ()
    assert found.verdict == "SUPPORTED"
    assert "no negative components outside the circuit" in render_text(found)


def test_kl_needs_no_answers() -> None:
    document = edited(
        TINY,
        ('  answer: " {IO}"\n', ""),
        ('  wrong: " {S1}"\n', ""),
        ("  checks: {accuracy: 0.95} # refuse to verify a task that the model does not do\n", ""),
        ("sufficient: {metric: logit_diff, at_least: 0.8, at_most: 1.2}", "sufficient: {metric: kl, at_least: 0.8}"),
        ("necessary: {metric: logit_diff, at_most: 0.3}", "necessary: {metric: kl, at_most: 0.9}"),
    )
    found = run(document, "off")
    assert [claim.status for claim in found.claims] == ["SUPPORTED", "SUPPORTED"]


def test_a_kl_claim_searches_by_logit_difference() -> None:
    found = run(edited(LEFT_OUT, ("metric: logit_diff", "metric: kl")))
    assert found.negatives is not None
    assert found.negatives.finding is not None
    assert found.negatives.finding.metric == "logit_diff"
    assert [c.component for c in found.negatives.finding.components] == ["a1.h2"]


def test_a_check_of_accuracy_needs_answers(tmp_path: Path) -> None:
    lines = ['{"clean": "Then, Mary and John", "corrupt": "Then, Anna and Paul"}'] * 1
    (tmp_path / "p.jsonl").write_text("\n".join(lines), encoding="utf-8")
    text = TINY.read_text(encoding="utf-8")
    start, end = text.index("task:"), text.index("circuit:\n  groups")
    task = "task:\n  file: p.jsonl\n  checks: {accuracy: 0.9}\n  positions: {IO: 1, S1: 3, S2: 3, END: last}\n\n"
    text = text[:start] + task + text[end:]
    text = text.replace("from: abc", "from: corrupt").replace("metric: logit_diff", "metric: kl")
    assert refused(parse_hypothesis(text, str(tmp_path / "t.circuit.yaml"))) == {"CS350"}


def test_the_self_tests_are_run(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    original = session.self_test

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        return original(*arguments, **options)

    monkeypatch.setattr(session, "self_test", counted)
    found = run(load_hypothesis(TINY), "off")
    assert len(calls) == 1
    assert found.self_test is not None
    assert found.self_test.own_values < 1e-4


def test_prompts_that_are_too_long_for_the_model() -> None:
    long = "gave a {object} to"
    words = " ".join(["Then, {IO} and {S1} went to the {place}."] * 1 + ["Then, Mary went to the store."] * 12)
    document = edited(TINY, ('"Then, {IO} and {S1} went to the {place}. {S2} ' + long, f'"{words} {{S2}} {long}'))
    assert refused(document) == {"CS505"}


def test_the_model_must_do_the_task() -> None:
    document = edited(TINY, ('answer: " {IO}"', 'answer: " {S1}"'), ('wrong: " {S1}"', 'wrong: " {IO}"'))
    assert refused(document) == {"CS504"}


def with_prompts(n: int, seed: int = 0, **ablation: object) -> Document:
    """The shipped hypothesis with other prompts, and another way of taking means."""
    document = load_hypothesis(TINY)
    found = document.hypothesis
    task = found.task.model_copy(update={"prompts": n, "seed": seed})
    changed = found.model_copy(update={"task": task, "ablation": found.ablation.model_copy(update=ablation)})
    return replace(document, hypothesis=changed)


def interval_of(found: Verification) -> tuple[float, float]:
    estimate = found.claims[0].estimate
    assert estimate is not None
    assert estimate.interval is not None
    return estimate.interval


def measured_alone(found: Verification) -> Estimate:
    """What the prompts say with the means held fixed."""
    planned = found.plan.claims[0]
    runs = (planned.patched, planned.corrupt, planned.clean)
    return stats.recovered(*(found.records[run]["logit_diff"] for run in runs))


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.nightly
def test_few_prompts_give_an_interval_that_holds_the_truth(seed: int) -> None:
    """600 prompts with means over 3,000 others say what is true; means over 24 damage the circuit."""
    true = measured_alone(run(with_prompts(600, 9, reference=3000), "off")).value
    assert true == pytest.approx(1.01, abs=0.02)
    themselves = run(with_prompts(24, seed, reference="prompts"), "off")
    fixed = measured_alone(themselves).interval
    assert fixed is not None
    assert fixed[1] < true  # with means over the scored prompts, held fixed
    low, high = interval_of(themselves)
    assert low <= true <= high
    assert themselves.reference is None
    assert "over the scored prompts" in themselves.methodology.describe()
    drawn = run(with_prompts(24, seed), "off")
    low, high = interval_of(drawn)
    assert low <= true <= high
    assert drawn.reference is not None
    assert drawn.reference.count >= 200
    assert f"over {drawn.reference.count} reference prompts" in drawn.methodology.describe()
    assert drawn.prompts_digest == themselves.prompts_digest


def test_means_over_few_prompts_decide_nothing() -> None:
    found = run(with_prompts(16, reference="prompts"), "off")
    assert [claim.status for claim in found.claims] == ["INCONCLUSIVE", "INCONCLUSIVE"]
    assert "the means go over 4 prompts at the fewest" in found.claims[0].reason
    (warning,) = [w for w in found.warnings if w.code == "CS404"]
    assert "reference" in warning.help


def test_few_reference_prompts_are_warned_of() -> None:
    found = run(with_prompts(60, reference=16), "off")
    (warning,) = [w for w in found.warnings if w.code == "CS404"]
    assert warning.data["averaged"] == 16
    assert warning.data["share"] > 0.1  # type: ignore[operator]
    assert warning.help == f"write `reference: {warning.data['needed']}`"


def test_a_run_with_other_means_takes_nothing_from_the_store_that_depends_on_them(tmp_path: Path) -> None:
    def values(reference: int, store: Path | None) -> list[float]:
        options = VerifyOptions(negatives="off", store=store)
        found = verify(with_prompts(12, reference=reference), options, Quiet()).verification
        return [claim.estimate.value for claim in found.claims if claim.estimate is not None]

    first = values(40, tmp_path)
    assert values(80, tmp_path) == pytest.approx(values(80, None), abs=1e-6) != first
    assert values(40, tmp_path) == first


def test_a_mean_that_cannot_be_taken_is_said_before_the_run_and_where() -> None:
    document = with_prompts(5, reference="prompts")  # four templates
    with pytest.raises(CircuitspecError) as error:
        run(document)
    (finding,) = error.value.diagnostics
    assert finding.code == "CS522"
    assert finding.span is not None
    assert "mean_per_template" in document.source.lines[finding.span.line - 1]


def test_the_only_corruption_is_taken_where_none_is_named() -> None:
    """Of templates: the same hypothesis as with `from: swap`, digest and all."""
    file = TOYS / "negative.circuit.yaml"
    named, unnamed = load_hypothesis(file), edited(file, ("resample, from: swap", "resample"))
    assert unnamed.hypothesis == named.hypothesis
    assert digest(unnamed.hypothesis) == digest(named.hypothesis)


@pytest.mark.parametrize("name", ["corrupt", "turned"])
def test_the_only_corruption_of_a_prompts_file_is_taken(tmp_path: Path, name: str) -> None:
    """Whatever the file calls it; `check`, `plan`, `verify` and its report name it."""
    rows = [
        {
            "clean": f"The {kind} box holds a {thing}. Inside is the",
            "corrupt": {"turned": f"The {kind} box holds a {other}. Inside is the"},
            "answers": [f" {thing}"],
            "wrong": [f" {other}"],
        }
        for kind in ("red", "blue", "small", "heavy", "wooden", "old")
        for thing, other in (("ring", "coin"), ("map", "key"))
    ]
    if name == "corrupt":
        rows = [{**row, "corrupt": row["corrupt"]["turned"]} for row in rows]  # type: ignore[index]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    text = (TOYS / "negative-left-out.circuit.yaml").read_text("utf-8")
    head, rest = text.partition("task:")[0], text.partition("circuit:\n")[2]
    rest = rest.replace("resample, from: swap", "resample").replace(", at: END", "")
    file = tmp_path / "own.circuit.yaml"
    file.write_text(f"{head}task: {{file: p.jsonl}}\n\ncircuit:\n{rest}", "utf-8")
    findings, said = check_file(file)
    assert not findings
    assert "ok" in said
    assert f"node level, resample from {name}, declared positions" in plan_file(file)
    found = run(load_hypothesis(file))
    assert found.methodology.source == name
    assert found.claims[0].estimate is not None
    assert found.claims[0].estimate.value == pytest.approx(1.5, abs=1e-4)  # (6 + 2 + 4) of (4 + 4)


def test_of_several_corruptions_none_is_taken(tmp_path: Path) -> None:
    row = {"clean": "a ring", "corrupt": {"one": "a map", "two": "a key"}, "answers": [" ring"], "wrong": [" map"]}
    (tmp_path / "p.jsonl").write_text(json.dumps(row), "utf-8")
    text = (TOYS / "negative-left-out.circuit.yaml").read_text("utf-8")
    head, rest = text.partition("task:")[0], text.partition("circuit:\n")[2]
    rest = rest.replace("resample, from: swap", "resample").replace(", at: END", "")
    file = tmp_path / "own.circuit.yaml"
    file.write_text(f"{head}task: {{file: p.jsonl}}\n\ncircuit:\n{rest}", "utf-8")
    (finding,) = (one for one in check_file(file)[0] if one.code == "CS145")
    assert finding.hint == "add from: one of one, two"
    assert finding.span is not None
    assert refused(load_hypothesis(file)) == {"CS145"}


@pytest.mark.nightly
def test_equal_digests_mean_equal_prompts() -> None:
    """The file's digest does not see into word lists kept elsewhere; the prompts' digest does."""
    document = load_hypothesis(TINY)
    task = document.hypothesis.task.model_copy(update={"seed": 1})
    other = replace(document, hypothesis=document.hypothesis.model_copy(update={"task": task}))
    digests = [run(d, "off").prompts_digest for d in (document, document, other)]
    assert digests[0] == digests[1] != digests[2]


MEDIATION = HYPOTHESES / "toys" / "mediation.circuit.yaml"


def test_declared_paths_are_measured_by_what_does_not_saturate() -> None:
    """A claimed probability is near 1 in both runs, where a path would seem idle that is not."""
    text = MEDIATION.read_text("utf-8")
    claims = "claims:\n  - sufficient: {metric: prob, at_least: 0.5}\n"
    found = run(parse_hypothesis(text[: text.index("claims:")] + claims, str(MEDIATION)))
    assert found.paths
    assert {effect.metric for effect in found.paths} == {"logit_diff"}


def test_the_report_notes_how_the_model_took_the_file() -> None:
    """Keys that query heads share, where a path enters them; what is free and not there."""
    found = run(load_hypothesis(MEDIATION))
    assert found.graph is not None
    assert "note:" not in render_text(found)
    shared = replace(found.graph, unmatched=("m*",), shape=replace(found.graph.shape, n_kv_heads=1))
    said = render_text(replace(found, graph=shared))
    assert "note: `m*` under `free` stands for nothing: this model has attention only\n" in said
    heads = found.graph.shape.n_heads
    assert (
        f"note: keys and values belong to kv heads, each shared by {heads} query heads: a0.kv0<v>, a1.kv0<v>\n" in said
    )
