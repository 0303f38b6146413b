"""What forwards hold is measured, and sweeps take as many rows as that leaves room for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from circuitspec.engine.attribution.edge_attribution import attribute_edges
from circuitspec.engine.attribution.node_attribution import attribute
from circuitspec.engine.execution.batch_size import BUDGET
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.execution.memory import SHARE, PeakMemory, Rows, budget_of, free_bytes
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import Experiment, Site, Source
from circuitspec.graph.edges import Edge
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Neuron
from tests.engine.support import loaded, model, random_prompts, runner, task_of
from tests.engine.test_edges_against_oracle import every_edge
from tests.engine.test_sweep import cpu_allocator, limited

NOISING = Source("resample", "abc")
ALL = Where.everywhere()


def test_the_peak_is_what_tensors_held_at_once() -> None:
    """By hand: 1000 float64 and 500 more, of which the first go; views and what was there before hold nothing new."""
    before = torch.ones(10_000, dtype=torch.float64)
    with PeakMemory() as meter:
        first = torch.zeros(1000, dtype=torch.float64)
        view = first[:10]
        before.add_(1.0)
        before.view(100, 100).T.flatten(0, 0)
        assert meter.peak == 8000
        second = torch.ones(500, dtype=torch.float64) + view[0]  # and for a moment what it is the sum of
        assert meter.peak == 8000 + 4000 + 4000
        del first, view
        third = torch.zeros(1500, dtype=torch.float64)
        assert meter.peak == 16_000
        parts = torch.split(second, 100)
        torch.stack(parts)
    assert meter.peak == 4000 + 12_000 + 4000
    assert len(third) == 1500


def test_the_budget_is_a_share_of_what_is_free() -> None:
    device = torch.device("cpu")
    free = free_bytes(device)
    assert free is None or 0 < free < 2**50
    assert 0 < budget_of(device) <= BUDGET
    if free is not None:
        assert budget_of(device) <= SHARE * free * 1.5  # another process may take or give some meanwhile
    assert free_bytes(torch.device("meta")) is None
    assert budget_of(torch.device("meta")) == BUDGET


def test_measured_rows_fill_the_budget() -> None:
    """By hand: 1600 bytes for a whole row of 16 tokens by arithmetic; it was seen to take a quarter of that."""
    rows = Rows(4, lambda positions, column: 100 * (positions - column), budget=16_000)
    assert rows.beginning_at(0, 16) == 4
    assert rows.is_new(4, 16, 0)
    rows.seen(4, 16, 0, 1600)
    assert not rows.is_new(8, 16, 8)
    assert (rows.beginning_at(0, 16), rows.beginning_at(8, 16)) == (8, 16)  # twice what was seen
    rows.seen(8, 16, 0, 3200)
    rows.seen(16, 16, 0, 6400)
    rows.seen(32, 16, 0, 12_800)
    assert (rows.beginning_at(0, 16), rows.beginning_at(8, 16)) == (40, 80)  # 400 bytes each
    rows.seen(40, 16, 0, 20_000)
    assert rows.beginning_at(0, 16) == 32  # 500 bytes each
    rows.most_whole = 10
    assert (rows.beginning_at(0, 16), rows.beginning_at(8, 16)) == (10, 20)
    rows.halve(16)
    assert (rows.whole, rows.beginning_at(8, 16)) == (4, 8)
    plain = Rows(4, lambda positions, column: 100 * (positions - column))
    assert not plain.is_new(4, 16, 0)
    assert plain.beginning_at(0, 16) == 4  # as many as were asked for


def sites() -> list[Experiment]:
    chosen = [Site(Neuron(layer, n), ALL) for layer in range(3) for n in range(30)]
    return [Experiment("clean", NOISING, frozenset({site})) for site in chosen]


def test_a_sweep_fills_its_budget_and_stays_within_it() -> None:
    m = model("gpt2")
    task = task_of(random_prompts(seed=7, lengths=[8] * 4))
    tokens: list[int] = []

    def ran(budget: int | None) -> tuple[Any, int, int]:
        with borrowed(m):
            run = Runner(loaded(m), task, rows=4, progress=runner(m, task)._progress)
            run.rows.budget = budget
            original, seen = run.compiler.forward, []

            def forward(inputs: Any, actions: Any) -> Any:
                seen.append(len(inputs["input_ids"]))
                return original(inputs, actions)

            run.compiler.forward = forward  # type: ignore[method-assign]
            with PeakMemory() as meter:
                records = run.run(sites())
            tokens.append(sum(seen))
        return records, max(seen), meter.peak

    few, rows_before, held_before = ran(None)
    assert rows_before == 4
    with_budget = 6 * held_before
    many, rows, held = ran(with_budget)
    assert rows > 3 * rows_before
    assert held <= with_budget + held_before  # beside the forward, what the base run and the source left
    for experiment in sites():
        for name, values in few[experiment].items():
            assert values == pytest.approx(many[experiment][name], abs=1e-9)


@pytest.mark.parametrize("most", [1, 2])
def test_estimates_go_on_with_fewer_rows_where_memory_runs_out(most: int) -> None:
    m = model("gpt2", exactly=True)
    task = task_of(random_prompts(seed=9, lengths=[6] * 5))
    edges = [Edge(*pair, ALL) for pair in every_edge(loaded(m).shape)[:40:5]]
    heads = [Head(0, 1), Head(2, 0)]
    with borrowed(m):
        whole = runner(m, task, rows=5)
        expected = attribute(whole, "clean", NOISING, "logit_diff", heads, [ALL], dropping=True)
        of_edges = attribute_edges(whole, "clean", NOISING, "logit_diff", edges)
        short = runner(m, task, rows=5)
        tried = limited(short, most, cpu_allocator)
        found = attribute(short, "clean", NOISING, "logit_diff", heads, [ALL], dropping=True)
        assert max(n for n in tried if n <= most) == most
        short.rows.whole = 5
        found_edges = attribute_edges(short, "clean", NOISING, "logit_diff", edges)
    assert found.effects == pytest.approx(expected.effects, abs=1e-12)
    assert found.magnitudes == pytest.approx(expected.magnitudes, abs=1e-12)
    assert found_edges.effects == pytest.approx(of_edges.effects, abs=1e-12)


def test_estimates_say_when_a_single_prompt_does_not_fit() -> None:
    m = model("gpt2", exactly=True)
    with borrowed(m):
        run = runner(m, task_of(random_prompts(seed=9, lengths=[6, 6])), rows=2)
        limited(run, 0, cpu_allocator)
        with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
            attribute(run, "clean", NOISING, "logit_diff", [Head(0, 1)], [ALL])
