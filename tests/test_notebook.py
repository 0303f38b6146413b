"""The example notebooks show what their cells give."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest

FOLDER = Path(__file__).parents[1] / "examples"


def runner() -> ModuleType:
    """examples/run_notebook.py."""
    spec = importlib.util.spec_from_file_location("run_notebook", FOLDER / "run_notebook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NAMES = ("ioi-tiny.ipynb", "first-hour.ipynb")


def stored(name: str) -> Any:
    notebook = nbformat.read(FOLDER / name, as_version=4)
    nbformat.validate(notebook)
    return notebook


def shown(cell: Any) -> list[str]:
    """All that stands below a cell, in whatever form; addresses in memory aside."""
    found = []
    for output in cell.outputs:
        assert output.output_type in ("execute_result", "stream"), output
        found += [output.text] if output.output_type == "stream" else [str(v) for _, v in sorted(output.data.items())]
    return [re.sub(r"0x[0-9a-f]+", "", text) for text in found]


def run(source: str, names: dict[str, Any]) -> list[str]:
    """A cell as IPython runs it: what it prints, and its last expression as HTML and as text."""
    tree = ast.parse(source)
    last = tree.body[-1]
    if isinstance(last, ast.Expr):
        tree.body[-1] = ast.copy_location(ast.Assign([ast.Name("shown_", ast.Store())], last.value), last)
    names["shown_"] = None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.fix_missing_locations(tree), "<cell>", "exec"), names)
    value = names["shown_"]
    if value is None:
        return [printed.getvalue()] if printed.getvalue() else []
    return [value._repr_html_(), repr(value)]


@pytest.mark.nightly
@pytest.mark.parametrize("name", NAMES)
def test_it_shows_what_its_cells_give(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    names: dict[str, Any] = {}
    cells = [cell for cell in stored(name).cells if cell.cell_type == "code"]
    for number, cell in enumerate(cells, start=1):
        assert cell.execution_count == number
        assert run(cell.source, names) == shown(cell)
    if name != "ioi-tiny.ipynb":
        return
    warned = next(text for cell in cells for text in shown(cell) if "ioi-tiny-without-negative" in text)
    assert "warning CS401" in warned
    assert "a2.h3" in warned


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", NAMES)
def test_a_fresh_kernel_gives_the_same(name: str) -> None:
    again, before = runner().executed(FOLDER / name), stored(name)
    assert [cell.source for cell in again.cells] == [cell.source for cell in before.cells]
    for cell, old in zip(again.cells, before.cells, strict=True):
        if cell.cell_type == "code":
            assert shown(cell) == shown(old)


def test_the_command_for_it_is_in_the_makefile() -> None:
    assert "$(BIN)/python examples/run_notebook.py" in (FOLDER.parent / "Makefile").read_text(encoding="utf-8")
