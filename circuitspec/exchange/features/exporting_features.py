"""A hypothesis whose circuit has features -> an attribution graph that viewers show, or a plain list of features."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.exchange.features.attribution_graphs import SHOWN
from circuitspec.exchange.features.feature_circuit import DeclaredDictionary, FeatureCircuit, FeatureNode, distinct
from circuitspec.exchange.features.feature_lists import written_list
from circuitspec.exchange.loss import Loss, counted
from circuitspec.graph.nodes import Place
from circuitspec.hypothesis_file.grammar.components import (
    Component,
    DictionaryError,
    Feature,
    FeaturePattern,
    Logits,
    Pattern,
)
from circuitspec.hypothesis_file.grammar.names import GroupRef, PathItem, format_name, parse_name, parse_path
from circuitspec.hypothesis_file.load_file import Document
from circuitspec.models.at_hand import tokenizer_at_hand
from circuitspec.models.shapes import read_shape
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.prompt_set import CLEAN, TokenizedTask
from circuitspec.prompts.tokens.tokenize import tokenize

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FEATURE, _ERROR, _EMBEDDING, _LOGIT = (
    "cross layer transcoder",
    "mlp reconstruction error",
    "embedding",
    "logit",
)


@dataclass(frozen=True)
class ExportedFeatures:
    """A file's content, the circuit that it says, and what it cannot say."""

    content: bytes
    circuit: FeatureCircuit
    losses: tuple[Loss, ...]


@dataclass(frozen=True)
class _Declared:
    """A feature or an error of the circuit, with the positions that it is named at (none: everywhere)."""

    component: Feature | DictionaryError
    positions: tuple[str, ...]
    group: str
    place: Place

    def node(self, position: int | str | None) -> FeatureNode:
        index = self.component.index if isinstance(self.component, Feature) else None
        return FeatureNode(self.component.dictionary, index, position, self.group)


def export_list(document: Document) -> ExportedFeatures:
    """The circuit's features and errors with their positions: token indices, or names; nothing is written here.

    Raises CircuitspecError: CS575 for a circuit that has other nodes, or none.
    """
    told = {
        name: said for name, said in document.hypothesis.task.positions.items() if isinstance(said, int) and said >= 0
    }
    nodes = [
        one.node(None if at is None else told.get(at, at))
        for one in _declared(document)
        for at in one.positions or (None,)
    ]
    circuit = FeatureCircuit(distinct(nodes), _dictionaries(document))
    return ExportedFeatures(written_list(circuit), circuit, (*_roles_lost(document), *_rest_lost(document)))


def export_graph(document: Document) -> ExportedFeatures:
    """The circuit as a graph of the first prompt; nothing is written here.

    Raises CircuitspecError: CS575 for nodes that are no features of transcoders, CS506 where the model's configuration
    or tokenizer is not on this machine, CS330 to CS360 for the prompts.
    """
    declared = _declared(document)
    places = {name: spec.place for name, spec in document.hypothesis.dictionaries.items()}
    elsewhere = [one for one in declared if places[one.component.dictionary].kind != "mlp"]
    if elsewhere:
        raise CircuitspecError(
            *(
                _wordless(
                    f"{format_name(one.component)} is of {places[one.component.dictionary]}, and graphs are of MLPs",
                    one.place,
                    document,
                    "export it --as feature-list",
                )
                for one in elsewhere
            )
        )
    prompt = _Prompt.first_of(document)
    nodes: list[FeatureNode] = []
    everywhere = 0
    for one in declared:
        skips = document.hypothesis.dictionaries[one.component.dictionary].skip_first
        everywhere += not one.positions
        at = [token for role in one.positions for token in prompt.tokens_at(role)]
        nodes += [one.node(token) for token in (at if one.positions else range(int(skips), len(prompt.ids)))]
    circuit = FeatureCircuit(distinct(nodes), _dictionaries(document))
    layers = {name: place.layer for name, place in places.items()}
    links = _links(document, circuit, layers, prompt)
    content = {
        "metadata": {
            "slug": document.hypothesis.name,
            "scan": document.hypothesis.model.id,
            "transcoder_list": [],
            "prompt_tokens": [*prompt.tokens],
            "prompt": "".join(prompt.tokens) if prompt.text is None else prompt.text,
            "node_threshold": None,
            "schema_version": 1,
        },
        "qParams": {
            "pinnedIds": [_id(node, layers) for node in circuit.nodes],
            "supernodes": [
                [group, *(_id(node, layers) for node in members)] for group, members in circuit.by_group.items()
            ],
            "linkType": "both",
            "clickedId": "",
            "sg_pos": "",
        },
        "nodes": [*(_node(node, layers) for node in circuit.nodes), *prompt.nodes()],
        "links": links,
    }
    losses = [*prompt.losses, *_roles_lost(document)]
    if everywhere:
        said = f"{counted(everywhere, 'node')} named at no position written once a token"
        losses.append(Loss("positions", said))
    losses.append(Loss("scores", "influence, activations and probabilities are not known: the model was not run"))
    if links:
        losses.append(
            Loss("edges", f"{counted(len(links), 'link')} of declared paths, with a weight of 1: none is known")
        )
    losses += _rest_lost(document)
    return ExportedFeatures(f"{json.dumps(content, indent=1, ensure_ascii=False)}\n".encode(), circuit, tuple(losses))


