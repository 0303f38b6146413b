"""ACDC's edges: the pickled list of `save_edges`, or the .pth of `save_subgraph`. The receiver comes first in both."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from circuitspec.exchange.edge_lists import EdgeList, Size
from circuitspec.exchange.loss import Loss, counted
from circuitspec.exchange.readers.hook_names import (
    EMBEDDINGS,
    parse_hook,
    receiver_of,
    receiver_place,
    sender_of,
    sender_place,
)
from circuitspec.exchange.readers.tensors import saved
from circuitspec.exchange.readers.untrusted import read_pickle_or_tensors
from circuitspec.exchange.reading import (
    MAX_HEADS,
    MAX_LAYERS,
    FileReading,
    NamedEdge,
    edges_of,
    number,
    shown,
    split_input,
    wrong,
)
from circuitspec.hypothesis_file.grammar.components import Head, KvHead, Logits, Mlp
from circuitspec.hypothesis_file.grammar.names import PORTS, Port

_INSIDE = ("attn.hook_q", "attn.hook_k", "attn.hook_v", "attn.hook_result", "hook_mlp_out")
"""Receivers of edges that lie within a head or an MLP."""

_Index: TypeAlias = tuple[object, ...]


class _TorchIndex:
    """Stands in for ACDC's class of that name: keeps what was stored and does nothing."""

    def __setstate__(self, state: object) -> None:
        self.state = state


_CLASSES: Mapping[tuple[str, str], type] = {
    ("acdc.TLACDCEdge", "TorchIndex"): _TorchIndex,
    ("acdc.acdc_utils", "TorchIndex"): _TorchIndex,
    ("builtins", "slice"): slice,
    ("__builtin__", "slice"): slice,
    ("collections", "OrderedDict"): OrderedDict,
}


@dataclass(frozen=True)
class _Entry:
    child: str
    child_index: _Index
    parent: str
    parent_index: _Index
    present: bool
    score: float | None

    def __str__(self) -> str:
        return f"{_spoken(self.parent, self.parent_index)} -> {_spoken(self.child, self.child_index)}"


@dataclass
class _Found:
    named: list[tuple[str, NamedEdge]] = field(default_factory=list)  # with the name of the sender's place
    cut: set[tuple[int, int, Port]] = field(default_factory=set)  # inputs of heads from which nothing is computed
    computed: set[tuple[int, int, Port]] = field(default_factory=set)
    inside: int = 0  # edges within a component
    ends: set[int] = field(default_factory=set)  # layers of hook_resid_post
    faults: list[str] = field(default_factory=list)


def read(path: Path, known: Size | None) -> FileReading:
    """The edges that are present. Raises CircuitspecError: CS382 to CS384, CS386."""
    found = _Found()
    entries = list(_entries(path, read_pickle_or_tensors(path, _CLASSES)))
    for entry in entries:
        _sort(entry, found)
    if found.faults or len(found.ends) > 1:
        raise wrong(path, found.faults or ["hook_resid_post of several layers is named: only the last is read"])
    computed = found.computed if found.computed or found.cut else None
    edges, losses = split_input(found.named, *EMBEDDINGS)
    alive = [edge for edge in edges if computed is None or _is_computed(edge, computed)]
    if found.inside:
        said = f"{counted(found.inside, 'edge')} within heads and MLPs (hook_q_input -> hook_q and others) left out"
        if len(alive) < len(edges):
            said += f", and {counted(len(edges) - len(alive), 'edge')} to inputs that are cut there"
        losses += (Loss("computation", said),)
    n_layers = next(iter(found.ends), -1) + 1 or None
    reading = edges_of(path, alive, known, n_layers, _whole(entries, n_layers))
    return replace(reading, losses=(*losses, *reading.losses))


def _whole(entries: Sequence[_Entry], n_layers: int | None) -> Size | None:
    """The model of whose graph these are all the edges, present and absent; None where some are missing."""
    heads = {_head(entry.child_index) for entry in entries} - {None, -1}
    n_heads = 1 + max((head for head in heads if head is not None), default=0)
    if n_layers is None or n_layers > MAX_LAYERS or n_heads > MAX_HEADS:
        return None
    try:
        size = Size(n_layers, n_heads, n_heads)
    except ValueError:
        return None
    # beside the edges between components one into each MLP, two into each input of a head
    count = int(size.possible.sum()) + n_layers + 6 * n_layers * n_heads
    return size if len({(e.child, e.child_index, e.parent, e.parent_index) for e in entries}) == count else None


