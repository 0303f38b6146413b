"""A circuit as other tools store it: which edges between heads and MLPs belong to it, and how each was scored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.exchange.loss import counted
from circuitspec.graph.edges import (
    Receiver,
    Sender,
    Writer,
    is_writer,
    owners,
    receivers,
    sender_index,
    senders,
    senders_before,
)
from circuitspec.graph.shape import ModelShape
from circuitspec.hypothesis_file.grammar.components import KvHead
from circuitspec.hypothesis_file.grammar.model_size import ModelSize

MAX_CELLS = 100_000_000  # senders times receivers; 80 layers of 64 heads have 80 million

Mask: TypeAlias = npt.NDArray[np.bool_]
Scores: TypeAlias = npt.NDArray[np.float64]
Edge: TypeAlias = tuple[Sender, Receiver]
"""Who writes to the residual stream, and who reads it there; the receiver names its input (q, k, v)."""


@dataclass(frozen=True)
class Size:
    """As much of a model's size as its edges depend on.

    `inferred`: taken from the names that occur in a file, so that the model may be larger.
    """

    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int | None = None
    parallel: bool = False  # attention and MLP of a block read the same stream
    has_mlps: bool = True
    inferred: bool = False

    def __post_init__(self) -> None:
        cells = (1 + self.n_layers * (self.n_heads + 1)) * (1 + self.n_layers * (3 * self.n_heads + 1))
        if cells > MAX_CELLS:
            raise ValueError(f"a model of {self} has too many edges to be listed")

    @classmethod
    def parse(cls, text: str) -> Size:
        """`12x12` (layers, heads), `12x12x768` (and channels), `32x32x4096-parallel`; ValueError for anything else."""
        said = ModelSize.parse(text)
        return cls(said.n_layers, said.n_heads, said.n_heads, said.d_model, said.parallel)

    @property
    def told(self) -> ModelSize:
        """What of it a hypothesis and `--size` can state."""
        return ModelSize(self.n_layers, self.n_heads, self.d_model, self.parallel)

    @property
    def is_told_whole(self) -> bool:
        """Whether `told` leaves nothing out, and is not a guess."""
        return self.has_mlps and self.n_kv_heads == self.n_heads and not self.inferred

    @classmethod
    def of(cls, shape: ModelShape) -> Size:
        """The size of a model whose configuration is known; CS322 for one with layers without heads."""
        if shape.mixers:
            where = ", ".join(f"a{layer}" for layer in sorted(shape.mixers))
            raise CircuitspecError(
                Diagnostic(
                    "CS322",
                    f"the model has mixers in place of heads ({where}), for which other tools' files have no words",
                    hint="write the hypothesis by hand, or let `circuitspec explore` draft it: aN names a mixer",
                )
            )
        parallel = not shape.has_resid_mid
        return cls(shape.n_layers, shape.n_heads, shape.n_kv_heads, shape.d_model, parallel, shape.has_mlps)

    @cached_property
    def shape(self) -> ModelShape:
        """The same as the model graph wants it; what edges do not depend on is left at zero."""
        return ModelShape(
            family="",
            n_layers=self.n_layers,
            n_heads=self.n_heads,
            n_kv_heads=self.n_kv_heads,
            d_model=self.d_model or 0,
            d_head=0,
            d_mlp=int(self.has_mlps),
            n_vocab=0,
            has_resid_mid=not self.parallel,
        )

    @cached_property
    def senders(self) -> tuple[Sender, ...]:
        """In the order in which they write."""
        return senders(self.shape)

    @cached_property
    def receivers(self) -> tuple[Receiver, ...]:
        """In the order in which they read: of each layer queries, keys, values, MLP; then the logits."""
        return receivers(self.shape)

    @cached_property
    def possible(self) -> Mask:
        """[senders, receivers]: which edges the model has."""
        before = np.array([senders_before(receiver, self.shape) for receiver in self.receivers])
        mask: Mask = np.arange(len(self.senders))[:, None] < before
        return mask

    @cached_property
    def owners(self) -> Mask:
        """[senders, receivers]: which senders compute from what a receiver reads."""
        mask = np.zeros((len(self.senders), len(self.receivers)), bool)
        for column, receiver in enumerate(self.receivers):
            for owner in owners(receiver, self.shape):
                mask[sender_index(owner, self.shape), column] = True
        return mask

    @property
    def ungrouped(self) -> Size:
        """With a key and a value input for every head."""
        return replace(self, n_kv_heads=self.n_heads)

    def __str__(self) -> str:
        width = f", {self.d_model} channels" if self.d_model else ""
        order = ", parallel blocks" if self.parallel else ""
        kv = f" ({self.n_kv_heads} key-value heads)" if self.n_kv_heads != self.n_heads else ""
        return f"{counted(self.n_layers, 'layer')} of {counted(self.n_heads, 'head')}{kv}{width}{order}"


@dataclass(frozen=True, eq=False)
class EdgeList:
    """A set of a model's edges.

    `kept` [senders, receivers] is true where an edge belongs to the circuit. `scores` [senders, receivers], where
    the file has them, holds every edge's score: zero where there is no edge, NaN where it was not scored.
    """

    size: Size
    kept: Mask
    scores: Scores | None = None

    def __post_init__(self) -> None:
        wanted = (len(self.size.senders), len(self.size.receivers))
        if self.kept.shape != wanted or (self.scores is not None and self.scores.shape != wanted):
            raise ValueError(f"edges of {wanted[0]} senders and {wanted[1]} receivers are expected")
        if (self.kept & ~self.size.possible).any():
            raise ValueError("an edge is kept that the model does not have")
        self.kept.setflags(write=False)

    def __len__(self) -> int:
        return int(self.kept.sum())

    @property
    def edges(self) -> frozenset[Edge]:
        """The edges of the circuit."""
        rows, columns = np.nonzero(self.kept)
        found = zip(rows.tolist(), columns.tolist(), strict=True)
        return frozenset((self.size.senders[row], self.size.receivers[column]) for row, column in found)

    @property
    def nodes(self) -> frozenset[Writer]:
        """Heads and MLPs with an edge of the circuit, in or out; of shared keys and values, all heads that share."""
        writes, reads = self.kept.any(axis=1), (self.size.owners & self.kept.any(axis=0)).any(axis=1)
        used = np.flatnonzero(writes | reads).tolist()
        found = (self.size.senders[place] for place in used)
        return frozenset(one for one in found if is_writer(one))


def edge_list(size: Size, edges: Iterable[tuple[Sender, Receiver]]) -> EdgeList:
    """The circuit of these edges; ValueError for one that the model does not have."""
    column_of = {receiver: column for column, receiver in enumerate(size.receivers)}
    kept = np.zeros(size.possible.shape, bool)
    for sender, receiver in edges:
        if receiver not in column_of or sender not in size.senders:
            raise ValueError("an edge is kept that the model does not have")
        kept[sender_index(sender, size.shape), column_of[receiver]] = True
    return EdgeList(size, kept)


@dataclass(frozen=True)
class Cut:
    """How a cut by score came about."""

    scored: int  # how many have a score that can be taken: other than zero, and with signed scores above it
    ties: int = 0  # left out although they are scored as high as the last one taken


def at_least(edges: EdgeList, threshold: float, *, signed: bool = False) -> tuple[EdgeList, Cut]:
    """The edges whose score is `threshold` or more in size, or as it stands where `signed`; none of score zero.

    ValueError without scores.
    """
    sizes = _sizes(edges, signed=signed)
    return EdgeList(edges.size, (sizes > 0) & (sizes >= threshold), edges.scores), Cut(int((sizes > 0).sum()))


def strongest(edges: EdgeList, count: int, *, signed: bool = False) -> tuple[EdgeList, Cut]:
    """The `count` edges of the largest scores, whatever their sign, or of the most positive ones where `signed`.

    None of score zero is taken, so that fewer may come. Ties are broken by the order of senders and receivers;
    ValueError without scores.
    """
    sizes = _sizes(edges, signed=signed)
    kept, cut = take_largest(sizes.ravel(), count)
    return EdgeList(edges.size, kept.reshape(edges.kept.shape), edges.scores), cut


def take_largest(sizes: Scores, count: int) -> tuple[Mask, Cut]:
    """Which are the `count` largest of `sizes` [any], none of zero or less; the first where several are equal."""
    order = np.argsort(-sizes, kind="stable")[:count]
    order = order[sizes[order] > 0]
    kept: Mask = np.zeros(sizes.shape, bool)
    kept[order] = True
    last = sizes[order[-1]] if len(order) else np.inf
    return kept, Cut(int((sizes > 0).sum()), int(((sizes == last) & ~kept).sum()))


def connected(edges: EdgeList) -> EdgeList:
    """The edges that lie on a way of kept edges from the input to the logits."""
    size, kept = edges.size, edges.kept
    reached = np.zeros(len(size.senders), bool)
    reached[0] = True
    for node in range(1, len(reached)):
        incoming = kept[:, size.owners[node]]
        reached[node] = (incoming & reached[:, None]).any()
    live: Mask = np.zeros(len(size.receivers), bool)
    live[-1] = True
    heard = np.zeros(len(size.senders), bool)
    for node in reversed(range(len(heard))):
        heard[node] = (kept[node] & live).any()
        if heard[node]:
            live |= size.owners[node]
    good = reached & heard
    reading: Mask = (size.owners & good[:, None]).any(axis=0) | (np.arange(len(live)) == len(live) - 1)
    return replace(edges, kept=kept & good[:, None] & reading)


def ungrouped(edges: EdgeList) -> EdgeList:
    """The same edges with a key and a value input for every head, each with the edges of the one that it shares."""
    if edges.size.n_kv_heads == edges.size.n_heads:
        return edges
    size = edges.size.ungrouped
    columns = _shared_columns(size, edges.size)
    scores = None if edges.scores is None else edges.scores[:, columns]
    return EdgeList(size, edges.kept[:, columns], scores)


def grouped(edges: EdgeList, n_kv_heads: int) -> tuple[EdgeList, int]:
    """The same with keys and values that heads share, and how many edges of single heads that adds.

    A shared input keeps an edge if any of its heads does. Scores are left behind.
    """
    if edges.size.n_kv_heads == n_kv_heads:
        return edges, 0
    size = replace(edges.size, n_kv_heads=n_kv_heads)
    columns = _shared_columns(edges.size, size)
    kept = np.zeros(size.possible.shape, bool)
    for column, shared in enumerate(columns):
        kept[:, shared] |= edges.kept[:, column]
    return EdgeList(size, kept), int((kept[:, columns] & ~edges.kept).sum())


def _shared_columns(single: Size, shared: Size) -> npt.NDArray[np.intp]:
    """For each receiver of a model of single heads the one that it is where keys and values are shared."""
    group = single.n_heads // shared.n_kv_heads
    column_of = {one: column for column, one in enumerate(shared.receivers)}
    found = []
    for one in single.receivers:
        if isinstance(one.component, KvHead):
            one = Receiver(KvHead(one.component.layer, one.component.head // group), one.port)
        found.append(column_of[one])
    return np.array(found)


def ranked(scores: Scores, *, signed: bool) -> Scores:
    """What scores are ranked by: their size, or with `signed` themselves; less than zero where there is none."""
    found: Scores = np.where(np.isnan(scores), -1.0, scores if signed else np.abs(scores))
    return found


def _sizes(edges: EdgeList, *, signed: bool) -> Scores:
    """As `ranked`; -1 where there is no edge."""
    if edges.scores is None:
        raise ValueError("the edges have no scores")
    sizes: Scores = np.where(edges.size.possible, ranked(edges.scores, signed=signed), -1.0)
    return sizes
