"""Interchange with sources of other lengths, against the oracle: values from the source's own positions, float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.attribution.subspace_training import SitePairs
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.experiments.experiment import Experiment, Site, SourcedSites, values_in
from circuitspec.experiments.subspaces.subspace import Subspace, random_basis
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Mlp, Neuron, Resid
from circuitspec.prompts.pairs.settings import scored_as, scored_as_base, source_variant
from circuitspec.prompts.prompt_set import TokenizedTask, TokenizedVariant
from tests.engine.support import assert_same, oracle_component, random_prompts, runner, task_of
from tests.engine.support import model as random_model
from tests.oracle import families, metrics, node

BASE, LONGER, OTHERS = [6, 5, 7, 6], [8, 5, 9, 7], [5, 7, 7, 4]
FIRST, SECOND = values_in("pairs:a"), values_in("pairs:b")
A, END, SPAN = Where.at("A"), Where.at("END"), Where.at("S")
THREE = [
    pytest.param("gpt2"),
    pytest.param("llama"),
    *(pytest.param(name, marks=pytest.mark.nightly) for name in ("gpt_neox", "gemma2", "olmo2")),
]


def tokens_of(prompts: list[node.Prompt], other: list[node.Prompt] | None = None) -> TokenizedVariant:
    """The prompts as a variant: positions A and END of one token, S of two, each with itself in the `other` ones."""
    own = task_of(prompts)
    spans = {"S": tuple(span(p) for p in prompts)}
    roles = {**own.roles, "S": tuple(one[-1] for one in spans["S"])}
    pairs = None
    if other is not None:
        pairs = tuple(
            tuple({(p.roles[role], q.roles[role]) for role in ("A", "END")} | {*zip(span(p), span(q), strict=True)})
            for p, q in zip(other, prompts, strict=True)
        )
    return TokenizedVariant(own.ids["clean"], own.answers, own.wrong, roles, spans=spans, pairs=pairs)


def span(prompt: node.Prompt) -> tuple[int, int]:
    """Two tokens in the middle, which are no other position's."""
    return (1, 2)


def prompts_of(seed: int, lengths: list[int]) -> list[node.Prompt]:
    rng = np.random.default_rng(seed)
    made = random_prompts(seed=seed, lengths=lengths)
    return [
        replace(
            p,
            roles={"A": int(rng.choice([0, 3, len(p.clean) - 2])) if len(p.clean) > 4 else 0, "END": len(p.clean) - 1},
        )
        for p in made
    ]


def given() -> tuple[list[node.Prompt], dict[str, list[node.Prompt]], TokenizedTask]:
    base = prompts_of(41, BASE)
    sources = {name: prompts_of(seed, lengths) for name, seed, lengths in (("a", 42, LONGER), ("b", 43, OTHERS))}
    own = tokens_of(base)
    task = replace(task_of(base), roles={**own.roles}, spans=own.spans)
    for name, prompts in sources.items():
        task = task.with_variant(f"pairs:{name}", tokens_of(prompts, base))
    return base, sources, task


