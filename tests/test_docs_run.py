"""What the documents show is run: every code block, on shipped and small random models (tutorial: test_docs)."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from circuitspec.cli import main
from circuitspec.hypothesis_file.load_file import load_hypothesis
from circuitspec.hypothesis_file.schema.blocks import ModelSpec
from circuitspec.hypothesis_file.schema.dictionary_block import DictionarySpec
from circuitspec.hypothesis_file.yaml.source import parse_source
from circuitspec.hypothesis_file.yaml.yaml_writer import write_yaml
from circuitspec.models.families import architecture as architectures
from circuitspec.models.families.modules import verify_modules
from circuitspec.models.model_config import shape_of
from circuitspec.pipelines.verify import VerifyOptions, verify
from tests.documents import blocks
from tests.exchange.graph_json import transcoder, write_transcoders
from tests.exchange.test_attribution_graphs import GRAPH, saved_model
from tests.exchange.test_causal_pairs import ROWS
from tests.exchange.test_variable_submissions import FOLDER as SUBMITTED
from tests.exchange.test_variable_submissions import saved
from tests.oracle.builders import random_llama
from tests.repository.support import Quiet
from tests.test_docs import DOCS, DOCUMENTS, ROOT

EXAMPLE = ROOT / "examples" / "paper-repo"
TINY = ROOT / "hypotheses" / "ioi-tiny.circuit.yaml"
GUIDES = sorted((DOCS / "guides").glob("*.md"))

# document -> languages of its blocks that a test here, in test_docs or in test_readme runs, or holds against the code
_RUN = {
    "ARCHITECTURE.md": set[str](),
    "README.md": {"yaml", "console", "sh"},
    "CONTRIBUTING.md": {"sh"},
    "commands.md": set[str](),
    "comparing.md": {"console"},
    "dictionaries.md": {"yaml", "sh", "python"},
    "dsl.md": {"yaml", "json"},
    "exchange.md": {"sh", "json"},
    "exploring.md": {"sh", "python"},
    "families.md": {"python", "sh", "toml"},
    "gallery.md": set[str](),
    "glossary.md": set[str](),
    "method.md": {"yaml"},
    "models.md": {"yaml"},
    "overview.md": {"yaml", "console", "python"},
    "prompts.md": {"yaml", "json", "python"},
    "python.md": {"python"},
    "repository.md": {"sh", "python", "toml", "yaml"},
    "scale.md": {"sh"},
    "tutorial.md": {"yaml", "console", "python"},
    **{guide.name: {"sh", "csv", "yaml"} for guide in GUIDES},
}


def test_no_block_is_left_out() -> None:
    """A block in a language that nothing here reads is to be run too, or to be no code block."""
    for document in DOCUMENTS:
        found = {block.language for block in blocks(document)} - {""}  # without a language: a drawing
        assert found <= _RUN[document.name], document.name


def shell(document: Path) -> Iterator[list[str]]:
    """The command lines of a document's shell blocks, in words, without comments."""
    for block in blocks(document):
        if block.language == "sh":
            yield from filter(None, (shlex.split(line, comments=True) for line in block.text.splitlines()))


def called(arguments: list[str]) -> None:
    assert arguments[0] == "circuitspec"
    done = CliRunner().invoke(main, arguments[1:], catch_exceptions=False)
    assert done.exit_code == 0, f"{shlex.join(arguments)}\n{done.output}"


@pytest.fixture
def paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the example repository, which is the current folder."""
    folder = tmp_path / "paper-repo"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache", "pyproject.toml"))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("CIRCUITSPEC_CACHE", str(tmp_path / "cache"))
    return folder


def small_tiny(folder: Path, name: str, part: dict[str, Any], prompts: int) -> Path:
    """The shipped hypothesis with fewer prompts, and these blocks in the place of its own."""
    whole: Any = parse_source(TINY.read_text(encoding="utf-8"), "f").data
    file = folder / name
    task = {**whole["task"], "prompts": prompts}
    file.write_text(write_yaml({**whole, "task": task, **part}), encoding="utf-8")
    return file


def test_targets_of_make_are_there() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    commands = list(shell(ROOT / "CONTRIBUTING.md"))
    assert commands
    for program, *arguments in commands:
        assert program == "make"
        assert set(arguments) <= set(targets)


@pytest.mark.nightly
@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_the_commands_of_a_guide(guide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder with the shipped hypotheses, after the files that the guide shows are written there."""
    shutil.copytree(ROOT / "hypotheses", tmp_path / "hypotheses")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CIRCUITSPEC_CACHE", str(tmp_path / "cache"))
    for block in blocks(guide):
        if block.file:
            Path(block.file).write_text(block.text, encoding="utf-8")
    commands = list(shell(guide))
    assert commands
    for command in commands:
        done = CliRunner().invoke(main, command[1:], catch_exceptions=False)
        assert done.exit_code in ((0, 1, 4) if command[1] == "verify" else (0,)), (
            f"{shlex.join(command)}\n{done.output}"
        )


