"""Results and hypotheses in a notebook: what is said, that it is text, and that it is read on any ground."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from types import ModuleType

import pytest

import circuitspec
from circuitspec.graph.circuit_graph import lay_out
from circuitspec.hypothesis_file.load_file import parse_hypothesis
from circuitspec.prompts.prompt_set import TokenizedTask
from circuitspec.reports.html.notebook import hypothesis_html, result_html
from tests.reports import test_html
from tests.reports.support import example
from tests.reports.test_html import FILE, HOSTILE, Page, browser, hostile, parsed, reported, verification
from tests.reports.test_pictures import contrast

__all__ = ["browser"]  # a fixture

ROOT = Path(__file__).parents[2]
CSS = (ROOT / "circuitspec" / "reports" / "html" / "templates" / "notebook.css").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page() -> Page:
    return parsed(result_html(reported(test_html.DRIFT)))


def test_a_result_says_verdict_claims_warnings_and_circuit(page: Page) -> None:
    said = page.texts("p")
    assert said[0] == "ioi-tiny: ✕ REFUTED 1 supported, 1 refuted, not as locked, 1 warning"
    assert said[1] == "zoo:ioi-tiny (GPT-2, 4 layers x 4 heads), 100 prompts"
    assert said[2] == "SUPPORTED 1. sufficient: recovered logit_diff 0.88 [0.84, 0.91], bound 0.8 .. 1.2"
    assert said[4] == "REFUTED 2. necessary: recovered logit_diff 0.52 [0.47, 0.58], bound at most 0.3"
    assert "error CS556 claim 2 is not as it was locked" in said
    assert any(text.startswith("warning CS401 negative components are left out: a3.h1 (-0.14)") for text in said)
    assert any(text.startswith("What to do: add them to a group with effect: negative") for text in said)
    (picture,) = page.named("svg")
    assert picture.attributes["role"] == "img"
    assert "Graph of 6 components, layers upward, 4 positions across, and 9 edges" in picture.text


def test_a_hypothesis_is_drawn() -> None:
    page = parsed(circuitspec.load(ROOT / "hypotheses" / "ioi-tiny.circuit.yaml")._repr_html_())
    terms = dict(zip(page.texts("dt"), page.texts("dd"), strict=True))
    assert terms == {
        "ablation": "value: mean_per_template, from: abc, level: node, positions: declared",
        "claim 1": "sufficient: metric: logit_diff, at_least: 0.8, at_most: 1.2",
        "claim 2": "necessary: metric: logit_diff, at_most: 0.3",
    }
    (picture,) = page.named("svg")
    names = [text for text in page.texts("text") if text in {"IO", "S1", "S2", "END"}]  # the columns of one position
    assert names == ["IO", "S1", "S2", "END"]  # as in the first template, and what is no slot after them
    assert "Graph of" in picture.text


def test_a_hypothesis_of_a_model_that_is_elsewhere_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    page = parsed(hypothesis_html(circuitspec.load(ROOT / "hypotheses" / "ioi-gpt2-small.circuit.yaml"), None))
    assert page.named("svg") == []
    assert "openai-community/gpt2 (its configuration is not on this machine: the circuit is not drawn)" in page.texts(
        "p"
    )
    terms = dict(zip(page.texts("dt"), page.texts("dd"), strict=True))
    assert terms["s_inhibition"] == "nodes: [a7.h3, a7.h9, a8.h6, a8.h10], at: END"
    assert terms["negative_name_mover"] == "nodes: [a10.h7, a11.h10], at: END, effect: negative"


def test_whatever_it_says_is_text() -> None:
    plain, wicked = parsed(result_html(reported(test_html.DRIFT))), parsed(result_html(hostile()))
    assert {tag.name for tag in wicked.tags} == {tag.name for tag in plain.tags}
    assert not {"script", "img", "link", "iframe"} & {tag.name for tag in wicked.tags}
    for tag in wicked.tags:
        assert not any(name.startswith("on") for name in tag.attributes)
        assert not any("javascript:" in str(value) for value in tag.attributes.values())
    assert "<script>alert(1)</script>" in wicked.texts("p")[0]
    document = parse_hypothesis(FILE)
    said = document.hypothesis.model_copy(update={"name": HOSTILE, "description": HOSTILE})
    claim = {HOSTILE: {"metric": HOSTILE, "nodes": [HOSTILE], HOSTILE: {"a": HOSTILE}}}
    data = {"ablation": {"from": HOSTILE}, "claims": [claim], "circuit": {"groups": {HOSTILE: {"nodes": [HOSTILE]}}}}
    document = dataclasses.replace(document, hypothesis=said, source=dataclasses.replace(document.source, data=data))
    listed = parsed(hypothesis_html(document, None))
    assert {tag.name for tag in listed.tags} == {"div", "style", "p", "span", "dl", "dt", "dd"}


def test_nothing_is_fetched_and_nothing_runs(page: Page) -> None:
    html = result_html(reported(test_html.DRIFT))
    assert set(re.findall(r"https?://[^\s\"'<]+", html)) <= {"http://www.w3.org/2000/svg"}
    assert "url(" not in CSS
    assert "@import" not in CSS


def test_nothing_outside_is_touched() -> None:
    rules = re.sub(r"/\*.*?\*/", "", CSS, flags=re.DOTALL)
    for selectors in re.findall(r"([^{}]+)\{", rules):
        assert all(selector.strip().startswith(".circuitspec") for selector in selectors.split(",")), selectors


def test_marks_are_seen_on_light_and_on_dark_ground() -> None:
    """3 : 1 for graphics (WCAG 2.2, 1.4.11); text is in the theme's own colours."""
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", CSS))
    assert {"blue", "vermilion", "amber", "green", "purple"} <= colours.keys()
    for name, colour in colours.items():
        for ground in ("#ffffff", "#111111"):
            assert contrast(colour, ground) >= 3 or name == "band", (name, ground)
    assert set(re.findall(r"(?<!-)color: var\(--(\w+)\)", CSS)) == {"ink"}


