"""The page: what it says and in which order, that nothing on it is markup but ours, and how a browser shows it."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import importlib.util
import re
import shlex
import shutil
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from circuitspec.analysis.circuit_effects.backup_behaviour import Knockout
from circuitspec.analysis.circuit_effects.component_effects import Ablated, CircuitEffects, ExaminedPart, SetScore
from circuitspec.analysis.circuit_effects.path_effects import PathEffect
from circuitspec.analysis.claims.kinds.path import PlannedPath
from circuitspec.analysis.claims.verdict import judge
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.verification_result import Verification
from circuitspec.cli import main
from circuitspec.diagnostics.diagnostic import Diagnostic
from circuitspec.experiments.experiment import Experiment, Site, Source
from circuitspec.graph.circuit_graph import lay_out
from circuitspec.graph.members import Effect
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head
from circuitspec.hypothesis_file.load_file import parse_hypothesis
from circuitspec.hypothesis_file.schema.claims.path_block import PathClaim
from circuitspec.hypothesis_file.yaml.source import parse_source
from circuitspec.prompts.prompt_set import TokenizedTask
from circuitspec.reports.figures import palette
from circuitspec.reports.html.html_circuit import circuit_view
from circuitspec.reports.html.html_effects import effects_charts, effects_tables
from circuitspec.reports.reported import Asked, Reported
from circuitspec.runtime.visible_text import visible
from tests.analysis.support import CLEAN, CORRUPT, around, make_records
from tests.reports.support import example, prompt_set, shown
from tests.reports.test_pictures import contrast

ROOT = Path(__file__).parents[2]
SHAPE = ModelShape("gpt2", 4, 4, 4, 64, 16, 256, 100)
FILE = """\
circuitspec: 1
name: ioi-tiny
description: Which of two names comes next.
source: arXiv:2211.00593
model: {id: "zoo:ioi-tiny"}
task:
  templates: ["{IO} and {S1}, then {S2} gave it to"]
  slots: {IO: $names, S1: $names, S2: =S1}
  lists: {names: [Mary, John, Paul, Anna, Ruth, Emma]}
  answer: " {IO}"
  wrong: " {S1}"
  corruptions: {abc: {IO: $names, S1: $names, S2: $names}}
  positions: {END: last}
  prompts: 10
circuit:
  groups:
    early: {nodes: [a0.h1, a1.h2], at: S2}
    everywhere: {nodes: [a1.h0]}
    movers: {nodes: [a2.h0, a3.h1], at: END}
    against: {nodes: [a3.h3], at: END, effect: negative}
  free: [m*]
  paths:
    - early -> movers<v>, against<q>
    - early -> a1.h0<q>
    - input@S1 -> a0.h1<k>
    - movers, against -> logits
ablation: {value: mean_per_template, from: abc}
claims:
  - sufficient: {metric: logit_diff, at_least: 0.8, at_most: 1.2}
  - necessary: {metric: logit_diff, at_most: 0.3}
