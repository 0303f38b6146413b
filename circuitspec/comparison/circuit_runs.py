"""What is run of compared circuits on the prompts of one file: each circuit alone, what pairs of them share, and what
one has that the other has not.

On the prompts of a file all circuits are ablated as that file says: its level, its values, its positions. So figures
beside each other differ by the circuit alone, and a file's own circuit runs as `verify` runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import TypeVar

from circuitspec.comparison.compared_circuits import ComparedCircuit
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.experiments.ablation_source import ablation_source
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.levels import edge_level
from circuitspec.experiments.levels.node_level import ablating, circuit_positions, without_outside
from circuitspec.experiments.levels.whole_circuit import anchor_of, circuit_alone, whole_circuit
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.edge_circuit import Kept, edge_circuit, outside_edges
from circuitspec.graph.edges import Receiver, Sender
from circuitspec.graph.nodes import Ablatable, NodeComponent
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import whole_of
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.hypothesis_file.schema.blocks import AblationSpec


@dataclass(frozen=True)
class SetRun:
    """A run about two circuits: with a set of what they have kept and all else ablated, or (`taken_out`) with that set
    ablated in the whole model."""

    first: str
    second: str
    what: str
    run: Experiment
    taken_out: bool = False


@dataclass(frozen=True)
class NotCompared:
    """What was not run on these prompts, and why."""

    what: str
    reason: str


@dataclass(frozen=True)
class CircuitRuns:
    """All runs on the prompts of `owner`'s file: recovered performance is 1 in the clean run and 0 at the `anchor`."""

    owner: str
    ablation: AblationSpec
    anchor: Experiment
    circuits: Mapping[str, Experiment]  # by letter
    sets: tuple[SetRun, ...]
    left_out: tuple[NotCompared, ...]

    @property
    def runs(self) -> tuple[Experiment, ...]:
        return (*self.circuits.values(), *(one.run for one in self.sets))

    def without(self, refused: Mapping[Experiment, str]) -> CircuitRuns:
        """Without the runs that these prompts or this model do not allow; `refused` says why."""
        lost = [NotCompared(name, refused[run]) for name, run in self.circuits.items() if run in refused]
        lost += [NotCompared(one.what, refused[one.run]) for one in self.sets if one.run in refused]
        return replace(
            self,
            circuits={name: run for name, run in self.circuits.items() if run not in refused},
            sets=tuple(one for one in self.sets if one.run not in refused),
            left_out=(*self.left_out, *lost),
        )


def circuit_runs(owner: ComparedCircuit, circuits: Sequence[ComparedCircuit], ablation: AblationSpec) -> CircuitRuns:
    """What is run on the prompts of `owner`, whose `ablation` has its source filled in.

    Raises CircuitspecError where the owner's own circuit cannot be run as its file says.
    """
    text = owner.document.source
    anchor = anchor_of(ablation_source(ablation), whole_circuit(ablation, owner.graph, text))
    alone: dict[str, Experiment] = {}
    left_out: list[NotCompared] = []
    for one in circuits:
        try:
            alone[one.letter] = _alone(one, ablation)
        except CircuitspecError as error:
            left_out.append(NotCompared(one.letter, error.diagnostics[0].message))
    sets: list[SetRun] = []
    for first, second in combinations([one for one in circuits if one.letter in alone], 2):
        found = _sets(first, second, ablation)
        if isinstance(found, str):
            left_out.append(NotCompared(f"what {first.letter} and {second.letter} share and do not", found))
        else:
            sets += found
    return CircuitRuns(owner.letter, ablation, anchor, alone, tuple(sets), tuple(left_out))


def _alone(one: ComparedCircuit, ablation: AblationSpec) -> Experiment:
    """Everything outside the circuit ablated, in the manner of `ablation`."""
    if ablation.level == "node" and (problems := without_outside(one.graph, (), one.document.source)):
        raise CircuitspecError(*problems)
    return circuit_alone(ablation, one.graph, one.document.source)


def _sets(first: ComparedCircuit, second: ComparedCircuit, ablation: AblationSpec) -> list[SetRun] | str:
    """The runs about what two circuits share and do not, or why there are none."""
    match ablation.level:
        case "node":
            return _node_sets(first, second, ablation)
        case "edge":
            return _edge_sets(first, second, ablation)
        case "path":
            return "at path level circuits are sets of whole paths, of which single edges cannot be taken"


# -- node level --------------------------------------------------------------------------------------------------------


def _node_sets(first: ComparedCircuit, second: ComparedCircuit, ablation: AblationSpec) -> list[SetRun] | str:
    universe = _universe(first.graph, second.graph)
    source = ablation_source(ablation)
    found = [_spread(one.graph, ablation, universe) for one in (first, second)]
    for one in found:
        if isinstance(one, str):
            return one
    own, other = (one for one in found if not isinstance(one, str))
    always = {c: Where.everywhere() for c in universe if own.get(c, _NO) == other.get(c, _NO) == Where.everywhere()}
    always = {c: where for c, where in always.items() if _is_free(c, first.graph) and _is_free(c, second.graph)}

    def keeping(kept: Mapping[Ablatable, Where]) -> Experiment:
        return ablating(source, {c: ~kept.get(c, _NO) for c in universe})

    named = first.letter, second.letter
    return _named(named, (own, other), (own, other), always, keeping, partial(ablating, source))


