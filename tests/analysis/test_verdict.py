from __future__ import annotations

import numpy as np
import pytest

from circuitspec.analysis.claims.claim_result import EXIT_CODES
from circuitspec.analysis.claims.verdict import ClaimResult, judge, overall, place
from circuitspec.analysis.statistics import stats
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.planner import Plan, PlannedClaim
from circuitspec.hypothesis_file.schema.claims.necessary_block import Necessary
from circuitspec.hypothesis_file.schema.claims.sufficient_block import Sufficient
from tests.analysis.support import CIRCUIT, CLEAN, CORRUPT, KNOCKED_OUT, around, make_plan, make_records


def records(circuit: float = 3.2, knocked_out: float = 0.8, n: int = 100, clean: float = 4.0, corrupt: float = 0.0):  # type: ignore[no-untyped-def]
    means = {CLEAN: clean, CORRUPT: corrupt, CIRCUIT: circuit, KNOCKED_OUT: knocked_out}
    return make_records({run: {"logit_diff": around(mean, n)} for run, mean in means.items()})


@pytest.mark.parametrize(
    ("interval", "at_least", "at_most", "status"),
    [
        ((0.8, 1.2), 0.8, 1.2, "SUPPORTED"),  # the bound's ends belong to it
        ((0.79, 1.0), 0.8, 1.2, "INCONCLUSIVE"),
        ((1.0, 1.21), 0.8, 1.2, "INCONCLUSIVE"),
        ((0.5, 1.5), 0.8, 1.2, "INCONCLUSIVE"),
        ((0.5, 0.79), 0.8, 1.2, "REFUTED"),
        ((0.5, 0.8), 0.8, 1.2, "INCONCLUSIVE"),  # touches
        ((1.21, 1.3), 0.8, 1.2, "REFUTED"),
        ((-0.1, 0.3), None, 0.3, "SUPPORTED"),
        ((0.31, 0.4), None, 0.3, "REFUTED"),
        ((0.9, 7.0), 0.8, None, "SUPPORTED"),
        ((0.1, 0.2), 0.8, None, "REFUTED"),
        ((0.8, 0.8), 0.8, 0.8, "SUPPORTED"),
    ],
)
def test_place(interval: tuple[float, float], at_least: float | None, at_most: float | None, status: str) -> None:
    assert place(interval, at_least, at_most) == status


def test_each_claim_is_judged_on_its_own_run() -> None:
    plan = make_plan(
        Sufficient(metric="logit_diff", at_least=0.7, at_most=0.9), Necessary(metric="logit_diff", at_most=0.1)
    )
    first, second = judge(plan, records())
    assert (first.kind, first.status, first.metric, first.n, first.reason) == (
        "sufficient",
        "SUPPORTED",
        "logit_diff",
        100,
        "",
    )
    assert first.estimate is not None
    assert first.estimate.value == pytest.approx(0.8)  # 3.2 / 4
    assert first.experiment == "ablating everything outside the circuit"
    assert (second.kind, second.status, second.at_least, second.at_most) == ("necessary", "REFUTED", None, 0.1)
    assert second.estimate is not None
    assert second.estimate.value == pytest.approx(0.2)  # 0.8 / 4
    assert second.experiment == "ablating the circuit"
    assert [first.index, second.index] == [0, 1]


def test_the_interval_is_that_of_recovered() -> None:
    data = records()
    (claim,) = judge(make_plan(Sufficient(metric="logit_diff", at_least=0.5)), data)
    assert claim.estimate == stats.recovered(
        data[CIRCUIT]["logit_diff"], data[CORRUPT]["logit_diff"], data[CLEAN]["logit_diff"]
    )


def test_an_interval_across_the_bound_is_inconclusive() -> None:
    (claim,) = judge(make_plan(Sufficient(metric="logit_diff", at_least=0.8)), records(circuit=3.2))
    assert (claim.status, claim.reason) == ("INCONCLUSIVE", "the confidence interval crosses the bound")
    assert claim.estimate is not None


def test_no_ratio_without_a_gap() -> None:
    # the difference of the anchors is 0.001 on average and spreads over 0.8: a ratio would be about 3000
    (claim,) = judge(make_plan(Sufficient(metric="logit_diff", at_least=0.8)), records(clean=0.001))
    assert (claim.status, claim.estimate) == ("INCONCLUSIVE", None)
    assert "do not differ" in claim.reason


def test_no_ratio_with_equal_anchors() -> None:
    same = make_records({run: {"logit_diff": around(1)} for run in (CLEAN, CORRUPT, CIRCUIT)})
    (claim,) = judge(make_plan(Sufficient(metric="logit_diff", at_least=0.8)), same)
    assert (claim.status, claim.estimate) == ("INCONCLUSIVE", None)


def test_no_ratio_with_inverted_anchors() -> None:
    (claim,) = judge(make_plan(Sufficient(metric="logit_diff", at_least=0.8)), records(clean=-2.0, circuit=-1.9))
    assert (claim.status, claim.estimate) == ("INCONCLUSIVE", None)  # the ratio would be a convincing 0.95
    assert "better" in claim.reason


