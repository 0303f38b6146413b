"""An attribution graph, or a list of features -> the text of a hypothesis that says the same."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.dictionaries.dictionary_path import DictionaryPath
from circuitspec.dictionaries.readers.all_formats import files_of
from circuitspec.exchange.features import attribution_graphs as graphs
from circuitspec.exchange.features.attribution_graphs import AttributionGraph, GraphNode, read_graph
from circuitspec.exchange.features.feature_circuit import (
    DeclaredDictionary,
    FeatureCircuit,
    FeatureNode,
    distinct,
    sizes,
)
from circuitspec.exchange.features.feature_text import FeatureSurroundings, features_text
from circuitspec.exchange.loss import Loss, counted
from circuitspec.exchange.reading import shown
from circuitspec.graph.shape import ModelShape
from circuitspec.hypothesis_file.grammar.names import is_group_name
from circuitspec.hypothesis_file.load_file import parse_hypothesis
from circuitspec.hypothesis_file.schema.block import MetricName
from circuitspec.hypothesis_file.schema.blocks import ModelSpec
from circuitspec.hypothesis_file.yaml.source import MAX_BYTES
from circuitspec.models.at_hand import tokenizer_at_hand
from circuitspec.models.shapes import read_shape
from circuitspec.prompts.files.prompt_files import read_prompts
from circuitspec.prompts.prompt_set import PromptSet
from circuitspec.prompts.task_findings import TaskFindings

ERRORS = "errors"
_LAYER = "layer_{}"
_SEVERAL_LAYERS = re.compile(r"(?<![a-z])(clts?|cross[-_ ]?layer)(?![a-z])", re.IGNORECASE)
_SPECIAL = re.compile(r"<[^<>]+>|\[[A-Z]+\]")
_MOST_NAMED = 5
_INSTRUCTED = ("<start_of_turn>", "user")  # behind <bos>, in prompts of Gemma 3's instructed models


@dataclass(frozen=True)
class FeatureOptions:
    """What the user says beyond the file.

    dictionaries: the folder of circuit-tracer's transcoders, or one with a folder for each dictionary, by its name.
    top, influence, threshold: how much of a file is taken; pinned: what the viewer's user pinned alone.
    """

    model: str | None = None
    prompts: Path | None = None
    dictionaries: Path | None = None
    top: int | None = None
    threshold: float | None = None
    influence: float | None = None
    pinned: bool = False


@dataclass(frozen=True)
class ImportedFeatures:
    """A hypothesis file's text, the prompts to stand beside it (None where they were given), and what is otherwise."""

    text: str
    prompts: str | None
    circuit: FeatureCircuit
    losses: tuple[Loss, ...]

    @property
    def size(self) -> str:
        return sizes(self.circuit.nodes)


def prompts_beside(out: Path) -> Path:
    """Where the prompts of a hypothesis stand that is written to `out`."""
    return out.with_name(f"{stem_of(out)}.prompts.jsonl")


def stem_of(out: Path) -> str:
    return out.name.removesuffix(".yaml").removesuffix(".circuit") or "imported"


def import_graph(file: Path, out: Path, options: FeatureOptions) -> ImportedFeatures:
    """The graph in `file` as a hypothesis to be written to `out`; nothing is written here.

    Raises CircuitspecError: CS382 to CS384 for the file, CS571 for features of several layers, CS572 where nothing is
    left of it or what is asked for is not in it, CS573 for a graph of another model, CS373 for dictionaries that are
    not there, CS300 to CS305 for the model, CS330 to CS351 for prompts that are given.
    """
    graph = read_graph(file)
    _refuse_several_layers(file, graph, options)
    shape = None if options.model is None else read_shape(ModelSpec(id=options.model), out.parent)
    n_layers, losses = _layers(file, graph, shape)
    if options.model is not None:
        _check_tokens(file, graph, ModelSpec(id=options.model), out.parent)
    chosen, said = _chosen(file, graph, options)
    losses += said
    nodes = distinct([_feature_node(node, group) for node, group in _grouped(graph, chosen)])
    whole = not any(node.position == 0 for node in nodes)
    circuit = FeatureCircuit(nodes, _transcoders(graph, n_layers, out, options, skip_first=whole))
    losses += _lost(graph, circuit)
    around, prompts, made_up = _surroundings(file, graph, circuit, out, options)
    return finished(out, circuit, around, (*losses, *made_up), prompts)