def _universe(first: CircuitGraph, second: CircuitGraph) -> tuple[Ablatable, ...]:
    """The heads, MLPs, neurons and parts of dictionaries of which either says something."""
    return replace(first, members=(*first.members, *second.members), free=first.free | second.free).universe


def _is_free(component: Ablatable, graph: CircuitGraph) -> bool:
    return component in graph.free or whole_of(component) in graph.free


def _spread(graph: CircuitGraph, ablation: AblationSpec, universe: Sequence[Ablatable]) -> dict[Ablatable, Where] | str:
    """Where a circuit keeps each of the universe's components: its nodes, and what is free; an MLP that the other
    names neuron by neuron as all of its neurons. A sentence where it has parts that cannot be told so."""
    kept: dict[NodeComponent, Where] = dict(circuit_positions(ablation, graph))
    kept.update(dict.fromkeys(graph.free, Where.everywhere()))
    units: dict[object, list[Ablatable]] = {}
    for one in universe:
        units.setdefault(whole_of(one), []).append(one)
    found: dict[Ablatable, Where] = {}
    for component, where in kept.items():
        parts = units.get(component, [])
        if not parts:
            parts = [one for one in universe if one == component]
        if not parts:
            return f"{format_name(component)} is taken apart by one of them, and whole in the other"
        found.update(dict.fromkeys(parts, where))
    return found


# -- edge level --------------------------------------------------------------------------------------------------------

_Edge = tuple[Receiver, Sender]


def _edge_sets(first: ComparedCircuit, second: ComparedCircuit, ablation: AblationSpec) -> list[SetRun]:
    source, everywhere = ablation_source(ablation), ablation.positions == "all"
    shape = first.graph.shape
    edges = [edge_circuit(one.graph, one.document.source, everywhere=everywhere) for one in (first, second)]
    kept, declared = [_flat(one.kept) for one in edges], [_flat(one.declared) for one in edges]
    free, others = (_flat(outside_edges(one.graph)) for one in (first, second))
    always = {edge: where for edge, where in free.items() if others.get(edge) == where}

    def keeping(edges: Mapping[_Edge, Where]) -> Experiment:
        return edge_level.keeping(_nested(edges), source, shape)

    def without(edges: Mapping[_Edge, Where]) -> Experiment:
        return edge_level.ablating(_nested(edges), source, shape)

    named = first.letter, second.letter
    return _named(named, (kept[0], kept[1]), (declared[0], declared[1]), always, keeping, without)


def _flat(kept: Kept) -> dict[_Edge, Where]:
    return {(receiver, sender): where for receiver, by in kept.items() for sender, where in by.items()}


def _nested(edges: Mapping[_Edge, Where]) -> Kept:
    found: dict[Receiver, dict[Sender, Where]] = {}
    for (receiver, sender), where in edges.items():
        found.setdefault(receiver, {})[sender] = where
    return found


# -- sets of either ----------------------------------------------------------------------------------------------------

_NO = Where.at()
_K = TypeVar("_K", bound=Hashable)


def _named(
    letters: tuple[str, str],
    kept: tuple[Mapping[_K, Where], Mapping[_K, Where]],
    declared: tuple[Mapping[_K, Where], Mapping[_K, Where]],
    always: Mapping[_K, Where],
    keeping: Callable[[Mapping[_K, Where]], Experiment],
    without: Callable[[Mapping[_K, Where]], Experiment],
) -> list[SetRun]:
    """Runs with what both keep, what one keeps alone and what either keeps; and with what they declare, both or one
    alone, ablated in the whole model.

    `always` is kept in all of them: what is free in both. A set that is empty or one of the circuits is left out.
    """
    first, second = letters
    sets: dict[str, Callable[[Where, Where], Where]] = {
        "both": lambda a, b: a & b,
        f"only {first}": lambda a, b: a & ~b,
        f"only {second}": lambda a, b: b & ~a,
        "either": lambda a, b: a | b,
    }
    found = {what: _part(kept, of, always) for what, of in sets.items()}
    apart = all(found[f"only {letter}"] for letter in letters)  # else one circuit is a part of the other
    runs = [
        SetRun(first, second, what, keeping({**one, **always}))
        for what, one in found.items()
        if one and (apart or what.startswith("only"))
    ]
    taken = {what: _part(declared, of, always) for what, of in sets.items() if what != "either"}
    return [*runs, *(SetRun(first, second, what, without(one), taken_out=True) for what, one in taken.items() if one)]


def _part(
    pair: tuple[Mapping[_K, Where], Mapping[_K, Where]],
    of: Callable[[Where, Where], Where],
    always: Mapping[_K, Where],
) -> dict[_K, Where]:
    own, other = pair
    found = {key: of(own.get(key, _NO), other.get(key, _NO)) for key in (*own, *other) if key not in always}
    return {key: where for key, where in found.items() if not where.is_nowhere}