"""
HOSTILE = (
    "x</code></style></title><script>alert(1)</script> <img src=x onerror=a()> \" ' & &amp; {{ 7*7 }} {% x %} `y` "
    "\x00\x1b[31m\x85 \u202eevil\u2066 \u200b $z$ javascript:b"
)
DRIFT = Diagnostic("CS556", "claim 2 is not as it was locked", label="0.5 -> 0.4", hint="look at it")


def verification(**changes: Any) -> Verification:
    document = parse_hypothesis(FILE)
    graph = lay_out(document.hypothesis.circuit, SHAPE, document.source)
    return dataclasses.replace(example(), graph=graph, **changes)


def task(n: int = 100) -> TokenizedTask:
    roles = {"S1": (4,) * n, "S2": (6,) * n, "END": (9,) * n}
    return TokenizedTask(prompt_set(n), {"clean": ((1,) * 10,) * n}, roles, ((1,),) * n, ((2,),) * n)


def reported(*findings: Diagnostic, found: Verification | None = None, text: str = FILE) -> Reported:
    source = parse_source(text, "hypotheses/ioi.circuit.yaml")
    asked = Asked(("--methods",), "cuda:1")
    return Reported(found or verification(), source, findings, task=task(), asked=asked)


def hostile() -> Reported:
    """Everything on the page that anyone else writes: names, model, texts of the file, labels, warnings, prompts."""
    found = verification()
    (warning,) = found.warnings
    run = next(iter(found.plan.labels))
    graph = found.graph
    assert graph is not None
    members = tuple(dataclasses.replace(member, group=HOSTILE) for member in graph.members)
    found = dataclasses.replace(
        found,
        name=HOSTILE,
        digest=HOSTILE,
        model=dataclasses.replace(found.model, id=HOSTILE, revision=HOSTILE, description=HOSTILE),
        claims=(found.claims[0], dataclasses.replace(found.claims[1], experiment=HOSTILE, reason=HOSTILE)),
        warnings=(dataclasses.replace(warning, message=HOSTILE, detail=HOSTILE, help=HOSTILE),),
        plan=dataclasses.replace(found.plan, labels={**found.plan.labels, run: HOSTILE}),
        paths=(PathEffect(HOSTILE, HOSTILE, None, None),),
        graph=dataclasses.replace(graph, members=members),
        artifacts=(HOSTILE,),
    )
    prompts = prompt_set(100)
    wicked = tuple(dataclasses.replace(p, texts=dict.fromkeys(p.texts, HOSTILE)) for p in prompts.prompts)
    prompts = dataclasses.replace(prompts, prompts=wicked, templates=(HOSTILE, f"{HOSTILE} 2"))
    source = parse_source(FILE, f"{HOSTILE}.yaml")
    data = {**parse_hypothesis(FILE).source.data, "description": HOSTILE, "source": HOSTILE}  # type: ignore[dict-item]
    source = dataclasses.replace(source, text=f"{FILE}# {HOSTILE}\n", data=data)
    drift = dataclasses.replace(DRIFT, message=HOSTILE, label=HOSTILE, hint=HOSTILE)
    return Reported(found, source, (drift,), task=dataclasses.replace(task(), prompts=prompts))


@dataclass
class Tag:
    name: str
    attributes: dict[str, str | None]
    parents: tuple[str, ...]
    text: str = ""


@dataclass
class Page(HTMLParser):
    """The tags of a page in order, each with the text in it; unbalanced tags are an error."""

    tags: list[Tag] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.open: list[Tag] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(Tag(tag, dict(attrs), tuple(t.name for t in self.open)))
        if tag not in ("meta", "link", "br"):
            self.open.append(self.tags[-1])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(Tag(tag, dict(attrs), tuple(t.name for t in self.open)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().name == tag
        if tag in ("td", "th"):
            self.handle_data(" ")

    def handle_data(self, data: str) -> None:
        for tag in self.open:
            tag.text += data

    def named(self, *names: str) -> list[Tag]:
        return [tag for tag in self.tags if tag.name in names]

    def texts(self, *names: str) -> list[str]:
        """What stands in these tags; a `title` is the page's, not that of a picture."""
        found = (tag for tag in self.named(*names) if tag.name != "title" or "head" in tag.parents)
        return [" ".join(tag.text.split()) for tag in found]


def parsed(html: str) -> Page:
    page = Page()
    page.feed(html)
    page.close()
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def html() -> str:
    return shown("html", reported(DRIFT))


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return parsed(html)


def test_what_matters_comes_first(page: Page) -> None:
    assert page.texts("title") == ["ioi-tiny: REFUTED, not as locked"]
    assert page.texts("h1") == ["ioi-tiny"]
    assert page.texts("h2") == [
        "Claims", "Warnings", "Circuit", "Recovered performance", "Experiments", "Prompts", "Hypothesis file",
        "Provenance",
    ]  # fmt: skip
    said = page.texts("header")[0]
    assert "✕ REFUTED 1 supported, 1 refuted, not as locked, 1 warning" in said
    assert "zoo:ioi-tiny (GPT-2, 4 layers x 4 heads), 100 prompts; after arXiv:2211.00593" in said
    assert "Which of two names comes next." in said


def test_a_claim_has_its_value_interval_bound_and_experiment(page: Page) -> None:
    first, second = (
        t
        for t, tag in zip(page.texts("article"), page.named("article"), strict=True)
        if "claim" in str(tag.attributes["class"])
    )
    assert first.startswith("1. sufficient ✓ SUPPORTED recovered logit_diff 0.88 [0.84, 0.91] bound: 0.8 .. 1.2")
    assert (
        "Ablating everything outside the circuit: node level, mean_per_template from abc, declared positions, "
        "MLPs free; 100 prompts (line 29)." in first
    )
    assert "Means: clean 4.31, corrupt -0.02, circuit 3.79." in first
    assert second.startswith("2. necessary ✕ REFUTED recovered logit_diff 0.52 [0.47, 0.58] bound: at most 0.3")


def test_lines_are_those_of_the_file(page: Page) -> None:
    links = {a.text: a.attributes["href"] for a in page.named("a")}
    assert links["line 29"] == "#L29"
    lines = {tag.attributes.get("id"): tag.text for tag in page.named("li")}
    assert lines["L29"].strip().startswith("- sufficient: {metric: logit_diff")
    assert [lines[f"L{i + 1}"] for i, _ in enumerate(FILE.split("\n"))] == FILE.split("\n")


def test_warnings_come_with_their_remedy(page: Page) -> None:
    drift, warning = page.texts("article")[2:]
    assert drift == (
        "error CS556 claim 2 is not as it was locked 0.5 -> 0.4 What to do: look at it. More: circuitspec explain CS556"
    )
    assert warning.startswith("warning CS401 negative components are left out: a3.h1 (-0.14), a2.h0 (-0.06)")
    assert "What to do: add them to a group with effect: negative, or explain why" in warning
    assert "effect: negative" in page.texts("code")  # between backticks


