"""The command line as a person or a CI job meets it, run as a process of its own where a start of its own matters."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from circuitspec.cli import main
from circuitspec.hypothesis_file.starter_file import starter_text
from tests.waiting import without_progress

ROOT = Path(__file__).parents[2]
TINY = ROOT / "hypotheses" / "ioi-tiny.circuit.yaml"


def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "circuitspec", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=300,
        check=False,
    )


def called(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The same in this process, which has the libraries loaded. What the command does not catch is raised."""
    done = CliRunner().invoke(main, [*map(str, arguments)], prog_name="circuitspec", catch_exceptions=False)
    return subprocess.CompletedProcess(["circuitspec", *arguments], done.exit_code, done.stdout, done.stderr)


def edited(tmp_path: Path, *changes: tuple[str, str]) -> Path:
    """The shipped hypothesis with some of its text replaced."""
    text = TINY.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "edited.circuit.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.nightly
def test_verify_supports_the_shipped_hypothesis(tmp_path: Path) -> None:
    out = tmp_path / "results"
    ran = run("verify", TINY, "--output-dir", out)
    assert ran.returncode == 0, ran.stderr
    assert "SUPPORTED  sufficient   recovered logit_diff" in ran.stdout
    assert "REFUTED" not in ran.stdout
    assert without_progress(ran.stderr) == ""  # no bar without a terminal, and nothing of the libraries
    experiments = pd.read_parquet(out / "experiments.parquet").set_index("experiment")
    prompts = pd.read_parquet(out / "prompts.parquet")
    assert {"clean", "all ablated", "circuit", "circuit ablated"} <= set(experiments.index)
    assert len(prompts) == 100 * len(experiments)
    of_circuit = prompts[prompts["experiment"] == "circuit"]
    assert experiments.loc["circuit", "logit_diff"] == pytest.approx(of_circuit["logit_diff"].mean(), rel=1e-12)


def test_verify_as_json() -> None:
    ran = called("verify", TINY, "--format", "json", "--negatives", "off")
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["format_version"] == 1
    assert found["hypothesis"]["name"] == "ioi-tiny"
    assert set(found["hypothesis"]) == {"name", "digest"}
    assert {"id", "revision", "dtype", "family"} <= set(found["model"])
    assert found["verdict"] == "SUPPORTED"
    assert {"claim", "status", "value", "ci", "bound", "n"} <= set(found["claims"][0])
    low, high = found["claims"][0]["ci"]
    assert low <= found["claims"][0]["value"] <= high


@pytest.mark.nightly
def test_the_batch_size_does_not_change_the_numbers() -> None:
    values = []
    for size in ("7", "100"):
        ran = called("verify", TINY, "--format", "json", "--negatives", "off", "--batch-size", size)
        values.append([claim["value"] for claim in json.loads(ran.stdout)["claims"]])
    assert values[0] == pytest.approx(values[1], abs=1e-5)


def test_a_refuted_claim_has_its_own_exit_code(tmp_path: Path) -> None:
    ran = called("verify", edited(tmp_path, ("at_least: 0.8, at_most: 1.2", "at_most: 0.1")), "--negatives", "off")
    assert ran.returncode == 1, ran.stderr
    assert re.search(r"^REFUTED +sufficient", ran.stdout, re.MULTILINE)


def test_a_task_that_the_model_does_not_do_is_not_verified(tmp_path: Path) -> None:
    path = edited(tmp_path, ('answer: " {IO}"', 'answer: " {S1}"'), ('wrong: " {S1}"', 'wrong: " {IO}"'))
    ran = called("verify", path)
    assert ran.returncode == 5
    assert "CS504" in ran.stderr
    assert ran.stdout == ""


def test_what_cannot_be_run_is_said_before_the_run(tmp_path: Path) -> None:
    path = edited(tmp_path, ("level: node", "level: edge"))
    ran = called("compile", path, "--emit", tmp_path / "bundle")
    assert ran.returncode == 5
    assert "error[CS500]: edge level is not written to a bundle" in ran.stderr
    assert not (tmp_path / "bundle").exists()


def test_an_invalid_file(tmp_path: Path) -> None:
    path = edited(tmp_path, ("templates:", "template:"))
    for command in ("check", "verify", "plan"):
        ran = called(command, path)
        assert ran.returncode == 3
        assert "edited.circuit.yaml:" in ran.stderr
        assert "did you mean templates" in ran.stderr
        assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("command", ["check", "plan", "verify"])
