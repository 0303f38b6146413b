"""pyvene does some things wrongly without a word. For each that could reach this engine, a test that would notice.

The titles name the trap; what the engine does about it is in the first line of each test. Foreign hooks
that are deleted and parameters that are frozen are in `test_guards.py`, modules that do not run, or run
twice, as well; positions that differ within a batch and left padding are held against the oracle in
`test_against_oracle.py`, heads wider than the model's width by the families that have them.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import pyvene
import torch

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.execution.batches import model_inputs
from circuitspec.engine.execution.compiler import Actions, borrowed
from circuitspec.engine.execution.interventions import Swap
from circuitspec.engine.execution.taps import Tap, all_taps
from circuitspec.engine.forward import EMBEDDINGS
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import Experiment, Site, Source, passes
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Mlp
from circuitspec.models.families.family_table import architecture_named
from tests.engine.support import (
    FAMILIES,
    Silent,
    assert_same,
    loaded,
    oracle_records,
    random_prompts,
    runner,
    task_of,
)
from tests.engine.support import model as random_model

EVERYWHERE = Where.everywhere()


def patching(*layers: int) -> Experiment:
    """All heads and MLPs of these layers, from the corrupt run."""
    components = [c for layer in layers for c in (*(Head(layer, h) for h in range(4)), Mlp(layer))]
    return Experiment("clean", Source("resample", "abc"), frozenset(Site(c, EVERYWHERE) for c in components))


def taps_of(model: Any) -> frozenset[Tap]:
    known = loaded(model)
    return all_taps(known.architecture, known.shape)


def inputs_of(run: Runner) -> dict[str, Any]:
    return model_inputs(run.task, run.batches[0], "clean", run.device)


@pytest.mark.parametrize("family", FAMILIES)
def test_head_components_that_are_not_split(family: str) -> None:
    """Only module paths are used, never pyvene's own component names (whose tables are wrong for some families),
    and every tensor must be as wide as the model's shape says."""
    model = random_model(family, layers=2)
    shape, architecture = loaded(model).shape, architecture_named(family)
    run = runner(model, task_of(random_prompts(0, [5, 6])))
    names = {tap: tap.path(architecture) for tap in taps_of(model)}
    assert all("." in name and name.rpartition(".")[2] in ("input", "output") for name in names.values())
    with borrowed(model), torch.no_grad():
        _, recorded = run.executor.forward(inputs_of(run), Actions(record=taps_of(model)))
    assert {tap: value.shape for tap, value in recorded.items()} == {tap: (2, 6, tap.width(shape)) for tap in names}


def test_dimensions_that_are_not_validated() -> None:
    """A table that names another module, of another width, is an error (CS510) and not a patch of part of it."""
    model = random_model("gpt2", layers=2)
    known = loaded(model)
    wrong = dataclasses.replace(known, architecture=dataclasses.replace(known.architecture, attn_out="mlp.c_proj"))
    with borrowed(model), pytest.raises(CircuitspecError) as error:
        Runner(wrong, task_of(random_prompts(0, [5, 5])), rows=2, progress=Silent()).run([patching(0)])
    (finding,) = error.value.diagnostics
    assert finding.code == "CS510"
    assert "transformer.h[0].mlp.c_proj.input" in finding.message


def test_the_first_keyword_is_taken_for_the_tensor() -> None:
    """A module that is called with another keyword first gives a tensor of another shape (CS510)."""
    model = copy.deepcopy(random_model("llama", layers=2))
    mlp = model.model.layers[1].mlp

    class Scaled(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, scale: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return scale * self.inner(x)

    mlp.down_proj = Scaled(mlp.down_proj)
    mlp.forward = lambda x: mlp.down_proj(scale=torch.ones(1, 1), x=mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x))
    run = runner(model, task_of(random_prompts(0, [5])))
    with borrowed(model), pytest.raises(CircuitspecError) as error:
        run.executor.forward(inputs_of(run), Actions(record=frozenset({Tap(1, "neurons")})))
    assert [d.code for d in error.value.diagnostics] == ["CS510"]


