"""Means over other prompts than those that are run, and over parts of them, against the oracle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.cache.store_keys import Keys
from circuitspec.engine.runner import Runner
from circuitspec.experiments.averaging import BLOCKS, CELLS, grouping
from circuitspec.experiments.experiment import Experiment, Own, Part, Site, Source, SourceKind, Without, passes
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Mlp
from circuitspec.prompts.prompt_set import TokenizedTask
from tests.engine.support import Silent, assert_same, loaded, model, oracle_sites, task_of
from tests.engine.test_store_keys import SETTING
from tests.oracle import families, metrics, node

SITES = frozenset(
    {Site(Head(0, 1), Where.everywhere()), Site(Head(1, 0), Where.at("A")), Site(Mlp(1), Where.at("END"))}
)


def prompts_of(seed: int, layouts: Sequence[tuple[int, int, int]]) -> list[node.Prompt]:
    """Random tokens; each prompt has a template, a length and a place of the position A."""
    rng = np.random.default_rng(seed)
    found = []
    for template, length, place in layouts:
        clean, corrupt = (rng.integers(0, 60, length).tolist() for _ in range(2))
        answers = rng.choice(60, 4, replace=False).tolist()
        roles = {"A": place, "END": length - 1}
        found.append(node.Prompt(clean, corrupt, template, answers[:2], answers[2:], roles))
    return found


SCORED = prompts_of(1, [(0, 5, 1), (1, 6, 2), (0, 5, 1), (1, 6, 2), (0, 6, 3), (0, 6, 3)])
OTHERS = prompts_of(2, [(0, 5, 1), (1, 6, 2), (0, 6, 3)] * 7 + [(1, 5, 1), (0, 6, 1), (0, 7, 1)])  # the last like none


def referring(scored: list[node.Prompt], others: list[node.Prompt]) -> TokenizedTask:
    return replace(task_of(scored), reference=task_of(others))


def mean_of(kind: SourceKind, part: Part | None = None) -> Experiment:
    return Experiment("clean", Source(kind, "abc", part), SITES)


def expected(
    scored: list[node.Prompt], averaged: list[list[node.Prompt]], experiment: Experiment
) -> dict[str, np.ndarray]:
    """By the oracle: each prompt with the means over the corrupt prompts that are given for it."""
    net = families.read(model("gpt2"))
    rows = []
    for prompt, own in zip(scored, averaged, strict=True):
        values = node.mean_values(net, [one.corrupt for one in own])
        logits = node.noise(net, prompt.clean, values, oracle_sites(prompt, experiment))[-1].numpy()
        clean = node.forward(net, prompt.clean).logits[-1].numpy()
        rows.append(metrics.metrics(logits, prompt.answers, prompt.wrong, clean))
    return metrics.columns(rows)


def alike(prompt: node.Prompt, others: list[node.Prompt]) -> list[int]:
    layout = (prompt.template, len(prompt.clean), prompt.roles)
    return [i for i, one in enumerate(others) if (one.template, len(one.clean), one.roles) == layout]


def measured(
    task: TokenizedTask, experiment: Experiment, *, rows: int = 4, side: str = "right"
) -> dict[str, np.ndarray]:
    progress = Silent()
    runner = Runner(loaded(model("gpt2")), task, rows=rows, progress=progress, side=side, parted=True)  # type: ignore[arg-type]
    found = dict(runner.run([experiment])[experiment])
    assert progress.done <= progress.expected
    return found


@pytest.mark.parametrize("side", ["right", "left"])
def test_means_are_those_of_the_reference_prompts_of_the_same_layout(side: str) -> None:
    experiment = mean_of("mean_per_template")
    own = [[OTHERS[i] for i in alike(prompt, OTHERS)] for prompt in SCORED]
    assert {len(one) for one in own} == {7}
    assert_same(measured(referring(SCORED, OTHERS), experiment, side=side), expected(SCORED, own, experiment))


def test_a_mean_over_all_takes_the_reference_prompts_of_the_same_length() -> None:
    scored = [prompt for prompt in SCORED if len(prompt.clean) == 6]
    experiment = mean_of("mean")
    own = [[one for one in OTHERS if len(one.clean) == 6]] * len(scored)
    assert_same(measured(referring(scored, OTHERS), experiment), expected(scored, own, experiment))


@pytest.mark.parametrize("part", [Own(4), Own(2)])
def test_each_prompt_is_given_the_mean_of_one_part_of_the_reference(part: Own) -> None:
    task, experiment = referring(SCORED, OTHERS), mean_of("mean_per_template", part)
    groups = grouping(task, "mean_per_template")
    own = [
        [OTHERS[j] for j in alike(prompt, OTHERS) if groups.cells[j] % part.blocks == groups.blocks[i] % part.blocks]
        for i, prompt in enumerate(SCORED)
    ]
    assert all(1 <= len(one) <= 4 for one in own)
    assert_same(measured(task, experiment), expected(SCORED, own, experiment))


def test_a_part_of_the_scored_prompts_is_left_out_of_their_means() -> None:
    scored = prompts_of(3, [(0, 5, 1), (1, 6, 2)] * 3)
    groups = grouping(task_of(scored), "mean_per_template")
    for cell in (0, groups.n_cells - 1):
        experiment = mean_of("mean_per_template", Without(cell, groups.n_cells))
        own = [[scored[j] for j in alike(prompt, scored) if groups.cells[j] != cell] for prompt in scored]
        assert sorted(map(len, own))[0] == 2
        assert_same(measured(task_of(scored), experiment), expected(scored, own, experiment))


def test_parts_are_disjoint_cover_all_and_are_balanced_in_every_group() -> None:
    task = referring(SCORED, OTHERS)
    groups = grouping(task, "mean_per_template")
    assert groups.n_cells == BLOCKS
    assert groups.averaged[-3:] == (None, None, None)
    assert groups.used == tuple(range(21))
    for group in set(groups.scored):
        cells = [cell for cell, own in zip(groups.cells, groups.averaged, strict=True) if own == group]
        counts = [cells.count(cell) for cell in range(BLOCKS)]
        assert max(counts) - min(counts) <= 1
    assert groups.spread(None) == pytest.approx(1 / 7)
    many = grouping(task_of(prompts_of(4, [(0, 5, 1)] * 40)), "mean")
    assert many.n_cells == CELLS
    assert many.blocks == many.cells
    assert many.spread(Own(2)) == pytest.approx(1 / 20)


def test_a_layout_of_which_the_reference_has_one_prompt_is_an_error() -> None:
    with pytest.raises(CircuitspecError) as error:
        grouping(referring(SCORED, OTHERS[:4]), "mean_per_template")
    (finding,) = error.value.diagnostics
    assert finding.code == "CS522"
    assert "reference" in finding.message
    assert "reference: N" in finding.hint


def test_parts_of_a_mean_share_its_pass() -> None:
    runs = (mean_of("mean"), mean_of("mean", Own(4)), mean_of("mean", Own(2)))
    assert passes(runs, averaged=3.5) == 1 + 3 + 3.5
    assert len({run.digest for run in runs}) == 3


def test_stored_values_belong_to_the_reference_that_they_were_measured_with() -> None:
    before, other = referring(SCORED, OTHERS), referring(SCORED, OTHERS[:-3])
    keys = [Keys(SETTING, task) for task in (before, other, task_of(SCORED))]
    mean, resampled = mean_of("mean_per_template"), Experiment("clean", Source("resample", "abc"), SITES)
    assert len({key.of(mean) for key in keys}) == 3
    assert len({key.of(resampled) for key in keys}) == 1
    moved = replace(
        before, reference=replace(task_of(OTHERS), roles={**task_of(OTHERS).roles, "A": (0,) * len(OTHERS)})
    )
    assert Keys(SETTING, moved).of(mean) != keys[0].of(mean)
