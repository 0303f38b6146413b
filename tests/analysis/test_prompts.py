from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from circuitspec.analysis.claims.kinds.path import PlannedPath
from circuitspec.analysis.claims.verdict import judge
from circuitspec.analysis.prompt_scores import QUANTILES, PromptView, prompt_view
from circuitspec.hypothesis_file.schema.claims.necessary_block import Necessary
from circuitspec.hypothesis_file.schema.claims.path_block import PathClaim
from circuitspec.hypothesis_file.schema.claims.sufficient_block import Sufficient
from circuitspec.prompts.prompt_set import Prompt, PromptSet
from tests.analysis.support import CIRCUIT, CLEAN, CORRUPT, KNOCKED_OUT, make_plan, make_records

N = 20
TEMPLATES = [i % 2 for i in range(N)]
CLEAN_VALUES = np.array([2.0, 6.0] * 10)  # mean 4; template 0 is the harder one
CORRUPT_VALUES = np.zeros(N)


def prompt_set() -> PromptSet:
    names = [("Mary", "John"), ("John", "Mary")]
    prompts = (
        Prompt(100 + i, t, {"clean": "{} and {} met".format(*names[t]), "abc": f"corrupt {i}"}, (" Mary",), (" John",))
        for i, t in enumerate(TEMPLATES)
    )
    return PromptSet(tuple(prompts), ("abc",), ("ABBA", "BABA"))


def view(claim: Sufficient | Necessary, patched: np.ndarray, worst: int = 5) -> PromptView | None:
    plan = make_plan(claim)
    run = CIRCUIT if isinstance(claim, Sufficient) else KNOCKED_OUT
    values = {CLEAN: CLEAN_VALUES, CORRUPT: CORRUPT_VALUES, run: patched}
    records = make_records({e: {claim.metric: v} for e, v in values.items()}, TEMPLATES)
    return prompt_view(plan.claims[0], judge(plan, records)[0], records, prompt_set(), worst=worst)


def test_contributions_average_to_the_figure() -> None:
    patched = CLEAN_VALUES * np.linspace(0.5, 1.1, N)
    found = view(Sufficient(metric="logit_diff", at_least=0.1), patched, worst=N)
    assert found is not None
    assert np.mean([p.contribution for p in found.worst]) == pytest.approx(patched.mean() / 4)
    assert found.quantiles == pytest.approx(np.quantile(patched / 4, QUANTILES))
    assert (found.metric, found.n) == ("logit_diff", N)


def test_a_hard_prompt_is_not_a_bad_one() -> None:
    """Prompt 3 falls short by 3 of 6; the even prompts have little to give, and give all of it."""
    patched = CLEAN_VALUES.copy()
    patched[3] -= 3
    patched[4] += 1.5
    found = view(Sufficient(metric="logit_diff", at_least=0.1), patched, worst=2)
    assert found is not None
    assert found.reason == "short"
    worst = found.worst[0]
    assert (worst.prompt, worst.one, worst.zero, worst.patched) == (3, 6.0, 0.0, 3.0)
    assert (worst.contribution, worst.against) == (pytest.approx(0.75), pytest.approx(0.75))
    assert found.worst[1].against == 0


def test_too_much_counts_where_the_claim_bounds_it() -> None:
    patched = CLEAN_VALUES.copy()
    patched[3] -= 1
    patched[4] += 1.5
    found = view(Sufficient(metric="logit_diff", at_least=0.1, at_most=1.5), patched, worst=2)
    assert found is not None
    assert found.reason == "off"
    assert [(p.prompt, p.against) for p in found.worst] == [(4, pytest.approx(1.5 / 4)), (3, pytest.approx(1 / 4))]


def test_for_necessity_the_worst_prompts_keep_the_most() -> None:
    left = np.zeros(N)
    left[[7, 2]] = [3.0, 1.0]
    found = view(Necessary(metric="logit_diff", at_most=0.5), left, worst=2)
    assert found is not None
    assert found.reason == "too much"
    assert [(p.prompt, p.contribution) for p in found.worst] == [(7, pytest.approx(0.75)), (2, pytest.approx(0.25))]


def test_templates_and_orders_are_measured_between_their_own_anchors() -> None:
    patched = np.where(np.asarray(TEMPLATES) == 0, 1.0, 5.4) + np.linspace(-0.1, 0.1, N)
    found = view(Sufficient(metric="logit_diff", at_least=0.1), patched)
    assert found is not None
    (template, by_template), (order, by_order) = found.groups
    assert (template, order) == ("template", "answer order")
    assert [s.label for s in by_template] == ["ABBA", "BABA"]
    assert [s.label for s in by_order] == ["right answer named first", "wrong answer named first"]
    for scores in (by_template, by_order):
        values = [s.recovered.value for s in scores if s.recovered is not None]
        assert values == pytest.approx([0.5, 0.9], abs=0.01)


def test_one_template_is_no_table() -> None:
    plan = make_plan(Sufficient(metric="logit_diff", at_least=0.1))
    values = {CLEAN: CLEAN_VALUES, CORRUPT: CORRUPT_VALUES, CIRCUIT: 0.9 * CLEAN_VALUES}
    records = make_records({e: {"logit_diff": v} for e, v in values.items()})
    plain = PromptSet(tuple(Prompt(i, 0, {"clean": f"{i}"}, (), ()) for i in range(N)), (), ("one",))
    found = prompt_view(plan.claims[0], judge(plan, records)[0], records, plain)
    assert found is not None
    assert found.groups == ()


def test_prompts_that_all_say_the_same_have_no_worst() -> None:
    found = view(Sufficient(metric="logit_diff", at_least=0.1), CLEAN_VALUES + 1e-6 * np.linspace(-1, 1, N))
    assert found is not None
    assert found.worst == ()


def test_a_claim_without_a_figure_has_no_view() -> None:
    plan = make_plan(Sufficient(metric="logit_diff", at_least=0.1))
    values = {CLEAN: CORRUPT_VALUES + np.linspace(-1, 1, N), CORRUPT: CORRUPT_VALUES, CIRCUIT: CORRUPT_VALUES}
    records = make_records({e: {"logit_diff": v} for e, v in values.items()})
    claim = judge(plan, records)[0]
    assert claim.estimate is None
    assert prompt_view(plan.claims[0], claim, records, prompt_set()) is None


def test_a_drop_is_counted_from_the_clean_anchor_down() -> None:
    """A path's claim: `zero` is the clean run, and a prompt that does not fall speaks against `drop_at_least`."""
    plan = make_plan(Sufficient(metric="logit_diff", at_least=0.1))
    patched = np.zeros(N)
    patched[5] = 6.0
    values = {CLEAN: CLEAN_VALUES, CORRUPT: CORRUPT_VALUES, CIRCUIT: patched}
    records = make_records({e: {"logit_diff": v} for e, v in values.items()})
    claim = PathClaim(of="a0.h1 -> logits", direction="noising", metric="logit_diff", drop_at_least=0.1)
    planned = PlannedPath(0, claim, CIRCUIT, CLEAN, CORRUPT, "drop")
    found = prompt_view(planned, judge(dataclasses.replace(plan, claims=(planned,)), records)[0], records, prompt_set())
    assert found is not None
    worst = found.worst[0]
    assert (worst.prompt, worst.zero, worst.one, worst.contribution) == (5, 6.0, 0.0, pytest.approx(0.0))
    assert worst.against == pytest.approx(-6 / -4)
