"""The hypothesis files about toys: valid, and verified with the numbers that arithmetic gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuitspec.analysis.claims.verdict import ClaimResult
from circuitspec.analysis.verification_result import Verification
from circuitspec.hypothesis_file.load_file import load_hypothesis
from circuitspec.pipelines.check import check_file
from circuitspec.pipelines.verify import VerifyOptions, verify
from tests.engine.support import Silent
from tests.zoo.path_cases import EXPECTED, amplification, nobel, score
from tests.zoo.toy_cases import HYPOTHESES

FILES = sorted(HYPOTHESES.glob("*.circuit.yaml"))
WHOLE = ("and", "or", "nobel", "negative", "backup")
CLOSE = 1e-5  # float32


class Quiet(Silent):
    def stage(self, text: str) -> None:
        pass


def verified(name: str) -> Verification:
    return verify(load_hypothesis(HYPOTHESES / f"{name}.circuit.yaml"), VerifyOptions(), Quiet()).verification


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_files_are_valid(file: Path) -> None:
    problems, summary = check_file(file)
    assert problems == ()
    assert "ok" in summary
    assert "note" not in summary  # the model's configuration was at hand


SECTIONS = {  # recovered, in the order of the files' cross_section claims; the anchors are -4 and 4, or -5 and 5
    "and": [1, 1, 0, 0],  # the neuron, both heads, each head: (8 relu(1 + 0 - 1) - 4) - (-4) of 8
    "or": [1, 1, 1],  # each head, the neuron
    "nobel": [1, 1, 0, 0, 0],  # the neuron, its two inputs; the head, Nobel, Peace
    "negative": [((6 - 2) + 4) / 8, ((6 + 2) + 4) / 8],  # both heads, the positive one
    "backup": [(10 - 5 + 5) / 10, (0 - 5 + 5) / 10],  # the main head, the backup
}


# What the files claim of gates: interactions noised and denoised, and the gate found. Alone and together, noising costs
# d1, d2 and d12 and denoising brings r1, r2 and r12; interactions are (d1 + d2 - d12) / d12 and (r1 + r2 - r12) / r12.
GATES = {
    "and": ((8 + 8 - 8) / 8, (0 + 0 - 8) / 8, "and"),
    "or": ((0 + 0 - 8) / 8, (8 + 8 - 8) / 8, "or"),
    "nobel": ((8 + 8 - 8) / 8, (0 + 0 - 8) / 8, "and"),  # Nobel by the head, and Peace
    "negative": ((12 - 4 - 8) / 8, (12 - 4 - 8) / 8, "additive"),
    "backup": ((3 + 0 - 10) / 10, (10 + 0 - 10) / 10, "backup"),
}

# Reactions by corruption: what noising the nodes from it costs, of the 8 that it costs to corrupt the prompts so.
# Neither switch of the OR gate costs anything by itself: those are shares of what both cost.
REACTIONS = {
    "and": [{"both": 1, "first": 1, "second": 0}, {"both": 1, "first": 0, "second": 1}],
    "or": [{"both": 1, "first": 0, "second": 0}],
    "nobel": [
        {"random": 1, "x_peace": 1, "nobel_y": 0},  # the head reads Nobel
        {"random": 1, "x_peace": 0, "nobel_y": 1},  # the embedding of Peace is Peace's
        {"random": 1, "x_peace": 1, "nobel_y": 1},  # the neuron
    ],
    "negative": [],
    "backup": [],
}


def figures(claim: ClaimResult) -> dict[str, float]:
    """The estimates of a claim's parts by name."""
    assert claim.status == "SUPPORTED"
    assert {part.status for part in claim.parts} == {"SUPPORTED"}
    return {part.name: part.estimate.value for part in claim.parts if part.estimate is not None}


@pytest.mark.parametrize("name", WHOLE)
def test_gates_and_traces_are_as_arithmetic_has_them(name: str) -> None:
    """The table of section 2.4 of Heimersheim and Nanda (2024), and the corruptions of their section 3.1."""
    claims = verified(name).claims
    (gate,) = (claim for claim in claims if claim.kind == "gate")
    noised, denoised, kind = GATES[name]
    assert figures(gate) == pytest.approx({"noised": noised, "denoised": denoised}, rel=0, abs=CLOSE)
    assert gate.found.partition(":")[0] == kind
    traces = [claim for claim in claims if claim.kind == "traces"]
    for claim, expected in zip(traces, REACTIONS[name], strict=True):
        assert figures(claim) == pytest.approx(expected, rel=0, abs=CLOSE)
        assert claim.found.split(", ") == [corruption for corruption, share in expected.items() if share]


