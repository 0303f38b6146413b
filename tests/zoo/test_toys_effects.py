"""What verify says of parts of a circuit, on toys in which it is known: the right warning, and no other."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest

from circuitspec.analysis.circuit_effects.effects_so_far import NEGATIVES_OUT
from circuitspec.analysis.circuit_effects.examination import NEGATIVES_IN
from circuitspec.analysis.circuit_effects.negative_components import Search
from circuitspec.analysis.verification_result import Verification
from circuitspec.hypothesis_file.load_file import parse_hypothesis
from circuitspec.pipelines.verify import VerifyOptions, verify
from circuitspec.reports.explanations import all_codes
from circuitspec.reports.machine.json_document import render_json
from circuitspec.reports.text.text_report import render_text
from tests.zoo.test_toys_hypotheses import CLOSE, Quiet
from tests.zoo.toy_cases import HYPOTHESES

SUFFICIENT = "claims:\n  - sufficient: {metric: logit_diff, at_least: 0.99, at_most: 1.01}\n"
NECESSARY = "  - necessary: {metric: logit_diff, at_most: 0.01}\n"


def examined(name: str, *changes: tuple[str, str], claims: str = "", search: Search = "screen") -> Verification:
    """A toy's hypothesis with changes to its text, and other claims if any are given."""
    text = (HYPOTHESES / f"{name}.circuit.yaml").read_text("utf-8")
    if claims:
        text = text[: text.index("claims:")] + claims
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    document = parse_hypothesis(text, str(HYPOTHESES / "changed.circuit.yaml"))
    return verify(document, VerifyOptions(negatives=search), Quiet()).verification


def only(found: Verification, code: str) -> Any:
    """The data of the one warning that there is."""
    assert [w.code for w in found.warnings] == [code]
    (warning,) = found.warnings
    assert code in all_codes()
    assert warning.detail
    assert warning.help
    return warning.data


STAND_IN = "    stand_in: {nodes: [a1.h1], at: END, effect: backup}\n"
PATHS = ("    - naming -> stand_in<q>\n    - naming, stand_in -> logits", "    - naming -> logits")
LEFT_OUT = ((STAND_IN, ""), PATHS)
COMPENSATED = {"direct": 10.0, "total": 3.0, "compensated": 0.7, "growth": 7.0}  # the main head's 10, the backup's 7


def assert_hydra(data: Any, knocked_out: str, standing: str) -> None:
    """Exactly the backup head is named, with the numbers of arithmetic."""
    assert data["knocked_out"] == knocked_out
    (by,) = data["components"]
    assert (by["component"], by["standing"]) == ("a1.h1", standing)
    figures = {
        "direct": data["direct"],
        "total": data["total"]["value"],
        "compensated": data["compensated"]["value"],
        "growth": by["growth"],
    }
    assert figures == pytest.approx(COMPENSATED, rel=0, abs=10 * CLOSE)
    assert by["share"] == pytest.approx(0.7, rel=0, abs=CLOSE)
    assert data["by_components"]["value"] == pytest.approx(0.7, rel=0, abs=CLOSE)


def test_a_backup_that_is_left_out_is_named_with_what_it_compensates() -> None:
    found = examined("backup", *LEFT_OUT, claims=SUFFICIENT)
    assert_hydra(only(found, "CS427"), "naming", "outside the circuit")
    text = render_text(found)
    assert "without naming, a1.h1 (0.70) of its direct effect" in text
    assert "direct effect of naming on logit_diff 10.00, total effect 3.00" in text


def test_a_backup_that_is_not_called_one_is_suspected() -> None:
    found = examined("backup", ("effect: backup}", "effect: positive}"), claims=SUFFICIENT + NECESSARY)
    assert_hydra(only(found, "CS426"), "naming", "in the circuit")


def test_a_backup_in_the_group_of_what_it_backs_up_is_found_by_knocking_out_components() -> None:
    """Knocked out together nothing is left to act."""
    group = ("    naming: {nodes: [a0.h2], at: END}", "    naming: {nodes: [a0.h2, a1.h1], at: END}")
    found = examined("backup", *LEFT_OUT, group, claims=SUFFICIENT + NECESSARY)
    assert_hydra(only(found, "CS426"), "a0.h2", "in the circuit")


def test_free_components_that_compensate_are_said_to_be_free() -> None:
    found = examined("backup", *LEFT_OUT, ("ablation:", "  free: [a1.h1]\n\nablation:"), claims=SUFFICIENT)
    assert_hydra(only(found, "CS426"), "naming", "free")


