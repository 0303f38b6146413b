"""Completeness, minimality, random circuits, other methods and tests on toys, with the numbers of arithmetic."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner

from circuitspec.analysis.verification_result import Verification
from circuitspec.cli import main
from circuitspec.hypothesis_file.load_file import parse_hypothesis
from circuitspec.pipelines.plan import plan_file
from circuitspec.pipelines.verify import VerifyOptions, verify
from circuitspec.reports.live_views import LiveViews
from circuitspec.reports.many_run_tables import claim_tables, main_estimate
from circuitspec.reports.reported import Reported
from circuitspec.reports.saved_result import read_saved, save
from circuitspec.reports.text.additional_tables import beside_charts, beside_tables, sweep_frame
from circuitspec.reports.text.data_frames import experiments_frame
from tests.engine.support import Silent
from tests.reports.support import shown
from tests.zoo.toy_cases import HYPOTHESES

CLOSE = 1e-4
BACKUP = (HYPOTHESES / "backup.circuit.yaml").read_text(encoding="utf-8")
NAMING, STAND_IN = "naming: {nodes: [a0.h2], at: END}", "stand_in: {nodes: [a1.h1], at: END, effect: backup}"


class Quiet(Silent):
    def stage(self, text: str) -> None:
        pass


def text_of(*claims: str, alone: bool = False) -> str:
    """The backup's hypothesis with these claims; `alone` without the backup itself."""
    head, _, _ = BACKUP.partition("\nclaims:\n")
    if alone:
        head = head.replace(f"    {STAND_IN}\n", "")
        head = head.replace("    - naming -> stand_in<q>\n", "")
        head = head.replace("naming, stand_in -> logits", "naming -> logits")
    return head + "\nclaims:\n" + "".join(f"  - {claim}\n" for claim in claims)


def reported(text: str, **options: bool) -> Reported:
    document = parse_hypothesis(text, "backup.circuit.yaml")
    outcome = verify(document, VerifyOptions("off", **options), Quiet())  # type: ignore[arg-type]
    return Reported(outcome.verification, document.source, task=outcome.task)


def verified(text: str, **options: bool) -> Verification:
    return reported(text, **options).verification


COMPLETE = "complete: {metric: logit_diff, at_most: 0.1, subsets: {random: 0, greedy: 0}}"
MINIMAL = "minimal: {metric: logit_diff, at_least: 0.05}"


@pytest.fixture(scope="module")
def alone() -> Reported:
    return reported(text_of(COMPLETE, "beats_random: {metric: logit_diff, circuits: 30}", alone=True))


def test_a_circuit_without_its_backup_is_not_complete(alone: Reported) -> None:
    """Logit differences: 5 clean, -5 corrupt; without the main head the model keeps 7 - 5 = 2, the circuit -5."""
    claim = alone.verification.claims[0]
    assert claim.status == "REFUTED"
    values = {part.name: part.estimate.value for part in claim.parts if part.estimate is not None}
    assert values == pytest.approx({"all of it": 7 / 10, "nothing": 0.0}, abs=CLOSE)  # the one group is all of it
    worst = claim.parts[0]
    assert (worst.nodes, worst.means) == (("a0.h2@END",), pytest.approx((2.0, -5.0), abs=CLOSE))
    assert claim.n == 12


def test_with_it_is(tmp_path: Path) -> None:
    """Also by edges; the backup's part in minimality shows without the main head, which is the other group."""
    for level in ("node", "edge"):
        text = text_of(COMPLETE, MINIMAL).replace("level: node", f"level: {level}")
        if level == "edge":
            text = text.replace("- naming -> stand_in<q>", "- input -> naming<q,k,v>, stand_in<q,k,v>")
            outgoing = "- naming, stand_in -> logits"
            text = text.replace(outgoing, f"- naming -> stand_in<q>\n    {outgoing}")
        complete, minimal = verified(text).claims
        assert complete.status == "SUPPORTED", level
        assert all(part.estimate is not None and abs(part.estimate.value) < CLOSE for part in complete.parts)
        main, backup = minimal.parts
        assert (main.name, main.note, backup.name, backup.note) == (
            "a0.h2@END",
            "without nothing",
            "a1.h1@END",
            "without naming",
        )
        assert main.estimate is not None
        assert backup.estimate is not None
        assert main.estimate.value == pytest.approx((10 - 7) / 10, abs=CLOSE)
        assert backup.estimate.value == pytest.approx(7 / 10, abs=CLOSE)
        assert minimal.status == "SUPPORTED"
        assert main_estimate(minimal) == main.estimate


