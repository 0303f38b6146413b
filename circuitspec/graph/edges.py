"""The edges of a transformer: who writes to the residual stream, and who reads what was written there.

Edge level cuts these. An edge is a sender and a later receiver; a GPT-2 small has 32,491.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeGuard

from circuitspec.diagnostics.diagnostic import Diagnostic, Span
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.component_kinds import HEAD, LOGITS, MLP, ComponentKind
from circuitspec.hypothesis_file.grammar.components import (
    IN_LAYERS,
    OF_DICTIONARY,
    WHOLE,
    Between,
    Component,
    Feature,
    all_of,
    stage,
)
from circuitspec.hypothesis_file.grammar.components import Reader as Reader
from circuitspec.hypothesis_file.grammar.components import Sender as Sender
from circuitspec.hypothesis_file.grammar.components import Writer as Writer
from circuitspec.hypothesis_file.grammar.names import PORTS, Port, format_name


def is_sender(component: Component) -> TypeGuard[Sender]:
    """Whether edges start there."""
    return component.kind.sends


def is_writer(component: Component) -> TypeGuard[Writer]:
    """Whether edges start there and some may end there: not so of the input."""
    return component.kind.sends and component.kind.in_layers


def is_reader(component: Component) -> TypeGuard[Reader]:
    """Whether edges end there."""
    return component.kind.reads


def is_between(component: Component) -> TypeGuard[Between]:
    """Whether it is an end of edges that lies within the model: not its input or its output."""
    return component.kind.in_layers and (component.kind.sends or component.kind.reads)


@dataclass(frozen=True)
class Receiver:
    """A place that reads the residual stream: one input of a head or kv head, an MLP's input, or the final residual.

    Queries belong to heads, keys and values to kv heads (which are the heads where there is no grouping).
    """

    component: Reader
    port: Port | None = None  # q for a head, k or v for a kv head, None for an MLP and for the logits

    @property
    def at_logits(self) -> bool:
        """Whether it is the final residual."""
        return self.component.kind is LOGITS

    @property
    def reads_where_it_acts(self) -> bool:
        """Whether it reads at the positions at which its component acts (queries, MLPs), rather than at any."""
        return self.port == "q" or self.component.kind.reads_where_it_acts


@dataclass(frozen=True)
class Edge:
    """A sender and a receiver, and the positions of the residual stream at which one writes and the other reads."""

    sender: Sender
    receiver: Receiver
    where: Where


@lru_cache(maxsize=8)
def senders(shape: ModelShape) -> tuple[Sender, ...]:
    """All senders, in the order in which they are computed."""
    found: list[Component] = [component for kind, component in WHOLE.items() if kind.sends]
    for layer in range(shape.n_layers):
        found += [one for kind in _SENDING for one in all_of(kind, layer, shape.counts)]
    return tuple(component for component in found if is_sender(component))


@lru_cache(maxsize=8)
def receivers(shape: ModelShape) -> tuple[Receiver, ...]:
    """All receivers, in the order in which they read."""
    found: list[tuple[Component, Port | None]] = []
    for layer in range(shape.n_layers):
        found += [(one, port) for kind, port in _READING for one in all_of(kind, layer, shape.counts)]
    found += [(component, None) for kind, component in WHOLE.items() if kind.reads]
    return tuple(Receiver(component, port) for component, port in found if is_reader(component))


@lru_cache(maxsize=8)
def every_receiver(shape: ModelShape) -> frozenset[Receiver]:
    """All of `receivers`, as a set."""
    return frozenset(receivers(shape))


def senders_before(receiver: Receiver, shape: ModelShape) -> int:
    """How many of `senders`, from the first, write before the receiver reads."""
    kind, places = receiver.component.kind, _sender_places(shape)
    if not kind.in_layers:
        return places.ends[-1]
    layer = receiver.component.place[0]
    own = places.in_layer[layer in shape.mixers]
    return places.ends[layer] + own.before[kind]


def sender_index(sender: Sender, shape: ModelShape) -> int:
    """Its place among `senders`."""
    if not sender.kind.in_layers:
        return 0
    places, (layer, member) = _sender_places(shape), sender.place
    own = places.in_layer[layer in shape.mixers]
    return places.ends[layer] + own.offset[sender.kind] + member


def precedes(sender: Sender, receiver: Receiver, shape: ModelShape) -> bool:
    """Whether there is an edge, or with a feature at one end a path: the sender writes before the receiver reads.

    With a feature of which it is not known where its dictionary stands, it is taken for one.
    """
    if isinstance(sender, Feature) or isinstance(receiver.component, Feature):
        written, read = stage_in(sender, shape), _read(receiver.component, shape)
        return written is None or read is None or written < read
    return sender_index(sender, shape) < senders_before(receiver, shape)


def count_edges(shape: ModelShape) -> int:
    return sum(senders_before(receiver, shape) for receiver in receivers(shape))


def inputs_of(component: Reader, ports: tuple[Port, ...], shape: ModelShape) -> Iterator[Receiver]:
    """The receivers through which a component reads; where it has several inputs, those named, or all of them.

    A head's key and value inputs are those of its kv head.
    """
    kind = component.kind
    for port in (ports or kind.ports) if kind.ports else (None,):
        shared = None if port is None else kind.reads_through.get(port)
        own = component if shared is None else _shared(component, shared, shape)
        if is_reader(own):
            yield Receiver(own, port)


def owners(receiver: Receiver, shape: ModelShape) -> tuple[Writer, ...]:
    """The senders that compute from what the receiver reads; none for the logits."""
    found = sharing(receiver.component, shape) or (receiver.component,)
    return tuple(component for component in found if is_writer(component))


def sharing(component: Component, shape: ModelShape) -> tuple[Component, ...]:
    """The components that have some of their inputs through this one: the heads of a kv head; mostly none."""
    kind = component.kind
    of = _READ_BY.get(kind)
    if of is None:
        return ()
    layer, member = component.place
    group = _count(of, shape) // _count(kind, shape)
    return tuple(IN_LAYERS[of](layer, one) for one in range(member * group, (member + 1) * group))


def shared_by(component: Component, shape: ModelShape) -> tuple[Component, ...]:
    """The components through which this one has some of its inputs: the kv head of a head; mostly none."""
    return tuple(_shared(component, kind, shape) for kind in dict.fromkeys(component.kind.reads_through.values()))


def format_receiver(receiver: Receiver, shape: ModelShape) -> str:
    """`a9.h6<q>`, `m3`, `logits`; keys and values as `a9.kv2<k>` where queries share them, else as `a9.h2<k>`."""
    alone = sharing(receiver.component, shape)
    component = alone[0] if len(alone) == 1 else receiver.component
    return format_name(component) + (f"<{receiver.port}>" if receiver.port else "")


# -- the kinds -----------------------------------------------------------------------------------------------------

_SENDING = tuple(sorted((kind for kind in IN_LAYERS if kind.sends), key=lambda kind: kind.rank))
"""What adds to the residual stream in each layer, in order."""


def _own_inputs() -> Iterator[tuple[ComponentKind, Port | None]]:
    for kind in IN_LAYERS:
        if kind.reads:
            yield from ((kind, port) for port in kind.ports if port not in kind.reads_through)
            yield from () if kind.ports else ((kind, None),)


_READING = tuple(
    sorted(_own_inputs(), key=lambda one: (one[0].stage or 0, PORTS.index(one[1]) if one[1] else 0, one[0].rank))
)
"""What reads the residual stream in each layer, in order, and by which input."""

_READ_BY: Mapping[ComponentKind, ComponentKind] = {
    shared: kind for kind in IN_LAYERS for shared in kind.reads_through.values()
}


@dataclass(frozen=True)
class _InLayer:
    """How many senders a layer has, how many of them come before a kind's own, and how many of them a kind reads."""

    count: int
    offset: Mapping[ComponentKind, int]
    before: Mapping[ComponentKind, int]


