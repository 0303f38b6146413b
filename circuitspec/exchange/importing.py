"""A circuit file of another tool -> the text of a hypothesis that says the same."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.exchange.edge_lists import EdgeList, Size, at_least, connected, grouped, strongest
from circuitspec.exchange.exchange_formats import FORMATS, FormatName
from circuitspec.exchange.imported_text import Surroundings, hypothesis_text
from circuitspec.exchange.loss import Loss, counted
from circuitspec.exchange.node_lists import Level, NodeCut, NodeList, NodeReading, cut_losses, select_nodes, whole
from circuitspec.exchange.reading import FileReading, size_of
from circuitspec.hypothesis_file.load_file import parse_hypothesis
from circuitspec.hypothesis_file.schema.block import MetricName
from circuitspec.hypothesis_file.schema.blocks import ModelSpec
from circuitspec.hypothesis_file.yaml.source import MAX_BYTES
from circuitspec.prompts.files.prompt_files import read_prompts
from circuitspec.prompts.task_findings import TaskFindings


@dataclass(frozen=True)
class ImportOptions:
    """What the user says beyond the file."""

    threshold: float | None = None  # keep what has a score of at least this, whatever its sign
    top: int | None = None  # keep so many, those of the largest scores
    signed: bool = False  # rank by the scores as they stand, the most positive first
    level: Level | None = None  # take the file's edges, nodes or channels; None: what it scores or marks
    whole_nodes: bool = False  # keep nodes whole of which the file keeps some channels
    model: str | None = None
    size: Size | None = None  # of the model, where its configuration is not at hand
    prompts: Path | None = None
    entry: str | None = None  # which of several runs in one file
    keep_dangling: bool = False


@dataclass(frozen=True)
class Imported:
    """A hypothesis file's text, its circuit, and what the import lost or made up."""

    text: str
    circuit: EdgeList | NodeList
    losses: tuple[Loss, ...]

    @property
    def edges(self) -> EdgeList:
        """The circuit's edges; ValueError for one that is given by its nodes."""
        if not isinstance(self.circuit, EdgeList):
            raise ValueError("the circuit is given by its nodes")
        return self.circuit

    @property
    def size(self) -> str:
        """`3 edges`, `12 nodes`."""
        return counted(len(self.circuit), "edge" if isinstance(self.circuit, EdgeList) else "node")


def import_circuit(file: Path, name: FormatName, out: Path, options: ImportOptions) -> Imported:
    """The circuit in `file` as a hypothesis to be written to `out`; nothing is written here.

    Raises CircuitspecError: CS380s for the file and the options, CS300 to CS305 for the model, CS330 to CS351 for the
    prompts.
    """
    if options.entry is not None and not FORMATS[name].has_entries:
        said = f"{file} holds one circuit, as every {FORMATS[name].title} does: there is no entry {options.entry!r}"
        raise CircuitspecError(Diagnostic("CS385", said, hint="leave out --entry"))
    if options.signed and options.threshold is None and options.top is None:
        raise CircuitspecError(
            Diagnostic("CS385", "there is nothing to rank by sign", hint="give --top or --threshold beside --signed")
        )
    at_hand = None if options.model is None else size_of(ModelSpec(id=options.model), out.parent)
    known = at_hand or options.size
    reading = FORMATS[name].read(file, known, options.entry)
    circuit, losses = _selected(file, reading, options)
    if isinstance(circuit, EdgeList) and known is not None and known.n_kv_heads < known.n_heads:
        circuit, added = grouped(circuit, known.n_kv_heads)
        if added:
            said = f"heads share keys and values: {counted(added, 'edge')} of heads added that another of the group has"
            losses += (Loss("sharing", said),)
    around, made_up = _surroundings(file, name, out, options)
    losses += made_up
    if at_hand is None and circuit.size.is_told_whole:
        around = replace(around, size=str(circuit.size.told))
    text = hypothesis_text(circuit, around, losses)
    if len(text.encode()) > MAX_BYTES:
        raise CircuitspecError(
            Diagnostic(
                "CS388",
                f"{counted(len(circuit), 'edge')} make a hypothesis of {len(text.encode()) / 1e6:.1f} MB",
                hint=f"keep fewer, with --top or --threshold: a hypothesis holds at most {MAX_BYTES / 1e6:.0f} MB",
            )
        )
    parse_hypothesis(text, str(out), out.parent)
    return Imported(text, circuit, losses)


