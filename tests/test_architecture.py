"""ARCHITECTURE.md and CONTRIBUTING.md say what there is: files, layers, and what each folder is for."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "circuitspec"
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
FOLDERS = sorted(path.parent for path in PACKAGE.rglob("__init__.py"))
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
LARGE = 5  # modules from which on a folder says what goes in and what comes out


@pytest.mark.parametrize("document", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_every_file_and_folder_that_is_named_exists(document: str) -> None:
    """In full, or from the package's folder on."""
    text = (ROOT / document).read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:[\w.-]+/)*[\w-]+\.(?:py|cff|md)|(?:[\w-]+/)+)`", text))
    assert named
    modules = {path.name for path in PACKAGE.rglob("*.py")}
    missing = {name for name in named if not (ROOT / name).exists() and not (PACKAGE / name).exists()}
    assert {name for name in missing if "/" in name or name not in modules} == set()


def test_the_layers_are_those_that_are_held() -> None:
    (layers,) = (contract["layers"] for contract in CONTRACTS if contract["type"] == "layers")
    said = re.search(r"^cli \| pytest_plugin(?: > .*|\n +> .*)*", ARCHITECTURE, re.MULTILINE)
    assert said is not None
    assert re.split(r"\s+>\s+", said[0]) == layers


def test_the_contracts_on_torch_and_pyvene_are_as_said() -> None:
    held = {frozenset(c["forbidden_modules"]): c["source_modules"] for c in CONTRACTS if c["type"] == "forbidden"}
    (without_torch,) = (sources for forbidden, sources in held.items() if "torch" in forbidden)
    said = re.search(r"`engine/` alone; ((?:`\w+/`(?:, | and\s+|\s+)?)+)\s*import no torch", ARCHITECTURE)
    assert said is not None
    assert {f"circuitspec.{name}" for name in re.findall(r"`(\w+)/`", said[1])} == set(without_torch)


def test_every_folder_of_the_package_is_named() -> None:
    folders = {path.name for path in FOLDERS if path.parent == PACKAGE}
    assert {name for name in folders if f"{name}/" not in ARCHITECTURE} == set()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_large_folder_says_what_goes_in_and_what_comes_out(folder: Path) -> None:
    """In three sentences or more."""
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
    assert text, "no docstring"
    modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
    if len(modules) > LARGE:
        assert re.search(r"\b[Ii]n comes? ", text)
        assert re.search(r"\bout comes? ", text)
        assert len(re.findall(r"[.:](?=\s|$)", text)) >= 3
