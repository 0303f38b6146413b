from __future__ import annotations

import math

import pytest

from circuitspec.analysis.statistics.estimate import Estimate, IntervalMethod
from circuitspec.analysis.statistics.wording import bound, number, plural, with_interval


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4.314, "4.31"),
        (-0.0, "0.00"),
        (-0.004, "0.00"),
        (-0.006, "-0.01"),
        (0.0, "0.00"),
        (1234.5, "1234.50"),
        (None, "-"),
        (math.nan, "-"),
        (-math.inf, "-"),
    ],
)
def test_number(value: float | None, text: str) -> None:
    assert number(value) == text


def estimate(value: float, low: float, high: float, method: IntervalMethod = "bca") -> Estimate:
    return Estimate(value, low, high, 0.95, 100, method)


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ((), "0.84 [0.80, 0.88]"),
        ((0.7,), "0.84 [0.80, 0.88]"),
        ((0.8,), "0.840 [0.797, 0.880]"),  # 0.80 would read as if the bound held
        ((0.8, 0.88), "0.8400 [0.7970, 0.8796]"),
    ],
)
def test_no_end_is_rounded_across_a_bound(bounds: tuple[float, ...], text: str) -> None:
    assert with_interval(estimate(0.84, 0.797, 0.8796), bounds) == text


def test_an_end_on_the_bound_needs_no_digits() -> None:
    assert with_interval(estimate(1.0, 1.0, 1.0, "constant"), (1.0,)) == "1.00 [1.00, 1.00] (the same for every prompt)"


def test_an_end_beside_the_bound_ends_somewhere() -> None:
    assert with_interval(estimate(0.9, 0.8 - 1e-12, 0.95), (0.8,)) == "0.900000 [0.800000, 0.950000]"


def test_weaker_intervals_say_so() -> None:
    assert with_interval(estimate(0.5, 0.25, 0.75, "percentile")) == "0.50 [0.25, 0.75] (percentile interval)"
    assert with_interval(Estimate(0.5, None, None, 0.95, 1, "none")) == "0.50 (no interval)"


def test_bound() -> None:
    assert bound(0.8, 1.2) == "0.8 .. 1.2"
    assert bound(0.8, None) == "at least 0.8"
    assert bound(None, 0.3) == "at most 0.3"


def test_plural() -> None:
    assert (plural(0, "warning"), plural(1, "warning"), plural(2, "warning")) == (
        "0 warnings",
        "1 warning",
        "2 warnings",
    )
