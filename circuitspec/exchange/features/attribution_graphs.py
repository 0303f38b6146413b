"""Attribution graphs as circuit-tracer writes them and Neuronpedia shows them: JSON -> an `AttributionGraph`.

A node's kind is told by its `feature_type` alone, since identifiers are not unique: circuit-tracer up to 0.5.0 calls
the error of layer 3 at token 5 `0_3_5`, as it calls feature 3 of layer 0 there. Layer and number of a feature are told
by its identifier, since `feature` is one number made of both, by one rule in some files and by another in others. An
error's layer is told by `layer`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, TypeGuard

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.exchange.readers.untrusted import read_json
from circuitspec.exchange.reading import MAX_LAYERS, shown, wrong

NodeKind: TypeAlias = Literal["feature", "error", "embedding", "logit"]

KINDS: Mapping[str, NodeKind] = {
    "cross layer transcoder": "feature",  # of transcoders of one layer, too
    "mlp reconstruction error": "error",
    "embedding": "embedding",
    "logit": "logit",
}
"""What `feature_type` says, in our words."""

TITLE = "attribution graph"
SHOWN = str.maketrans({"\n": "⏎", "\t": "→", "\r": "↵"})
"""What circuit-tracer shows in the place of white space in tokens."""
_ID = re.compile(r"(?P<place>[0-9]{1,9}|E|L)_(?P<number>[0-9]{1,12})_(?P<position>[0-9]{1,9})")
_MOST = 10**7  # of tokens
_SAVE_JSON = (
    "load it where you trust it, and let circuit-tracer write the JSON: "
    "create_graph_files(graph_or_path=..., slug=..., output_path=...)"
)


@dataclass(frozen=True)
class GraphNode:
    """A node. `layer` is of features and errors, `number` a feature's, or the token id of an embedding or a logit.

    influence: as the file has it: the share of all influence on the logits that this node has together with those that
        have more than it. So 0 is the most.
    """

    id: str
    kind: NodeKind
    position: int
    layer: int | None = None
    number: int | None = None
    influence: float | None = None
    activation: float | None = None
    label: str = ""
    probability: float = 0.0
    is_target: bool = False

    @property
    def key(self) -> tuple[NodeKind, int | None, int | None, int]:
        """What the node is, whatever it is called."""
        return self.kind, self.layer, self.number, self.position


@dataclass(frozen=True)
class Supernode:
    """Nodes that the viewer's user has put together under a name."""

    name: str
    ids: tuple[str, ...]


@dataclass(frozen=True)
class AttributionGraph:
    """A graph of one prompt.

    last_layer: the number of the layer that the logits are in, if the file has logits.
    n_links: how many links there are; `n_unclear` of them begin or end at an identifier that several nodes have.
    n_repeated: nodes that stood in the file a second time, and were left out.
    """

    nodes: tuple[GraphNode, ...]
    prompt: str
    tokens: tuple[str, ...]
    scan: str = ""
    transcoders: tuple[str, ...] = ()
    last_layer: int | None = None
    pinned: tuple[str, ...] = ()
    supernodes: tuple[Supernode, ...] = ()
    n_links: int = 0
    n_unclear: int = 0
    n_repeated: int = 0
    shared_ids: tuple[str, ...] = ()

    def of(self, *kinds: NodeKind) -> tuple[GraphNode, ...]:
        return tuple(node for node in self.nodes if node.kind in kinds)

    @property
    def token_ids(self) -> tuple[int, ...] | None:
        """The prompt's tokens, if the file has an embedding of every one."""
        found = {node.position: node.number for node in self.of("embedding")}
        ids = [found.get(position) for position in range(len(self.tokens))]
        told = tuple(one for one in ids if one is not None)
        return told if told and len(told) == len(ids) == len(found) else None