def _declared(document: Document) -> list[_Declared]:
    """The circuit's features and errors. Raises CS575 for all else that it has, and for a circuit without any."""
    found, problems = [], []
    for group, block in document.hypothesis.circuit.groups.items():
        at = (block.at,) if isinstance(block.at, str) else block.at or ()
        for i, text in enumerate(block.nodes):
            place: Place = ("circuit", "groups", group, "nodes", i)
            name = parse_name(text)
            parts = _parts(name.target)
            if not parts:
                said = f"{format_name(name.target)} is neither a feature of a dictionary nor an error"
                problems.append(_wordless(said, place, document, "take it out, or declare it `free`"))
            found += [_Declared(one, name.positions or at, group, place) for one in parts]
    unknown = [one for one in found if one.component.dictionary not in document.hypothesis.dictionaries]
    for one in unknown:
        said = f"{format_name(one.component)} is of a dictionary that the file does not declare"
        problems.append(_wordless(said, one.place, document, "name it under `dictionaries`"))
    if problems:
        raise CircuitspecError(*problems)
    return found


def _parts(target: Component | Pattern) -> tuple[Feature | DictionaryError, ...]:
    match target:
        case Feature() | DictionaryError():
            return (target,)
        case FeaturePattern():
            return tuple(Feature(target.dictionary, number) for number in sorted(target.numbers))
    return ()


def _wordless(message: str, place: Place, document: Document, hint: str) -> Diagnostic:
    return Diagnostic("CS575", message, document.source.span(place), hint=hint)


def _dictionaries(document: Document) -> tuple[DeclaredDictionary, ...]:
    return tuple(
        DeclaredDictionary(name, spec.at, spec.named, None, spec.skip_first, spec.error == "ablate")
        for name, spec in document.hypothesis.dictionaries.items()
    )


def _roles_lost(document: Document) -> list[Loss]:
    groups = document.hypothesis.circuit.groups
    signed = [name for name, group in groups.items() if group.effect != "positive"]
    if not signed:
        return []
    return [Loss("signs", f"that {', '.join(signed)} are negative or backup features is not said")]


def _rest_lost(document: Document) -> list[Loss]:
    hypothesis = document.hypothesis
    losses = []
    if hypothesis.circuit.free:
        losses.append(Loss("free", f"that {', '.join(hypothesis.circuit.free)} are free is not said"))
    names = ", ".join(hypothesis.dictionaries)
    losses.append(Loss("dictionaries", f"where the files of {names} lie, and how they are read, is not written"))
    claims = counted(len(hypothesis.claims), "claim")
    losses.append(Loss("claims", f"model {hypothesis.model.id}, corruptions, ablation and {claims} are not written"))
    return losses


# ---------------------------------------------------------------------------------------------- the graph of one prompt


