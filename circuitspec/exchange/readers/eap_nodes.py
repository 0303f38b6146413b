"""What EAP-IG's graphs say of nodes: which are counted in, how they are scored, and of which channels they consist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeGuard

import numpy as np
import numpy.typing as npt

from circuitspec.exchange.edge_lists import EdgeList, Mask, Scores, Size
from circuitspec.exchange.node_lists import NodeReading, is_closed
from circuitspec.exchange.readers.tensors import array
from circuitspec.exchange.reading import number, shown, wrong
from circuitspec.hypothesis_file.grammar.components import Head
from circuitspec.hypothesis_file.grammar.names import format_name

_TENSORS = ("nodes_in_graph", "nodes_scores", "neurons_in_graph", "neurons_scores")


def json_nodes(path: Path, content: Mapping[str, object], edges: EdgeList) -> NodeReading:
    """The object `nodes` of a JSON file: a truth value a node, or `{in_graph, score, neurons, neurons_scores}`.

    Raises CircuitspecError (CS383).
    """
    size = edges.size
    names = [format_name(sender) for sender in size.senders]
    infos = {name: info if isinstance(info, dict) else {"in_graph": info} for name, info in content.items()}
    known = {*names, "logits"}
    faults = [
        f"node {shown(name)}: a model of {size} has no such node"
        for name, info in infos.items()
        if name not in known and info.get("in_graph") is True
    ]
    marked = np.array([infos.get(name, {}).get("in_graph") is True for name in names])
    scores = np.full(len(names), np.nan)
    channels: list[object] = []
    channel_scores: list[object] = []
    for place, name in enumerate(names):
        info = infos.get(name, {})
        decided, score = info.get("in_graph"), info.get("score")
        if not (decided is None or isinstance(decided, bool)) or not (score is None or _is_number(score)):
            faults.append(
                f"node {shown(name)}: {shown(info)} is no object of a number `score` and a truth value `in_graph`"
            )
            continue
        if score is not None:
            scores[place] = number(score)
        channels.append(info.get("neurons"))
        channel_scores.append(info.get("neurons_scores"))
    if faults:
        raise wrong(path, faults)
    absent = sum(one is None for one in channels)
    if 0 < absent < len(names):  # EAP-IG takes such a node to keep no channel, which nobody who writes it will mean
        raise wrong(path, [f"nodes without `neurons`, beside others that have them: {absent}"])
    return _reading(
        edges,
        marked if any(info.get("in_graph") is not None for info in infos.values()) else None,
        None if np.isnan(scores).all() else scores,
        _rows(path, channels, size, "neurons"),
        _rows(path, channel_scores, size, "neurons_scores"),
        unnamed=sum(name not in infos for name in names),
    )


def tensor_nodes(path: Path, content: Mapping[str, object], edges: EdgeList, rows: Sequence[int]) -> NodeReading:
    """The tensors of nodes in a .pt file; `rows`: where each of the model's senders stands in them.

    Raises CircuitspecError (CS383).
    """
    n, width = len(edges.size.senders), edges.size.d_model
    found: dict[str, npt.NDArray[np.float64] | None] = {}
    for name in _TENSORS:
        given, by_channel = content.get(name), name.startswith("neurons")
        values = array(given, (n, width) if by_channel and width else None)
        if given is not None and (values is None or values.ndim != 1 + by_channel or len(values) != n):
            wanted = f"{n} nodes and {width or 'some'} channels" if by_channel else f"{n} nodes"
            raise wrong(path, [f"`{name}` is no tensor of {wanted}"])
        found[name] = None if values is None else values[rows]
    marked, channels = found["nodes_in_graph"], found["neurons_in_graph"]
    return _reading(
        edges, None if marked is None else marked != 0, found["nodes_scores"], channels, found["neurons_scores"]
    )


def _reading(
    edges: EdgeList,
    marked: Mask | None,
    scores: Scores | None,
    channels: Scores | None,
    channel_scores: Scores | None,
    unnamed: int = 0,
) -> NodeReading:
    if marked is not None:
        marked = marked.copy()
        marked[0] |= edges.kept[0].any()
    closed = not edges.kept.any() if marked is None else is_closed(edges.kept, marked, edges.size)
    kept = None if channels is None else (channels != 0)
    if kept is not None and not kept.any() and channel_scores is not None:
        kept = None  # scored, and not cut yet
    return NodeReading(edges.size, marked, scores, kept, channel_scores, closed, unnamed)


def _rows(path: Path, given: Sequence[object], size: Size, key: str) -> Scores | None:
    """[senders, channels] of the lists of a file, NaN for a value that is not given; None if there are no lists.

    A head has one list, or as EAP-IG writes it those of all heads of its layer.
    """
    if all(row is None for row in given):
        return None
    if size.d_model is None:
        raise wrong(path, [f"there are `{key}`, but `cfg` does not say how many channels there are (d_model)"])
    found: Scores = np.full((len(size.senders), size.d_model), np.nan)
    faults = []
    for place, (sender, row) in enumerate(zip(size.senders, given, strict=True)):
        if row is None:
            continue
        if isinstance(sender, Head) and isinstance(row, list) and len(row) == size.n_heads and _are_lists(row):
            row = row[sender.head]
        if not isinstance(row, list) or len(row) != size.d_model or not all(map(_is_value, row)):
            faults.append(f"node {format_name(sender)}: `{key}` is no list of {size.d_model} values: {shown(row)}")
            continue
        found[place] = [np.nan if value is None else number(value) for value in row]
    if faults:
        raise wrong(path, faults)
    return found


def _are_lists(values: Sequence[object]) -> bool:
    return all(isinstance(value, list) for value in values)


def _is_value(value: object) -> bool:
    return value is None or isinstance(value, bool) or _is_number(value)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
