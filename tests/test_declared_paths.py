"""Declared paths patched one by one at node level, on toys, with the numbers of arithmetic."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from circuitspec.analysis.circuit_effects.circuit_parts import COMPONENTS
from circuitspec.analysis.circuit_effects.path_effects import PathEffect
from circuitspec.analysis.claims.registry import make_plan
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.follow_ups.declared_paths import joined_pairs, path_checks
from circuitspec.graph.circuit_graph import lay_out
from circuitspec.graph.shape import ModelShape
from circuitspec.hypothesis_file.load_file import parse_hypothesis
from circuitspec.pipelines.plan import plan_file
from circuitspec.pipelines.verify import Outcome, VerifyOptions, verify
from circuitspec.prompts.prompt_set import Prompt, PromptSet, TokenizedTask
from circuitspec.reports.html.html_circuit import circuit_view, graph_view
from tests.reports.support import example
from tests.test_many_runs import Quiet
from tests.zoo.toy_cases import HYPOTHESES

CLOSE = 1e-4
SHAPE = ModelShape("gpt2", 4, 4, 4, 64, 16, 256, 100)


def run(toy: str, negatives: str = "screen") -> tuple[str, Outcome]:
    text = (HYPOTHESES / f"{toy}.circuit.yaml").read_text(encoding="utf-8")
    return text, verify(parse_hypothesis(text, f"{toy}.circuit.yaml"), VerifyOptions(negatives), Quiet())  # type: ignore[arg-type]


def shares(found: Outcome) -> dict[str, tuple[float | None, float | None]]:
    values = ((one.path, one.drop, one.rise) for one in found.verification.paths)
    return {path: (drop and round(drop.value, 3), rise and round(rise.value, 3)) for path, drop, rise in values}


def test_paths_of_a_helpful_and_a_negative_head() -> None:
    """+6 and -2 on the answer's logit, and clean - corrupt is 8: 12/8 and -4/8, whichever way."""
    text, found = run("negative")
    assert shares(found) == {"naming -> logits": (1.5, 1.5), "against -> logits": (-0.5, -0.5)}
    assert found.verification.warnings == ()
    view = circuit_view(found.verification, parse_hypothesis(text, "t").source, {})
    assert view is not None
    assert view.picture is not None
    assert "an edge is as wide as the effect of its path" in view.note
    styles = re.findall(r'<g id="c-edge\d+"[^>]*><title>([^<]*)</title>.*?style="([^"]*)"', view.picture.inline("c"))
    widths = {name: float(re.search(r"stroke-width: ([\d.]+)", style)[1]) for name, style in styles}  # type: ignore[index]
    assert list(widths.values()) == pytest.approx([4.0, 0.7 + 3.3 / 3], abs=0.01)
    assert ["dasharray" in style for _, style in styles] == [False, True]


def test_a_backup_sleeps_and_is_not_warned_of() -> None:
    """The main head says +7, the backup +7 less what the main head says: alone nothing, but 7 - 0 in its place.

    Clean - corrupt is 10; with the backup blind to the main head, it adds 7: a drop of -7/10.
    """
    _, found = run("backup")
    assert shares(found) == {
        "naming -> stand_in<q>": (-0.7, 0.0),
        "naming -> logits": (1.0, 1.0),
        "stand_in -> logits": (0.0, 0.0),
    }
    assert [one.sleeps for one in found.verification.paths] == [True, False, True]
    assert [warning.code for warning in found.verification.warnings] == []


def test_an_idle_path_at_node_level_is_warned_of() -> None:
    """CS406: the toy's head a0.h2 does nothing."""
    text = (HYPOTHESES / "negative.circuit.yaml").read_text(encoding="utf-8")
    text = text.replace("  paths:\n", "    idle: {nodes: [a0.h2], at: END}\n  paths:\n    - idle -> logits\n")
    found = verify(parse_hypothesis(text, "t.circuit.yaml"), VerifyOptions(), Quiet())
    said = [w.message for w in found.verification.warnings if w.code == "CS406"]
    assert said == ["the path idle -> logits has no effect by itself"]


def test_off_runs_none() -> None:
    _, found = run("negative", "off")
    assert found.verification.paths == ()


FILE = """\
circuitspec: 1
name: t
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
    movers: {nodes: [a2.h0, a3.h1], at: END}
    neuron: {nodes: [m1.n3], at: END}
  paths:
    - early -> movers<v>, neuron -> logits  # the movers' output is meant where they send
    - input@S1, early -> movers<v>
ablation: {value: VALUE}
claims:
  - path: {of: "early -> movers<v>", direction: noising, metric: logit_diff, drop_at_least: 0.1}
"""


