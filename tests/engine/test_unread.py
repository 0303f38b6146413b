"""What edge-level runs need not compute is not computed, and what anything reads is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.execution.batches import where_mask
from circuitspec.engine.execution.compiler import Actions, borrowed
from circuitspec.engine.execution.taps import Tap
from circuitspec.engine.levels.edge_program import EdgeProgram
from circuitspec.engine.levels.scratch import Scratch
from circuitspec.engine.runner import Runner
from circuitspec.graph.edges import Receiver
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Logits
from circuitspec.models.families.modules import submodule
from tests.engine.support import TOLERANCE, model, random_prompts, runner, task_of
from tests.engine.test_edges_against_oracle import SOURCES, Edges, every_edge, experiment_of

LENGTHS = [5, 7, 5, 6]


@contextmanager
def watched(modules: dict[str, torch.nn.Module]) -> Iterator[dict[str, list[int]]]:
    """How many tokens of a row the modules were given, call by call."""
    seen: dict[str, list[int]] = {name: [] for name in modules}

    def watching(name: str, own: Any) -> Any:
        def forward(entering: torch.Tensor) -> Any:
            seen[name].append(entering.shape[1])
            return own(entering)

        return forward

    for name, module in modules.items():
        module.forward = watching(name, module.forward)
    try:
        yield seen
    finally:
        for module in modules.values():
            del module.forward


def modules_of(run: Runner) -> dict[str, torch.nn.Module]:
    """Each layer's projections and MLP."""
    architecture, m = run.loaded.architecture, run.loaded.model
    found = {}
    for layer in range(run.loaded.shape.n_layers):
        kinds = ("qkv",) if architecture.qkv.__class__.__name__ == "FusedQKV" else ("q", "k", "v")
        for kind in kinds:
            path = Tap(layer, kind).path(architecture).removesuffix(".output")  # type: ignore[arg-type]
            found[f"{kind} {layer}"] = submodule(m, path)
        found[f"mlp {layer}"] = submodule(m, architecture.path(architecture.mlp, layer))
    return found


def actions_of(run: Runner, ablated: Edges) -> Actions:
    program = EdgeProgram(experiment_of(ablated, SOURCES["resample"]), run.stream)
    (batch,) = run.batches
    taps = frozenset(run.stream.recorded_at(sender) for sender in program.senders)
    values = run.stream.with_scaled(run.forward(batch, "abc", Actions(record=taps))[1])
    return program.actions({where: where_mask(run.task, batch, where, run.device) for where in program.wheres}, values)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "gemma2"])
@torch.no_grad()
def test_projections_that_are_replaced_are_not_computed_unless_recorded(family: str) -> None:
    m = model(family, exactly=True)
    run = runner(m, task_of(random_prompts(3, LENGTHS)))
    (batch,) = run.batches
    everything = dict.fromkeys(every_edge(run.loaded.shape), Where.everywhere())
    columns = len(set(batch.answer_columns))
    assert columns < batch.width
    with borrowed(m):
        actions = actions_of(run, everything)
        with watched(modules_of(run)) as seen:
            logits = run.forward(batch, "clean", actions)[0]
        for name, given in seen.items():
            if name.startswith("mlp"):
                last = name == f"mlp {run.loaded.shape.n_layers - 1}"
                assert given == [columns if last else batch.width], name
            else:
                assert given == [], name
        recorded = min(actions.unread)
        with watched(modules_of(run)) as seen:
            again, _ = run.forward(batch, "clean", Actions(edits=actions_of(run, everything).edits))
        assert all(given[-1] == batch.width for given in seen.values())
        torch.testing.assert_close(again, logits, rtol=0, atol=TOLERANCE)
        _, plain = run.forward(batch, "clean", Actions(record=frozenset({recorded})))
        _, values = run.forward(batch, "clean", replace(actions_of(run, everything), record=frozenset({recorded})))
        assert recorded.layer == 0  # what enters the first block is as in the plain run
        torch.testing.assert_close(values[recorded], plain[recorded], rtol=0, atol=TOLERANCE)


@torch.no_grad()
def test_a_projection_of_which_half_is_kept_is_computed() -> None:
    m = model("gpt2", exactly=True)
    run = runner(m, task_of(random_prompts(3, LENGTHS)))
    everything = dict.fromkeys(every_edge(run.loaded.shape), Where.everywhere())
    first, second = Tap(0, "qkv"), Tap(1, "qkv")
    here = [edge for edge in everything if edge[1].port and run.stream.ports(edge[1])[0].tap == first]
    assert len(here) == first.units(run.loaded.shape)  # one edge each, from the input
    half = len(here) // 2
    with borrowed(m):
        assert {first, second} <= actions_of(run, everything).unread
        for kept, left_out in ((half - 1, True), (half, False)):
            ablated = {edge: where for edge, where in everything.items() if edge not in here[:kept]}
            unread = actions_of(run, ablated).unread
            assert (first in unread, second in unread) == (left_out, True)
        at_one = {edge: Where.at("A") for edge in here[: half + 1]}
        assert actions_of(run, at_one).unread == {first}  # computed anew at all tokens alike
        assert not actions_of(run, {e: w for e, w in everything.items() if e[1] == Receiver(Logits())}).unread


@torch.no_grad()
def test_what_is_not_computed_would_be_missed() -> None:
    """A projection that is left out although nothing replaces it: NaN, which is an error and not a number."""
    m = model("gpt2", exactly=True)
    run = runner(m, task_of(random_prompts(3, LENGTHS)))
    (batch,) = run.batches
    tap = Tap(0, "qkv")
    with borrowed(m), pytest.raises(CircuitspecError, match="CS502"):
        run.forward(batch, "clean", Actions(edits={tap: lambda own: own}, unread=frozenset({tap})))


def test_scratch_is_reused_and_grows_and_changes_its_kind() -> None:
    scratch = Scratch()
    like = torch.zeros(1)
    large = scratch.take("terms", (4, 3), like)
    assert (large.shape, large.dtype) == ((4, 3), torch.float32)
    small = scratch.take("terms", (2, 5), like)
    assert small.data_ptr() == large.data_ptr()
    assert scratch.take("mixed", (2, 5), like).data_ptr() != large.data_ptr()
    assert scratch.take("terms", (4, 4), like).shape == (4, 4)
    assert scratch.take("terms", (1, 2), like.double()).dtype == torch.float64