def test_an_or_gate_claims_what_makes_up_for_what() -> None:
    gate = "  - gate: {nodes: [naming, stand_in], is: or, metric: logit_diff}\n"
    found = examined("backup", ("effect: backup}", "effect: positive}"), claims=SUFFICIENT + gate)
    assert found.warnings == ()


def test_a_declared_backup_is_shown_to_take_over() -> None:
    found = examined("backup")
    assert found.warnings == ()
    assert found.effects is not None
    (check,) = found.effects.backups
    assert (check.group, check.knocked_out, check.grows) == ("stand_in", "naming", True)
    assert check.growth is not None
    assert check.growth.value == pytest.approx(7, abs=10 * CLOSE)
    said = json.loads(render_json(found))["effects"]
    assert said["backups"][0]["holds"] is True
    assert said["knockouts"][0]["components"][0]["component"] == "a1.h1"
    (row,) = [line for line in render_text(found).splitlines() if re.match(r"  naming  ", line)]
    assert row.split() == ["naming", "positive", "0.30", "[0.30,", "0.30]", "10.00", *row.split()[6:]]
    assert row.endswith("by a1.h1 0.70 (backup)")


# -- CS401 at edge level ------------------------------------------------------------------------

BY_EDGES = (
    ("    - naming -> logits", "    - input -> naming -> logits"),
    ("level: node", "level: edge"),
)


