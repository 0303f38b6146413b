"""What a name can stand for: the components of a transformer, and patterns of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias


@dataclass(frozen=True)
class Input:
    """The embeddings that enter the first block."""


@dataclass(frozen=True)
class Logits:
    """The output."""


@dataclass(frozen=True)
class Head:
    """One attention head: its slice of the input of the output projection."""

    layer: int
    head: int


@dataclass(frozen=True)
class AttentionLayer:
    """All attention heads of a layer."""

    layer: int


@dataclass(frozen=True)
class KvHead:
    """One key/value head of a grouped-query layer."""

    layer: int
    head: int


@dataclass(frozen=True)
class Mlp:
    """The MLP of a layer: its output."""

    layer: int


@dataclass(frozen=True)
class Neuron:
    """One hidden unit of an MLP: its entry in the input of the output projection."""

    layer: int
    index: int


@dataclass(frozen=True)
class Resid:
    """The residual stream that enters a block, or with `mid` between its attention and its MLP."""

    layer: int
    mid: bool = False


@dataclass(frozen=True)
class Feature:
    """One feature of a dictionary (SAE, transcoder) known under a name."""

    dictionary: str
    index: int


Component: TypeAlias = Input | Logits | Head | AttentionLayer | KvHead | Mlp | Neuron | Resid | Feature


@dataclass(frozen=True)
class Range:
    """Indices `first` to `last`, both included; without bounds all there are (`*`)."""

    first: int | None = None
    last: int | None = None


Indices: TypeAlias = int | Range
PatternKind = Literal["attention", "head", "kv", "mlp", "neuron", "resid", "resid_mid"]


@dataclass(frozen=True)
class Pattern:
    """Components of one kind by layer and, for heads and neurons, by index within the layer."""

    kind: PatternKind
    layers: Indices
    members: Indices | None = None

    def matches(self, component: Component) -> bool:
        """Whether `component` is one of those meant."""
        kind, layer, member = _parts(component)
        return (
            kind == self.kind
            and _within(layer, self.layers)
            and (self.members is None or _within(member, self.members))
        )

    def at_layer(self, layer: int) -> Component:
        """One of the components meant in a layer (the first, where all of them are)."""
        members = self.members
        first = members if isinstance(members, int) else members.first if isinstance(members, Range) else 0
        return _make(self.kind, layer, first or 0)

    def expand(
        self, n_layers: int, n_heads: int, n_kv_heads: int | None = None, n_neurons: int | None = None
    ) -> tuple[Component, ...]:
        """The components meant in a model of this size, in model order.

        Raises ValueError where the pattern names a layer or member that the model does not have, or
        where the count it needs was not given.
        """
        counts = {"head": n_heads, "kv": n_kv_heads, "neuron": n_neurons}
        layers = _indices(self.layers, n_layers, "layers")
        if self.members is None:
            return tuple(_make(self.kind, layer, 0) for layer in layers)
        count = counts[self.kind]
        if count is None:
            raise ValueError(f"how many {self.kind} members a layer has was not given")
        members = tuple(_indices(self.members, count, f"{self.kind} members a layer"))
        return tuple(_make(self.kind, layer, member) for layer in layers for member in members)


def sort_key(component: Component) -> tuple[int, int, int, str]:
    """Model order: input, then layer by layer attention before MLP, then logits; features last."""
    match component:
        case Input():
            return (-1, 0, 0, "")
        case Logits():
            return (_AFTER_ALL_LAYERS, 0, 0, "")
        case Feature(dictionary, index):
            return (_AFTER_ALL_LAYERS + 1, 0, index, dictionary)
        case _:
            kind, layer, member = _parts(component)
            return (layer, _RANKS[kind], member, "")


def stage(component: Component) -> int | None:
    """When a component computes: a sender can reach a receiver directly only at a later stage.

    Heads of one layer share a stage. None for a feature, whose place depends on its dictionary.
    """
    match component:
        case Input():
            return -1
        case Logits():
            return 4 * _AFTER_ALL_LAYERS
        case Feature():
            return None
        case _:
            kind, layer, _ = _parts(component)
            return 4 * layer + _STAGES[kind]


_AFTER_ALL_LAYERS = 10**9
_RANKS: dict[str, int] = {
    "resid": 0,
    "attention": 1,
    "kv": 2,
    "head": 3,
    "resid_mid": 4,
    "mlp": 5,
    "neuron": 6,
}
_STAGES: dict[str, int] = {"resid": 0, "attention": 1, "kv": 1, "head": 1, "resid_mid": 2, "mlp": 3, "neuron": 3}


def _parts(component: Component) -> tuple[str, int, int]:
    match component:
        case Head(layer, head):
            return "head", layer, head
        case AttentionLayer(layer):
            return "attention", layer, 0
        case KvHead(layer, head):
            return "kv", layer, head
        case Mlp(layer):
            return "mlp", layer, 0
        case Neuron(layer, index):
            return "neuron", layer, index
        case Resid(layer, mid):
            return "resid_mid" if mid else "resid", layer, 0
        case Input() | Logits() | Feature():
            return type(component).__name__, -1, 0


def _make(kind: PatternKind, layer: int, member: int) -> Component:
    match kind:
        case "attention":
            return AttentionLayer(layer)
        case "head":
            return Head(layer, member)
        case "kv":
            return KvHead(layer, member)
        case "mlp":
            return Mlp(layer)
        case "neuron":
            return Neuron(layer, member)
        case "resid":
            return Resid(layer)
        case "resid_mid":
            return Resid(layer, mid=True)


def _within(index: int, wanted: Indices) -> bool:
    if isinstance(wanted, int):
        return index == wanted
    return (wanted.first is None or wanted.first <= index) and (wanted.last is None or index <= wanted.last)


def _indices(wanted: Indices, count: int, what: str) -> Iterator[int]:
    first, last = (wanted, wanted) if isinstance(wanted, int) else (wanted.first, wanted.last)
    if last is not None and last >= count:
        raise ValueError(f"index {last} is beyond the model's {count} {what}")
    return iter(range(first or 0, count if last is None else last + 1))