def finished(
    out: Path, circuit: FeatureCircuit, around: FeatureSurroundings, losses: Sequence[Loss], prompts: str | None
) -> ImportedFeatures:
    """The text, held against the schema. Raises CS388 for one that is too large."""
    text = features_text(circuit, around, losses)
    if len(text.encode()) > MAX_BYTES:
        said = f"{counted(len(circuit), 'node')} make a hypothesis of {len(text.encode()) / 1e6:.1f} MB"
        hint = f"keep fewer (--top, --influence): a hypothesis holds at most {MAX_BYTES / 1e6:.0f} MB"
        raise CircuitspecError(Diagnostic("CS388", said, hint=hint))
    parse_hypothesis(text, str(out), out.parent)
    return ImportedFeatures(text, prompts, circuit, tuple(losses))


def given_prompts(options_prompts: Path, out: Path) -> tuple[PromptSet, str]:
    """Prompts that the user names, and how a hypothesis names them."""
    found = read_prompts(options_prompts, TaskFindings())
    return found, Path(os.path.relpath(options_prompts, out.parent)).as_posix()


def metric_for(prompts: PromptSet) -> MetricName:
    """What can be measured on these prompts."""
    first = prompts.prompts[0]
    return "logit_diff" if first.answers and first.wrong else "logprob" if first.answers else "kl"


# ------------------------------------------------------------------------------------------------ what the graph is of


def _refuse_several_layers(file: Path, graph: AttributionGraph, options: FeatureOptions) -> None:
    """CS571 for features that write to several layers. `feature_type` says "cross layer" of all, so names must tell."""
    named = [one for one in (graph.scan, *graph.transcoders) if _SEVERAL_LAYERS.search(one)]
    hint = "make the graph with transcoders that read and write one layer each (a set of per-layer transcoders)"
    if named and options.dictionaries is None:
        said = f"{file} is of {shown(named[0])}, whose features, by its name, each write to several layers"
        hint += "; if these are such, say so: --dictionaries names their folder"
        raise CircuitspecError(Diagnostic("CS571", said, hint=hint))
    if options.dictionaries is not None and (options.dictionaries / "config.yaml").is_file():
        kind = DictionaryPath(options.dictionaries).settings("config.yaml").get("model_kind")
        if isinstance(kind, str) and _SEVERAL_LAYERS.search(kind):
            said = f"the features of {options.dictionaries} each write to several layers: its config.yaml says {kind}"
            raise CircuitspecError(Diagnostic("CS571", said, hint=hint))


def _layers(file: Path, graph: AttributionGraph, shape: ModelShape | None) -> tuple[int, tuple[Loss, ...]]:
    """How many layers the model has: it is known, or the logits' layer is the one after the last but one."""
    last = max((node.layer for node in graph.nodes if node.layer is not None), default=-1)
    if shape is None:
        if graph.last_layer is not None:
            told = max(graph.last_layer - 1, last + 1)
            said = f"the model is taken to have {counted(told, 'layer')}, since the logits stand in {graph.last_layer}"
        else:
            told = last + 1
            said = f"the file does not say how many layers the model has: taken are {told}, up to the last one named"
        return max(told, 1), (Loss("size", f"{said} (--model says it)"),)
    fits = graph.last_layer is None or graph.last_layer in (shape.n_layers, shape.n_layers + 1)
    if last >= shape.n_layers or not fits:
        of = f"layer {last}" if last >= shape.n_layers else f"logits in layer {graph.last_layer}"
        said = f"{file} is of another model: it has {of}, and the model named has layers 0 to {shape.n_layers - 1}"
        raise _other_model(said)
    return shape.n_layers, ()


