"""Names of files, and texts in them, that would begin lines of their own, give commands to a log or move its cursor."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from circuitspec.cli import main
from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic, Span, render
from circuitspec.models.zoo import zoo_path
from circuitspec.reports.report_formats import FORMATS
from circuitspec.runtime.visible_text import as_json, no_command, visible

TAKEN = "::error::taken"
HOSTILE = f"x\n{TAKEN}\nSUPPORTED  faked\r\x1b[31m\u202e\x85\u2028\x9by"
FILE = f"{TAKEN}\nSUPPORTED  faked\u202e\x1b.circuit.yaml"
ROWS = [
    ("Then, {} and {} went to the store. {} gave a ring to", "Mary", "John", "Paul"),
    ("Then, {} and {} went to the park. {} gave a ball to", "Anna", "Peter", "Laura"),
    ("Then, {} and {} went to the school. {} gave a book to", "David", "Emma", "Mary"),
    ("Then, {} and {} went to the school. {} gave a ball to", "Laura", "Anna", "Mary"),
]


def faults(text: str, *, github: bool = False) -> Iterator[str]:
    """The lines that are not as the package writes them."""
    for line in text.split("\n"):
        stripped = line.strip()
        if any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in line):
            yield f"a character that cannot be seen: {line!r}"
        if stripped.startswith("##[") or stripped == TAKEN or stripped.startswith("SUPPORTED  faked"):
            yield f"a line of a name: {line!r}"
        if stripped.startswith("::") and not ((github and " title=" in stripped) or " file=" in stripped):
            yield f"a command: {line!r}"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid hypothesis whose names are all as bad as the file system, JSON and YAML allow."""
    folder = tmp_path_factory.mktemp("h") / f"{TAKEN}\nfolder"
    folder.mkdir()
    prompts = f"p\n{TAKEN}.jsonl"
    lines = [
        {
            "clean": text.format(a, b, b),
            "corrupt": {"abc": text.format(a, b, c), HOSTILE: text.format(b, a, a)},
            "answers": [f" {a}"],
            "wrong": [f" {b}"],
            "template": f"{HOSTILE}{i % 2}",
            "positions": {"END": 14},
        }
        for i, (text, a, b, c) in enumerate(ROWS)
    ]
    (folder / prompts).write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    name = json.dumps(HOSTILE)
    (folder / FILE).write_text(
        f"""\
circuitspec: 1
name: {name}
description: {name}
source: {name}
model: {{id: zoo:ioi-tiny}}
task: {{file: {json.dumps(prompts)}}}
circuit:
  groups:
    g: {{nodes: [a2.h2, a3.h0]}}
  free: [m*]
  paths: ["g ->\\n logits"]
ablation: {{value: resample, from: abc, positions: all}}
claims:
  - sufficient: {{metric: logit_diff, at_least: 0.8}}
  - necessary: {{metric: logit_diff, at_most: 0.3}}
  - path: {{of: "g ->\\n logits", metric: logit_diff, direction: noising, drop_at_least: 0.3}}
  - traces: {{nodes: [g], to: [abc], metric: logit_diff}}
""",
        encoding="utf-8",
    )
    return folder / FILE


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


@pytest.fixture(scope="module")
def results(hostile: Path) -> Path:
    """What a run saved of it."""
    out = hostile.parent / f"out\n{TAKEN}"
    ran = run("verify", hostile, "--output-dir", out, "--prompts")
    assert ran.exit_code == 4, ran.output
    assert list(faults(ran.output)) == []
    assert visible(HOSTILE) in ran.stdout
    return out


@pytest.mark.parametrize("format_", FORMATS)
def test_every_format_of_a_result(format_: str, results: Path) -> None:
    ran = run("report", results, "--format", format_, "--prompts")
    assert ran.exit_code == 0
    assert list(faults(ran.stdout, github=format_ == "github")) == []
    if format_ in ("json", "badge"):
        content = json.loads(ran.stdout)
        named = content["label"] if format_ == "badge" else content["hypothesis"]["name"]
        assert named == (visible(HOSTILE) if format_ == "badge" else HOSTILE)  # a program gets what the file says


@pytest.mark.parametrize(
    "arguments", [["check"], ["check", "--format", "github"], ["plan"], ["plan", "--methods"], ["lock"]]
)
def test_commands_on_the_file(arguments: list[str], hostile: Path) -> None:
    ran = run(arguments[0], hostile, *arguments[1:])
    assert ran.exit_code == 0, ran.output
    assert list(faults(ran.output)) == []
    if arguments == ["lock"]:
        written = (hostile.parent / FILE.replace(".yaml", ".lock")).read_text(encoding="utf-8")
        assert list(faults(written.split("lock_version")[0])) == []
        assert run("verify", hostile, "--locked", "--negatives", "off").exit_code == 4