@pytest.mark.parametrize(
    ("search", "few"),
    [
        pytest.param("screen", 16, marks=pytest.mark.nightly),
        ("screen", 2),
        pytest.param("exact", 2, marks=pytest.mark.nightly),
    ],
)
def test_a_negative_head_left_out_of_a_circuit_of_edges_is_named(
    search: Search, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """12 of 8 without the negative head, as at node level: no other head reads what one writes."""
    monkeypatch.setattr("circuitspec.pipelines.verify.FEW", few)
    monkeypatch.setattr("circuitspec.analysis.circuit_effects.negative_components.TESTED", 3)
    found = examined("negative-left-out", *BY_EDGES, search=search)
    assert found.plan.circuit.level == "edge"
    left_out = {warning.code: warning for warning in found.warnings}["CS401"]
    (head,) = left_out.data["components"]  # type: ignore[misc]
    assert head["component"] == "a1.h2"
    assert head["effect"] == pytest.approx(-4, abs=10 * CLOSE)
    assert left_out.data["recovered_declared"]["value"] == pytest.approx(1.5, abs=CLOSE)  # type: ignore[index]
    assert left_out.data["recovered_restored"]["value"] == pytest.approx(1.0, abs=CLOSE)  # type: ignore[index]
    tried = 3 if (search, few) == ("screen", 2) else left_out.data["screened"]
    assert left_out.data["tested"] == tried
    assert left_out.data["kl_declared"] > 0.1  # type: ignore[operator]
    assert left_out.data["kl_restored"] == pytest.approx(0, abs=1e-5)
    assert found.effects is not None
    sets = {one.name: (round(one.recovered.value, 3), one.negatives) for one in found.effects.sets}
    assert sets == {"as declared": (1.5, ()), NEGATIVES_IN: (1.0, ("a1.h2",))}


@pytest.mark.parametrize(("effect", "code"), [("positive", ["CS433"]), ("negative", [])])
def test_a_negative_head_in_a_circuit_of_edges(effect: str, code: list[str]) -> None:
    """Without the edges that leave it 12 of 8 is left, as at node level."""
    changes = (
        ("effect: negative}", f"effect: {effect}}}"),
        ("    - naming, against -> logits", "    - input -> naming, against -> logits"),
        ("level: node", "level: edge"),
    )
    found = examined("negative", *changes, claims=SUFFICIENT)
    assert [warning.code for warning in found.warnings] == code
    assert found.effects is not None
    against = next(one for one in found.effects.groups if one.part.name == "against")
    assert found.effects.note(against) == "negative"
    alone = found.effects.in_circuit(against)
    assert alone is not None
    assert alone.drop.value == pytest.approx(-0.5, abs=CLOSE)
    sets = {one.name: (round(one.recovered.value, 3), one.negatives) for one in found.effects.sets}
    assert sets == {"as declared": (1.0, ()), NEGATIVES_OUT: (1.5, ("a1.h2",))}


# -- CS428, CS429 -------------------------------------------------------------------------------


def test_what_is_declared_negative_must_hurt() -> None:
    """Both heads declared negative: the one that names the thing costs 12 of 8 when it is ablated."""
    found = examined(
        "negative", ("naming: {nodes: [a0.h1], at: END}", "naming: {nodes: [a0.h1], at: END, effect: negative}")
    )
    data = only(found, "CS428")
    assert data["group"] == "naming"
    assert data["effect"] == pytest.approx(-12, abs=10 * CLOSE)
    assert data["drop"]["value"] == pytest.approx(12 / 8, abs=CLOSE)
    assert "and it helps" in found.warnings[0].message


def test_what_makes_no_difference_is_no_negative_either() -> None:
    """The bystander of the AND toy."""
    bystander = ("  paths:", "    bystander: {nodes: [a0.h2], at: END, effect: negative}\n  paths:")
    found = examined("and", bystander, claims=SUFFICIENT)
    data = only(found, "CS428")
    assert data["group"] == "bystander"
    assert "no difference that could be shown" in found.warnings[0].message


def test_a_declared_negative_is_shown_to_hurt_and_what_it_does_to_the_circuit() -> None:
    """4 with both, of which the circuit recovers all; 8 without the negative head, 12 of 8 from the corrupt -4."""
    found = examined("negative")
    assert found.warnings == ()
    assert found.effects is not None
    signs = {one.part.name: (one.sign, round(one.effect, 3)) for one in found.effects.groups}
    assert signs == {"naming": ("helps", -12.0), "against": ("hurts", 4.0)}
    sets = {one.name: (round(one.recovered.value, 3), one.negatives) for one in found.effects.sets}
    assert sets == {"as declared": (1.0, ()), NEGATIVES_OUT: (1.5, ("a1.h2",))}
    by_name = {one.name: one for one in found.effects.sets}
    out = by_name[NEGATIVES_OUT]
    assert by_name["as declared"].kl == pytest.approx(0, abs=1e-5)
    assert out.kl is not None
    assert out.kl > 0.1  # it does the task better, and is another model
    assert "negative: in the circuit alone too" in render_text(found)
    assert [one["name"] for one in json.loads(render_json(found))["effects"]["sets"]] == list(by_name)


def test_negatives_left_out_are_put_in() -> None:
    found = examined("negative-left-out")
    assert found.effects is not None
    sets = {one.name: (round(one.recovered.value, 3), one.negatives) for one in found.effects.sets}
    assert sets == {"as declared": (1.5, ()), NEGATIVES_IN: (1.0, ("a1.h2",))}


@pytest.mark.parametrize(
    "groups",
    [
        "    naming: {nodes: [a0.h1], at: END}\n    against: {nodes: [a1.h2], at: END}\n",
        "    against: {nodes: [a0.h1, a1.h2], at: END}\n",
    ],
)
def test_a_negative_head_that_is_not_declared_so_is_named(groups: str) -> None:
    """4 with both, 8 without the negative head, of 4 less the corrupt -4; and the circuit alone is the model."""
    declared = "    naming: {nodes: [a0.h1], at: END}\n    against: {nodes: [a1.h2], at: END, effect: negative}\n"
    paths = "    - naming, against -> logits" if "naming" in groups else "    - against -> logits"
    found = examined("negative", (declared, groups), ("    - naming, against -> logits", paths), claims=SUFFICIENT)
    (part,) = only(found, "CS433")["parts"]
    assert part["name"] == "a1.h2"
    for run in (part, part["in_circuit"]):
        assert run["effect"] == pytest.approx(4, abs=10 * CLOSE)
        assert run["drop"]["value"] == pytest.approx(-0.5, abs=CLOSE)
        assert run["p_adjusted"] < 1e-6
    assert "a1.h2: by 4.00 in the model, 0.50 [0.50, 0.50] of clean - corrupt, and by 4.00" in render_text(found)
    assert found.effects is not None
    out = {one.name: one for one in found.effects.sets}[NEGATIVES_OUT]
    assert (out.negatives, round(out.recovered.value, 3)) == (("a1.h2",), 1.5)


def test_what_helps_in_the_circuit_alone_is_not_negative() -> None:
    """Where the naming head is ablated, the backup's loss costs 7; where it is not, nothing: neither hurts."""
    found = examined("backup", ("effect: backup}", "effect: positive}"), claims=SUFFICIENT + NECESSARY)
    assert "CS433" not in {warning.code for warning in found.warnings}
    assert found.effects is not None
    assert found.effects.within == ()


def test_what_is_declared_a_backup_must_take_over() -> None:
    found = examined("negative", ("effect: negative}", "effect: backup}"), claims=SUFFICIENT)
    data = only(found, "CS429")
    assert (data["group"], data["knocked_out"]) == ("against", "naming")
    assert data["growth"]["value"] == pytest.approx(0, abs=10 * CLOSE)


def test_a_backup_of_what_is_outside_takes_over_where_that_is_ablated() -> None:
    changes = (("    naming: {nodes: [a0.h2], at: END}\n", ""), (PATHS[0], "    - stand_in -> logits"))
    claims = "claims:\n  - cross_section: {nodes: [stand_in], metric: logit_diff, at_most: 0.01}\n"
    found = examined("backup", *changes, claims=claims)
    assert found.warnings == ()
    assert found.effects is not None
    (check,) = found.effects.backups
    assert (check.knocked_out, check.besides) == (None, "everything outside")


def test_a_backup_of_nothing() -> None:
    changes = (
        ("    naming: {nodes: [a0.h2], at: END}\n", ""),
        (PATHS[0], "    - stand_in -> logits"),
        ("nodes: [a1.h1]", "nodes: [a1.h0]"),
    )
    claims = "claims:\n  - cross_section: {nodes: [stand_in], metric: logit_diff, at_most: 0.01}\n"
    found = examined("backup", *changes, claims=claims)
    assert only(found, "CS429")["knocked_out"] is None
    assert "no other group has a direct effect" in found.warnings[0].detail


# -- redundant and idle components --------------------------------------------------------------


def test_switches_in_parallel_are_redundant_unless_the_file_says_or() -> None:
    found = examined("or", claims=SUFFICIENT + NECESSARY)
    data = only(found, "CS426")
    assert [(one["name"], one["besides"]) for one in data["components"]] == [
        ("a0.h0", "second_switch"),
        ("a0.h1", "first_switch"),
    ]
    for one in data["components"]:  # lost alone nothing, restored alone all, besides the other one all
        figures = [one[figure]["value"] for figure in ("drop", "rise", "drop_besides")]
        assert figures == pytest.approx([0, 1, 1], rel=0, abs=CLOSE)


def test_redundancy_with_something_outside_shows_in_what_is_restored() -> None:
    changes = (
        ("    second_switch: {nodes: [a0.h1], at: END}\n", ""),
        ("first_switch, second_switch ->", "first_switch ->"),
    )
    data = only(examined("or", *changes, claims=SUFFICIENT), "CS426")
    (one,) = data["components"]
    assert (one["name"], one["besides"]) == ("a0.h0", "everything outside")
    assert one["rise"]["value"] == pytest.approx(1, abs=CLOSE)


@pytest.mark.parametrize("name", ["and", pytest.param("or", marks=pytest.mark.nightly)])
def test_a_bystander_that_is_declared_is_named(name: str) -> None:
    bystander = ("  paths:", "    bystander: {nodes: [a0.h2], at: END}\n  paths:")
    data = only(examined(name, bystander), "CS415")
    assert [one["name"] for one in data["components"]] == ["a0.h2"]


def test_without_the_search_the_circuit_is_not_taken_apart() -> None:
    found = examined("backup", *LEFT_OUT, claims=SUFFICIENT, search="off")
    assert (found.effects, found.warnings) == (None, ())
    assert json.loads(render_json(found))["effects"] is None


def test_zeros_have_no_corrupt_prompts_to_restore_in() -> None:
    bystander = ("  paths:", "    bystander: {nodes: [a0.h2], at: END}\n  paths:")
    zero = ("{value: resample, from: both,", "{value: zero,")
    data = only(examined("and", bystander, zero, claims=SUFFICIENT), "CS415")
    assert [(one["name"], one["rise"]) for one in data["components"]] == [("a0.h2", None)]


# -- several answers ----------------------------------------------------------------------------


def test_one_of_two_answers_has_all_the_probability() -> None:
    """The thing has the logit 10 and ` box` 0: a share of 1 / (1 + exp(-10)) for the thing."""
    found = examined("backup", ('answer: " {thing}"', 'answer: [" {thing}", " box"]'), claims=SUFFICIENT)
    data = only(found, "CS425")
    assert (data["prompts"], data["n"], data["metrics"]) == (24, 24, ["logit_diff"])
    assert data["median_share"] == pytest.approx(1 / (1 + math.exp(-10)), abs=1e-7)
    assert set(data["answers"]) <= {f" {thing}" for thing in ("ring", "coin", "key", "map", "pearl", "letter")}
    assert "logit_diff averages over answers that the model does not give" in found.warnings[0].detail
