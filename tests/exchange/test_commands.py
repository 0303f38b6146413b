"""The two commands as a person meets them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from circuitspec.cli import main
from circuitspec.exchange.exchange_formats import FEATURE_FORMATS, FORMATS, VARIABLE_FORMATS
from tests.exchange.test_eap import BY_HAND
from tests.exchange.test_importing import TINY, with_prompts

ROOT = Path(__file__).parents[2]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(TINY))
    return path


def test_there_and_back(graph: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiny.circuit.yaml"
    there = run(
        "import", graph, "--as", "eap", "--model", "zoo:ioi-tiny", "--prompts", with_prompts(tmp_path), "-o", out
    )
    assert there.exit_code == 0, there.output
    assert there.stdout == f"wrote {out} (3 edges); next: circuitspec check {out}\n"
    assert there.stderr.startswith("note[CS380]: what the hypothesis says otherwise than the file\n   positions  ")
    assert run("check", out).exit_code == 0
    for name, format_ in FORMATS.items():
        file = tmp_path / f"back{format_.suffixes[-1]}"
        back = run("export", out, "--as", name, "-o", file, "--force")
        assert back.exit_code == 0, back.output
        assert back.stderr.startswith("note[CS381]: ")
        again = run("import", file, "--as", name, "--size", "4x4", "-o", tmp_path / "again.circuit.yaml", "--force")
        assert again.exit_code == 0, again.output
        assert "(3 edges)" in again.stdout or name == "interpbench"


def test_what_import_writes_can_be_exported_as_it_stands(tmp_path: Path) -> None:
    """Neither the model nor its size is given: the file says the size, and so does the hypothesis."""
    graph, out, back = tmp_path / "graph.json", tmp_path / "x.circuit.yaml", tmp_path / "back.json"
    graph.write_text(json.dumps(BY_HAND))
    assert run("import", graph, "--as", "eap", "-o", out).exit_code == 0
    assert "\n  size: 2x2x8 #" in out.read_text(encoding="utf-8")
    assert run("check", out).exit_code == 0
    found = run("export", out, "--as", "eap", "-o", back)
    assert found.exit_code == 0, found.output
    before, after = json.loads(graph.read_text()), json.loads(back.read_text())
    assert after["cfg"] == before["cfg"]
    assert {k for k, v in after["edges"].items() if v["in_graph"]} == {
        k for k, v in before["edges"].items() if v["in_graph"]
    }
    assert run("export", out, "--as", "eap", "--size", "2x2", "-o", back, "--force").exit_code == 0
    other = run("export", out, "--as", "eap", "--size", "2x3x8", "-o", back, "--force")
    assert other.exit_code == 5
    assert "error[CS386]: --size 2x3x8 is not what the hypothesis states: 2x2x8" in other.stderr


def test_a_model_of_another_size_than_stated_is_refused(tmp_path: Path) -> None:
    """By `check`, `export` and `verify`: a circuit of one model would be tested on another."""
    text = (ROOT / "hypotheses" / "ioi-tiny.circuit.yaml").read_text(encoding="utf-8")
    file = tmp_path / "x.circuit.yaml"
    for size, code in (("4x4x64", 0), ("4x4", 0), ("4x8x64", 5), ("4x4x32", 5), ("4x4x64-parallel", 5)):
        file.write_text(text.replace("id: zoo:ioi-tiny", f"id: zoo:ioi-tiny\n  size: {size}"), encoding="utf-8")
        found = run("check", file)
        assert found.exit_code == code, found.output
        assert ("CS386" in found.output) == bool(code)
    found = run("verify", file)
    assert found.exit_code == 5
    assert "4x4x64, not 4x4x64-parallel" in found.stderr
    for size in ("12", "0x3", "axb", "12x12x"):
        file.write_text(text.replace("id: zoo:ioi-tiny", f"id: zoo:ioi-tiny\n  size: '{size}'"), encoding="utf-8")
        assert "error[CS115]" in run("check", file).output


def test_the_shipped_hypothesis_can_be_exported(tmp_path: Path) -> None:
    out = tmp_path / "ioi.json"
    found = run("export", ROOT / "hypotheses" / "ioi-tiny.circuit.yaml", "--as", "eap", "-o", out)
    assert found.exit_code == 0, found.output
    for kind in ("positions", "roles", "signs", "free", "ablation"):
        assert f"\n   {kind}" in found.stderr
    assert json.loads(out.read_text())["edges"]["a2.h2->logits"]["in_graph"] is True


def test_nothing_is_overwritten(graph: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.circuit.yaml"
    out.write_text("mine")
    assert run("import", graph, "--as", "eap", "-o", out).exit_code == 2
    assert out.read_text() == "mine"
    assert run("import", graph, "--as", "eap", "-o", out, "--force").exit_code == 0
    file = tmp_path / "mine.json"
    file.write_text("mine")
    assert run("export", out, "--as", "eap", "--size", "4x4x64", "-o", file).exit_code == 2
    assert file.read_text() == "mine"
    assert run("import", graph, "--as", "eap", "-o", tmp_path / "none" / "x.yaml").exit_code == 2


@pytest.mark.parametrize(
    "options",
    [
        ["--top", "3", "--threshold", "0.5"],
        ["--top", "0"],
        ["--threshold", "-1"],
        ["--size", "12"],
        ["--size", "999x999"],
    ],
)
def test_options_that_make_no_sense(options: list[str], graph: Path, tmp_path: Path) -> None:
    assert run("import", graph, "--as", "eap", "-o", tmp_path / "x.yaml", *options).exit_code == 2
    assert not (tmp_path / "x.yaml").exists()
    assert run("import", graph, "--as", "dot", "-o", tmp_path / "x.yaml").exit_code == 2


def test_a_file_that_cannot_be_used_leaves_nothing_behind(tmp_path: Path) -> None:
    wrong = tmp_path / "graph.json"
    wrong.write_text("[]")
    found = run("import", wrong, "--as", "eap", "-o", tmp_path / "x.circuit.yaml")
    assert found.exit_code in (3, 5)
    assert "error[CS383]" in found.stderr
    assert not (tmp_path / "x.circuit.yaml").exists()


def test_the_formats_offered_are_those_there_are() -> None:
    for command in ("import", "export"):
        (option,) = [o for o in main.commands[command].params if o.name == "as_"]
        assert isinstance(option.type, click.Choice)
        others = [name for name, one in FEATURE_FORMATS.items() if one.is_written or command == "import"]
        others += [name for name, one in VARIABLE_FORMATS.items() if one.is_written or command == "import"]
        assert list(option.type.choices) == [*FORMATS, *others]


LIGHT = """
import sys
from circuitspec.cli import main
try:
    main({arguments!r})
except SystemExit as end:
    code = end.code
heavy = sorted({{"torch", "pyvene", "transformers", "scipy", "pandas"}} & set(sys.modules))
print("code", code, "heavy", heavy, file=sys.stderr)
"""


def test_json_is_read_and_written_without_torch(tmp_path: Path) -> None:
    graph, out, back = tmp_path / "graph.json", tmp_path / "x.circuit.yaml", tmp_path / "back.json"
    graph.write_text(json.dumps(BY_HAND))
    for arguments in (
        ["import", str(graph), "--as", "eap", "-o", str(out)],
        ["export", str(out), "--as", "edge-pruning", "--size", "2x2", "-o", str(back)],
    ):
        ran = subprocess.run(
            [sys.executable, "-c", LIGHT.format(arguments=arguments)], capture_output=True, text=True, check=False
        )
        assert "code 0 heavy []" in ran.stderr or "code None heavy []" in ran.stderr, ran.stderr
