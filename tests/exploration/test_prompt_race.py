"""Racing over prompts: what is dropped early, what is measured in full, and what each look may say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from circuitspec.analysis.statistics.looks import ends_at_look, looks_of
from circuitspec.engine.cache.stored_runner import StoredRunner
from circuitspec.engine.records import Records
from circuitspec.experiments.experiment import Experiment, Source, passes
from circuitspec.experiments.levels.node_level import ablating
from circuitspec.exploration.forward_budget import Allowance
from circuitspec.exploration.search.prompt_race import Racer, race
from circuitspec.exploration.setting import CLEAN, ExplorationSetting
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head

N = 60
TEMPLATES = np.arange(N) % 4
CORRUPT = Experiment("abc")


def run_of(head: int) -> Experiment:
    return ablating(Source("resample", "abc"), {Head(0, head): Where.at("END")})


class Planted:
    """Runs that are looked up: `[prompt]` by experiment. `asked` are the prompts that each was run on."""

    def __init__(self, values: dict[Experiment, NDArray[np.float64]]) -> None:
        self.values, self.asked = values, dict[Experiment, list[int]]()
        self.taken = 0.0

    def run(self, experiments: Iterable[Experiment], among: Sequence[int] | None = None) -> Records:
        prompts = list(range(N) if among is None else among)
        wanted = tuple(experiments)
        for experiment in wanted:
            self.asked.setdefault(experiment, []).extend(prompts)
        self.taken += passes(wanted) * len(prompts) / N
        return Records({e: {"logit_diff": self.values[e][prompts]} for e in wanted}, TEMPLATES[prompts])


def setting_of(planted: Planted, limit: float | None = None) -> ExplorationSetting:
    runner = cast(Any, type("R", (), {"task": type("T", (), {"n": N})(), "templates": TEMPLATES}))
    return ExplorationSetting(
        runner,
        cast(StoredRunner, planted),
        "logit_diff",
        (),
        ("END",),
        Source("resample", "abc"),
        "abc",
        Allowance(limit, lambda: planted.taken),
        lots=looks_of(TEMPLATES),
    )


def racer(head: int) -> Racer:
    return Racer(run_of(head), CLEAN, CORRUPT, falls=True)


def planted(**effects: float) -> Planted:
    """Heads whose ablation takes so much of a difference of 4 away on each prompt, and some noise."""
    noise = np.random.default_rng(3).normal(size=(len(effects) + 1, N))
    clean = 4.0 + 0.3 * noise[-1]
    values = {CLEAN: clean, CORRUPT: np.zeros(N)}
    for head, (effect, own) in enumerate(zip(effects.values(), noise, strict=False)):
        values[run_of(head)] = clean - 4.0 * (effect + 0.02 * own)
    return Planted(values)


def test_prompts_come_in_by_turns_of_their_templates() -> None:
    lots = looks_of(TEMPLATES)
    assert [len(lot) for lot in lots] == [12, 18, 30]
    assert sorted(prompt for lot in lots for prompt in lot) == list(range(N))
    assert np.bincount(TEMPLATES[list(lots[0])]).tolist() == [3, 3, 3, 3]
    uneven = looks_of(np.array([0] * 50 + [1] * 4))
    assert set(uneven[0]) >= {50, 51, 52, 53}  # a template with few prompts is looked at first with the others
    assert looks_of(np.zeros(20, dtype=np.int64)) == (tuple(range(20)),)
    assert [len(lot) for lot in looks_of(np.zeros(40, dtype=np.int64))] == [12, 28]


def test_what_does_nothing_is_dropped_early_and_the_rest_is_known_of_all_prompts() -> None:
    runs = planted(nothing=0.0, large=0.4, negative=-0.3, near=0.05)
    setting = setting_of(runs)
    found = race(setting, [racer(head) for head in range(4)], 0.05)
    nothing, large, negative, near = (found[racer(head)] for head in range(4))
    assert nothing.by == 12
    assert (large.by, negative.by, near.by) == (None, None, None)
    first = list(looks_of(TEMPLATES)[0])
    clean, corrupt = runs.values[CLEAN], runs.values[CORRUPT]
    changes = clean - runs.values[run_of(0)]
    assert nothing.effect == pytest.approx(changes[first].mean() / (clean - corrupt)[first].mean(), abs=1e-12)
    for head, one in ((1, large), (2, negative), (3, near)):
        assert one.effect == pytest.approx((clean - runs.values[run_of(head)]).mean() / clean.mean(), abs=1e-12)
        assert sorted(runs.asked[run_of(head)]) == list(range(N))  # each prompt once
        np.testing.assert_array_equal(setting.values(run_of(head)), runs.values[run_of(head)])
    assert runs.asked[run_of(0)] == first


def test_what_an_estimate_calls_large_is_not_dropped_at_the_first_look() -> None:
    runs = planted(nothing=0.0)
    doubted = Racer(run_of(0), CLEAN, CORRUPT, falls=True, doubted=True)
    assert race(setting_of(runs), [doubted], 0.05)[doubted].by == 30


def test_a_score_that_falls_with_what_is_right_is_raced_as_well() -> None:
    """KL and the like: effects as shares of the whole have the sign that they have for a score turned over."""
    runs = planted(nothing=0.0, large=0.4)
    turned = Planted({experiment: -values for experiment, values in runs.values.items()})
    for head in (0, 1):
        one, other = (race(setting_of(p), [racer(head)], 0.05)[racer(head)] for p in (runs, turned))
        assert other == one


def test_without_lots_all_is_run_on_all_prompts() -> None:
    runs = planted(nothing=0.0)
    setting = setting_of(runs)
    setting.lots = ()
    assert race(setting, [racer(0)], 0.05)[racer(0)].by is None
    assert runs.asked[run_of(0)] == list(range(N))


def test_what_was_dropped_is_completed_where_all_of_it_is_asked_for() -> None:
    runs = planted(nothing=0.0)
    setting = setting_of(runs)
    race(setting, [racer(0)], 0.05)
    np.testing.assert_array_equal(setting.values(run_of(0)), runs.values[run_of(0)])
    assert sorted(runs.asked[run_of(0)]) == list(range(N))


def test_where_the_allowance_ends_the_last_are_missing() -> None:
    runs = planted(**{f"h{i}": 0.4 for i in range(10)})
    setting = setting_of(runs, limit=12)
    found = race(setting, [racer(head) for head in range(10)], 0.05)
    assert 0 < len(found) < 10
    assert list(found) == [racer(head) for head in range(len(found))]
    assert runs.taken <= 12


def test_a_look_has_its_part_of_the_chance_to_be_wrong() -> None:
    """Two looks at 95 %: each end of each is wrong in 1.25 of 100 samples, by Student's t."""
    values = np.random.default_rng(0).uniform(size=(3, 12))  # no long tails: 11 degrees of freedom
    below, above = ends_at_look(values, 2)
    half = stats.t.ppf(1 - 0.0125, 11) * values.std(1, ddof=1) / np.sqrt(12)
    np.testing.assert_allclose(below, values.mean(1) - half)
    np.testing.assert_allclose(above, values.mean(1) + half)
    low, high = ends_at_look(np.full((1, 12), 0.25), 2)
    assert low == high == 0.25
