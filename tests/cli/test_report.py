"""`verify --output-dir` and then `report`, as processes of their own: the same bytes, at once, without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from circuitspec.cli import main

ROOT = Path(__file__).parents[2]
FORMATS = ("text", "json", "html", "github", "junit", "markdown", "badge")

LIGHT = """
import sys
from circuitspec.cli import main
try:
    main()
finally:
    heavy = sorted({"torch", "pyvene", "transformers", "scipy", "pandas", "matplotlib"} & set(sys.modules))
    print("heavy", heavy, file=sys.stderr)
"""


def run(*arguments: object, cwd: Path, program: tuple[str, ...] = ("-m", "circuitspec")) -> tuple[int, str, str]:
    environment = {**os.environ, "GITHUB_WORKSPACE": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, *program, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        timeout=300,
        check=False,
    )
    return ran.returncode, ran.stdout, ran.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With `out`, the saved result of a hypothesis that is refuted, `live.FORMAT` for each format, and its text."""
    here = tmp_path_factory.mktemp("saved")
    text = (ROOT / "hypotheses" / "toys" / "negative-left-out.circuit.yaml").read_text(encoding="utf-8")
    refuted = text[: text.index("claims:")] + "claims:\n  - sufficient: {metric: logit_diff, at_most: 0.1}\n"
    (here / "toy.circuit.yaml").write_text(refuted, encoding="utf-8")
    also = [word for name in FORMATS for word in ("--report", f"{name}=live.{name}")]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.setenv("GITHUB_WORKSPACE", str(ROOT))
        words = ["verify", "toy.circuit.yaml", "--output-dir", "out", "--no-store", *also]
        ran = CliRunner().invoke(main, words, prog_name="circuitspec", catch_exceptions=False)
    assert ran.exit_code == 1, ran.stderr
    (here / "printed").write_text(ran.stdout, encoding="utf-8")
    return here


@pytest.mark.nightly
def test_a_saved_result_gives_the_same_bytes(folder: Path) -> None:
    also = [word for name in FORMATS for word in ("--report", f"{name}=again.{name}")]
    code, out, err = run("report", "out", *also, cwd=folder)
    assert (code, err) == (0, "")
    assert out == (folder / "printed").read_text(encoding="utf-8")
    for name in FORMATS:
        assert (folder / f"again.{name}").read_bytes() == (folder / f"live.{name}").read_bytes()
    assert "REFUTED" in out
    assert "written: out/experiments.parquet" in out
    assert "out/report.json" in json.loads((folder / "again.json").read_text(encoding="utf-8"))["artifacts"]


def test_it_takes_no_heavy_library_and_less_than_a_second(folder: Path) -> None:
    """Processor time, not wall time: other work on the machine does not count."""
    before = os.times()
    code, _, err = run("report", "out/report.json", "--html", "light.html", cwd=folder, program=("-c", LIGHT))
    after = os.times()
    assert (code, err) == (0, "heavy []\n")
    assert after.children_user + after.children_system - before.children_user - before.children_system < 1.0
    assert (folder / "light.html").read_bytes() == (folder / "live.html").read_bytes()


def test_prompts_are_listed_where_they_are_asked_for(folder: Path) -> None:
    _, plain, _ = run("report", "out", cwd=folder)
    _, listed, _ = run("report", "out", "--prompts", cwd=folder)
    assert "prompts behind sufficient" not in plain
    assert "prompts behind sufficient (circuit), recovered logit_diff" in listed


def test_what_is_no_result(folder: Path) -> None:
    code, out, err = run("report", "live.json", cwd=folder)
    assert (code, out) == (3, "")
    assert "live.json:1:1: error[CS548]: live.json holds a result's numbers" in err
    assert "--output-dir DIR" in err
    (folder / "older.json").write_text('{"circuitspec_report": 0, "circuitspec": "0.0.9"}', encoding="utf-8")
    code, _, err = run("report", "older.json", cwd=folder)
    assert code == 3
    assert "error[CS549]: older.json was saved by circuitspec 0.0.9" in err
    assert run("report", cwd=folder)[0] == 2
