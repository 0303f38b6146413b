"""The rule by arithmetic: rounding for equal environments, each other's interval for others."""

from __future__ import annotations

import pytest

from circuitspec.repository.tolerance import ROUNDING, Measured, close, disagreement

OLD = Measured(0.88, (0.84, 0.91))


def moved(by: float) -> Measured:
    assert OLD.ci is not None
    return Measured(OLD.value + by, (OLD.ci[0] + by, OLD.ci[1] + by))


@pytest.mark.parametrize("dtype", ROUNDING)
def test_alike_runs_agree_up_to_rounding(dtype: str) -> None:
    rounding = ROUNDING[dtype]
    assert disagreement(OLD, moved(0.9 * rounding), metric="logit_diff", dtype=dtype, alike=True) == ""
    assert "0.88" in disagreement(OLD, moved(1.1 * rounding), metric="logit_diff", dtype=dtype, alike=True)
    assert "0.88" in disagreement(moved(-1.1 * rounding), OLD, metric="logit_diff", dtype=dtype, alike=True)


def test_less_precise_formats_are_allowed_more() -> None:
    assert ROUNDING["float64"] < ROUNDING["float32"] < ROUNDING["float16"] < ROUNDING["bfloat16"]


def test_an_unknown_format_is_allowed_as_much_as_the_coarsest_known() -> None:
    """bfloat16 rounds by 0.04; int8 is no format that models are run in here."""
    assert disagreement(OLD, moved(0.036), metric="logit_diff", dtype="int8", alike=True) == ""
    assert "more than rounding (0.04)" in disagreement(OLD, moved(0.044), metric="logit_diff", dtype="int8", alike=True)


def test_a_difference_is_shown_with_the_digits_that_it_takes() -> None:
    said = disagreement(Measured(0.5, None), Measured(0.50000002, None), metric="logit", dtype="float64", alike=True)
    assert "0.50000000 (no interval) -> 0.50000002" in said


def test_an_interval_that_moved_alone_is_a_difference_between_alike_runs() -> None:
    for ci in ((0.85, 0.91), (0.84, 0.90), None):
        said = disagreement(OLD, Measured(0.88, ci), metric="logit_diff", dtype="float32", alike=True)
        assert said.endswith("the interval is another")
        assert disagreement(OLD, Measured(0.88, ci), metric="logit_diff", dtype="float32", alike=False) == ""


def test_what_the_model_does_inside_is_compared_like_any_score() -> None:
    attention = "attention(a0.h1, END, IO)"
    assert disagreement(OLD, moved(1e-9), metric=attention, dtype="float32", alike=True) == ""
    assert "0.88" in disagreement(OLD, moved(0.1), metric=attention, dtype="float32", alike=True)


@pytest.mark.parametrize(
    ("new", "said"),
    [
        (Measured(0.85, (0.80, 0.89)), ""),  # each in the other's
        (Measured(0.92, (0.87, 0.95)), "0.9200 lies outside the old interval"),
        (Measured(0.90, (0.89, 0.93)), "0.8800 lies outside the new interval"),  # precise, and elsewhere
        (Measured(0.90, None), "0.8800 lies outside the new interval"),
    ],
)
def test_other_environments_agree_within_each_others_interval(new: Measured, said: str) -> None:
    assert disagreement(OLD, new, metric="logit_diff", dtype="float32", alike=False).endswith(said)
    assert bool(disagreement(OLD, new, metric="logit_diff", dtype="float32", alike=False)) == bool(said)


def test_a_point_interval_leaves_room_for_rounding() -> None:
    old = Measured(1.0, (1.0, 1.0))
    assert disagreement(old, Measured(1.00009, (1.0, 1.1)), metric="logit_diff", dtype="float32", alike=False) == ""
    assert disagreement(old, Measured(1.001, (1.0, 1.1)), metric="logit_diff", dtype="float32", alike=False)


def test_a_tie_that_falls_the_other_way_is_no_difference() -> None:
    """Accuracy over 100 prompts, one of which is decided by rounding."""
    old, new = Measured(0.97, (0.92, 0.99)), Measured(0.98, (0.93, 1.0))
    assert disagreement(old, new, metric="accuracy", dtype="float32", alike=True) == ""
    assert disagreement(old, new, metric="logit_diff", dtype="float32", alike=True)


def test_a_value_on_one_side_only() -> None:
    for alike in (True, False):
        assert disagreement(None, None, metric="logit", dtype="float32", alike=alike) == ""
        assert disagreement(None, OLD, metric="logit", dtype="float32", alike=alike).startswith("no value -> 0.8800")
        assert disagreement(OLD, None, metric="logit", dtype="float32", alike=alike).endswith("-> no value")


def test_large_values_are_compared_relatively() -> None:
    assert close(1000.0, 1000.05, 1e-4)
    assert not close(0.0, 0.05, 1e-4)