def within(component: Any, where: Where, model: Any, rank: int, seed: int) -> Site:
    config = model.config
    width = getattr(config, "head_dim", config.hidden_size // config.num_attention_heads)
    width = width if isinstance(component, Head) else config.hidden_size
    return Site(component, where, Subspace.of(random_basis(width, rank, seed)))


def at(prompt: node.Prompt, where: Where) -> list[int]:
    return [place for role in sorted(where.roles) for place in (span(prompt) if role == "S" else (prompt.roles[role],))]


def by_hand(model: Any, base: list[node.Prompt], sources: Any, experiment: Experiment) -> dict[str, np.ndarray]:
    """One prompt at a time: each site at its value in its source, taken where the position is there."""
    net, rows = families.read(model), []
    for i, prompt in enumerate(base):
        own = node.forward(net, prompt.clean, record=True).values
        patches: dict[node.Site, Any] = {}
        for patch in experiment.patches:
            other = sources[str(patch.source.prompts).removeprefix("pairs:")][i]
            values = node.forward(net, other.clean, record=True).values
            for site in patch.sites:
                component = oracle_component(site.component)
                for here, there in zip(at(prompt, site.where), at(other, site.where), strict=True):
                    x, s = own[component][here], values[component][there]
                    if site.subspace is not None:
                        s = x + torch.tensor(site.subspace.basis @ site.subspace.basis.T) @ (s - x)
                    patches[component, here] = s
        clean = node.forward(net, prompt.clean).logits[-1].numpy()
        logits = node.forward(net, prompt.clean, patches).logits[-1].numpy()
        rows.append(metrics.metrics(logits, prompt.answers, prompt.wrong, clean))
    return metrics.columns(rows)


@pytest.mark.parametrize("family", THREE)
def test_nodes_and_subspaces(family: str) -> None:
    """Swept together and alone, padded on either side; one source and two of different lengths."""
    model = random_model(family)
    base, sources, task = given()
    sites = {
        "heads": {Site(Head(1, 0), END), Site(Head(1, 2), A)},
        "mlp at two tokens": {Site(Mlp(1), SPAN)},
        "neuron": {Site(Neuron(1, 3), A)},
        "residual": {Site(Resid(1), A | END)},
        "subspace of the residual": {within(Resid(1), END | SPAN, model, 3, 0)},
        "subspace of a head": {within(Head(1, 2), A, model, 1, 2)},
    }
    runs = [Experiment("clean", FIRST, frozenset(own)) for own in sites.values()]
    beside = frozenset({SourcedSites(SECOND, frozenset({Site(Head(1, 1), A), within(Mlp(0), END, model, 2, 3)}))})
    runs.append(Experiment("clean", FIRST, frozenset(sites["heads"]), beside=beside))
    with borrowed(model):
        records = runner(model, task, rows=3).run(runs)
        alone = runner(model, task, rows=3, side="left").run(runs[-1:])
    assert_same(alone[runs[-1]], by_hand(model, base, sources, runs[-1]))
    for run in runs:
        assert_same(records[run], by_hand(model, base, sources, run))


def test_learning_takes_values_from_the_sources_own_tokens() -> None:
    """What a basis is learned on: the base's values and the source's, where the positions are in each, on average."""
    model = random_model("llama")
    base, sources, task = given()
    setting = (("v", "a"),)
    for name in (scored_as(setting), scored_as_base(setting)):
        task = task.with_variant(name, replace(tokens_of(base)))
    net, site = families.read(model), Site(Resid(2), A | END)
    with borrowed(model):
        found = SitePairs(runner(model, task, rows=4), site, [setting], [[True] * len(base)], every=True).values()
    assert source_variant("a") == "pairs:a"
    seen = []
    for batch, _, own, there in found:
        for row, number in enumerate(batch.prompts):
            pair = (base[number], own[row]), (sources["a"][number], there[row])
            for prompt, value in pair:
                wanted = node.forward(net, prompt.clean, record=True).values[oracle_component(Resid(2))]
                named = {prompt.roles["A"], prompt.roles["END"]}
                mean = np.mean([wanted[position].numpy() for position in named], axis=0)
                np.testing.assert_allclose(value, mean, atol=1e-9)
            seen.append(number)
    assert sorted(seen) == [0, 1, 2, 3]


@pytest.mark.parametrize("beside", [False, True])
def test_nothing_is_taken_from_a_token_that_is_not_there(beside: bool) -> None:
    """Everywhere, in the first source or a second one: tokens of the base have no counterpart."""
    model = random_model("gpt2")
    _, _, task = given()
    wide = frozenset({Site(Mlp(1), Where.everywhere())})
    run = Experiment("clean", FIRST, wide)
    if beside:
        task = task.with_variant("pairs:same", replace(tokens_of(prompts_of(44, BASE))))
        named = frozenset({Site(Head(1, 0), END)})
        run = Experiment("clean", values_in("pairs:same"), named, beside=frozenset({SourcedSites(FIRST, wide)}))
    with borrowed(model), pytest.raises(CircuitspecError, match="CS366"):
        runner(model, task).run([run])
