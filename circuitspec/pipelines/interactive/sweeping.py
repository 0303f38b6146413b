"""`circuitspec.sweep`: every component of a kind patched by itself, at each position, in a model in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from circuitspec.engine.attribution.feature_activity import moving_features
from circuitspec.experiments.experiment import Experiment
from circuitspec.exploration.request import SWEPT
from circuitspec.graph.nodes import NodeComponent, is_node, nodes_of
from circuitspec.graph.shape import DictionarySite, ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.component_kinds import FEATURE, KV_HEAD, RESID_MID, ComponentKind
from circuitspec.hypothesis_file.grammar.components import Component, Feature, all_of
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.models.load import LoadedModel
from circuitspec.pipelines.interactive.component_patching import label_of
from circuitspec.pipelines.interactive.given_prompts import PromptsLike
from circuitspec.pipelines.interactive.measured_frames import Patched, measured
from circuitspec.pipelines.interactive.memory_session import Laboratory, laboratory, manners
from circuitspec.pipelines.interactive.named_sites import check_roles
from circuitspec.prompts.own_metrics import OwnMetric
from circuitspec.prompts.prompt_set import TokenizedTask
from circuitspec.reports.text.result_frame import ResultFrame

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

ALL = "all"
KINDS: Mapping[str, ComponentKind] = {
    **{str(name): kind for name, kind in SWEPT.items()},
    "kv": KV_HEAD,
    "resid_mid": RESID_MID,
}
"""What can be swept, by the word for it."""


def sweep(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: PromptsLike,
    kinds: str | Sequence[str] = "heads",
    how: str = "noising",
    *,
    at: str | Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    corruption: str | Sequence[str] | None = None,
    positions: Mapping[str, str | int] | None = None,
    dictionaries: Mapping[str, Mapping[str, Any]] | None = None,
    metric: OwnMetric | Mapping[str, OwnMetric] | None = None,
    per_prompt: bool = False,
    unpatched: bool = False,
    store: str | PathLike[str] | None = None,
    batch_size: int | None = None,
    keep_hooks: bool = False,
    merge_adapters: bool = False,
) -> ResultFrame:
    """Patch every component of a kind, each by itself at each position, and measure every metric.

    Many experiments share a forward, so that this is much cheaper than a call of `patch` for each.

    Args:
        model, tokenizer, prompts, how, corruption, positions, dictionaries, metric, per_prompt, unpatched, store,
            batch_size, keep_hooks, merge_adapters: as for `circuitspec.patch`.
        kinds: `"heads"`, `"mlps"`, `"attention"` (all heads of a layer), `"resid"` (the stream that enters a block),
            `"resid_mid"` (before its MLP), `"kv"` (key-value heads), `"patterns"` (attention patterns of heads, whose
            outputs are computed from the values of the run at hand), `"neurons"` (many), `"features"` (of
            `dictionaries`: those whose weight differs at a position, in some prompt, from what is patched in; the
            others do nothing there), or several of these.
        at: positions at which each is patched, one by one: names, or `"all"` for all tokens together. Every named
            position of the prompts and `"all"` unless given; names of the same tokens are taken once.
        layers: the layers that are swept; all unless given.

    Returns:
        A DataFrame with the columns of `circuitspec.patch`, a row for each component, position and corruption; its
        `.heatmap()` draws them, but for features, which have a column `dictionary`.

    Raises:
        CircuitspecError, ValueError, TypeError: as `circuitspec.patch`; ValueError for an unknown kind or layer.
    """
    wanted = [kinds] if isinstance(kinds, str) else list(kinds)
    if unknown := [kind for kind in wanted if kind not in KINDS]:
        raise ValueError(f"kinds={unknown[0]!r}: give some of {', '.join(KINDS)}")

    def experiments(loaded: LoadedModel, task: TokenizedTask) -> list[Patched]:
        found = []
        for kind in dict.fromkeys(wanted):
            if KINDS[kind] is FEATURE:
                continue
            for component in _components(KINDS[kind], loaded.shape, layers):
                nodes: list[NodeComponent] = [one for one in nodes_of(component, loaded.shape) if is_node(one)]
                for place, where in _places(at, task).items():
                    name = format_name(component) + ("" if place == ALL else f"@{place}")
                    columns = {"kind": component.kind.name}
                    for way in manners(how, corruption, task):
                        run = way.patched(dict.fromkeys(nodes, where))
                        found.append(Patched(label_of(name, way), run, way, columns))
        return found

    def of_features(lab: Laboratory) -> list[Patched]:
        """Every feature that moves, at each position, dictionary by dictionary."""
        places, sites = _places(at, lab.task), _dictionaries(lab.loaded.shape, layers)
        found = []
        for way in manners(how, corruption, lab.task):
            moving = moving_features(lab.runner, way.base, way.source, [*places.values()])
            for site in sites:
                for number, (place, where) in enumerate(places.items()):
                    for index in np.flatnonzero(moving[site.name][number]).tolist():
                        feature = Feature(site.name, index, site.place.layer)
                        name = format_name(feature) + ("" if place == ALL else f"@{place}")
                        columns = {"kind": FEATURE.name, "dictionary": site.name}
                        found.append(Patched(label_of(name, way), way.patched({feature: where}), way, columns))
        return found

    def runs(loaded: LoadedModel, task: TokenizedTask) -> list[Experiment]:
        if any(KINDS[kind] is FEATURE for kind in wanted):
            _dictionaries(loaded.shape, layers)
        check_roles({place for place in _places(at, task) if place != ALL}, task)
        return [one.run for one in experiments(loaded, task)]

    with laboratory(
        model,
        tokenizer,
        prompts,
        positions=positions,
        dictionaries=dictionaries,
        metric=metric,
        store=store,
        batch_size=batch_size,
        keep_hooks=keep_hooks,
        merge_adapters=merge_adapters,
        check=runs,
    ) as lab:
        lab.progress.stage("sweeping")
        every = experiments(lab.loaded, lab.task)
        every += of_features(lab) if any(KINDS[kind] is FEATURE for kind in wanted) else []
        return measured(lab, every, per_prompt=per_prompt, unpatched=unpatched)


def _dictionaries(shape: ModelShape, layers: Sequence[int] | None) -> list[DictionarySite]:
    """The dictionaries in these layers; ValueError where there are none."""
    found = [site for site in shape.dictionaries if layers is None or site.place.layer in layers]
    if not found:
        there = ", ".join(f"{one.name} of {one.place}" for one in shape.dictionaries)
        said = f"none in these layers ({there})" if there else 'give dictionaries={"res8": {"at": "r8", "from": "DIR"}}'
        raise ValueError(f"kinds='features' needs dictionaries: {said}")
    return found


def _components(kind: ComponentKind, shape: ModelShape, layers: Sequence[int] | None) -> list[Component]:
    """Every component of a kind in these layers; ValueError where the model has none, or not these layers."""
    chosen = list(range(shape.n_layers)) if layers is None else list(layers)
    if wrong := [layer for layer in chosen if layer not in range(shape.n_layers)]:
        raise ValueError(f"layers: there is no layer {wrong[0]}; they are 0 to {shape.n_layers - 1}")
    found = [one for layer in chosen for one in all_of(kind, layer, shape.counts)]
    if not found and chosen:
        where = "" if layers is None else " in these layers"
        raise ValueError(f"the model has no {kind.plural} of kind {kind.name}{where}")
    return found


def _places(at: str | Sequence[str] | None, task: TokenizedTask) -> dict[str, Where]:
    """The positions by name, in the order of the prompt."""
    if at is not None:
        names = [at] if isinstance(at, str) else list(at)
        return {name: Where.everywhere() if name == ALL else Where.at(name) for name in names}
    first: dict[tuple[int, ...], str] = {}
    for name, tokens in task.roles.items():
        first.setdefault(tokens, name)
    order = sorted(first.items(), key=lambda item: (sum(item[0]) / len(item[0]), item[1]))
    return {**{name: Where.at(name) for _, name in order}, ALL: Where.everywhere()}
