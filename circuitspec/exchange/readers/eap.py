"""EAP-IG's graphs as JSON or .pt; the Mechanistic Interpretability Benchmark (MIB) takes edge circuits in this form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.exchange.edge_lists import EdgeList, Size
from circuitspec.exchange.loss import Loss, counted
from circuitspec.exchange.node_lists import NodeList, NodeReading
from circuitspec.exchange.readers.eap_nodes import json_nodes, tensor_nodes
from circuitspec.exchange.readers.tensors import array, saved
from circuitspec.exchange.readers.untrusted import read_json, read_tensors
from circuitspec.exchange.reading import FileReading, agreed, checked_size, number, shown, wrong
from circuitspec.graph.edges import format_receiver
from circuitspec.hypothesis_file.grammar.names import format_name

TENSOR_SUFFIXES = (".pt", ".pth")

_OBJECTS = ("cfg", "nodes", "edges")
_TENSORS = ("cfg", "src_nodes", "dst_nodes", "edges_in_graph")
# shares of all edges at which MIB wants a circuit each
_SUBMISSION = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


def read(path: Path, known: Size | None) -> FileReading:
    """The graph in a JSON or .pt file; CS382 to CS384 and CS386 for what is none, or of another model than `known`."""
    return _read_tensors(path, known) if path.suffix.lower() in TENSOR_SUFFIXES else _read_json(path, known)


def write(edges: EdgeList, out: Path) -> tuple[bytes, tuple[Loss, ...]]:
    """The content of a JSON or .pt file, by the suffix of `out`; CS386 where the model's width is not known."""
    if edges.size.d_model is None:
        raise CircuitspecError(
            Diagnostic(
                "CS386",
                "the format states the model's width, which is not known here",
                hint=f"give it with --size {edges.size.n_layers}x{edges.size.n_heads}xCHANNELS",
            )
        )
    content = _tensors(edges) if out.suffix.lower() in TENSOR_SUFFIXES else _json(edges)
    said = "every edge must have a score: 1 for those of the circuit, 0 for the others"
    return content, (Loss("scores", said),)


def write_submission(edges: EdgeList, out: Path) -> tuple[bytes, tuple[Loss, ...]]:
    """As `write`, and which of the circuits of a MIB submission this can be."""
    content, losses = write(edges, out)
    share = len(edges) / int(edges.size.possible.sum())
    fitting = next((f"{limit:.1%}" for limit in _SUBMISSION if share <= limit), None)
    place = f"the one of at most {fitting}" if fitting else "none: they hold at most half of the edges"
    said = f"a submission holds nine circuits of growing size; with {share:.2%} of all edges this can be {place}"
    return content, (*losses, Loss("submission", said))


def sender_names(size: Size) -> list[str]:
    """`input`, `a0.h1`, `m0`, in the order of the format's forward index."""
    return [format_name(sender) for sender in size.senders]


def receiver_names(size: Size) -> list[str]:
    """`a0.h1<q>`, `m0`, `logits`, in the order of the format's backward index."""
    return [format_receiver(receiver, size.shape) for receiver in size.receivers]


def _read_json(path: Path, known: Size | None) -> FileReading:
    content = read_json(path, _decided)
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), dict) for key in ("cfg", "nodes", "edges")
    ):
        raise wrong(path, ["there are no objects `cfg`, `nodes` and `edges`"], "EAP-IG's Graph.to_json writes them")
    size = _size(path, content["cfg"], known)
    rows = {name: row for row, name in enumerate(sender_names(size))}
    columns = {name: column for column, name in enumerate(receiver_names(size))}
    before = size.possible.sum(axis=0).tolist()
    kept = np.zeros(size.possible.shape, bool)
    scores = np.where(size.possible, np.nan, 0.0)
    found: list[tuple[int, int]] = []
    faults: list[str] = []
    n_decided = n_scored = 0
    for name, info in content["edges"].items():
        sender, _, receiver = name.partition("->")
        row, column = rows.get(sender), columns.get(receiver)
        if row is None or column is None or row >= before[column]:
            faults.append(f"{shown(name)}: a model of {size} has no such edge")
            continue
        if isinstance(info, _Decided):
            score, decided = info
        else:
            score, decided = (info.get("score"), info.get("in_graph")) if isinstance(info, dict) else ("", "")
        if not (decided is None or isinstance(decided, bool)) or not (
            score is None or (isinstance(score, int | float) and not isinstance(score, bool))
        ):
            said = shown(_as_given(info))
            faults.append(f"{shown(name)}: {said} is no object of a number `score` and a truth value `in_graph`")
            continue
        if decided is not None:
            n_decided += 1
            if decided:
                found.append((row, column))
        if score is not None:
            n_scored += 1
            scores[row, column] = number(score)
    if not faults and n_decided not in (0, len(content["edges"])):
        faults.append(
            f"{counted(len(content['edges']) - n_decided, 'edge')} without `in_graph`, beside others that have it"
        )
    if faults:
        raise wrong(path, faults)
    for row, column in found:
        kept[row, column] = True
    edges = EdgeList(size, kept, scores if n_scored else None)
    nodes = json_nodes(path, {name: _as_given(info) for name, info in content["nodes"].items()}, edges)
    n_named = len(content["edges"])
    unnamed, unscored = int(size.possible.sum()) - n_named, n_named - int((~np.isnan(scores))[size.possible].sum())
    return FileReading(
        edges, bool(n_decided), edgeless=_edgeless(nodes, edges), unnamed=unnamed, unscored=unscored, nodes=nodes
    )


