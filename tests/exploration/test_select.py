"""Choosing a circuit: the steps of it by hand, on shares that are given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from circuitspec.exploration.draft import fewest
from circuitspec.exploration.search.circuit_selection import (
    Choice,
    _crossing,
    closeness,
    fewer_entries,
    seen_to_help,
    spare_heads,
    undominated,
)
from circuitspec.exploration.search.component_sweep import ComponentSweep, Effect
from circuitspec.exploration.setting import ExplorationSetting
from circuitspec.graph.nodes import Ablatable
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Mlp

A, B, C = Head(0, 0), Head(1, 0), Head(2, 0)
SHARES = {
    frozenset({A, B, C}): 1.21,
    frozenset({B, C}): 0.95,
    frozenset({A, C}): 1.02,  # closest to the model, though another is smaller in no way
    frozenset({A, B}): 0.5,
    frozenset({C}): 0.91,
    frozenset({A}): 0.89,  # the target is missed
}


class Given:
    """A setting in which an experiment is the set of heads that it keeps."""

    lots = ()

    def sufficiency(self, kept: Mapping[Ablatable, Where]) -> frozenset[Ablatable]:
        return frozenset(component for component in kept if isinstance(component, Head))

    def run(self, experiments: Iterable[Any]) -> None:
        for experiment in experiments:
            assert experiment in SHARES

    def share(self, experiment: frozenset[Ablatable]) -> float:
        return SHARES[cast(frozenset[Head], experiment)]


def test_heads_are_spared_as_long_as_the_target_is_met() -> None:
    """A head goes with all of its positions; the way is the one that stays closest to 1, and MLPs are no heads."""
    choice = Choice(cast(ExplorationSetting, Given()))
    for entry in ((A, "END"), (A, "S2"), (B, "END"), (C, "END"), (Mlp(0), "END")):
        choice.entries[entry] = "positive"
    spare_heads(choice, 0.9)
    assert choice.entries == {(C, "END"): "positive", (Mlp(0), "END"): "positive"}
    assert sorted(len(entries) for entries in choice.tried.values()) == [2, 4]  # the circuits on the way
    assert set(choice.spared) == {(A, "END"), (A, "S2"), (B, "END")}


def test_only_what_was_seen_to_help_is_called_helpful() -> None:
    def effect(component: Ablatable, drop: float | None, rise: float | None, *roles: str) -> Effect:
        return Effect(component, Where.at(*(roles or ("END",))), 0.3, 0.3, drop, rise)

    own = ComponentSweep((effect(A, 0.2, -0.1), effect(B, 0.02, -0.16), effect(C, 0.2, 0.0, "S1", "S2")), (None, None))
    estimated = ComponentSweep((*own.effects, effect(Mlp(0), None, None), effect(Mlp(1), 0.001, 0.0)), (None, None))
    assert seen_to_help(estimated) == {(A, "END")}
    assert fewest(["a", "b", "c"], ["d"], 2, "helpful") == (
        "the fewest heads found that reach the target; helpful left out: a, b and 1 more; also left out: d"
    )
    assert fewest([], ["d"], 2, "helpful") == "the fewest heads found that reach the target; left out: d"
    assert fewest([], [], 2, "helpful") == ""


def test_the_frontier_is_what_none_beats() -> None:
    """Of the same size the closer one, and a larger one only where it is closer."""
    points = [(3, 0.94), (6, 0.80), (1, 0.5), (3, 0.9), (7, 0.94), (9, 0.99), (1, 0.5)]
    assert undominated(points) == [True, False, True, False, False, True, True]
    assert closeness(1.25) == closeness(0.75) == 0.75


class BySize:
    """A setting in which so many heads recover so much."""

    lots = ()

    def __init__(self, shares: Mapping[int, float]) -> None:
        self.shares, self.asked = shares, []  # type: ignore[var-annotated]

    def sufficiency(self, kept: Mapping[Ablatable, Where]) -> int:
        return len(kept)

    def run(self, experiments: Iterable[int]) -> None: ...

    def share(self, experiment: int) -> float:
        self.asked.append(experiment)
        return self.shares[experiment]


def test_between_two_sizes_the_smallest_that_meets_the_target_is_looked_for() -> None:
    """Of eight to sixteen few are in between: all are tried from below; of many, halves."""
    few = BySize({size: 0.1 * size for size in range(30)})
    choice = Choice(cast(ExplorationSetting, few), {(Head(0, number), "END"): "positive" for number in range(12)})
    assert len(_crossing(choice, 8, 0.95)) == 10  # 0.9 misses
    assert few.asked == [9, 10]
    many = BySize({size: 0.02 * size for size in range(60)})
    choice = Choice(cast(ExplorationSetting, many), {(Head(0, number), "END"): "positive" for number in range(50)})
    assert len(_crossing(choice, 10, 0.71)) == 36
    assert len(many.asked) < 12


def test_entries_go_one_by_one_until_the_next_would_miss_the_target() -> None:
    setting = BySize({5: 1.0, 4: 0.95, 3: 0.91, 2: 0.7, 1: 0.3})
    choice = Choice(cast(ExplorationSetting, setting), {(Head(0, number), "END"): "positive" for number in range(5)})
    fewer_entries(choice, 0.9)
    assert len(choice.entries) == 3
    assert sorted(map(len, choice.tried.values())) == [2, 3, 4]  # both sides of the target
    assert len(choice.spared) == 2


def test_the_knee_is_where_more_entries_stop_helping() -> None:
    """Closeness 0.1, 0.8, 0.85, 0.9 for 1 to 4 entries: the line from first to last is 0.1, 0.37, 0.63, 0.9."""
    shares = {1: 0.1, 2: 0.8, 3: 1.15, 4: 0.9, 5: 1.5}  # the last recovers most, and is furthest from the model
    entries = [(Head(layer, 0), "END") for layer in range(5)]

    class Sized:
        def share(self, experiment: int) -> float:
            return shares[experiment]

    def tried(needed: int) -> int:
        choice = Choice(cast(ExplorationSetting, Sized()))
        choice.tried = {cast(Any, size): dict.fromkeys(entries[:size], "positive") for size in shares}
        choice.entries = dict.fromkeys(entries, "positive")
        choice.take_knee(entries[:needed])
        return len(choice.entries)

    assert tried(0) == 2
    assert tried(3) == 3  # of 3, 4 and 5: 4 is the closest, and no point lies above the line from 3
    assert tried(5) == 5