@dataclass(frozen=True)
class _Prompt:
    """The first prompt: its tokens, where its positions lie, and the answers."""

    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    text: str | None
    task: TokenizedTask
    answers: tuple[int, ...]
    names: Mapping[int, str]  # of answers
    n_layers: int
    losses: tuple[Loss, ...]

    @classmethod
    def first_of(cls, document: Document) -> _Prompt:
        """Raises CS506 where the model's configuration or tokenizer is not on this machine."""
        hypothesis, text = document.hypothesis, document.source
        with document.blamed_on("model", "id"):
            shape = read_shape(hypothesis.model, document.base_dir)
            found = tokenizer_at_hand(hypothesis.model, document.base_dir)
        if shape is None or found is None:
            said = (
                f"{hypothesis.model.id} is not on this machine, which says how many layers it has and what tokens are"
            )
            raise CircuitspecError(Diagnostic("CS506", said, text.span(("model", "id")), hint="name a local directory"))
        prompts = build_prompts(hypothesis.task, document.base_dir, text)
        framed = prompts.framing.special_tokens == "bos" or prompts.framing.chat is not None
        plain = None if framed and found.directory is not None else found.plain
        tokenizer = cast("PreTrainedTokenizerBase", plain) if plain is not None else found.loaded(shape.n_vocab)
        task = tokenize(prompts, hypothesis.task.positions, tokenizer, text, unequal=True)
        ids = task.ids[CLEAN][0]
        answers = tuple(dict.fromkeys((*task.answers[0], *task.wrong[0])))
        own = task.prompts.prompts[0]
        losses = []
        if len(task.prompts.prompts) > 1:
            more = counted(len(task.prompts.prompts) - 1, "further prompt")
            losses.append(Loss("prompts", f"the graph is of the first prompt: {more} left out"))
        if not answers:
            losses.append(Loss("claims", "the prompt has no answers, and so the graph no logits"))
        tokens = tuple(str(tokenizer.decode([one])).translate(SHOWN) for one in ids)
        named = {one: str(tokenizer.decode([one])).translate(SHOWN) for one in answers}
        return cls(
            ids,
            tokens,
            None if own.ids else own.texts[CLEAN],
            task,
            answers,
            named,
            shape.n_layers,
            tuple(losses),
        )

    def tokens_at(self, role: str) -> tuple[int, ...]:
        return self.task.tokens_at(role, 0)

    def nodes(self) -> list[dict[str, object]]:
        """Embeddings of all tokens, and the answers as logits, of which the first is the target."""
        last = len(self.ids) - 1
        found = [
            _written(f"E_{number}_{token}", token, "E", token, _EMBEDDING, f"E_{number}-{token}")
            for token, number in enumerate(self.ids)
        ]
        for place, number in enumerate(self.answers):
            layer = str(self.n_layers + 1)
            one = _written(f"{layer}_{number}_{last}", number, layer, last, _LOGIT, f"L_{number}-{last}")
            found.append({**one, "is_target_logit": place == 0, "clerp": f'Output "{self.names[number]}"'})
        return found


def _id(node: FeatureNode, layers: Mapping[str, int]) -> str:
    """As circuit-tracer calls it; an error by the number -1, as later versions do: no two are called alike."""
    return f"{layers[node.dictionary]}_{-1 if node.index is None else node.index}_{node.position}"


def _node(node: FeatureNode, layers: Mapping[str, int]) -> dict[str, object]:
    layer, token = layers[node.dictionary], cast(int, node.position)
    if node.index is None:
        return _written(_id(node, layers), -1, str(layer), token, _ERROR, f"{layer}_-1-{token}")
    both = layer + node.index
    paired = both * (both + 1) // 2 + node.index  # Cantor's pairing of layer and number
    return _written(_id(node, layers), paired, str(layer), token, _FEATURE, f"{layer}_{node.index}-0")


def _written(name: str, feature: int, layer: str, token: int, kind: str, shown_as: str) -> dict[str, object]:
    return {
        "node_id": name,
        "feature": feature,
        "layer": layer,
        "ctx_idx": token,
        "feature_type": kind,
        "token_prob": 0.0,
        "is_target_logit": False,
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "jsNodeId": shown_as,
        "clerp": "",
        "influence": None,
        "activation": None,
    }


def _links(
    document: Document, circuit: FeatureCircuit, layers: Mapping[str, int], prompt: _Prompt
) -> list[dict[str, object]]:
    """A link for each two nodes that a declared path joins, from a layer to a later one, and to no earlier token."""
    found: dict[tuple[str, str], None] = {}
    for text in document.hypothesis.circuit.paths:
        for sender, receiver in parse_path(text).edges():
            for one in _ends(sender, circuit, layers, prompt):
                for other in _ends(receiver, circuit, layers, prompt):
                    if one.layer < other.layer and one.token <= other.token:
                        found[one.id, other.id] = None
    return [{"source": sender, "target": receiver, "weight": 1.0} for sender, receiver in found]


@dataclass(frozen=True)
class _End:
    id: str
    layer: int
    token: int


def _ends(item: PathItem, circuit: FeatureCircuit, layers: Mapping[str, int], prompt: _Prompt) -> list[_End]:
    """The nodes of the graph that a path means by a group, a feature or the logits; none for what the graph has not."""
    nodes: Sequence[FeatureNode]
    if isinstance(item, GroupRef):
        nodes = circuit.by_group.get(item.group, ())
    elif isinstance(item.target, Logits):
        layer, last = prompt.n_layers + 1, len(prompt.ids) - 1
        return [_End(f"{layer}_{number}_{last}", layer, last) for number in prompt.answers]
    else:
        meant = {(one.dictionary, one.index if isinstance(one, Feature) else None) for one in _parts(item.target)}
        at = {token for role in item.positions for token in prompt.tokens_at(role)}
        nodes = [
            node
            for node in circuit.nodes
            if (node.dictionary, node.index) in meant and (not item.positions or node.position in at)
        ]
    return [_End(_id(node, layers), layers[node.dictionary], cast(int, node.position)) for node in nodes]
