"""What the draws of a scrubbed circuit come to: the ratio of means, its interval over prompts, and single prompts."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import ArrayLike

from circuitspec.analysis.claims.abstraction.scrub_costs import costs_of
from circuitspec.analysis.claims.abstraction.scrubbed import PlannedScrub, ScrubbedClaims, figures_of, mean_over
from circuitspec.analysis.claims.verdict import judge
from circuitspec.analysis.statistics import stats
from circuitspec.analysis.warnings.abstraction.scrubbing_warnings import cancelled
from circuitspec.engine.records import Records, with_means
from circuitspec.experiments.experiment import Experiment, PathRule, Reading, Sent, values_in
from circuitspec.experiments.follow_ups.scrub_parts import Narrowed, ScrubPart, ScrubRuns
from circuitspec.experiments.levels.scrub_level import ScrubDraw
from circuitspec.experiments.levels.scrub_tree import ScrubTree
from circuitspec.experiments.planner import Plan
from circuitspec.graph.edges import Receiver
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Logits
from circuitspec.hypothesis_file.schema.abstraction.scrubbed_block import Scrubbed
from circuitspec.prompts.scrubbing.drawn_prompts import DrawnPrompts
from tests.analysis.support import CLEAN, evidence, make_records

N = 40


def draw(number: int) -> ScrubDraw:
    random = DrawnPrompts(None, (), ("abc",), "logits", number, 0)
    own = DrawnPrompts(None, ("S1",), ("abc",), "a0.h0 -> logits", number, 0)
    sent = frozenset({Sent(Head(0, 0), Where.everywhere(), prompts=own.variant)})
    scrubbed = Experiment(
        "clean",
        values_in(random.variant),
        readings=frozenset({Reading(Receiver(Logits()), sent)}),
        rule=PathRule("source", through_mlps=False),
    )
    return ScrubDraw(scrubbed, Experiment(random.variant), (), (random,))


DRAWS = (draw(0), draw(1))
SCRUBBED, RANDOM = mean_over([d.scrubbed for d in DRAWS]), mean_over([d.nothing_kept for d in DRAWS])


def planned(**bounds: float) -> Plan:
    claim = Scrubbed(metric="logit_diff", **bounds)
    one = PlannedScrub(0, claim, SCRUBBED, CLEAN, RANDOM, tree=ScrubTree((), ()), draws=DRAWS)
    runs = (SCRUBBED, RANDOM, *(run for d in DRAWS for run in (d.scrubbed, d.nothing_kept)))
    return Plan({CLEAN: "clean", **dict.fromkeys(runs, "run")}, CLEAN, RANDOM, CLEAN, (one,))


def records(
    scrubbed: tuple[ArrayLike, ArrayLike], kl: float, clean: ArrayLike | None = None, random: ArrayLike = -4.0
) -> Records:
    ones = np.ones(N)
    found = {CLEAN: {"logit_diff": 4 * ones if clean is None else clean, "accuracy": ones, "kl": 0 * ones}}
    for one, values in zip(DRAWS, scrubbed, strict=True):
        values = np.asarray(values)
        found[one.scrubbed] = {"logit_diff": values, "accuracy": (values > 0).astype(float), "kl": kl * ones}
        found[one.nothing_kept] = {"logit_diff": random * ones, "accuracy": 0 * ones, "kl": 3 * ones}
    made = make_records(found)
    return made.merged(with_means(made, [SCRUBBED, RANDOM]))


def test_the_mean_of_the_draws_of_each_prompt_is_what_is_drawn_again_for_the_interval() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(3, 1, N), rng.normal(2, 1, N)
    clean = rng.normal(4, 0.5, N)
    (claim,) = judge(planned(at_least=0.5), records((first, second), 0.5, clean))
    expected = stats.recovered((first + second) / 2, np.full(N, -4.0), clean)
    assert claim.estimate == expected
    assert claim.value == pytest.approx(((first.mean() + second.mean()) / 2 + 4) / (clean.mean() + 4))
    assert claim.status == "SUPPORTED"
    by_draw = sorted((one.mean() + 4) / (clean.mean() + 4) for one in (first, second))
    assert f"draws {by_draw[0]:.2f} to {by_draw[1]:.2f}" in claim.found
    assert "KL 0.50 nats (3.00 at random)" in claim.found


def test_what_cancels_over_prompts_is_told_of() -> None:
    """Half of the prompts gain what the others lose: recovered 1.0, and every prompt is off by half of the range."""
    halves = np.where(np.arange(N) % 2 == 0, 8.0, 0.0)
    plan, measured = planned(at_least=0.9), records((halves, halves), 0.7)
    claims = judge(plan, measured)
    assert claims[0].value == 1.0
    (warning,) = cancelled(evidence(plan, measured, claims=claims))
    assert warning.data["moved"] == 0.5
    assert warning.data["flips"] == 0.5
    assert warning.data["kl"] == pytest.approx(0.7)


def test_what_one_draw_gains_another_may_lose() -> None:
    """The mean over draws hides it as the mean over prompts does: prompts are looked at draw by draw."""
    plan, measured = planned(at_least=0.9), records((np.full(N, 8.0), np.full(N, 0.0)), 0.7)
    claims = judge(plan, measured)
    assert claims[0].value == 1.0
    assert len(cancelled(evidence(plan, measured, claims=claims))) == 1


@pytest.mark.parametrize(("level", "kl"), [(4.0, 0.0), (3.9, 0.05), (-3.0, 2.5)])
def test_nothing_is_told_where_prompts_are_as_their_mean(level: float, kl: float) -> None:
    """Recovered in each prompt, or lost in each."""
    plan, measured = planned(at_least=0.9), records((np.full(N, level), np.full(N, level)), kl)
    assert cancelled(evidence(plan, measured, claims=judge(plan, measured))) == []


def test_the_table_has_a_row_a_draw() -> None:
    plan, measured = planned(at_least=0.9), records((np.full(N, 4.0), np.full(N, 0.0)), 0.25)
    (claim,), (one,) = judge(plan, measured), plan.claims
    assert isinstance(one, PlannedScrub)
    assert figures_of(one, measured).recovered_by_draw.tolist() == [1.0, 0.5]
    assert ScrubbedClaims().rows(one, claim, measured) == [
        ["draw", "recovered", "kl (nats)", "answers changed"],
        ["1", "1.00", "0.25", "0%"],
        ["2", "0.50", "0.25", "100%"],
    ]


@pytest.mark.parametrize("apart", [0.0, 0.01])
def test_of_no_difference_no_draw_recovers_a_share(apart: float) -> None:
    """Random prompts that score as the clean ones do on average, exactly or by chance."""
    alternate = np.where(np.arange(N) % 2 == 0, 1.0, -1.0)
    halves = (np.full(N, 4.0), np.full(N, 0.0))
    plan, measured = planned(at_least=0.9), records(halves, 0.25, random=4 - apart + alternate)
    (claim,), (one,) = judge(plan, measured), plan.claims
    assert isinstance(one, PlannedScrub)
    assert claim.status == "INCONCLUSIVE"
    assert [row[1] for row in ScrubbedClaims().rows(one, claim, measured)] == ["recovered", "-", "-"]


@pytest.mark.parametrize(
    ("value", "kl", "lossless"),
    [
        (2.0, 0.5, True),
        (2.0, 0.5 + 0.05, True),  # 0.02 of the 3 nats at random are 0.06
        (2.0, 0.5 + 0.07, False),  # as much on average, and single prompts are farther off
        (1.0, 0.5, False),  # below the interval of 2 +- 0.4
    ],
)
def test_an_entry_may_carry_less_if_neither_the_mean_nor_single_prompts_are_worse(
    value: float, kl: float, lossless: bool
) -> None:
    halves = np.where(np.arange(N) % 2 == 0, 3.3, 0.7)
    measured = records((halves, np.full(N, value)), 0.5)
    less = {name: np.full(N, kl) if name == "kl" else column for name, column in measured[DRAWS[1].scrubbed].items()}
    measured = Records({**measured.values, DRAWS[1].scrubbed: less}, measured.templates)
    (one,) = planned(at_least=0.5).claims
    assert isinstance(one, PlannedScrub)
    narrowed = Narrowed(ScrubPart("a0.h0", False, ("S1",)), "S1", DRAWS[1])
    found = costs_of(one, ScrubRuns(DRAWS[0], {}, {}, (narrowed,), 0), measured)
    assert found.together.value == pytest.approx(0.75)
    (told,) = found.narrowed
    assert told.recovered is not None
    assert told.recovered.value == pytest.approx((value + 4) / 8)
    assert told.lossless == lossless
