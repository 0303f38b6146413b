"""Path patching of each declared path at node level: of every pair of items that it joins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.experiments.ablation_source import ablation_source, corrupt_prompts
from circuitspec.experiments.experiment import CLEAN_VALUES, Experiment
from circuitspec.experiments.levels import path_level
from circuitspec.experiments.planner import PathCheck
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.edge_circuit import hopless
from circuitspec.graph.paths import DeclaredPath, cuttable, everywhere, read_path
from circuitspec.hypothesis_file.grammar.names import PathExpr, format_name, format_path, parse_path
from circuitspec.hypothesis_file.schema.blocks import AblationSpec
from circuitspec.hypothesis_file.yaml.source import SourceText


def joined_pairs(graph: CircuitGraph, text: SourceText) -> tuple[DeclaredPath, ...]:
    """`A -> C<v>` and `B -> C<v>` of the line `A, B -> C<v>`: what stands beside each arrow, each pair once.

    Without pairs between which nothing can be patched (neurons, residual streams, against the order of layers).
    """
    found: dict[str, DeclaredPath] = {}
    for path in graph.paths:
        for sender, reader in parse_path(path.text).edges():
            said = format_path(PathExpr(((replace(sender, ports=()),), (reader,))))
            problems: list[Diagnostic] = []
            pair = read_path(said, graph.members, graph.shape, text, path.place, problems)
            if not (problems or cuttable(pair, text, graph.shape) or hopless(pair, graph.shape, text)):
                found.setdefault(said, pair)
    return tuple(found.values())


def path_checks(
    ablation: AblationSpec, graph: CircuitGraph, text: SourceText, anchor: Experiment
) -> tuple[PathCheck, ...]:
    """Each pair of `joined_pairs` patched alone, as a `path` claim of it would: noised, and restored where it can be.

    Everything else is frozen but for MLPs (Wang et al. 2022, appendix B). `anchor` is where ablation recovers nothing.
    """
    return tuple(_checks(joined_pairs(graph, text), ablation, graph, text, anchor))


def _checks(
    pairs: Sequence[DeclaredPath], ablation: AblationSpec, graph: CircuitGraph, text: SourceText, anchor: Experiment
) -> Iterator[PathCheck]:
    source, corrupt = ablation_source(ablation), corrupt_prompts(ablation)
    for pair in pairs:
        own = everywhere(pair) if ablation.positions == "all" else pair
        try:
            readings = path_level.along([own], graph.shape, text)
        except CircuitspecError:  # two values for one component: a claim of the pair would be refused
            continue
        ablated = path_level.travelling("clean", source, readings, [own], through=None)
        restored = before = None
        if corrupt is not None:
            restored = path_level.travelling(corrupt, CLEAN_VALUES, readings, [own], through=None)
            before = Experiment(corrupt)
        backups = {m.component for m in graph.members if m.effect == "backup"}
        sleeps = any({stop.component for stop in hop} <= backups for hop in pair.hops)
        joins = tuple(frozenset(format_name(stop.component) for stop in hop) for hop in pair.hops)
        yield PathCheck(pair.text, ablated, anchor, restored, before, sleeps, joins)


def labels_of(checks: Sequence[PathCheck]) -> Mapping[Experiment, str]:
    """The runs by the names that a `path` claim gives them."""
    found: dict[Experiment, str] = {}
    for check in checks:
        found[check.anchor] = "corrupt" if check.anchor.source is None else "all ablated"
        found[check.ablated] = f"{check.text} noised"
        if check.restored is not None and check.corrupt is not None:
            found[check.corrupt] = "corrupt"
            found[check.restored] = f"{check.text} denoised"
    return found
