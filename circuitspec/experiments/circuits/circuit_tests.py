"""The runs of the statistical tests of a circuit (Shi et al. 2024), by the level of its ablation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.experiments.ablation_source import ablation_source
from circuitspec.experiments.circuits.random_circuits import RandomCircuits, enlarged_circuits, random_circuits
from circuitspec.experiments.circuits.subset_runs import cuts_of
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.levels.node_level import circuit_positions
from circuitspec.experiments.levels.whole_circuit import anchor_of, circuit_alone, whole_circuit
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.hypothesis_file.grammar.components import sort_key
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.hypothesis_file.schema.blocks import AblationSpec
from circuitspec.hypothesis_file.yaml.source import SourceText

CIRCUITS = 100  # Shi et al.


@dataclass(frozen=True)
class TestRuns:
    """The model, the circuit alone and the model without it; and what these are compared with.

    `without` has the circuit without each of its nodes but declared backups, `enlarged` the circuit with one random
    component more; both are empty at path level. `not_run` says which tests cannot be made, and why.
    """

    __test__ = False  # for pytest, to which the name looks like a test's

    model: Experiment
    circuit: Experiment
    knocked_out: Experiment
    anchor: Experiment
    rivals: RandomCircuits | None
    without: Mapping[str, Experiment]
    enlarged: tuple[Experiment, ...]
    not_run: tuple[str, ...] = ()

    @property
    def labels(self) -> dict[Experiment, str]:
        """Names of all runs, for those that have none yet."""
        found = {self.model: "clean", self.circuit: "circuit", self.knocked_out: "circuit ablated"}
        found.setdefault(self.anchor, "corrupt" if self.anchor.source is None else "all ablated")
        for name, run in self.without.items():
            found.setdefault(run, f"circuit without {name}")
        rivals = self.rivals or RandomCircuits((), ())
        for i, (kept, out) in enumerate(zip(rivals.kept, rivals.knocked_out, strict=True)):
            found.setdefault(kept, f"random circuit {i + 1}")
            found.setdefault(out, f"random circuit {i + 1} ablated")
        for i, run in enumerate(self.enlarged):
            found.setdefault(run, f"circuit and a random component, {i + 1}")
        return found


def circuit_test_runs(
    ablation: AblationSpec, graph: CircuitGraph, text: SourceText, *, circuits: int = CIRCUITS, seed: int = 0
) -> TestRuns | str:
    """The runs of all tests that this circuit allows; or why it allows none."""
    others = graph.without_outside
    if others and ablation.level == "node":
        return f"the circuit holds {others[0].kind.plural}, of which nothing can be said to lie outside"

    whole, not_run = whole_circuit(ablation, graph, text), []
    rivals: RandomCircuits | None = None
    try:
        rivals = random_circuits(graph, whole, circuits, seed, text, ("circuit", "groups"))
    except CircuitspecError as error:
        not_run.append(f"sufficiency and partial necessity: {error.diagnostics[0].message}")
    enlarged: tuple[Experiment, ...] = ()
    if ablation.level != "path":
        inside = [] if ablation.level == "node" else [c for path in graph.paths for c in path.components]
        enlarged = enlarged_circuits(graph, lambda one: circuit_alone(ablation, one, text), circuits, seed, inside)
    without: dict[str, Experiment] = {}
    if ablation.level == "path":
        not_run.append("minimality: at path level nodes are not taken out one by one")
    elif not enlarged:
        not_run.append("minimality: no layer of the circuit has a component outside of it")
    else:
        kept = circuit_positions(ablation, graph)
        edges = None if ablation.level == "node" or whole.edges is None else whole.edges.kept
        cuts = cuts_of(graph, ablation_source(ablation), kept, edges, pinned=ablation.positions == "all")
        backups = graph.only("backup")
        without = {n.name: cuts.circuit_without((n,)) for n in cuts.nodes if n.component not in backups}
        if backups:
            named = ", ".join(format_name(c) for c in sorted(backups, key=sort_key))
            not_run.append(
                f"minimality of {named}: declared as backup, and what backs up shows only where another part is "
                "ablated; claim `minimal`, which looks for one"
            )
    anchor = anchor_of(ablation_source(ablation), whole)
    return TestRuns(
        Experiment("clean"), whole.circuit, whole.knocked_out, anchor, rivals, without, enlarged, tuple(not_run)
    )
