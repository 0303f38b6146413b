from __future__ import annotations

import numpy as np
import pytest

from circuitspec.analysis.statistics.scores import Anchors, anchors, gap, gaps, score
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.planner import Plan, PlannedClaim
from circuitspec.hypothesis_file.schema.claims.sufficient_block import Sufficient
from tests.analysis.support import CIRCUIT, CLEAN, CORRUPT, around, make_plan, make_records

BETWEEN = Anchors(CLEAN, CORRUPT)

RECORDS = make_records(
    {
        CLEAN: {"logit_diff": [4.0, 6.0], "kl": [0.0, 0.0], "rank": [0.0, 0.0], "accuracy": [1.0, 1.0]},
        CORRUPT: {"logit_diff": [-1.0, 1.0], "kl": [4.0, 6.0], "rank": [3.0, 5.0], "accuracy": [1.0, 1.0]},
        CIRCUIT: {"logit_diff": [3.0, 5.0], "kl": [1.0, 1.0], "rank": [1.0, 0.0], "accuracy": [1.0, 1.0]},
    }
)


def test_score_by_arithmetic() -> None:
    found = score(RECORDS, CIRCUIT, "logit_diff", gap(RECORDS, "logit_diff", BETWEEN))
    assert (found.mean, found.recovered, found.ratio) == (4.0, 0.8, 0.8)


@pytest.mark.parametrize(("metric", "mean", "recovered"), [("kl", 1.0, 0.8), ("rank", 0.5, 0.875)])
def test_lower_is_better(metric: str, mean: float, recovered: float) -> None:
    # kl: (1 - 5) / (0 - 5); rank: (0.5 - 4) / (0 - 4). A ratio to a clean mean of zero does not exist
    found = score(RECORDS, CIRCUIT, metric, gap(RECORDS, metric, BETWEEN))
    assert (found.mean, found.recovered, found.ratio) == (mean, recovered, None)


def test_the_anchors_score_zero_and_one() -> None:
    denominator = gap(RECORDS, "kl", BETWEEN)
    assert score(RECORDS, CLEAN, "kl", denominator).recovered == 1
    assert score(RECORDS, CORRUPT, "kl", denominator).recovered == 0


def test_nothing_is_recovered_of_a_gap_of_zero() -> None:
    denominator = gap(RECORDS, "accuracy", BETWEEN)
    assert denominator.state == "zero"
    assert score(RECORDS, CIRCUIT, "accuracy", denominator).recovered is None


def test_gap_states() -> None:
    values = {
        CLEAN: {"logit_diff": around(3), "prob": around(0.5), "kl": around(1), "rank": around(2)},
        CORRUPT: {"logit_diff": around(3.01), "prob": around(0.9), "kl": around(4), "rank": around(0.5)},
    }
    found = gaps(make_records(values), BETWEEN)
    assert {metric: g.state for metric, g in found.items()} == {
        "logit_diff": "zero",
        "prob": "inverted",
        "kl": "sound",
        "rank": "inverted",
    }
    assert found["prob"].difference.value == pytest.approx(-0.4)


def test_a_metric_that_is_not_finite_has_no_gap_and_no_score() -> None:
    values = {CLEAN: {"logprob": [0.0, -np.inf]}, CORRUPT: {"logprob": [-2.0, -1.0]}}
    records = make_records(values)
    assert gaps(records, BETWEEN) == {}
    found = score(records, CLEAN, "logprob", None)
    assert np.isnan(found.mean)
    assert found.recovered is None
    with pytest.raises(CircuitspecError, match="CS511: logprob in the clean anchor is not finite for 1 of 2"):
        gap(records, "logprob", BETWEEN)


def test_a_claim_brings_its_own_anchors() -> None:
    plan = make_plan()
    ablated = Experiment("flip")
    claim = PlannedClaim(0, Sufficient(metric="kl", at_least=0.5), CIRCUIT, CLEAN, ablated)
    plan = Plan(labels=plan.labels, clean=CLEAN, corrupt=CORRUPT, circuit=CIRCUIT, claims=(claim,))
    assert anchors(plan, CIRCUIT) == Anchors(CLEAN, ablated)
    assert anchors(plan, CLEAN) == Anchors(CLEAN, CORRUPT)
