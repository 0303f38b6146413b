"""The page of an exploration: what is on it, and that what others wrote is text there."""

from __future__ import annotations

import dataclasses
import re

import pytest

from circuitspec.exploration.exploration_findings import ExplorationFindings
from circuitspec.exploration.output.exploration_figures import QUANTITY, pictures
from circuitspec.exploration.output.exploration_page import exploration_html
from circuitspec.exploration.output.exploration_warnings import exploration_warnings
from tests.exploration.test_explore import explored
from tests.reports.test_html import HOSTILE, parsed

COMMAND = "circuitspec explore negative.circuit.yaml"


@pytest.fixture(scope="module")
def found() -> ExplorationFindings:
    return explored("negative")


def test_everything_is_on_the_page(found: ExplorationFindings) -> None:
    page = parsed(exploration_html(found, COMMAND))
    assert page.texts("title") == [f"{found.name}: exploration"]
    headings = page.texts("h2")
    assert headings[:3] == ["Warnings", "Pictures", "Findings"]
    assert [text.partition(",")[0] for text in headings[3:-1]] == ["Draft: with negatives", "Draft: helpful only"]
    drawn = pictures(found)
    assert {"layers-and-heads", "frontier"} <= drawn.keys()
    said = page.texts("desc")
    assert said == [" ".join(picture.alt.split()) for picture in drawn.values()]
    assert any(text.startswith(QUANTITY) and text.count("Heatmap of ") == 2 for text in said)
    assert len(page.named("svg")) == len(drawn)
    (findings,) = page.texts("pre")
    assert "circuit with negatives: recovered" in findings
    for circuit in found.circuits:
        assert " ".join(circuit.draft.text.split()) in " ".join(" ".join(page.texts("ol")).split())
    provenance = dict(zip(page.texts("dt"), page.texts("dd"), strict=True))
    assert provenance["command"] == COMMAND
    assert len([text for text in page.texts("h3") if "CS41" in text]) == len(exploration_warnings(found))


def test_it_runs_and_fetches_nothing(found: ExplorationFindings) -> None:
    html = exploration_html(found, COMMAND)
    assert html.startswith("<!doctype html>")
    assert set(re.findall(r"https?://[^\s\"'<]+", html)) == {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in html
    plain, wicked = parsed(html), parsed(exploration_html(_hostile(found), HOSTILE))
    assert {tag.name for tag in wicked.tags} == {tag.name for tag in plain.tags}
    assert "<script>alert(1)</script>" in wicked.texts("h1")[0]
    assert not any(name.startswith("on") for tag in wicked.tags for name in tag.attributes)


def _hostile(found: ExplorationFindings) -> ExplorationFindings:
    circuits = tuple(
        dataclasses.replace(one, kind=HOSTILE, draft=dataclasses.replace(one.draft, text=f"{HOSTILE}\n{HOSTILE}"))
        for one in found.circuits
    )
    return dataclasses.replace(found, name=HOSTILE, model=HOSTILE, ablation=HOSTILE, circuits=circuits)
