"""The shipped hypotheses that are scrubbed: what arithmetic says of them lies in their intervals."""

from __future__ import annotations

from pathlib import Path

import pytest

import circuitspec
from circuitspec.pipelines.check import check_file
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


def test_pairs_that_no_claim_is_about_need_tell_nothing_apart() -> None:
    problems, said = check_file(HYPOTHESES / "swapped-scrubbed.circuit.yaml")
    assert problems == ()
    assert "level, thin" in said
    assert "CS450" not in said


def test_the_pitfall_is_a_valid_file() -> None:
    problems, said = check_file(Path(HYPOTHESES / f"{NAIVE}.circuit.yaml"))
    assert (problems, "note" in said) == ((), False)
