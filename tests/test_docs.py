"""The documents: what they show is what happens, what is made from the code is current, and links lead somewhere."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from circuitspec import __version__
from circuitspec.cli import main
from circuitspec.hypothesis_file.grammar.names import parse_name
from circuitspec.hypothesis_file.schema.block import OUTPUT_METRICS
from circuitspec.hypothesis_file.schema.blocks import CircuitSpec
from circuitspec.hypothesis_file.schema.claims.all_blocks import CLAIMS
from circuitspec.hypothesis_file.schema.schema_reference import NAMES, PATHS, reference
from circuitspec.hypothesis_file.yaml.source import parse_source
from circuitspec.hypothesis_file.yaml.yaml_writer import write_yaml
from circuitspec.models.families.family_table import SUPPORTED
from circuitspec.pipelines.check import check_file
from circuitspec.reports.explanations import all_codes
from tests.documents import Block, blocks, commands, unlike
from tests.waiting import without_progress

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")),
    *sorted(DOCS.rglob("*.md")),
]


def put(block: Block, folder: Path) -> None:
    """The file that a block is, or changes, as its comment says."""
    path = folder / block.file
    copied = re.fullmatch(r"(\S+) with (\S+) for (\S+)", block.how)
    if copied is not None:
        text = (folder / copied[1]).read_text(encoding="utf-8")
        assert copied[3] in text
        path.write_text(text.replace(copied[3], copied[2]), encoding="utf-8")
    elif block.how == "blocks replaced":
        whole: Any = parse_source(path.read_text(encoding="utf-8"), block.file).data
        part: Any = parse_source(block.text, block.file).data
        assert part.keys() <= whole.keys()
        path.write_text(write_yaml({**whole, **part}), encoding="utf-8")
    else:
        assert block.how == ""
        path.write_text(block.text, encoding="utf-8")


def printed(command: str) -> str:
    """What a command prints, findings last."""
    program, *arguments = shlex.split(command)
    assert program == "circuitspec"
    ran = CliRunner().invoke(main, arguments)
    assert ran.exit_code in (0, 1, 3, 4), ran.output
    return ran.stdout + without_progress(ran.stderr)


@pytest.mark.nightly
def test_the_tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is checked, every command run, and the Python too, from top to bottom."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CIRCUITSPEC_CACHE", str(tmp_path / "cache"))
    names: dict[str, Any] = {}
    ran = []
    for block in blocks(DOCS / "tutorial.md"):
        if block.file:
            put(block, tmp_path)
        match block.language:
            case "yaml":
                problems, summary = check_file(tmp_path / block.file)
                assert problems == ()
                assert ": ok" in summary
            case "console":
                for command, shown in commands(block):
                    assert unlike(shown, printed(command)) == "", command
                    ran.append(command.split()[1])
            case _:
                assert block.language == "python"
                exec(compile(block.text, "tutorial.md", "exec"), names)
    assert ran == ["check", "check", "verify", "verify", "verify", "report", "report"]
    assert (tmp_path / "again.html").read_bytes() == (tmp_path / "report.html").read_bytes()


def test_what_is_compared() -> None:
    assert unlike(["a", "...", "c"], "a\nb\nc\n") == ""
    assert unlike(["a", "..."], "a\nb\nc\n") == ""
    assert unlike(["a", "c"], "a\nb\nc\n") == "c"
    assert unlike(["a", "...", "d"], "a\nb\nc\n") == "d"
    assert unlike(["a"], "a\nb\n") == "nothing, but printed is 'b'"
    assert unlike(["b", "...", "a"], "a\nb\n") == "b"


def test_the_reference_is_current() -> None:
    assert (DOCS / "dsl.md").read_text(encoding="utf-8") == reference(), "make docs writes it anew"


def test_the_reference_has_every_key_and_claim() -> None:
    text = reference()
    assert {name for name in CLAIMS if f"### `{name}`" in text} == set(CLAIMS)

    def keys(schema: Any) -> set[str]:
        found = set()
        if isinstance(schema, dict):
            found |= set(schema.get("properties", {}))
            for value in schema.values():
                found |= keys(value)
        elif isinstance(schema, list):
            for value in schema:
                found |= keys(value)
        return found

    from circuitspec.hypothesis_file.schema.json_schema import json_schema

    wanted = keys(json_schema()) - set(CLAIMS)
    assert len(wanted) > 40
    assert {key for key in wanted if f"| `{key}` |" in text} == wanted


def test_the_names_and_paths_of_the_reference_are_read() -> None:
    for name in NAMES:
        assert parse_name(name) is not None
    groups = {group: {"nodes": [f"a{layer}.h0"]} for layer, group in enumerate("ABC")}
    CircuitSpec.model_validate({"groups": groups, "paths": list(PATHS)})


def test_the_method_has_every_claim_metric_and_warning() -> None:
    text = (DOCS / "method.md").read_text(encoding="utf-8")
    warnings = {code for code in all_codes() if code.startswith("CS4")}
    assert set(re.findall(r"^\| (CS4\d\d) \|", text, re.MULTILINE)) == warnings
    assert {claim for claim in CLAIMS if f"| `{claim}` |" in text} == set(CLAIMS)
    metrics = set(OUTPUT_METRICS)
    assert {metric for metric in metrics if f"| `{metric}` |" in text} == metrics


def test_the_examples_of_the_method_are_claims(tmp_path: Path) -> None:
    """Each block of YAML is put in the place of those of a whole file, and checked."""
    whole: Any = parse_source((ROOT / "hypotheses" / "ioi-tiny.circuit.yaml").read_text(encoding="utf-8"), "f").data
    found = [block for block in blocks(DOCS / "method.md") if block.language == "yaml"]
    assert found
    for block in found:
        part: Any = parse_source(block.text, "method.md").data
        path = tmp_path / "example.circuit.yaml"
        path.write_text(write_yaml({**whole, **part}), encoding="utf-8")
        problems, _ = check_file(path)
        assert problems == (), block.text


def test_how_to_add_a_family_names_what_there_is() -> None:
    text = (DOCS / "families.md").read_text(encoding="utf-8")
    for path in re.findall(r"`((?:circuitspec|tests|docs)/[\w/.]+)`", text):
        assert (ROOT / path).exists(), path
    for block in blocks(DOCS / "families.md"):
        if block.language == "python":
            ast.parse(block.text)
    assert {family for family in SUPPORTED if f"`{family}`" in text} >= {"llama", "gpt2", "gpt_neox"}


def anchors(document: Path) -> set[str]:
    """What a link may name of a document: its headings, in small letters and joined by `-`, as GitHub writes them."""
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    named = set(re.findall(r'<a name="([^"]+)">', text))
    return named | {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", text):
        if "://" not in link:
            target = document.parent / link if link else document
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), f"{link}#{anchor}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_python_in_documents_is_python(document: Path) -> None:
    for block in blocks(document):
        if block.language == "python":
            ast.parse(block.text)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_and_options_in_documents_are_there(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    shown = [
        line for block in blocks(document) if block.language in ("sh", "console") for line in block.text.splitlines()
    ]
    shown += re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    for line in shown:
        found = re.match(r"(?:\$ )?circuitspec ([a-z]+)\b(.*)", line)
        if found is not None:
            command = main.commands[found[1]]
            known = {option for parameter in command.params for option in parameter.opts}
            for option in re.findall(r"(?<=\s)--?[a-z][a-z-]*", found[2].partition("#")[0]):
                assert option in known, line


def test_the_step_of_the_action_has_inputs_that_there_are() -> None:
    action: Any = parse_source((ROOT / "action.yml").read_text(encoding="utf-8"), "action.yml").data
    (text,) = (b.text for b in blocks(DOCS / "repository.md") if b.language == "yaml" and "uses:" in b.text)
    (step,) = YAML(typ="safe", pure=True).load(text)
    assert step["uses"].endswith(f"/circuitspec@v{__version__}")
    assert set(step["with"]) <= set(action["inputs"])


def test_settings_for_pytest_are_settings() -> None:
    (text,) = (block.text for block in blocks(DOCS / "repository.md") if block.language == "toml")
    found = tomllib.loads(text)["tool"]["pytest"]["ini_options"]
    ours = tomllib.loads((ROOT / "examples" / "paper-repo" / "pyproject.toml").read_text(encoding="utf-8"))
    assert found == ours["tool"]["pytest"]["ini_options"]