def test_a_backup_that_paths_alone_name_is_taken_out_too() -> None:
    """At edge level it is a part of the circuit: without the main head and it nothing is left of either, -5."""
    text = text_of(COMPLETE, MINIMAL, alone=True).replace("level: node", "level: edge")
    paths = "input -> naming<q,k,v>, a1.h1<q,k,v>@END", "naming -> a1.h1<q>@END", "naming, a1.h1@END -> logits"
    complete, minimal = verified(text.replace("naming -> logits", "\n    - ".join(f'"{p}"' for p in paths))).claims
    means = {part.name: part.means for part in complete.parts}
    assert set(means) == {"nothing", "all of it", "naming", "a1.h1"}
    assert means["all of it"] == pytest.approx((-5.0, -5.0), abs=CLOSE)
    assert means["naming"] == pytest.approx((2.0, 2.0), abs=CLOSE)
    assert [(part.name, part.note) for part in minimal.parts] == [
        ("a0.h2@END", "without nothing"),
        ("a1.h1@END", "without naming"),
    ]
    values = [part.estimate.value for part in minimal.parts if part.estimate is not None]
    assert values == pytest.approx([0.3, 0.7], abs=CLOSE)


def test_corrupt_runs_of_several_corruptions_are_told_apart() -> None:
    """In JSON a claim's runs go by their names: -5 where the thing is a secret, 5 where only the box is another."""
    text = text_of("sufficient: {metric: logit_diff, at_least: 0.9, robust_to: [corruption]}")
    secret = "secret: {thing: $secrets}"
    text = text.replace(secret, f"boxes: {{kind: $secrets}}\n    {secret}")
    runs = json.loads(shown("json", reported(text)))["claims"][0]["runs"]
    assert (runs["clean"], runs["corrupt"], runs["boxes"]) == pytest.approx((5.0, -5.0, 5.0), abs=CLOSE)


def test_the_main_head_beats_every_other(alone: Reported) -> None:
    claim = alone.verification.claims[1]
    planned = alone.verification.plan.claims[1]
    assert planned.rivals is not None
    assert claim.status == "SUPPORTED"
    scores = [float(alone.verification.records[run]["logit_diff"].mean()) for run in planned.rivals.kept]
    assert scores == pytest.approx([-5.0] * 30, abs=CLOSE)  # the other heads of layer 0 do nothing


def test_all_formats_tell_them(alone: Reported) -> None:
    text = shown("text", alone)
    assert "REFUTED    complete       incompleteness by logit_diff 0.70 [0.70, 0.70], the worst of 2 subsets" in text
    assert "SUPPORTED  beats_random   beats 1.000 [0.905, 1.000] of random circuits by logit_diff" in text
    assert "null hypothesis: the circuit recovers more than at most 90% of random circuits" in text
    assert "on 12 prompts and judged on the other 12" in text
    document = json.loads(shown("json", alone))
    complete, rivals = document["claims"]
    assert (complete["measure"], complete["bound"]) == ("incompleteness", {"at_least": None, "at_most": 0.1})
    assert complete["parts"][0]["nodes"] == ["a0.h2@END"]
    assert complete["parts"][0]["means"] == pytest.approx([2, -5], abs=CLOSE)
    assert [note for note in complete["notes"] if "Bonferroni" in note]
    assert rivals["parts"][0]["ci_method"] == "exact"
    suite = ET.fromstring(shown("junit", alone))
    cases = {case.get("name"): case for case in suite.iter("testcase")}
    assert cases["claim 1: complete logit_diff"].find("failure") is not None
    properties = {p.get("name"): p.get("value") for p in suite.iter("property")}
    assert float(properties["claim 1: incompleteness all of it"] or "nan") == pytest.approx(0.7, abs=CLOSE)
    page = shown("html", alone)
    assert "Subsets were searched for" in page
    assert "share beaten" in page
    captions = [table.caption for table in claim_tables(alone.verification)]
    assert [caption.partition(":")[0] for caption in captions] == ["Claim 1, complete", "Claim 2, beats_random"]


@pytest.fixture(scope="module")
def beside() -> Reported:
    robust = "sufficient: {metric: logit_diff, at_least: 0.99, at_most: 1.01, robust_to: [level, direction]}"
    return reported(text_of(robust), sweep=True, tests=True)


