"""What subspaces are learned on: runs that begin at the patched layer and token have the oracle's logits and slopes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.attribution.subspace_training import SitePairs
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.scheduling.partial_forward import Shortcut, Start
from circuitspec.experiments.experiment import Site
from circuitspec.experiments.subspaces.subspace import random_basis
from circuitspec.graph.nodes import NodeComponent
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Mlp, Neuron, Resid
from circuitspec.models.families.family_table import architecture_named
from circuitspec.prompts.prompt_set import TokenizedTask, TokenizedVariant
from tests.engine.support import (
    FAMILIES,
    TOLERANCE,
    loaded,
    oracle_component,
    random_prompts,
    runner,
    task_of,
    wide_windows,
)
from tests.engine.support import model as random_model
from tests.oracle import families, node

SETTING = (("a", "f"),)
LENGTHS = [7, 5, 6, 6, 7]
WHERES = {name: Where.at(name) for name in ("FIRST", "A", "END")}  # A is in the middle, and differs between rows
SITES: tuple[tuple[NodeComponent, str], ...] = (
    (Resid(0), "FIRST"),
    (Resid(1), "A"),
    (Resid(2), "END"),
    (Mlp(2), "A"),
    (Head(1, 2), "END"),
)


def given() -> tuple[list[node.Prompt], list[node.Prompt], TokenizedTask]:
    """Bases and sources of the same lengths, with positions of their own in each prompt."""
    base, source = (random_prompts(seed, LENGTHS) for seed in (41, 42))
    for i, prompt in enumerate(base):
        prompt.roles.update(FIRST=0, A=2 + i % 2)
    told = task_of(source)
    task, own = task_of(base), TokenizedVariant(told.ids["clean"], told.answers, told.wrong, told.roles)
    for name in ("pairs:f", "pairs:f=a", "pairs:f=base prompt"):
        here = own if name == "pairs:f" else replace(own, ids=task.ids["clean"], roles=task.roles)
        task = task.with_variant(name, here)
    return base, source, task


def pairs_at(model: Any, task: TokenizedTask, site: Site, side: str = "right") -> SitePairs:
    return SitePairs(runner(model, task, rows=3, side=side), site, [SETTING], [[True] * task.n], every=True)


def by_hand(model: Any, site: Site) -> Callable[[int, Tensor | None], Tensor]:
    """Prompt and basis -> logits at the prompt's last token, with x + R R^T (s - x) at the site."""
    base, source, _ = given()
    net = families.read(model)
    component = oracle_component(site.component)
    states = [
        (node.forward(net, p.clean, record=True).values[component], node.forward(net, q.clean, record=True).values)
        for p, q in zip(base, source, strict=True)
    ]

    def logits(i: int, basis: Tensor | None) -> Tensor:
        (role,) = site.where.roles
        at = base[i].roles[role]
        x, s = states[i][0][at], states[i][1][component][at]
        patched = s if basis is None else x + basis @ (basis.T @ (s - x))
        return node.forward(net, base[i].clean, {(component, at): patched}).logits[-1]

    return logits


@pytest.mark.parametrize("family", FAMILIES)
def test_logits(family: str) -> None:
    """Of the whole site and along a basis, at the first, a middle and the last token; windows wide enough."""
    model = random_model(family, **wide_windows(family))
    _, _, task = given()
    shape, starts = loaded(model).shape, set[Start]()
    with borrowed(model), torch.no_grad():
        for number, (component, name) in enumerate(SITES):
            width = shape.d_head if isinstance(component, Head) else shape.d_model
            basis = torch.tensor(random_basis(width, 2, number))
            site = Site(component, WHERES[name])
            pairs, expected = pairs_at(model, task, site), by_hand(model, site)
            for batch in pairs.batches:
                starts.add(batch.begins.start)
                for along in (None, basis):
                    asked = torch.stack([expected(i, along) for i in batch.batch.prompts])
                    torch.testing.assert_close(pairs.logits(batch, along), asked, atol=TOLERANCE, rtol=0)
    if architecture_named(family).mixers is not None:  # whose states hold what came before
        assert starts == {Start(), Start(1), Start(2)}
        return
    assert starts == {
        Start(),
        *(Start(layer, 2) for layer in (1, 2)),
        *(Start(layer, c) for layer in (1, 2) for c in (4, 6)),
    }


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_slopes(family: str) -> None:
    """The gradient along a direction is what the oracle's logits change by on either side."""
    model = random_model(family, **wide_windows(family))
    _, _, task = given()
    site, step = Site(Resid(1), WHERES["END"]), 1e-5
    basis, direction = (torch.tensor(random_basis(model.config.hidden_size, 2, seed)) for seed in (3, 4))
    expected = by_hand(model, site)
    with borrowed(model):
        pairs = pairs_at(model, task, site)
        for batch in pairs.batches:
            free = basis.clone().requires_grad_()
            weights = torch.linspace(-1, 1, task.n * model.config.vocab_size).view(task.n, -1).double()
            chosen = weights[list(batch.batch.prompts)]
            with torch.enable_grad():
                (slope,) = torch.autograd.grad((pairs.logits(batch, free) * chosen).sum(), free)
            ends = [
                sum(float(expected(i, basis + sign * step * direction) @ weights[i]) for i in batch.batch.prompts)
                for sign in (1, -1)
            ]
            assert float((slope * direction).sum()) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6)


@pytest.mark.parametrize(("family", "side"), [("gemma2", "right"), ("gpt2", "left")])
def test_whole_rows_where_columns_cannot_be_left_out(family: str, side: str) -> None:
    """Where a sliding window drops earlier tokens, and where padding is on the left: from the patched layer on."""
    model = random_model(family)
    _, _, task = given()
    site = Site(Resid(1), WHERES["END"])
    with borrowed(model), torch.no_grad():
        pairs, expected = pairs_at(model, task, site, side), by_hand(model, site)
        for batch in pairs.batches:
            assert batch.begins.start == Start(1, 0)
            asked = torch.stack([expected(i, None) for i in batch.batch.prompts])
            torch.testing.assert_close(pairs.logits(batch, None), asked, atol=TOLERANCE, rtol=0)


def test_a_model_that_gives_something_else_from_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model("gpt2")
    _, _, task = given()
    site = Site(Neuron(1, 3), WHERES["END"])
    whole = Shortcut.forward
    monkeypatch.setattr(Shortcut, "forward", lambda *args: 1.1 * whole(*args))
    with borrowed(model), pytest.raises(CircuitspecError, match=r"CS503.*beginning at layer 1, token 6"):
        pairs_at(model, task, site)


def test_permuted_labels_are_the_answers_of_other_pairs() -> None:
    """Each is dealt out once, beside the candidates that there were; a pair's own answer stays one of them."""
    model = random_model("gpt2")
    _, _, task = given()
    with borrowed(model):
        pairs = pairs_at(model, task, Site(Resid(1), WHERES["END"]))
    before, after = ([one for batch in made.batches for one in batch.candidates] for made in (pairs, pairs.permuted(3)))
    own, dealt = ([int(one[0]) for one in made] for made in (before, after))
    assert sorted(own) == sorted(dealt)
    assert own != dealt
    for one, other in zip(before, after, strict=True):
        assert one.tolist() == other.tolist()[1:]
    for batch in pairs.permuted(3).batches:  # no candidate counts twice
        for candidates, real in zip(batch.candidates.tolist(), batch.real.tolist(), strict=True):
            known = [one for one, is_real in zip(candidates, real, strict=True) if is_real]
            assert len(known) == len(set(known))
            assert real[0]