def _selected(file: Path, reading: FileReading, options: ImportOptions) -> tuple[EdgeList | NodeList, tuple[Loss, ...]]:
    """What is to be the circuit, and what is lost of the file so far."""
    level = options.level or _level(reading)
    if level == "edge":
        return _selected_edges(file, reading, options)
    if reading.nodes is None:
        said = f"{file} holds edges alone, as every file of its format: there are no {level}s to take"
        raise CircuitspecError(Diagnostic("CS385", said, hint="leave out --level"))
    cut = NodeCut(options.threshold, options.top, options.signed)
    return select_nodes(file, reading.nodes, level, cut, whole_nodes=options.whole_nodes)


def _level(reading: FileReading) -> Level:
    """What a file is about: its edges if these say anything that its nodes do not."""
    nodes, scores = reading.nodes, reading.edges.scores
    if nodes is None or not nodes.closed or (scores is not None and np.nan_to_num(scores).any()):
        return "edge"
    if nodes.tells_channels:
        return "neuron"
    marks_nodes = nodes.marked is not None and nodes.marked[1:].any() and not len(reading.edges)
    return "node" if nodes.scores_nodes or marks_nodes else "edge"


def _selected_edges(file: Path, reading: FileReading, options: ImportOptions) -> tuple[EdgeList, tuple[Loss, ...]]:
    """The edges that are to be the circuit, and what is lost of the file so far."""
    losses = [Loss("positions", "the file names no token positions: every edge lies at all of them"), *reading.losses]
    if any(loss.kind == "positions" for loss in reading.losses):
        del losses[0]
    edges = reading.edges
    if reading.unnamed:
        said = f"{counted(reading.unnamed, 'edge')} that the file does not name, taken as left out"
        losses.append(Loss("missing", said))
    cut = options.threshold is not None or options.top is not None
    if cut and edges.scores is None:
        said = f"{file} has no scores to cut off at"
        raise CircuitspecError(
            Diagnostic("CS385", said, hint="leave out --threshold and --top: all of its edges are meant")
        )
    if not cut and not reading.decided:
        said = f"{file} scores edges, and does not say which of them are the circuit"
        raise CircuitspecError(Diagnostic("CS385", said, hint="say it: --top 200, or --threshold 0.01"))
    if cut and reading.unscored:
        losses.append(Loss("missing", f"{counted(reading.unscored, 'edge')} without a score left out"))
    if options.threshold is not None:
        edges, _ = at_least(edges, options.threshold, signed=options.signed)
    elif options.top is not None:
        edges, result = strongest(edges, options.top, signed=options.signed)
        n_scored = int(edges.size.possible.sum()) - reading.unnamed - reading.unscored
        losses += cut_losses(result, options.top, n_scored, "edge", signed=options.signed)
    losses += _scores_lost(edges)
    edges, said_of_channels = _with_channels(edges, reading.nodes, cut=cut)
    losses += said_of_channels
    before = edges
    if not options.keep_dangling:
        edges = connected(before)
        losses += _dangling(before, edges, 0 if cut else reading.edgeless)
    if not len(edges):
        said = f"no edge of {file} is left" if cut else f"{file} counts no edge in"
        hint = "lower --threshold, or raise --top" if cut else "take those of the largest scores: --top 200"
        if edges.scores is None:
            hint = "save the circuit again with the tool that found it: this file has neither edges nor scores"
        elif cut and not np.nan_to_num(edges.scores).any():
            said, hint = f"every edge of {file} has the score 0", "take what else the file scores: --level node"
            if reading.nodes is None:
                hint = "save the scores again with the tool that found them"
        if len(before):
            said = f"none of the {counted(len(before), 'edge')} of {file} lies on a way from the input to the logits"
            hint = "--keep-dangling keeps them all the same"
        raise CircuitspecError(Diagnostic("CS385", said, hint=hint))
    if not cut and reading.nodes is not None and reading.nodes.channels is not None:
        writing = np.asarray(edges.kept.any(axis=1))
        _, said_of_nodes = whole(file, reading.nodes.channels, edges.size, writing, whole_nodes=options.whole_nodes)
        losses += said_of_nodes
    return edges, tuple(losses)


