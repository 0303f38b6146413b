"""What a reader of a plan or a verification should know of how the model took the file. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from circuitspec.experiments.planner import Plan
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.edges import Receiver, Writer, format_receiver, inputs_of, is_reader, owners, sharing
from circuitspec.graph.paths import DeclaredPath
from circuitspec.hypothesis_file.grammar.components import sort_key
from circuitspec.hypothesis_file.grammar.names import format_name

SHOWN = 12  # receivers named


def plan_notes(plan: Plan, graph: CircuitGraph) -> tuple[str, ...]:
    """Keys and values that query heads share, as paths enter them; names under `free` that stand for nothing here."""
    notes = [f"`{text}` under `free` stands for nothing: this model has attention only" for text in graph.unmatched]
    declared = graph.paths if plan.edges is not None else ()
    claimed = [path for claim in plan.claims for path in claim.paths]
    shape = graph.shape
    grouped = sorted({format_receiver(r, shape) for path in (*declared, *claimed) for r in _shared(path, graph)})
    if grouped:
        shared = shape.n_heads // shape.n_kv_heads
        named = ", ".join(grouped[:SHOWN]) + (", ..." if len(grouped) > SHOWN else "")
        notes.append(f"keys and values belong to kv heads, each shared by {shared} query heads: {named}")
        levels = {experiment.level for experiment in plan.experiments}
        if "edge" in levels and (others := _unnamed((*declared, *claimed), graph)):
            named = ", ".join(map(format_name, others[:SHOWN])) + (", ..." if len(others) > SHOWN else "")
            notes.append(f"an edge into a key or value acts for all heads that read it: here for {named} too")
        if "path" in levels:
            notes.append("a path into a key or value acts for the heads that it names alone")
    return tuple(notes)


def _unnamed(paths: Sequence[DeclaredPath], graph: CircuitGraph) -> list[Writer]:
    """Heads that read keys and values into which paths lead, and are named neither there nor in a group."""
    stops = {stop.component for path in paths for hop in path.hops for stop in hop}
    named = stops | {member.component for member in graph.members}
    readers = {head for path in paths for r in _shared(path, graph) for head in owners(r, graph.shape)}
    whole = {head for component in named for head in sharing(component, graph.shape)}
    return sorted(readers - named - whole, key=sort_key)


def _shared(path: DeclaredPath, graph: CircuitGraph) -> list[Receiver]:
    """The keys and values at which a path enters heads, where several of these share them."""
    if graph.shape.n_kv_heads == graph.shape.n_heads:
        return []
    shape, stops = graph.shape, [stop for hop in path.hops[1:] for stop in hop]
    inputs = [r for stop in stops if is_reader(stop.component) for r in inputs_of(stop.component, stop.ports, shape)]
    return [receiver for receiver in inputs if sharing(receiver.component, shape)]
