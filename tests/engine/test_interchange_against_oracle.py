"""Interchange interventions against the oracle: components at their values in other prompts, of one or two sources."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.cache.store_keys import Keys
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.pyvene_export.plain_pyvene import check_plain
from circuitspec.experiments.experiment import Experiment, Site, SourcedSites, passes, values_in
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Input, KvHead, Mlp, Resid
from circuitspec.models.families.family_table import architecture_named
from circuitspec.prompts.prompt_set import TokenizedTask, TokenizedVariant
from tests.engine.support import (
    FAMILIES,
    Silent,
    assert_same,
    loaded,
    oracle_component,
    parts_of_mlp,
    random_prompts,
    runner,
    task_of,
)
from tests.engine.support import model as random_model
from tests.oracle import families, metrics, node

LENGTHS = [6, 5, 7, 6]
FIRST, SECOND = values_in("pairs:a"), values_in("pairs:b")
A, END = Where.at("A"), Where.at("END")

HEADS = frozenset({Site(Head(1, 0), END), Site(Head(1, 2), A)})
MID = "between attention and MLP"  # where something lies there
SINGLE = {
    "heads": HEADS,
    "mlp": frozenset({Site(Mlp(1), A), Site(Mlp(2), Where.everywhere())}),
    "residual": frozenset({Site(Resid(1), A)}),
    MID: frozenset({Site(Resid(1, mid=True), END)}),
    "key-value heads": frozenset({Site(KvHead(1, 1), A), Site(KvHead(1, 0), Where.everywhere())}),
    "input": frozenset({Site(Input(), A)}),
}
JOINT = {
    "heads of one layer": (HEADS, frozenset({Site(Head(1, 1), END), Site(Head(1, 3), A)})),
    "one head at two positions": (frozenset({Site(Head(0, 1), END)}), frozenset({Site(Head(0, 1), ~END)})),
    "head and residual": (frozenset({Site(Head(2, 0), END)}), frozenset({Site(Resid(1), A), Site(Mlp(2), END)})),
}


def there_are(sites: frozenset[Site], model: Any) -> frozenset[Site]:
    """Without key-value heads that the model does not have."""
    count = loaded(model).shape.n_kv_heads
    return frozenset(s for s in sites if not isinstance(s.component, KvHead) or s.component.head < count)


def given() -> tuple[list[node.Prompt], dict[str, list[node.Prompt]], list[node.Prompt], TokenizedTask]:
    """Base prompts; two sets of sources as long as they are, with other positions; the base with other answers."""
    base = random_prompts(seed=31, lengths=LENGTHS)
    sources = {name: random_prompts(seed=seed, lengths=LENGTHS) for name, seed in (("pairs:a", 32), ("pairs:b", 33))}
    asked = [replace(p, answers=q.answers[:1], wrong=q.wrong) for p, q in zip(base, sources["pairs:a"], strict=True)]
    task = task_of(base)
    for name, prompts in sources.items():
        own = task_of(prompts)
        task = task.with_variant(name, TokenizedVariant(own.ids["clean"], own.answers, own.wrong, own.roles))
    other = task_of(asked)
    return (
        base,
        sources,
        asked,
        task.with_variant("asked", TokenizedVariant(other.ids["clean"], other.answers, other.wrong, other.roles)),
    )


def by_hand(
    model: Any, base: list[node.Prompt], sources: dict[str, list[node.Prompt]], experiment: Experiment
) -> dict[str, np.ndarray]:
    """One prompt at a time, at the base's positions: each site at s, its value in its source.

    Along a subspace it is at x + R R^T (s - x), where x is what the base's run has there.
    """
    net = families.read(model)
    rows = []
    for i, prompt in enumerate(base):
        own = node.forward(net, prompt.clean, record=True)
        patches: dict[node.Site, Any] = {}
        for patch in experiment.patches:
            values = node.forward(net, sources[str(patch.source.prompts)][i].clean, record=True).values
            for site in patch.sites:
                named = {prompt.roles[role] for role in site.where.roles}
                component = oracle_component(site.component)
                for position in range(len(prompt.clean)):
                    if (position in named) == site.where.inverted:
                        continue
                    s = values[component][position]
                    if site.subspace is not None:
                        x, onto = own.values[component][position], site.subspace.basis @ site.subspace.basis.T
                        s = x + torch.tensor(onto) @ (s - x)
                    patches[component, position] = s
        logits = node.forward(net, prompt.clean, patches).logits[-1].numpy()
        rows.append(metrics.metrics(logits, prompt.answers, prompt.wrong, own.logits[-1].numpy()))
    return metrics.columns(rows)


@pytest.mark.parametrize("family", FAMILIES)
def test_single_sources(family: str) -> None:
    """Each kind of component, scored by the answers to the base and by others: one run, two scores."""
    model = random_model(family)
    base, sources, asked, task = given()
    there = loaded(model).shape.has_resid_mid
    runs = {
        name: Experiment("clean", FIRST, there_are(sites, model))
        for name, sites in SINGLE.items()
        if there or name != MID
    }
    parts = frozenset(Site(part, (END, A | END)[i % 2]) for i, part in enumerate(parts_of_mlp(model, 1)))
    runs |= {"parts of an MLP": Experiment("clean", FIRST, parts)} if parts else {}
    scored = [one for run in runs.values() for one in (run, replace(run, expected="asked"))]
    with borrowed(model):
        records = runner(model, task, rows=3).run(scored)
    for run in runs.values():
        assert_same(records[run], by_hand(model, base, sources, run))
        assert_same(records[replace(run, expected="asked")], by_hand(model, asked, sources, run))


@pytest.mark.parametrize("family", FAMILIES)
def test_two_sources_in_one_run(family: str) -> None:
    model = random_model(family)
    _, sources, asked, task = given()
    runs = [
        Experiment("clean", FIRST, first, beside=frozenset({SourcedSites(SECOND, second)}), expected="asked")
        for first, second in JOINT.values()
    ]
    with borrowed(model):
        records = runner(model, task, rows=3).run(runs)
    for run in runs:
        assert_same(records[run], by_hand(model, asked, sources, run))


def test_a_source_scored_by_its_own_answers() -> None:
    model = random_model("gpt2")
    _, sources, _, task = given()
    run = Experiment("pairs:a", expected="pairs:a")
    with borrowed(model):
        found = runner(model, task).run([run])[run]
    net = families.read(model)
    for i, prompt in enumerate(sources["pairs:a"]):
        logits = node.forward(net, prompt.clean).logits[-1].numpy()
        expected = metrics.metrics(logits, prompt.answers, prompt.wrong, logits)
        for name in ("logit_diff", "accuracy", "rank", "logprob"):
            assert found[name][i] == pytest.approx(expected[name], abs=1e-9)


def test_what_is_run_is_counted_once_however_it_is_scored() -> None:
    """The clean run, the source's, and one patched run for two scores; the progress is told so, and comes to it."""
    *_, task = given()
    model = random_model("gpt2")
    run = Experiment("clean", FIRST, HEADS)
    scored = (run, replace(run, expected="asked"), Experiment("clean", expected="asked"))
    assert passes(scored) == 3
    with borrowed(model):
        made = runner(model, task)
        made.run(scored)
    assert isinstance(made.progress, Silent)
    assert (made.progress.expected, made.progress.done) == (3 * task.n, 3 * task.n)


