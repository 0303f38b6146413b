"""What the reader of a format gives, and how named edges become an edge list."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.exchange.edge_lists import EdgeList, Scores, Size
from circuitspec.exchange.loss import Loss, counted
from circuitspec.exchange.node_lists import NodeReading
from circuitspec.graph.edges import Sender, Writer, inputs_of, is_writer, sender_index
from circuitspec.hypothesis_file.grammar.components import Head, Input, Logits
from circuitspec.hypothesis_file.grammar.names import Port
from circuitspec.hypothesis_file.schema.blocks import ModelSpec
from circuitspec.models.shapes import read_shape

MAX_SHOWN = 10
# beyond these a file is damaged or hostile: the largest open models have 126 layers of 128 heads
MAX_LAYERS = 1_000
MAX_HEADS = 1_024


@dataclass(frozen=True)
class FileReading:
    """The edges of a file, what it says beyond them, and whether it says which of them are the circuit.

    Where it does not (`decided` false), its scores must be cut off somewhere.
    """

    edges: EdgeList
    decided: bool = True
    losses: tuple[Loss, ...] = ()
    edgeless: int = 0  # nodes that the file counts in, none of whose edges it does
    unnamed: int = 0  # edges of the model that the file should name, and does not
    unscored: int = 0  # edges that the file names without a score, or with one that is no number
    nodes: NodeReading | None = None  # what it says of nodes, in a format that can


@dataclass(frozen=True)
class NamedEdge:
    """An edge by the components that it joins; `text` is how the file writes it."""

    text: str
    sender: Sender
    component: Writer | Logits
    ports: tuple[Port, ...] = ()  # of a head; none: all of its inputs
    score: float | None = None


def wrong(path: Path, faults: Sequence[str], hint: str = "") -> CircuitspecError:
    """CS383: the file's content is not what its format says; the first faults, and how many more there are."""
    found = [Diagnostic("CS383", f"{path}: {fault}", hint=hint) for fault in faults[:MAX_SHOWN]]
    if len(faults) > MAX_SHOWN:
        said = f"more errors of this kind, not shown: {len(faults) - MAX_SHOWN:,}"
        found.append(Diagnostic("CS383", said, severity="note"))
    return CircuitspecError(*found)


