"""GitHub's commands, JUnit, Markdown and the badge, of the example and of one with a hostile text in it."""

from __future__ import annotations

import dataclasses
import json
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from markdown_it import MarkdownIt

from circuitspec.diagnostics.diagnostic import Diagnostic, Span
from circuitspec.hypothesis_file.yaml.source import parse_source
from circuitspec.reports.machine.github_annotations import workflow_commands
from circuitspec.reports.report_formats import FORMATS
from circuitspec.reports.reported import Reported, result_of
from circuitspec.runtime.visible_text import visible
from tests.reports.support import NECESSARY, SUFFICIENT, example, shown

FILE = """\
name: ioi-tiny
circuit:
  groups:
    mover: {nodes: [a3.h0]}
claims:
  - sufficient: {metric: logit_diff, at_least: 0.8, at_most: 1.2}
  - necessary: {metric: logit_diff, at_most: 0.3}
"""
HOSTILE = "x|y <img src=x onerror=a()> [a](javascript:b) `c` ::error::d\n::set-env e% \x00\x1b[31m *f* &amp; \u202e # g"
DRIFT = Diagnostic("CS556", "claim 2 is not as it was locked: 0.5 -> 0.4", Span("ioi.circuit.lock", 9, 3, 8))
NOTE = Diagnostic("CS555", "torch changed since it was locked: 1 -> 2", severity="note")


def reported(*findings: Diagnostic, file: str = "ioi.circuit.yaml") -> Reported:
    return Reported(example(), parse_source(FILE, file), findings)


def hostile() -> Reported:
    found = example()
    (warning,) = found.warnings
    return Reported(
        dataclasses.replace(
            found,
            name=HOSTILE,
            model=dataclasses.replace(found.model, id=HOSTILE, description=HOSTILE),
            claims=(found.claims[0], dataclasses.replace(found.claims[1], experiment=HOSTILE, reason=HOSTILE)),
            warnings=(dataclasses.replace(warning, message=HOSTILE, detail=HOSTILE, help=HOSTILE),),
        ),
        parse_source(FILE, f"{HOSTILE}.circuit.yaml".replace("\x00", "")),
        (dataclasses.replace(DRIFT, message=HOSTILE, label=HOSTILE),),
    )


