"""InterpBench's ground truth: a pickled list of pairs of places, the sender first, q, k and v not told apart."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np

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
from circuitspec.exchange.readers.untrusted import read_pickle
from circuitspec.exchange.reading import FileReading, NamedEdge, edges_of, shown, split_input, wrong
from circuitspec.graph.edges import Writer, is_writer
from circuitspec.hypothesis_file.grammar.components import Head, KvHead, Logits, Mlp
from circuitspec.hypothesis_file.grammar.names import Port

_PLACE = re.compile(r"([^\[\]]+)(?:\[([0-9]{1,5})\])?")


def read(path: Path, known: Size | None) -> FileReading:
    """The edges of a pickle of text pairs. Raises CircuitspecError: CS382 to CS384, CS386."""
    content = read_pickle(path, {})
    if not isinstance(content, list | tuple | set | frozenset):
        raise wrong(path, ["there is no list of edges"], "InterpBench's edges.pkl is a list of pairs of names")
    named: list[tuple[str, NamedEdge]] = []
    faults: list[str] = []
    inside, ends, whole = 0, set(), False
    for pair in sorted(content, key=shown) if isinstance(content, set | frozenset) else content:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(end, str) for end in pair):
            faults.append(f"{shown(pair)} is no pair of names")
            continue
        (parent, parent_head), (child, child_head) = _place(pair[0]), _place(pair[1])
        if _reads(parent) and not _writes(parent):
            inside += 1  # hook_q_input -> hook_result and the like
            continue
        sender, receiver = sender_of(parent, parent_head), _receiver(child, child_head)
        if sender is None or receiver is None:
            faults.append(f"{shown(pair)} joins no places that are known")
            continue
        component, ports = receiver
        if isinstance(component, Logits):
            ends.add(getattr(parse_hook(child), "layer", 0))
        whole |= isinstance(component, Head) and not ports
        named.append((parent, NamedEdge(f"{pair[0]} -> {pair[1]}", sender, component, ports)))
    if faults or len(ends) > 1:
        raise wrong(path, faults or ["hook_resid_post of several layers is named: only the last is read"])
    edges, losses = split_input(named, *EMBEDDINGS)
    if whole:
        losses += (Loss("inputs", "the file does not tell q, k and v apart: an edge to a head is one to all three"),)
    if inside:
        losses += (Loss("computation", f"{counted(inside, 'edge')} within heads and MLPs are no edges here"),)
    reading = edges_of(path, edges, known, next(iter(ends), -1) + 1 or None)
    return FileReading(reading.edges, losses=(*losses, *reading.losses))


def write(edges: EdgeList, out: Path) -> tuple[bytes, tuple[Loss, ...]]:
    """A pickled list of pairs of names."""
    del out
    size = edges.size
    ports: dict[tuple[str, str], int] = {}
    for column, row in np.argwhere(edges.kept.T).tolist():
        receiver = size.receivers[column]
        match receiver.component:
            case Head() | KvHead():
                child = sender_place(Head(receiver.component.layer, receiver.component.head))
            case Mlp():
                child = sender_place(receiver.component)
            case Logits():
                child = receiver_place(receiver, size)
        pair = (_name(*sender_place(size.senders[row])), _name(*child))
        ports[pair] = ports.get(pair, 0) + 1
    partial = sum(count < 3 for (_, child), count in ports.items() if "attn" in child)
    losses = []
    if partial:
        said = f"q, k and v are not told apart: {counted(partial, 'edge')} to some inputs of a head now reach all three"
        losses.append(Loss("inputs", said))
    return pickle.dumps(list(ports), protocol=4), tuple(losses)


def _place(text: str) -> tuple[str, int | None]:
    match = _PLACE.fullmatch(text)
    return (text, None) if match is None else (match[1], None if match[2] is None else int(match[2]))


def _reads(name: str) -> bool:
    hook = parse_hook(name)
    return hook is not None and hook.name in (
        "hook_q_input",
        "hook_k_input",
        "hook_v_input",
        "hook_mlp_in",
        "attn.hook_q",
        "attn.hook_k",
        "attn.hook_v",
    )


def _writes(name: str) -> bool:
    return sender_of(name, None) is not None


def _receiver(name: str, head: int | None) -> tuple[Writer | Logits, tuple[Port, ...]] | None:
    """As `receiver_of`; a component's output stands for all of its inputs."""
    component = sender_of(name, head)
    return (component, ()) if component is not None and is_writer(component) else receiver_of(name, head)


def _name(hook: str, head: int | None) -> str:
    return hook if head is None else f"{hook}[{head}]"
