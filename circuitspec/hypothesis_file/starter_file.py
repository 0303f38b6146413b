"""The commented hypothesis file that `circuitspec init` writes."""

from __future__ import annotations

from importlib import resources


def starter_text() -> str:
    """The text of the file."""
    return resources.files("circuitspec.hypothesis_file").joinpath("starter.circuit.yaml").read_text(encoding="utf-8")