@pytest.mark.nightly
def test_the_first_commands_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install, *commands = shell(ROOT / "README.md")
    assert install == ["pip", "install", "-c", "constraints.txt", "."]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CIRCUITSPEC_CACHE", str(tmp_path / "cache"))
    assert [command[1] for command in commands] == ["init", "verify"]
    for command in commands:
        called(command)


@pytest.mark.nightly
def test_the_python_of_the_overview(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    found = [block.text for block in blocks(DOCS / "overview.md") if block.language == "python"]
    assert found
    for text in found:
        exec(compile(text, "overview.md", "exec"), {})
    assert re.findall(r"^SUPPORTED (\w+) (-?\d\.\d\d) $", capsys.readouterr().out, re.MULTILINE) == [
        ("sufficient", "1.01"),
        ("necessary", "-0.05"),
    ]  # as the report there has them


def test_what_a_file_sets_of_its_model_can_be_written() -> None:
    (block,) = (block for block in blocks(DOCS / "models.md") if block.language == "yaml")
    part: Any = parse_source(block.text, "models.md").data
    assert ModelSpec.model_validate(part["model"]).adapter == "./lora"


def test_the_python_of_exploring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {}
    for block in blocks(DOCS / "exploring.md"):
        if block.language == "python":
            exec(compile(block.text, "exploring.md", "exec"), names)
    assert set(names["heads"]["source"]) >= {"", "S2"}
    assert len(names["layers"]) == 5


def test_the_python_of_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks in their order, in one program."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks(DOCS / "python.md"):
        exec(compile(block.text, "python.md", "exec"), names)
    assert {file.name for file in tmp_path.iterdir()} >= {"heads.svg", "streams.svg", "inhibition.circuit.yaml"}


@pytest.mark.slow
@pytest.mark.parametrize("document", ["method.md", "dsl.md"])
def test_claims_that_are_shown_are_verified(document: str, tmp_path: Path) -> None:
    """Each on the shipped model: every claim is judged by a figure, whatever it says."""
    found = [block.text for block in blocks(DOCS / document) if block.language == "yaml"]
    assert found
    for text in found:
        part: Any = parse_source(text, document).data
        file = small_tiny(tmp_path, "example.circuit.yaml", part, prompts=24)
        claims = verify(load_hypothesis(file), VerifyOptions("off"), Quiet()).verification.claims
        assert [claim.kind for claim in claims] == [next(iter(claim)) for claim in part["claims"]]
        for claim in claims:
            assert claim.status in ("SUPPORTED", "REFUTED", "INCONCLUSIVE")
            assert claim.estimate is not None or claim.parts, claim.kind


@pytest.mark.slow
def test_the_commands_of_exploring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CIRCUITSPEC_CACHE", str(tmp_path / "cache"))
    task: Any = parse_source((ROOT / "hypotheses/explored/ioi-tiny.task.yaml").read_text(encoding="utf-8"), "f").data
    task["task"]["prompts"] = 32
    Path("task.circuit.yaml").write_text(write_yaml(task), encoding="utf-8")
    small_tiny(tmp_path, "hypothesis.circuit.yaml", {}, prompts=32)
    variables = (ROOT / "hypotheses/pitfalls/ioi-tiny-one-family.circuit.yaml").read_text(encoding="utf-8")
    Path("variables.circuit.yaml").write_text(variables.replace("prompts: 100", "prompts: 12"), encoding="utf-8")
    commands = list(shell(DOCS / "exploring.md"))
    assert {command[1] for command in commands} >= {"explore", "verify"}
    for command in commands:
        searches = command[1] == "explore" and not {"--variable", "--carries"} & {*command}
        arguments = [*command, "--exact", "12"] if searches else command
        done = CliRunner().invoke(main, arguments[1:], catch_exceptions=False)
        assert done.exit_code in (0, 1, 4), f"{shlex.join(command)}\n{done.output}"  # what it finds is its own affair


def test_the_blocks_of_dictionaries(tmp_path: Path) -> None:
    """They are parts of valid files: a circuit with the features that it names, one on the hub, claims on paths."""
    first, on_hub, paths = (one for one in blocks(DOCS / "dictionaries.md") if one.language == "yaml")
    part: Any = parse_source(first.text, "dictionaries.md").data
    found = load_hypothesis(small_tiny(tmp_path, "example.circuit.yaml", part, prompts=24)).hypothesis
    assert {name: one.at for name, one in found.dictionaries.items()} == {"res8": "r8", "mlp3": "m3"}
    assert found.circuit.groups["gender"].nodes == ("sae:res8.f123", "sae:res8.f[40,52-55]")
    declared: Any = parse_source(on_hub.text, "dictionaries.md").data
    read = {name: DictionarySpec.model_validate(one) for name, one in declared["dictionaries"].items()}
    hub = "google/gemma-scope-2b-pt-res@COMMIT:layer_19/width_16k/average_l0_73"
    assert {name: one.named for name, one in read.items()} == {"res8": "./saes/res8", "res20": hub}
    part = parse_source(paths.text, "dictionaries.md").data
    found = load_hypothesis(small_tiny(tmp_path, "paths.circuit.yaml", part, prompts=24)).hypothesis
    assert [claim.kind for claim in found.claims] == ["path", "path", "mediation"]


def test_the_commands_of_dictionaries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that is on a model of the hub has options that there are, as all commands in documents."""
    monkeypatch.chdir(ROOT)
    hub, toy, *_ = shell(DOCS / "dictionaries.md")
    assert hub[:3] == ["circuitspec", "doctor", "gpt2"]
    called(toy)


@pytest.mark.nightly
def test_how_features_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy's two features, drafted and verified as the document says, and the largest of its sweep."""
    (tmp_path / "hypotheses").symlink_to(ROOT / "hypotheses")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CIRCUITSPEC_CACHE", str(tmp_path / "cache"))
    for command in [*shell(DOCS / "dictionaries.md")][2:]:
        called(command)
    (block,) = (block for block in blocks(DOCS / "dictionaries.md") if block.language == "python")
    names: dict[str, Any] = {}
    exec(compile(block.text, "dictionaries.md", "exec"), names)
    assert set(names["features"].nsmallest(2, "recovered_logit_diff")["index"]) <= {0, 1}


def test_the_commands_of_exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that they read are written first: a graph by us, a submission, a traced prompt and data as others do."""
    monkeypatch.chdir(tmp_path)
    called(["circuitspec", "export", str(TINY), "--as", "eap", "-o", "graph.json"])
    Path(SUBMITTED).mkdir()
    saved(Path(SUBMITTED), "ResidualStream(Layer-1,Token-last_token)", torch.eye(64)[:, :2])
    GRAPH.write(Path("traced.json"))
    saved_model(Path("model"), "gpt2")
    write_transcoders(Path("transcoders"), [transcoder(8, 16, seed) for seed in range(2)])
    (listed,) = (block.text for block in blocks(DOCS / "exchange.md") if block.language == "json")
    Path("features.json").write_text(listed, encoding="utf-8")
    Path("prompts.jsonl").write_text('{"clean": "the", "corrupt": "a", "answers": ["b"]}\n', encoding="utf-8")
    Path("dataset.jsonl").write_text("".join(json.dumps(one) + "\n" for one in ROWS), encoding="utf-8")
    for command in shell(DOCS / "exchange.md"):
        if SUBMITTED in command:
            command += ["--model", "zoo:ioi-tiny"]
        called([one.replace("r8@", "r2@") for one in command])
    assert (tmp_path / "edges.pth").exists()
    assert "sae:mlp_2.error@p5" in (tmp_path / "features.circuit.yaml").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_repository_document_is_followed(paper: Path) -> None:
    """Its commands in their order in a copy of the example, with its settings and its test of a table."""
    repository = DOCS / "repository.md"
    commands = list(shell(repository))
    assert [command[0] for command in commands] == ["circuitspec", "circuitspec", "pytest", "pytest", "pytest"]
    for command in commands:
        if command[0] == "circuitspec":
            called(command)
        else:
            assert pytest_of(paper, *command[1:]) == 0, command
    for result in ("one", "two"):
        called(["circuitspec", "verify", "hypotheses/ioi.circuit.yaml", "--output-dir", result])
    called(["circuitspec", "diff", "one", "two"])
    called(["circuitspec", "diff", "hypotheses/ioi.circuit.lock", "one"])
    called(["circuitspec", "report", "one"])
    (settings,) = (block.text for block in blocks(repository) if block.language == "toml")
    (table,) = (block.text for block in blocks(repository) if block.language == "python")
    (paper / "pyproject.toml").write_text(settings, encoding="utf-8")
    (paper / "tests" / "test_paper.py").write_text(table, encoding="utf-8")
    assert pytest_of(paper) == 0


def pytest_of(folder: Path, *arguments: str) -> int:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    print(ran.stdout)
    return ran.returncode


def test_the_family_that_is_added() -> None:
    """The table's entry is made, and fits a model that is laid out as it says: a small random Llama."""
    (text,) = (block.text for block in blocks(DOCS / "families.md") if block.language == "python")
    names = dict(vars(architectures))
    exec(compile(f"family = {text}", "families.md", "exec"), names)
    family = names["family"]
    assert isinstance(family, architectures.Architecture)
    assert family.family == "newmodel"
    model = random_llama()
    shape = shape_of({**model.config.to_dict(), "model_type": "llama"})
    verify_modules(model, family, shape)


def test_the_tests_that_a_family_passes_are_there() -> None:
    for program, *arguments in shell(DOCS / "families.md"):
        if program == "pytest":
            assert arguments
            assert all((ROOT / path).is_file() for path in arguments), arguments
        else:
            # on a model of the hub, and what the test of the document runs
            assert (program, arguments[0]) in {("circuitspec", "doctor"), ("make", "docs")}