def write(edges: EdgeList, out: Path) -> tuple[bytes, tuple[Loss, ...]]:
    """What `save_subgraph` writes: every edge of ACDC's graph of the model, and whether it is present."""
    del out
    size = edges.size
    content: OrderedDict[tuple[object, ...], bool] = OrderedDict()
    losses = [Loss("computation", "edges within a head are made present where one of the circuit reaches its input")]
    for column, receiver in enumerate(size.receivers):
        child = _key(*receiver_place(receiver, size))
        heads, layer = size.n_heads, getattr(receiver.component, "layer", 0)
        count = int(size.possible[:, column].sum())
        if size.parallel and isinstance(receiver.component, Mlp):
            count += heads  # in ACDC's graph heads always reach the MLP of their block
        for sender, present in zip(size.senders[:count], edges.kept[:count, column].tolist(), strict=True):
            content[(*child, *_key(*sender_place(sender)))] = present
        match receiver.component:
            case Mlp():
                content[(*_key(f"blocks.{layer}.hook_mlp_out", None), *child)] = True
            case Head(_, head) | KvHead(_, head):
                inner = _key(f"blocks.{layer}.attn.hook_{receiver.port}", head)
                content[(*inner, *child)] = bool(edges.kept[:, column].any())
                content[(*_key(f"blocks.{layer}.attn.hook_result", head), *inner)] = True
            case Logits():
                pass
    if size.parallel:
        losses.append(Loss("computation", "ACDC takes heads to reach the MLP of their block: written as absent"))
    return saved(content), tuple(losses)


def _key(name: str, head: int | None) -> tuple[str, _Index]:
    return name, (None,) if head is None else (None, None, head)


def _entries(path: Path, content: object) -> Iterator[_Entry]:
    """`{(child, index, parent, index): present}`, or a list of such keys, each with its effect or alone."""
    if isinstance(content, Mapping):
        pairs = list(content.items())
    elif isinstance(content, list | tuple):
        pairs = [one if isinstance(one, tuple) and len(one) == 2 else (one, None) for one in content]
    else:
        raise wrong(path, ["there is no list or dictionary of edges"], "ACDC's save_edges and save_subgraph write them")
    for key, value in pairs:
        entry = _entry(key, value)
        if entry is None:
            form = "an edge is (receiver, index, sender, index), with an effect or a truth value"
            raise wrong(path, [f"{shown(key)}: {shown(value)} is no edge"], form)
        yield entry


def _entry(key: object, value: object) -> _Entry | None:
    if not isinstance(key, tuple) or len(key) != 4 or not (value is None or isinstance(value, bool | int | float)):
        return None
    child, parent = key[0], key[2]
    indices = _index(key[1]), _index(key[3])
    if not isinstance(child, str) or not isinstance(parent, str) or indices[0] is None or indices[1] is None:
        return None
    score = None if value is None or isinstance(value, bool) else number(value)
    return _Entry(child, indices[0], parent, indices[1], value is not False, score)


def _index(value: object) -> _Index | None:
    if isinstance(value, _TorchIndex):
        state = getattr(value, "state", None)
        value = state.get("hashable_tuple") if isinstance(state, dict) else None
    return tuple(value) if isinstance(value, list | tuple) and len(value) <= 4 else None


def _head(index: _Index) -> int | None:
    """The head that an index picks; -1 for an index that picks something else. None: the whole."""
    if all(part is None for part in index):
        return None
    picked = index[2] if len(index) == 3 and index[:2] == (None, None) else None
    return picked if isinstance(picked, int) and not isinstance(picked, bool) and picked >= 0 else -1


def _sort(entry: _Entry, found: _Found) -> None:
    """Note an entry as an edge, or as one within a component."""
    into, head = parse_hook(entry.child), _head(entry.child_index)
    if into is not None and into.name in _INSIDE:
        found.inside += entry.present
        port = next((port for port in PORTS if into.name == f"attn.hook_{port}"), None)
        if port is not None and head is not None and head >= 0:
            (found.computed if entry.present else found.cut).add((into.layer, head, port))
        return
    parent_head = _head(entry.parent_index)
    sender, receiver = sender_of(entry.parent, parent_head), receiver_of(entry.child, head)
    if sender is None or receiver is None or -1 in (head, parent_head):
        found.faults.append(f"{entry} joins no places that are known")
        return
    if into is not None and isinstance(receiver[0], Logits):
        found.ends.add(into.layer)
    if entry.present:
        found.named.append((entry.parent, NamedEdge(str(entry), sender, receiver[0], receiver[1], entry.score)))


def _is_computed(edge: NamedEdge, computed: set[tuple[int, int, Port]]) -> bool:
    component = edge.component
    return not isinstance(component, Head) or all((component.layer, component.head, p) in computed for p in edge.ports)


def _spoken(name: str, index: _Index) -> str:
    return f"{shown(name)[1:-1]}[{', '.join(':' if part is None else shown(part) for part in index)}]"
