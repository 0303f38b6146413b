"""Claims that take many runs, and claims under several methods: what may be written."""

from __future__ import annotations

import pytest

from circuitspec.hypothesis_file.load_file import digest
from circuitspec.hypothesis_file.schema.claims.beats_random_block import BeatsRandom
from circuitspec.hypothesis_file.schema.claims.complete_block import Complete
from circuitspec.hypothesis_file.schema.claims.minimal_block import Minimal
from circuitspec.hypothesis_file.schema.claims.sufficient_block import Sufficient
from tests.hypothesis_file.support import errors, good_but, parse

CLAIM = "  - sufficient: {metric: logit_diff, at_least: 0.8}\n"


def claim(text: str) -> object:
    return parse(good_but((CLAIM, f"  - {text}\n"))).hypothesis.claims[0]


def test_completeness_and_minimality_with_their_defaults() -> None:
    complete = claim("complete: {metric: logit_diff, at_most: 0.1}")
    assert isinstance(complete, Complete)
    assert (complete.at_least, complete.at_most) == (None, 0.1)
    tried = complete.subsets
    assert (tried.groups, tried.random, tried.greedy, tried.candidates, tried.seed) == (True, 10, 5, 10, 0)
    minimal = claim("minimal: {metric: kl, at_least: 0.01, subsets: {random: 7}}")
    assert isinstance(minimal, Minimal)
    assert (minimal.at_least, minimal.at_most) == (0.01, None)
    tried = minimal.subsets
    assert (tried.groups, tried.random, tried.greedy, tried.candidates) == (True, 7, 2, 5)


def test_random_circuits_with_their_defaults() -> None:
    found = claim("beats_random: {metric: logit_diff}")
    assert isinstance(found, BeatsRandom)
    assert (found.circuits, found.at_most_p, found.quantile, found.seed) == (100, 0.05, 0.9, 0)
    assert (found.at_least, found.at_most) == (0.9, None)


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("complete: {metric: logit_diff}", "CS111", "at_most"),
        ("complete: {metric: logit_diff, at_most: 0}", "CS115", "more than 0"),
        ("complete: {metric: logit_diff, at_most: 0.1, subsets: {greedy: -1}}", "CS115", "at least 0"),
        ("minimal: {metric: logit_diff, at_least: 0.1, subsets: {greedily: 3}}", "CS110", "greedily"),
        ("beats_random: {metric: logit_diff, circuits: 28}", "CS166", "28 random circuits are too few"),
        ("beats_random: {metric: logit_diff, at_most_p: 0.00001}", "CS166", "100 random circuits are too few"),
        ("beats_random: {metric: logit_diff, quantile: 1.0}", "CS166", "no test can show"),
        ("beats_random: {metric: logit_diff, at_most_p: 0.5}", "CS115", "less than 0.5"),
        ("sufficient: {metric: logit_diff, at_least: 0.8, robust_to: []}", "CS167", "names nothing"),
        ("sufficient: {metric: logit_diff, at_least: 0.8, robust_to: [level, level]}", "CS167", "level is named twice"),
        ("sufficient: {metric: logit_diff, at_least: 0.8, robust_to: [set]}", "CS114", "set"),
        ("sufficient: {metric: logit_diff, at_least: 0.8, robust_to: level}", "CS113", "a list of choices"),
        (
            "sufficient: {metric: logit_diff, at_least: 0.8, robust_to: {ablation: [means]}}",
            "CS167",
            "there is no ablation means",
        ),
        (
            "necessary: {metric: logit_diff, at_most: 0.3, robust_to: {corruption: [flip]}}",
            "CS144",
            "there is no corruption flip",
        ),
    ],
)
def test_what_cannot_be_written(text: str, code: str, said: str) -> None:
    (found,) = errors(good_but((CLAIM, f"  - {text}\n")))
    assert (found.code, said in found.message) == (code, True), found
    assert found.span is not None
    assert found.span.line == len(good_but((CLAIM, "")).splitlines()) + 1


def test_29_random_circuits_are_the_fewest() -> None:
    assert 0.9**29 <= 0.05 < 0.9**28
    assert isinstance(claim("beats_random: {metric: logit_diff, circuits: 29}"), BeatsRandom)


@pytest.mark.parametrize("kind", ["complete", "minimal"])
def test_at_path_level_there_are_no_nodes_to_take_out(kind: str) -> None:
    bound = "at_most" if kind == "complete" else "at_least"
    text = good_but(
        ("free: [m*]", "free: []"),
        ("from: abc}", "from: abc, level: path}"),
        (CLAIM, f"  - {kind}: {{metric: logit_diff, {bound}: 0.1}}\n"),
    )
    (found,) = errors(text)
    assert (found.code, kind in found.message) == ("CS165", True)


def test_a_file_that_says_nothing_of_methods_has_the_digest_that_it_had() -> None:
    """A lock holds for as long as the file says the same."""
    hypothesis = parse(good_but()).hypothesis
    assert "robust_to" not in hypothesis.model_dump(mode="json")["claims"][0]
    robust = parse(good_but(("at_least: 0.8}", "at_least: 0.8, robust_to: [level]}"))).hypothesis
    (named,) = robust.claims
    assert isinstance(named, Sufficient)
    assert named.robust_to == ("level",)
    assert robust.model_dump(mode="json")["claims"][0]["robust_to"] == ["level"]
    assert digest(robust) != digest(hypothesis)


def test_values_may_be_given() -> None:
    named = claim(
        "necessary: {metric: logit_diff, at_most: 0.3, robust_to: {ablation: [mean, zero], corruption: [abc]}}"
    )
    assert named.robust_to == {"ablation": ("mean", "zero"), "corruption": ("abc",)}  # type: ignore[attr-defined]
