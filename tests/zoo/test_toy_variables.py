"""What parts of toys carry is known: interchange accuracy is 1 where a variable is, elsewhere that of doing nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
import scipy
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import circuitspec
from circuitspec.analysis.claims.claim_result import ClaimResult
from circuitspec.analysis.verification_result import Verification
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.hypothesis_file.load_file import load_hypothesis, parse_hypothesis
from circuitspec.models.zoo.zoo_models import zoo_path
from circuitspec.pipelines.verify import VerifyOptions, verify
from circuitspec.reports.machine.json_document import render_json
from circuitspec.reports.text.text_report import render_text
from tests.zoo.test_toys_hypotheses import Quiet
from tests.zoo.toy_cases import HYPOTHESES

AND = (HYPOTHESES / "and-variables.circuit.yaml").read_text("utf-8")
IOI = HYPOTHESES.parent / "pitfalls" / "ioi-tiny-one-family.circuit.yaml"
N = 24
ALL = (1.0, scipy.stats.binomtest(N, N).proportion_ci(method="wilson").low)
NONE = (0.0, 0.0)


def verified(*changes: tuple[str, str], claims: str = "") -> Verification:
    text = AND if not claims else AND[: AND.index("claims:")] + "claims:\n" + claims
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    document = parse_hypothesis(text, str(HYPOTHESES / "changed.circuit.yaml"))
    return verify(document, VerifyOptions(negatives="off"), Quiet()).verification


def parts(claim: ClaimResult) -> dict[str, tuple[float, float] | None]:
    """Value and lower end of each part, by name."""
    return {
        part.name: None if part.estimate is None else (part.estimate.value, part.estimate.low or 0.0)
        for part in claim.parts
    }


def further(claim: ClaimResult, part: int) -> dict[str, float]:
    return {name: one.value for name, one in claim.parts[part].figures}


def test_each_head_carries_its_switch_and_the_neuron_the_lamp() -> None:
    """Everything is 1: by arithmetic, the logit difference is 8 C - 4 with C the AND of the switches as patched."""
    found = verify(
        load_hypothesis(HYPOTHESES / "and-variables.circuit.yaml"), VerifyOptions(negatives="off"), Quiet()
    ).verification
    assert [claim.status for claim in found.claims] == ["SUPPORTED"] * 6
    first, second, lamp, both, alone, other = found.claims
    assert parts(first) == {"first_off": ALL, "second_off": None, "both_off": ALL, "other_words": None}
    assert parts(second) == {"first_off": None, "second_off": ALL, "both_off": ALL, "other_words": None}
    assert parts(lamp) == {"first_off": ALL, "second_off": ALL, "both_off": ALL, "other_words": None}
    assert parts(both) == {"first from second_off, second from both_off": ALL}
    assert parts(alone) == {"second (second_off)": ALL}
    assert parts(other) == {"first (first_off)": ALL}
    assert further(first, 0) == {"IIA, changed": 1, "top-1, changed": 1, "all pairs": 1, "doing nothing": 0}
    assert further(first, 1) == {"unchanged": 1, "all pairs": 1, "doing nothing": 1}
    assert found.warnings == ()
    text = render_text(found)
    assert "SUPPORTED  interchange   first: IIA 1.00 [0.86, 1.00] (first_off)" in text
    assert "on all pairs 1.00, doing nothing 0.50, bound at least 0.8" in text
    assert "-4.00 -> 4.00" in text  # the logit of ` dark` less that of ` lit`, without the patch and with it
    told: Any = json.loads(render_json(found))["claims"][0]
    assert (told["claim"], told["measure"], told["parts"][0]["ci_method"]) == ("interchange", "IIA", "wilson")
    assert told["parts"][0]["figures"]["doing nothing"]["value"] == 0


@pytest.mark.parametrize("elsewhere", ["a0.h2@END", "a0.h0@room", "a0.h1@END", "input@room", "m1.n1@END"])
def test_elsewhere_it_is_what_doing_nothing_scores(elsewhere: str) -> None:
    """The bystander, the right head at another token, the other switch's head, the room, a silent neuron."""
    moved = ("first: {nodes: [first_switch]}", f'first: {{nodes: ["{elsewhere}"]}}')
    (claim,) = verified(
        moved, claims="  - interchange: {variable: first, pairs: [first_off, other_words], at_least: 0.8}\n"
    ).claims
    assert claim.status == "REFUTED"
    assert parts(claim) == {"first_off": NONE, "other_words": None}
    for part, nothing in ((0, 0.0), (1, 1.0)):
        assert further(claim, part)["all pairs"] == further(claim, part)["doing nothing"] == nothing