@pytest.mark.parametrize(("n", "status"), [(9, "INCONCLUSIVE"), (10, "SUPPORTED")])
def test_few_prompts_decide_nothing(n: int, status: str) -> None:
    (claim,) = judge(make_plan(Sufficient(metric="logit_diff", at_least=0.2)), records(n=n))
    assert claim.status == status
    assert claim.estimate is not None
    assert ("too few" in claim.reason) == (n == 9)


@pytest.mark.parametrize(("clean", "recovered"), [(4.0, 0.75), (0.0, None), (-4.0, None)])
def test_one_prompt_has_a_value_and_no_verdict(clean: float, recovered: float | None) -> None:
    """The value is 3 / 4; where the anchors are equal or inverted there is none."""
    values = ((CLEAN, clean), (CORRUPT, 0.0), (CIRCUIT, 3.0))
    single = make_records({run: {"logit_diff": [value]} for run, value in values})
    (claim,) = judge(make_plan(Sufficient(metric="logit_diff", at_least=0.2)), single)
    assert (claim.status, claim.n) == ("INCONCLUSIVE", 1)
    assert (claim.estimate is None) == (recovered is None)
    if claim.estimate is not None:
        assert (claim.estimate.value, claim.estimate.interval) == (recovered, None)


def test_constant_data_are_decided() -> None:
    values = {CLEAN: 4.0, CORRUPT: 0.0, CIRCUIT: 4.0}
    constant = make_records({run: {"logit_diff": np.full(16, v)} for run, v in values.items()})
    (claim,) = judge(make_plan(Sufficient(metric="logit_diff", at_least=1.0, at_most=1.0)), constant)
    assert claim.status == "SUPPORTED"
    assert claim.estimate is not None
    assert claim.estimate.method == "constant"


def test_lower_is_better_metrics_are_recovered_too() -> None:
    means = {CLEAN: 0.0, CORRUPT: 5.0, CIRCUIT: 0.5}
    data = make_records({run: {"kl": around(mean, spread=mean / 10)} for run, mean in means.items()})
    (claim,) = judge(make_plan(Sufficient(metric="kl", at_least=0.8, at_most=1)), data)
    assert claim.status == "SUPPORTED"
    assert claim.estimate is not None
    assert claim.estimate.value == pytest.approx(0.9)


def test_a_circuit_that_is_the_whole_model_patches_nothing() -> None:
    base = make_plan()
    claim = PlannedClaim(0, Sufficient(metric="logit_diff", at_least=0.9), CLEAN, CLEAN, CORRUPT)
    plan = Plan(labels=base.labels, clean=CLEAN, corrupt=CORRUPT, circuit=CLEAN, claims=(claim,))
    (result,) = judge(plan, records())
    assert result.status == "SUPPORTED"
    assert result.experiment == "everything outside the circuit: nothing to patch"


def test_a_claimed_metric_that_is_not_finite_is_an_error() -> None:
    data = records()
    data[CIRCUIT]["logit_diff"][7] = np.nan
    with pytest.raises(CircuitspecError) as caught:
        judge(make_plan(Sufficient(metric="logit_diff", at_least=0.8)), data)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "CS511"
    assert diagnostic.message == "logit_diff in `circuit` is not finite for 1 of 100 prompts (prompt 7)"


def test_claimed_metrics_that_were_not_measured_are_all_named() -> None:
    plan = make_plan(Sufficient(metric="prob_diff", at_least=0.8), Necessary(metric="rank", at_most=0.1))
    with pytest.raises(CircuitspecError) as caught:
        judge(plan, records())
    assert [d.code for d in caught.value.diagnostics] == ["CS512"] * 6
    assert caught.value.diagnostics[0].message == (
        "claim 1 (sufficient) is about prob_diff, which was not measured in `clean`"
    )
    assert caught.value.diagnostics[0].hint == "measured there: logit_diff"


def result_with(status: str) -> ClaimResult:
    return ClaimResult(0, "sufficient", "kl", status, None, None, None, 0, "", "")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("statuses", "verdict", "code"),
    [
        (["SUPPORTED", "SUPPORTED"], "SUPPORTED", 0),
        (["SUPPORTED", "INCONCLUSIVE"], "INCONCLUSIVE", 4),
        (["INCONCLUSIVE", "REFUTED", "SUPPORTED"], "REFUTED", 1),
        ([], "INCONCLUSIVE", 4),
    ],
)
def test_overall(statuses: list[str], verdict: str, code: int) -> None:
    found = overall(result_with(status) for status in statuses)
    assert found == verdict
    assert EXIT_CODES[found] == code


def test_an_experiment_without_a_label_is_named_by_its_digest() -> None:
    stranger = Experiment("flip")
    claim = PlannedClaim(0, Sufficient(metric="kl", at_least=0.9), stranger, CLEAN, CORRUPT)
    base = make_plan()
    plan = Plan(labels=base.labels, clean=CLEAN, corrupt=CORRUPT, circuit=CIRCUIT, claims=(claim,))
    values = {CLEAN: {"kl": around(0)}, CORRUPT: {"kl": around(5)}, stranger: {"logit": around(1)}}
    with pytest.raises(CircuitspecError, match=f"not measured in `{stranger.digest[:8]}`"):
        judge(plan, make_records(values))
