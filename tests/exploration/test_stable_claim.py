"""A claim that a search on other prompts chooses the members again: on a toy of which it is known on paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from circuitspec.analysis.claims.claim_result import ClaimResult
from circuitspec.cli import main
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.hypothesis_file.load_file import parse_hypothesis
from circuitspec.pipelines.verify import VerifyOptions, verify
from circuitspec.reports.machine.json_document import to_document
from circuitspec.runtime.progress import Silent

TOYS = Path(__file__).parents[2] / "hypotheses" / "toys"


def written(claim: str, *, prompts: int = 16, groups: str = "", **changes: str) -> str:
    """The toy with +6 and -2 on one logit; 6 things in 6 boxes make 36 prompts."""
    text = (TOYS / "negative.circuit.yaml").read_text("utf-8")
    text = text[: text.index("claims:")].replace("prompts: 24", f"prompts: {prompts}")
    if groups:
        before, _, rest = text.partition("    naming:")
        text = before + groups + "ablation:" + rest.partition("ablation:")[2]
    for old, new in changes.items():
        text = text.replace(f"{old}: node", f"{old}: {new}")
    return f"{text}claims:\n  - stable: {{{claim}}}\n"


def judged(text: str) -> tuple[ClaimResult, Any]:
    found = verify(parse_hypothesis(text, "toy.circuit.yaml", TOYS), VerifyOptions("off"), Silent()).verification
    (claim,) = found.claims
    return claim, to_document(found)["claims"][0]


def test_members_that_do_the_task_are_chosen_again() -> None:
    """On 20 other prompts; chosen in 16 of 16: 16 / (16 + 1.96²) = 0.806."""
    claim, plain = judged(written("at_least: 0.8, searches: 16"))
    assert claim.status == "SUPPORTED"
    assert [(part.name, part.estimate.value) for part in claim.parts if part.estimate] == [
        ("a0.h1@END", 1.0),
        ("a1.h2@END", 1.0),
    ]
    assert claim.parts[0].estimate is not None
    assert claim.parts[0].estimate.low == pytest.approx(16 / (16 + 1.96**2), abs=1e-4)
    assert claim.n == 10
    assert "20 other prompts, drawn anew" in claim.notes[0]
    assert plain["status"] == "SUPPORTED"
    assert [part["name"] for part in plain["parts"]] == ["a0.h1@END", "a1.h2@END"]


def test_a_member_that_does_nothing_is_not_chosen_and_one_left_out_is_named() -> None:
    groups = "    naming: {nodes: [a0.h1, a0.h3], at: END}\n"
    claim, _ = judged(written("at_least: 0.8, searches: 16", groups=groups))
    assert claim.status == "REFUTED"
    values = {part.name: part.estimate.value for part in claim.parts if part.estimate}
    assert values == {"a0.h3@END": 0.0, "a0.h1@END": 1.0}
    assert claim.found == "least often a0.h3@END; as often as that, and not in the circuit: a1.h2@END"


@pytest.mark.nightly
def test_helpful_components_alone_are_another_circuit() -> None:
    """The head that hurts is not in it."""
    claim, _ = judged(written("at_least: 0.8, searches: 16, circuit: helpful"))
    values = {part.name: part.estimate.value for part in claim.parts if part.estimate}
    assert (claim.status, values) == ("REFUTED", {"a1.h2@END": 0.0, "a0.h1@END": 1.0})


def test_few_other_prompts_decide_nothing() -> None:
    """36 prompts are all there are: 20 of them leave 16, and 30 leave 6."""
    claim, _ = judged(written("at_least: 0.8", prompts=20))
    assert claim.status == "INCONCLUSIVE"
    assert "16 other prompts, drawn anew) are too few: halves of 20" in claim.reason


@pytest.mark.nightly
def test_without_other_prompts_nothing_is_decided() -> None:
    claim, _ = judged(written("at_least: 0.8", prompts=30))
    assert claim.reason == "there are no other prompts to search on: the word lists give too few other prompts"


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        (written("at_least: 0.8", level="edge"), "CS252", "at edge level a circuit is its paths"),
        (written("at_least: 0.8", groups="    naming: {nodes: [m0.n3], at: END}\n"), "CS252", "m0.n3 is none of these"),
        (written("at_least: 0.9, searches: 20"), "CS253", "0.84 or more"),
    ],
)
def test_what_no_search_finds_and_too_few_searches_are_refused(text: str, code: str, said: str) -> None:
    with pytest.raises(CircuitspecError) as raised:
        verify(parse_hypothesis(text, "toy.circuit.yaml", TOYS), VerifyOptions("off"), Silent())
    assert [one.code for one in raised.value.diagnostics] == [code]
    assert said in raised.value.diagnostics[0].message


def test_plan_counts_the_searches(tmp_path: Path) -> None:
    """2 * 10 effects, and of each of 16 searches at most 2 * 16 + 6 * 12 + 2 * 10 runs, of 10 components at END."""
    file = tmp_path / "toy.circuit.yaml"
    file.write_text(written("at_least: 0.8, searches: 16"))
    run = CliRunner().invoke(main, ["plan", str(file)])
    assert f"up to {20 + 16 * (32 + 72 + 20):,} on other prompts for claim 1 (stable)" in run.output
