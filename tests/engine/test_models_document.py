"""`docs/models.md` says what the code does."""

from __future__ import annotations

import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.execution.granularity import granularities
from circuitspec.engine.execution.taps import all_taps, slots_of
from circuitspec.graph.nodes import expand
from circuitspec.hypothesis_file.grammar.components import AttentionLayer
from circuitspec.hypothesis_file.grammar.names import parse_name
from circuitspec.hypothesis_file.yaml.source import parse_source
from circuitspec.models.families.family_table import SUPPORTED, architecture_named
from tests.engine.models_table import DOCUMENT, with_table
from tests.engine.support import loaded
from tests.engine.support import model as random_model


def test_the_table_of_families() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert with_table(text) == text, "make docs writes it anew"
    for family in SUPPORTED:
        for granularity in granularities(architecture_named(family)):
            assert granularity.tensors or granularity.why_not in " ".join(text.split())


@pytest.mark.every_family
@pytest.mark.parametrize("family", SUPPORTED)
def test_what_the_table_says_is_what_the_engine_does(family: str) -> None:
    """A granularity with tensors is patched in just those, one without is an error of its own."""
    known = loaded(random_model(family, layers=2))
    source = parse_source("circuit: {groups: {}}", "t.circuit.yaml")
    with_experts = next(layer for layer in (1, 0) if layer not in known.shape.dense_layers)
    for granularity in granularities(known.architecture, with_experts):
        problems: list[Diagnostic] = []
        found = expand(parse_name(granularity.example), known.shape, source, ("circuit",), problems)
        if not granularity.tensors:
            assert [p.code for p in problems] == ["CS225"]
            assert found == ()
            continue
        assert problems == []
        slots = [slot for c in found for slot in slots_of(c, known.architecture, known.shape)]
        taps = {tap for slot in slots for tap in slot.tap.acts_at(known.architecture)}
        assert {tap.path(known.architecture) for tap in taps} == set(granularity.tensors)
        assert {tap for tap in taps if tap.kind != "routing"} <= all_taps(
            known.architecture, known.shape
        )  # `[row * pos]`
        if isinstance(parse_name(granularity.example).target, AttentionLayer):
            assert len(slots) == known.shape.n_heads


def test_a_family_that_is_not_there() -> None:
    with pytest.raises(CircuitspecError):
        architecture_named("mamba")
