"""An executor given from outside runs all there is to run, and what is measured is the same."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from circuitspec.engine.attribution.node_attribution import attribute
from circuitspec.engine.execution.compiler import Actions, Compiler, borrowed
from circuitspec.engine.execution.executor import Executor
from circuitspec.engine.execution.taps import Tap
from circuitspec.engine.runner import Runner
from circuitspec.engine.validation.self_test import self_test
from circuitspec.experiments.experiment import Experiment, Site, Source
from circuitspec.experiments.levels.edge_level import patching
from circuitspec.graph.edges import Receiver
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Head, Logits, Mlp
from circuitspec.hypothesis_file.load_file import load_hypothesis
from circuitspec.models.load import LoadedModel
from circuitspec.pipelines.verify import VerifyOptions, verify
from circuitspec.runtime.progress import Silent as Waiting
from tests.engine.support import Silent, loaded, model, random_prompts, runner, task_of

ALL = Where.everywhere()
TOY = Path(__file__).parents[2] / "hypotheses" / "toys" / "negative.circuit.yaml"
OTHER, MEAN = Source("resample", "abc"), Source("mean", "abc")
SWEPT = [Experiment("clean", OTHER, frozenset({Site(Head(2, head), ALL)})) for head in range(4)]
EXPERIMENTS = [
    Experiment("clean"),
    *SWEPT,
    Experiment("abc", Source("resample", "clean"), frozenset({Site(Mlp(1), Where.at("A"))})),
    Experiment("clean", MEAN, frozenset({Site(Head(0, 1), ALL)})),
    patching("clean", OTHER, {Receiver(Logits()): {Head(1, 0): ALL}}),
]


class Elsewhere:
    """Hands forwards to a worker thread, and counts rows; those that gradients are taken of it runs where it is."""

    def __init__(self, made: LoadedModel) -> None:
        self._here = Compiler(made.model, made.architecture, made.shape)
        self._worker = ThreadPoolExecutor(1)
        self.rows = 0
        self.begun_late = 0

    def forward(self, inputs: Mapping[str, Any], actions: Actions) -> tuple[Tensor, dict[Tap, Tensor]]:
        self.rows += len(inputs["input_ids"])
        self.begun_late += actions.first_block > 0
        if torch.is_grad_enabled():
            return self._here.forward(inputs, actions)
        return self._worker.submit(torch.no_grad()(self._here.forward), inputs, actions).result()


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_experiments_run_through_an_executor_from_outside(name: str) -> None:
    """At node and edge level, swept and alone, with another run's values and with means; the self-tests too."""
    m = model(name)
    prompts = random_prompts(seed=11, lengths=[6, 6, 6])
    for prompt in prompts:  # a mean's positions must mean the same in its group
        prompt.roles.update(A=2, B=3)
    task = task_of(prompts)
    elsewhere = Elsewhere(loaded(m))
    outside: Executor = elsewhere
    with borrowed(m):
        expected = runner(m, task, rows=3).run(EXPERIMENTS)
        run = Runner(loaded(m), task, rows=3, progress=Silent(), executor=outside)
        tested = self_test(run, edges=True)
        at_first = elsewhere.rows
        assert at_first > 0
        assert max(tested.own_values, tested.all_patched) < 1e-6
        found = run.run(EXPERIMENTS)
        assert elsewhere.rows - at_first == round(run.forwards * task.n) - _of_prompts(task.n)
        assert elsewhere.begun_late > 0
    for experiment in EXPERIMENTS:
        for metric, values in expected[experiment].items():
            assert found[experiment][metric].tolist() == values.tolist()


def _of_prompts(n: int) -> int:
    """Prompts that the self-test runs of the task itself, so that the runner has counted them before."""
    return 5 if n > 1 else 0


def test_a_hypothesis_is_verified_elsewhere() -> None:
    document = load_hypothesis(TOY)
    made: list[Elsewhere] = []

    def elsewhere(model: LoadedModel) -> Elsewhere:
        made.append(Elsewhere(model))
        return made[-1]

    here = verify(document, VerifyOptions(), Waiting()).verification
    there = verify(document, VerifyOptions(executor=elsewhere), Waiting()).verification
    assert sum(one.rows for one in made) > 0
    assert there.claims == here.claims
    assert [warning.code for warning in there.warnings] == [warning.code for warning in here.warnings]


def test_gradients_come_through_an_executor_from_outside() -> None:
    m = model("gpt2")
    task = task_of(random_prompts(seed=11, lengths=[6, 4, 5]))
    heads = [Head(0, 1), Head(2, 0)]
    with borrowed(m):
        expected = attribute(runner(m, task, rows=3), "clean", OTHER, "logit_diff", heads, [ALL])
        run = Runner(loaded(m), task, rows=3, progress=Silent(), executor=Elsewhere(loaded(m)))
        found = attribute(run, "clean", OTHER, "logit_diff", heads, [ALL])
    assert found.effects == expected.effects