def test_tables_hold_the_figures(page: Page) -> None:
    assert page.texts("caption") == [
        "Groups of the circuit", "Recovered by template", "4 experiments and every metric, means over prompts",
    ]  # fmt: skip
    for table in (t for t in page.named("th")):
        assert table.attributes["scope"] in ("col", "row", "colgroup")
    rows = page.texts("tr")
    assert "against negative a3.h3@END" in rows
    assert "everywhere positive a1.h0" in rows
    assert (
        "circuit clean mean_per_template of abc node 2 - 3.79 0.97 0.21 0.88 0.94 0.96" in rows
    )  # (0.97 - 0.48) / 0.52
    (template,) = (row for row in rows if row.startswith("{A} and {B} 0."))  # as the file has it
    assert template.endswith(" 50")


def test_provenance(page: Page) -> None:
    said = dict(zip(page.texts("dt"), page.texts("dd"), strict=True))
    assert (said["command"], said["device"]) == ("circuitspec verify hypotheses/ioi.circuit.yaml --methods", "cuda:1")
    assert said["seeds"] == "prompts 0, bootstrap 0"
    assert said["hypothesis, SHA-256"] == "sha256:12ab"
    assert said["cost"] == "14 experiments, 31 forwards, 2.9 s"
    assert re.search(r"circuitspec \d.*torch \d.*transformers \d.*pyvene \d", said["versions"])


def test_no_command_is_made_up_where_it_is_not_known() -> None:
    page = parsed(shown("html", dataclasses.replace(reported(), asked=None)))
    said = dict(zip(page.texts("dt"), page.texts("dd"), strict=True))
    assert said["file"] == "hypotheses/ioi.circuit.yaml"
    assert not {"command", "device"} & said.keys()


def test_seeds_are_those_of_the_file() -> None:
    text = FILE.replace("task:\n", "task:\n  seed: 7\n", 1)
    assert "seed: 7" in text
    page = parsed(shown("html", reported(text=text)))
    assert dict(zip(page.texts("dt"), page.texts("dd"), strict=True))["seeds"] == "prompts 7, bootstrap 0"


def test_every_picture_is_described(page: Page) -> None:
    pictures = page.named("svg")
    assert len(pictures) == 4  # circuit, claims, templates, metrics
    by_id = {tag.attributes["id"]: " ".join(tag.text.split()) for tag in page.tags if tag.attributes.get("id")}
    names = []
    for picture in pictures:
        assert picture.attributes["role"] == "img"
        names.append(" ".join(by_id[key] for key in str(picture.attributes["aria-labelledby"]).split()))
    assert all(len(name) > 60 for name in names)
    assert "1 sufficient: logit_diff: 0.88 (bound 0.8 .. 1.2)" in names[1]
    assert "early (a0.h1@S2, a1.h2@S2)" in names[0]


def test_the_page_needs_nothing_else(html: str, page: Page) -> None:
    policy = next(m for m in page.named("meta") if m.attributes.get("http-equiv") == "Content-Security-Policy")
    (script,) = page.named("script")
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    assert policy.attributes["content"] == (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:"
    )
    assert not page.named("iframe", "object", "embed", "img", "form", "base", "audio", "video")
    for tag in page.tags:
        for key, value in tag.attributes.items():
            assert not key.startswith("on")
            if key in ("href", "src", "xlink:href"):
                assert str(value).startswith(("#", "data:"))
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    assert next(m for m in page.named("meta") if m.attributes.get("name") == "viewport")


def test_every_id_is_there_once_and_every_reference_leads_somewhere(html: str, page: Page) -> None:
    ids = [tag.attributes["id"] for tag in page.tags if tag.attributes.get("id")]
    assert len(ids) == len(set(ids))
    for tag in page.tags:
        for key in ("aria-labelledby", "href"):
            for reference in str(tag.attributes.get(key) or "").split():
                if reference.startswith("#") or key == "aria-labelledby":
                    assert reference.removeprefix("#") in ids
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= set(ids)


