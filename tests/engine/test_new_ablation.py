"""Throw-away ablation values, a row and a function each: run from the file to the report, and held to plain hooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.ablation.patched_values import STRATEGIES, Given, Values
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.pyvene_export.plain_pyvene import check_plain
from circuitspec.experiments.experiment import Experiment, Site, Source
from circuitspec.experiments.levels.edge_level import patching
from circuitspec.exploration.search.patching_series import series_of
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.ablation_kinds import ABLATIONS, AblationKind
from circuitspec.hypothesis_file.grammar.components import Head
from circuitspec.hypothesis_file.load_file import load_hypothesis
from circuitspec.hypothesis_file.schema.json_schema import json_schema
from circuitspec.models.families.family_table import architecture_named
from circuitspec.models.load import load_model
from circuitspec.pipelines.check import check_file
from circuitspec.pipelines.plan import plan_file
from circuitspec.reports.machine.json_document import to_document
from circuitspec.reports.text.text_report import render_text
from tests.engine.support import assert_same, model, oracle_sites, random_prompts, runner, task_of
from tests.engine.test_edges_against_oracle import every_edge, oracle_receiver, oracle_sender
from tests.engine.test_verify_ablations import document, prompts_of, verified
from tests.oracle import edge, families, hooked, metrics, node

CONSTANT = 0.25
CLAIMS = "{sufficient: {metric: logit_diff, at_least: 0.9}}, {necessary: {metric: logit_diff, at_most: 0.1}}"


def half_run(given: Given) -> Values:
    return {tap: value / 2 for tap, value in given.run().items()}


def half_mean(given: Given) -> Values:
    return {tap: value / 2 for tap, value in given.means().items()}


def quarter(given: Given) -> Values:
    return given.constant(CONSTANT)


NEW: Mapping[str, tuple[AblationKind, Callable[[Given], Values]]] = {
    "half": (AblationKind("half", "half of that of the corrupted prompt", "run"), half_run),
    "half_mean": (AblationKind("half_mean", "half of its mean", "means"), half_mean),
    "quarter": (AblationKind("quarter", f"the number {CONSTANT}", "nothing"), quarter),
}


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, (kind, strategy) in NEW.items():
        monkeypatch.setitem(ABLATIONS, name, kind)  # type: ignore[arg-type]
        monkeypatch.setitem(STRATEGIES, name, strategy)  # type: ignore[arg-type]


def test_every_value_has_a_way_to_be_computed() -> None:
    assert set(STRATEGIES) == {kind.source for kind in ABLATIONS.values()}
    for kind in ABLATIONS.values():
        own = ABLATIONS[kind.source]
        assert (kind.made_of, kind.is_run, kind.is_zero) == (own.made_of, own.is_run, own.is_zero)


def by_hooks(gpt2: Any, experiment: Experiment, prompts: list[node.Prompt]) -> dict[str, np.ndarray]:
    """Every metric of a run on the clean prompts, the values written out and put in by hooks."""
    recorded = [hooked.forward(gpt2, prompt.corrupt, hooked.GPT2).values for prompt in prompts]
    kind = "" if experiment.source is None else experiment.source.kind

    def value(prompt: int, component: node.Component, position: int) -> Any:
        own = recorded[prompt][component][position]
        if kind == "half_mean":
            own = sum(one[component][position] for one in recorded) / len(recorded)
        return own.clone().fill_(CONSTANT) if kind == "quarter" else own / 2

    rows = []
    for i, prompt in enumerate(prompts):
        patches = {(c, p): value(i, c, p) for c, p in (oracle_sites(prompt, experiment) if kind else ())}
        logits = hooked.forward(gpt2, prompt.clean, hooked.GPT2, patches).logits[-1].numpy()
        clean = hooked.forward(gpt2, prompt.clean, hooked.GPT2).logits[-1].numpy()
        rows.append(metrics.metrics(logits, prompt.answers, prompt.wrong, clean))
    return metrics.columns(rows)


@pytest.mark.parametrize(
    ("ablation", "said"),
    [
        ("{value: half, from: random}", "half from random"),
        pytest.param(
            "{value: half_mean, from: random, reference: prompts}",
            "half_mean from random (over the scored prompts)",
            marks=pytest.mark.nightly,
        ),
        pytest.param("{value: quarter}", "quarter", marks=pytest.mark.nightly),
    ],
)
def test_from_the_file_to_the_report(registered: None, ablation: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "new.circuit.yaml"
    file.write_text(document(ablation, CLAIMS).source.text, encoding="utf-8")
    assert not check_file(file)[0]
    assert said.removesuffix(" (over the scored prompts)") in plan_file(file)

    outcome = verified(load_hypothesis(file))
    found = outcome.verification
    gpt2 = load_model(load_hypothesis(file).hypothesis.model, tmp_path).model
    experiments = dict.fromkeys(e for one in found.plan.claims for e in (one.clean, one.corrupt, one.patched))
    for experiment in experiments:
        expected = by_hooks(gpt2, experiment, prompts_of(outcome))
        for metric, values in found.records[experiment].items():
            np.testing.assert_allclose(values, expected[metric], rtol=0, atol=1e-6, err_msg=metric)
    corrupt = found.plan.claims[0].corrupt  # none of them is the corrupt run: with all ablated nothing is recovered
    assert corrupt.source is not None
    assert f"node level, {said}, declared positions" in render_text(found)
    methodology: Any = to_document(found)["methodology"]
    assert methodology["ablation"] == said.split()[0]


def test_the_schema_reads_the_rows(registered: None) -> None:
    value = json_schema()["$defs"]["AblationSpec"]["properties"]["value"]
    assert value["enum"] == list(ABLATIONS)
    assert document("{value: half, from: clean}", CLAIMS).hypothesis.ablation.value == "half"


@pytest.mark.parametrize(
    ("ablation", "code"),
    [
        ("{value: half}", "CS145"),
        ("{value: half, from: random, reference: 20}", "CS169"),
        ("{value: quarter, from: random}", "CS146"),
        ("{value: quarter, std: 3.0}", "CS147"),
    ],
)
def test_checks_go_by_the_rows(registered: None, ablation: str, code: str) -> None:
    with pytest.raises(CircuitspecError) as caught:
        document(ablation, CLAIMS)
    assert [one.code for one in caught.value.diagnostics] == [code]


def test_sweeps_of_explore_take_them(registered: None) -> None:
    found = series_of(["half", "quarter"], ("abc", "flip"), None)
    assert [one.title for one in found] == [
        "noising, half of abc",
        "noising, half of flip",
        "noising, quarter",
        "denoising abc",
        "denoising flip",
    ]
    assert [one.source for one in found[:3]] == [Source("half", "abc"), Source("half", "flip"), Source("quarter", None)]


def test_a_bundle_has_no_word_for_them(registered: None) -> None:
    """pyvene by itself patches runs, means and zeros; what is neither would be another number in the bundle."""
    sites = frozenset({Site(Head(0, 0), Where.everywhere())})
    gpt2 = architecture_named("gpt2")
    with pytest.raises(CircuitspecError) as caught:
        check_plain([Experiment("clean", Source("half", "abc"), sites)], gpt2)
    assert [one.code for one in caught.value.diagnostics] == ["CS531"]
    check_plain([Experiment("clean", Source("half_mean", "abc"), sites)], gpt2)


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_edges_carry_what_the_value_says(registered: None, family: str) -> None:
    """Half of what each sender adds; behind a post norm, which would undo it, too."""
    m, prompts = model(family, exactly=True), random_prompts(11, [5, 7, 6])
    with borrowed(m):
        run = runner(m, task_of(prompts))
        ablated = {e: Where.everywhere() for i, e in enumerate(every_edge(run.loaded.shape)) if i % 3}
        readings: dict[Any, dict[Any, Where]] = {}
        for (sender, receiver), where in ablated.items():
            readings.setdefault(receiver, {})[sender] = where
        experiment = patching("clean", Source("half", "abc"), readings)
        found = run.run([experiment])[experiment]
    net, rows = families.read(m), []
    for prompt in prompts:
        halves = {sender: added / 2 for sender, added in edge.contributions(net, prompt.corrupt).items()}
        kept: dict[Any, Any] = dict.fromkeys(edge.edges(net))
        kept |= {(oracle_sender(sender), oracle_receiver(receiver)): set() for sender, receiver in ablated}
        logits = edge.edge_run(net, prompt.clean, halves, kept).logits[-1].numpy()
        clean = node.forward(net, prompt.clean).logits[-1].numpy()
        rows.append(metrics.metrics(logits, prompt.answers, prompt.wrong, clean))
    assert_same(found, metrics.columns(rows))
