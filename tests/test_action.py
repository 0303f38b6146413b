"""The GitHub action, its shell steps run here, and the pre-commit hook."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from circuitspec.cli import main
from tests.repository.support import edited
from tests.waiting import without_progress

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "paper-repo"


def parsed(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))


ACTION = parsed(ROOT / "action.yml")


@dataclass(frozen=True)
class Step:
    returncode: int
    output: str
    summary: str
    outputs: dict[str, str]


class Runner:
    """What of GitHub's runner the steps rely on: inputs in the environment, a workspace, and files to write to."""

    def __init__(self, folder: Path, **inputs: str) -> None:
        known = {name: given.get("default", "") for name, given in ACTION["inputs"].items()}
        assert set(inputs) <= set(known)
        self.inputs = {**known, **inputs}
        self.workspace = folder / "workspace"
        self.workspace.mkdir()
        self.temp = folder / "temp"
        self.temp.mkdir()
        self.programs = Path(sys.executable).parent

    def run(self, name: str) -> Step:
        (step,) = [step for step in ACTION["runs"]["steps"] if step.get("name") == name]
        summary, output = self.temp / "summary", self.temp / f"{name}-output"
        summary.touch()
        output.touch()
        environment = {
            **os.environ,
            "PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "GITHUB_WORKSPACE": str(self.workspace),
            "GITHUB_STEP_SUMMARY": str(summary),
            "GITHUB_OUTPUT": str(output),
            "RUNNER_TEMP": str(self.temp),
            **{key: self.evaluated(value) for key, value in step["env"].items()},
        }
        assert step["shell"] == "bash"
        ran = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            capture_output=True,
            text=True,
            env=environment,
            cwd=self.workspace / self.evaluated(step["working-directory"]),
            check=False,
        )
        outputs = dict(line.split("=", 1) for line in output.read_text().splitlines())
        return Step(
            ran.returncode, ran.stdout + without_progress(ran.stderr), summary.read_text(encoding="utf-8"), outputs
        )

    def evaluated(self, text: str) -> str:
        """`${{ inputs.NAME }}` filled in, the one kind of expression that these steps use."""
        filled = re.sub(r"\$\{\{ inputs\.([a-z-]+) \}\}", lambda match: self.inputs[match[1]], text)
        assert "${{" not in filled
        return filled


def test_the_form_of_the_action() -> None:
    assert set(ACTION) == {"name", "description", "branding", "inputs", "outputs", "runs"}
    assert ACTION["runs"]["using"] == "composite"
    for given in ACTION["inputs"].values():
        assert given["description"]
        assert isinstance(given["default"], str)
    steps = ACTION["runs"]["steps"]
    for step in steps:
        assert ("run" in step) != ("uses" in step)
        assert "${{" not in step.get("run", "")  # inputs come through the environment: none can be a command
    ids = {step.get("id") for step in steps}
    for given in ACTION["outputs"].values():
        (step_id,) = re.findall(r"\$\{\{ steps\.([a-z]+)\.outputs\.[a-z-]+ \}\}", given["value"])
        assert step_id in ids
    (install,) = [step for step in steps if step.get("name") == "install circuitspec"]
    assert shlex.split(install["run"]) == [
        "python", "-m", "pip", "install", "--quiet", "--constraint", "$ACTION/constraints.txt", "$ACTION",
    ]  # fmt: skip
    assert (ROOT / "constraints.txt").is_file()


@pytest.mark.nightly
def test_files_are_checked_verified_and_summed_up(tmp_path: Path) -> None:
    """Two files, in folders with a space in the name and deeper down: one drifted from its lock, one is supported."""
    runner = Runner(
        tmp_path,
        files="hypo theses/*.circuit.yaml\nmore/**/*.circuit.yaml",
        verify="true",
        locked="true",
        **{"working-directory": "paper"},
    )
    paper = runner.workspace / "paper"
    for folder in ("hypo theses", "more/deep"):
        shutil.copytree(EXAMPLE / "hypotheses", paper / folder)
    edited(paper / "hypo theses" / "ioi.circuit.yaml", ("[a2.h2]", "[a2.h1]"))
    checked = runner.run("check")
    assert checked.returncode == 0, checked.output
    assert checked.output.count(": ok") == 2
    verified = runner.run("verify")
    assert verified.returncode == 6
    assert verified.outputs == {"exit-code": "6", "results": "circuitspec-results"}
    (error,) = [line for line in verified.output.splitlines() if line.startswith("::error ")]
    assert error.startswith("::error file=paper/hypo theses/ioi.circuit.yaml,line=18,col=26,")
    assert "a2.h2 -> a2.h1" in error
    notices = [line for line in verified.output.splitlines() if line.startswith("::notice ")]
    deep = paper / "more" / "deep" / "ioi.circuit.yaml"
    lines = deep.read_text(encoding="utf-8").splitlines()
    at = [
        number for number, line in enumerate(lines, start=1) if line.startswith(("  - sufficient:", "  - necessary:"))
    ]
    assert len(at) == 2
    of_claims = [line for line in notices if "file=" in line]  # the others are about versions
    for line, number, kind in zip(of_claims, at, ("sufficient", "necessary"), strict=True):
        assert line.startswith(f"::notice file=paper/more/deep/ioi.circuit.yaml,line={number},col=5,endColumn=")
        assert f"::{kind}: recovered logit_diff " in line
    failed, supported = re.findall("^### (.*)$", verified.summary, re.MULTILINE)
    assert failed == "❌ `hypo theses/ioi.circuit.yaml` was not verified (exit code 6)"
    assert supported == "✅ ioi\\-four\\-layers: SUPPORTED"
    results = paper / "circuitspec-results"
    written = {path.name for path in (results / "more" / "deep" / "ioi").iterdir()}
    assert written == {"report.txt", "report.html", "result.json", "junit.xml", "summary.md", "badge.json"}
    assert json.loads((results / "more" / "deep" / "ioi" / "badge.json").read_text()) == {
        "schemaVersion": 1,
        "label": "ioi-four-layers",
        "message": "2 of 2 claims supported",
        "color": "brightgreen",
    }
    assert list((results / "hypo theses" / "ioi").iterdir()) == []


