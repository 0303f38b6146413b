"""`docs/models.md` says what the code does."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.execution.granularity import Granularity, granularities
from circuitspec.engine.execution.taps import all_taps, slots_of
from circuitspec.engine.levels.residual_stream import Stream
from circuitspec.graph.nodes import expand
from circuitspec.hypothesis_file.grammar.components import AttentionLayer
from circuitspec.hypothesis_file.grammar.names import parse_name
from circuitspec.hypothesis_file.yaml.source import parse_source
from circuitspec.models.families.architecture import Architecture
from circuitspec.models.families.family_table import SUPPORTED, architecture_named
from tests.engine.support import loaded
from tests.engine.support import model as random_model

DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"


def levels(family: str) -> str:
    """The levels at which a model of the family can be patched: whether single heads can be told apart in it."""
    try:
        Stream(loaded(random_model(family, layers=1)))
    except CircuitspecError:
        return "node"
    return "node, edge, path"


def block(of: Architecture) -> str:
    """How the family's blocks add to the residual stream."""
    said = ["both from the block's input" if of.residual == "parallel" else "attention, then MLP"]
    said += ["one norm for both"] if of.attn_norm is not None and of.attn_norm == of.mlp_norm else []
    after = of.attn_post_norm is not None
    said += [f"norms {'before and after' if of.attn_norm else 'after'}"] if after else []
    given = {number.field for number in of.numbers}
    said += ["multiplied as it is added"] if "residual_multiplier" in given else []
    said += ["logits multiplied"] if "logit_multiplier" in given else []
    said += ["queries, keys and values clipped"] if "qkv_clip" in given else []
    said += ["or otherwise, by its settings"] if of.variants else []
    return "; ".join(said)


def there(granularity: Granularity, of: Architecture) -> str:
    """Whether the family has it; neurons of whole MLPs are there in layers without a choice among experts."""
    if granularity.name == "neuron" and of.experts is not None and of.experts.dense_down is not None:
        return "in some layers"
    return "yes" if granularity.tensors else "no"


def table() -> str:
    """The table of the document, from the code."""
    names = [g.name for g in granularities(architecture_named("gpt2"))]
    rows = [["family", "`model_type`", *names, "levels", "block"]]
    for family in SUPPORTED:
        architecture = architecture_named(family)
        rows.append(
            [
                architecture.title,
                f"`{family}`",
                *(there(g, architecture) for g in granularities(architecture)),
                levels(family),
                block(architecture),
            ]
        )
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def test_the_table_of_families() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert table() in text, f"write this table into {DOCUMENT.name}:\n{table()}"
    for family in SUPPORTED:
        for granularity in granularities(architecture_named(family)):
            assert granularity.tensors or granularity.why_not in text


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
