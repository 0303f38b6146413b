"""The edges of a transformer: who writes to the residual stream, and who reads what was written there.

Edge level cuts these. An edge is a sender and a later receiver; a GPT-2 small has 32,491.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeGuard

from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.component_kinds import LOGITS
from circuitspec.hypothesis_file.grammar.components import Component, Head, Input, KvHead, Logits, Mlp
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


def is_between(component: Component) -> TypeGuard[Head | Mlp | KvHead]:
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


def senders(shape: ModelShape) -> tuple[Sender, ...]:
    """All senders, in the order in which they are computed."""
    found: list[Sender] = [Input()]
    for layer in range(shape.n_layers):
        found += [Head(layer, head) for head in range(shape.n_heads)]
        found += [Mlp(layer)] if shape.has_mlps else []
    return tuple(found)


def receivers(shape: ModelShape) -> tuple[Receiver, ...]:
    """All receivers, in the order in which they read."""
    found: list[Receiver] = []
    for layer in range(shape.n_layers):
        found += [Receiver(Head(layer, head), "q") for head in range(shape.n_heads)]
        found += [Receiver(KvHead(layer, head), port) for port in PORTS[1:] for head in range(shape.n_kv_heads)]
        found += [Receiver(Mlp(layer))] if shape.has_mlps else []
    return (*found, Receiver(Logits()))


def senders_before(receiver: Receiver, shape: ModelShape) -> int:
    """How many of `senders`, from the first, write before the receiver reads."""
    per_layer = shape.n_heads + shape.has_mlps
    match receiver.component:
        case Logits():
            return 1 + shape.n_layers * per_layer
        case Mlp(layer):
            # attention and MLP of a parallel block read the same stream
            return 1 + layer * per_layer + (shape.n_heads if shape.has_resid_mid else 0)
        case Head(layer) | KvHead(layer):
            return 1 + layer * per_layer


def sender_index(sender: Sender, shape: ModelShape) -> int:
    """Its place among `senders`."""
    match sender:
        case Input():
            return 0
        case Head(layer, head):
            return 1 + layer * (shape.n_heads + shape.has_mlps) + head
        case Mlp(layer):
            return 1 + layer * (shape.n_heads + 1) + shape.n_heads


def precedes(sender: Sender, receiver: Receiver, shape: ModelShape) -> bool:
    """Whether there is an edge: the sender writes before the receiver reads."""
    return sender_index(sender, shape) < senders_before(receiver, shape)


def count_edges(shape: ModelShape) -> int:
    return sum(senders_before(receiver, shape) for receiver in receivers(shape))


def inputs_of(component: Reader, ports: tuple[Port, ...], shape: ModelShape) -> Iterator[Receiver]:
    """The receivers through which a component reads; of a head and a kv head those named, or all of them.

    A head's key and value inputs are those of its kv head.
    """
    match component:
        case Head(layer, head):
            for port in ports or PORTS:
                kv = KvHead(layer, head // (shape.n_heads // shape.n_kv_heads))
                yield Receiver(component, port) if port == "q" else Receiver(kv, port)
        case KvHead():
            for port in ports or PORTS[1:]:
                yield Receiver(component, port)
        case Mlp() | Logits():
            yield Receiver(component)


def owners(receiver: Receiver, shape: ModelShape) -> tuple[Writer, ...]:
    """The senders that compute from what the receiver reads; none for the logits."""
    match receiver.component:
        case KvHead(layer, head):
            group = shape.n_heads // shape.n_kv_heads
            return tuple(Head(layer, h) for h in range(head * group, (head + 1) * group))
        case Logits():
            return ()
        case Head() | Mlp():
            return (receiver.component,)


def format_receiver(receiver: Receiver, shape: ModelShape) -> str:
    """`a9.h6<q>`, `m3`, `logits`; keys and values as `a9.kv2<k>` where queries share them, else as `a9.h2<k>`."""
    component = receiver.component
    if isinstance(component, KvHead) and shape.n_kv_heads == shape.n_heads:
        component = Head(component.layer, component.head)
    return format_name(component) + (f"<{receiver.port}>" if receiver.port else "")
