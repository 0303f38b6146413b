"""Dictionaries in a folder of the hub: from a cache laid out as huggingface_hub does, and from a hub that answers."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.dictionaries.readers.all_formats import FORMATS, names_of
from circuitspec.hypothesis_file.load_file import load_hypothesis
from circuitspec.hypothesis_file.schema.dictionary_block import DictionarySpec, HubFolder
from circuitspec.models.storage.hub import fetch_folder
from circuitspec.repository.locked_directions import direction_drift, lock_directions
from tests.dictionaries.test_features_of_a_toy import BOTH, A, B, dictionary, hypothesis, run

COMMIT, OTHER = "c" * 40, "d" * 40


def cached(cache: Path, commit: str = COMMIT, seen: Any = (A, B, A)) -> Path:
    """A dictionary of the toy at `layer_0/width_3` of someone/saes, as a download would leave it; its folder."""
    repository = cache / "models--someone--saes"
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / "main").write_text(commit)
    folder = repository / "snapshots" / commit / "layer_0" / "width_3"
    folder.parent.mkdir(parents=True)
    return dictionary(folder, seen)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def from_hub(tmp_path: Path, **folder: str) -> Path:
    """The toy's hypothesis with its dictionary on the hub."""
    file = hypothesis(tmp_path, BOTH)
    written = file.read_text()
    where = json.dumps({"id": "someone/saes", **folder})
    file.write_text(written.replace("from: ./res1", f"from: {where}"))
    return file


def test_a_lock_holds_the_files_of_a_folder_of_the_hub(cache: Path, tmp_path: Path) -> None:
    named = f"someone/saes@{COMMIT}:layer_0/width_3"
    folder, file = cached(cache), from_hub(tmp_path, revision=COMMIT, path="layer_0/width_3")
    locked = lock_directions(load_hypothesis(file))
    assert [*locked] == [named]
    assert [*direction_drift(load_hypothesis(file), locked)] == []
    dictionary(folder, (A, B, B))
    (changed,) = direction_drift(load_hypothesis(file), locked)
    assert f"{named} (dictionary) changed" in changed.message


@pytest.mark.nightly
def test_a_folder_of_the_hub_is_verified_and_locked(cache: Path, tmp_path: Path) -> None:
    cached(cache)
    file = from_hub(tmp_path, revision=COMMIT, path="layer_0/width_3")
    locked = run("lock", file)
    assert locked.exit_code == 0, locked.output
    (lock,) = tmp_path.glob("*.lock*")
    assert f"someone/saes@{COMMIT}:layer_0/width_3" in lock.read_text()
    dictionary(cache / "models--someone--saes" / "snapshots" / COMMIT / "layer_0" / "width_3", (A, B, B))
    changed = run("verify", file, "--locked", "--no-store")
    assert changed.output.count("CS552") == 2  # the finding, and how it is explained
    assert f"someone/saes@{COMMIT}:layer_0/width_3 (dictionary) changed" in changed.output


def test_without_a_revision_it_is_what_the_branch_was(cache: Path, tmp_path: Path) -> None:
    cached(cache, OTHER)
    cached(cache, COMMIT)
    folder = fetch_folder(HubFolder(id="someone/saes", path="layer_0/width_3"), names_of(0))
    assert folder.parts[-3:] == (COMMIT, "layer_0", "width_3")
    file = fetch_folder(
        HubFolder(id="someone/saes", revision=OTHER, path="layer_0/width_3/sae_weights.safetensors"), names_of(0)
    )
    assert file.parts[-4] == OTHER
    assert file.is_file()


@pytest.mark.parametrize(
    ("folder", "code", "said"),
    [
        ({"id": "someone/others"}, "CS317", "from: ./name"),
        ({"id": "someone/saes", "revision": OTHER}, "CS317", "not in the local cache"),
        ({"id": "someone/saes", "path": "layer_1"}, "CS373", "layer_1"),
        ({"id": "someone/saes", "path": "../../.."}, "CS373", "no path in someone/saes"),
        ({"id": "someone/saes", "path": "/etc"}, "CS373", "no path in someone/saes"),
        ({"id": "./saes"}, "CS316", "write owner/name"),
    ],
)
def test_what_the_cache_does_not_hold(folder: dict[str, str], code: str, said: str, cache: Path) -> None:
    cached(cache)
    with pytest.raises(CircuitspecError) as raised:
        fetch_folder(HubFolder.model_validate(folder), names_of(0))
    (problem,) = raised.value.diagnostics
    assert problem.code == code
    assert said in f"{problem.message} {problem.hint}"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RepositoryNotFoundError, "CS316"),
        (RevisionNotFoundError, "CS316"),
        (GatedRepoError, "CS316"),
        (ConnectionError, "CS317"),
    ],
)
def test_what_the_hub_says(error: type[Exception], code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def download(repo_id: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repo_id, revision, allow_patterns))
        response: Any = SimpleNamespace(headers={}, request=None)
        raise error("no") if error is ConnectionError else error("no", response=response)  # type: ignore[call-arg]

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(CircuitspecError) as raised:
        fetch_folder(HubFolder(id="someone/saes", revision="x", path="l[0]"), ("cfg.json", "sae.safetensors"))
    assert [problem.code for problem in raised.value.diagnostics] == [code]
    assert asked == [("someone/saes", "x", ["l[[]0]/cfg.json", "l[[]0]/sae.safetensors"])]  # and nothing else of it


def test_the_place_in_the_file_is_told(cache: Path, tmp_path: Path) -> None:
    found = run("verify", from_hub(tmp_path), "--no-store")
    assert found.exit_code == 5
    assert "features.circuit.yaml:17:" in found.output
    assert "CS317" in found.output


def test_check_and_plan_ask_no_hub(cache: Path, tmp_path: Path) -> None:
    file = from_hub(tmp_path, revision=COMMIT)
    for command in ("check", "plan"):
        found = run(command, file)
        assert found.exit_code == 0, found.output


def test_names_of_files_and_of_folders() -> None:
    assert names_of(3, "circuit_tracer") == ("config.yaml", "layer_3.safetensors")
    assert set(names_of(3)) == {name for one in FORMATS.values() for name in one.names(3)}
    assert DictionarySpec.model_validate({"at": "r1", "from": "./a"}).named == "./a"
    folder = {"id": "a/b", "revision": "c", "path": "d/e"}
    assert DictionarySpec.model_validate({"at": "r1", "from": folder}).named == "a/b@c:d/e"