def test_other_commands(hostile: Path, results: Path, tmp_path: Path) -> None:
    graph, back = tmp_path / f"g\n{TAKEN}.json", tmp_path / f"b\n{TAKEN}.circuit.yaml"
    assert list(faults(run("diff", results, results).output)) == []
    assert list(faults(run("export", hostile, "--as", "eap", "-o", graph).output)) == []
    prompts = hostile.parent / f"p\n{TAKEN}.jsonl"
    imported = run("import", graph, "--as", "eap", "--prompts", prompts, "-o", back)
    assert (imported.exit_code, list(faults(imported.output))) == (0, [])
    assert list(faults(back.read_text(encoding="utf-8"))) == []
    model = tmp_path / f"m\n{TAKEN}"
    model.symlink_to(zoo_path("ioi-tiny"))
    examined = run("doctor", model)
    assert (examined.exit_code, list(faults(examined.output))) == (0, [])


@pytest.mark.nightly
def test_an_exploration_and_its_draft(hostile: Path, tmp_path: Path) -> None:
    draft = tmp_path / "d.circuit.yaml"
    ran = run("explore", hostile, "--draft", draft, "--max-forwards", 400, "--exact", 10, "--sections", 0, "--links", 0)
    assert ran.exit_code == 0, ran.output
    assert list(faults(ran.output)) == []
    drafted = [line for line in draft.read_text(encoding="utf-8").splitlines() if line.startswith("# Drafted by ")]
    assert len(drafted) == 1
    assert list(faults(drafted[0])) == []
    assert run("check", draft).exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", f"none\n{TAKEN}"],
        ["verify", f"none\n{TAKEN}"],
        ["report", f"none\n{TAKEN}"],
        ["diff", f"none\n{TAKEN}", "x"],
        ["import", f"none\n{TAKEN}", "--as", "eap", "-o", "x"],
        ["import", "x", "--as", f"a\n{TAKEN}", "-o", "x"],
        ["doctor", f"./none\n{TAKEN}"],
        ["doctor", f"none\n{TAKEN}"],
        ["explain", f"CS1\n{TAKEN}"],
        ["init", f"none\n{TAKEN}/x"],
        [f"none\n{TAKEN}"],
        ["check", f"--none\n{TAKEN}"],
        ["verify", "x", "--report", f"none\n{TAKEN}"],
        ["plan", f"{TAKEN}.yaml"],
        ["import", "x", "--as", "eap", "-o", "y", "--size", f"1\n{TAKEN}"],
    ],
)
def test_arguments_that_are_refused(arguments: list[str]) -> None:
    ran = run(*arguments)
    assert ran.exit_code in (2, 3, 5)
    assert list(faults(ran.output)) == []
    assert "taken" in ran.output


def test_errors_as_text_and_as_exceptions() -> None:
    found = Diagnostic("CS100", HOSTILE, Span(FILE, 1, 1), HOSTILE, HOSTILE)
    assert list(faults(render([found], {FILE: "text"}))) == []
    assert list(faults(str(CircuitspecError(found)))) == []


def test_what_a_log_takes_for_commands() -> None:
    """GitHub's runner looks at lines without the spaces that they begin with."""
    assert no_command("::error::x\n  ::y\n##[error]z\na ::b\n:c\n#d") == (
        "<U+003A>:error::x\n  <U+003A>:y\n<U+0023>#[error]z\na ::b\n:c\n#d"
    )
    whole = {"a": HOSTILE, "é": ["\U0001f600", "\ue000", 1.5, None]}
    for indent in (None, 2):
        written = as_json(whole, indent=indent)
        assert json.loads(written) == whole
        assert list(faults(written)) == []
    assert "é" in as_json(whole)


@pytest.mark.nightly
def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    """A file name is bytes: these are no UTF-8."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/d\xe9"))
    folder.mkdir()
    file, out = folder / os.fsdecode(b"f\xff.circuit.yaml"), folder / os.fsdecode(b"o\xfe")
    hypothesis = Path(__file__).parents[2] / "hypotheses" / "ioi-tiny.circuit.yaml"
    file.write_bytes(hypothesis.read_bytes())
    lists = hypothesis.parent / "lists"
    if lists.is_dir():
        (folder / "lists").symlink_to(lists)
    page = out / os.fsdecode(b"p\xfd.html")
    ran = run("verify", file, "--negatives", "off", "--output-dir", out, "--html", page)
    assert ran.exit_code == 0, ran.output
    assert "o<U+DCFE>/report.json" in ran.stdout
    for format_ in FORMATS:
        again = run("report", out, "--format", format_)
        assert again.exit_code == 0, again.output
    assert page.read_text(encoding="utf-8") == run("report", out, "--format", "html").stdout
    assert json.loads(run("report", out, "--format", "json").stdout)["artifacts"][0] == str(out / "experiments.parquet")
    assert run("check", file).exit_code == run("plan", file).exit_code == 0
    assert run("doctor", os.fsdecode(b"./m\xe9")).exit_code == 2
    (folder / "m").symlink_to(zoo_path("ioi-tiny"))
    file.write_text(hypothesis.read_text(encoding="utf-8").replace("zoo:ioi-tiny", "./m2"), encoding="utf-8")
    (folder / "m2").mkdir()
    for one in zoo_path("ioi-tiny").iterdir():
        (folder / "m2" / one.name).write_bytes(one.read_bytes())
    refused = run("verify", file)
    assert refused.exit_code == 5
    assert "rename the folder" in refused.stderr