def checked_size(
    path: Path,
    n_layers: object,
    n_heads: object,
    d_model: object = None,
    *,
    parallel: bool = False,
    has_mlps: bool = True,
) -> Size:
    """The size that a file states; CS383 for what cannot be one."""

    def whole(value: object, what: str, at_most: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= at_most:
            raise wrong(
                path, [f"{what} is given as {shown(value)}"], f"it should be a whole number from 1 to {at_most}"
            )
        return value

    layers, heads = (
        whole(n_layers, "the number of layers", MAX_LAYERS),
        whole(n_heads, "the number of heads", MAX_HEADS),
    )
    width = None if d_model is None else whole(d_model, "the number of channels", 1_000_000)
    try:
        return Size(layers, heads, heads, width, parallel, has_mlps)
    except ValueError as error:
        raise wrong(path, [str(error)]) from None


def size_of(model: ModelSpec, base_dir: Path) -> Size | None:
    """The size of a model whose configuration is on this machine; None where it is not.

    Raises CircuitspecError: CS300 to CS315 for the model, CS386 for one of too many edges.
    """
    shape = read_shape(model, base_dir)
    try:
        return None if shape is None else Size.of(shape)
    except ValueError as error:
        raise CircuitspecError(Diagnostic("CS386", str(error))) from None


def agreed(path: Path, said: Size, known: Size | None) -> Size:
    """What the file says of the model's size, if that is the size of the model; CS386 if not."""
    if known is None:
        return said
    same = (said.n_layers, said.n_heads, said.parallel, said.has_mlps) == (
        known.n_layers,
        known.n_heads,
        known.parallel,
        known.has_mlps,
    )
    if not same or (said.d_model is not None and known.d_model is not None and said.d_model != known.d_model):
        raise CircuitspecError(
            Diagnostic(
                "CS386",
                f"{path} is of another model: it has {said}, and the model named has {known}",
                hint="name the model in which the circuit was found",
            )
        )
    return said


def edges_of(
    path: Path, named: Sequence[NamedEdge], known: Size | None, n_layers: int | None = None, whole: Size | None = None
) -> FileReading:
    """Edges given one by one, all of which are the circuit.

    The model's size is `known`, or `whole` where the file names all of the model, or else follows from the largest
    names; `n_layers` is what the file says of it. Raises CS383 for edges that the model does not have, CS386 where the
    file is of another model.
    """
    stated = known.ungrouped if known is not None else whole
    size, losses = (stated, ()) if stated is not None else _inferred(path, named, n_layers)
    if known is not None and n_layers is not None and n_layers != known.n_layers:
        said = f"{path} is of another model: it has {n_layers} layers, and the model named has {known}"
        raise CircuitspecError(Diagnostic("CS386", said, hint="name the model in which the circuit was found"))
    kept = np.zeros(size.possible.shape, bool)
    scores: Scores | None = np.full(size.possible.shape, np.nan) if any(e.score is not None for e in named) else None
    columns = {receiver: column for column, receiver in enumerate(size.receivers)}
    faults = []
    for edge in named:
        found = [columns.get(one) for one in inputs_of(edge.component, edge.ports, size.shape)]
        row = _row(edge.sender, size)
        for column in found:
            if row is None or column is None or not size.possible[row, column]:
                faults.append(f"{edge.text}: a model of {size} has no such edge")
                break
            kept[row, column] = True
            if scores is not None and edge.score is not None:
                scores[row, column] = edge.score
    if faults:
        raise wrong(path, faults, "give the model in which the circuit was found: --model, or --size LAYERSxHEADS")
    unscored = 0 if scores is None else int(np.isnan(scores[kept]).sum())
    return FileReading(EdgeList(size, kept, scores), losses=losses, unscored=unscored)


def _row(sender: Sender, size: Size) -> int | None:
    exists = sender.kind.exists(size.shape.counts, *sender.place)
    return sender_index(sender, size.shape) if exists else None


def _inferred(path: Path, named: Iterable[NamedEdge], n_layers: int | None) -> tuple[Size, tuple[Loss, ...]]:
    """The smallest model that has all components named."""
    components = [c for edge in named for c in (edge.sender, edge.component) if is_writer(c)]
    layers = n_layers or 1 + max((c.layer for c in components), default=0)
    heads = 1 + max((c.head for c in components if isinstance(c, Head)), default=0)
    size = replace(checked_size(path, layers, heads), inferred=True)
    said = f"the file does not say how large the model is: taken for {size}, after the last ones named"
    return size, (Loss("size", f"{said} (--model or --size says it)"),)


def split_input(
    edges: Iterable[tuple[str, NamedEdge]], token: str, position: str
) -> tuple[list[NamedEdge], tuple[Loss, ...]]:
    """Token and position embeddings as one input; `edges` come with the name of their sender.

    An edge from one of the two alone is kept whole, which is a loss.
    """
    whole: dict[tuple[object, ...], set[str]] = {}
    found: list[NamedEdge] = []
    for name, edge in edges:
        if isinstance(edge.sender, Input) and name in (token, position):
            seen = whole.setdefault((edge.component, edge.ports), set())
            if not seen:
                found.append(edge)
            seen.add(name)
        else:
            found.append(edge)
    halves = sum(len(seen) == 1 for seen in whole.values())
    losses = []
    if whole:
        said = "token and position embeddings are one sender, `input`"
        if halves:
            said += f"; {counted(halves, 'edge')} of one of them alone now {'carries' if halves == 1 else 'carry'} both"
        losses.append(Loss("embeddings", said))
    return found, tuple(losses)


def shown(value: object) -> str:
    """A value of a file, cropped."""
    try:
        return reprlib.repr(value)
    except ValueError:  # a number of more digits than Python prints
        return f"a {type(value).__name__} too long to print"


def number(value: float) -> float:
    """A number of a file as a score."""
    try:
        return float(value)
    except OverflowError:
        return np.inf if value > 0 else -np.inf