@dataclass(frozen=True)
class _SenderPlaces:
    """How many senders there are before each layer, and in all (`ends`); and where they are in layers with heads, and
    in those with mixers.
    """

    ends: tuple[int, ...]
    in_layer: tuple[_InLayer, _InLayer]


@lru_cache(maxsize=32)
def _sender_places(shape: ModelShape) -> _SenderPlaces:
    one_with, one_without = (
        next((n for n in range(shape.n_layers) if (n in shape.mixers) == mixes), None) for mixes in (False, True)
    )
    kinds = _places_in(one_with, shape), _places_in(one_without, shape)
    first = sum(kind.sends for kind in WHOLE)
    counts = (kinds[layer in shape.mixers].count for layer in range(shape.n_layers))
    return _SenderPlaces((first, *(first + end for end in itertools.accumulate(counts))), kinds)


def _places_in(layer: int | None, shape: ModelShape) -> _InLayer:
    """Of the layers that are like this one; of none, if there is none."""
    counts = {kind: 0 if layer is None else len(all_of(kind, layer, shape.counts)) for kind in _SENDING}
    ends = list(itertools.accumulate(counts.values()))
    before = {
        # all of a parallel block reads the stream that enters it
        kind: sum(count for other, count in counts.items() if shape.has_resid_mid and _stage(other) < _stage(kind))
        for kind, _ in _READING
    }
    return _InLayer(ends[-1], dict(zip(counts, (0, *ends), strict=False)), before)


def stage_in(component: Component, shape: ModelShape) -> int | None:
    """When a component computes, in stages of the whole model; of what a dictionary takes apart, when that is written.

    None where it is not known where the dictionary stands.
    """
    if not isinstance(component, OF_DICTIONARY):
        return stage(component)
    site = shape.dictionary(component.dictionary)
    return None if site is None else site.place.stage


def _read(reader: Reader, shape: ModelShape) -> int | None:
    """When it reads. A feature of the stream reads it just where its dictionary stands, before it is written there."""
    found = stage_in(reader, shape)
    if found is None or shape.has_resid_mid or reader.place[0] * 4 + _stage(MLP) != found:
        return found
    return reader.place[0] * 4 + _stage(HEAD)  # the MLP then reads what the attention reads


def _stage(kind: ComponentKind) -> int:
    assert kind.stage is not None, f"{kind.name} sends or reads, and has no stage"
    return kind.stage


def _count(kind: ComponentKind, shape: ModelShape) -> int:
    return kind.per_layer(shape.counts) or 0


def _shared(component: Component, kind: ComponentKind, shape: ModelShape) -> Component:
    layer, member = component.place
    return IN_LAYERS[kind](layer, member // (_count(component.kind, shape) // _count(kind, shape)))


def no_plain_sum(shape: ModelShape, span: Span | None = None) -> Diagnostic:
    """CS325"""
    return Diagnostic(
        "CS325",
        f"a {shape.family} has no edges or paths, and no stream that all passes through: {shape.why_no_edges}",
        span,
        hint="write `level: node`, where heads and MLPs are patched as they are, and claim nothing about paths",
    )