def test_locations_that_are_read_as_source_and_base_or_make_later_ones_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """pyvene is given no unit locations at all: masks say where. (Two flat integers are taken for source and base;
    an integer makes all later per-prompt positions those of row 0.)"""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    models: list[Any] = []
    original = pyvene.IntervenableModel.forward

    def spy(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append((args, kwargs))
        models.append(self)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(pyvene.IntervenableModel, "forward", spy)
    model = random_model("gpt2", layers=2)
    with borrowed(model):
        runner(model, task_of(random_prompts(0, [5, 6]))).run([patching(0, 1)])
    assert calls
    for args, kwargs in calls:
        assert len(args) == 1  # the model's inputs: no sources, no locations, no cached activations
        assert not kwargs
    assert not any(m.use_fast for m in models)


def test_a_forward_for_every_intervention(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many components are patched, an experiment is one forward, and a source one forward for all."""
    model = random_model("llama", layers=2)
    count = 0
    original = type(model).forward

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        return original(self, *args, **kwargs)

    monkeypatch.setattr(type(model), "forward", counted)
    experiments = (Experiment("clean"), patching(0), patching(1), patching(0, 1))
    with borrowed(model):
        runner(model, task_of(random_prompts(0, [5, 5]))).run(experiments)
    assert count == passes(experiments) == 5


def test_cached_sources_that_are_cleared_after_a_call() -> None:
    """Sources are the engine's own tensors: a second run with them is the same, and they are as they were."""
    model = random_model("llama", layers=2)
    prompts = random_prompts(0, [5, 5])
    run = runner(model, task_of(prompts))
    experiment = patching(0, 1)
    with borrowed(model), torch.no_grad():
        assert experiment.source is not None
        values = run.source_values(run.batches[0], experiment.source, run.taps_of([experiment]))
        before = {tap: value.clone() for tap, value in values.items()}
        swaps = run.swaps(run.batches[0], experiment, values)
        first, second = (run.forward(run.batches[0], "clean", Actions(swaps))[0] for _ in range(2))
    assert torch.equal(first, second)
    assert values.keys() == before.keys()
    assert all(torch.equal(values[tap], before[tap]) for tap in values)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_patch_without_a_source_that_silently_does_nothing(family: str) -> None:
    """Every kind of tap, patched with zeros, changes the logits, and what is recorded is from before the patch."""
    model = random_model(family, layers=2)
    run = runner(model, task_of(random_prompts(0, [5, 5])))
    inputs = inputs_of(run)
    with borrowed(model), torch.no_grad():
        plain, own = run.executor.forward(inputs, Actions(record=taps_of(model)))
        for tap, value in own.items():
            mask = torch.ones(2, 5, tap.units(run.loaded.shape), dtype=torch.bool)
            swap = Swap(mask, torch.zeros(1, 1, 1, dtype=torch.float64))
            logits, recorded = run.executor.forward(inputs, Actions({tap: swap}, frozenset({tap})))
            assert (logits - plain).abs().max() > 1e-3, tap
            assert torch.equal(recorded[tap], value), tap


def test_patches_that_are_written_in_place() -> None:
    """The embeddings' output and the first block's input are one tensor: patching one leaves no trace in what was
    recorded of the other, in the source, or in the weights."""
    model = random_model("llama", layers=2)
    run = runner(model, task_of(random_prompts(0, [5, 5])))
    weights = model.model.embed_tokens.weight.clone()
    with borrowed(model), torch.no_grad():
        _, plain = run.executor.forward(inputs_of(run), Actions(record=frozenset({EMBEDDINGS})))
        source = torch.ones(2, 5, 32, dtype=torch.float64)
        swap = Swap(torch.ones(2, 5, 1, dtype=torch.bool), source)
        first = Tap(0, "resid")
        actions = Actions({first: swap}, frozenset({EMBEDDINGS, first, Tap(1, "resid")}))
        _, recorded = run.executor.forward(inputs_of(run), actions)
    assert torch.equal(recorded[EMBEDDINGS], plain[EMBEDDINGS])
    assert torch.equal(recorded[first], plain[EMBEDDINGS])
    assert bool((source == 1).all())
    assert torch.equal(model.model.embed_tokens.weight, weights)


def test_the_residual_stream_that_skips_a_patched_module_is_patched_too() -> None:
    """`r1.mid` is the input of a norm, and the stream goes around that norm: both must get the patch."""
    for family in ("gpt2", "llama", "gemma2", "olmo2"):
        model = random_model(family, layers=2)
        prompts = random_prompts(0, [5])
        run = runner(model, task_of(prompts))
        tap = Tap(1, "resid_mid")
        with borrowed(model), torch.no_grad():
            _, other = run.executor.forward(
                model_inputs(run.task, run.batches[0], "abc", run.device), Actions(record=frozenset({tap}))
            )
            swap = Swap(torch.ones(1, 5, 1, dtype=torch.bool), other[tap])
            patched, _ = run.executor.forward(inputs_of(run), Actions({tap: swap}))
            expected, _ = run.executor.forward(model_inputs(run.task, run.batches[0], "abc", run.device), Actions())
        assert (patched - expected).abs().max() < 1e-12


def test_hooks_that_stay_after_a_failed_forward() -> None:
    """A run that raises in the middle, Ctrl-C included, leaves no hook behind, nor the next run another result."""
    model = copy.deepcopy(random_model("gpt2", layers=2))
    prompts = random_prompts(0, [5, 5])
    run = runner(model, task_of(prompts))
    last = model.transformer.h[1].mlp
    for failure in (RuntimeError("no memory"), KeyboardInterrupt()):

        def fail(x: object, failure: BaseException = failure) -> object:
            raise failure

        with borrowed(model):
            last.forward = fail
            with pytest.raises(type(failure)):
                run.run([patching(0)])
            del last.forward
            assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
            experiments = [Experiment("clean"), Experiment("abc"), patching(0)]
            records = run.run(experiments)
        for experiment in experiments:
            assert_same(records[experiment], oracle_records(model, prompts, experiment))
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