@pytest.mark.parametrize(
    ("name", "parts", "claimed", "found"),
    [
        ("and", ("first_switch", "second_switch"), "or", "and"),
        ("or", ("first_switch", "second_switch"), "and", "or"),
        pytest.param("or", ("first_switch", "second_switch"), "additive", "or", marks=pytest.mark.nightly),
        ("backup", ("naming", "stand_in"), "and", "backup"),
        ("negative", ("naming", "against"), "or", "additive"),
        # denoising either brings all of it back
        pytest.param("mediation", ("switch", "relay"), "and", "mediation", marks=pytest.mark.nightly),
        ("mediation", ("switch", "relay"), "or", "mediation"),  # noising either breaks all of it
        ("amplification", ("switch", "booster"), "and", "amplification"),  # denoising the switch sets the booster too
    ],
)
def test_another_gate_is_refuted_and_the_right_one_named(
    name: str, parts: tuple[str, str], claimed: str, found: str, tmp_path: Path
) -> None:
    text = (HYPOTHESES / f"{name}.circuit.yaml").read_text("utf-8")
    claim = f"  - gate: {{nodes: [{', '.join(parts)}], is: {claimed}, metric: logit_diff}}\n"
    file = tmp_path / "gate.circuit.yaml"
    file.write_text(text[: text.index("claims:")] + "claims:\n" + claim, "utf-8")
    (result,) = verify(load_hypothesis(file), VerifyOptions(), Quiet()).verification.claims
    assert (result.status, result.found.partition(":")[0]) == ("REFUTED", found)


def test_a_component_that_reacts_to_more_or_less_than_claimed_is_refuted(tmp_path: Path) -> None:
    text = (HYPOTHESES / "nobel.circuit.yaml").read_text("utf-8")
    claims = "".join(
        f"  - traces: {{nodes: [previous_token], to: [{to}], metric: logit_diff}}\n"
        for to in (
            "random",
            "random, x_peace, nobel_y",
            "nobel_y",
        )
    )
    file = tmp_path / "traces.circuit.yaml"
    file.write_text(text[: text.index("claims:")] + "claims:\n" + claims, "utf-8")
    found = verify(load_hypothesis(file), VerifyOptions(), Quiet()).verification.claims
    assert [claim.status for claim in found] == ["REFUTED"] * 3
    refuted = [[part.name for part in claim.parts if part.status == "REFUTED"] for claim in found]
    assert refuted == [["x_peace"], ["nobel_y"], ["random", "x_peace", "nobel_y"]]
    assert {claim.found for claim in found} == {"random, x_peace"}


def test_values_from_prompts_that_keep_a_slot_confirm_nothing_about_it(tmp_path: Path) -> None:
    """CS422, and no other: the second switch stays on in both runs."""
    text = (
        (HYPOTHESES / "and.circuit.yaml")
        .read_text("utf-8")
        .replace("{value: resample, from: both,", "{value: resample, from: first,")
    )
    claims = "claims:\n  - sufficient: {metric: logit_diff, at_least: 0.99}\n"
    file = tmp_path / "first.circuit.yaml"
    file.write_text(text[: text.index("claims:")] + claims, "utf-8")
    document = load_hypothesis(file)
    (warning,) = verify(document, VerifyOptions(), Quiet()).verification.warnings
    assert (warning.code, warning.data["kept"]) == ("CS422", ["B"])


@pytest.mark.parametrize("name", WHOLE)
def test_circuits_hold_with_the_numbers_of_arithmetic(name: str) -> None:
    """Ablating all else leaves exactly the clean run, ablating the circuit exactly the corrupt one."""
    found = verified(name)
    expected = [("sufficient", 1), ("necessary", 0), *(("cross_section", value) for value in SECTIONS[name])]
    whole = [claim for claim in found.claims if not claim.parts]
    for claim, (kind, value) in zip(whole, expected, strict=True):
        assert (claim.kind, claim.status) == (kind, "SUPPORTED")
        assert claim.estimate is not None
        assert claim.estimate.value == pytest.approx(value, rel=0, abs=CLOSE)
    assert found.warnings == ()  # a sound circuit


