"""Heads that are gated, normed together or differences, and mixers in place of heads: one small case of each."""

from __future__ import annotations

from typing import Any

import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.execution.compiler import Actions, borrowed
from circuitspec.engine.execution.taps import Tap
from circuitspec.exchange.edge_lists import Size
from circuitspec.graph.nodes import expand
from circuitspec.hypothesis_file.grammar.names import parse_name
from circuitspec.hypothesis_file.yaml.source import parse_source
from circuitspec.models.model_config import shape_of
from tests.engine.support import loaded, random_prompts, runner, task_of
from tests.engine.test_against_oracle import check_circuit
from tests.engine.test_further_layouts import check_edges
from tests.oracle import builders

MIXES = ["linear_attention", "full_attention"]


def small(family: str, seed: int = 3, **config: Any) -> Any:
    mixed = {"layer_types": MIXES} if "qwen" in family else {}
    return builders.BUILDERS[family](seed, "sdpa", layers=2, **{**mixed, **config})


# a gate read beside the query, and a mixer before it; a norm over all heads; two projected heads that make one
@pytest.mark.parametrize("family", ["qwen3_5_text", "bitnet", "diffllama"])
def test_a_layout_of_its_own(family: str) -> None:
    """Node level with a circuit of heads and mixers; before edges the self-test, of all sites and of a path."""
    model = small(family)
    check_circuit(model, "resample")
    check_edges(model, "zero" if family == "bitnet" else "resample")


def said(model: Any, name: str) -> Diagnostic:
    problems: list[Diagnostic] = []
    source = parse_source("circuit: {groups: {}}", "t.circuit.yaml")
    assert expand(parse_name(name), loaded(model).shape, source, ("circuit",), problems) == ()
    (problem,) = problems
    return problem


@pytest.mark.parametrize("name", ["a0.h2", "a0.h*", "a0.kv0", "a0.h1.pattern"])
def test_parts_of_a_mixer_are_an_error_that_names_the_layer(name: str) -> None:
    problem = said(small("qwen3_5_text"), name)
    assert problem.code == "CS225"
    if not name.endswith("pattern"):
        assert "layer 0 mixes tokens without attention heads" in problem.message
        assert "write a0 for the whole of it; layers with heads are a1" in problem.hint


def test_patterns_of_gated_heads_and_of_pairs_are_refused() -> None:
    assert "by a gate" in said(small("qwen3_5_text"), "a1.h0.pattern").message
    model = small("diffllama")
    assert "difference of two attention patterns" in said(model, "a1.h0.pattern").message
    run = runner(model, task_of(random_prompts(1, [5])))
    with borrowed(model), pytest.raises(CircuitspecError) as raised:
        run.forward(run.batches[0], "clean", Actions(record=frozenset({Tap(0, "pattern")})))
    assert [one.code for one in raised.value.diagnostics] == ["CS520"]


def test_other_tools_files_have_no_word_for_mixers() -> None:
    with pytest.raises(CircuitspecError) as raised:
        Size.of(loaded(small("qwen3_5_text")).shape)
    (problem,) = raised.value.diagnostics
    assert problem.code == "CS322"
    assert "(a0)" in problem.message


def test_mixers_of_real_configurations() -> None:
    """As `config.json` lists them, or as it counts: every fourth layer of Qwen3-Next has heads."""
    sizes = {"hidden_size": 64, "num_attention_heads": 4, "head_dim": 16, "vocab_size": 9, "num_hidden_layers": 8}
    config = {"model_type": "qwen3_5_text", "intermediate_size": 9, **sizes}
    every = frozenset({0, 1, 2, 4, 5, 6})
    assert shape_of(config).mixers == shape_of({**config, "full_attention_interval": 4}).mixers == every
    assert shape_of({**config, "full_attention_interval": 2}).mixers == {0, 2, 4, 6}
    assert shape_of({**config, "layer_types": ["full_attention"] * 7 + ["linear_attention"]}).mixers == {7}