def test_outputs_of_one_notebook_do_not_share_ids() -> None:
    one = parsed(result_html(reported()))
    other = parsed(result_html(reported(found=verification(name="another"))))
    ids = [[str(tag.attributes["id"]) for tag in page.tags if tag.attributes.get("id")] for page in (one, other)]
    assert ids[0]
    assert not set(ids[0]) & set(ids[1])
    assert len(set(ids[0])) == len(ids[0])


def test_a_result_without_a_graph_has_its_claims() -> None:
    told = dataclasses.replace(reported(), verification=example(), task=None)
    page = parsed(result_html(told))
    assert page.named("svg") == []
    assert "necessary" in " ".join(page.texts("p"))


def test_positions_of_a_task_are_in_its_order() -> None:
    roles: dict[str, tuple[int, ...]] = {"S1": (9,) * 100, "S2": (6,) * 100, "END": (4,) * 100}
    task = TokenizedTask(test_html.task().prompts, {"clean": ((1,) * 10,) * 100}, roles, ((1,),) * 100, ((2,),) * 100)
    page = parsed(result_html(dataclasses.replace(reported(), task=task)))
    assert re.findall("(?:S1|S2|END)(?= |$)", " ".join(page.texts("text")))[:3] == ["END", "S2", "S1"]


def test_ipython_shows_it() -> None:
    formatter = pytest.importorskip("IPython.core.formatters").DisplayFormatter()
    shown, _ = formatter.format(circuitspec.load(ROOT / "hypotheses" / "ioi-tiny.circuit.yaml"))
    assert shown["text/html"].startswith('<div class="circuitspec">')
    assert shown["text/plain"].startswith("<Hypothesis 'ioi-tiny'")


GROUNDS = {
    "light": "<body>",
    "dark": '<body style="--jp-content-font-color1: #ffffffde; --jp-layout-color0: #111111; background: #111">',
    "vscode": '<body style="--vscode-editor-foreground: #d4d4d4; --vscode-editor-background: #1e1e1e">',
}


@pytest.mark.slow
@pytest.mark.parametrize("ground", GROUNDS)
def test_a_browser_shows_it_in_the_theme(browser: ModuleType, ground: str, tmp_path: Path) -> None:
    path = tmp_path / "cell.html"
    document = parse_hypothesis(FILE)
    drawn = hypothesis_html(document, lay_out(document.hypothesis.circuit, test_html.SHAPE, document.source))
    path.write_text(
        f"<!doctype html><meta charset='utf-8'>{GROUNDS[ground]}{result_html(hostile())}{drawn}", encoding="utf-8"
    )
    script = """() => [...document.querySelectorAll(".circuitspec :is(p, dd, svg text)")].map(e => {
        const s = getComputedStyle(e), own = getComputedStyle(e.closest('.circuitspec'));
        return (e.tagName == 'text' ? s.fill : s.color) + '|' + own.backgroundColor + '|' + e.textContent; })"""
    with browser.shown(path, 900) as found:
        lines = [line.split("|", 2) for line in found.page.evaluate(script)]
    assert found.said == []
    assert len(lines) > 20
    boxes = {"a0.h1", "a1.h2", "a1.h0", "a2.h0", "a3.h1", "a3.h3", "logits", "input"}  # written on tints of their own
    for ink, paper, text in lines:
        if text.strip() not in boxes:
            one, other = ("#" + "".join(f"{int(n):02x}" for n in re.findall(r"\d+", c)[:3]) for c in (ink, paper))
            assert contrast(one, other) >= 4.5, (ink, paper, text)