def test_a_file_that_is_not_there(command: str, tmp_path: Path) -> None:
    ran = called(command, tmp_path / "nothing.circuit.yaml")
    assert ran.returncode == 3
    assert "nothing.circuit.yaml" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    ran = called("verify", edited(tmp_path, ("zoo:ioi-tiny", "./no-such-model")))
    assert ran.returncode == 5
    assert "error[CS3" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_corrupt_weights_file(tmp_path: Path) -> None:
    from circuitspec.models.zoo import zoo_path

    broken = tmp_path / "broken"
    broken.mkdir()
    for file in zoo_path("ioi-tiny").iterdir():
        content = file.read_bytes()
        (broken / file.name).write_bytes(content[: len(content) // 2] if file.suffix == ".safetensors" else content)
    ran = called("verify", edited(tmp_path, ("zoo:ioi-tiny", "./broken")))
    assert ran.returncode == 5
    assert "error[CS3" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_component_that_the_model_does_not_have(tmp_path: Path) -> None:
    path = edited(tmp_path, ("free: [m*]", "free: [m*, a9.h0]"))
    for command in ("check", "plan", "verify"):
        ran = called(command, path)
        assert ran.returncode == 3
        assert "CS220" in ran.stderr
        assert "a9.h0" in ran.stderr


def test_plan_prints_what_would_be_run() -> None:
    ran = called("plan", TINY)
    assert ran.returncode == 0, ran.stderr
    for said in ("all ablated", "circuit ablated", "mean_per_template", "declared positions", "forwards", "MiB"):
        assert said in ran.stdout


def test_init_writes_a_file_that_checks_and_never_overwrites(tmp_path: Path) -> None:
    assert run("init", cwd=tmp_path).returncode == 0
    written = tmp_path / "hypothesis.circuit.yaml"
    assert written.read_text(encoding="utf-8") == starter_text()
    assert run("check", written).returncode == 0
    written.write_text("mine", encoding="utf-8")
    again = run("init", cwd=tmp_path)
    assert again.returncode == 2
    assert "--force" in again.stderr
    assert written.read_text(encoding="utf-8") == "mine"


def test_schema_and_explain() -> None:
    assert json.loads(called("schema").stdout)["$schema"].endswith("2020-12/schema")
    explained = called("explain", "cs112")
    assert explained.returncode == 0
    assert "9.10" in explained.stdout
    unknown = called("explain", "CS999")
    assert unknown.returncode == 2
    assert "CS999" in unknown.stderr


def test_usage_errors() -> None:
    assert called("verify").returncode == 2
    assert called("verify", TINY, "--format", "xml").returncode == 2
    assert called("no-such-command").returncode == 2


LIGHT = """
import sys
from circuitspec.cli import main
try:
    main({arguments!r})
except SystemExit as end:
    code = end.code
heavy = sorted({{"torch", "pyvene", "transformers", "scipy", "scipy.stats", "pandas"}} & set(sys.modules))
print("code", code, "heavy", heavy, file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        pytest.param(["--help"], [], marks=pytest.mark.nightly),
        pytest.param(["check", str(TINY)], [], marks=pytest.mark.nightly),
        (["check", str(ROOT / "hypotheses" / "ioi-gpt2-small.circuit.yaml")], []),
        pytest.param(["schema"], [], marks=pytest.mark.nightly),
        pytest.param(["explain", "CS112"], [], marks=pytest.mark.nightly),
        (["explain", "CS426"], ["scipy"]),
        pytest.param(["plan", str(TINY)], ["scipy"], marks=pytest.mark.nightly),
        (["plan", str(ROOT / "hypotheses" / "toys" / "nobel-edges.circuit.yaml")], ["scipy"]),
    ],
    ids=["help", "check", "check-published", "schema", "explain", "explain-warning", "plan", "plan-by-token"],
)
def test_light_commands_load_no_heavy_library(arguments: list[str], allowed: list[str]) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", LIGHT.format(arguments=arguments)], capture_output=True, text=True, check=False
    )
    (said,) = [line for line in ran.stderr.splitlines() if line.startswith("code")]
    assert said.startswith("code 0 ") or said.startswith("code None ")
    assert set(eval(said.split("heavy ")[1])) <= set(allowed)  # noqa: S307


@pytest.mark.parametrize("arguments", [["--help"], ["check", str(TINY)]])
def test_light_commands_answer_within_a_second_of_processor_time(arguments: list[str]) -> None:
    """Processor time, not wall time: other work on the machine does not count."""
    before = os.times()
    assert run(*arguments).returncode == 0
    after = os.times()
    assert after.children_user + after.children_system - before.children_user - before.children_system < 1.0


INTERRUPTIBLE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell starts with it ignored
from circuitspec.cli import main
main()
"""


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks at the files that a process has mapped")
@pytest.mark.nightly
def test_interrupting_a_run(tmp_path: Path) -> None:
    path = edited(tmp_path, ("prompts: 100", "prompts: 2000"))  # a run of many seconds, however fast the machine
    arguments = ["verify", str(path), "--negatives", "exact", "--output-dir", str(tmp_path / "out")]
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    mapped = Path(f"/proc/{process.pid}/maps")
    deadline = time.monotonic() + 120
    while "ioi-tiny/model.safetensors" not in mapped.read_text():  # then the weights are read, and the run begins
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    assert "interrupted" in err
    assert not list((tmp_path / "out").glob("*"))


def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    ran = called("verify", TINY, "--output-dir", tmp_path / "file" / "results")
    assert ran.returncode == 2
    assert "cannot be made" in ran.stderr


def test_a_package_that_is_not_installed_is_no_mistake_of_the_file(tmp_path: Path) -> None:
    path = edited(tmp_path, ("zoo:ioi-tiny", "package:no_such_package/model.gguf"))
    checked = called("check", path)
    assert checked.returncode == 0, checked.stderr
    assert "not at hand" in checked.stdout
    ran = called("verify", path)
    assert ran.returncode == 5
    assert "CS303" in ran.stderr
    assert "pip install" in ran.stderr


@pytest.mark.nightly
def test_every_hypothesis_in_the_repository_checks() -> None:
    files = sorted((ROOT / "hypotheses").rglob("*.circuit.yaml"))
    assert len(files) >= 3
    ran = run("check", *files)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count(": ok") == len(files)
