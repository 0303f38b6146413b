"""`verify` with a store: repeated by another process, elsewhere, and nowhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from circuitspec.cli import main

TINY = Path(__file__).parents[2] / "hypotheses" / "ioi-tiny.circuit.yaml"


def verify(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CIRCUITSPEC_")}
    return subprocess.run(
        [sys.executable, "-m", "circuitspec", "verify", str(TINY), "--negatives", "off", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**kept, **environment},
        timeout=300,
        check=False,
    )


def called(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """The same in this process, which has the libraries loaded. What the command does not catch is raised."""
    unset = {name: None for name in os.environ if name.startswith("CIRCUITSPEC_")}
    words = ["verify", str(TINY), "--negatives", "off", *map(str, arguments)]
    done = CliRunner().invoke(main, words, catch_exceptions=False, env={**unset, **environment})
    return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)


def found(ran: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert ran.returncode == 0, ran.stderr
    document: dict[str, Any] = json.loads(ran.stdout)
    return document


@pytest.mark.nightly
def test_a_repeated_verification_is_the_same_and_runs_nothing(tmp_path: Path) -> None:
    first, second = (found(one("--format", "json", CIRCUITSPEC_CACHE=str(tmp_path))) for one in (verify, called))
    assert first["cost"]["stored"] == 0
    assert second["cost"]["stored"] == second["cost"]["experiments"] == first["cost"]["experiments"]
    assert second["cost"]["forwards"] == 0
    assert {**first, "cost": None} == {**second, "cost": None}
    assert list((tmp_path / "records").glob("*/*.records"))
    text = called(CIRCUITSPEC_CACHE=str(tmp_path)).stdout
    assert f"({first['cost']['experiments']} experiments ({first['cost']['experiments']} stored), 0 forwards" in text


def test_the_store_is_where_it_is_asked_for_or_nowhere(tmp_path: Path) -> None:
    cache = {"CIRCUITSPEC_CACHE": str(tmp_path / "cache")}
    found(called("--format", "json", "--no-store", **cache))
    assert not (tmp_path / "cache").exists()
    found(called("--format", "json", "--store", tmp_path / "here", **cache))
    assert not (tmp_path / "cache").exists()
    again = found(called("--format", "json", **cache, CIRCUITSPEC_STORE=str(tmp_path / "here")))
    assert again["cost"]["stored"] == again["cost"]["experiments"]


def test_the_command_line_holds_against_the_environment(tmp_path: Path) -> None:
    nowhere = {"CIRCUITSPEC_CACHE": str(tmp_path / "cache"), "CIRCUITSPEC_NO_STORE": "1"}
    found(called("--format", "json", "--store", tmp_path / "here", **nowhere))
    again = found(called("--format", "json", "--store", tmp_path / "here", **nowhere))
    assert again["cost"]["stored"] == again["cost"]["experiments"] > 0
    both = found(called("--format", "json", **nowhere, CIRCUITSPEC_STORE=str(tmp_path / "here")))
    assert both["cost"]["stored"] == 0  # in the environment, nothing is kept
    without = found(called("--format", "json", "--no-store", CIRCUITSPEC_STORE=str(tmp_path / "here")))
    assert without["cost"]["stored"] == 0
    assert not (tmp_path / "cache").exists()
    for command in (["verify", str(TINY)], ["explore", str(TINY)]):
        ran = CliRunner().invoke(main, [*command, "--store", str(tmp_path / "here"), "--no-store"])
        assert ran.exit_code == 2
        assert "--store DIR keeps what is measured, and --no-store keeps nothing: give one of them" in ran.stderr


def test_a_store_that_cannot_be_written_is_said_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    ran = called("--store", tmp_path / "file" / "store")
    assert ran.returncode == 5
    assert "error[CS545]" in ran.stderr
