"""A hypothesis -> a circuit file of another tool: its paths as edges."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.exchange.edge_lists import EdgeList, Size, ungrouped
from circuitspec.exchange.exchange_formats import FORMATS, FormatName
from circuitspec.exchange.loss import Loss, counted
from circuitspec.exchange.reading import size_of
from circuitspec.graph.circuit_graph import CircuitGraph, lay_out
from circuitspec.graph.dictionary_nodes import names_features
from circuitspec.graph.edge_circuit import Kept, edge_circuit
from circuitspec.graph.edges import sender_index
from circuitspec.graph.nodes import Place
from circuitspec.hypothesis_file.grammar.components import Component, Input, Pattern, Range, wholes_of
from circuitspec.hypothesis_file.grammar.names import Name, format_name, parse_name, parse_path
from circuitspec.hypothesis_file.load_file import Document


@dataclass(frozen=True)
class Exported:
    """A file's content, its edges, and what the export lost or made up."""

    content: bytes
    edges: EdgeList
    losses: tuple[Loss, ...]


def export_circuit(document: Document, name: FormatName, out: Path, size: Size | None = None) -> Exported:
    """The edges that a hypothesis keeps, to be written to `out`; nothing is written here.

    `size` is the model's, needed where its configuration is not on this machine and the hypothesis does not state it
    (`model.size`). Raises CircuitspecError: CS386 without it, and where the two differ, CS389 for a hypothesis without
    edges or with single neurons, and for a file name that the format's tool does not read, CS575 for one with features
    of dictionaries, CS220 to CS227 for a circuit that the model cannot have.
    """
    _check_suffix(name, out)
    _check_features(document)
    _check_neurons(document)
    size = _size(document, size)
    graph = lay_out(document.hypothesis.circuit, size.shape, document.source)
    everywhere = document.hypothesis.ablation.positions == "all"
    circuit = edge_circuit(graph, document.source, everywhere=everywhere)
    kept = circuit.kept if circuit.free else circuit.declared
    edges = _edges(kept, size)
    if not circuit.n_declared:
        raise CircuitspecError(
            Diagnostic(
                "CS389",
                "the circuit declares no paths, and so no edges that could be exported",
                document.source.span(("circuit",), key=True),
                hint="say how its components are joined: paths: [input -> a0.h1, a0.h1 -> logits]",
            )
        )
    flat = ungrouped(edges)
    content, written = FORMATS[name].write(flat, out)
    return Exported(content, flat, (*_lost(document, graph, circuit.n_declared, kept, edges), *written))


def _check_suffix(name: FormatName, out: Path) -> None:
    suffixes = FORMATS[name].suffixes
    if out.suffix.lower() not in suffixes:
        raise CircuitspecError(
            Diagnostic(
                "CS389",
                f"{out} would not be known as {FORMATS[name].title} by its name",
                hint=f"let it end in {' or '.join(suffixes)}",
            )
        )


def names_of_circuit(document: Document) -> list[tuple[Name, Place]]:
    """Every component that the groups, `free` and paths of a circuit name, and where."""
    circuit = document.hypothesis.circuit
    named: list[tuple[Name, Place]] = []
    for group, block in circuit.groups.items():
        named += [(parse_name(text), ("circuit", "groups", group, "nodes", i)) for i, text in enumerate(block.nodes)]
    named += [(parse_name(text), ("circuit", "free", i)) for i, text in enumerate(circuit.free)]
    for i, path in enumerate(circuit.paths):
        items = (item for hop in parse_path(path).hops for item in hop if isinstance(item, Name))
        named += [(item, ("circuit", "paths", i)) for item in items]
    return named


def _check_features(document: Document) -> None:
    """CS575 for features of dictionaries in the circuit, of which the formats of heads and MLPs have no word."""
    problems = [
        Diagnostic(
            "CS575",
            f"{format_name(name.target)} is of a dictionary, and the format holds heads and MLPs whole",
            document.source.span(place),
            hint="write the features of a circuit --as feature-list or --as attribution-graph",
        )
        for name, place in names_of_circuit(document)
        if names_features(name.target)
    ]
    if problems:
        raise CircuitspecError(*problems)


