"""Reports of claims that several figures decide, from the toys' own runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from circuitspec.hypothesis_file.load_file import load_hypothesis
from circuitspec.pipelines.verify import VerifyOptions, verify
from circuitspec.reports.reported import Reported
from circuitspec.reports.text.data_frames import experiments_frame
from tests.reports.support import shown
from tests.zoo.test_toys_hypotheses import HYPOTHESES, Quiet

CLAIMS = """claims:
  - gate: {nodes: [first_switch, second_switch], is: or, metric: logit_diff}
  - gate: {nodes: [first_switch, second_switch], is: and, metric: logit_diff}
  - traces: {nodes: [first_switch, second_switch], to: [both], metric: logit_diff}
"""


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Reported:
    """The OR gate, claimed to be one and claimed to be an AND gate."""
    text = (HYPOTHESES / "or.circuit.yaml").read_text("utf-8")
    file: Path = tmp_path_factory.mktemp("parts") / "or.circuit.yaml"
    file.write_text(text[: text.index("claims:")] + CLAIMS, "utf-8")
    document = load_hypothesis(file)
    outcome = verify(document, VerifyOptions(), Quiet())
    return Reported(outcome.verification, document.source, task=outcome.task)


def test_tables_show_the_means_behind_every_figure(reported: Reported) -> None:
    text = shown("text", reported)
    assert (
        """
noising and denoising first_switch, second_switch, and both: node level, resample from both noised, clean values into \
both denoised, declared positions

  logit_diff   neither   first_switch   second_switch    both   interaction [95% CI]
  noised          4.00           4.00            4.00   -4.00   -1.00
  denoised       -4.00           4.00            4.00    4.00   1.00

noising first_switch, second_switch from both, first, second: node level, resample, declared positions

  logit_diff   clean   corrupt   noised   reaction [95% CI]
  both          4.00     -4.00    -4.00   1.00
  first         4.00      4.00     4.00   0.00 of what both takes away
  second        4.00      4.00     4.00   0.00 of what both takes away
"""
        in text
    )


def test_claims_say_what_was_found(reported: Reported) -> None:
    lines = [line for line in shown("text", reported).splitlines() if re.match("SUPPORTED|REFUTED", line)]
    assert lines == [
        "SUPPORTED  gate     first_switch, second_switch: interaction on logit_diff noised -1.00, denoised 1.00 "
        "(or: either is enough, neither is needed), bound noised at most -0.5, denoised at least -0.1",
        "REFUTED    gate     first_switch, second_switch: interaction on logit_diff noised -1.00, denoised 1.00 "
        "(or: either is enough, neither is needed), bound noised at least 0.5, denoised at most -0.5",
        "SUPPORTED  traces   first_switch, second_switch: logit_diff falls by 1.00 from both, "
        "0.00 from first (of what both takes away), 0.00 from second (of what both takes away) (reacts to both), "
        "bound both at least 0.5, first -0.1 .. 0.1, second -0.1 .. 0.1",
    ]


def test_json_has_every_part_and_run(reported: Reported) -> None:
    document = json.loads(shown("json", reported))
    gate, refuted, traces = document["claims"]
    assert (gate["claim"], gate["measure"], gate["value"], gate["ci"]) == ("gate", "interaction", None, None)
    assert (gate["found"], refuted["found"], traces["found"]) == ("or: either is enough, neither is needed",) * 2 + (
        "both",
    )
    assert gate["bound"] == {"at_least": None, "at_most": None}
    noised, denoised = gate["parts"]
    assert (noised["name"], noised["status"], noised["bound"]) == (
        "noised",
        "SUPPORTED",
        {"at_least": None, "at_most": -0.5},
    )
    assert noised["value"] == pytest.approx(-1, abs=1e-5)
    assert noised["ci"] == pytest.approx([-1, -1], abs=1e-5)
    assert denoised["value"] == pytest.approx(1, abs=1e-5)
    assert {name: round(mean, 4) for name, mean in gate["runs"].items()} == {
        "clean": 4,
        "corrupt": -4,
        "first_switch noised": 4,
        "second_switch noised": 4,
        "first_switch, second_switch noised": -4,
        "first_switch restored": 4,
        "second_switch restored": 4,
        "first_switch, second_switch restored": 4,
    }
    assert [part["name"] for part in traces["parts"]] == ["both", "first", "second"]


def test_every_format_names_the_figures(reported: Reported) -> None:
    junit = ET.fromstring(shown("junit", reported).encode())
    named = {str(p.get("name")): float(p.get("value", "nan")) for p in junit.iter("property")}
    properties = {name: value for name, value in named.items() if name.startswith("claim 1: ")}
    expected = {"claim 1: interaction noised": -1, "claim 1: interaction denoised": 1}
    assert properties == pytest.approx(expected, abs=1e-5)
    assert [case.find("failure") is None for case in junit.iter("testcase")] == [True, False, True]
    markdown = shown("markdown", reported).replace("\\", "")
    assert "| noised at most -0.5, denoised at least -0.1 |" in markdown
    assert "logit_diff falls by 1.00 from both" in markdown
    assert "gate is refuted: interaction on logit_diff noised -1.00" in shown("github", reported)


def test_the_table_of_experiments_measures_each_run_between_its_anchors(reported: Reported) -> None:
    found = reported.verification
    frame = experiments_frame(found.plan, found.records).set_index("experiment")
    recovered = frame["recovered_logit_diff"]
    assert recovered["first_switch, second_switch noised"] == pytest.approx(0, abs=1e-5)
    assert recovered["second_switch restored"] == pytest.approx(1, abs=1e-5)
    assert frame["direction"]["second_switch restored"] == "denoising"
    # noised from `first`, between clean and `first` itself, which takes nothing away
    assert recovered.isna()["first_switch, second_switch noised from first"]


def test_prompts_are_listed_where_they_are_asked_for(reported: Reported) -> None:
    whole = load_hypothesis(HYPOTHESES / "negative.circuit.yaml")
    outcome = verify(whole, VerifyOptions(), Quiet())
    plain = Reported(outcome.verification, whole.source, task=outcome.task)
    assert "prompts behind" not in shown("text", plain)
    text = shown("text", plain, list_prompts=True)
    assert "prompts behind sufficient (circuit), recovered logit_diff 1.00" in text
    assert text.index("SUPPORTED") < text.index("prompts behind") < text.index("no negative components")
    assert "prompts behind gate" not in text  # its figures are of several runs
    assert "prompts behind" not in shown("text", reported, list_prompts=True)
