"""Which metric each use goes by, for claims and measured metrics given by hand."""

from __future__ import annotations

import numpy as np
import pytest

from circuitspec.analysis import metric_choice
from circuitspec.analysis.statistics.scores import Anchors, gap
from circuitspec.engine.records import Records
from circuitspec.experiments.planner import Plan
from circuitspec.hypothesis_file.schema.claims.necessary_block import Necessary
from circuitspec.hypothesis_file.schema.claims.sufficient_block import Sufficient
from tests.analysis.support import CIRCUIT, CLEAN, CORRUPT, around, make_records
from tests.analysis.support import make_plan as plan_of

ALL = ("logit_diff", "logit", "logprob", "prob", "prob_diff", "accuracy", "rank", "kl")
NO_WRONG = ("logit", "logprob", "prob", "accuracy", "rank", "kl")  # what a task without wrong answers has
NO_ANSWERS = ("kl",)


def sufficient(*metrics: str) -> Plan:
    return plan_of(*(Sufficient.model_validate({"metric": metric, "at_least": 0.5}) for metric in metrics))


def measured(*metrics: str) -> Records:
    return Records({CLEAN: {m: np.ones(3) for m in metrics}}, np.zeros(3, dtype=np.int64))


@pytest.mark.parametrize(
    ("claimed", "known", "parts", "as_claimed", "negatives", "paths", "methods"),
    [
        (["logit_diff"], ALL, *["logit_diff"] * 5),
        (["logit"], ALL, *["logit"] * 5),
        # smooth, and not linear: parts and paths go by the logits
        (["prob"], ALL, "logit_diff", "prob", "prob", "logit_diff", "prob"),
        (["prob"], NO_WRONG, "logit", "prob", "prob", "logit", "prob"),
        # the first of several that suits
        (["accuracy", "prob", "logit"], ALL, "logit", "prob", "prob", "logit", "prob"),
        # what jumps, and KL, decide nothing where anything else is measured
        (["accuracy"], ALL, "logit_diff", None, "logit_diff", "logit_diff", "logit_diff"),
        (["kl"], ALL, "logit_diff", None, "logit_diff", "logit_diff", "logit_diff"),
        (["kl"], NO_ANSWERS, None, None, None, "kl", "kl"),
        # what was not measured
        (["logit_diff", "prob"], NO_WRONG, "logit", "prob", "prob", "logit", "prob"),
    ],
)
def test_each_use_has_its_rule(
    claimed: list[str],
    known: tuple[str, ...],
    parts: str | None,
    as_claimed: str | None,
    negatives: str | None,
    paths: str,
    methods: str,
) -> None:
    plan, records = sufficient(*claimed), measured(*known)
    assert metric_choice.for_parts(plan, records) == parts
    assert metric_choice.for_parts_as_claimed(plan, records) == as_claimed
    assert metric_choice.for_negatives(plan, records) == negatives
    assert metric_choice.for_paths(plan, records) == paths
    assert metric_choice.for_other_methods(plan, records) == methods


def test_negatives_are_a_matter_of_sufficiency() -> None:
    plan = plan_of(Necessary(metric="prob", at_most=0.3))
    assert metric_choice.for_negatives(plan, measured(*ALL)) is None
    both = plan_of(Necessary(metric="prob", at_most=0.3), Sufficient(metric="logprob", at_least=0.5))
    assert metric_choice.for_negatives(both, measured(*ALL)) == "logprob"


def test_without_a_difference_between_the_anchors_parts_have_no_metric() -> None:
    plan = sufficient("logit_diff")
    for corrupt, expected in ((0.0, "logit_diff"), (4.0, None), (5.0, None)):
        records = make_records({CLEAN: {"logit_diff": around(4.0)}, CORRUPT: {"logit_diff": around(corrupt)}})
        assert metric_choice.for_parts_between_anchors(plan, records) == expected
    single = make_records({CLEAN: {"logit_diff": [4.0]}, CORRUPT: {"logit_diff": [0.0]}})
    assert metric_choice.for_parts_between_anchors(plan, single) is None


def test_circuits_by_size_show_the_first_claimed_metric_with_a_ratio() -> None:
    values = {"prob": (0.9, 0.9, 0.9), "logprob": (-0.1, -3.0, -0.5)}
    runs = {run: {m: around(v[i], spread=0.01) for m, v in values.items()} for i, run in enumerate((CLEAN, CORRUPT))}
    records = make_records({**runs, CIRCUIT: {"logprob": around(-0.5)}})
    gaps = {metric: gap(records, metric, Anchors(CLEAN, CORRUPT)) for metric in values}
    assert metric_choice.for_circuits_by_size(sufficient("prob", "logprob"), records, gaps) == "logprob"
    assert metric_choice.for_circuits_by_size(sufficient("prob"), records, gaps) is None


def test_whether_the_right_answer_is_preferred_shows_in_what_is_above_zero_then() -> None:
    between = Anchors(CLEAN, CORRUPT)
    both = {"logit_diff": [1.0, 2.0], "accuracy": [1.0, 1.0]}
    assert metric_choice.for_standing(make_records({CLEAN: both, CORRUPT: both}), between) == "logit_diff"
    assert metric_choice.for_standing(make_records({CLEAN: both, CORRUPT: {"accuracy": [0.0, 1.0]}}), between) == (
        "accuracy"
    )
    assert metric_choice.for_standing(make_records({CLEAN: both, CORRUPT: {"kl": [0.0, 1.0]}}), between) is None
