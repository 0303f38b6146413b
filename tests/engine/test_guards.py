"""What the engine must refuse or undo: each test fails if its guard is taken out.

Two of pyvene's habits are undone here: it deletes every hook that it finds on a model, and it freezes all
parameters and leaves evaluation mode on. Its other traps are in `test_traps.py`.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.execution.batches import make_batches, where_mask
from circuitspec.engine.execution.compiler import Actions, borrowed
from circuitspec.engine.execution.taps import Tap
from circuitspec.engine.runner import Runner
from circuitspec.engine.validation.self_test import self_test
from circuitspec.experiments.averaging import grouping
from circuitspec.experiments.experiment import Experiment, Site, Source
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Mlp
from tests.engine.support import Silent, loaded, random_prompts, runner, task_of
from tests.oracle import builders, node


def codes(error: pytest.ExceptionInfo[CircuitspecError]) -> set[str]:
    return {d.code for d in error.value.diagnostics}


PATCHED = Experiment("clean", Source("resample", "abc"), frozenset({Site(Head(1, 2), Where.everywhere())}))


def test_the_model_is_given_back_as_it_came() -> None:
    model = builders.random_gpt2()
    model.train()
    block = model.transformer.h[1]
    calls: list[str] = []
    handles = [
        block.register_forward_hook(lambda *_: calls.append("hook")),
        block.register_forward_pre_hook(lambda *_, **__: calls.append("pre"), with_kwargs=True),
        model.register_forward_hook(lambda *_: calls.append("always"), always_call=True),
    ]
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    model.transformer.wte.weight.requires_grad_(False)
    block.mlp.eval()
    requires_grad = {name: p.requires_grad for name, p in model.named_parameters()}
    training = {name: m.training for name, m in model.named_modules()}
    weights = copy.deepcopy(model.state_dict())
    task = task_of(random_prompts(0, [5, 5]))
    with borrowed(model):
        runner(model, task).run([Experiment("clean"), PATCHED])
    assert calls == []  # foreign hooks do not run while the model is borrowed
    with pytest.raises(KeyError), borrowed(model):
        runner(model, task).run([PATCHED, Experiment("no such prompts")])
    assert {name: p.requires_grad for name, p in model.named_parameters()} == requires_grad
    assert {name: m.training for name, m in model.named_modules()} == training
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    model(torch.tensor([[1, 2]]))
    assert calls == ["pre", "hook", "always"]
    for handle in handles:
        handle.remove()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_module_that_does_not_run_is_an_error() -> None:
    model = builders.random_gpt2()
    task = task_of(random_prompts(0, [5]))
    mlp = model.transformer.h[1].mlp
    mlp.__class__ = type("Bypassed", (type(mlp),), {"__call__": lambda self, x: x * 0})  # never calls hooks
    experiment = Experiment("clean", Source("resample", "abc"), frozenset({Site(Mlp(1), Where.everywhere())}))
    with borrowed(model), pytest.raises(CircuitspecError) as error:
        runner(model, task).run([experiment])
    assert codes(error) == {"CS501"}
    assert "transformer.h[1].mlp" in str(error.value)


def test_a_module_that_runs_twice_is_an_error() -> None:
    model = builders.random_gpt2()
    model.transformer.h[2].mlp = model.transformer.h[1].mlp  # shared
    experiment = Experiment("clean", Source("resample", "abc"), frozenset({Site(Mlp(1), Where.everywhere())}))
    with borrowed(model), pytest.raises(CircuitspecError) as error:
        runner(model, task_of(random_prompts(0, [5]))).run([experiment])
    assert codes(error) == {"CS501"}


def test_logits_that_are_not_finite_are_an_error() -> None:
    model = builders.random_gpt2()
    with torch.no_grad():
        model.transformer.wte.weight[7] = torch.nan
    prompts = random_prompts(0, [5, 5])
    prompts[1].clean[:] = [7] * 5
    with borrowed(model), pytest.raises(CircuitspecError) as error:
        runner(model, task_of(prompts)).run([Experiment("clean")])
    assert codes(error) == {"CS502"}


@pytest.mark.parametrize("family", [builders.random_gpt2, builders.random_llama])
def test_self_tests_pass_on_a_sound_model(family: object) -> None:
    model = family()  # type: ignore[operator]
    with borrowed(model):
        result = self_test(runner(model, task_of(random_prompts(0, [5, 8, 6]))))
    assert result.own_values < 1e-12
    assert result.all_patched < 1e-12


def test_self_tests_fail_where_a_patch_goes_wrong() -> None:
    """The patched module exists, runs once, and has the right width: only the values tell."""
    model = builders.random_gpt2()
    run = runner(model, task_of(random_prompts(0, [5, 5])))
    run.compiler.forward = _forgetting(run.compiler.forward, Tap(1, "mlp"))  # type: ignore[method-assign]
    with borrowed(model), pytest.raises(CircuitspecError) as error:
        self_test(run)
    assert codes(error) == {"CS503"}


def _forgetting(forward: object, tap: Tap) -> object:
    """A compiler that patches zeros at one tap."""

    def wrapped(inputs: object, actions: Actions) -> object:
        swaps = dict(actions.swaps)
        if tap in swaps:
            swaps[tap] = type(swaps[tap])(swaps[tap].mask, torch.zeros_like(swaps[tap].source))
        return forward(inputs, Actions(swaps, actions.record))  # type: ignore[operator]

    return wrapped


def test_means_need_prompts_of_one_length() -> None:
    with pytest.raises(CircuitspecError) as error:
        grouping(task_of(random_prompts(0, [5, 6, 5, 6])), "mean")
    assert codes(error) == {"CS521"}


def test_a_mean_over_one_prompt_is_an_error() -> None:
    prompts = random_prompts(0, [5, 5, 5], templates=2)  # templates 0, 1, 0
    with pytest.raises(CircuitspecError) as error:
        grouping(task_of(prompts), "mean_per_template")
    assert codes(error) == {"CS522"}
    assert "for 1 template(s), among them 'template 1'" in str(error.value)


def test_a_mean_over_one_prompt_of_a_token_layout_is_said_to_be_that() -> None:
    """Template 0 has three prompts, of which one is longer; template 1 has two that are alike."""
    prompts = random_prompts(0, [5, 5, 5, 5, 6], templates=2)
    alike = [replace(p, roles={"A": 1, "B": 2, "END": len(p.clean) - 1}) for p in prompts]
    with pytest.raises(CircuitspecError) as error:
        grouping(task_of(alike), "mean_per_template")
    (finding,) = error.value.diagnostics
    assert finding.code == "CS522"
    assert finding.message == (
        "the mean would be over a single prompt for 1 token layout(s) (a length, with the tokens of its positions), "
        "among them of 'template 0'"
    )


def test_a_template_whose_prompts_tokenise_differently_has_a_mean_for_each_layout() -> None:
    prompts = [
        node.Prompt([1] * n, [2] * n, 0, [3], [4], {"A": a, "END": n - 1})
        for n, a in [(5, 1), (5, 1), (6, 1), (6, 1), (6, 2), (6, 2)]
    ]
    assert grouping(task_of(prompts), "mean_per_template").scored == (0, 0, 1, 1, 2, 2)


def test_where_masks() -> None:
    prompts = random_prompts(0, [4, 6])
    prompts[0].roles.update(A=1, B=1)
    prompts[1].roles.update(A=2, B=3)
    task = task_of(prompts)
    (batch,) = make_batches(task.lengths, 8, "left")
    cpu = torch.device("cpu")
    expected = {
        Where.at("A", "B"): [[0, 0, 0, 1, 0, 0], [0, 0, 1, 1, 0, 0]],
        Where.except_at("A"): [[0, 0, 1, 0, 1, 1], [1, 1, 0, 1, 1, 1]],
        Where.everywhere(): [[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]],
    }
    for where, rows in expected.items():
        assert where_mask(task, batch, where, cpu).int().tolist() == rows


def test_batches_hold_every_prompt_once() -> None:
    lengths = np.random.default_rng(0).integers(3, 9, 50).tolist()
    batches = make_batches(lengths, 8)
    assert sorted(p for b in batches for p in b.prompts) == list(range(50))
    assert all(len(b.prompts) <= 8 and b.width == max(b.lengths) for b in batches)


def test_progress_is_told_as_much_as_it_was_promised() -> None:
    model = builders.random_gpt2()
    task = task_of(random_prompts(0, [5] * 6, templates=2))
    progress = Silent()
    means = Experiment("clean", Source("mean", "abc"), PATCHED.sites)
    with borrowed(model):
        run = Runner(loaded(model), task, rows=4, progress=progress)
        run.run([Experiment("clean"), Experiment("abc"), PATCHED, means])
        assert progress.done == progress.expected == 5 * task.n  # the mean's pass, clean, abc and two patched
        run.run([means])
    assert progress.done == progress.expected == 7 * task.n
    assert run.forwards == 7
