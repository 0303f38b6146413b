"""The runs that are about the whole circuit: kept alone, ablated, and everything ablated."""

from __future__ import annotations

from dataclasses import dataclass

from circuitspec.experiments.ablation_source import ablation_source
from circuitspec.experiments.experiment import Experiment, Source
from circuitspec.experiments.levels import edge_level, node_level, path_level
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.edge_circuit import EdgeCircuit, edge_circuit, outside_edges
from circuitspec.graph.paths import DeclaredPath, everywhere
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.schema.blocks import AblationSpec
from circuitspec.hypothesis_file.yaml.source import SourceText


@dataclass(frozen=True)
class Whole:
    """The runs of claims about the whole circuit; `edges` are what edge level keeps (at path level: those of paths).

    `overruled` are components into which paths lead that add nothing (path level).
    """

    circuit: Experiment  # everything outside it ablated
    knocked_out: Experiment
    all_ablated: Experiment
    edges: EdgeCircuit | None = None
    overruled: tuple[str, ...] = ()


def whole_circuit(ablation: AblationSpec, graph: CircuitGraph, text: SourceText) -> Whole:
    """What is ablated for claims about the whole circuit, by the level of the ablation.

    Raises CS226 to CS229 where the paths cannot be patched as the level asks.
    """
    source = ablation_source(ablation)
    if ablation.level == "node":
        kept = node_level.circuit_positions(ablation, graph)
        return Whole(
            circuit_alone(ablation, graph, text),
            node_level.ablating(source, kept),
            node_level.ablating(source, {c: Where.everywhere() for c in graph.claimed}),
        )
    edges = edge_circuit(graph, text, everywhere=ablation.positions == "all")
    if ablation.level == "edge":
        return Whole(
            edge_level.keeping(edges.kept, source, graph.shape, graph.measured),
            edge_level.ablating(edges.declared, source, graph.shape, graph.measured),
            edge_level.keeping(outside_edges(graph), source, graph.shape, graph.measured),
            edges,
        )
    paths, through = _paths(ablation, graph), ablation.through
    nothing = path_level.nothing_kept(source, paths, through)
    along = _along(ablation, graph, text, keep=False)
    overruled = path_level.overruled(paths, graph.shape)
    return Whole(circuit_alone(ablation, graph, text), along, nothing, edges, overruled)


def circuit_alone(ablation: AblationSpec, graph: CircuitGraph, text: SourceText) -> Experiment:
    """The run in which everything outside the circuit is ablated. Raises as `whole_circuit` does."""
    source = ablation_source(ablation)
    match ablation.level:
        case "node":
            kept = node_level.circuit_positions(ablation, graph)
            return node_level.ablating(source, {c: ~kept.get(c, Where.at()) for c in graph.claimed})
        case "edge":
            edges = edge_circuit(graph, text, everywhere=ablation.positions == "all")
            return edge_level.keeping(edges.kept, source, graph.shape, graph.measured)
        case "path":
            return _along(ablation, graph, text, keep=True)


def _along(ablation: AblationSpec, graph: CircuitGraph, text: SourceText, *, keep: bool) -> Experiment:
    paths = _paths(ablation, graph)
    readings = path_level.path_set(paths, graph.shape, text)
    source = ablation_source(ablation)
    return path_level.travelling("clean", source, readings, paths, through=ablation.through, keep=keep)


def _paths(ablation: AblationSpec, graph: CircuitGraph) -> list[DeclaredPath]:
    return [everywhere(path) if ablation.positions == "all" else path for path in graph.paths]


def anchor_of(source: Source, whole: Whole) -> Experiment:
    """Where ablation recovers nothing: the corrupt prompts' run, or with other values the run with all ablated."""
    if source.is_run and source.prompts is not None:
        return Experiment(source.prompts)
    return whole.all_ablated
