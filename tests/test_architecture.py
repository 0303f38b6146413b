"""ARCHITECTURE.md and CONTRIBUTING.md say what there is: files, layers, and what each folder is for."""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from collections import Counter
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


# module, or class with the module that has it by the side of another -> why two may have one name
_BUNDLE = PACKAGE / "engine" / "pyvene_export" / "bundle"  # runs without this package
_TWICE = {"Hypothesis": "what `import circuitspec` gives, and the checked value in it"}
_SIBLINGS = 13  # modules and folders in one folder, at most; the package itself has more


def test_no_two_modules_have_one_name() -> None:
    names = Counter(path.stem for path in PACKAGE.rglob("*.py") if not path.stem.startswith("__"))
    assert {name for name, count in names.items() if count > 1} == set()


def test_no_two_public_classes_have_one_name() -> None:
    found = Counter(
        node.name
        for path in PACKAGE.rglob("*.py")
        if path.parent != _BUNDLE
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert {name for name, count in found.items() if count > 1} == set(_TWICE)


def test_no_folder_is_crowded() -> None:
    crowded = {}
    for folder in FOLDERS:
        inner = [path.name for path in folder.iterdir() if (path / "__init__.py").exists()]
        own = [path.stem for path in folder.glob("*.py") if not path.stem.startswith("__")]
        if folder != PACKAGE and len(inner + own) > _SIBLINGS:
            crowded[folder.name] = len(inner + own)
    assert crowded == {}


def test_modules_that_docstrings_and_comments_name_exist() -> None:
    """`engine.runner` and what is in it, from the package's folder on."""
    folders = {path.name for path in FOLDERS if path.parent == PACKAGE}
    missing = set()
    for path in PACKAGE.rglob("*.py"):
        for name in re.findall(r"`(\w+(?:\.\w+)+)`", path.read_text(encoding="utf-8")):
            parts = name.split(".")
            if parts[0] not in folders or name.endswith((".py", ".html", ".json")):
                continue
            whole, *around = (PACKAGE.joinpath(*parts[: len(parts) - n]) for n in range(3))  # or what is in a module
            if not whole.is_dir() and not any(place.with_suffix(".py").exists() for place in (whole, *around)):
                missing.add((path.name, name))
    assert missing == set()


def test_commands_with_many_options_take_them_as_one_frozen_value() -> None:
    """More than five arguments are a class `<Command>Call`, or what the command itself is told."""
    from circuitspec.cli import main

    for name, command in main.commands.items():
        assert command.callback is not None
        parameters = inspect.signature(command.callback).parameters.values()
        named = [one.name for one in parameters if one.kind is not inspect.Parameter.VAR_KEYWORD]
        assert len(named) <= 5, name
        if len(command.params) > 8:  # --help is one
            assert len(named) < len(command.params) - 1, name