def test_a_negative_head_left_out_is_named_with_both_numbers() -> None:
    """Recovered: (6 + 2) - (-4) of 4 - (-4) without the negative head, and all of it with the head restored."""
    found = verified("negative-left-out")
    warnings = {warning.code: warning for warning in found.warnings}
    assert list(warnings) == ["CS401", "CS402"]
    assert "a1.h2 (-0.50" in warnings["CS401"].message
    kl = found.records[found.plan.circuit]["kl"].mean()
    assert kl > 0.1
    assert warnings["CS401"].detail == (
        "recovered logit_diff 1.50 as declared, 1.00 with all of them restored; "
        f"kl {kl:.2f} and {warnings['CS401'].data['kl_restored']:.2f} nats"
        " (on 12 prompts; the other 12 chose the components)"
    )
    assert warnings["CS401"].data["kl_restored"] == pytest.approx(0, abs=1e-5)
    assert "1.50" in warnings["CS402"].message
    data = warnings["CS401"].data
    assert data["recovered_declared"]["value"] == pytest.approx(12 / 8, abs=CLOSE)  # type: ignore[index]
    assert data["recovered_restored"]["value"] == pytest.approx(8 / 8, abs=CLOSE)  # type: ignore[index]
    (component,) = data["components"]  # type: ignore[misc]
    assert component["effect"] == pytest.approx(-4, abs=10 * CLOSE)  # type: ignore[index]


def test_the_backup_hides_that_the_main_head_is_necessary(tmp_path: Path) -> None:
    """Without the backup in the circuit, 0.7 of the behaviour outlives the circuit: (7 - 5) - (-5) of 10."""
    text = (HYPOTHESES / "backup.circuit.yaml").read_text("utf-8")
    text = text.replace("    stand_in: {nodes: [a1.h1], at: END, effect: backup}\n", "")
    text = text.replace("    - naming -> stand_in<q>\n    - naming, stand_in -> logits", "    - naming -> logits")
    text = text[: text.index("  # restored in the corrupt run")]
    file = tmp_path / "left-out.circuit.yaml"
    file.write_text(text, "utf-8")
    claims = {
        claim.kind: claim for claim in verify(load_hypothesis(file), VerifyOptions(), Quiet()).verification.claims
    }
    assert claims["sufficient"].status == "SUPPORTED"
    assert claims["necessary"].status == "REFUTED"
    estimate = claims["necessary"].estimate
    assert estimate is not None
    assert estimate.value == pytest.approx(0.7, rel=0, abs=CLOSE)


@pytest.mark.parametrize("name", EXPECTED)
def test_edges_and_paths_hold_with_the_numbers_of_arithmetic(name: str) -> None:
    document = load_hypothesis(HYPOTHESES / f"{name}.circuit.yaml")
    found = verify(document, VerifyOptions(), Quiet()).verification
    assert found.warnings == ()
    for claim, said, expected in zip(found.claims, document.hypothesis.claims, EXPECTED[name], strict=True):
        assert (claim.kind, claim.status) == (said.kind, "SUPPORTED")
        assert claim.estimate is not None
        assert claim.estimate.value == pytest.approx(score(said, expected), rel=0, abs=CLOSE)


@pytest.mark.parametrize(
    ("name", "left_out", "expected"),
    [
        ("nobel-edges", "previous_token -> prize", nobel(0, 1)),  # as good as any of the three
        ("amplification", "switch -> lamp", amplification(0, 1)),
    ],
)
def test_a_circuit_that_lacks_an_edge_is_refuted(name: str, left_out: str, expected: float, tmp_path: Path) -> None:
    """Though it has all the components: noising the edge breaks the behaviour."""
    text = (HYPOTHESES / f"{name}.circuit.yaml").read_text("utf-8")
    assert f"    - {left_out}\n" in text
    text = text.replace(f"    - {left_out}\n", "")
    text = text[: text.index("claims:")] + "claims:\n  - sufficient: {metric: logit_diff, at_least: 0.99}\n"
    file = tmp_path / "lacking.circuit.yaml"
    file.write_text(text, "utf-8")
    document = load_hypothesis(file)
    (claim,) = verify(document, VerifyOptions(), Quiet()).verification.claims
    assert claim.status == "REFUTED"
    assert claim.estimate is not None
    assert claim.estimate.value == pytest.approx(score(document.hypothesis.claims[0], expected), rel=0, abs=CLOSE)
