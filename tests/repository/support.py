"""A lock made by hand, and one small hypothesis that is run once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.hypothesis_file.load_file import Document, load_hypothesis
from circuitspec.pipelines.verify import Outcome
from circuitspec.repository.lock import (
    Environment,
    Lock,
    LockedClaim,
    LockedHypothesis,
    LockedModel,
    LockedPrompts,
)
from circuitspec.runtime.progress import Silent

ROOT = Path(__file__).parents[2]
TINY = ROOT / "hypotheses" / "ioi-tiny.circuit.yaml"
NAMES = ("Mary", "John", "Paul", "Anna", "Peter", "Laura", "David", "Emma", "James", "Sarah", "Thomas", "Alice")

ENVIRONMENT = Environment(device="cpu", processor="x86_64", packages={"torch": "2.13.0+cpu", "numpy": "2.4.6"})
CLAIM = LockedClaim(
    claim="sufficient",
    metric="logit_diff",
    experiment="ablating everything outside the circuit",
    measure="recovered",
    status="SUPPORTED",
    value=0.88,
    ci=(0.84, 0.91),
    n=100,
)
LOCK = Lock(
    lock_version=1,
    hypothesis=LockedHypothesis(name="a # b: 1e5", digest="12e34", content='{"name":"a\\u2028b"}'),
    prompts=LockedPrompts(digest="00ff", count=2, lines='{"texts":{"clean":"a"}}\n0123456789abcdef\n'),
    model=LockedModel(id="zoo:x", revision=None, dtype="float32", files={"model.safetensors": "123e4567"}),
    environment=ENVIRONMENT,
    seeds={"prompts": 0, "bootstrap": 0},
    claims=(CLAIM, CLAIM.model_copy(update={"claim": "necessary", "value": None, "ci": None})),
)


@dataclass(frozen=True)
class Run:
    """A hypothesis in a folder of its own, what verifying it gave, and its lock."""

    file: Path
    document: Document
    outcome: Outcome
    lock: Lock


class Quiet(Silent):
    """Nobody waits."""


def write_tiny(folder: Path) -> Path:
    """The shipped hypothesis with 24 prompts, names from a file: quick to run."""
    (folder / "names.txt").write_text("\n".join(NAMES) + "\n", encoding="utf-8")
    text = TINY.read_text(encoding="utf-8")
    start, end = text.index("    names: ["), text.index("    places:")
    text = text[:start] + "    names: names.txt\n" + text[end:]
    file = folder / "ioi.circuit.yaml"
    file.write_text(replaced(text, ("prompts: 100", "prompts: 24")), encoding="utf-8")
    return file


def replaced(text: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text


def edited(file: Path, *changes: tuple[str, str]) -> Document:
    file.write_text(replaced(file.read_text(encoding="utf-8"), *changes), encoding="utf-8")
    return load_hypothesis(file)


def errors_of(action: Callable[[], Any]) -> tuple[Diagnostic, ...]:
    with pytest.raises(CircuitspecError) as caught:
        action()
    return caught.value.diagnostics
