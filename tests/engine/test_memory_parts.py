"""What work on a model of a size is said to take, against runs of such models."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from transformers import LlamaConfig, LlamaForCausalLM

from circuitspec.cli import main
from circuitspec.engine.attribution.node_attribution import attribute
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.execution.memory import PeakMemory
from circuitspec.engine.execution.worked_out import readout
from circuitspec.engine.runner import Runner
from circuitspec.engine.scheduling import memory_parts
from circuitspec.experiments.experiment import Experiment, Site, Source
from circuitspec.experiments.levels.edge_level import patching
from circuitspec.graph.edges import count_edges, precedes, receivers, senders
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Mlp
from circuitspec.models.load import LoadedModel
from circuitspec.pipelines.whole_model.model_plan import PlannedModel
from tests.engine.support import Silent, loaded, random_prompts, task_of

ALL, OTHER = Where.everywhere(), Source("resample", "abc")
SMALL = (4, 4, 4, 64, 176, 5000, 12, 8, "float32")
GROUPED = (8, 8, 2, 128, 352, 20_000, 16, 8, "bfloat16")
LARGE_VOCABULARY = (3, 4, 4, 64, 256, 131_072, 8, 24, "float32")


@cache
def model_of(layers: int, heads: int, kv: int, width: int, mlp: int, vocabulary: int, dtype: str) -> LoadedModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        max_position_embeddings=32,
    )
    return loaded(LlamaForCausalLM(config).eval().to(getattr(torch, dtype)))


def work_on(made: LoadedModel, run: Runner, work: str) -> Any:
    shape = made.shape
    nodes = [Head(layer, h) for layer in range(shape.n_layers) for h in range(shape.n_heads)]
    nodes = [*nodes, *(Mlp(layer) for layer in range(shape.n_layers))]
    match work:
        case "patched":
            every = frozenset(Site(one, ALL) for one in nodes)
            return run.run([Experiment("clean"), Experiment("clean", OTHER, every)])
        case "estimated":
            return attribute(run, "clean", OTHER, "logit_diff", nodes, [])
    cut = {r: {s: ALL for s in senders(shape) if precedes(s, r, shape)} for r in receivers(shape)}
    return run.run([patching("clean", OTHER, cut)])


@pytest.mark.parametrize("work", ["patched", "estimated", "edges"])
@pytest.mark.parametrize("size", [SMALL, GROUPED, LARGE_VOCABULARY], ids=["small", "grouped", "large vocabulary"])
def test_memory_is_as_measured(size: tuple[Any, ...], work: Any) -> None:
    """To 15 %, by the bytes of tensors; the weights exactly."""
    *numbers, tokens, rows, dtype = size
    made = model_of(*numbers, dtype)
    with borrowed(made.model):
        prompts = random_prompts(1, [tokens] * rows, vocab=made.shape.n_vocab)
        run = Runner(made, task_of(prompts), rows=rows, progress=Silent())
        with PeakMemory() as meter:
            work_on(made, run, work)
    said = memory_parts.memory_parts(made.shape, dtype, rows, tokens, work)
    assert said.activations == pytest.approx(meter.peak, rel=0.15)
    assert said.weights == sum(one.numel() * one.element_size() for one in made.model.parameters())


def test_logits_are_held_as_said() -> None:
    assert (memory_parts.WHOLE_LOGITS, memory_parts.PART_LOGITS) == (readout.WHOLE_BYTES, readout.PART_BYTES)


def test_a_model_is_planned_by_its_size() -> None:
    """80 layers of 64 heads: by hand 1 + 80 x 65 senders, and forwards as runs of a small model take them."""
    asked = ["plan", "--model-shape", "80x64x8192,kv=8,mlp=28672", "--dtype", "bfloat16", "--prompts", "200"]
    said = CliRunner().invoke(main, asked, catch_exceptions=False).output
    weights = 80 * (2 * 8192 * (8192 + 1024) + 3 * 8192 * 28672 + 2 * 8192) + 2 * 128256 * 8192 + 8192
    assert f"{2 * weights / 2**20:,.0f}" in said
    edges = sum((1 + 65 * layer) * (64 + 16) + (1 + 65 * layer + 64) for layer in range(80)) + 1 + 80 * 65
    assert count_edges(PlannedModel.parse("80x64x8192,kv=8").shape) == edges
    assert f"any of {edges:,} edges" in said
    made = model_of(*SMALL[:6], "float32")
    run = Runner(made, task_of(random_prompts(2, [6, 6], vocab=5000)), rows=2, progress=Silent())
    sites = [Site(Head(layer, h), ALL) for layer in range(4) for h in range(4)]
    with borrowed(made.model):
        run.run([Experiment("clean", OTHER, frozenset({site})) for site in sites])
    ran, saved = run.forwards, run.forwards_saved
    said = CliRunner().invoke(main, ["plan", "--model-shape", "4x4x64"], catch_exceptions=False).output
    told = re.search(r"each of 16 heads by itself +([\d,]+), of which ([\d,]+) ", said)
    assert told is not None
    # beside the checks of short cuts, which are made once a model
    assert int(told[1]) == pytest.approx(ran, abs=2)
    assert int(told[2]) == pytest.approx(saved, abs=1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model-shape", "80x64"], "LAYERSxHEADSxCHANNELS"),
        (["--model-shape", "80x64x8190"], "do not divide"),
        (["--model-shape", "8x8x64,layers=3"], "is none of kv, mlp, vocab"),
        (["--dtype", "bfloat16"], "name a FILE"),
        (["some.yaml", "--prompts", "3"], "is for --model-shape"),
        (["some.yaml", "--model-shape", "8x8x64"], "without a file"),
    ],
)
def test_what_cannot_be_planned(arguments: list[str], said: str) -> None:
    ran = CliRunner().invoke(main, ["plan", *arguments])
    assert ran.exit_code == 2
    assert said in ran.output