def test_digests_and_keys_tell_sources_and_scores_apart() -> None:
    """And what has neither keeps the digest that it had: that of its base, its source and its sites."""
    *_, task = given()
    run = Experiment("clean", FIRST, HEADS)
    beside = replace(run, beside=frozenset({SourcedSites(SECOND, SINGLE["residual"])}))
    variants = [run, replace(run, expected="asked"), replace(run, expected="pairs:a"), beside]
    assert len({one.digest for one in variants}) == 4
    plain = Experiment("clean", values_in("abc"), frozenset({Site(Head(0, 1), A)}))
    assert plain.digest == "e4464802272d40bac4a8d2a45ab11ea7a313625eafdd15c3e599f18a916b7731"
    moved = task.with_variant("asked", replace(task.of("asked"), answers=task.of("asked").wrong))
    setting: Any = type("Setting", (), {"digest": ""})()
    before, after = Keys(setting, task), Keys(setting, moved)
    assert before.of(run) == after.of(run)
    assert before.of(variants[1]) != after.of(variants[1])


def test_a_run_with_several_sources_is_not_written_to_a_bundle() -> None:
    joint = Experiment("clean", FIRST, HEADS, beside=frozenset({SourcedSites(SECOND, SINGLE["residual"])}))
    with pytest.raises(CircuitspecError, match="several sources"):
        check_plain([joint], architecture_named("gpt2"))
    check_plain([Experiment("clean", FIRST, HEADS)], architecture_named("gpt2"))


def test_further_sources_go_beside_sites_alone() -> None:
    with pytest.raises(ValueError, match="beside"):
        Experiment("clean", beside=frozenset({SourcedSites(SECOND, HEADS)}))
