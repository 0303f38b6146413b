"""The shipped hypotheses that are scrubbed: what arithmetic says of them lies in their intervals."""

from __future__ import annotations

import pytest

import circuitspec
from tests.zoo.toy_cases import HYPOTHESES

NAIVE = "../pitfalls/induction-naive-scrubbed"


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("name", "recovered", "status", "cancels"),
    [
        ("cancel-scrubbed", 1, "SUPPORTED", True),  # and a quarter of the answers are wrong
        ("swapped-scrubbed", 1, "SUPPORTED", True),  # and one in sixteen
        ("induction-scrubbed", 8 / 9, "SUPPORTED", False),  # a1.h1 has the last ninth
        (NAIVE, 1 / 3, "REFUTED", False),
    ],
)
def test_scrubbed(name: str, recovered: float, status: str, cancels: bool) -> None:
    found = circuitspec.verify(HYPOTHESES / f"{name}.circuit.yaml", negatives="off")
    (claim,) = found.claims
    assert claim.status == status
    assert claim.estimate is not None
    assert claim.estimate.interval is not None
    low, high = claim.estimate.interval
    assert low <= recovered <= high
    assert ("CS460" in {one.code for one in found.warnings}) == cancels
