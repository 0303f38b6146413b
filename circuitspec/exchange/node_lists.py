"""A circuit given by its nodes: which heads and MLPs belong to it, whatever edges join them.

EAP-IG's "neurons" of a node are the channels of what it writes to the residual stream, `d_model` of them; they are not
the hidden units of an MLP, which a hypothesis calls neurons (`m3.n42`). A hypothesis has no name for them, so that a
node can be said whole or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn, TypeAlias

import numpy as np

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.exchange.edge_lists import Cut, Mask, Scores, Size, ranked, take_largest
from circuitspec.exchange.loss import Loss, counted
from circuitspec.graph.edges import Writer, is_writer
from circuitspec.hypothesis_file.grammar.names import format_name

Level: TypeAlias = Literal["edge", "node", "neuron"]

_N_NAMED = 5  # nodes in a note


@dataclass(frozen=True, eq=False)
class NodeList:
    """The senders of a model that belong to a circuit: `kept` [senders], `input` first."""

    size: Size
    kept: Mask

    def __len__(self) -> int:
        """How many heads and MLPs."""
        return int(self.kept[1:].sum())

    @property
    def nodes(self) -> frozenset[Writer]:
        found = (self.size.senders[place] for place in np.flatnonzero(self.kept).tolist())
        return frozenset(one for one in found if is_writer(one))


@dataclass(frozen=True, eq=False)
class NodeReading:
    """What a file says of nodes, in the order of the model's senders; None for what it does not say.

    `marked` [senders] counts nodes in, `scores` [senders] ranks them (NaN: not scored); `channels` and `channel_scores`
    [senders, channels] do so for the channels of what a node writes. `closed`: the edges that the file counts in, if
    there are any, are all those between the marked nodes, so that they say nothing beyond them. `unnamed` counts the
    model's nodes that the file does not have at all.
    """

    size: Size
    marked: Mask | None
    scores: Scores | None = None
    channels: Mask | None = None
    channel_scores: Scores | None = None
    closed: bool = True
    unnamed: int = 0

    @property
    def scores_nodes(self) -> bool:
        return self.scores is not None and not bool(np.isnan(self.scores).all())

    @property
    def tells_channels(self) -> bool:
        scored = self.channel_scores is not None and not bool(np.isnan(self.channel_scores).all())
        return scored or self.channels is not None


@dataclass(frozen=True)
class NodeCut:
    """Where the user cuts: both None to take what the file marks."""

    threshold: float | None = None
    top: int | None = None
    signed: bool = False


def is_closed(edges: Mask, marked: Mask, size: Size) -> bool:
    """Whether `edges` [senders, receivers] are none, or all of those between the `marked` senders and the logits."""
    reading = np.asarray((size.owners & marked[:, None]).any(axis=0))
    reading[-1] = True
    return not edges.any() or bool((edges == (size.possible & marked[:, None] & reading)).all())


def select_nodes(
    file: Path, found: NodeReading, level: Literal["node", "neuron"], cut: NodeCut, *, whole_nodes: bool
) -> tuple[NodeList, tuple[Loss, ...]]:
    """The nodes that are to be the circuit, and what is lost of the file.

    Raises CircuitspecError: CS385 where the file does not say it, CS390 for nodes of which only some channels belong to
    it (unless `whole_nodes`), CS391 where the input does not.
    """
    noun = "node" if level == "node" else "channel"
    marks, scores = (
        (found.marked, found.scores) if level == "node" else (found.channels, found.channel_scores)
    )  # [senders], or [senders, channels]
    losses = [Loss("positions", "the file names no token positions: every node lies at all of them")]
    if cut.threshold is None and cut.top is None:
        kept = _marked(file, marks, scores, noun)
    else:
        kept, said = _cut(file, scores, cut, noun, found.unnamed)
        losses += said
    if scores is not None:
        losses.append(Loss("scores", f"how strong each {noun} was found to be is not kept"))
        if negative := int((scores[kept] < 0).sum()):
            losses.append(Loss("signs", f"{counted(negative, noun)} with a negative score kept like the others"))
    if level == "node" and found.tells_channels:
        losses.append(Loss("neurons", "what the file says of single channels is not kept: nodes are taken whole"))
    if level == "neuron":
        if cut.threshold is None and cut.top is None:
            kept, said_of_marks = _of_marked_nodes(kept, found)
            losses += said_of_marks
        kept, said_of_channels = whole(file, kept, found.size, np.ones(len(kept), bool), whole_nodes=whole_nodes)
        losses += said_of_channels
    if not found.closed:
        losses.append(Loss("edges", "which of the nodes are joined is not kept: each reads all that come before it"))
    if not kept[0]:
        _refuse_without_input(file, scores if level == "node" else None, cut)
    nodes = NodeList(found.size, kept)
    if not len(nodes):
        raise _unclear(f"no head or MLP of {file} is left", "lower --threshold, or raise --top")
    return nodes, tuple(losses)


def whole(file: Path, channels: Mask, size: Size, among: Mask, *, whole_nodes: bool) -> tuple[Mask, tuple[Loss, ...]]:
    """Which senders keep a channel [senders], of those `among` which it matters; CS390 for one that keeps only some."""
    some = np.asarray(channels.any(axis=1))
    every = np.asarray(channels.all(axis=1))
    partly = np.flatnonzero(some & ~every & among).tolist()
    if not partly:
        return some, ()
    n_kept, width = channels.sum(axis=1).tolist(), channels.shape[1]
    if not whole_nodes:
        first = format_name(size.senders[partly[0]])
        rest = f", and of {counted(len(partly) - 1, 'further node')} only some" if len(partly) > 1 else ""
        raise CircuitspecError(
            Diagnostic(
                "CS390",
                f"{file} keeps {n_kept[partly[0]]:,} of the {width:,} channels of what {first} writes to the residual "
                f"stream{rest}: a hypothesis has no name for single channels",
                hint="--whole-nodes keeps such nodes whole, which is a larger circuit than the file's",
            )
        )
    total = sum(n_kept[place] for place in partly)
    of = f"{total:,} of {len(partly) * width:,} channels"
    said = f"{counted(len(partly), 'node')} kept whole, of which the file keeps {of}"
    return some, (Loss("neurons", said),)


def cut_losses(cut: Cut, top: int | None, n_scored: int, noun: str, *, signed: bool) -> Sequence[Loss]:
    """What a cut left out by chance, and that it came out smaller than it was asked to be."""
    losses = []
    if top is not None and cut.scored < top:
        than = "above zero" if signed else "other than zero"
        has = "has" if cut.scored == 1 else "have"
        said = f"{cut.scored:,} of {counted(n_scored, noun)} {has} a score {than}: taken are these, not {top:,}"
        losses.append(Loss("scores", said))
    if cut.ties:
        said = f"{counted(cut.ties, noun)} left out that the file scores as high as the last one kept"
        losses.append(Loss("ties", f"{said}: the first in the model's order are taken"))
    return losses


def _marked(file: Path, marks: Mask | None, scores: Scores | None, noun: str) -> Mask:
    if marks is not None and marks.any():
        return marks
    if scores is not None:
        said = f"{file} scores {noun}s, and does not say which of them are the circuit"
        raise _unclear(said, "say it: --top 20, or --threshold 0.01")
    raise _unclear(f"{file} counts no {noun} in", "--level edge takes its edges")


def _of_marked_nodes(channels: Mask, found: NodeReading) -> tuple[Mask, list[Loss]]:
    """The kept channels [senders, channels] of nodes that are marked, too; all of them where the file marks no node.

    A channel belongs to a circuit only if its node does. Where EAP-IG cuts by scores it marks the nodes of what it
    keeps, so that marks of an earlier cut do not hold.
    """
    if found.marked is None or not found.marked.any():
        return channels, []
    gone = np.flatnonzero(channels.any(axis=1) & ~found.marked).tolist()
    if not gone:
        return channels, []
    names = ", ".join(format_name(found.size.senders[place]) for place in gone[:_N_NAMED])
    more = f", and {len(gone) - _N_NAMED:,} more" if len(gone) > _N_NAMED else ""
    n_lost = int(channels[gone].sum())
    said = f"{counted(n_lost, 'channel')} of nodes that the file does not count in left out: {names}{more}"
    return channels & found.marked[:, None], [Loss("neurons", said)]


def _cut(file: Path, scores: Scores | None, cut: NodeCut, noun: str, unnamed: int) -> tuple[Mask, list[Loss]]:
    """What is taken by score; what has none is kept, as EAP-IG keeps it."""
    if scores is None:
        raise _unclear(f"{file} has no scores of {noun}s to cut off at", "leave out --threshold and --top")
    if unnamed:
        said = f"{file} does not name {counted(unnamed, 'node')} of the model, and EAP-IG keeps what has no score"
        raise _unclear(said, "list every node under `nodes`: a score of 0 leaves it out")
    sizes = ranked(scores, signed=cut.signed)
    unscored = np.isnan(scores)
    if cut.top is not None:
        flat, result = take_largest(sizes.ravel(), cut.top)
        kept = flat.reshape(sizes.shape)
    else:
        kept, result = (sizes > 0) & (sizes >= (cut.threshold or 0.0)), Cut(int((sizes > 0).sum()))
    losses = list(cut_losses(result, cut.top, int((~unscored).sum()), noun, signed=cut.signed))
    if n := int(unscored.sum()):
        losses.append(
            Loss("missing", f"{counted(n, noun)} without a score kept, as EAP-IG keeps what it did not score")
        )
    return kept | unscored, losses


def _refuse_without_input(file: Path, scores: Scores | None, cut: NodeCut) -> NoReturn:
    hint = "keep the input: count it in, or leave it without a score"
    if scores is not None and cut.top is not None:
        sizes = ranked(scores, signed=cut.signed)
        if sizes[0] > 0:
            hint = f"raise --top: by its score the input is number {1 + int((sizes > sizes[0]).sum())}"
    raise CircuitspecError(
        Diagnostic(
            "CS391",
            f"the circuit in {file} leaves out the input: its nodes then compute from the corrupted prompt alone",
            hint=hint,
        )
    )


def _unclear(message: str, hint: str) -> CircuitspecError:
    return CircuitspecError(Diagnostic("CS385", message, hint=hint))
