"""The glossary has an entry for each word that reports, the file and its claims use as a term."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from circuitspec.analysis.circuit_effects.component_effects import Note
from circuitspec.analysis.claims.claim_result import Status
from circuitspec.hypothesis_file.load_file import load_hypothesis
from circuitspec.hypothesis_file.schema.block import OUTPUT_METRICS
from circuitspec.hypothesis_file.schema.blocks import Hypothesis
from circuitspec.pipelines.verify import VerifyOptions, verify
from circuitspec.reports.text.text_report import render_text
from tests.documents import blocks, commands
from tests.repository.support import Quiet

ROOT = Path(__file__).parents[1]
HYPOTHESES = ROOT / "hypotheses"
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
LINKS = ["README.md", "docs/overview.md", "ARCHITECTURE.md", "docs/method.md", "docs/tutorial.md"]

TERMS = set(re.findall(r"\*\*([^*]+)\*\*", GLOSSARY))
BEFORE = set(re.findall(r"^\| ([^|]+?) \|", GLOSSARY.partition("|---|---|")[2], re.MULTILINE))  # now other words
KNOWN = TERMS


def entries() -> list[str]:
    return re.findall(r"^- (.*)$", GLOSSARY, re.MULTILINE)


def heads(report: str) -> set[str]:
    """The columns of every table of a text report: of each block of indented lines the first."""
    found = set()
    above = ""
    for line in report.splitlines():
        if line.startswith("  ") and not above.strip() and "   " in line.strip():
            found |= set(re.split(r" {3,}", line.strip()))
        above = line
    return found


def without_names(cell: str, hypothesis: Hypothesis) -> str:
    """A label without what it says of this file: its metrics, components and paths, and the interval's level."""
    cell = re.sub(r" \[95% CI\]| \(nats\)", "", cell)
    cell = re.sub(r"\b(?:" + "|".join(OUTPUT_METRICS) + r")\b", "", cell)
    names = sorted(hypothesis.circuit.groups, key=len, reverse=True)
    for name in (*names, *[part for claim in hypothesis.claims for part in getattr(claim, "nodes", None) or ()]):
        cell = re.sub(rf"(?<![\w.]){re.escape(name)}(?![\w.])", "", cell)
    cell = re.sub(r"\b(?:input|logits|a\d+(?:\.h\d+)?|m\d+)\b(?:@\S+)?|<[qkv,]+>|->|\(not[^)]*\)|\band\b|,", "", cell)
    return " ".join(cell.split())


@pytest.fixture(scope="module")
def reports() -> list[tuple[Hypothesis, str]]:
    """The report that the overview shows, and those of two toys: all kinds of tables that shipped files give."""
    (shown,) = (b for b in blocks(ROOT / "docs" / "overview.md") if b.language == "console")
    ((_, lines),) = commands(shown)
    found = [(load_hypothesis(HYPOTHESES / "ioi-tiny.circuit.yaml").hypothesis, "\n".join(lines))]
    for toy in ("backup", "mediation", "and-variables"):
        document = load_hypothesis(HYPOTHESES / "toys" / f"{toy}.circuit.yaml")
        found.append((document.hypothesis, render_text(verify(document, VerifyOptions(), Quiet()).verification)))
    return found


def test_every_column_of_the_reports_has_an_entry(reports: list[tuple[Hypothesis, str]]) -> None:
    columns = {without_names(cell, hypothesis) for hypothesis, text in reports for cell in heads(text)} - {""}
    assert {"clean", "recovered", "circuit ablated", "direct share", "declared"} <= columns
    assert {cell for cell in columns if cell not in KNOWN and not set(cell.split()) <= KNOWN} == set()


def test_every_heading_of_the_reports_says_what_the_glossary_does(reports: list[tuple[Hypothesis, str]]) -> None:
    """What was done, and how: `ablating everything outside the circuit: node level, mean_per_template from abc`."""
    for _, text in reports:
        headings = re.findall(r"^(\S.*): (?:(\w+) level|(path patching)[^,]*), (\w+)", text, re.MULTILINE)
        assert len(headings) > 2
        for said, level, along, value in headings:
            assert said.partition(" ")[0] in KNOWN or any(said.startswith(term) for term in KNOWN), said
            assert f"{level} level" in KNOWN or along in KNOWN
            assert value in KNOWN or value == "clean"


def test_every_status_claim_metric_and_value_has_an_entry() -> None:
    reference = (ROOT / "docs" / "dsl.md").read_text(encoding="utf-8")  # which is made from the code
    claims = set(re.findall(r"^### `(\w+)`$", reference.partition("## Claims")[2], re.MULTILINE))
    value = re.search(r"^\| `value` \| (.*?) \|", reference.partition("## `ablation`")[2], re.MULTILINE)
    assert value is not None
    values = set(re.findall(r"`(\w+)`", value[1]))
    assert "sufficient" in claims
    assert "resample" in values
    wanted = {*get_args(Status), *claims, *OUTPUT_METRICS, *values, *get_args(Note)} - {""}
    assert wanted - KNOWN == set()


def test_entries_are_short_and_each_term_has_one() -> None:
    assert len(entries()) > 80
    assert [entry for entry in entries() if not entry.startswith("**")] == []
    assert [entry for entry in entries() if len(entry) > 320] == []
    firsts = [re.match(r"\*\*([^*]+)\*\*", entry) for entry in entries()]
    names = [found[1] for found in firsts if found]
    assert len(names) == len(set(names))


def test_no_report_has_the_words_of_before(reports: list[tuple[Hypothesis, str]]) -> None:
    for _, text in reports:
        assert {old for old in BEFORE if old in text} == set()


def test_it_is_linked() -> None:
    for document in LINKS:
        text = (ROOT / document).read_text(encoding="utf-8")
        assert re.search(r"\]\((?:docs/)?glossary\.md\)", text), document
