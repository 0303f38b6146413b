from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from circuitspec.models.zoo import registry, zoo_names, zoo_path
from circuitspec.models.zoo.registry import BuiltModel


def test_ioi_tiny_is_listed_and_its_files_are_there() -> None:
    assert "ioi-tiny" in zoo_names()
    files = {file.name for file in zoo_path("ioi-tiny").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"} <= files


def test_an_unknown_name_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="ioi-tinny"):
        zoo_path("ioi-tinny")


def test_looking_into_the_zoo_imports_no_torch() -> None:
    code = (
        "import sys; from circuitspec.models.zoo import zoo_path; zoo_path('ioi-tiny');"
        "assert not {'torch', 'transformers', 'tokenizers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_built_model_is_built_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Path] = []

    def build(directory: Path) -> None:
        directory.mkdir()
        (directory / "config.json").write_text("{}", encoding="utf-8")
        built.append(directory)

    monkeypatch.setattr(registry, "ZOO", {"toy": BuiltModel("toy", "for this test", build)})
    first = zoo_path("toy", build_in=tmp_path / "cache")
    again = zoo_path("toy", build_in=tmp_path / "cache")

    assert first == again == tmp_path / "cache" / "toy"
    assert [file.name for file in first.iterdir()] == ["config.json"]
    assert len(built) == 1
    with pytest.raises(ValueError, match="build_in"):
        zoo_path("toy")


def test_a_build_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(directory: Path) -> None:
        directory.mkdir()
        (directory / "config.json").write_text("{}", encoding="utf-8")
        raise RuntimeError("half way")

    monkeypatch.setattr(registry, "ZOO", {"toy": BuiltModel("toy", "for this test", build)})
    with pytest.raises(RuntimeError, match="half way"):
        zoo_path("toy", build_in=tmp_path)
    assert list(tmp_path.iterdir()) == []