def _with_channels(edges: EdgeList, nodes: NodeReading | None, *, cut: bool) -> tuple[EdgeList, Sequence[Loss]]:
    """Without the edges of nodes that keep none of their channels, unless these were scored anew."""
    if nodes is None or nodes.channels is None:
        return edges, ()
    if cut:
        return edges, [Loss("neurons", "which channels the file keeps of a node does not hold for this cut")]
    some = np.asarray(nodes.channels.any(axis=1))
    kept = edges.kept & some[:, None]
    gone = len(edges) - int(kept.sum())
    said = [Loss("neurons", f"{counted(gone, 'edge')} of nodes that keep no channel left out")] if gone else []
    return replace(edges, kept=kept), said


def _scores_lost(edges: EdgeList) -> Sequence[Loss]:
    if edges.scores is None:
        return ()
    kept = edges.scores[edges.kept]
    losses = [Loss("scores", "how strong each edge was found to be is not kept")]
    if negative := int((kept < 0).sum()):
        losses.append(Loss("signs", f"{counted(negative, 'edge')} with a negative score kept like the others"))
    return losses


def _dangling(whole: EdgeList, edges: EdgeList, edgeless: int) -> Sequence[Loss]:
    dropped, nodes = len(whole) - len(edges), len(whole.nodes - edges.nodes)
    losses = []
    if dropped:
        said = f"{counted(dropped, 'edge')} on no way from the input to the logits left out"
        said += f", and so {counted(nodes, 'component')}" if nodes else ""
        losses.append(Loss("dangling", f"{said} (--keep-dangling keeps them)"))
    if edgeless:
        losses.append(Loss("dangling", f"{counted(edgeless, 'node')} that the file counts in without an edge left out"))
    return losses


def _surroundings(
    file: Path, name: FormatName, out: Path, options: ImportOptions
) -> tuple[Surroundings, tuple[Loss, ...]]:
    """Model and prompts, and what had to be made up for want of them."""
    losses = [Loss("roles", "groups are by kind of component, and say nothing of roles or signs")]
    if options.model is None:
        losses.append(Loss("model", "not named in the file: a placeholder stands for it (--model names it)"))
    corruption: str | None = "corrupt"
    metric: MetricName = "logit_diff"
    prompts = None
    if options.prompts is None:
        losses.append(Loss("prompts", "not in the file: a placeholder stands for them (--prompts names a file)"))
    else:
        found = read_prompts(options.prompts, TaskFindings())
        corruption = next(iter(found.corruptions), None)
        first = found.prompts[0]
        metric = "logit_diff" if first.answers and first.wrong else "logprob" if first.answers else "kl"
        prompts = Path(os.path.relpath(options.prompts, out.parent)).as_posix()
        if len(found.corruptions) > 1:
            losses.append(Loss("ablation", f"from `{corruption}`, the first of {', '.join(found.corruptions)}"))
    if options.prompts is None or corruption is not None:
        losses.append(Loss("ablation", "taken to be the other prompt's values (resample)"))
    else:
        losses.append(Loss("ablation", "taken to be zero: the prompts have no corruption"))
    losses.append(Loss("claims", "the file claims nothing: one is made up, with a bound of 0.8"))
    stem = out.name.removesuffix(".yaml").removesuffix(".circuit") or "imported"
    origin = f"{file.name} ({FORMATS[name].title})"
    return Surroundings(stem, origin, options.model, prompts, corruption, metric), tuple(losses)
