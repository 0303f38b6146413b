"""`verify --sequential`: prompts are drawn until claims are decided."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuitspec.hypothesis_file.load_file import parse_hypothesis
from circuitspec.pipelines.sequential import Sequential, looks_at
from circuitspec.pipelines.verify import Outcome, VerifyOptions, verify
from circuitspec.runtime.progress import Silent

HYPOTHESES = Path(__file__).parent.parent / "hypotheses"
TINY = (HYPOTHESES / "ioi-tiny.circuit.yaml").read_text()


def run(text: str, most: int | None = None, folder: Path = HYPOTHESES) -> Outcome:
    document = parse_hypothesis(text, "sequential.circuit.yaml", folder)
    return verify(document, VerifyOptions("off", sequential=Sequential(most)), Silent())


def test_looks_are_at_whole_rounds_of_the_templates_and_at_the_limit() -> None:
    assert looks_at(1, 70) == [20, 30, 40, 50, 60, 70]
    assert looks_at(8, 100) == [24, 40, 56, 72, 88, 100]
    assert looks_at(30, 100) == [30, 60, 90, 100]
    assert looks_at(1, 20) == [20]


@pytest.fixture(scope="module")
def tiny() -> Outcome:
    return run(TINY)


def test_claims_far_from_their_bounds_take_few_prompts(tiny: Outcome) -> None:
    found = tiny.verification
    assert found.sequence is not None
    assert found.sequence.stopped == "decided"
    assert found.sequence.used * 3 <= found.sequence.asked == 100
    assert [claim.status for claim in found.claims] == ["SUPPORTED", "SUPPORTED"]
    assert {claim.estimate.method for claim in found.claims if claim.estimate} == {"asymptotic"}
    assert found.n_prompts == found.sequence.used == tiny.task.n


def test_the_interval_is_wider_than_one_of_a_fixed_number(tiny: Outcome) -> None:
    found = tiny.verification
    assert found.sequence is not None
    for claim, one in zip(found.claims, found.sequence.claims, strict=True):
        assert claim.estimate is not None
        assert one.fixed.estimate is not None
        (low, high), (below, above) = claim.estimate.interval or (0, 0), one.fixed.estimate.interval or (0, 0)
        assert low < below
        assert above < high
        assert claim.estimate.value == pytest.approx(one.fixed.estimate.value)
        assert one.asked is None
