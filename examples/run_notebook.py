"""Run the notebooks of this folder from top to bottom and store what their cells show: `make notebook`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

NOTEBOOKS = [Path(__file__).parent / name for name in ("ioi-tiny.ipynb", "first-hour.ipynb")]


def executed(path: Path) -> Any:
    """The notebook with the outputs of a fresh kernel, and nothing in it that changes from run to run.

    Raises nbclient's CellExecutionError where a cell does.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=300, record_timing=False, resources={"metadata": {"path": path.parent}})
    client.execute()
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata = {}
        if cell.cell_type == "code":  # what stays of the bar is no output
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
    return notebook


if __name__ == "__main__":
    import nbformat

    for notebook in NOTEBOOKS:
        nbformat.write(executed(notebook), notebook)