def test_a_head_that_carries_both_isolates_neither() -> None:
    """Both heads together move with the second switch, which is no business of the first."""
    wide = ("first: {nodes: [first_switch]}", "first: {nodes: [first_switch, second_switch]}")
    claims = """\
  - interchange: {variable: first, pairs: [first_off, second_off], at_least: 0.8}
  - isolates: {variable: first, others: [second], pairs: [second_off], at_least: 0.8}
"""
    carried, isolated = verified(wide, claims=claims).claims
    assert (carried.status, isolated.status) == ("SUPPORTED", "REFUTED")
    assert further(carried, 1) == {"unchanged": 0, "all pairs": 0, "doing nothing": 1}
    assert parts(isolated) == {"second (second_off)": NONE}


def test_positions_of_an_alignment_are_its_own() -> None:
    """At the position of the room the heads read nothing; END is where they do."""
    at = ("first: {nodes: [first_switch]}", "first: {nodes: [first_switch], at: room}")
    (claim,) = verified(at, claims="  - interchange: {variable: first, pairs: [first_off], at_most: 0.2}\n").claims
    assert claim.status == "SUPPORTED"
    assert parts(claim) == {"first_off": NONE}


def test_no_pair_to_judge_by() -> None:
    found = verified(claims="  - interchange: {variable: first, pairs: [other_words], at_least: 0.8}\n")
    (claim,) = found.claims
    assert (claim.status, claim.reason) == ("INCONCLUSIVE", "in no pair must the answer change")
    assert [warning.code for warning in found.warnings] == ["CS451"]
    found = verified(claims="  - isolates: {variable: first, pairs: [first_off], at_least: 0.8}\n")
    (warning,) = found.warnings
    assert (warning.code, warning.detail) == ("CS451", "looked at the pairs of first_off")  # nothing of doing nothing


def test_one_family_alone_is_warned_of() -> None:
    found = verified(claims="  - interchange: {variable: first, pairs: [first_off, other_words], at_least: 0.8}\n")
    (warning,) = found.warnings
    assert (warning.code, warning.data["pairs"]) == ("CS454", "first_off")


def test_pairs_that_cannot_tell_two_variables_apart_are_warned_of() -> None:
    """Both switches off in every source: whatever carries one may as well carry the other."""
    only = AND.index("    first_off:"), AND.index("    both_off:")
    text = AND[: only[0]] + AND[only[1] : AND.index("    other_words:")] + "claims:\n"
    text += "  - interchange: {variable: first, at_least: 0.8}\n"
    document = parse_hypothesis(text, str(HYPOTHESES / "changed.circuit.yaml"))
    found = verify(document, VerifyOptions(negatives="off"), Quiet()).verification
    told = [w.data["variables"] for w in found.warnings if w.code == "CS450"]
    assert told == [["first", "second"], ["first", "lamp"]]


def test_variables_that_share_a_component_cannot_be_set_apart() -> None:
    shared = ("second: {nodes: [second_switch]}", "second: {nodes: [a0.h1, a0.h0@END]}")
    with pytest.raises(CircuitspecError) as caught:
        verified(shared)
    assert [finding.code for finding in caught.value.diagnostics] == ["CS234"]


def test_one_family_of_pairs_lets_a_name_pass_for_a_position() -> None:
    """With other names in the source the head that passed in every pair gives names that stand in neither prompt."""
    found = circuitspec.verify(IOI, negatives="off")
    assert [claim.status for claim in found.claims] == ["SUPPORTED"] * 3
    assert further(found.claims[0], 0)["IIA, changed"] == 1
    assert further(found.claims[1], 0)["IIA, changed"] < 0.7
    assert further(found.claims[1], 0)["top-1, changed"] < 0.5
    assert [warning.code for warning in found.warnings] == ["CS452", "CS454"]
    assert found.warnings[0].data["pairs"] == "both"
    page = found.to_html()
    assert "IIA 1.00 [0.96, 1.00] (flipped)" in page
    assert "must change" in page
    scored = found.frame.set_index("experiment")  # by other answers than the anchors, so that nothing is recovered
    assert scored.loc["position from both at inhibition", ["recovered_logit_diff", "ratio_logit_diff"]].isna().all()
    texts = found.prompt_frame.query("experiment == 'source prompts of both'")["text"]
    assert set(texts).isdisjoint({prompt.texts["clean"] for prompt in found.prompts.prompts})


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in (1, 2))])
def test_an_untrained_model_is_never_supported(seed: int) -> None:
    """Not even where the whole last residual stream is taken, which makes every patched run its source's.

    Of pairs that the model happens to answer right all then come out right: too few of them for a verdict.
    """
    directory = zoo_path("ioi-tiny")
    assert directory is not None
    torch.manual_seed(seed)
    untrained = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory)).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    asked = circuitspec.load(IOI)
    asked = asked.replace(task={**asked.parts["task"], "checks": {}})
    found = circuitspec.verify(asked, untrained, tokenizer, negatives="off")
    assert {claim.status for claim in found.claims} == {"INCONCLUSIVE"}
    for claim in found.claims:
        assert "not surely most of them" in claim.reason
    assert "CS453" in [warning.code for warning in found.warnings]
