"""What forwards hold is measured, and sweeps take as many rows as that leaves room for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.attribution.direct_logit_attribution import direct_effects
from circuitspec.engine.attribution.edge_attribution import attribute_edges
from circuitspec.engine.attribution.node_attribution import attribute
from circuitspec.engine.attribution.restoration_screen import screen_both, screen_restorations
from circuitspec.engine.execution import memory
from circuitspec.engine.execution.batch_size import BUDGET, rows_per_batch
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.execution.memory import SHARE, PeakMemory, Rows, budget_of, free_bytes
from circuitspec.engine.metrics.answer_shares import answer_shares, what_is_said
from circuitspec.engine.runner import Runner
from circuitspec.engine.validation.row_independence import mixing
from circuitspec.experiments.experiment import Experiment, Site, Source
from circuitspec.graph.edges import Edge
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Mlp, Neuron
from tests.engine.support import Silent, loaded, model, random_prompts, runner, task_of
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
            run = Runner(loaded(m), task, rows=4, progress=runner(m, task).progress)
            run.rows.budget = budget
            original, seen = run.executor.forward, []

            def forward(inputs: Any, actions: Any) -> Any:
                seen.append(len(inputs["input_ids"]))
                return original(inputs, actions)

            run.executor.forward = forward  # type: ignore[method-assign]
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
        with pytest.raises(CircuitspecError, match=r"CS547.*prompt 0, 6 tokens long"):
            attribute(run, "clean", NOISING, "logit_diff", [Head(0, 1)], [ALL])


@pytest.mark.parametrize("most", [1, 2])
def test_screens_and_direct_effects_go_on_with_fewer_rows_where_memory_runs_out(most: int) -> None:
    """One loop for all that runs the model: each of these gives what it gives in whole batches."""
    m = model("gpt2", exactly=True)
    task = task_of(random_prompts(seed=9, lengths=[6] * 5))
    patched = Experiment("clean", NOISING, frozenset({Site(Head(0, 1), ALL), Site(Mlp(1), ALL)}))
    averaged = Experiment("clean", Source("mean", "abc"), frozenset({Site(Head(2, 0), ALL)}))
    sets = [[answers[:1] for answers in task.answers], list(task.wrong)]
    whole_stream = Experiment("clean", NOISING, frozenset({Site(Head(0, 1), ALL)}))
    each = {
        "screen": lambda run: screen_restorations(run, patched, "logit_diff").effects,
        "both": lambda run: screen_both(run, whole_stream, patched, "logit_diff")[1].effects,
        "direct": lambda run: direct_effects(run, [patched, averaged], "logit_diff")[averaged].effects,
        "shares": lambda run: dict(enumerate(answer_shares(run) or ())),
        "said": lambda run: {"probabilities": what_is_said(run, sets).probabilities},
    }
    for name, ask in each.items():
        with borrowed(m):
            expected = ask(runner(m, task, rows=5))
            short = runner(m, task, rows=5)
            tried = limited(short, most, cpu_allocator)
            found = ask(short)
        assert max(tried) == 5, name
        assert max(n for n in tried if n <= most) == most, name
        assert found.keys() == expected.keys(), name
        for key, value in expected.items():
            assert found[key] == pytest.approx(value, abs=1e-12), (name, key)
        assert short.progress.done <= short.progress.expected  # type: ignore[attr-defined]


def test_prompts_are_not_run_together_to_be_compared_where_no_two_fit() -> None:
    m = model("gpt2", exactly=True)
    with borrowed(m), torch.no_grad():
        run = runner(m, task_of(random_prompts(seed=9, lengths=[6, 5, 4])), rows=3)
        limited(run, 1, cpu_allocator)
        assert mixing(run) == ()
        assert run.rows.whole == 1
        limited(run, 0, cpu_allocator)
        with pytest.raises(CircuitspecError, match="CS547"):
            mixing(run)


GIB = 2**30
LLAMA_8B = ModelShape("llama", 32, 32, 8, d_model=4096, d_head=128, d_mlp=14336, n_vocab=128256)


@pytest.mark.parametrize(("free", "rows"), [(100 * GIB, 57), (10 * GIB, 5), (GIB, 1)])
def test_batches_are_as_large_as_free_memory_allows(monkeypatch: pytest.MonkeyPatch, free: int, rows: int) -> None:
    """A quarter of what is free; on a processor, where more rows gain little, half a GiB at most."""
    monkeypatch.setattr(memory, "free_bytes", lambda device: free)
    budget = budget_of(torch.device("cuda"))
    assert rows_per_batch(LLAMA_8B, 64, "bfloat16", budget) == rows
    assert rows_per_batch(LLAMA_8B, 64, "bfloat16", budget_of(torch.device("cpu"))) == 1
    m = model("gpt2", exactly=True)
    task = task_of(random_prompts(seed=9, lengths=[6] * 70))
    monkeypatch.setattr(memory, "free_bytes", lambda device: 64 * 1024 * 1024)
    run = Runner(loaded(m), task, progress=Silent())
    assert run.rows.whole == len(run.batches[0].prompts) == rows_per_batch(run.loaded.shape, 6, "float64", 2**24)
    assert Runner(loaded(m), task, progress=Silent(), edges=True).rows.whole <= run.rows.whole
