"""Variables aligned with features of zoo:and: what each feature carries follows from relu(A + B - 1).

Alone in a feature of A is whether current flows through the first switch; the lamp is the transcoder's one feature; the
third feature of `res1` is active with A, and nothing reads it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.dictionaries.test_paths_between_features import hypothesis, run, verified

ABSTRACTION = """
abstraction:
  variables:
    first: A in ('on', 'closed', 'up')
    second: B in ('on', 'closed', 'up')
    lamp: "'lit' if first and second else 'dark'"
  output: " {lamp}"
  align:
    first: {nodes: [%FIRST%], at: END}
    second: {nodes: ["sae:res1.f1"], at: END}
    lamp: {nodes: ["sae:gate.f0"], at: END}
  pairs:
    first_off: {slots: {A: $stops}}
    second_off: {slots: {B: $stops}}
    both_off: {corruption: both}
    other_words: {redraw: [room, A], slots: {B: =A}}
"""
CLAIMS = """
  - interchange: {variable: first, at_least: 0.8}
  - interchange: {variable: second, at_least: 0.8}
  - interchange: {variable: lamp, at_least: 0.8}
  - interchange: {variables: {first: second_off, second: both_off}, at_least: 0.8}
  - isolates: {variable: first, others: [second], pairs: [second_off], at_least: 0.8}
"""


def aligned(tmp_path: Path, first: str, claims: str = CLAIMS) -> Path:
    file = hypothesis(tmp_path, claims)
    file.write_text(file.read_text() + ABSTRACTION.replace("%FIRST%", f'"{first}"'))
    return file


def parts(claim: dict[str, Any]) -> list[float]:
    """What each family of pairs gives that asks something of the variable."""
    return [part["value"] for part in claim["parts"] if part["value"] is not None]


def test_each_feature_carries_its_variable(tmp_path: Path) -> None:
    """Also where two features of one dictionary take values of two sources."""
    found = verified(aligned(tmp_path, "sae:res1.f0"))["claims"]
    assert [claim["status"] for claim in found] == ["SUPPORTED"] * 5
    assert {value for claim in found for value in parts(claim)} == {1.0}


@pytest.mark.nightly
def test_a_feature_that_nothing_reads_carries_none(tmp_path: Path) -> None:
    (claim,) = verified(aligned(tmp_path, "sae:res1.f2", "\n".join(CLAIMS.splitlines()[:2]) + "\n"))["claims"]
    assert claim["status"] == "REFUTED"
    assert parts(claim) == [0.0, 0.0]  # of the pairs in which the answer must change


def with_subspace(tmp_path: Path, node: str) -> Path:
    file = aligned(tmp_path, "sae:res1.f0")
    text = file.read_text().replace(
        'second: {nodes: ["sae:res1.f1"]', f'second: {{nodes: ["{node}"], subspace: {{rank: 1}}'
    )
    file.write_text(text.replace("prompts: 20", "prompts: 8"))
    return file


@pytest.mark.parametrize("command", ["align", "verify"])
def test_a_feature_has_no_subspace(command: str, tmp_path: Path) -> None:
    result = run(command, with_subspace(tmp_path, "sae:res1.f1"))
    assert result.exit_code == 3, result.output
    assert "CS185" in result.output
    assert "the value of sae:res1.f1 is no single vector" in result.output


@pytest.mark.nightly
def test_subspaces_are_learned_beside_features(tmp_path: Path) -> None:
    """B is one direction of what a0.h1 hands on; the circuit's features stand in the file, and are not read."""
    result = run("align", with_subspace(tmp_path, "a0.h1"), "--no-store", "-o", tmp_path / "learned.safetensors")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "learned.safetensors").exists()
