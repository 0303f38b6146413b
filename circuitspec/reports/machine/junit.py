"""JUnit's XML: a test case a claim, for the many programs that show such files.

Only what the schemas of Jenkins and Surefire have: programs that check refuse a file with anything else. So figures are
properties of the suite (`claim 1: value`), and the line of a claim stands in its text.
"""

from __future__ import annotations

from xml.etree import ElementTree as ET

from circuitspec.reports.views import ClaimSummary, Summary
from circuitspec.runtime.visible_text import no_command, visible


def render_junit(told: Summary) -> str:
    """One suite, named after the hypothesis; a claim that is refuted or inconclusive is a failure of that type.

    Findings about the run are a test case of their own, which fails if there is an error among them; warnings are the
    suite's output.
    """
    cases = [_claim(told.name, number, claim) for number, claim in enumerate(told.claims, start=1)]
    if told.findings:
        cases.append(_findings(told))
    failed = sum(1 for case in cases if case.find("failure") is not None)
    counts = {"tests": str(len(cases)), "failures": str(failed), "errors": "0", "skipped": "0"}
    seconds = f"{told.seconds:.3f}"
    in_all = {name: count for name, count in counts.items() if name != "skipped"}
    top = ET.Element("testsuites", {"name": "circuitspec", "time": seconds, **in_all})
    suite = ET.SubElement(top, "testsuite", {"name": _line(told.name), "time": seconds, **counts})
    figures = [(number, figure) for number, claim in enumerate(told.claims, start=1) for figure in claim.figures]
    if told.claims:
        suite.set("file", _line(told.claims[0].span.file))
    if figures:
        properties = ET.SubElement(suite, "properties")
        for number, (name, value) in figures:
            ET.SubElement(properties, "property", name=_line(f"claim {number}: {name}"), value=_line(value))
    suite.extend(cases)
    if told.warnings:
        said = [_lines(f"warning[{w.code}]: {w.message}", f"   {w.label}", f"   help: {w.hint}") for w in told.warnings]
        ET.SubElement(suite, "system-out").text = "\n".join(said)
    ET.indent(top)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(top, encoding="unicode")}\n'


def _claim(suite: str, number: int, claim: ClaimSummary) -> ET.Element:
    span = claim.span
    case = ET.Element(
        "testcase",
        name=_line(f"claim {number}: {claim.kind} {claim.metric}"),
        classname=_line(suite),
    )
    said = _lines(f"{span.file}:{span.line}", claim.result, f"{claim.experiment}: {claim.means}")
    if claim.status == "SUPPORTED":
        ET.SubElement(case, "system-out").text = said
    else:
        failure = ET.SubElement(case, "failure", type=claim.status, message=_line(claim.result))
        failure.text = said
    return case


def _findings(told: Summary) -> ET.Element:
    case = ET.Element("testcase", name="as locked", classname=_line(told.name))
    said = _lines(*(f"{finding.severity}[{finding.code}]: {finding.message}" for finding in told.findings))
    errors = [finding for finding in told.findings if finding.severity == "error"]
    if errors:
        ET.SubElement(case, "failure", type=errors[0].code, message=_line(errors[0].message)).text = said
    else:
        ET.SubElement(case, "system-out").text = said
    return case


def _lines(*texts: str) -> str:
    return no_command("\n".join(map(_line, texts)))


def _line(text: str) -> str:
    """In one line; what cannot be seen is written out, and that is all that XML has no way to write."""
    return visible(text)
