"""A small valid hypothesis, and ways to vary it."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.hypothesis_file.load_file import Document, parse_hypothesis

WRONG_FILES = Path(__file__).parents[1] / "wrong_files"
HYPOTHESES = Path(__file__).parents[2] / "hypotheses"

GOOD = """\
circuitspec: 1
name: small
model: {id: "zoo:ioi-tiny"}
task:
  templates: ["Then {IO} and {S1} went home. {S2} gave a ring to"]
  slots: {IO: $names, S1: $names, S2: =S1}
  lists: {names: [Mary, John, Tom, James, Anna, Paul]}
  answer: " {IO}"
  wrong: " {S1}"
  corruptions: {abc: {IO: $names, S1: $names, S2: $names}}
  positions: {END: last}
circuit:
  groups:
    inhibitor: {nodes: [a2.h0, a2.h1], at: END}
    mover: {nodes: [a3.h0], at: END}
  free: [m*]
  paths:
    - inhibitor -> mover<q>
    - mover -> logits
ablation: {value: resample, from: abc}
claims:
  - sufficient: {metric: logit_diff, at_least: 0.8}
"""


def good_but(*changes: tuple[str, str]) -> str:
    """GOOD with each first text replaced by the second."""
    text = GOOD
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    return text


def parse(text: str) -> Document:
    return parse_hypothesis(text, "small.circuit.yaml")


def errors(text: str) -> tuple[Diagnostic, ...]:
    """What is wrong with a hypothesis that is."""
    with pytest.raises(CircuitspecError) as caught:
        parse(text)
    return caught.value.diagnostics


def codes(text: str) -> list[str]:
    return [finding.code for finding in errors(text)]
