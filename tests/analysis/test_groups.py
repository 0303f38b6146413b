from __future__ import annotations

import numpy as np
import pytest

from circuitspec.analysis.statistics.prompt_groups import (
    PERMUTATIONS,
    Grouping,
    Runs,
    by_answer_order,
    by_template,
    group_scores,
    heterogeneity,
)
from circuitspec.prompts.prompt_set import Prompt, PromptSet


def prompt_set(texts: list[str], answer: str = " Mary", wrong: str = " John") -> PromptSet:
    prompts = [Prompt(i, i % 2, {"clean": text}, (answer,), (wrong,)) for i, text in enumerate(texts)]
    return PromptSet(tuple(prompts), (), ("one {A}", "two {B}"))


def test_templates_are_labelled_by_their_text() -> None:
    templates = np.array([0, 2, 2, 0])
    assert by_template(templates).labels == ("template 0", "template 2")
    grouping = by_template(templates, PromptSet((), (), ("a", "b", "c")))
    assert grouping.labels == ("a", "c")
    assert [list(grouping.of(g)) for g in (0, 1)] == [[True, False, False, True], [False, True, True, False]]


def test_the_order_in_which_the_answers_are_named() -> None:
    first, second = "Mary and John met. John gave", "John and Mary met. John gave"
    grouping = by_answer_order(prompt_set([first, second, second, first, "Nobody met. He gave", "Mary alone"]))
    assert grouping is not None
    assert list(grouping.member) == [0, 1, 1, 0, -1, -1]


@pytest.mark.parametrize(
    "texts",
    [
        ["Mary and John"] * 5,
        ["Mary and John"] * 5 + ["John and Mary"],  # a single prompt is no group
        ["Marylin and John"] * 2 + ["John and Maryland"] * 2,  # answers are words
        ["nothing"] * 4,
    ],
)
def test_prompts_without_two_orders(texts: list[str]) -> None:
    assert by_answer_order(prompt_set(texts)) is None


def test_answers_may_hold_any_characters() -> None:
    texts = ["is it C++ or C# ?"] * 2 + ["is it C# or C++ ?"] * 2
    grouping = by_answer_order(prompt_set(texts, " C++", " C#"))
    assert grouping is not None
    assert list(grouping.member) == [0, 0, 1, 1]


def runs(shares: list[float], per_group: int, noise: float = 0.0, seed: int = 0) -> tuple[Runs, Grouping]:
    """Every group recovers its share exactly but for the noise."""
    dice = np.random.default_rng(seed)
    member = np.repeat(np.arange(len(shares)), per_group)
    zero = dice.normal(0, 1, len(member))
    one = zero + 4 + dice.normal(0, 1, len(member))
    patched = zero + np.asarray(shares)[member] * (one - zero) + noise * dice.normal(0, 1, len(member))
    labels = tuple(f"group {g}" for g in range(len(shares)))
    return Runs(patched, zero, one), Grouping("group", labels, member)


def test_each_group_is_measured_between_its_own_anchors() -> None:
    scores = group_scores(*runs([0.5, 0.9], 20))
    assert [(s.label, s.n) for s in scores] == [("group 0", 20), ("group 1", 20)]
    assert [s.recovered.value for s in scores if s.recovered] == pytest.approx([0.5, 0.9])


def test_a_group_without_a_gap_of_its_own_has_no_ratio() -> None:
    measured, grouping = runs([0.5, 0.9, 0.9], 20)
    flat = np.where(grouping.of(2), measured.zero, measured.one)
    scores = group_scores(Runs(measured.patched, measured.zero, flat), grouping)
    assert [s.recovered is None for s in scores] == [False, False, True]
    inverted = np.where(grouping.of(2), measured.zero - 1, measured.one)
    assert group_scores(Runs(measured.patched, measured.zero, inverted), grouping)[2].recovered is None


def test_spread_between_groups_by_hand() -> None:
    """Two groups that recover 0.7 and 1.1, all prompts alike: the standard deviation of two values is 0.4 / sqrt 2."""
    zero, one = np.zeros(40), np.full(40, 5.0)
    member = np.repeat([0, 1], 20)
    measured = Runs(np.where(member == 0, 3.5, 5.5), zero, one)
    found = heterogeneity(measured, Grouping("", ("a", "b"), member))
    assert found is not None
    assert found.spread == pytest.approx(0.4 / 2**0.5)
    assert found.p_value == pytest.approx(1 / (PERMUTATIONS + 1))


def test_a_spread_below_what_matters_is_not_tested() -> None:
    found = heterogeneity(*runs([0.9, 0.92], 50), at_least=0.1)
    assert found is not None
    assert found.p_value == 1.0
    assert found.spread == pytest.approx(0.02 / 2**0.5, rel=1e-3)


def test_groups_that_cannot_be_compared() -> None:
    measured, _ = runs([0.5, 0.9], 3)
    assert heterogeneity(measured, Grouping("", ("a",), np.zeros(6, dtype=np.int64))) is None
    assert heterogeneity(measured, Grouping("", tuple("abcdef"), np.arange(6))) is None  # one prompt each
    nobody = Grouping("", ("a", "b"), np.full(6, -1))
    assert heterogeneity(measured, nobody) is None


def test_the_spread_of_many_small_groups_is_not_that_of_their_noise() -> None:
    """30 groups of 3 prompts that recover the same: their figures scatter by 0.14, the spread does not."""
    spreads = [heterogeneity(*runs([0.9] * 30, 3, noise=1.0, seed=seed), at_least=1.0) for seed in range(20)]
    assert np.mean([s.spread for s in spreads if s is not None]) < 0.06


def test_p_values_are_uniform_where_groups_do_not_differ() -> None:
    p_values = []
    for seed in range(200):
        found = heterogeneity(*runs([0.9] * 5, 8, noise=1.0, seed=seed))
        assert found is not None
        if found.spread > 0:  # where the spread is zero p is 1, which is the other half of the distribution
            p_values.append(found.p_value)
    rejected = np.sum(np.asarray(p_values) <= 0.05) / 200
    assert 0.01 <= rejected <= 0.1
    assert np.sum(np.asarray(p_values) <= 0.2) / 200 == pytest.approx(0.2, abs=0.09)
