"""The formats by name: how each is read and written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from circuitspec.exchange.edge_lists import EdgeList, Size
from circuitspec.exchange.loss import Loss
from circuitspec.exchange.readers import acdc, auto_circuit, eap, edge_pruning, interpbench
from circuitspec.exchange.reading import FileReading

FormatName = Literal["eap", "mib", "auto-circuit", "acdc", "interpbench", "edge-pruning"]

_Read: TypeAlias = Callable[[Path, Size | None, str | None], FileReading]
_Write: TypeAlias = Callable[[EdgeList, Path], tuple[bytes, tuple[Loss, ...]]]


@dataclass(frozen=True)
class Format:
    """One format. `suffixes` are those that its tool expects of a file to be read.

    `has_entries`: a file may hold several runs, of which `--entry` names one.
    """

    title: str
    read: _Read
    write: _Write
    suffixes: tuple[str, ...]
    has_entries: bool = False


def _of_one_run(read: Callable[[Path, Size | None], FileReading]) -> _Read:
    return lambda path, known, _: read(path, known)


FORMATS: dict[FormatName, Format] = {
    "eap": Format("EAP-IG graph", _of_one_run(eap.read), eap.write, (".json", ".pt", ".pth")),
    "mib": Format("MIB circuit", _of_one_run(eap.read), eap.write_submission, (".json", ".pt", ".pth")),
    "auto-circuit": Format(
        "auto-circuit prune scores", auto_circuit.read, auto_circuit.write, (".pt", ".pkl", ".pth"), has_entries=True
    ),
    "acdc": Format("ACDC edges", _of_one_run(acdc.read), acdc.write, (".pth",)),
    "interpbench": Format("InterpBench edges", _of_one_run(interpbench.read), interpbench.write, (".pkl",)),
    "edge-pruning": Format("Edge Pruning edges", _of_one_run(edge_pruning.read), edge_pruning.write, (".json",)),
}


@dataclass(frozen=True)
class EdgelessFormat:
    """A format that says something else than edges of heads and MLPs. `is_written`: `export` has it."""

    title: str
    is_written: bool


VARIABLE_FORMATS: dict[str, EdgelessFormat] = {
    "mib-variables": EdgelessFormat("MIB causal-variable submission", is_written=True),
    "causal-pairs": EdgelessFormat("data set of base and source pairs", is_written=False),
}
"""What is in `exchange/variables`, and `pipelines/abstraction/variable_submissions.py`."""


FEATURE_FORMATS: dict[str, EdgelessFormat] = {
    "attribution-graph": EdgelessFormat("attribution graph", is_written=True),
    "feature-list": EdgelessFormat("list of features", is_written=True),
}
"""What is in `exchange/features`."""