def test_a_claim_under_several_methods(beside: Reported) -> None:
    """Edges into the heads are not declared, so that at edge level they compute from the corrupt prompts."""
    (claim,) = beside.verification.claims
    values = {part.name: part.estimate.value for part in claim.parts if part.estimate is not None}
    assert (claim.status, values["level edge"]) == ("REFUTED", pytest.approx(0.0, abs=CLOSE))
    assert values["as in the file"] == pytest.approx(1.0, abs=CLOSE)
    assert values["direction denoising"] == pytest.approx(1.0, abs=CLOSE)
    assert claim.estimate is not None
    assert claim.estimate.value == values["as in the file"]
    text = shown("text", beside)
    assert "sufficient under other methods" in text
    assert "  direction denoising" in text


def test_the_sweep_shows_the_range(beside: Reported) -> None:
    sweep = beside.verification.sweep
    assert sweep is not None
    by_method = {str(score.method): score.recovered for score in sweep.scores}
    own = by_method["node level, noising the complement, resample from secret, declared positions"]
    knocked_out = by_method["node level, noising the circuit, resample from secret, declared positions"]
    assert own is not None
    assert knocked_out is not None
    assert own.value == pytest.approx(1.0, abs=CLOSE)
    assert knocked_out.value == pytest.approx(0.0, abs=CLOSE)
    table = experiments_frame(beside.verification.plan, beside.verification.records)
    shares = dict(zip(table["experiment"], table["recovered_logit_diff"], strict=True))
    for score in sweep.scores:  # the table of all experiments places each between the same anchors
        label = beside.verification.plan.labels[score.run.patched]
        if score.recovered is not None:
            assert shares[label] == pytest.approx(score.recovered.value, abs=CLOSE)
    frame = sweep_frame(sweep)
    assert len(frame) == len(sweep.scores) + len(sweep.left_out)
    assert list(frame.columns[:6]) == ["level", "ablation", "corruption", "positions", "direction", "set"]
    text = shown("text", beside)
    assert f"the circuit under {len(sweep.scores)} methods, as in the file: node level, noising the complement" in text
    assert "no figure for" in text
    document = json.loads(shown("json", beside))["sweep"]
    assert document["own"] == {
        "level": "node",
        "ablation": "resample",
        "corruption": "secret",
        "positions": "declared",
        "direction": "noising",
        "set": "complement",
    }
    assert len(document["methods"]) == len(sweep.scores)
    assert document["range"]["circuit_clean"][0] <= own.value <= document["range"]["circuit_clean"][1]
    (chart,) = beside_charts(beside.verification)
    assert "level" in chart.picture.alt
    assert chart.picture.standalone().startswith("<?xml")


@pytest.mark.parametrize("toy", ["negative", "backup"])
@pytest.mark.nightly
def test_zeros_at_path_level_are_out_of_range_on_toys(toy: str) -> None:
    """With zeros along all other paths, from the embeddings too, the final norm scales what the heads add up to to 1.

    Its gain is the toys' constant, 2^14 (see `zoo/toys/weights.py`), so that the one feature left is read as 2^14.
    """
    document = parse_hypothesis((HYPOTHESES / f"{toy}.circuit.yaml").read_text(encoding="utf-8"), f"{toy}.circuit.yaml")
    outcome = verify(document, VerifyOptions("off", sweep=True), Quiet())
    found = Reported(outcome.verification, document.source, task=outcome.task)
    sweep = found.verification.sweep
    assert sweep is not None
    assert {(s.method.level, s.method.ablation, s.method.set) for s in sweep.outside} == {
        ("path", "zero", "complement")
    }
    for score in sweep.outside:
        raw = found.verification.records[score.run.patched]["logit_diff"].mean()
        assert raw == pytest.approx(2**14, rel=1e-4)
        assert "zeros also in place of the embeddings" in score.out_of_range
    assert max(sweep.values(keeps_circuit=True)) == pytest.approx(1.0, abs=CLOSE)
    (chart,) = [chart for chart in beside_charts(found.verification) if "choice of method" in chart.picture.title]
    assert "Out of range, not drawn: " in chart.note
    assert "(path level, noising the complement, zero, all positions)" in chart.note
    (table,) = beside_tables(found.verification)
    assert table.groups == (("", 2), ("circuit clean", 3), ("rest clean", 3), ("", 1))
    assert "+ 2 out of range" in table.rows[0][1]


