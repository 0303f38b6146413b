"""What is run beside the claims when asked for: the circuit under other methods, and tests against random ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from circuitspec.experiments.circuits.circuit_tests import TestRuns, circuit_test_runs
from circuitspec.experiments.circuits.method_grid import Methods, NotRun, all_values, own_method, plan_methods
from circuitspec.experiments.experiment import Experiment
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.hypothesis_file.schema.blocks import AblationSpec
from circuitspec.hypothesis_file.yaml.source import SourceText

Refused = Callable[[Iterable[Experiment]], Mapping[Experiment, str]]
"""Of these experiments, those that the prompts do not allow, and why."""


@dataclass(frozen=True)
class Beside:
    """None where it was not asked for; of tests, the reason where the circuit allows none."""

    methods: Methods | None = None
    tests: TestRuns | str | None = None

    @property
    def labels(self) -> dict[Experiment, str]:
        found: dict[Experiment, str] = {}
        if isinstance(self.tests, TestRuns):
            found |= self.tests.labels
        if self.methods is not None:
            found = {**self.methods.labels, **found}
        return found


def plan_beside(
    ablation: AblationSpec,
    graph: CircuitGraph,
    text: SourceText,
    corruptions: Sequence[str],
    *,
    sweep: bool,
    tests: bool,
    refused: Refused = lambda experiments: {},
    no_edges: str = "",
) -> Beside:
    """The runs of a sweep over the six choices, and those of the tests of Shi et al. (2024).

    `no_edges` says why this model's edges cannot be patched, if they cannot.
    """
    methods = None
    if sweep:
        methods = plan_methods(own_method(ablation), all_values(ablation, corruptions), ablation, graph, text)
        methods = methods.without(refused(methods.labels))
        methods = _without_edges(methods, no_edges) if no_edges else methods
    runs = circuit_test_runs(ablation, graph, text) if tests else None
    if isinstance(runs, TestRuns):
        runs = next(iter(refused(runs.labels).values()), runs)
    return Beside(methods, runs)


def _without_edges(methods: Methods, why: str) -> Methods:
    kept = tuple(run for run in methods.runs if run.method.level == "node")
    lost = tuple(NotRun(run.method, why) for run in methods.runs if run not in kept)
    return replace(methods, runs=kept, left_out=(*methods.left_out, *lost))