def test_headings_are_in_order(page: Page) -> None:
    levels = [int(tag.name[1]) for tag in page.named("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))


def test_the_same_results_give_the_same_page(html: str) -> None:
    assert shown("html", reported(DRIFT)) == html
    assert html.endswith("</html>\n")


def test_the_page_is_small(html: str) -> None:
    assert len(html.encode()) < 120_000


def test_no_text_is_taken_for_markup() -> None:
    html = shown("html", hostile())
    page = parsed(html)
    assert {tag.name for tag in page.tags} == {tag.name for tag in parsed(shown("html", reported(DRIFT))).tags} | {"th"}
    assert len(page.named("script")) == 1  # that which sorts tables
    assert page.named("script")[0].text == parsed(shown("html", reported(DRIFT))).named("script")[0].text
    assert not page.named("img")
    assert page.texts("h1") == [" ".join(visible(HOSTILE).split())]
    assert not set(html) & {"\x00", "\x1b", "\x85", "\u202e", "\u2066", "\u200b"}
    assert html.count("&lt;script&gt;") > 25
    assert "<U+202E>evil<U+2066>" in page.texts("h1")[0]
    assert "{{ 7*7 }}" in page.texts("h1")[0]
    assert not [tag for tag in page.tags for key in tag.attributes if key.startswith("on")]
    said = page.texts("dd") + page.texts("th") + page.texts("pre") + page.texts("summary")
    assert sum("<script>" in text for text in said) >= 8
    assert page.texts("code")[-2].count("<script>") == 1  # the comment in the file


def test_pages_without_graph_prompts_claims() -> None:
    bare = dataclasses.replace(example(), graph=None, claims=(), warnings=())
    bare = dataclasses.replace(bare, plan=dataclasses.replace(bare.plan, claims=()))
    page = parsed(shown("html", Reported(bare, parse_source(FILE, "x"))))
    assert page.texts("h2") == ["Claims", "Warnings", "Experiments", "Hypothesis file", "Provenance"]
    assert "The file makes no claims." in page.texts("p")
    assert "None." in page.texts("p")
    assert "? INCONCLUSIVE no claims, 0 warnings" in page.texts("header")[0]


def test_a_claim_without_a_figure_says_why() -> None:
    found = verification()
    values = {run: {"logit_diff": around(1.0, spread=0.5)} for run in found.records.values}
    records = make_records(values, [0, 1] * 50)
    found = dataclasses.replace(found, records=records, claims=judge(found.plan, records))
    page = parsed(shown("html", reported(found=found)))
    assert "Why: no ratio: the clean and corrupt runs do not differ (see CS403)" in page.texts("p")
    assert "no figure" in page.texts("text")


def test_a_very_long_table_is_cut_and_says_so() -> None:
    found = example()
    more = {
        Experiment("clean", Source("zero", None), frozenset({Site(Head(layer, head), Where.everywhere())})): {
            "logit_diff": np.ones(100)
        }
        for layer in range(40)
        for head in range(26)
    }
    found = dataclasses.replace(found, records=make_records({**found.records.values, **more}, [0, 1] * 50))
    page = parsed(shown("html", Reported(found, parse_source(FILE, "x"))))
    (caption,) = (c for c in page.texts("caption") if "experiments" in c)
    assert caption.startswith("1044 experiments and every metric, means over prompts (the first 1000; all are in")
    assert len(page.named("tr")) < 1100


def effects(*pairs: tuple[str, float | None, float | None]) -> tuple[PathEffect, ...]:
    def estimate(value: float | None) -> Estimate | None:
        return None if value is None else Estimate(value, value - 0.1, value + 0.1, 0.95, 100, "bca")

    return tuple(PathEffect(path, "logit_diff", estimate(drop), estimate(rise)) for path, drop, rise in pairs)


def ablated(name: str, drop: float, *groups: str, declared: Effect = "positive") -> Ablated:
    estimate = Estimate(drop, drop - 0.1, drop + 0.1, 0.95, 100, "bca")
    return Ablated(ExaminedPart(name, declared, groups), 4.0 * drop, estimate, 0.001)


def with_effects() -> Verification:
    """Two groups of the file, three heads and an MLP of them ablated alone, and one knocked out."""
    groups = (ablated("movers", 0.5), ablated("against", -0.2, declared="negative"))
    components = (
        ablated("a2.h0", 0.1, "movers"),
        ablated("a3.h1", 0.4, "movers"),
        ablated("a3.h3", -0.2, "against", declared="negative"),
        ablated("m1", 0.3, "movers"),
    )
    compensated = Estimate(0.25, 0.2, 0.3, 0.95, 100, "bca")
    sets = (SetScore("all negatives out", ("a3.h3",), Estimate(1.1, 1.0, 1.2, 0.95, 100, "bca"), 0.5, None),)
    knockout = Knockout("movers", 2.0, Estimate(1.5, 1.4, 1.6, 0.95, 100, "bca"), compensated, None, (), 3)
    return verification(
        effects=CircuitEffects("logit_diff", groups, components, (knockout,), (), sets, within=components[2:3])
    )


def test_parts_of_the_circuit_have_their_effects() -> None:
    page = parsed(shown("html", reported(found=with_effects())))
    assert page.texts("h2")[2:5] == ["Circuit", "Parts of the circuit", "Recovered performance"]
    rows = page.texts("tr")
    assert "movers 0.50 [0.40, 0.60] positive group 2.00 0.25 [0.20, 0.30]" in rows
    assert "a3.h3 -0.20 [-0.30, -0.10] negative negative against - -" in rows
    assert "all negatives out 1.10 [1.00, 1.20] 0.50 - a3.h3" in rows
    (said,) = (" ".join(tag.text.split()) for tag in page.named("desc") if tag.text.startswith("Heatmap"))
    assert said.startswith(
        "Heatmap of logit_diff drop, as a share of clean - corrupt, 4 rows (layer) by 5 columns (head)"
    )
    assert (
        "largest 0.40 at layer 3, head 1; smallest -0.20 at layer 3, head 3; 16 of 20 cells were not measured" in said
    )


def test_parts_of_a_large_circuit_have_estimates() -> None:
    effects = with_effects().effects
    assert effects is not None
    estimated = dataclasses.replace(effects, components=(), estimated=effects.components, untaken=4)
    page = parsed(shown("html", reported(found=dataclasses.replace(with_effects(), effects=estimated))))
    rows = page.texts("tr")
    assert "a3.h3 -0.20 [-0.30, -0.10] should raise it negative against" in rows
    assert "a3.h1 0.40 [0.30, 0.50] positive movers" in rows
    (said,) = (" ".join(tag.text.split()) for tag in page.named("desc") if tag.text.startswith("Heatmap"))
    assert "largest 0.40 at layer 3, head 1; smallest -0.20 at layer 3, head 3" in said
    assert any("Per-component ablation of the circuit in it, by estimate" in tag.text for tag in page.named("title"))


def test_no_map_without_heads_or_mlps() -> None:
    found = with_effects()
    assert found.effects is not None
    bare = dataclasses.replace(found.effects, components=(ablated("m1.n3", 0.1, "movers"),))
    assert effects_charts(dataclasses.replace(found, effects=bare)) == ()
    assert effects_charts(dataclasses.replace(found, graph=None)) == ()
    assert effects_charts(verification()) == ()
    assert effects_tables(verification()) == ()


def drawn_edges(found: Verification) -> dict[str, str]:
    """The style of every edge of the circuit's picture, by what is said of it."""
    view = circuit_view(found, parse_source(FILE, "x"), {"S1": 1.0, "S2": 2.0, "END": 3.0})
    assert view is not None
    assert view.picture is not None
    groups = re.findall(r'<g id="c-edge\d+"[^>]*><title>([^<]*)</title>.*?style="([^"]*)"', view.picture.inline("c"))
    return {text.replace("&gt;", ">"): style for text, style in groups}


def test_the_circuit_has_the_edges_of_its_paths() -> None:
    """a1.h0 acts everywhere and reads queries where it acts; movers read values anywhere, against queries at END."""
    assert set(drawn_edges(verification())) == {
        "a0.h1@S2 -> a2.h0@END", "a0.h1@S2 -> a3.h1@END", "a1.h2@S2 -> a2.h0@END", "a1.h2@S2 -> a3.h1@END",
        "a0.h1@S2 -> a1.h0@every position", "input@S1 -> a0.h1@S2",
        "a2.h0@END -> logits@END", "a3.h1@END -> logits@END", "a3.h3@END -> logits@END",
    }  # fmt: skip


def test_edges_without_a_measured_effect_are_alike_but_for_their_sign() -> None:
    edges = drawn_edges(verification())
    widths = {re.search(r"stroke-width: ([\d.]+)", style)[1] for style in edges.values()}  # type: ignore[index]
    assert len(widths) == 1
    against = [name for name, style in edges.items() if palette.VERMILION in style]
    assert against == ["a3.h3@END -> logits@END"]
    assert all(("dasharray" in style) == (name in against) for name, style in edges.items())


def test_edges_have_the_effects_of_their_paths() -> None:
    found = verification(
        paths=effects(
            ("early -> movers<v>, against<q>", 0.6, 0.9),
            ("early -> a1.h0<q>", None, -0.3),
            ("input@S1 -> a0.h1<k>", None, None),
            ("movers, against -> logits", 0.1, None),
        )
    )
    claim = PathClaim(of="a2.h0 -> logits", direction="noising", metric="logit_diff", drop_at_least=0.1)
    result = dataclasses.replace(
        found.claims[0], index=0, kind="path", estimate=Estimate(0.5, 0.4, 0.6, 0.95, 100, "bca")
    )
    planned = PlannedPath(0, claim, found.plan.circuit, CLEAN, CORRUPT, "drop")
    found = dataclasses.replace(found, plan=dataclasses.replace(found.plan, claims=(planned,)), claims=(result,))
    edges = drawn_edges(found)
    assert "a1.h2@S2 -> a3.h1@END: effect 0.60" in edges
    assert "a0.h1@S2 -> a1.h0@every position: effect -0.30" in edges  # the rise, where there is no drop
    assert "input@S1 -> a0.h1@S2" in edges
    assert "a2.h0@END -> logits@END: effect 0.50" in edges  # a claim of its own, and stronger than its path's 0.1
    assert "a3.h1@END -> logits@END: effect 0.10" in edges
    width = {name: float(re.search(r"stroke-width: ([\d.]+)", style)[1]) for name, style in edges.items()}  # type: ignore[index]
    assert width["a1.h2@S2 -> a3.h1@END: effect 0.60"] == pytest.approx(4.0)
    assert width["a2.h0@END -> logits@END: effect 0.50"] == pytest.approx(0.7 + 3.3 * 5 / 6, abs=0.01)
    dashed = {name for name, style in edges.items() if "dasharray" in style}
    assert dashed == {"a0.h1@S2 -> a1.h0@every position: effect -0.30", "a3.h3@END -> logits@END: effect 0.10"}


@pytest.mark.parametrize(
    ("low", "high", "against"),
    [(-0.05, -0.01, True), (-0.05, 0.01, False), (-0.05, 0.0, False), (0.01, 0.05, False), (None, None, False)],
)
def test_an_edge_is_negative_only_where_its_whole_interval_is(
    low: float | None, high: float | None, against: bool
) -> None:
    value = -0.02 if low is None or high is None else (low + high) / 2
    effect = Estimate(value, low, high, 0.95, 100, "none" if low is None else "bca")
    found = verification(paths=(PathEffect("early -> a1.h0<q>", "logit_diff", effect, None),))
    ((name, style),) = [(n, s) for n, s in drawn_edges(found).items() if n.startswith("a0.h1@S2 -> a1.h0")]
    assert name == f"a0.h1@S2 -> a1.h0@every position: effect {value:.2f}"
    assert (palette.VERMILION in style, "dasharray" in style) == (against, against)
    view = circuit_view(found, parse_source(FILE, "x"), {})
    assert view is not None
    assert view.picture is not None
    count = 1 + against  # a3.h3 is declared negative
    assert f" {count} edge{'s are' if against else ' is'} negative." in view.picture.alt.replace(" of these", "")


def test_the_missing_chart_says_how_to_get_it() -> None:
    notes = parsed(shown("html", reported())).texts("figcaption")
    assert sum("run circuitspec verify --methods, which adds that chart here" in note for note in notes) == 1


def test_large_circuits_are_listed_and_not_drawn() -> None:
    document = parse_hypothesis(FILE.replace("a1.h0]", "a1.h0, 'a[4-19].h*']"))
    shape = dataclasses.replace(SHAPE, n_layers=20, n_heads=20, n_kv_heads=20)
    found = dataclasses.replace(example(), graph=lay_out(document.hypothesis.circuit, shape, document.source))
    view = circuit_view(found, document.source, {})
    assert view is not None
    assert view.picture is None
    assert view.note.startswith("The circuit has 328 components and positions")
    assert "a19.h19" in view.groups.rows[1][2]


def test_positions_stand_in_the_order_of_the_prompts() -> None:
    def order(**places: float) -> list[str]:
        view = circuit_view(verification(), parse_source(FILE, "x"), places)
        assert view is not None
        assert view.picture is not None
        found = re.findall(r'<text [^>]*x="([\d.]+)"[^>]*>(S1|S2|END|every position)</text>', view.picture.standalone())
        return [name for _, name in sorted((float(x), name) for x, name in found)]

    assert order(S1=4, S2=6, END=9) == ["every position", "S1", "S2", "END"]
    assert order(S1=4, S2=2, END=1) == ["every position", "END", "S2", "S1"]
    assert order(S1=4, S2=4, END=4) == ["every position", "S2", "END", "S1"]  # as the file names them


def colours(css: str) -> dict[str, str]:
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", css))


def test_writing_can_be_read_in_light_and_dark() -> None:
    css = (ROOT / "circuitspec/reports/html/templates/report.css").read_text()
    light_text, dark_text = css.split("@media screen and (prefers-color-scheme: dark)")
    light = colours(light_text)
    dark = {**light, **colours(dark_text.split("\n}\n")[0])}
    assert light.keys() == colours(dark_text.split("\n}\n")[0]).keys()
    used = set(re.findall(r"(?<!-)color: var\(--(\w+)\)", css))
    assert used == {"ink", "muted", "blue", "vermilion", "amber"}
    for scheme in (light, dark):
        for ground in ("paper", "panel"):
            for colour in used:
                assert contrast(scheme[colour], scheme[ground]) >= 4.5, (colour, ground)
        for colour in ("green", "purple"):
            assert contrast(scheme[colour], scheme["paper"]) >= 4.5
    for colour, name in palette.THEMED.items():
        assert light[name] == colour  # pictures in a page look as they do by themselves


def test_visible() -> None:
    assert visible("a\tb\r\nc\nd") == "a b c d"
    assert visible("a\tb\r\nc", lines=True) == "a\tb\nc"
    assert visible("é 名 🎉 שלום\xa0x") == "é 名 🎉 שלום\xa0x"
    assert visible("\x00\u202e\u2028\ufeff\ud800") == "<U+0000><U+202E><U+2028><U+FEFF><U+D800>"


def command(hypothesis: str, page: Path, *options: str) -> int:
    arguments = ["verify", str(ROOT / "hypotheses" / hypothesis), "--html", str(page), *options]
    return CliRunner().invoke(main, arguments).exit_code


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.html"
    assert command("toys/negative-left-out.circuit.yaml", path, "--negatives", "exact", "--tests") == 0
    page = parsed(path.read_text(encoding="utf-8"))
    assert page.texts("title") == ["toy-negative-left-out: SUPPORTED"]
    assert any(text.startswith("warning CS401 negative components are left out: a1.h2") for text in page.texts("h3"))
    said = dict(zip(page.texts("dt"), page.texts("dd"), strict=True))
    file = ROOT / "hypotheses" / "toys" / "negative-left-out.circuit.yaml"
    assert shlex.split(said["command"]) == ["circuitspec", "verify", str(file), "--negatives", "exact", "--tests"]
    assert said["device"] == "cpu"
    assert any(row.startswith("all ablated clean") or row.startswith("corrupt") for row in page.texts("tr"))
    assert page.texts("desc")[0].startswith("Graph of 1 component, layers upward, 1 position across, and 1 edge.")


# in a browser


def photographer() -> ModuleType:
    """docs/screenshots/make.py."""
    spec = importlib.util.spec_from_file_location("make_screenshots", ROOT / "docs/screenshots/make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def browser() -> ModuleType:
    pytest.importorskip("playwright")
    made = photographer()
    if made.browser_path() is None:
        pytest.skip("no Chromium")
    return made


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A real page, and one of hostile texts."""
    folder = tmp_path_factory.mktemp("pages")
    real, wicked = folder / "real.html", folder / "hostile.html"
    assert command("ioi-tiny.circuit.yaml", real) == 0
    wicked.write_text(shown("html", hostile()), encoding="utf-8")
    return {"real": real, "hostile": wicked}


_ALL_VIEWS = [(w, s) for w in (320, 390, 1280) for s in ("light", "dark")]
_CORE = {(390, "light"), (1280, "dark")}


@pytest.mark.parametrize(
    ("width", "scheme"),
    [pytest.param(*view, marks=[] if view in _CORE else pytest.mark.slow) for view in _ALL_VIEWS],
)
@pytest.mark.parametrize("which", ["real", "hostile"])
def test_a_browser_shows_it_in_peace(
    browser: ModuleType, pages: dict[str, Path], which: str, width: int, scheme: str
) -> None:
    """Nothing on the console, nothing fetched, nothing run, nothing wider than the window, also with all unfolded."""
    with browser.shown(pages[which], width, scheme) as found:
        found.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        reach = found.page.evaluate("document.documentElement.scrollWidth")
        outside = found.page.evaluate(
            """() => [...document.querySelectorAll('body *')]
               .filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.scroll'))
               .map(e => e.outerHTML.slice(0, 90))"""
        )
        title = found.page.title()
    assert found.said == []
    assert found.requested == [pages[which].as_uri()]
    assert reach <= width
    assert outside == []
    assert title.endswith("SUPPORTED" if which == "real" else "REFUTED, not as locked")


def test_the_policy_holds(browser: ModuleType, pages: dict[str, Path], tmp_path: Path) -> None:
    """What slipped onto the page would still not run or load."""
    path = tmp_path / "slipped.html"
    slipped = "<script>document.title = 'run'</script><img src='https://example.org/x.png'>"
    path.write_text(pages["real"].read_text().replace("<h1>", f"{slipped}<h1>", 1))
    with browser.shown(path, 1280) as found:
        assert found.page.title() == "ioi-tiny: SUPPORTED"
    assert len(found.said) == 2
    assert all("Content Security Policy" in said for said in found.said)


def test_the_accessibility_tree(browser: ModuleType, pages: dict[str, Path]) -> None:
    with browser.shown(pages["real"], 390) as found:
        found.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        session = found.page.context.new_cdp_session(found.page)
        nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    by_role: dict[str, list[dict[str, Any]]] = {}
    for node in nodes:
        if not node.get("ignored"):
            by_role.setdefault(node["role"]["value"], []).append(node)

    def name(node: dict[str, Any]) -> str:
        return str(node.get("name", {}).get("value", ""))

    levels = [next(p["value"]["value"] for p in n["properties"] if p["name"] == "level") for n in by_role["heading"]]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
    assert [name(n) for n in by_role["heading"] if "Claims" in name(n)] == ["Claims"]
    pictures = [name(node) for role in ("image", "img") for node in by_role.get(role, [])]
    assert (
        len(pictures) == 7
    )  # circuit, what its heads attend to, what they do, claims, templates, metrics, circuits by size
    assert any("Graph of 10 components, layers upward" in text for text in pictures)
    assert all(re.search(r"\d", text) and len(text) > 80 for text in pictures)
    assert {"logit_diff", "template", "group"} <= {name(n) for n in by_role["columnheader"]}
    assert {"last_layer", "circuit ablated"} <= {name(n) for n in by_role["rowheader"]}
    assert {name(n) for n in by_role["table"]} >= {"Groups of the circuit", "Recovered by template"}
    assert len(by_role["main"]) == 1
    assert all(name(n) for n in by_role["region"])
    assert all(name(n) for n in by_role["link"])


def test_writing_in_pictures_can_be_read_on_a_phone(browser: ModuleType, pages: dict[str, Path]) -> None:
    """At least 11 px, captions within the window, and the drop and its sign in sight without scrolling."""
    sizes = """() => [...document.querySelectorAll('svg text')].map(t => { const s = t.closest('svg');
      return parseFloat(getComputedStyle(t).fontSize) * s.getBoundingClientRect().width / s.viewBox.baseVal.width; })"""
    captions = """() => [...document.querySelectorAll('figcaption, caption > span')]
      .filter(e => e.checkVisibility()).map(e => e.getBoundingClientRect().right)"""
    parts = """() => [...document.querySelectorAll('section[aria-labelledby=parts] table')][0]
      .querySelectorAll('tbody tr')[0].children[2].getBoundingClientRect().left"""
    with browser.shown(pages["real"], 390) as found:
        written = found.page.evaluate(sizes)
        ends = found.page.evaluate(captions)
        sign = found.page.evaluate(parts)
    assert len(written) > 50
    assert min(written) >= 11
    assert max(ends) <= 390
    assert sign < 330


def test_paper_shows_what_is_folded(browser: ModuleType, pages: dict[str, Path]) -> None:
    """On paper (A4 less its margins) all experiments and prompts are there, and nothing lies beyond the edge."""
    rows = """() => [...document.querySelectorAll('details tbody tr, details pre')]
      .map(e => [e.checkVisibility({contentVisibilityAuto: true}), e.getBoundingClientRect().height])"""
    beyond = """() => [...document.querySelectorAll('main *')]
      .filter(e => !e.closest('svg') && e.getBoundingClientRect().right > innerWidth + 1)
      .map(e => e.outerHTML.slice(0, 90))"""
    with browser.shown(pages["real"], 703) as found:
        assert not all(shown for shown, _ in found.page.evaluate(rows))
        found.page.emulate_media(media="print")
        found.page.wait_for_function(f"({rows})().every(([shown, height]) => shown && height > 5)")  # raises after 30 s
        shown_rows = found.page.evaluate(rows)
        outside = found.page.evaluate(beyond)
        pdf = found.page.pdf(format="A4")
    assert len(shown_rows) > 20
    assert all(shown and height > 5 for shown, height in shown_rows)
    assert outside == []
    pypdfium2 = pytest.importorskip("pypdfium2") if importlib.util.find_spec("pypdfium2") else None
    if pypdfium2 is not None:  # the file itself, where there is something to read it with
        text = "".join(page.get_textpage().get_text_range() for page in pypdfium2.PdfDocument(pdf))
        assert "circuit ablated" in text
        assert "prompts behind sufficient" in text


def test_links_lead_to_lines_of_the_file(browser: ModuleType, pages: dict[str, Path]) -> None:
    with browser.shown(pages["real"], 390) as found:
        link = found.page.locator("article.claim a").first
        link.click()
        target = found.page.evaluate("document.querySelector(':target').textContent.trim()")
        visible_ = found.page.evaluate(
            "(r => r.top >= 0 && r.top < innerHeight)(document.querySelector(':target').getBoundingClientRect())"
        )
    assert target.startswith("- sufficient:")
    assert visible_


@pytest.mark.slow
def test_screenshots(browser: ModuleType, pages: dict[str, Path], tmp_path: Path) -> None:
    """As `make screenshots` takes them: of the right width, and neither empty nor the same in the dark."""
    from PIL import Image

    pictures = {path.stem: path for path in browser.take(pages["real"], tmp_path)}
    assert pictures.keys() == {"desktop", "phone", "dark"}
    means = {}
    for name, path in pictures.items():
        with Image.open(path) as picture:
            assert picture.width == (390 if name == "phone" else 1280)
            values = np.asarray(picture.convert("L"), dtype=float)
        means[name] = values.mean()
        assert values.std() > 10
    assert means["desktop"] > 220
    assert means["dark"] < 70
    assert {path.name for path in (ROOT / "docs/screenshots").glob("*.png")} == {
        path.name for path in pictures.values()
    }


@pytest.mark.slow
def test_contrast_as_computed(browser: ModuleType, pages: dict[str, Path]) -> None:
    """Every text of the page against the ground that it stands on, as the browser computes both."""
    script = """() => {
      const solid = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
                           if (c !== 'rgba(0, 0, 0, 0)') return c; } return 'rgb(255, 255, 255)'; };
      const found = new Set(), walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
      while (walk.nextNode()) { const e = walk.currentNode.parentElement;
        if (walk.currentNode.data.trim() && !e.closest('svg')) found.add(getComputedStyle(e).color + '|' + solid(e)); }
      return [...found]; }"""
    for scheme in ("light", "dark"):
        with browser.shown(pages["hostile"], 1280, scheme) as found:
            pairs = [pair.split("|") for pair in found.page.evaluate(script)]
        assert len(pairs) > 5
        for pair in pairs:
            one, other = ("#" + "".join(f"{int(n):02x}" for n in re.findall(r"\d+", c)[:3]) for c in pair)
            assert contrast(one, other) >= 4.5, pair


def test_the_command_for_screenshots_is_in_the_makefile() -> None:
    assert "$(BIN)/python docs/screenshots/make.py" in (ROOT / "Makefile").read_text()
    assert shutil.which("chromium") is None or photographer().browser_path() is not None