def commands(text: str) -> Iterator[tuple[str, dict[str, str], str]]:
    """Workflow commands as GitHub documents them: `::name key=value,key=value::message`, %-escaped."""

    def plain(escaped: str) -> str:
        for code, character in (("%3A", ":"), ("%2C", ","), ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
            escaped = escaped.replace(code, character)
        return escaped

    for line in text.split("\n")[:-1]:
        found = re.fullmatch(r"::([a-z]+) ([^\r]*?)::([^\r]*)", line)
        assert found is not None, line
        properties = dict(pair.split("=", 1) for pair in found[2].split(","))
        yield found[1], {key: plain(value) for key, value in properties.items()}, plain(found[3])


def test_every_format_is_in_the_table() -> None:
    assert list(FORMATS) == ["text", "json", "html", "github", "junit", "markdown", "badge"]
    for name in FORMATS:
        for told in (reported(), hostile()):
            assert shown(name, told).endswith("\n")


def test_annotations_stand_at_the_lines_of_the_file() -> None:
    supported, refuted, warning, drift, note = commands(shown("github", reported(DRIFT, NOTE)))
    assert supported == (
        "notice",
        {"file": "ioi.circuit.yaml", "line": "6", "col": "5", "endColumn": "15", "title": "circuitspec: supported"},
        "sufficient: recovered logit_diff 0.88 [0.84, 0.91], bound 0.8 .. 1.2",
    )
    name, properties, message = refuted
    assert name == "error"
    assert (properties["line"], properties["col"], properties["title"]) == ("7", "5", "circuitspec CS560")
    first, second = message.split("\n")
    assert first == "necessary is refuted: recovered logit_diff 0.52 [0.47, 0.58], bound at most 0.3"
    assert second == "ablating the circuit, 100 prompts: clean 4.31, corrupt -0.02, circuit ablated 2.23"
    assert (warning[0], warning[1]["line"], warning[1]["title"]) == ("warning", "3", "circuitspec CS401")
    assert warning[2].splitlines()[-1].startswith("add them to a group")
    assert drift[1] == {
        "file": "ioi.circuit.lock", "line": "9", "col": "3", "endColumn": "8", "title": "circuitspec CS556",
    }  # fmt: skip
    assert note == ("notice", {"title": "circuitspec CS555"}, NOTE.message)


def test_a_claim_without_a_verdict_is_an_error_too() -> None:
    found = example()
    open_ = dataclasses.replace(NECESSARY, status="INCONCLUSIVE", reason="the confidence interval crosses the bound")
    told = Reported(dataclasses.replace(found, claims=(found.claims[0], open_)), parse_source(FILE, "x"))
    _, second, _ = commands(shown("github", told))
    assert second[0] == "error"
    assert second[1]["title"] == "circuitspec CS561"
    assert "crosses the bound" in second[2]


def test_no_text_can_end_a_command() -> None:
    found = list(commands(shown("github", hostile())))
    assert len(found) == 4
    assert found[2][2] == "\n".join([visible(HOSTILE)] * 3)
    assert not any(unicodedata.category(c) in ("Cc", "Cf") for c in found[2][2].replace("\n", ""))
    assert found[0][1]["file"].startswith("x|y <img")
    assert set(found[0][1]) == {"file", "line", "col", "endColumn", "title"}


def test_files_are_named_from_the_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The paths that GitHub knows count from the checkout, wherever the command ran."""
    below = tmp_path / "paper" / "hypotheses"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    finding = dataclasses.replace(DRIFT, span=Span("x.circuit.yaml", 1, 1))

    def file() -> str:
        ((_, properties, _),) = commands(workflow_commands([finding]))
        return properties["file"]

    monkeypatch.delenv("GITHUB_WORKSPACE", raising=False)
    assert file() == "x.circuit.yaml"
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    assert file() == "paper/hypotheses/x.circuit.yaml"
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path / "elsewhere"))
    assert file() == str(below / "x.circuit.yaml")


def test_junit_has_a_test_case_a_claim() -> None:
    top = ET.fromstring(shown("junit", reported()).encode())
    suite = top.find("testsuite")
    assert suite is not None
    assert (top.tag, suite.get("name")) == ("testsuites", "ioi-tiny")
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "0")
    first, second = suite.findall("testcase")
    assert first.attrib == {"name": "claim 1: sufficient logit_diff", "classname": "ioi-tiny"}
    assert suite.get("file") == "ioi.circuit.yaml"
    assert first.find("failure") is None
    assert first.findtext("system-out", "").startswith("ioi.circuit.yaml:6\n")
    values = {
        p.get("name"): p.get("value") for p in suite.iter("property") if p.get("name", "").startswith("claim 1: ")
    }
    figures = {"measure": "recovered", "value": "0.88", "ci_low": "0.84", "ci_high": "0.91", "n": "100"}
    assert values == {f"claim 1: {name}": value for name, value in figures.items()}
    failure = second.find("failure")
    assert failure is not None
    assert failure.get("type") == "REFUTED"
    assert failure.get("message") == "recovered logit_diff 0.52 [0.47, 0.58], bound at most 0.3"
    assert (failure.text or "").startswith("ioi.circuit.yaml:7\n")
    assert "circuit ablated 2.23" in (failure.text or "")
    output = suite.find("system-out")
    assert output is not None
    assert "warning[CS401]" in (output.text or "")


def test_drift_is_a_test_case_of_its_own() -> None:
    for findings, failures in (((NOTE,), "1"), ((NOTE, DRIFT), "2")):
        suite = ET.fromstring(shown("junit", reported(*findings)).encode()).find("testsuite")
        assert suite is not None
        assert (suite.get("tests"), suite.get("failures")) == ("3", failures)
        case = suite.findall("testcase")[-1]
        assert case.get("name") == "as locked"
        assert "torch changed" in "".join(case.itertext())


# What may stand in which element, and with which attributes (those that must be there first), in the XML Schema of
# Jenkins's xUnit plugin (junit-10.xsd), which is Surefire's but for what only reruns have. Choices, so in any order.
_JUNIT = {
    "testsuites": ({"testsuite"}, [], ["name", "time", "tests", "failures", "errors"]),
    "testsuite": (
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
        ["name", "tests", "failures", "errors"],
        ["group", "time", "skipped", "timestamp", "hostname", "id", "package", "file", "log", "url"],
    ),
    "properties": ({"property"}, [], []),
    "property": (set(), ["name", "value"], []),
    "testcase": (
        {"skipped", "error", "failure", "system-out", "system-err"},
        ["name"],
        ["time", "classname", "group"],
    ),
    "failure": (set(), [], ["type", "message"]),
    "system-out": (set(), [], []),
}
_SUREFIRE_TIME = r"(([0-9]{0,3},)*[0-9]{3}|[0-9]{0,3})*(\.[0-9]*)?"


@pytest.mark.parametrize("told", [reported(), reported(NOTE), reported(NOTE, DRIFT), hostile()])
def test_junit_is_as_programs_that_check_it_want_it(told: Reported) -> None:
    top = ET.fromstring(shown("junit", told).encode())
    assert top.tag == "testsuites"
    for element in top.iter():
        children, required, optional = _JUNIT[element.tag]
        assert {child.tag for child in element} <= children, element.tag
        assert set(required) <= set(element.attrib) <= {*required, *optional}, element.tag
        assert re.fullmatch(_SUREFIRE_TIME, element.get("time", "")), element.tag
        if children:
            assert not (element.text or "").strip()
            assert not any((child.tail or "").strip() for child in element)
    for suite in top:
        cases = suite.findall("testcase")
        assert (suite.get("tests"), suite.get("errors")) == (str(len(cases)), "0")
        assert suite.get("failures") == str(sum(case.find("failure") is not None for case in cases))
        assert all(top.get(count) == suite.get(count) for count in ("tests", "failures", "errors", "time"))


def test_junit_is_xml_whatever_the_texts_hold() -> None:
    suite = ET.fromstring(shown("junit", hostile()).encode()).find("testsuite")
    assert suite is not None
    assert suite.get("name", "").startswith("x|y <img src=x onerror=a()>")
    assert "<U+0000><U+001B>[31m" in suite.get("name", "")  # which cannot be written in XML


def test_markdown_summary() -> None:
    html = MarkdownIt().enable("table").render(shown("markdown", reported(NOTE)))
    text = re.sub(r"<[^>]*>", "", html)
    assert "<h3>❌ ioi-tiny: REFUTED</h3>" in html
    assert "zoo:ioi-tiny (GPT-2, 4 layers x 4 heads), 100 prompts; node level, mean_per_template from abc" in text
    rows = [re.findall("<td>(.*?)</td>", row) for row in re.findall("<tr>(.*?)</tr>", html, re.DOTALL)]
    assert rows[1:] == [
        ["✅ SUPPORTED", "sufficient", "recovered logit_diff 0.88 [0.84, 0.91]", "0.8 .. 1.2",
         "ablating everything outside the circuit"],
        ["❌ REFUTED", "necessary", "recovered logit_diff 0.52 [0.47, 0.58]", "at most 0.3", "ablating the circuit"],
    ]  # fmt: skip
    assert "CS401 negative components are left out: a3.h1 (-0.14), a2.h0 (-0.06)" in text
    assert "help: add them to a group with `effect: negative`" in text
    assert "note CS555 torch changed since it was locked: 1 -&gt; 2" in text


def test_no_text_is_taken_for_markup() -> None:
    html = MarkdownIt().enable("table").render(shown("markdown", hostile()))
    tags = set(re.findall(r"<(\w+)", html))
    assert tags <= {
        "h3",
        "p",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "blockquote",
        "strong",
        "em",
        "br",
        "ul",
        "li",
    }
    assert html.count("<em>") == 1  # `help:`
    assert html.count("<h3>") == 1
    assert html.count("<tr>") == 3
    assert "[a](javascript:b) `c` ::error::d ::set-env" in html


def test_markdown_writes_out_what_cannot_be_seen() -> None:
    """As the page does: a mark that turns the direction of text around (U+202E) is not passed on."""
    found = dataclasses.replace(example(), name="a\u202eb\u2028c\td")
    told = shown("markdown", Reported(found, parse_source(FILE, "x")))
    assert not {"\u202e", "\u2028"} & set(told)
    assert "<h3>❌ a&lt;U+202E&gt;b&lt;U+2028&gt;c d: REFUTED</h3>" in MarkdownIt().render(told)


def test_a_gate_without_a_value_has_no_bound_to_print() -> None:
    """Its bounds are those of its two directions, of which there are none where the runs do not differ."""
    gate = dataclasses.replace(
        NECESSARY, kind="gate", measure="interaction", status="INCONCLUSIVE", estimate=None, at_most=None, reason="why"
    )
    assert result_of(gate) == "interaction on logit_diff undefined; why"
    told = Reported(dataclasses.replace(example(), claims=(SUFFICIENT, gate)), parse_source(FILE, "x"))
    for name in ("text", "html", "github", "junit", "markdown"):
        assert "bound none" not in shown(name, told)
        assert ">none<" not in shown(name, told)
        assert "| none |" not in shown(name, told)


@pytest.mark.parametrize("told", [reported(), reported(NOTE), reported(DRIFT), hostile()])
def test_the_badge_is_what_shields_reads(told: Reported) -> None:
    """Its endpoint's schema: version 1, label and message as text (the message not empty), a colour by name."""
    badge = json.loads(shown("badge", told))
    assert set(badge) == {"schemaVersion", "label", "message", "color"}
    assert type(badge["schemaVersion"]) is int
    assert badge["schemaVersion"] == 1
    assert isinstance(badge["label"], str)
    assert isinstance(badge["message"], str)
    assert badge["message"]
    assert badge["color"] in {"brightgreen", "green", "yellowgreen", "yellow", "orange", "red", "blue", "lightgrey"}


def test_the_badge() -> None:
    badge = json.loads(shown("badge", reported()))
    assert badge == {"schemaVersion": 1, "label": "ioi-tiny", "message": "1 of 2 claims supported", "color": "red"}
    assert json.loads(shown("badge", reported(NOTE)))["message"] == "1 of 2 claims supported"
    drifted = json.loads(shown("badge", reported(DRIFT)))
    assert (drifted["message"], drifted["color"]) == ("not as locked", "red")


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_result_that_drifted_says_so_beside_its_verdict(name: str) -> None:
    """And none says so of one that is as locked under other versions, which is a note."""
    places = {
        "text": ["1 supported, 1 refuted, not as locked, 1 warning", f"not as locked[CS556]: {DRIFT.message}"],
        "json": ['"drift": [', '"code": "CS556"', f'"message": "{DRIFT.message}"'],
        "html": ["<title>ioi-tiny: REFUTED, not as locked</title>", "1 supported, 1 refuted, not as locked, 1 warning"],
        "github": ["title=circuitspec CS556::"],
        "junit": ['<failure type="CS556"'],
        "markdown": ["### ❌ ioi\\-tiny: REFUTED, not as locked\n"],
        "badge": ['"message": "not as locked"'],
    }
    drifted, alike = shown(name, reported(DRIFT, NOTE)), shown(name, reported(NOTE))
    for said in places[name]:
        assert said in drifted
        assert said not in alike or said == '"drift": ['
    if name == "json":
        assert json.loads(alike)["drift"] == []
        assert json.loads(drifted)["drift"] == [{"code": "CS556", "message": DRIFT.message}]
        assert json.loads(drifted)["verdict"] == "REFUTED"


def test_colours_are_for_terminals() -> None:
    assert "\x1b[" not in shown("text", reported())
    assert "\x1b[" in shown("text", reported(), color=True)
