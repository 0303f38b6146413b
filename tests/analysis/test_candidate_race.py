"""Candidates that the first prompts show to be no negatives are run on no others; the rest as if nothing were raced."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pytest

from circuitspec.analysis.circuit_effects.candidate_race import raced
from circuitspec.analysis.statistics.looks import looks_of
from circuitspec.engine.records import Records
from circuitspec.experiments.experiment import Experiment, Source
from circuitspec.experiments.levels.node_level import ablating
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head

N = 60
TEMPLATES = np.arange(N) % 2
BASE = 4.0 + np.cos(np.arange(N))
LEAST = np.full(N, -0.08)  # 0.02 of clean - corrupt, downwards
HEADS = {name: Head(0, number) for number, name in enumerate(("idle", "helpful", "negative", "near"))}
RUNS = {head: ablating(Source("resample", "abc"), {head: Where.at("END")}) for head in HEADS.values()}
WIGGLE = 0.02 * np.sin(5.0 * np.arange(N))
CHANGES = {"idle": 0.0, "helpful": 0.5, "negative": -0.4, "near": -0.08}


class Recorded:
    """Runs whose scores are given; how many prompts each was run on."""

    def __init__(self) -> None:
        self.values = {RUNS[HEADS[name]]: BASE + change + WIGGLE for name, change in CHANGES.items()}
        self.asked: dict[Experiment, list[int]] = {}

    def run(self, experiments: Iterable[Experiment], among: Sequence[int] | None = None) -> Records:
        prompts = list(range(N) if among is None else among)
        found = {}
        for experiment in experiments:
            self.asked.setdefault(experiment, []).extend(prompts)
            found[experiment] = {"logit_diff": self.values[experiment][prompts]}
        return Records(found, TEMPLATES[prompts])


def test_what_cannot_be_negative_enough_is_not_run_on_all_prompts() -> None:
    runner, lots = Recorded(), looks_of(TEMPLATES)
    found = raced(RUNS, "logit_diff", BASE, LEAST, TEMPLATES, runner, lots)
    idle, helpful, negative, near = (HEADS[name] for name in CHANGES)
    first = list(lots[0])
    assert set(found.dropped) == {idle, helpful}
    for head, change in ((idle, 0.0), (helpful, 0.5)):
        assert found.dropped[head] == (pytest.approx(change + WIGGLE[first].mean()), 12)
    assert set(found.measured.values) == {RUNS[negative], RUNS[near]}
    for head in (negative, near):
        np.testing.assert_array_equal(found.measured[RUNS[head]]["logit_diff"], runner.values[RUNS[head]])
        assert sorted(runner.asked[RUNS[head]]) == list(range(N))
    assert len(runner.asked[RUNS[idle]]) == len(runner.asked[RUNS[helpful]]) == 12
    np.testing.assert_array_equal(found.measured.templates, TEMPLATES)


def test_with_few_prompts_all_are_run_at_once() -> None:
    runner = Recorded()
    found = raced(RUNS, "logit_diff", BASE, LEAST, TEMPLATES, runner, ())
    assert not found.dropped
    assert set(found.measured.values) == set(RUNS.values())