@pytest.mark.parametrize("files", ["none/*.circuit.yaml", "", "$(touch made)", "x; touch made"])
def test_files_that_are_not_there(tmp_path: Path, files: str) -> None:
    runner = Runner(tmp_path, files=files)
    checked = runner.run("check")
    assert checked.returncode in (2, 3)
    assert "::error" in checked.output
    assert not (runner.workspace / "made").exists()


@pytest.mark.parametrize("files", ["{0}\nnone/*.circuit.yaml\n", "100%/*.yaml\n{0}", "{0}\n\n  \n*/none.yaml"])
def test_a_pattern_that_matches_nothing_fails_beside_one_that_does(tmp_path: Path, files: str) -> None:
    runner = Runner(tmp_path, files=files.format("hypotheses/*.circuit.yaml"))
    shutil.copytree(EXAMPLE / "hypotheses", runner.workspace / "hypotheses")
    checked = runner.run("check")
    assert checked.returncode == 2
    pattern = next(line for line in files.split("\n") if "{0}" not in line and line.strip())
    assert checked.output.splitlines() == [
        f"::error title=circuitspec::no file matches {pattern.replace('%', '%25')}, of the input `files`"
    ]
    runner.inputs["files"] = "\n\nhypotheses/*.circuit.yaml\n"
    assert runner.run("check").returncode == 0


def test_no_two_files_share_a_folder_of_results(tmp_path: Path) -> None:
    names = (
        "hypotheses/a-b.circuit.yaml", "hypotheses/a/b.circuit.yaml", "hypotheses/a--b.circuit.yaml",
        "../x/h.circuit.yaml", "x/h.circuit.yaml", "%2E%2E/x/h.circuit.yaml", "up.../h.circuit.yaml",
        "h.yaml", "h.yaml.circuit.yaml", "h.circuit.yaml", "h/.circuit.yaml", "h%.circuit.yaml",
        f"{tmp_path}/workspace/paper/x/h.circuit.yaml",
    )  # fmt: skip
    runner = Runner(tmp_path, files="\n".join(names), verify="true", **{"working-directory": "paper"})
    paper = runner.workspace / "paper"
    paper.mkdir()
    runner.programs = tmp_path / "programs"
    runner.programs.mkdir()
    program = runner.programs / "circuitspec"  # which writes what file each folder is for
    program.write_text(
        '#!/usr/bin/env bash\nfor a in "$@"; do case $a in badge=*) to=${a#badge=};; esac; done\n'
        'if [[ $1 == verify ]]; then echo "${@: -1}" >> "$to"; fi\n'
    )
    program.chmod(0o755)
    assert runner.run("check").returncode == 0
    verified = runner.run("verify")
    assert verified.returncode == 0, verified.output
    badges = list(tmp_path.rglob("badge.json"))
    assert all(badge.is_relative_to(paper / "circuitspec-results") for badge in badges)
    assert sorted(badge.read_text().removesuffix("\n") for badge in badges) == sorted(names)  # one a folder


def test_the_pre_commit_hook() -> None:
    (hook,) = parsed(ROOT / ".pre-commit-hooks.yaml")
    assert {"id", "name", "entry", "language", "files"} <= set(hook)
    assert hook["id"] == "circuitspec-check"
    assert re.search(hook["files"], "hypotheses/ioi.circuit.yaml")
    assert not re.search(hook["files"], "hypotheses/ioi.circuit.yaml.orig")
    assert not re.search(hook["files"], "other.yaml")
    program, *arguments = shlex.split(hook["entry"])
    assert program == "circuitspec"
    done = CliRunner().invoke(main, [*arguments, str(EXAMPLE / "hypotheses" / "ioi.circuit.yaml")])
    assert done.exit_code == 0, done.output


def test_the_example_uses_the_action_and_the_hook_as_they_are() -> None:
    workflow = parsed(EXAMPLE / ".github" / "workflows" / "circuits.yml")
    steps = workflow["jobs"]["circuits"]["steps"]
    (step,) = [step for step in steps if "circuitspec" in step.get("uses", "")]
    assert set(step["with"]) <= set(ACTION["inputs"])
    folder = EXAMPLE / step["uses"]
    assert (folder / "action.yml").read_bytes() == (ROOT / "action.yml").read_bytes(), "copy it anew"
    commands = [step.get("run", step.get("uses", "")) for step in steps]
    installed = commands.index("python -m pip install -r requirements.txt")
    assert installed < commands.index(step["uses"]) < commands.index("pytest")
    assert all(isinstance(value, str) for value in step["with"].values())
    (local,) = parsed(EXAMPLE / ".pre-commit-config.yaml")["repos"]
    (hook,) = local["hooks"]
    (ours,) = parsed(ROOT / ".pre-commit-hooks.yaml")
    assert {key: ours[key] for key in hook} == hook