def _check_tokens(file: Path, graph: AttributionGraph, model: ModelSpec, base_dir: Path) -> None:
    """CS573 where the model's tokenizer, if it is on this machine, makes other texts of the graph's token ids."""
    ids, found = graph.token_ids, tokenizer_at_hand(model, base_dir)
    if ids is None or found is None or found.plain is None:
        return
    n_vocab = len(found.plain)
    answers = [node.number or 0 for node in graph.of("logit")]
    for position, number in enumerate(ids):
        wanted = graph.tokens[position]
        own = "" if number >= n_vocab else found.plain.decode([number]).translate(graphs.SHOWN)
        if number >= n_vocab or ("\ufffd" not in own + wanted and own.strip() != wanted.strip()):
            is_own = "no token" if number >= n_vocab else shown(own)
            said = f"{file} is of another model: its token {position}, {number}, is {shown(wanted)} there"
            raise _other_model(f"{said}, and {is_own} in {model.id}")
    beyond = [number for number in answers if number >= n_vocab]
    if beyond:
        said = f"{file} has the logit {beyond[0]}, which is no token of {model.id}: it has {n_vocab:,}"
        raise _other_model(said)


def _other_model(message: str) -> CircuitspecError:
    return CircuitspecError(Diagnostic("CS573", message, hint="name the model that the graph was made of (--model)"))


# --------------------------------------------------------------------------------------------------------- the circuit


def _chosen(
    file: Path, graph: AttributionGraph, options: FeatureOptions
) -> tuple[tuple[GraphNode, ...], tuple[Loss, ...]]:
    """The features and errors that are to be the circuit, and what is left out of the graph."""
    nodes = graph.of("feature", "error")
    losses: list[Loss] = []
    if options.pinned:
        if not graph.pinned:
            raise _no_circuit(f"{file} has no pinned nodes", "leave out --pinned: all of its nodes are meant")
        nodes = tuple(node for node in nodes if node.id in graph.pinned)
        if doubtful := [node for node in nodes if node.id in graph.shared_ids]:
            said = f"{counted(len(doubtful), 'node')} taken that share a pinned identifier: which is meant is not told"
            losses.append(Loss("identifiers", said))
    if options.top is not None or options.influence is not None:
        nodes = _ranked(file, nodes)
        if options.influence is not None:
            nodes = tuple(node for node in nodes if _influence(node) <= options.influence)
        if options.top is not None:
            nodes = nodes[: options.top]
    left = len(graph.of("feature", "error")) - len(nodes)
    if left:
        losses.append(Loss("missing", f"{counted(left, 'feature or error')} of the file left out, as was asked for"))
    if not nodes:
        raise _no_circuit(f"no feature and no error of {file} is left", "raise --top or --influence")
    in_order = sorted(
        nodes, key=lambda node: (node.layer or 0, node.position, -1 if node.number is None else node.number)
    )
    return tuple(in_order), tuple(losses)


def _ranked(file: Path, nodes: tuple[GraphNode, ...]) -> tuple[GraphNode, ...]:
    """Those of the most influence first. It is cumulative: the most influential node has the smallest number."""
    if any(not 0 <= _influence(node) <= 1 + 1e-4 for node in nodes):
        said = (
            f"{file} does not say of every node the share of influence that it has with those before it (`influence`)"
        )
        hint = "leave out --top and --influence; circuit-tracer writes it, as a number from 0 to 1"
        raise _no_circuit(said, hint)
    return tuple(sorted(nodes, key=_influence))


def _influence(node: GraphNode) -> float:
    return math.inf if node.influence is None or math.isnan(node.influence) else node.influence


def _no_circuit(message: str, hint: str) -> CircuitspecError:
    return CircuitspecError(Diagnostic("CS572", message, hint=hint))


