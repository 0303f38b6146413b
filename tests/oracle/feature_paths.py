"""Paths on which features of dictionaries stand, written from the definition.

A *book* is a dictionary: the place whose value x it takes apart, and what it says of it, x = sum of w_j d_j + the rest.

On a hop from some senders to some readers, one pass of the base prompt is made. All heads, and MLPs unless they are let
through, have their values of the base run; so has w_j of every feature that stands on the path, wherever its place
changes: (w_j - w_j(x)) d_j is added to what arrives there. Senders have their new values. Where an MLP is frozen, what
it adds has the features of the base run, and (w_j' - w_j) d_j is added to it. What a feature reads is the stream just
before its own place, or (a transcoder) what enters the MLP.

A feature in the middle of a path sends the weight that it has of what it reads so. One at the end of a path has this
weight in the base prompt's run, in which everything later is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from . import families
from .edge_circuit import chosen_inputs
from .families import Net
from .metrics import Array
from .node import Component, Run, Values, forward, nodes, written

FeatureOf: TypeAlias = tuple[str, int]
"""A book's name, and the number of a feature in it."""

Stop: TypeAlias = tuple[Any, "Collection[str] | None", Collection[int]]
"""A component, or ``("feature", name, number)``; the ports by which it is entered (``None``: all); where it acts."""


@dataclass(frozen=True)
class Book:
    """site: the place, ``("resid", layer, "pre" or "mid")``, ``("attn", layer)`` or ``("mlp_added", layer)``.

    weights: vectors ``[pos, d]`` -> ``[pos, feature]``. decoder: ``[feature, d]``.
    """

    site: Component
    weights: Callable[[Array], Array]
    decoder: Array
    reads_input: bool = False

    @property
    def order(self) -> int:
        kinds = {"pre": 0, "attn": 1, "mid": 2, "mlp_added": 3}
        return 4 * int(self.site[1]) + kinds[self.site[-1] if self.site[0] == "resid" else self.site[0]]

    def of(self, net: Net, run: Run) -> Array:
        """All weights in a run, ``[pos, feature]``; of the stream as it is before a patch of this very place."""
        if not self.reads_input:
            return self.weights(run.values[self.site].numpy())
        layer = self.site[1]
        norm, entering = net.layers[layer].pre_mlp, run.reads["mlp_in", layer]
        return self.weights((entering if norm is None else norm(entering)).numpy())

    def changed(self, run: Run, now: Array, then: Mapping[int, Array]) -> dict[tuple[Component, int], Tensor]:
        """The value of a run in which features (by number) go from the weights ``now`` to those of ``then``."""
        value = run.values[self.site].numpy().copy()
        for number, weight in then.items():
            value += (weight - now[:, number])[:, None] * self.decoder[number]
        return {(self.site, p): torch.from_numpy(row) for p, row in enumerate(value)}


@dataclass(frozen=True)
class Hop:
    """One pass: the run, and what features read in it, by book."""

    run: Run
    seen: Mapping[str, Array]


def hop(
    net: Net,
    ids: Sequence[int],
    books: Mapping[str, Book],
    new: Mapping[tuple[Component, int], Tensor],
    weights: Mapping[FeatureOf, Array],
    frozen_mlps: Collection[int],
) -> Hop:
    """``weights`` are those of all features on the path, ``[pos]`` each: sent, or as in the base run."""
    base = forward(net, ids, record=True)
    patches: dict[tuple[Component, int], Tensor] = {}
    for component in nodes(net):
        if component[0] == "head" or component[1] in frozen_mlps:
            own = written(net, component)
            patches.update({(own, p): base.values[own][p] for p in range(len(ids))})
    patches.update(new)
    seen = {}
    for name, book in sorted(books.items(), key=lambda item: item[1].order):
        run = forward(net, ids, patches, record=True)
        seen[name] = book.of(net, run)
        then = {number: weight for (own, number), weight in weights.items() if own == name}
        is_frozen = book.site[0] == "mlp_added" and book.site[1] in frozen_mlps
        if then:
            patches.update(book.changed(run, book.of(net, base) if is_frozen else seen[name], then))
    return Hop(forward(net, ids, patches, record=True), seen)


