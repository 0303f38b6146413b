"""Drafts in another folder name the same files: by what the file system says is the same, and to `verify`."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from circuitspec.cli import main
from circuitspec.exploration.output.relative_files import rebased
from circuitspec.hypothesis_file.load_file import load_hypothesis
from circuitspec.hypothesis_file.yaml.source import parse_source
from circuitspec.models.model_reference import resolve_reference
from circuitspec.pipelines.verify import VerifyOptions, verify
from circuitspec.runtime.progress import Silent
from tests.exploration.toys import POINTER, write

DRAFT = """circuitspec: 1
name: elsewhere
model: {id: MODEL, dtype: float32}
task:
  file: &p 'it''s.jsonl'  # prompts
  lists: {names: words/names.txt, things: [ring, book], more: *p, far: /usr/far.txt}
abstraction: {pairs: {mine: {file: words/names.txt}}}
dictionaries: {sae: {at: r1, from: words}}
"""


class Quiet(Silent):
    """Nobody waits."""


def test_files_stay_the_same_in_every_folder(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for folder in ("words", "model", "drafts", "../elsewhere/deep"):
        (home / folder).mkdir(parents=True)
    for file in ("it's.jsonl", "words/names.txt"):
        (home / file).write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "deep")
    text = DRAFT.replace("MODEL", "./model")
    assert rebased(text, home, home) == text
    for folder in (home / "drafts", tmp_path, tmp_path / "elsewhere" / "deep", tmp_path / "link"):
        moved = rebased(text, home, folder)
        assert "# prompts" in moved
        assert "\\" not in moved
        data = parse_source(moved, "moved").data
        assert isinstance(data, dict)
        task = data["task"]
        assert (folder / data["model"]["id"]).samefile(home / "model")
        assert (folder / task["file"]).samefile(home / "it's.jsonl")
        assert (folder / task["lists"]["names"]).samefile(home / "words" / "names.txt")
        assert (folder / data["abstraction"]["pairs"]["mine"]["file"]).samefile(home / "words" / "names.txt")
        assert (folder / data["dictionaries"]["sae"]["from"]).samefile(home / "words")
        assert task["lists"]["more"] == task["file"]
        assert task["lists"]["things"] == ["ring", "book"]
        assert task["lists"]["far"] == "/usr/far.txt"


@pytest.mark.parametrize("model", ["zoo:ioi-tiny", "openai-community/gpt2", "gpt2", "package:a/b.gguf", "/models/x"])
def test_what_names_no_relative_folder_stays(tmp_path: Path, model: str) -> None:
    moved = rebased(DRAFT.replace("MODEL", model), tmp_path / "home", tmp_path / "other")
    assert f"model: {{id: {model}, dtype: float32}}\n" in moved


ALIGNED = """circuit: {groups: {steered: {nodes: [a1.h2], at: END}}}
abstraction:
  variables: {lamp: "'lit' if pointer == 'left' else 'dark'"}
  output: " {lamp}"
  align: {lamp: {nodes: [steered]}}
  pairs: {turned: {corruption: turned}}
"""


@pytest.mark.parametrize("more", ["", ALIGNED], ids=["", "aligned"])
def test_a_draft_in_another_folder_is_verified(tmp_path: Path, more: str) -> None:
    """Also where variables were aligned with a group of the file's own circuit, which the draft does not have."""
    file = write(POINTER, tmp_path)
    file.write_text(file.read_text().replace("rooms: [Kitchen, Hall, Cellar, Attic]", "rooms: rooms.txt") + more)
    (tmp_path / "rooms.txt").write_text("Kitchen\nHall\nCellar\nAttic\n")
    draft = tmp_path / "drafts" / "far" / "pointer.circuit.yaml"
    done = CliRunner().invoke(main, ["explore", str(file), "--draft", str(draft), "--no-store"])
    assert done.exit_code == 0, done.output
    assert ("# `abstraction` is left out" in draft.read_text()) == bool(more)
    document = load_hypothesis(draft)
    found = resolve_reference(document.hypothesis.model, document.base_dir)
    assert found.local_path.samefile(tmp_path / "pointer")
    outcome = verify(document, VerifyOptions("off"), Quiet())
    assert outcome.verification.n_prompts == 4


def test_the_schema_that_editors_check_by_stays_the_same_file(tmp_path: Path) -> None:
    """Where the comment names one that is there; a URL, and what leads nowhere, stay as they are."""
    home, other = tmp_path / "home", tmp_path / "other" / "deep"
    for folder in (home, other):
        folder.mkdir(parents=True)
    (tmp_path / "circuit.schema.json").write_text("{}")
    draft = DRAFT.replace("MODEL", "zoo:ioi-tiny")
    comment = "# yaml-language-server: $schema="
    moved = rebased(f"{comment}../circuit.schema.json\n{draft}", home, other)
    assert moved.splitlines()[0] == f"{comment}../../circuit.schema.json"
    for schema in ("https://example.org/circuit.schema.json", "../none.json", "/none.json"):
        assert rebased(f"{comment}{schema}\n{draft}", home, other).splitlines()[0] == f"{comment}{schema}"
