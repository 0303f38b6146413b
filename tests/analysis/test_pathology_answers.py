"""CS425: several answers of which one dominates, from shares made up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from circuitspec.analysis.claims.verdict import ClaimResult
from circuitspec.analysis.warnings.evidence import EvidenceWarning
from circuitspec.analysis.warnings.tasks.answer_warnings import dominating_answer
from circuitspec.prompts.prompt_set import Prompt, PromptSet
from tests.analysis.support import evidence

N = 40


def claim(metric: str) -> ClaimResult:
    return ClaimResult(0, "sufficient", metric, "SUPPORTED", None, 0.5, None, N, "", "")


def found(shares: Sequence[Sequence[float]] | None, *metrics: str) -> tuple[EvidenceWarning, ...]:
    rows = [(0.5, 0.5)] * N if shares is None else shares
    texts = tuple(
        Prompt(i, 0, {"clean": "x"}, tuple(f" answer {j}" for j in range(len(own))), ()) for i, own in enumerate(rows)
    )
    arrays = None if shares is None else [np.asarray(own) for own in shares]
    claims = [claim(metric) for metric in metrics or ("logit_diff",)]
    return dominating_answer(evidence(shares=arrays, prompts=PromptSet(texts, (), ("t",)), claims=claims))


def test_it_says_which_answer_and_what_that_does_to_the_metrics() -> None:
    (warning,) = found([(0.02, 0.98)] * 35 + [(0.4, 0.6)] * 5, "logit_diff", "prob", "kl")
    assert warning.code == "CS425"
    assert (warning.data["prompts"], warning.data["n"]) == (35, N)
    assert warning.data["answers"] == {" answer 1": 35}
    assert warning.data["median_share"] == pytest.approx(0.98)
    assert "' answer 1'" in warning.message
    assert "logit_diff averages over answers that the model does not give" in warning.detail
    assert "prob is about that one answer alone" in warning.detail


@pytest.mark.parametrize(
    ("shares", "metrics", "why"),
    [
        (None, ("logit_diff",), "no prompt has several answers"),
        ([(1.0,)] * N, ("logit_diff",), "none has, again"),
        ([(0.88, 0.12)] * N, ("logit_diff",), "the other one has its part"),
        ([(0.99, 0.01)] * 23 + [(0.5, 0.5)] * 17, ("logit_diff",), "more than half, but chance does that"),
        ([(0.99, 0.01)] * N, ("kl",), "nothing is claimed about answers"),
        ([(0.99, 0.01)] * 4, ("prob",), "four prompts show nothing"),
    ],
)
def test_what_is_no_matter(shares: Sequence[Sequence[float]] | None, metrics: tuple[str, ...], why: str) -> None:
    assert found(shares, *metrics) == (), why


def test_prompts_with_a_single_answer_do_not_count() -> None:
    (warning,) = found([(0.99, 0.01)] * 12 + [(1.0,)] * 28)
    assert (warning.data["prompts"], warning.data["n"]) == (12, 12)


def test_answers_that_are_one_token_are_not_named() -> None:
    """Two texts, one token: which of them dominates has no answer."""
    shares = [np.asarray([0.99, 0.01])] * 12
    texts = tuple(Prompt(i, 0, {"clean": "x"}, (" a", " A", " b"), ()) for i in range(12))
    (warning,) = dominating_answer(
        evidence(shares=shares, prompts=PromptSet(texts, (), ("t",)), claims=[claim("prob")])
    )
    assert warning.data["answers"] == {}