def _check_neurons(document: Document) -> None:
    """CS389 for neurons in the circuit, of which the formats have no word."""
    problems = [
        Diagnostic(
            "CS389",
            f"{format_name(name.target)} is part of an MLP, and the formats hold MLPs whole",
            document.source.span(place),
            hint=f"write its MLP: {format_name(whole)}",
        )
        for name, place in names_of_circuit(document)
        if (whole := _mlp_of(name.target)) is not None
    ]
    if problems:
        raise CircuitspecError(*problems)


def _mlp_of(target: Component | Pattern) -> Component | Pattern | None:
    """The MLP of a neuron, or those of several; None for what is no neuron."""
    kind = target.kind.part_of
    if kind is None:
        return None
    if not isinstance(target, Pattern):
        return wholes_of(target)[-1]
    layers = target.layers
    while kind.part_of is not None:
        kind = kind.part_of
    return Pattern(kind, layers) if isinstance(layers, Range) else wholes_of(target.at_layer(layers))[-1]


def _size(document: Document, given: Size | None) -> Size:
    with document.blamed_on("model", "id"):
        known = size_of(document.hypothesis.model, document.base_dir)
    if known is not None:
        return known
    stated = None if document.hypothesis.model.size is None else Size.parse(document.hypothesis.model.size)
    if stated is not None and given is not None:
        if not stated.told.agrees_with(given.told):
            raise CircuitspecError(
                Diagnostic(
                    "CS386",
                    f"--size {given.told} is not what the hypothesis states: {stated.told}",
                    document.source.span(("model", "size")),
                    hint="leave out --size, or correct `model.size`",
                )
            )
        return given if given.d_model is not None else stated
    given = given or stated
    if given is None:
        raise CircuitspecError(
            Diagnostic(
                "CS386",
                "the model's configuration is not on this machine, so that its layers and heads are not known",
                document.source.span(("model", "id")),
                hint="give its size (layers, heads, channels): `size: 12x12x768` under `model`, or --size 12x12x768",
            )
        )
    return given


def _edges(kept: Kept, size: Size) -> EdgeList:
    columns = {receiver: column for column, receiver in enumerate(size.receivers)}
    mask = np.zeros(size.possible.shape, bool)
    for receiver, by_sender in kept.items():
        mask[[sender_index(sender, size.shape) for sender in by_sender], columns[receiver]] = True
    return EdgeList(size, mask)


def _lost(document: Document, graph: CircuitGraph, n_declared: int, kept: Kept, edges: EdgeList) -> tuple[Loss, ...]:
    hypothesis = document.hypothesis
    losses = []
    placed = sum(not where.is_everywhere for by_sender in kept.values() for where in by_sender.values())
    if placed:
        losses.append(
            Loss("positions", f"{counted(placed, 'edge')} kept at some token positions now lie at all of them")
        )
    losses.append(Loss("roles", f"the groups {', '.join(hypothesis.circuit.groups)} are not named"))
    signed = [name for name, group in hypothesis.circuit.groups.items() if group.effect != "positive"]
    if signed:
        losses.append(Loss("signs", f"that {', '.join(signed)} are negative or backup components is not said"))
    if graph.free:
        extra = len(edges) - n_declared
        said = f"there is no `free`: {counted(extra, 'edge')} of the free components are written as part of the circuit"
        losses.append(Loss("free", said))
    joined = {*edges.nodes, Input()} if edges.kept[0].any() else edges.nodes
    silent = sorted({m.group for m in graph.members if m.component not in joined})
    if silent:
        losses.append(Loss("dangling", f"members of {', '.join(silent)} that no path names are left out"))
    if hypothesis.ablation.level != "edge":
        said = (
            f"the hypothesis ablates at {hypothesis.ablation.level} level; its paths are written as edges that are kept"
        )
        losses.append(Loss("ablation", said))
    if edges.size.n_kv_heads < edges.size.n_heads:
        losses.append(Loss("sharing", "keys and values that heads share are written once for each of the heads"))
    rest = f"model {hypothesis.model.id}, prompts, ablation and {counted(len(hypothesis.claims), 'claim')}"
    losses.append(Loss("claims", f"{rest} are not written"))
    return tuple(losses)
