"""The engine against the independent oracle: same models, same circuits, every metric of every prompt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from circuitspec.analysis.claims.registry import make_plan
from circuitspec.engine.attribution.restoration_screen import (
    screen_both,
    screen_noising,
    screen_passes,
    screen_restorations,
)
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.experiments.experiment import Experiment, Site, Source
from circuitspec.experiments.levels.node_level import restored
from circuitspec.experiments.planner import Plan
from circuitspec.graph.circuit_graph import CircuitGraph, NodeComponent
from circuitspec.graph.members import Member
from circuitspec.graph.nodes import wholes_with_outside
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Mlp
from circuitspec.hypothesis_file.schema.blocks import AblationSpec, Hypothesis
from circuitspec.hypothesis_file.schema.claims.necessary_block import Necessary
from circuitspec.hypothesis_file.schema.claims.sufficient_block import Sufficient
from circuitspec.models.families.family_table import SUPPORTED
from tests.engine.support import (
    FAMILIES,
    assert_same,
    loaded,
    oracle_component,
    oracle_records,
    random_prompts,
    runner,
    task_of,
)
from tests.engine.support import model as random_model
from tests.matrix import STREAMS
from tests.oracle import node

ABLATIONS = ("resample", "mean", "mean_per_template", "zero")
CAUSES = ("gpt2", "gpt_neox", "llama", "gemma2")  # fused, per head and separate projections; post-norms and caps


def test_every_family_is_tested() -> None:
    assert {*FAMILIES, *STREAMS} == set(SUPPORTED)


def plan_of(
    model: Any,
    circuit: dict[NodeComponent, Where],
    free: frozenset[NodeComponent],
    value: str,
    positions: str = "declared",
) -> Plan:
    """The plan for a circuit given as values, without a file."""
    members = tuple(Member(c, w, "group", "positive") for c, w in circuit.items())
    graph = CircuitGraph(loaded(model).shape, members, free)
    claims = (Sufficient(metric="logit_diff", at_least=0.5), Necessary(metric="logit_diff", at_most=0.5))
    source = {} if value == "zero" else {"from": "abc"}
    ablation = AblationSpec.model_validate({"value": value, "positions": positions, **source})
    return make_plan(Hypothesis.model_construct(ablation=ablation, claims=claims), graph, None)  # type: ignore[arg-type]


def random_circuit(model: Any, seed: int) -> tuple[dict[NodeComponent, Where], frozenset[NodeComponent]]:
    """Half of the components, each at one or two named positions or everywhere; some MLPs are free."""
    rng = np.random.default_rng(seed)
    shape = loaded(model).shape
    heads = [one for one in wholes_with_outside(shape) if not isinstance(one, Mlp)]  # and mixers
    wheres = [Where.at("A"), Where.at("B", "END"), Where.at("END"), Where.everywhere()]
    circuit: dict[NodeComponent, Where] = {h: wheres[rng.integers(0, 4)] for h in heads if rng.random() < 0.5}
    circuit[Mlp(1)] = Where.at("A", "END")
    return circuit, frozenset({Mlp(0)})


def oracle_circuit(circuit: dict[NodeComponent, Where]) -> dict[tuple[Any, ...], set[str] | None]:
    return {oracle_component(c): None if w.is_everywhere else set(w.roles) for c, w in circuit.items()}


@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_circuits(family: str, ablation: str) -> None:
    check_circuit(random_model(family), ablation)


@pytest.mark.every_family
@pytest.mark.parametrize("family", FAMILIES)
def test_circuits_with_eager_attention(family: str) -> None:
    check_circuit(random_model(family, attention="eager"), "resample")


def check_circuit(model: Any, ablation: str) -> None:
    prompts = random_prompts(seed=5, lengths=[9] * 4, templates=2)
    if ablation == "mean_per_template":  # a mean's positions must mean the same in its group
        prompts = [
            node.Prompt(p.clean, p.corrupt, p.template, p.answers, p.wrong, {"A": 2 + p.template, "B": 4, "END": 8})
            for p in prompts
        ]
    circuit, free = random_circuit(model, seed=1)
    plan = plan_of(model, circuit, free, ablation)
    with borrowed(model):
        records = runner(model, task_of(prompts), rows=3).run(plan.experiments)
    oracle_free = {oracle_component(c) for c in free}
    sufficient = node.sufficient(model, prompts, oracle_circuit(circuit), oracle_free, ablation)
    necessary = node.necessary(model, prompts, oracle_circuit(circuit), oracle_free, ablation)
    assert_same(records[plan.claims[0].patched], sufficient.patched)
    assert_same(records[plan.claims[1].patched], necessary.patched)
    assert_same(records[plan.clean], sufficient.clean)
    assert_same(records[plan.corrupt], sufficient.corrupt)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_of_different_length(family: str, side: str) -> None:
    """Padded in one batch or alone, in any order and on either side: the same numbers.

    With the sliding windows (3 to 5 tokens, in some layers or all), caps and rotary bases of the families.
    """
    model = random_model(family)
    prompts = random_prompts(seed=6, lengths=[5, 9, 7, 9, 4, 7, 7])
    circuit, free = random_circuit(model, seed=2)
    plan = plan_of(model, circuit, free, "resample")
    expected = node.sufficient(model, prompts, oracle_circuit(circuit), {("mlp", 0)}, "resample").patched
    as_given, mixed = list(range(7)), [6, 2, 4, 0, 1, 5, 3]
    for rows, order in ((1, as_given), (3, mixed), (3, as_given), (100, mixed)):
        with borrowed(model):
            records = runner(model, task_of([prompts[i] for i in order]), rows, side).run(plan.experiments)
        assert_same(records[plan.circuit], {m: v[order] for m, v in expected.items()})


@pytest.mark.nightly
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_ablation_in_both_directions_on_either_side(family: str, side: str) -> None:
    """Noised and denoised, at positions from prompt to prompt; means over prompts of one length a template."""
    model = random_model(family)
    circuit, _ = random_circuit(model, seed=7)
    sites = frozenset(Site(component, where) for component, where in circuit.items())
    prompts = random_prompts(seed=8, lengths=[6, 8] * 2, templates=2)
    alike = {0: {"A": 2, "B": 4, "END": 5}, 1: {"A": 5, "B": 3, "END": 7}}
    averaged = [replace(prompt, roles=alike[prompt.template]) for prompt in prompts]
    level = random_prompts(seed=9, lengths=[7] * 3)
    level = [replace(prompt, roles={"A": 2, "B": 4, "END": 6}) for prompt in level]
    for given, kinds in ((prompts, ("resample", "zero")), (averaged, ("mean_per_template",)), (level, ("mean",))):
        experiments = [
            Experiment(base, Source(kind, None if kind == "zero" else other), sites)
            for kind in kinds
            for base, other in (("clean", "abc"), ("abc", "clean"))
        ]
        with borrowed(model):
            records = runner(model, task_of(given), 3, side).run(experiments)
        for experiment in experiments:
            assert_same(records[experiment], oracle_records(model, given, experiment))


@pytest.mark.parametrize("side", ["right", "left"])
def test_means_over_templates_of_different_length(side: str) -> None:
    model = random_model("gpt2")
    prompts = random_prompts(seed=6, lengths=[5, 9] * 4, templates=2)
    prompts = [
        node.Prompt(p.clean, p.corrupt, p.template, p.answers, p.wrong, {"A": 1, "B": 3, "END": len(p.clean) - 1})
        for p in prompts
    ]
    circuit, free = random_circuit(model, seed=2)
    plan = plan_of(model, circuit, free, "mean_per_template")
    expected = node.sufficient(model, prompts, oracle_circuit(circuit), {("mlp", 0)}, "mean_per_template").patched
    with borrowed(model):
        records = runner(model, task_of(prompts), 3, side).run(plan.experiments)
    assert_same(records[plan.circuit], expected)


@pytest.mark.parametrize("family", CAUSES)
def test_restoring_one_component(family: str) -> None:
    model = random_model(family)
    prompts = random_prompts(seed=10, lengths=[6] * 4)
    circuit, free = random_circuit(model, seed=3)
    plan = plan_of(model, circuit, free, "resample")
    chosen = next(
        s.component for s in plan.circuit.sites if isinstance(s.component, Head) and s.component not in circuit
    )
    one = restored(plan.circuit, frozenset({chosen}))
    with borrowed(model):
        records = runner(model, task_of(prompts)).run([one])
    expected = node.restore(model, prompts, oracle_circuit(circuit), {("mlp", 0)}, oracle_component(chosen), "resample")
    assert_same(records[one], expected.patched)


@pytest.mark.parametrize(("family", "metric"), [*((f, "logit_diff") for f in CAUSES), ("gpt2", "kl")])
def test_the_screen_is_the_derivative(family: str, metric: str) -> None:
    """The screened effect of a component is the slope of the metric as its patch is faded out."""
    import torch

    from circuitspec.engine.execution.compiler import Actions

    model = random_model(family)
    prompts = random_prompts(seed=12, lengths=[6, 6, 8])
    circuit, free = random_circuit(model, seed=4)
    plan = plan_of(model, circuit, free, "resample")
    step = 1e-5
    with borrowed(model):
        run = runner(model, task_of(prompts))
        screen = screen_restorations(run, plan.circuit, metric)
        assert run.forwards == screen_passes(plan.circuit, compared=metric == "kl")
        for component in sorted(screen.effects, key=str)[::3]:
            (slot,) = run.slots_of(component)
            slopes = np.zeros(len(prompts))
            for batch in run.batches:
                with torch.no_grad():
                    source = plan.circuit.source
                    assert source is not None
                    values = run.source_values(batch, source, run.taps_of([plan.circuit]))
                    measured = []
                    for sign in (1, -1):
                        swaps = run.swaps(batch, plan.circuit, values)
                        swap = swaps[slot.tap]
                        gate = swap.mask.double()
                        gate[:, :, slot.unit] *= 1 - sign * step
                        swaps[slot.tap] = type(swap)(swap.mask, swap.source, gate)
                        logits, _ = run.forward(batch, "clean", Actions(swaps))
                        clean, _ = run.forward(batch, "clean", Actions())
                        measured.append(run.metrics(batch, logits, clean.log_softmax(-1))[metric].numpy())
                slopes[list(batch.prompts)] = (measured[0] - measured[1]) / (2 * step)
            np.testing.assert_allclose(screen.effects[component], slopes, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_the_screen_of_what_else_could_be_patched_is_the_derivative(family: str) -> None:
    """A component outside the patched set, faded in by a small step: with the set whole, and at one role only."""
    import torch

    from circuitspec.engine.execution.compiler import Actions

    model = random_model(family)
    prompts = random_prompts(seed=12, lengths=[6, 6, 8])
    circuit, free = random_circuit(model, seed=4)
    plan = plan_of(model, circuit, free, "resample")
    whole = max((e for e in plan.experiments if e.sites), key=lambda e: len(e.sites))
    some = replace(whole, sites=frozenset(sorted(whole.sites, key=str)[::2]))
    outside = {site.component for site in whole.sites} - {site.component for site in some.sites}
    step = 1e-5
    with borrowed(model):
        run = runner(model, task_of(prompts))
        screen = screen_noising(run, some, whole, "logit_diff")
        assert all(np.all(screen.effects[site.component] == 0) for site in some.sites if site.where.is_everywhere)
        alone, before = screen_restorations(run, some, "logit_diff"), run.forwards
        both = screen_both(run, some, whole, "logit_diff")
        assert run.forwards - before == screen_passes(some)
        for one, other in zip(both, (alone, screen), strict=True):
            assert set(one.effects) == set(other.effects)
            for component, values in other.effects.items():
                np.testing.assert_allclose(one.effects[component], values, rtol=1e-9, atol=1e-12)
                assert one.by_role[component] == pytest.approx(other.by_role[component], abs=1e-12)
        for component in sorted(outside, key=str)[::2]:
            (slot,) = run.slots_of(component)
            slopes = np.zeros(len(prompts))
            for batch in run.batches:
                with torch.no_grad():
                    source = whole.source
                    assert source is not None
                    values = run.source_values(batch, source, run.taps_of([whole]))
                    patched, every = run.swaps(batch, some, values), run.swaps(batch, whole, values)
                    measured = []
                    for sign in (1, -1):
                        swaps = {}
                        for tap, swap in every.items():
                            gate = (
                                patched[tap].mask.double() if tap in patched else torch.zeros_like(swap.mask).double()
                            )
                            if tap == slot.tap:
                                gate[:, :, slot.unit] += sign * step * swap.mask[:, :, slot.unit]
                            swaps[tap] = type(swap)(swap.mask, swap.source, gate)
                        logits, _ = run.forward(batch, "clean", Actions(swaps))
                        measured.append(run.metrics(batch, logits, None)["logit_diff"].numpy())
                slopes[list(batch.prompts)] = (measured[0] - measured[1]) / (2 * step)
            np.testing.assert_allclose(screen.effects[component], slopes, rtol=1e-5, atol=1e-7)


def test_equal_experiments_are_one() -> None:
    model = random_model("gpt2")
    circuit, free = random_circuit(model, seed=1)
    first, second = (plan_of(model, circuit, free, "resample") for _ in range(2))
    assert first.circuit == second.circuit
    assert first.circuit.digest == second.circuit.digest
    assert len({*first.experiments, *second.experiments}) == len(first.experiments)
    assert Experiment("clean").digest != Experiment("abc").digest
