"""Two results side by side: JSON reports and locks, in any combination."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from circuitspec.reports.live_views import LiveViews
from circuitspec.reports.machine.json_document import render_json, to_document
from circuitspec.reports.reported import Reported
from circuitspec.reports.saved_result import save
from circuitspec.repository.diff import compare, render_diff
from circuitspec.repository.lock_file import render_lock, write_lock
from circuitspec.repository.recorded import Recorded, read_recorded
from tests.repository.support import LOCK, Run, errors_of


@pytest.fixture
def lock(run: Run, tmp_path: Path) -> Recorded:
    write_lock(tmp_path / "ioi.circuit.lock", run.lock, "ioi.circuit.yaml")
    return read_recorded(tmp_path / "ioi.circuit.lock")


def result(run: Run, folder: Path, **changes: Any) -> Recorded:
    """The run's JSON report with some keys of its first claim replaced."""
    document: Any = to_document(run.outcome.verification)
    document["claims"][0] |= changes
    path = folder / "result.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return read_recorded(path)


def test_a_result_and_its_lock(run: Run, lock: Recorded, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(render_json(run.outcome.verification), encoding="utf-8")
    found = compare(lock, read_recorded(tmp_path / "result.json"))
    assert found.agree
    text = render_diff(found)
    assert text.count("same") == 6
    assert "DIFFERENT" not in text
    assert text.endswith("\n2 claims agree\n")


def test_a_folder_of_results(run: Run, lock: Recorded, tmp_path: Path) -> None:
    views = LiveViews(Reported(run.outcome.verification, run.document.source, task=run.outcome.task))
    (tmp_path / "report.json").write_text(save(views), encoding="utf-8")
    assert compare(lock, read_recorded(tmp_path)).agree
    assert read_recorded(tmp_path).claims == read_recorded(tmp_path / "report.json").claims
    (tmp_path / "report.json").write_text('{"circuitspec_report": 99}', encoding="utf-8")
    assert [finding.code for finding in errors_of(lambda: read_recorded(tmp_path))] == ["CS549"]


def test_a_value_is_held_to_the_interval(run: Run, lock: Recorded, tmp_path: Path) -> None:
    """A JSON report does not say with which versions it was made."""
    value, ci = lock.claims[0].value, lock.claims[0].ci
    assert value is not None
    assert ci is not None
    assert compare(lock, result(run, tmp_path, value=(value + ci[1]) / 2)).agree
    found = compare(lock, result(run, tmp_path, value=ci[1] + 0.01))
    assert [line.agrees for line in found.claims] == [False, True]
    assert f"{value:.4f}" in found.claims[0].said
    assert "lies outside the old interval" in found.claims[0].said
    assert render_diff(found).endswith("\n1 of 2 claims differ\n")


def test_two_locks_of_one_environment_are_held_to_rounding(run: Run, lock: Recorded, tmp_path: Path) -> None:
    first = run.lock.claims[0]
    assert first.value is not None
    moved = first.model_copy(update={"value": first.value + 0.001})
    path = tmp_path / "other.lock"
    write_lock(path, run.lock.model_copy(update={"claims": (moved, run.lock.claims[1])}), "x")
    found = compare(lock, read_recorded(path))
    assert "more than rounding" in found.claims[0].said
    elsewhere = run.lock.environment.model_copy(update={"device": "cuda"})
    write_lock(path, run.lock.model_copy(update={"claims": (moved, first), "environment": elsewhere}), "x")
    assert compare(lock, read_recorded(path)).claims[0].agrees


def test_what_two_locks_depend_on(run: Run, tmp_path: Path) -> None:
    """Weights, tokenizer, directions and seeds make another result; versions and the device are noted, as in a run."""
    files = {"model.safetensors": "a" * 64, "tokenizer.json": "b" * 64, "config.json": "c" * 64}
    old = {"model": run.lock.model.model_copy(update={"files": files}), "directions": {"probe.txt": "d" * 64}}
    changed = {"model.safetensors": "0" * 64, "tokenizer.json": "1" * 64, "config.json": "c" * 64}
    packages = {**run.lock.environment.packages, "torch": "2.4.0"}
    new = {
        "model": run.lock.model.model_copy(update={"files": changed}),
        "directions": {"probe.txt": "e" * 64},
        "seeds": {"prompts": 7, "bootstrap": 9},
        "environment": run.lock.environment.model_copy(update={"packages": packages, "device": "cuda"}),
    }
    read = {}
    for name, change in (("old", old), ("new", new), ("versions", {**old, "environment": new["environment"]})):
        write_lock(tmp_path / name, run.lock.model_copy(update=change), "x")
        read[name] = read_recorded(tmp_path / name)
    found = compare(read["old"], read["new"])
    assert [(line.what, line.said) for line in found.facts if not line.agrees] == [
        ("model.safetensors (weights)", f"sha256 {'a' * 12}... -> sha256 {'0' * 12}..."),
        ("tokenizer.json (tokenizer)", f"sha256 {'b' * 12}... -> sha256 {'1' * 12}..."),
        ("probe.txt (direction)", f"sha256 {'d' * 12}... -> sha256 {'e' * 12}..."),
        ("seeds", "bootstrap 0, prompts 0 -> bootstrap 9, prompts 7"),
    ]
    torch = run.lock.environment.packages["torch"]
    assert [(line.what, line.said) for line in found.notes] == [
        ("the device", "cpu -> cuda"),
        ("torch", f"{torch} -> 2.4.0"),
    ]
    assert not found.agree
    versions = compare(read["old"], read["versions"])
    assert versions.agree
    text = render_diff(versions)
    assert re.search(rf"^note +torch +{re.escape(torch)} -> 2\.4\.0$", text, re.MULTILINE)
    listed = r"config\.json, model\.safetensors, tokenizer\.json"
    assert re.search(rf"^same +the model's files +{listed}$", text, re.MULTILINE)
    assert "same        versions and device" in render_diff(compare(read["old"], read["old"]))


def test_a_status_and_the_rest_that_differ(run: Run, lock: Recorded, tmp_path: Path) -> None:
    found = compare(lock, result(run, tmp_path, status="REFUTED", n=23))
    assert found.claims[0].said == "status SUPPORTED -> REFUTED; prompts 24 -> 23"


def test_other_prompts_model_and_hypothesis(run: Run, lock: Recorded, tmp_path: Path) -> None:
    document: Any = to_document(run.outcome.verification)
    document["prompts_digest"] = "0" * 64
    document["model"] |= {"id": "other/model", "dtype": "bfloat16", "revision": "abc"}
    document["hypothesis"]["digest"] = "1" * 64
    path = tmp_path / "result.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    found = compare(lock, read_recorded(path))
    assert [line.what for line in found.facts if not line.agrees] == ["hypothesis", "prompts", "model", "dtype"]
    assert all(line.agrees for line in found.claims)
    assert not found.agree
    assert render_diff(found).endswith("\n2 claims agree; other hypothesis, prompts, model, dtype\n")


def test_a_number_format_that_is_not_known(run: Run, lock: Recorded, tmp_path: Path) -> None:
    document: Any = to_document(run.outcome.verification)
    document["model"]["dtype"] = "int8"
    path = tmp_path / "result.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    for pair in ((lock, read_recorded(path)), (read_recorded(path), lock)):
        found = compare(*pair)
        assert [line.what for line in found.facts if not line.agrees] == ["dtype"]
        assert all(line.agrees for line in found.claims)


def test_claims_of_two_hypotheses_are_paired_by_what_was_run(run: Run, lock: Recorded, tmp_path: Path) -> None:
    """Another claim before the others, as a second version of a hypothesis may have."""
    document: Any = to_document(run.outcome.verification)
    document["hypothesis"]["digest"] = "1" * 64
    document["claims"].insert(0, {**document["claims"][0], "claim": "path", "experiment": "noising a -> b"})
    path = tmp_path / "result.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    found = compare(lock, read_recorded(path))
    assert [line.agrees for line in found.claims] == [True, True, False]
    assert found.claims[2].what == "path logit_diff, noising a -> b"
    assert found.claims[2].said.startswith("only in the new one: SUPPORTED recovered ")
    assert [line.agrees for line in compare(read_recorded(path), lock).claims] == [False, True, True]


def test_results_of_earlier_versions_are_paired_by_the_words_of_this_one(run: Run, tmp_path: Path) -> None:
    """They called ablating the circuit, and everything outside it, by another word."""
    read = []
    for digest, word in (("1", "noising"), ("2", "ablating")):
        document: Any = to_document(run.outcome.verification)
        document["hypothesis"]["digest"] = digest * 64
        for claim in document["claims"]:
            claim["experiment"] = f"{word} {claim['experiment'].partition(' ')[2]}"
        path = tmp_path / f"{word}.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        read.append(read_recorded(path))
    assert [line.agrees for line in compare(*read).claims] == [True, True]
    assert [line.agrees for line in compare(*reversed(read)).claims] == [True, True]


@pytest.mark.parametrize(
    "text", ["{", "{}", '{"format_version": 2}', "[1]", "plain", '{"format_version": 1, "claims": 3}']
)
def test_what_is_neither(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    (found,) = errors_of(lambda: read_recorded(path))
    assert found.code == ("CS558" if text.startswith("{") else "CS551")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert [d.code for d in errors_of(lambda: read_recorded(tmp_path / "none.json"))] == ["CS558"]


def test_a_lock_that_was_edited(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    path.write_text(render_lock(LOCK, "x").replace("0.88", "0.89"), encoding="utf-8")
    assert [d.code for d in errors_of(lambda: read_recorded(path))] == ["CS551"]
