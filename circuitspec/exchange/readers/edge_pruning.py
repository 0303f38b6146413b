"""Edge Pruning's edges.json: pairs of a writer and a reader."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from circuitspec.exchange.edge_lists import EdgeList, Size
from circuitspec.exchange.loss import Loss, counted
from circuitspec.exchange.readers.untrusted import read_json
from circuitspec.exchange.reading import FileReading, NamedEdge, edges_of, shown, split_input, wrong
from circuitspec.graph.edges import Receiver, Sender, Writer, is_writer
from circuitspec.hypothesis_file.grammar.components import Feature, Head, Input, KvHead, Logits, Mixer, Mlp
from circuitspec.hypothesis_file.grammar.names import PORTS, Port, format_name

TOKENS, POSITIONS = "tok_embeds", "pos_embeds"
_END = "resid_post"

_NUMBER = r"(0|[1-9][0-9]{0,5})"
_HEAD = re.compile(rf"a{_NUMBER}\.h{_NUMBER}(?:\.([qkv]))?")
_MLP = re.compile(rf"m{_NUMBER}")


def read(path: Path, known: Size | None) -> FileReading:
    """The edges of a JSON list of pairs. Raises CircuitspecError: CS382, CS383, CS386."""
    content = read_json(path)
    if not isinstance(content, list):
        raise wrong(path, ["there is no list of edges"], 'Edge Pruning writes [["a0.h1", "m0"], ["m0", "resid_post"]]')
    named: list[tuple[str, NamedEdge]] = []
    faults = []
    for pair in content:
        ends = pair if isinstance(pair, list) and len(pair) == 2 and all(isinstance(end, str) for end in pair) else None
        sender, reader = (None, None) if ends is None else (_writer(ends[0]), _reader(ends[1]))
        if ends is None or sender is None or reader is None:
            faults.append(f"{shown(pair)} is no pair of a writer and a reader")
        else:
            named.append((ends[0], NamedEdge(f"{ends[0]} -> {ends[1]}", sender, *reader)))
    if faults:
        raise wrong(
            path, faults, "writers are tok_embeds, pos_embeds, a0.h1 and m0; readers a0.h1.q, m0 and resid_post"
        )
    edges, losses = split_input(named, TOKENS, POSITIONS)
    if named and not losses:  # written by a run that keeps the embeddings out of the edges, and lets all read them
        writers = dict.fromkeys(edge.sender for edge in edges if is_writer(edge.sender))
        added = [NamedEdge(f"{TOKENS} -> {format_name(c)}", Input(), c) for c in (*writers, Logits())]
        edges += added
        said = "the file has no embeddings, which every component then reads: `input` is joined to all of the circuit"
        losses = (Loss("embeddings", said),)
    reading = edges_of(path, edges, known)
    return FileReading(reading.edges, losses=(*losses, *reading.losses))


def write(edges: EdgeList, out: Path) -> tuple[bytes, tuple[Loss, ...]]:
    """A JSON list of pairs."""
    del out
    pairs, doubled = [], 0
    for column, row in np.argwhere(edges.kept.T).tolist():
        sender, reader = edges.size.senders[row], _reader_name(edges.size.receivers[column])
        if isinstance(sender, Input):
            doubled += 1
            pairs += [[TOKENS, reader], [POSITIONS, reader]]
        else:
            pairs.append([format_name(sender), reader])
    losses = []
    if doubled:
        said = f"`input` is token and position embeddings: {counted(doubled, 'edge')} written as one of each"
        losses.append(Loss("embeddings", said))
    return json.dumps(pairs, indent=1).encode("utf-8"), tuple(losses)


def _writer(name: str) -> Sender | None:
    if name in (TOKENS, POSITIONS):
        return Input()
    if match := _MLP.fullmatch(name):
        return Mlp(int(match[1]))
    match = _HEAD.fullmatch(name)
    return Head(int(match[1]), int(match[2])) if match is not None and match[3] is None else None


def _reader(name: str) -> tuple[Writer | Logits, tuple[Port, ...]] | None:
    if name == _END:
        return Logits(), ()
    if match := _MLP.fullmatch(name):
        return Mlp(int(match[1])), ()
    match = _HEAD.fullmatch(name)
    if match is None or match[3] is None:
        return None
    return Head(int(match[1]), int(match[2])), tuple(port for port in PORTS if port == match[3])


def _reader_name(receiver: Receiver) -> str:
    match receiver.component:
        case Logits():
            return _END
        case Mlp(layer):
            return f"m{layer}"
        case Head(layer, head) | KvHead(layer, head):
            return f"a{layer}.h{head}.{receiver.port}"
        case Feature() | Mixer() as other:
            raise ValueError(f"no reader is called like {other.kind.plural}")