def test_pairs_are_what_stands_beside_each_arrow() -> None:
    """Each once, and none with a neuron, which no path can be patched through; runs are those of a `path` claim."""
    document = parse_hypothesis(FILE.replace("VALUE", "resample, from: abc"), "t.circuit.yaml")
    graph = lay_out(document.hypothesis.circuit, SHAPE, document.source)
    pairs = [pair.text for pair in joined_pairs(graph, document.source)]
    assert pairs == ["early -> movers<v>", "movers -> logits", "input@S1 -> movers<v>"]
    plan = make_plan(document.hypothesis, graph, document.source, ["abc"])
    checks = path_checks(document.hypothesis.ablation, graph, document.source, Experiment("abc"))
    assert checks[0].ablated == plan.claims[0].patched
    assert all(check.restored is not None and check.corrupt == Experiment("abc") for check in checks)
    zeros = parse_hypothesis(FILE.replace("VALUE", "zero"), "t.circuit.yaml")
    made = path_checks(zeros.hypothesis.ablation, graph, zeros.source, plan.circuit)
    assert [check.restored for check in made] == [None] * 3


def test_plan_counts_them(tmp_path: Path) -> None:
    """Of `negative`: two paths, each noised and restored, one hop each."""
    file = tmp_path / "a.circuit.yaml"
    text = (HYPOTHESES / "negative.circuit.yaml").read_text(encoding="utf-8")
    file.write_text(text, encoding="utf-8")
    assert "and 4 to patch the declared paths one by one (--negatives off: none)" in plan_file(file)


def test_a_large_circuit_says_how_to_measure_them() -> None:
    document = parse_hypothesis(FILE.replace("VALUE", "zero").replace("a0.h1, a1.h2", "'a[0-3].h*', m0"), "t")
    shape = dataclasses.replace(SHAPE, n_layers=6)
    graph = lay_out(document.hypothesis.circuit, shape, document.source)
    assert len(graph.circuit) > COMPONENTS
    view = graph_view(graph, {})
    assert view is not None
    assert "verify --negatives exact measures them" in view.note


def test_a_group_pair_has_its_own_width() -> None:
    document = parse_hypothesis(FILE.replace("VALUE", "resample, from: abc"), "t.circuit.yaml")
    graph = lay_out(document.hypothesis.circuit, SHAPE, document.source)
    claim = next(iter(example().claims)).estimate
    paths = (PathEffect("early -> movers<v>", "logit_diff", claim, None),)
    found = dataclasses.replace(example(), graph=graph, paths=paths)
    view = circuit_view(found, document.source, {})
    assert view is not None
    assert view.picture is not None
    said = re.findall(r'<g id="c-edge\d+"[^>]*><title>([^<]*)</title>', view.picture.inline("c"))
    measured = {text.partition(": effect")[0].replace("&gt;", ">") for text in said if "effect" in text}
    assert measured == {f"{one} -> {other}" for one in ("a0.h1@S2", "a1.h2@S2") for other in ("a2.h0@END", "a3.h1@END")}
    assert "(thin where it was not measured)" in view.note


def test_edges_are_drawn_where_some_prompt_has_them() -> None:
    """The logits are read at the last token; queries and MLPs where they are; keys and values at tokens before."""
    document = parse_hypothesis(
        """
circuitspec: 1
name: t
model: {id: zoo:ioi-tiny}
task: {file: prompts.jsonl}
circuit:
  groups:
    early: {nodes: ["a0.h0@{S1,END}", "m1@{S2,SUBJECT}"]}
    late: {nodes: ["a2.h1@{S2,END}"]}
  paths: ["a0.h0, m1, a2.h1 -> logits", "a0.h0 -> a2.h1<v>", "m1 -> a2.h1<q>"]
ablation: {value: zero, level: node}
claims: [{sufficient: {metric: kl, at_most: 9}}]
""",
        "t.circuit.yaml",
    )
    graph = lay_out(document.hypothesis.circuit, SHAPE, document.source)
    texts = tuple(Prompt(i, 0, {"clean": ""}, (), ()) for i in range(2))
    roles = {"S1": (1, 1), "S2": (3, 3), "SUBJECT": (3, 2), "END": (5, 4)}
    ids = {"clean": ((0,) * 6, (0,) * 5)}
    task = TokenizedTask(PromptSet(texts, (), ("",)), ids, roles, ((1,),) * 2, ((2,),) * 2)
    view = graph_view(graph, {}, (), task)
    assert view is not None
    assert view.picture is not None
    drawn = re.findall(r'<g id="c-edge\d+"[^>]*><title>([^<]*)</title>', view.picture.inline("c"))
    assert sorted(text.replace("&gt;", ">") for text in drawn) == [  # one box a component, at all of its positions
        "a0.h0@END, S1 -> a2.h1@END, S2",
        "a0.h0@END, S1 -> logits@END",
        "a2.h1@END, S2 -> logits@END",
        "m1@S2, SUBJECT -> a2.h1@END, S2",
    ]
