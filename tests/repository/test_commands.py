"""`lock`, `verify --locked`, `verify --report`, `diff` and `check --format github` as a person meets them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner, Result

from circuitspec import __version__
from circuitspec.cli import main
from circuitspec.reports.machine.json_document import render_json
from circuitspec.repository.lock_file import read_lock, write_lock
from tests.repository.support import Run, edited, replaced
from tests.waiting import without_progress


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def locked(run: Run, copy: Path) -> Path:
    """The hypothesis with its lock beside it."""
    write_lock(copy.with_suffix(".lock"), run.lock, copy.name)
    return copy


def test_a_lock_is_written_beside_the_file(run: Run, copy: Path) -> None:
    done = call("lock", copy)
    assert done.exit_code == 0, done.output
    assert "SUPPORTED  sufficient   ablating everything outside the circuit: recovered logit_diff" in done.stdout
    found = read_lock(copy.with_suffix(".lock"))
    assert found.damage == ()
    assert found.lock.model_dump(exclude={"claims"}) == run.lock.model_dump(exclude={"claims"})
    for old, new in zip(run.lock.claims, found.lock.claims, strict=True):
        assert new.value == pytest.approx(old.value, abs=1e-6)


def test_verify_locked_then_every_format_in_one_run(locked: Path, tmp_path: Path) -> None:
    out = tmp_path / "made" / "here"
    reports = [f"--report={name}={out / name}" for name in ("text", "json", "github", "junit", "markdown", "badge")]
    done = call("verify", locked, "--locked", "--negatives", "off", *reports)
    assert done.exit_code == 0, done.output
    assert without_progress(done.stderr) == ""
    texts = {path.name: path.read_text(encoding="utf-8") for path in out.iterdir()}
    assert texts["text"] == done.stdout
    assert json.loads(texts["json"])["verdict"] == "SUPPORTED"
    assert ET.fromstring(texts["junit"]).get("failures") == "0"
    assert texts["github"].count("::notice ") == 2
    assert texts["markdown"].startswith("### ✅ ioi\\-tiny: SUPPORTED")
    assert json.loads(texts["badge"])["color"] == "brightgreen"


def test_drift_that_is_known_beforehand(locked: Path) -> None:
    edited(locked, ("[a2.h2]", "[a2.h1]"))
    done = call("verify", locked, "--locked")
    assert done.exit_code == 6
    assert done.stdout == ""
    line = 1 + next(i for i, text in enumerate(locked.read_text().splitlines()) if "[a2.h1]" in text)
    assert f"ioi.circuit.yaml:{line}:26: error[CS552]: `circuit.groups.inhibition.nodes[0]` changed" in done.stderr
    assert "a2.h2 -> a2.h1" in done.stderr
    annotated = call("verify", locked, "--locked", "--format", "github")
    assert annotated.exit_code == 6
    assert annotated.stdout.startswith("::error file=")
    assert f",line={line},col=26," in annotated.stdout


def test_drift_is_known_without_torch(locked: Path) -> None:
    edited(locked, ("[a2.h2]", "[a2.h1]"))
    code = (
        "import sys\nfrom circuitspec.cli import main\n"
        f"try: main(['verify', '--locked', {str(locked)!r}])\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "6 False\n"
    assert "CS552" in ran.stderr


def test_a_number_that_moved_fails_with_the_report(run: Run, locked: Path) -> None:
    """As if the lock had been written with another number: its checksums hold, so the run is what differs."""
    value = run.lock.claims[1].value
    assert value is not None
    other = run.lock.claims[1].model_copy(update={"value": value + 0.01})
    lock = run.lock.model_copy(update={"claims": (run.lock.claims[0], other)})
    write_lock(locked.with_suffix(".lock"), lock, locked.name)
    out = locked.parent / "results"
    done = call("verify", locked, "--locked", "--negatives", "off", "--output-dir", out)
    assert done.exit_code == 6
    assert "SUPPORTED  necessary" in done.stdout
    assert "2 supported, not as locked" in done.stdout
    again = {name: call("report", out, "--format", name).stdout for name in ("text", "json", "html", "markdown")}
    assert again["text"] == done.stdout
    assert json.loads(again["json"])["verdict"] == "SUPPORTED"
    assert [one["code"] for one in json.loads(again["json"])["drift"]] == ["CS556"]
    assert "<title>ioi-tiny: SUPPORTED, not as locked</title>" in again["html"]
    assert again["markdown"].startswith("### ❌ ioi\\-tiny: SUPPORTED, not as locked\n")
    assert "error[CS556]: claim 2 (necessary, logit_diff) is not as it was locked: recovered" in done.stderr
    assert f"{value + 0.01:.4f} [" in done.stderr
    assert f"-> {value:.4f} [" in done.stderr


def test_another_version_alone_is_a_note(run: Run, locked: Path) -> None:
    packages = {**run.lock.environment.packages, "torch": "2.4.0"}
    environment = run.lock.environment.model_copy(update={"packages": packages})
    lock = run.lock.model_copy(update={"environment": environment})
    write_lock(locked.with_suffix(".lock"), lock, locked.name)
    done = call("verify", locked, "--locked", "--negatives", "off")
    assert done.exit_code == 0
    assert "note[CS555]: torch changed since it was locked: 2.4.0 -> " in done.stderr


def test_a_result_of_another_version_of_circuitspec_names_it(run: Run, locked: Path) -> None:
    """Its numbers may be made otherwise: that is the cause, and stands beside the claim that moved."""
    packages = {**run.lock.environment.packages, "circuitspec": "0.0.1"}
    environment = run.lock.environment.model_copy(update={"packages": packages})
    (claim, *others) = run.lock.claims
    assert claim.value is not None
    moved = claim.model_copy(update={"value": claim.value + 1, "ci": (claim.value + 0.9, claim.value + 1.1)})
    lock = run.lock.model_copy(update={"environment": environment, "claims": (moved, *others)})
    write_lock(locked.with_suffix(".lock"), lock, locked.name)
    done = call("verify", locked, "--locked", "--negatives", "off")
    assert done.exit_code == 6
    assert f"note[CS555]: circuitspec changed since it was locked: 0.0.1 -> {__version__}" in done.stderr
    assert "error[CS556]: claim 1 (sufficient, logit_diff) is not as it was locked: recovered" in done.stderr
    assert f"(circuitspec 0.0.1 -> {__version__})" in done.stderr


def test_there_is_no_lock(copy: Path) -> None:
    done = call("verify", copy, "--locked")
    assert done.exit_code == 3
    assert "error[CS550]" in done.stderr
    assert "circuitspec lock FILE" in done.stderr


def test_a_digit_of_the_lock(locked: Path) -> None:
    path = locked.with_suffix(".lock")
    text = path.read_text(encoding="utf-8")
    path.write_text(replaced(text, ("n: 24", "n: 25")), encoding="utf-8")
    done = call("verify", locked, "--locked")
    assert done.exit_code == 6
    assert "ioi.circuit.lock:" in done.stderr
    assert "claim 1 (sufficient, logit_diff) was changed after the lock was written" in done.stderr
    assert "claim 2 (necessary, logit_diff) was changed after the lock was written" in done.stderr


def test_a_result_of_the_same_environment_is_held_to_rounding(run: Run, locked: Path, tmp_path: Path) -> None:
    """As `verify --locked` would; a result that does not say with what it was run is held to the intervals."""
    lock, result = locked.with_suffix(".lock"), tmp_path / "result.json"
    assert call("verify", locked, "--negatives", "off", f"--report=json={result}").exit_code == 0
    assert call("diff", lock, result).exit_code == 0
    document = json.loads(result.read_text(encoding="utf-8"))
    assert document["environment"] == run.lock.environment.model_dump()
    document["claims"][0]["value"] += 0.001
    result.write_text(json.dumps(document), encoding="utf-8")
    moved = call("diff", lock, result)
    assert moved.exit_code == 1
    assert "more than rounding" in moved.stdout
    del document["environment"]
    result.write_text(json.dumps(document), encoding="utf-8")
    assert call("diff", lock, result).exit_code == 0


def test_results_without_claims_do_not_agree(run: Run, tmp_path: Path) -> None:
    document = json.loads(render_json(run.outcome.verification))
    file = tmp_path / "result.json"
    file.write_text(json.dumps({**document, "claims": []}), encoding="utf-8")
    done = call("diff", file, file)
    assert (done.exit_code, done.stdout) == (5, "")
    assert "error[CS564]: neither " in done.stderr


def test_diff(run: Run, locked: Path, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    result.write_text(render_json(run.outcome.verification), encoding="utf-8")
    same = call("diff", locked.with_suffix(".lock"), result)
    assert (same.exit_code, same.stderr) == (0, "")
    assert same.stdout.endswith("2 claims agree\n")
    result.write_text(result.read_text(encoding="utf-8").replace('"SUPPORTED"', '"REFUTED"'), encoding="utf-8")
    other = call("diff", locked.with_suffix(".lock"), result)
    assert other.exit_code == 1
    assert "status SUPPORTED -> REFUTED" in other.stdout
    assert call("diff", result, tmp_path / "none").exit_code == 3


@pytest.mark.parametrize("report", ["yaml=x", "json", "json=", "=x"])
def test_a_report_in_no_known_format(copy: Path, report: str) -> None:
    done = call("verify", copy, "--report", report)
    assert done.exit_code == 2
    assert "FORMAT=PATH" in done.stderr


def test_a_report_that_cannot_be_written_costs_no_other(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    done = call(
        "verify", copy, "--negatives", "off", f"--report=json={tmp_path}/file/x", f"--report=badge={tmp_path}/b.json"
    )
    assert done.exit_code == 5
    assert "error[CS513]: the report cannot be written" in done.stderr
    assert (tmp_path / "b.json").is_file()
    assert "SUPPORTED  sufficient" in done.stdout


def test_check_annotates(copy: Path) -> None:
    text = copy.read_text(encoding="utf-8")
    copy.write_text(replaced(text, ("[a2.h2]", "[a2.h99]")), encoding="utf-8")
    done = call("check", copy, "--format", "github")
    assert done.exit_code == 3
    assert done.stdout.startswith("::error file=")
    assert "CS220" in done.stdout
    assert "error[CS220]" in done.stderr
