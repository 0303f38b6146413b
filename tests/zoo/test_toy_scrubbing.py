"""What the toys' parts carry is known, so that arithmetic says what is left of the behaviour when they are scrubbed."""

from __future__ import annotations

import pytest

from circuitspec.analysis.verification_result import Verification
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.hypothesis_file.load_file import parse_hypothesis
from circuitspec.pipelines.verify import VerifyOptions, verify
from tests.zoo.test_toys_hypotheses import Quiet
from tests.zoo.toy_cases import HYPOTHESES

CLEAN, CORRUPT = 4.0, -4.0  # logit differences: 8 C - 4, C being 1 where the last neuron fires
BOUND = "{metric: logit_diff, at_least: 0, draws: 2}"


def scrubbed(toy: str, paths: list[str], carries: str, claim: str = BOUND, *changes: tuple[str, str]) -> Verification:
    """The toy's file with these paths, and what values on them carry."""
    text = (HYPOTHESES / f"{toy}.circuit.yaml").read_text("utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    text = text[: text.index("  paths:" if "  paths:" in text else "\nablation:")]
    listed = "".join(f"    - {path}\n" for path in paths)
    source = "random" if toy.startswith("nobel") else "stopped" if toy in ("mediation", "amplification") else "both"
    text += f"""
  paths:
{listed}  carries: {carries}

ablation: {{value: resample, from: {source}, level: path, positions: declared}}

claims:
  - scrubbed: {claim}
"""
    document = parse_hypothesis(text, str(HYPOTHESES / "changed.circuit.yaml"))
    return verify(document, VerifyOptions(negatives="off"), Quiet()).verification


def recovered(found: Verification) -> float:
    """As claimed; the logit differences are those of 8 C - 4 on every prompt."""
    return found.claims[0].value


NOBEL = ["input@first -> previous_token<v> -> prize", "input@second -> prize", "prize -> logits"]


@pytest.mark.parametrize(
    ("carries", "expected"),
    [
        ("{previous_token: [first], input@first: [first], input@second: [second], prize: [first, second]}", 1.0),
        pytest.param(
            "{previous_token: [first], input@first: [first], input@second: nothing, prize: [first]}",
            0.0,
            marks=pytest.mark.nightly,
        ),
        ("{previous_token: [first], input@first: nothing, input@second: [second], prize: [second]}", None),
        pytest.param(
            "{previous_token: nothing, input@first: [first], input@second: [second], prize: [second]}",
            0.0,
            marks=pytest.mark.nightly,
        ),
        ("{previous_token: nothing, input@first: nothing, input@second: everything, prize: everything}", 0.0),
        ("{previous_token: everything, input@first: nothing}", 0.0),  # the head itself reads random words
        pytest.param("{previous_token: [first]}", 1.0, marks=pytest.mark.nightly),
        pytest.param("{prize: nothing}", 0.0, marks=pytest.mark.nightly),
    ],
)
def test_nobel(carries: str, expected: float | None) -> None:
    """8 relu(before + here - 1) - 4: both words are needed, each where it is read."""
    if expected is None:
        with pytest.raises(CircuitspecError) as error:
            scrubbed("nobel-edges", NOBEL, carries)
        assert [one.code for one in error.value.diagnostics] == ["CS238"]
        return
    assert recovered(scrubbed("nobel-edges", NOBEL, carries)) == pytest.approx(expected, abs=1e-4)


SWITCHES = ["first_switch, second_switch -> lamp -> logits"]
NEURON = ("nodes: [m1.n0]", "nodes: [m1]")  # a path leads to an MLP as a whole
BOTH = "{first_switch: [A], second_switch: [B], lamp: [A, B]}"
ONE = "{first_switch: [A], second_switch: nothing, lamp: [A]}"


@pytest.mark.parametrize(
    ("toy", "carries", "expected"),
    [
        ("and", ONE, 0.0),
        ("or", ONE, 1.0),
        *(pytest.param(*one, marks=pytest.mark.nightly) for one in (("and", BOTH, 1.0), ("or", BOTH, 1.0))),
        pytest.param("or", "{lamp: nothing}", 0.0, marks=pytest.mark.nightly),
    ],
)
def test_switches(toy: str, carries: str, expected: float) -> None:
    """AND needs what both heads carry, OR what one of them does: the other one's switch is then off."""
    assert recovered(scrubbed(toy, SWITCHES, carries, BOUND, NEURON)) == pytest.approx(expected, abs=1e-4)


def test_variables_are_tried_until_they_agree() -> None:
    """Heads carry whether their switch is on, not the word: drawn by the task's rules or the corruption's, even odds.

    Random prompts are lit where both switches are on, so that nothing kept is not always -4.
    """
    variables = (
        "circuit:",
        "abstraction:\n  variables: {first: \"A in ('on', 'closed', 'up')\", second: \"B in ('on', 'closed', 'up')\", "
        "lit: \"'lit' if first and second else 'dark'\"}\n"
        '  output: " {lit}"\n  pairs: {both: {corruption: both}}\n\ncircuit:',
    )
    claim = "{metric: logit_diff, at_least: 0, draws: 2, from: [clean, both]}"
    carries = "{first_switch: [first], second_switch: [second], lamp: [first, second]}"
    found = scrubbed("and", SWITCHES, carries, claim, NEURON, variables)
    assert recovered(found) == pytest.approx(1.0, abs=1e-4)
    with pytest.raises(CircuitspecError) as error:  # with the corruption alone no switch is ever on
        scrubbed("and", SWITCHES, carries, BOUND, NEURON, variables)
    assert [one.code for one in error.value.diagnostics] == ["CS241"]


@pytest.mark.parametrize(
    ("carries", "expected"),
    [
        ("{input@flow: [flow], switch: [flow], relay: [flow], lamp: [flow]}", 1.0),
        pytest.param("{input@flow: nothing}", 0.0, marks=pytest.mark.nightly),
        pytest.param("{switch: nothing}", 0.0, marks=pytest.mark.nightly),
        pytest.param("{lamp: nothing}", 0.0, marks=pytest.mark.nightly),
    ],
)
def test_mediation(carries: str, expected: float) -> None:
    """8 relu(relay) - 4, the relay being what the switch is."""
    paths = ["input@flow -> switch<v>", "switch -> relay<v> -> lamp -> logits"]
    assert recovered(scrubbed("mediation", paths, carries)) == pytest.approx(expected, abs=1e-4)


# -- sources of their own for paths ------------------------------------------------------------------------------------

CORRUPTIONS = (
    "    random: {first: $words, second: $words}\n",
    "    random: {first: $words, second: $words}\n    x_peace: {first: $words}\n    nobel_y: {second: $words}\n",
)
RIGHT = '{"input@first": nobel_y, "input@second": x_peace}'
SWAPPED = '{"input@first": x_peace, "input@second": nobel_y}'
FIRST_ALONE = '{"input@first": nobel_y, "input@second": random}'
SECOND_ALONE = '{"input@first": random, "input@second": x_peace}'


def claimed(claims: str, *, level: str = "path") -> Verification:
    text = (HYPOTHESES / "nobel-edges.circuit.yaml").read_text("utf-8")
    text = text[: text.index("claims:")].replace(*CORRUPTIONS).replace("level: edge", f"level: {level}") + claims
    document = parse_hypothesis(text, str(HYPOTHESES / "changed.circuit.yaml"))
    return verify(document, VerifyOptions(negatives="off"), Quiet()).verification


def test_two_paths_each_with_a_source_of_its_own() -> None:
    """Nobel reaches the neuron from `Nobel Y`, Peace from `X Peace`, all else is random."""
    settings = "metric: logit_diff, at_least: 0"
    paths = '[input@first -> previous_token<v> -> prize, "input@second -> prize"]'
    expected = {RIGHT: 1.0, SWAPPED: 0.0, FIRST_ALONE: 0.0, SECOND_ALONE: 0.0}
    sections = [f"  - cross_section: {{paths: {paths}, {settings}, sources: {sources}}}" for sources in expected]
    circuits = [f"  - sufficient: {{{settings}, sources: {sources}}}" for sources in expected]
    of = 'of: "input@second -> prize", metric: logit_diff'
    alone = [
        f"  - path: {{{of}, direction: noising, drop_at_least: -1, sources: {{input@second: x_peace}}}}",
        f"  - path: {{{of}, direction: noising, drop_at_least: -1, sources: {{input@second -> prize: nobel_y}}}}",
        f"  - path: {{{of}, direction: denoising, rise_at_least: -1, sources: {{prize: nobel_y}}}}",
    ]
    found = claimed("claims:\n" + "\n".join([*sections, *circuits, *alone[:2]]) + "\n")
    values = [claim.value for claim in found.claims]
    assert values == pytest.approx([*expected.values(), *expected.values(), 0.0, 1.0], abs=1e-4)
    assert found.claims[len(expected)].experiment == "ablating everything outside the circuit"
    labels = list(found.plan.labels.values())
    assert "circuit, input@first from nobel_y, input@second from x_peace" in labels
    with pytest.raises(CircuitspecError) as error:
        claimed(f"claims:\n{alone[2]}\n")
    assert [one.code for one in error.value.diagnostics] == ["CS244"]


# -- warnings ----------------------------------------------------------------------------------------------------------


def test_a_value_that_carries_all_that_prompts_differ_in_is_not_tested() -> None:
    carries = "{prize: [name, verb, first, second], previous_token: [first]}"
    found = scrubbed("nobel-edges", NOBEL, carries)
    (warning,) = (one for one in found.warnings if one.code == "CS461")
    assert warning.data["untested"] == {
        "m1@second -> logits": 1.0,
        "a0.h0@second -> m1@second -> logits": 0.0,
    }
    assert not [one for one in found.warnings if one.code == "CS460"]