def test_the_tests_say_their_null_hypotheses(beside: Reported) -> None:
    found = beside.verification.tests
    assert found is not None
    text = shown("text", beside)
    for test in found.tests:
        assert test.name in text
        assert test.p_adjusted is not None
    assert "null hypothesis of sufficiency: the circuit recovers more than at most 90% of random circuits" in text
    assert "null hypothesis of minimality: ablating the node changes the circuit's score more than" in text
    assert "p corrected for" in text
    document = json.loads(shown("json", beside))["tests"]
    rejected = {test["name"]: test["rejected"] for test in document["tests"]}
    # a random circuit with the main head in it recovers as much: a tie, which is no win; knocking out any but both
    # costs 3 at most, of 10
    share = next(test for test in found.tests if test.name == "sufficiency").statistic
    assert 0.5 < share < 0.9
    assert (rejected["sufficiency"], rejected["partial necessity"]) == (False, True)
    assert all(test["null"] for test in document["tests"])
    assert "sufficiency" in document["summary"]["not_shown"]
    *_, said, _ = text.strip().split("\n\n")
    assert said.startswith("tests of the circuit by logit_diff, rejected at 0.05 for it: ")
    assert said.endswith("not rejected, and so not shown: equivalence shown, sufficiency")
    assert "for it\\: partial necessity; not rejected, and so not shown\\: equiv" in shown("markdown", beside)
    names = [table.caption.partition(".")[0] for table in beside_tables(beside.verification)]
    assert names[1] == "Tests of the circuit by logit_diff, corrected together (Holm)"


def test_neither_is_there_unless_asked_for(alone: Reported) -> None:
    document = json.loads(shown("json", alone))
    assert (document["sweep"], document["tests"]) == (None, None)
    assert beside_charts(alone.verification) == ()
    assert beside_tables(alone.verification) == ()


def test_a_saved_result_tells_the_same(beside: Reported, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(save(LiveViews(beside)), encoding="utf-8")
    page = read_saved(tmp_path).page
    assert [chart.picture.title for chart in page.charts][-1] == "Recovered performance by choice of method"


def test_plan_says_what_the_searches_cost(tmp_path: Path) -> None:
    file = tmp_path / "a.circuit.yaml"
    claims = (COMPLETE.replace("greedy: 0", "greedy: 2"), MINIMAL, "beats_random: {metric: logit_diff, circuits: 30}")
    file.write_text(text_of(*claims), encoding="utf-8")
    said = plan_file(file)
    # two nodes in two groups: two steps of two candidates, circuit and model each
    assert "and up to 8 to search for subsets for claim 1 (complete)" in said
    # the other group, 3 random sets, and each with a node; two steps of two candidates, with and without the node
    assert f"and up to {1 + 3 + 2 * (1 + 3 + 2 * 2 * 2)} to search for subsets for claim 2 (minimal)" in said
    assert " random circuits " in said
    assert "--methods" not in said
    head, _, _ = text_of().partition("  paths:\n")
    rest = text_of("necessary: {metric: logit_diff, at_most: 0.01}").partition("-> logits\n")[2]
    file.write_text(head + rest, encoding="utf-8")
    # without paths there is node level alone: 2 sets at 2 sets of positions, noised by 3 means of which each has the
    # ablated model as its anchor (means, means by template, zeros) and by resampling, and restored; the claim has one
    assert f"and {3 * (2 * 2 + 1) + 2 * 2 + 2 * 2 - 1} for --methods and --tests" in plan_file(file, sweep=True)


@pytest.mark.nightly
def test_the_command_line_runs_both(tmp_path: Path) -> None:
    file, out = tmp_path / "a.circuit.yaml", tmp_path / "out"
    file.write_text(text_of("necessary: {metric: logit_diff, at_most: 0.01}"), encoding="utf-8")
    ran = CliRunner().invoke(
        main,
        ["verify", str(file), "--no-store", "--negatives", "off", "--methods", "--tests", "--output-dir", str(out)],
    )
    assert ran.exit_code == 0, ran.output
    assert "the circuit under" in ran.output
    assert "tests of the circuit by logit_diff" in ran.output
    assert (
        (out / "sweep.csv").read_text(encoding="utf-8").startswith("level,ablation,corruption,positions,direction,set")
    )
