"""Compensation by hand: direct effects are made up, and what grows, and by how much, is known."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from circuitspec.analysis.circuit_effects.backup_behaviour import (
    KNOCKED_OUT,
    Knockable,
    Knockout,
    declared_backup,
    direct_effect,
    growth,
    knockout,
    standing,
    worth_knocking_out,
)
from circuitspec.engine.attribution.direct_contributions import DirectRun, Part
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.members import Effect, Member
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Input, Mlp

N = 60
SHAPE = ModelShape(
    family="gpt2", n_layers=3, n_heads=2, n_kv_heads=2, d_model=8, d_head=4, d_mlp=16, n_vocab=50, max_positions=32
)
PARTS: tuple[Part, ...] = (
    Input(),
    *(part for layer in range(3) for part in (Head(layer, 0), Head(layer, 1), Mlp(layer))),
)
MAIN, LATER, LAST = Head(1, 0), Head(2, 1), Mlp(2)
OUT = Knockable("main", frozenset({MAIN}), frozenset({"main"}))
GAP = 10.0


def run(
    effects: Mapping[Part, float], patched: tuple[Part, ...] = (), rest: float = 0.0, noise: float = 0.3, seed: int = 0
) -> DirectRun:
    """Every part at its mean, with a spread of its own; the metric is their sum and `rest`."""
    values = {}
    for number, part in enumerate(PARTS):
        spread = np.random.default_rng([seed, number]).normal(0, noise, N)
        values[part] = effects.get(part, 0.0) + spread - spread.mean()
    where = {part: np.ones(N, dtype=np.bool_) for part in patched}
    return DirectRun(values, np.zeros(N), where, np.asarray(sum(values.values())) + rest)


def graph(declared: Mapping[Head | Mlp, tuple[str, Effect]], free: tuple[Mlp, ...] = ()) -> CircuitGraph:
    members = [Member(c, Where.everywhere(), group, effect) for c, (group, effect) in declared.items()]
    return CircuitGraph(SHAPE, tuple(members), frozenset(free))


ALONE = graph({MAIN: ("main", "positive")})
CLEAN = run({MAIN: 8, LATER: 0, LAST: 2})


def out(
    effects: Mapping[Part, float], circuit: CircuitGraph = ALONE, rest: float = 0.0, clean: DirectRun = CLEAN
) -> Knockout:
    found = knockout(OUT, clean, run(effects, (MAIN,), rest, seed=1), circuit, GAP)
    assert found is not None
    return found


def test_the_hydra_papers_share() -> None:
    """8 are lost, a later head brings 5 back and the norm 0.6: the total effect is 2.4, and 0.7 is compensated."""
    found = out({MAIN: 0, LATER: 5, LAST: 2}, rest=0.6)
    assert found.direct == pytest.approx(8)
    assert found.total.value == pytest.approx(8 - 5 - 0.6)
    assert found.compensated.value == pytest.approx(0.7)
    assert found.by_components is not None
    assert found.by_components.value == pytest.approx(5 / 8)
    (by,) = found.compensators
    assert (by.component, by.standing) == ("a2.h1", "outside the circuit")
    assert by.growth == pytest.approx(5)
    assert by.share == pytest.approx(5 / 8)
    assert by.p_adjusted < 1e-6
    assert found.reached == 4  # the MLP of the same layer, and layer 2


def test_where_nothing_reacts_the_total_effect_is_the_direct_one() -> None:
    found = out({MAIN: 0, LATER: 0, LAST: 2})
    assert found.compensated.value == pytest.approx(0, abs=1e-9)
    assert (found.by_components, found.compensators) == (None, ())


def test_what_falls_with_it_makes_nothing_up() -> None:
    """The MLP read what the head wrote: the total effect is larger than the direct one."""
    found = out({MAIN: 0, LATER: 0, LAST: -1})
    assert found.compensated.value == pytest.approx(-3 / 8)
    assert found.compensators == ()


def test_for_what_hurts_growth_is_in_the_other_direction() -> None:
    clean = run({MAIN: -4, LATER: 3, LAST: 2})
    found = out({MAIN: 0, LATER: 1, LAST: 2}, clean=clean)
    assert found.direct == pytest.approx(-4)
    assert found.compensated.value == pytest.approx(0.5)
    (by,) = found.compensators
    assert by.component == "a2.h1"
    assert by.share == pytest.approx(0.5)
    assert by.growth == pytest.approx(-2)


def test_earlier_components_and_small_or_doubtful_growth_are_not_named() -> None:
    assert out({MAIN: 0, LATER: 0.3, LAST: 2}).compensators == ()  # 0.04 of what was lost
    assert out({MAIN: 0, LAST: 2, Head(0, 0): 3, Head(1, 1): 3}).compensators == ()  # no path leads there
    noisy = knockout(OUT, CLEAN, run({MAIN: 0, LATER: 1, LAST: 2}, (MAIN,), noise=20, seed=1), ALONE, GAP)
    assert noisy is not None
    assert noisy.compensators == ()


def test_significance_counts_all_that_could_have_reacted() -> None:
    """A growth with p of 0.02 is named when it is the only later component, and not among three."""
    clean, ko = run({MAIN: 8}), run({MAIN: 0}, (MAIN,), seed=1)
    spread = (ko.effects[LATER] - clean.effects[LATER]) * 4
    grown = spread + 2.1 * spread.std(ddof=1) / np.sqrt(N)
    for later, named in (((), True), (PARTS[7:], False)):
        kept = (Input(), MAIN, LATER, *later)
        one = DirectRun({p: clean.effects[p] for p in kept}, clean.constant, {}, clean.metric)
        other = {p: clean.effects[p] if p != MAIN else ko.effects[p] for p in kept} | {
            LATER: clean.effects[LATER] + grown
        }
        two = DirectRun(other, clean.constant, ko.patched, ko.metric)
        found = knockout(OUT, one, two, ALONE, 0.001)
        assert found is not None
        assert grown.mean() > 0.05 * 8
        assert bool(found.compensators) is named


def test_only_what_is_patched_at_the_answer_counts_as_lost() -> None:
    clean, ko = run({MAIN: 8}), run({MAIN: 0}, (MAIN,), seed=1)
    half = np.arange(N) % 2 == 0
    partly = DirectRun(ko.effects, ko.constant, {MAIN: half}, ko.metric)
    change = clean.effects[MAIN] - ko.effects[MAIN]
    np.testing.assert_allclose(direct_effect({MAIN}, clean, partly), np.where(half, change, 0))
    np.testing.assert_allclose(growth(MAIN, clean, partly), np.where(half, 0, -change))
    assert not direct_effect({LATER}, clean, partly).any()


def test_what_is_worth_a_run_of_its_own() -> None:
    many = [Knockable(f"g{i}", frozenset({part}), frozenset({f"g{i}"})) for i, part in enumerate(PARTS[1:])]
    sizes = dict(zip(PARTS[1:], (3.0, 0.4, -3.0, 0.6, 0.0, 1.0, 2.0, 4.0, 5.0), strict=True))
    all_out = run({}, tuple(PARTS[1:]), seed=1)
    chosen = worth_knocking_out(many, run(sizes), all_out, GAP)
    assert [out.name for out in chosen] == ["g0", "g2", "g3", "g5", "g6", "g7", "g8"]  # 0.05 of 10 or more, in order
    more = [Knockable(f"{i}", frozenset({MAIN}), frozenset()) for i in range(KNOCKED_OUT + 3)]
    assert len(worth_knocking_out(more, run({MAIN: 3}), all_out, GAP)) == KNOCKED_OUT
    unsure = run({MAIN: 1}, noise=30, seed=3)
    assert worth_knocking_out(more, unsure, run({}, (MAIN,), noise=30, seed=4), GAP) == ()


@pytest.mark.parametrize(
    ("circuit", "either", "expected"),
    [
        (ALONE, (), "outside the circuit"),
        (graph({MAIN: ("main", "positive"), LATER: ("other", "positive")}), (), "in the circuit"),
        (graph({MAIN: ("main", "positive"), LATER: ("other", "backup")}), (), "backup"),
        (graph({MAIN: ("main", "positive"), LATER: ("other", "negative")}), (), "backup"),
        (graph({MAIN: ("main", "positive"), LATER: ("other", "positive")}), ({"main", "other"},), "backup"),
        (graph({MAIN: ("main", "positive"), LATER: ("other", "positive")}), ({"a1.h0", "a2.h1"},), "backup"),
        (graph({MAIN: ("main", "positive"), LATER: ("other", "positive")}), ({"main", "third"},), "in the circuit"),
    ],
)
def test_what_the_hypothesis_says_of_it(circuit: CircuitGraph, either: tuple[set[str], ...], expected: str) -> None:
    assert standing(LATER, OUT, circuit, [frozenset(pair) for pair in either]) == expected


def test_free_components_are_told_apart() -> None:
    assert standing(LAST, OUT, graph({MAIN: ("main", "positive")}, free=(LAST,))) == "free"


def test_a_knockout_without_direct_effect_has_no_shares() -> None:
    same = DirectRun(CLEAN.effects, CLEAN.constant, {}, CLEAN.metric)
    assert knockout(OUT, CLEAN, same, ALONE, GAP) is None


# -- declared backups ---------------------------------------------------------------------------


def test_a_declared_backup_grows_under_one_of_the_knockouts() -> None:
    other = Knockable("other", frozenset({Head(1, 1)}), frozenset({"other"}))
    clean = run({MAIN: 8, Head(1, 1): 2})
    runs = {
        other: run({MAIN: 8}, (Head(1, 1),), seed=2),
        OUT: run({Head(1, 1): 2, LATER: 3}, (MAIN,), seed=1),
    }
    check = declared_backup("stand_in", {LATER}, clean, runs, GAP)
    assert (check.knocked_out, check.grows, check.holds) == ("main", True, True)
    assert check.growth is not None
    assert check.growth.value == pytest.approx(3)


def test_a_declared_backup_that_stays_as_it_is() -> None:
    check = declared_backup("stand_in", {LATER}, CLEAN, {OUT: run({LAST: 2}, (MAIN,), seed=1)}, GAP)
    assert (check.grows, check.holds) == (False, False)
    assert check.growth is not None
    assert check.growth.value == pytest.approx(0, abs=1e-9)


def test_without_a_knockout_nothing_is_known() -> None:
    check = declared_backup("stand_in", {LATER}, CLEAN, {}, GAP)
    assert (check.knocked_out, check.growth, check.holds) == (None, None, False)


def test_of_a_knocked_out_helper_growth_is_upwards_and_of_a_negative_one_downwards() -> None:
    clean = run({MAIN: -4, LATER: 3})
    check = declared_backup("stand_in", {LATER}, clean, {OUT: run({LATER: 1}, (MAIN,), seed=1)}, GAP)
    assert check.grows
