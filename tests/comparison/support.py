"""Circuits written in a few lines, on small shipped models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from circuitspec.comparison.compared_circuits import ComparedCircuit, laid_out
from circuitspec.comparison.shared_parts import Overlap, SharedParts, shared_parts
from circuitspec.hypothesis_file.load_file import Document, parse_hypothesis

HYPOTHESES = Path(__file__).parents[2] / "hypotheses"

_TOY = """
circuitspec: 1
name: {name}
model: {{id: "zoo:{model}"}}
task:
  templates: ["{{room}} lamp: one switch {{A}}, one switch {{B}}, so it is"]
  slots: {{room: $rooms, A: $flows, B: $flows}}
  lists:
    rooms: [Kitchen, Hall, Cellar, Attic, Garden, Porch, Studio, Office]
    flows: ["on", closed, up]
    stops: ["off", open, down]
  answer: " lit"
  wrong: " dark"
  corruptions: {{both: {{A: $stops, B: $stops}}, first: {{A: $stops}}}}
  positions: {{END: last}}
  prompts: 24
circuit:
  groups:
{groups}
  free: [{free}]
{paths}
ablation: {{value: {value}, from: {source}, level: {level}, positions: declared}}
claims:
  - sufficient: {{metric: logit_diff, at_least: {at_least}}}
"""


def lamp(
    groups: Mapping[str, Sequence[str]],
    *,
    model: str = "or",
    name: str = "lamp",
    free: str = "",
    paths: Sequence[str] = (),
    value: str = "resample",
    source: str = "both",
    level: str = "node",
    at_least: float = 0.99,
) -> str:
    """A file about the lamp behind two switches; every name in `groups` has its positions."""
    written = "\n".join(
        f"    {group}: {{nodes: [{', '.join(map(_quoted, nodes))}]}}" for group, nodes in groups.items()
    )
    along = "\n".join(["  paths:", *(f"    - {path}" for path in paths)]) if paths else ""
    return _TOY.format(
        name=name,
        model=model,
        groups=written,
        free=free,
        paths=along,
        value=value,
        source=source,
        level=level,
        at_least=at_least,
    )


def _quoted(name: str) -> str:
    return f'"{name}"'


def read(text: str) -> Document:
    return parse_hypothesis(text, "lamp.circuit.yaml")


def laid(*texts: str) -> tuple[ComparedCircuit, ...]:
    return laid_out([read(text) for text in texts])


def shared(first: str, second: str) -> SharedParts:
    return shared_parts(*laid(first, second))


def overlap(parts: SharedParts, level: str) -> Overlap:
    (found,) = (one for one in parts.overlaps if one.level == level)
    return found


def of_toy(toy: str, nodes: Sequence[str], *, at_least: float = 0.99, free: str = "") -> str:
    """The shipped file of a toy, with another circuit and one claim: that it is sufficient."""
    text = (HYPOTHESES / "toys" / f"{toy}.circuit.yaml").read_text(encoding="utf-8")
    head, rest = text.split("circuit:\n", 1)
    (ablation,) = (line for line in rest.splitlines() if line.startswith("ablation:"))
    named = ", ".join(map(_quoted, nodes))
    return (
        f"{head}circuit:\n  groups: {{all: {{nodes: [{named}], at: END}}}}\n  free: [{free}]\n\n{ablation}\n"
        f"claims:\n  - sufficient: {{metric: logit_diff, at_least: {at_least}}}\n"
    )
