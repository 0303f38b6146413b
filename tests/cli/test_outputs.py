"""Outputs that would replace what a command reads: refused before anything is run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from circuitspec.cli import main
from circuitspec.hypothesis_file.yaml.yaml_writer import write_yaml

ROOT = Path(__file__).parents[2]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hypothesis that names a prompts file, and one that names a list and a direction."""
    monkeypatch.chdir(tmp_path)
    row = {"clean": "Then, Mary and John", "corrupt": "Then, Paul and John", "answers": [" Mary"], "wrong": [" John"]}
    (tmp_path / "prompts.jsonl").write_text(json.dumps(row))
    (tmp_path / "prompts.csv").write_text("clean,corrupt\na,b\n")
    (tmp_path / "names.txt").write_text("Mary\nJohn\nPaul\n")
    (tmp_path / "d.txt").write_text("1 " * 64)
    base = {
        "circuitspec": 1,
        "name": "x",
        "model": {"id": "zoo:ioi-tiny"},
        "circuit": {"groups": {"g": {"nodes": ["a2.h2"]}}},
        "ablation": {"value": "resample", "from": "corrupt", "positions": "all"},
        "claims": [{"sufficient": {"metric": "logit_diff", "at_least": 0.5}}],
    }
    for name in ("jsonl", "csv"):
        (tmp_path / f"{name}.circuit.yaml").write_text(write_yaml({**base, "task": {"file": f"prompts.{name}"}}))
    task = {
        "templates": ["Then, {A} and {B} went. {B} gave a ring to"],
        "slots": {"A": "$names", "B": "$names"},
        "lists": {"names": "names.txt"},
        "answer": " {A}",
        "wrong": " {B}",
        "corruptions": {"corrupt": {"A": "$names"}},
        "positions": {"END": "last"},
        "prompts": 3,
    }
    claims = [{"sufficient": {"metric": "projection(r2 @ END, d.txt)", "at_least": 0.5}}]
    (tmp_path / "list.circuit.yaml").write_text(write_yaml({**base, "task": task, "claims": claims}))
    (tmp_path / "linked.html").symlink_to("jsonl.circuit.yaml")
    os.link(tmp_path / "prompts.jsonl", tmp_path / "hard.html")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["verify", "jsonl.circuit.yaml", "--html", "jsonl.circuit.yaml"], "--html would replace"),
        (["verify", "jsonl.circuit.yaml", "--html", "./x/../jsonl.circuit.yaml"], "which is FILE"),
        (["verify", "jsonl.circuit.yaml", "--html", "linked.html"], "which is FILE"),
        (["verify", "jsonl.circuit.yaml", "--html", "hard.html"], "which is the prompts file"),
        (["verify", "jsonl.circuit.yaml", "--html", "jsonl.circuit.lock"], "which is its lock"),
        (["verify", "jsonl.circuit.yaml", "--report", "junit=prompts.jsonl"], "which is the prompts file"),
        (["verify", "list.circuit.yaml", "--report", "json=names.txt"], "which is the file of the list names"),
        (["verify", "list.circuit.yaml", "--report", "json=d.txt"], "which is a direction"),
        (["verify", "csv.circuit.yaml", "--output-dir", "."], "--output-dir would replace prompts.csv"),
        (["verify", "jsonl.circuit.yaml", "--html", "a", "--report", "json=a"], "which is --report json"),
        (["verify", "jsonl.circuit.yaml", "--html", "o/report.json", "--output-dir", "o"], "which is --output-dir"),
        (["explore", "jsonl.circuit.yaml", "--html", "jsonl.circuit.yaml"], "which is FILE"),
        (["explore", "jsonl.circuit.yaml", "--draft", "jsonl.circuit.yaml"], "which is FILE"),
        (["explore", "jsonl.circuit.yaml", "--draft", "prompts.jsonl"], "which is the prompts file"),
        (["explore", "jsonl.circuit.yaml", "--draft", "a", "--html", "a"], "which is --draft"),
        (["explore", "jsonl.circuit.yaml", "--draft", "a", "--draft-helpful", "./a"], "which is --draft"),
        (["export", "jsonl.circuit.yaml", "--as", "eap", "-o", "jsonl.circuit.yaml", "--force"], "which is FILE"),
        (
            ["export", "jsonl.circuit.yaml", "--as", "eap", "-o", "prompts.jsonl", "--force"],
            "which is the prompts file",
        ),
        (["import", "d.txt", "--as", "eap", "-o", "d.txt", "--force"], "which is FILE"),
        (["import", "d.txt", "--as", "eap", "-o", "prompts.csv", "--prompts", "prompts.csv", "--force"], "--prompts"),
        (["report", "d.txt", "--html", "d.txt"], "which is RESULTS"),
    ],
)
def test_what_is_read_is_not_replaced(arguments: list[str], said: str, folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "x").mkdir()
    ran = run(*arguments)
    assert ran.exit_code == 2, ran.output
    assert said in " ".join(ran.stderr.split())
    assert "give it a name of its own" in " ".join(ran.stderr.split())
    (folder / "x").rmdir()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_several_reports_may_go_to_one_terminal(folder: Path) -> None:
    ran = run("verify", "jsonl.circuit.yaml", "--report", "json=/dev/null", "--html", "/dev/null", "--negatives", "off")
    assert ran.exit_code in (0, 1, 4), ran.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["report", "pipe"],
        pytest.param(["report", "pipes"], marks=pytest.mark.nightly),
        pytest.param(["diff", "pipe", "pipe"], marks=pytest.mark.nightly),
        ["check", "pipe"],
        ["import", "pipe", "--as", "eap", "-o", "x"],
    ],
)
def test_a_pipe_is_refused_rather_than_waited_for(arguments: list[str], folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "pipes").mkdir()
    os.mkfifo(folder / "pipes" / "report.json")
    ran = subprocess.run(
        [sys.executable, "-m", "circuitspec", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert ran.returncode in (3, 5)
    assert "it is a pipe, not a regular file" in ran.stderr