def read_graph(path: Path) -> AttributionGraph:
    """The graph in a JSON file.

    Raises CircuitspecError: CS382 for what is no JSON, CS384 for a graph that PyTorch saved (it holds objects of
    circuit-tracer), CS383 for nodes, links or metadata that do not say what the format says.
    """
    _refuse_saved(path)
    content = read_json(path)
    if not isinstance(content, Mapping):
        raise wrong(path, ["it is no JSON object with `metadata`, `nodes` and `links`"], _WHICH)
    metadata, listed = content.get("metadata"), content.get("nodes")
    if not isinstance(metadata, Mapping) or not isinstance(listed, list):
        raise wrong(path, ["it has no object `metadata` and no list `nodes`"], _WHICH)
    tokens = metadata.get("prompt_tokens")
    if not _is_texts(tokens) or not tokens:
        raise wrong(path, ["`metadata` has no `prompt_tokens`, a list of texts"], _WHICH)
    faults: list[str] = []
    nodes: dict[tuple[NodeKind, int | None, int | None, int], GraphNode] = {}
    last_layer: int | None = None
    for place, one in enumerate(listed):
        try:
            node, layer = _node(one, len(tokens))
        except _NoNode as error:
            faults.append(f"node {place} ({_id_of(one)}): {error}")
            continue
        nodes.setdefault(node.key, node)
        last_layer = layer if layer is not None else last_layer
    links = content.get("links", [])
    if not isinstance(links, list) or not all(isinstance(one, Mapping) for one in links):
        faults.append("`links` is no list of objects")
        links = []
    if faults:
        raise wrong(path, faults, _WHICH)
    n_of_id = Counter(node.id for node in nodes.values())
    shared = {name for name, n in n_of_id.items() if n > 1}
    asked = content.get("qParams")
    asked = asked if isinstance(asked, Mapping) else {}
    pinned, supernodes, transcoders = asked.get("pinnedIds"), asked.get("supernodes"), metadata.get("transcoder_list")
    return AttributionGraph(
        tuple(nodes.values()),
        str(metadata.get("prompt", "")),
        tuple(tokens),
        str(metadata.get("scan") or ""),
        tuple(transcoders) if _is_texts(transcoders) else (),
        last_layer,
        tuple(pinned) if _is_texts(pinned) else (),
        tuple(Supernode(one[0], tuple(one[1:])) for one in _listed(supernodes) if _is_texts(one) and len(one) > 1),
        len(links),
        sum(one.get("source") in shared or one.get("target") in shared for one in links),
        len(listed) - len(nodes),
        tuple(sorted(shared)),
    )


_WHICH = "an attribution graph is the JSON that circuit-tracer's create_graph_files writes, or that Neuronpedia gives"


class _NoNode(Exception):
    """What is wrong with a node."""


def _node(one: object, n_tokens: int) -> tuple[GraphNode, int | None]:
    """The node, and of a logit the layer that it is in."""
    if not isinstance(one, Mapping):
        raise _NoNode("it is no object")
    said = one.get("feature_type")
    kind = KINDS.get(said) if isinstance(said, str) else None
    if kind is None:
        raise _NoNode(f"its feature_type is {shown(said)}, which is not known; known are {', '.join(KINDS)}")
    name, position = one.get("node_id"), one.get("ctx_idx")
    if not isinstance(name, str):
        raise _NoNode("it has no node_id")
    if not _is_whole(position, n_tokens):
        raise _NoNode(f"its ctx_idx is {shown(position)}, and the prompt has tokens 0 to {n_tokens - 1}")
    parts = _ID.fullmatch(name)
    layer = _layer(one.get("layer"))
    if kind == "error":
        if layer is None:
            raise _NoNode(f"its layer is {shown(one.get('layer'))}")
        return GraphNode(name, kind, position, layer, None, *_figures(one)), None
    if parts is None:
        wanted = "TOKEN" if kind != "feature" else "NUMBER"
        raise _NoNode(f"its node_id is not LAYER_{wanted}_POSITION")
    if int(parts["position"]) != position:
        raise _NoNode(f"its node_id says token {parts['position']}, and its ctx_idx {position}")
    number = int(parts["number"])
    if kind == "feature":
        if layer is None or parts["place"] != str(layer):
            raise _NoNode(f"its node_id says layer {parts['place']}, and its `layer` {shown(one.get('layer'))}")
        return GraphNode(name, kind, position, layer, number, *_figures(one)), None
    if kind == "embedding":
        return GraphNode(name, kind, position, None, number, *_figures(one)), None
    probability = one.get("token_prob")
    chance = float(probability) if isinstance(probability, int | float) else 0.0
    found = GraphNode(name, kind, position, None, number, *_figures(one), chance, one.get("is_target_logit") is True)
    return found, layer


def _figures(one: Mapping[str, object]) -> tuple[float | None, float | None, str]:
    """Influence, activation and label."""
    found = [one.get(key) for key in ("influence", "activation")]
    numbers = [float(n) if isinstance(n, int | float) and not isinstance(n, bool) else None for n in found]
    named = one.get("ppClerp") or one.get("clerp")
    return numbers[0], numbers[1], named if isinstance(named, str) else ""


def _layer(value: object) -> int | None:
    """A layer, which files write as text."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        value = int(value)
    return value if _is_whole(value, MAX_LAYERS + 2) else None


def _is_whole(value: object, below: int) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < min(below, _MOST)


def _is_texts(value: object) -> TypeGuard[Sequence[str]]:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(one, str) for one in value)


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _id_of(one: object) -> str:
    return shown(one.get("node_id") if isinstance(one, Mapping) else one)


def _refuse_saved(path: Path) -> None:
    """CS384 for what `Graph.to_pt` wrote; other things are left to be read."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError:
        return
    if start.startswith((b"PK", b"\x80")):
        said = f"{path} is refused: a graph that PyTorch saved holds objects of circuit-tracer, not data alone"
        raise CircuitspecError(Diagnostic("CS384", said, hint=_SAVE_JSON))
