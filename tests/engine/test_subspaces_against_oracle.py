"""Subspaces against the oracle: the part of a component's value along some directions, from another prompt."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.metrics.site_values import site_values
from circuitspec.experiments.experiment import Experiment, Site, SourcedSites
from circuitspec.experiments.levels.interchange_level import instead_of_subspaces
from circuitspec.experiments.subspaces.subspace import Subspace, principal_angles, random_basis
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Mlp, Resid
from tests.engine.support import FAMILIES, assert_same, loaded, oracle_component, runner
from tests.engine.support import model as random_model
from tests.engine.test_interchange_against_oracle import END, FIRST, SECOND, A, by_hand, given
from tests.oracle import families, node

CHEAP = ("gpt2", "llama", "gemma2")


def within(component: Any, where: Where, model: Any, rank: int, seed: int) -> Site:
    shape = loaded(model).shape
    width = shape.d_head if isinstance(component, Head) else shape.d_model
    return Site(component, where, Subspace.of(random_basis(width, rank, seed)))


def sites_of(model: Any) -> dict[str, frozenset[Site]]:
    return {
        "residual": frozenset({within(Resid(1), A | END, model, 3, 0)}),
        "mlp": frozenset({within(Mlp(1), Where.everywhere(), model, 2, 1)}),
        "head": frozenset({within(Head(1, 2), END, model, 1, 2)}),
        "heads of one layer, each with its own, beside a whole one": frozenset(
            {within(Head(1, 0), A, model, 2, 3), within(Head(1, 1), END, model, 1, 4), Site(Head(1, 3), END)}
        ),
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_single_sources(family: str) -> None:
    """Each alone, all swept together and from the middle: the numbers of the oracle."""
    model = random_model(family)
    base, sources, _, task = given()
    runs = [Experiment("clean", FIRST, sites) for sites in sites_of(model).values()]
    with borrowed(model):
        records = runner(model, task, rows=3).run(runs)
        alone = runner(model, task, rows=3).run(runs[:1])
    assert_same(alone[runs[0]], by_hand(model, base, sources, runs[0]))
    for run in runs:
        assert_same(records[run], by_hand(model, base, sources, run))


@pytest.mark.parametrize("family", CHEAP)
def test_late_tokens_of_several_layers_in_one_forward(family: str) -> None:
    """Each layer's residual stream and a head at END: rows begin together, at the last token of the shortest prompt."""
    model = random_model(family, **({"sliding_window": 16} if family == "gemma2" else {}))
    base, sources, _, task = given()
    sites = [within(Resid(layer), END, model, 2, layer) for layer in range(3)] + [within(Head(2, 1), END, model, 2, 9)]
    runs = [Experiment("clean", FIRST, frozenset({site})) for site in sites]
    with borrowed(model):
        ran = runner(model, task, rows=8)
        records = ran.run(runs)
    assert ran.forwards_saved > 0
    for run in runs:
        assert_same(records[run], by_hand(model, base, sources, run))


@pytest.mark.parametrize("family", FAMILIES)
def test_two_sources_in_one_run(family: str) -> None:
    model = random_model(family)
    base, sources, _, task = given()
    one = frozenset({within(Head(1, 0), END, model, 2, 5)})
    other = frozenset({within(Head(1, 1), END, model, 2, 6), within(Head(1, 2), A, model, 1, 7)})
    run = Experiment("clean", FIRST, one, beside=frozenset({SourcedSites(SECOND, other)}))
    with borrowed(model):
        records = runner(model, task, rows=3).run([run])
    assert_same(records[run], by_hand(model, base, sources, run))


@pytest.mark.parametrize("family", CHEAP)
@pytest.mark.parametrize("where", [END, A | END, Where.everywhere()], ids=["END", "A and END", "everywhere"])
def test_values_at_a_site(family: str, where: Where) -> None:
    """What subspaces are split by: means over the base's positions, of the bases and of each family's sources."""
    model = random_model(family)
    base, sources, _, task = given()
    net = families.read(model)
    with borrowed(model):
        run = runner(model, task, rows=3)
        for component in (Resid(1), Mlp(1), Head(1, 2)):
            found = site_values(run, run.source_values, Site(component, where), ("a", "b"))
            for i, prompt in enumerate(base):
                named = {prompt.roles[role] for role in where.roles}
                at = [n for n in range(len(prompt.clean)) if (n in named) != where.inverted]
                for own, prompts in ((found.base, base), *((found.sources[f], sources[f"pairs:{f}"]) for f in "ab")):
                    values = node.forward(net, prompts[i].clean, record=True).values[oracle_component(component)]
                    expected = np.mean([values[n].numpy() for n in at], axis=0)
                    np.testing.assert_allclose(own[i], expected, atol=1e-9)


def test_a_basis_of_full_rank_is_the_whole_component() -> None:
    model = random_model("gpt2")
    *_, task = given()
    width = model.config.hidden_size
    full = Experiment("clean", FIRST, frozenset({within(Resid(1), END, model, width, 0)}))
    whole = Experiment("clean", FIRST, frozenset({Site(Resid(1), END)}))
    with borrowed(model):
        records = runner(model, task).run([full, whole])
    np.testing.assert_allclose(records[full]["logit_diff"], records[whole]["logit_diff"], atol=1e-9)


def test_subspaces_tell_experiments_apart() -> None:
    """Equal numbers are one experiment; what is patched whole keeps its digest."""
    model = random_model("gpt2")
    site = within(Resid(1), END, model, 2, 0)
    run = Experiment("clean", FIRST, frozenset({site}))
    again = Experiment("clean", FIRST, frozenset({within(Resid(1), END, model, 2, 0)}))
    other = Experiment("clean", FIRST, frozenset({within(Resid(1), END, model, 2, 1)}))
    whole = Experiment("clean", FIRST, frozenset({replace(site, subspace=None)}))
    assert run == again
    assert run.digest == again.digest
    assert len({run.digest, other.digest, whole.digest}) == 3


def test_what_claims_on_subspaces_are_held_against() -> None:
    """The whole component, and random subspaces that are apart, at the same place; others' sites stay."""
    site, other = within(Resid(1), END, random_model("gpt2"), 2, 7), Site(Head(2, 0), END)
    found = instead_of_subspaces(Experiment("clean", FIRST, frozenset({site, other})))
    whole, *drawn = ({one.component: one for one in run.sites} for run in found.values())
    assert whole == {Resid(1): replace(site, subspace=None), Head(2, 0): other}
    bases = [site.subspace, *(one[Resid(1)].subspace for one in drawn)]
    for one, another in itertools.combinations(bases, 2):
        assert one is not None
        assert another is not None
        assert principal_angles(one.basis, another.basis).min() > 0.3
    assert [(one[Resid(1)].where, one[Head(2, 0)]) for one in drawn] == [(END, other)] * 3


@pytest.mark.parametrize("basis", [np.ones((4, 2)), np.full((4, 1), np.nan), np.eye(4)[:2].repeat(2, axis=0).T[:2]])
def test_columns_that_are_not_orthonormal(basis: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"orthonormal|no more than rows"):
        Subspace.of(basis)


def test_principal_angles() -> None:
    """Two planes in four dimensions that share one direction and are 0.1 radians apart in the other."""
    one = np.eye(4)[:, :2]
    other = np.array([[1, 0], [0, np.cos(0.1)], [0, np.sin(0.1)], [0, 0]])
    np.testing.assert_allclose(principal_angles(one, other), [0, 0.1], atol=1e-12)
    np.testing.assert_allclose(principal_angles(one[:, :1], other), [0], atol=1e-12)
