"""Experiments at edge level: single edges carry the source's value of their sender, all in one run."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from circuitspec.experiments.experiment import CLEAN_VALUES, Experiment, Reading, Sent, Source, Variant
from circuitspec.graph.edge_circuit import Kept, live_receivers
from circuitspec.graph.edges import Receiver, Sender, Writer, senders, senders_before
from circuitspec.graph.paths import DeclaredPath, edges_of, merged
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where


def keeping(kept: Kept, source: Source, shape: ModelShape, measured: Collection[Writer] = ()) -> Experiment:
    """The clean run in which exactly these edges are kept, at their positions, and every other one is ablated.

    Receivers on which neither the logits nor what is measured inside components depend are left out: whatever they
    read, nothing of it arrives.
    """
    order, everywhere = senders(shape), Where.everywhere()
    readings: dict[Receiver, dict[Sender, Where]] = {}
    for receiver in live_receivers(kept, shape, measured=measured):
        here = kept.get(receiver, {})
        cut: dict[Sender, Where] = {}
        for sender in order[: senders_before(receiver, shape)]:
            where = here.get(sender)
            if where is None:
                cut[sender] = everywhere
            elif not where.is_everywhere:
                cut[sender] = ~where
        readings[receiver] = cut
    return patching("clean", source, readings)


def ablating(edges: Kept, source: Source, shape: ModelShape, measured: Collection[Writer] = ()) -> Experiment:
    """The clean run in which exactly these edges are ablated, at their positions; receivers are left out likewise."""
    live = live_receivers(None, shape, edges, measured)
    return patching("clean", source, {r: by_sender for r, by_sender in edges.items() if r in live})


def restoring(paths: Iterable[DeclaredPath], corrupt: Variant, shape: ModelShape) -> Experiment:
    """The corrupt run in which every edge along these paths carries the clean value of its sender."""
    return patching(corrupt, CLEAN_VALUES, merged([edge for path in paths for edge in edges_of(path, shape)[0]]))


def patching(base: Variant, source: Source, edges: Mapping[Receiver, Mapping[Sender, Where]]) -> Experiment:
    """A run in which these edges carry the source's values."""
    sent: dict[tuple[Sender, Where], Sent] = {}  # shared, since there may be tens of thousands
    sets: dict[frozenset[Sent], frozenset[Sent]] = {}
    readings = []
    known: dict[tuple[tuple[Sender, Where], ...], frozenset[Sent]] = {}  # many receivers read the same
    for receiver, by_sender in edges.items():
        key = tuple(by_sender.items())
        here = known.get(key)
        if here is None:
            here = known[key] = frozenset(sent.setdefault(one, Sent(*one)) for one in key)
        if here:
            readings.append(Reading(receiver, sets.setdefault(here, here)))
    chosen = frozenset(readings)
    return Experiment(base, source if chosen else None, readings=chosen)