def _grouped(graph: AttributionGraph, nodes: Sequence[GraphNode]) -> list[tuple[GraphNode, str]]:
    """Each node with its group: the viewer's supernodes, then the rest by layer, and the errors."""
    named: dict[str, str] = {}
    for supernode in graph.supernodes:
        name = _group_name(supernode.name, {*named.values()})
        for one in supernode.ids:
            named.setdefault(one, name)
    order = {name: place for place, name in enumerate(dict.fromkeys(named.values()))}
    found = []
    for node in nodes:
        by_kind = ERRORS if node.kind == "error" else _LAYER.format(node.layer)
        # an identifier that an error shares with a feature means the feature: errors are not put into supernodes
        doubtful = node.kind == "error" and node.id in graph.shared_ids
        found.append((node, by_kind if doubtful else named.get(node.id, by_kind)))
    return sorted(found, key=lambda pair: (order.get(pair[1], len(order)), pair[1] == ERRORS))


def _group_name(text: str, taken: set[str]) -> str:
    """A supernode's name as a group may be called."""
    name = text if is_group_name(text) else re.sub(r"[^A-Za-z0-9_]+", "_", text).strip("_") or "supernode"
    name = name if is_group_name(name) else f"supernode_{name}"
    free = (name, *(f"{name}_{k}" for k in range(2, len(taken) + 3)))
    return next(one for one in free if one not in taken)


def dictionary_name(layer: int) -> str:
    """What a layer's transcoder is called."""
    return f"mlp{layer}"


def _feature_node(node: GraphNode, group: str) -> FeatureNode:
    index = node.number if node.kind == "feature" else None
    return FeatureNode(dictionary_name(node.layer or 0), index, node.position, group, node.label)


def _transcoders(
    graph: AttributionGraph, n_layers: int, out: Path, options: FeatureOptions, *, skip_first: bool
) -> tuple[DeclaredDictionary, ...]:
    """A transcoder for every layer, of which the graph names a feature or not: all MLPs are taken apart."""
    found = []
    for layer in range(n_layers):
        name = dictionary_name(layer)
        source, format_name = None, None
        if options.dictionaries is not None:
            own = options.dictionaries / name
            source, format_name = (own, None) if own.exists() else (options.dictionaries, "circuit_tracer")
            files_of(source, layer, format_name or "auto")
        known_as = graph.transcoders[layer] if len(graph.transcoders) == n_layers else ""
        written = None if source is None else Path(os.path.relpath(source, out.parent)).as_posix()
        found.append(DeclaredDictionary(name, f"m{layer}", written, format_name, skip_first, True, known_as))
    return tuple(found)


# ----------------------------------------------------------------------------------------------- what is said otherwise


def _lost(graph: AttributionGraph, circuit: FeatureCircuit) -> tuple[Loss, ...]:
    losses = [Loss("embeddings", "embeddings are always those of the prompt, and no part of the circuit")]
    if graph.n_links:
        losses.append(
            Loss("edges", f"{counted(graph.n_links, 'link')} left out: who reads whom follows from the model")
        )
    if graph.shared_ids:
        ids = ", ".join(graph.shared_ids[:_MOST_NAMED]) + (", ..." if len(graph.shared_ids) > _MOST_NAMED else "")
        said = f"{counted(len(graph.shared_ids), 'identifier')} of several nodes each ({ids}), told apart by their type"
        losses.append(
            Loss("identifiers", f"{said}; of {counted(graph.n_unclear, 'link')} it is not told which node is meant")
        )
    if graph.n_repeated:
        losses.append(Loss("identifiers", f"{counted(graph.n_repeated, 'node')} that stood in the file twice"))
    if any(node.influence is not None or node.activation is not None for node in graph.nodes):
        losses.append(Loss("scores", "influence and activation are not kept: the model is run anew"))
    if circuit.dictionaries[0].skip_first:
        losses.append(Loss("positions", "the first token has no features: what MLPs add there stays as it is"))
        if graph.tokens[1:3] == _INSTRUCTED:
            said = "circuit-tracer has no nodes at the first four tokens of such a prompt; here all but one have them"
            losses.append(Loss("positions", said))
    frozen = "the graph holds attention and norms fixed; here they are computed anew from what is ablated"
    losses.append(Loss("computation", frozen))
    return tuple(losses)