def along(
    model: Any,
    ids: Sequence[int],
    source: Values,
    source_weights: Mapping[str, Array],
    hops: Sequence[Sequence[Stop]],
    books: Mapping[str, Book],
    through: Collection[str] = ("mlp",),
) -> Tensor:
    """The logits ``[pos, vocab]`` with the source's values sent along a path of these hops, and nothing else changed.

    Every stop of a hop reads what all stops of the hop before send: each must come before it.
    """
    net = families.read(model)
    base = forward(net, ids, record=True)
    stops = [stop for here in hops for stop in here]
    features = {stop[0][1:] for stop in stops if stop[0][0] == "feature"}
    named = {stop[0][1] for stop in stops if stop[0][0] == "mlp"}
    frozen_mlps = named if "mlp" in through else set(range(len(net.layers)))
    held = {(name, number): books[name].of(net, base)[:, number] for name, number in features}
    new: dict[tuple[Component, int], Tensor] = {}
    weights = dict(held)
    for what, _, at in hops[0]:
        if what[0] == "feature":
            weights[what[1:]] = _at(at, source_weights[what[1]][:, what[2]], held[what[1:]])
        else:
            new.update({(written(net, what), p): source[written(net, what)][p] for p in at})
    for here in hops[1:]:
        arrived = hop(net, ids, books, new, weights, frozen_mlps)
        if here is hops[-1]:
            break
        weights = dict(held)
        new = _computed(net, ids, base, arrived.run, [stop for stop in here if stop[0][0] != "feature"])
        for what, _, at in here:
            if what[0] == "feature":
                weights[what[1:]] = _at(at, arrived.seen[what[1]][:, what[2]], held[what[1:]])
    if [stop[0] for stop in hops[-1]] == [("final",)]:
        return arrived.run.logits
    return _after(net, ids, books, arrived, hops[-1])


def _at(at: Collection[int], new: Array, old: Array) -> Array:
    return np.array([new[p] if p in at else old[p] for p in range(len(old))])


def _read(net: Net, n: int, run: Run, stop: Stop) -> dict[tuple[Any, int], Tensor]:
    """What a component's inputs read in a run: queries and MLPs where it acts, keys and values anywhere."""
    what, ports, at = stop
    found = {}
    for receiver in chosen_inputs(net, what, ports).values():
        where = range(n) if receiver[0] in ("k", "v", "final") else at
        found.update({(receiver, p): run.reads[receiver][p] for p in where})
    return found


def _computed(
    net: Net, ids: Sequence[int], base: Run, run: Run, stops: Sequence[Stop]
) -> dict[tuple[Component, int], Tensor]:
    """What heads and MLPs add that read this run: each z by itself, and behind a norm the shares of all together."""
    z: dict[tuple[Component, int], Tensor] = {}
    reads: dict[tuple[Any, int], Tensor] = {}
    for what, ports, at in stops:
        own = _read(net, len(ids), run, (what, ports, at))
        if what[0] == "mlp":
            reads.update(own)
        else:
            found = forward(net, ids, reads=own, record=True).values[what]
            z.update({(what, p): found[p] for p in at})
    layers = {what[1] for what, _, _ in stops if what[0] == "head"}
    held = {(c, p): base.values[c][p] for c in nodes(net) if c[0] == "head" and c[1] in layers for p in range(len(ids))}
    found = forward(net, ids, {**held, **z}, reads=reads, record=True)
    return {(written(net, what), p): found.values[written(net, what)][p] for what, _, at in stops for p in at}


def _after(net: Net, ids: Sequence[int], books: Mapping[str, Book], arrived: Hop, ends: Sequence[Stop]) -> Tensor:
    """Features are put in, in order; heads compute by themselves, one query after the other; all else follows."""
    n = len(ids)
    others: dict[Any, Tensor] = {}
    for end in ends:
        if end[0][0] not in ("feature", "head"):
            others.update(_read(net, n, arrived.run, end))
    z: dict[tuple[Component, int], Tensor] = {}

    def put(before: float) -> dict[tuple[Component, int], Tensor]:
        patches = dict(z)
        for name, book in sorted(books.items(), key=lambda item: item[1].order):
            mine = [(what[2], at) for what, _, at in ends if what[:2] == ("feature", name)]
            if mine and book.order < before:
                run = forward(net, ids, patches, reads=others, record=True)
                own = book.of(net, run)
                then = {number: _at(at, arrived.seen[name][:, number], own[:, number]) for number, at in mine}
                patches.update(book.changed(run, own, then))
        return patches

    for layer in range(len(net.layers)):
        here: dict[tuple[Component, int], Tensor] = {}
        for what, ports, at in ends:
            if what[:2] != ("head", layer):
                continue
            for query in at:
                reads = {**others, **_read(net, n, arrived.run, (what, ports, [query]))}
                run = forward(net, ids, put(4 * layer + 1), reads=reads, record=True)
                here[what, query] = run.values[what][query]
        z.update(here)
    return forward(net, ids, put(float("inf")), reads=others).logits