class _Decided(NamedTuple):
    """What is said of an edge, in less memory than a dict: of a large model there are a million."""

    score: object
    in_graph: object


def _decided(pairs: list[tuple[str, object]]) -> _Decided | None:
    if len(pairs) != 2:
        return None
    (first, one), (second, other) = pairs
    if first == "score" and second == "in_graph":
        return _Decided(one, other)
    return _Decided(other, one) if first == "in_graph" and second == "score" else None


def _as_given(info: object) -> object:
    return info._asdict() if isinstance(info, _Decided) else info


def _edgeless(nodes: NodeReading, edges: EdgeList) -> int:
    """How many heads and MLPs the file counts in, but none of their edges."""
    if nodes.marked is None:
        return 0
    return len(NodeList(edges.size, nodes.marked).nodes - edges.nodes)


def _size(path: Path, content: object, known: Size | None) -> Size:
    """What `cfg` says, if that is the size of the model."""
    cfg = content if isinstance(content, dict) else {}
    parallel = cfg.get("parallel_attn_mlp", False)
    if not isinstance(parallel, bool):
        raise wrong(path, [f"cfg.parallel_attn_mlp is given as {shown(parallel)}"], "it should be true or false")
    has_mlps = known is None or known.has_mlps  # the format takes every model to have them
    said = checked_size(
        path, cfg.get("n_layers"), cfg.get("n_heads"), cfg.get("d_model"), parallel=parallel, has_mlps=has_mlps
    )
    return agreed(path, said, None if known is None else known.ungrouped)


def _read_tensors(path: Path, known: Size | None) -> FileReading:
    content = read_tensors(path)
    if not isinstance(content, dict) or not all(key in content for key in _TENSORS):
        raise wrong(path, [f"there are no {', '.join(_TENSORS)}"], "EAP-IG's Graph.to_pt writes them")
    size = _size(path, content["cfg"], known)
    rows = _order(path, content, "src_nodes", sender_names(size), size)
    columns = _order(path, content, "dst_nodes", receiver_names(size), size)
    shape = size.possible.shape
    given = content.get("edges_scores")  # MIB takes circuits without
    scores, marked = array(given, shape), array(content["edges_in_graph"], shape)
    if (given is not None and scores is None) or marked is None:
        said = f"`edges_scores` and `edges_in_graph` are no tensors of {shape[0]} senders and {shape[1]} receivers"
        raise wrong(path, [said])
    in_graph = marked[np.ix_(rows, columns)] != 0
    if scores is not None:
        scores = np.where(size.possible, scores[np.ix_(rows, columns)], 0.0)
    edges = EdgeList(size, in_graph & size.possible, scores)
    losses: tuple[Loss, ...] = ()
    if unreal := int((in_graph & ~size.possible).sum()):
        losses += (Loss("dangling", f"{counted(unreal, 'marked pair')} between which the model has no edge"),)
    nodes = tensor_nodes(path, content, edges, rows)
    unscored = 0 if scores is None else int(np.isnan(scores).sum())
    return FileReading(edges, losses=losses, edgeless=_edgeless(nodes, edges), unscored=unscored, nodes=nodes)


def _order(path: Path, content: Mapping[str, object], key: str, names: list[str], size: Size) -> list[int]:
    """Where in the file's list each of `names` stands."""
    given = content[key]
    if not isinstance(given, list) or sorted(map(shown, given)) != sorted(map(shown, names)):
        raise wrong(path, [f"`{key}` does not name the nodes of a model of {size}"])
    place_of = {name: place for place, name in enumerate(given)}
    return [place_of[name] for name in names]


def _json(edges: EdgeList) -> bytes:
    size = edges.size
    names, readers = sender_names(size), receiver_names(size)
    nodes = {format_name(node) for node in edges.nodes}
    flags = edges.kept.tolist()
    content = {
        "cfg": _cfg(size),
        "nodes": {
            **{name: {"in_graph": name in nodes} for name in names[1:]},
            "input": {"in_graph": any(flags[0])},
            "logits": {"in_graph": True},
        },
        "edges": {
            f"{name}->{reader}": {"score": float(flags[row][column]), "in_graph": flags[row][column]}
            for column, reader in enumerate(readers)
            for row, name in enumerate(names[: int(size.possible[:, column].sum())])
        },
    }
    return json.dumps(content).encode("utf-8")


def _tensors(edges: EdgeList) -> bytes:
    nodes = edges.nodes
    in_graph = np.array([sender in nodes for sender in edges.size.senders])
    in_graph[0] = edges.kept[0].any()
    return saved(
        {
            "cfg": _cfg(edges.size),
            "src_nodes": sender_names(edges.size),
            "dst_nodes": receiver_names(edges.size),
            "edges_scores": edges.kept.astype(np.float32),
            "edges_in_graph": edges.kept,
            "nodes_in_graph": in_graph,
        }
    )


def _cfg(size: Size) -> dict[str, object]:
    return {
        "n_layers": size.n_layers,
        "n_heads": size.n_heads,
        "parallel_attn_mlp": size.parallel,
        "d_model": size.d_model,
    }