def _surroundings(
    file: Path, graph: AttributionGraph, circuit: FeatureCircuit, out: Path, options: FeatureOptions
) -> tuple[FeatureSurroundings, str | None, tuple[Loss, ...]]:
    """Model, prompts and claims; the lines of a prompts file, unless one is given; and what was made up for them."""
    losses: list[Loss] = []
    if options.model is None:
        scan = f", which calls it {shown(graph.scan)}" if graph.scan else ""
        losses.append(Loss("model", f"a placeholder stands for it{scan} (--model names it)"))
    if options.dictionaries is None:
        losses.append(Loss("dictionaries", "not in the file: placeholders stand for them (--dictionaries names them)"))
    named = dict(enumerate(graph.tokens))
    offset, special, prompts = 0, None, None
    metric: MetricName
    if options.prompts is not None:
        given, path = given_prompts(options.prompts, out)
        metric, prompt = (
            metric_for(given),
            f"The graph is of the prompt {json.dumps(graph.prompt, ensure_ascii=False)}.",
        )
        offset = int(_SPECIAL.fullmatch(graph.tokens[0]) is not None)
        special = "bos" if offset else "none"
        said = "prompts other than the graph's own: features stand at the same token indices in each of them"
        losses.append(Loss("prompts", said))
    else:
        entry, metric, told = _entry(file, graph)
        losses += told
        prompts, path = f"{json.dumps(entry, ensure_ascii=False)}\n", prompts_beside(out).name
        prompt = f"The prompt: {json.dumps(graph.prompt, ensure_ascii=False)}"
        special = None if isinstance(entry["clean"], list) else "none"
        losses.append(
            Loss("prompts", "one prompt has no confidence interval: a verdict needs ten (--prompts gives them)")
        )
    losses.append(Loss("ablation", "taken to be zero: features outside are switched off, and errors are removed"))
    losses.append(Loss("claims", "the file claims nothing: two are made up, with bounds of 0.8 and 0.3"))
    of_file = graph.of("feature", "error")
    heading = f"{sizes(circuit.nodes)}, of the file's {sizes([_feature_node(node, '') for node in of_file])}"
    return (
        FeatureSurroundings(
            stem_of(out),
            heading,
            f"{file.name} ({graphs.TITLE})",
            options.model,
            path,
            "{value: zero, level: node, positions: declared}",
            "All other features are 0, and so are all other errors.",
            metric,
            prompt,
            named,
            offset,
            special,
        ),
        prompts,
        tuple(losses),
    )


def _entry(file: Path, graph: AttributionGraph) -> tuple[Mapping[str, object], MetricName, tuple[Loss, ...]]:
    """The graph's prompt as a line of a prompts file: its token ids if all are told, and the logits as answers."""
    ids = graph.token_ids
    losses = []
    if ids is None:
        if not graph.prompt.strip():
            raise _no_circuit(f"{file} tells neither the text nor the tokens of its prompt", "give it with --prompts")
        said = "not every token has an embedding in the file: the prompt is its text, with the special tokens in it"
        losses.append(Loss("prompts", said))
    logits = sorted(graph.of("logit"), key=lambda node: (not node.is_target, -node.probability))
    entry: dict[str, object] = {"clean": graph.prompt if ids is None else list(ids)}
    if not logits:
        losses.append(Loss("claims", "the file has no logits: kl is to the clean model"))
        return entry, "kl", tuple(losses)
    answer, *others = (node.number for node in logits)
    entry["answers"] = [answer]
    if not others:
        return entry, "logprob", tuple(losses)
    entry["wrong"] = others
    said = "the answer is the logit that the file calls the target, or else the most probable one; its others are wrong"
    losses.append(Loss("claims", said))
    return entry, "logit_diff", tuple(losses)
