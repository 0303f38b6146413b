"""First-order estimates of an exploration: within its allowance, and none computed twice."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circuitspec.engine.attribution.edge_attribution import attribute_edges, edge_passes
from circuitspec.engine.attribution.node_attribution import attribute, attribution_passes, draws_of, interpolates
from circuitspec.engine.attribution.partial_estimates import Pieces
from circuitspec.engine.attribution.restoration_screen import Screen, screen_noising, screen_passes, screen_restorations
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import Experiment, Source, Variant
from circuitspec.exploration.setting import EVERYWHERE, ExplorationSetting, where_of
from circuitspec.graph.edges import Edge, format_receiver
from circuitspec.graph.nodes import Ablatable
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import sort_key
from circuitspec.hypothesis_file.grammar.names import format_name

Spot = tuple[Ablatable, Where]
Entry = tuple[Ablatable, str]


@dataclass(frozen=True)
class NodeEstimates:
    """Changes of the metric's mean, by component and position; `magnitudes` are empty unless asked for."""

    effects: Mapping[Spot, float]
    magnitudes: Mapping[Spot, float]


@dataclass(frozen=True)
class EdgeEstimates:
    """Changes of the metric's mean by edge; `linear` are those to first order throughout."""

    effects: Mapping[Edge, float]
    linear: Mapping[Edge, float]


def estimate_nodes(
    setting: ExplorationSetting, base: Variant, source: Source, *, steps: int = 1, dropping: bool = False
) -> NodeEstimates:
    """Every component at every place; several steps only where there are inputs between. Raises AllowanceSpent."""
    runner, metric, claimed = setting.runner, setting.metric, setting.claimed
    wheres = [where_of(place) for place in setting.places]
    steps = steps if interpolates(base, source) else 1
    layers = runner.loaded.shape.n_layers if dropping else 0
    spots = [(component, where) for component in claimed for where in wheres]

    def compute(pieces: Pieces) -> dict[str, list[float]]:
        needed = attribution_passes(source, steps, draws=draws_of(base, source), dropped_layers=layers)
        setting.allowance.require(needed + _mean(source, runner))
        found = attribute(runner, base, source, metric, claimed, wheres, steps=steps, dropping=dropping, pieces=pieces)
        lists = {"effects": _listed(setting, [found.by_prompt[spot] for spot in spots])}
        if dropping:
            lists["magnitudes"] = _listed(setting, [found.sizes_by_prompt[spot] for spot in spots])
        return lists

    def names() -> list[object]:
        return [(format_name(component), where.canonical()) for component, where in spots]

    asked = ("nodes", base, source, metric, steps, dropping)
    found = _known(setting, asked, (claimed, *wheres), names, compute)
    by_name = {name: dict(zip(spots, _means(setting, values), strict=True)) for name, values in found.items()}
    return NodeEstimates(by_name["effects"], by_name.get("magnitudes", {}))


def estimate_edges(
    setting: ExplorationSetting,
    base: Variant,
    source: Source,
    edges: Sequence[Edge],
    *,
    steps: int = 1,
    recomputing: bool,
) -> EdgeEstimates:
    """These edges; several steps only where there are inputs between. Raises AllowanceSpent."""
    runner, metric = setting.runner, setting.metric
    steps = steps if interpolates(base, source) else 1
    wanted = tuple(dict.fromkeys(edges))

    def compute(pieces: Pieces) -> dict[str, list[float]]:
        alone = recomputing and runner.stream.heads_share_a_norm
        draws = draws_of(base, source)
        needed = edge_passes(wanted, source, steps, draws=draws, recomputing=recomputing, one_by_one=alone)
        setting.allowance.require(needed + _mean(source, runner))
        found = attribute_edges(
            runner, base, source, metric, wanted, steps=steps, recomputing=recomputing, pieces=pieces
        )
        return {"effects": [found.effects[e] for e in wanted], "linear": [found.linear[e] for e in wanted]}

    shape = runner.loaded.shape
    names = [(format_name(e.sender), format_receiver(e.receiver, shape), e.where.canonical()) for e in wanted]
    found = setting.recalled.get(["edges", base, source, metric, steps, recomputing, names], compute)
    effects, linear = (dict(zip(wanted, found[name].tolist(), strict=True)) for name in ("effects", "linear"))
    return EdgeEstimates(effects, linear)


def estimate_restorations(setting: ExplorationSetting, run: Experiment) -> dict[Entry, float]:
    """What restoring a component at a place alone changes in a patched run; by the first prompts, where they are raced.

    Raises AllowanceSpent.
    """

    def compute(pieces: Pieces) -> Screen:
        setting.allowance.require(screen_passes(run))
        return screen_restorations(setting.runner, run, setting.metric, pieces, prompts=few)

    few = setting.few
    question = ("restorations", run.digest) if few is None else ("restorations", run.digest, few)
    return _screened(setting, question, run, compute)


def estimate_noising(setting: ExplorationSetting, run: Experiment, wider: Experiment) -> dict[Entry, float]:
    """What patching, on top of a run, what only a wider one patches changes in it. Raises AllowanceSpent."""

    def compute(pieces: Pieces) -> Screen:
        setting.allowance.require(screen_passes(run))
        return screen_noising(setting.runner, run, wider, setting.metric, pieces)

    return _screened(setting, ("noising", run.digest, wider.digest), wider, compute)


def _screened(
    setting: ExplorationSetting, question: tuple[Hashable, ...], run: Experiment, compute: Callable[[Pieces], Screen]
) -> dict[Entry, float]:
    components = sorted({site.component for site in run.sites}, key=sort_key)
    entries = [(component, place) for component in components for place in setting.places]

    def lists(pieces: Pieces) -> dict[str, list[float]]:
        found = compute(pieces)
        changes = [
            found.effects[component] if place == EVERYWHERE else found.at_role[component][place]
            for component, place in entries
        ]
        return {"effects": _listed(setting, changes)}

    def names() -> list[object]:
        return [(format_name(component), place) for component, place in entries]

    found = _known(setting, (*question, setting.metric), setting.places, names, lists)
    return dict(zip(entries, _means(setting, found["effects"]), strict=True))  # type: ignore[arg-type]


def _listed(setting: ExplorationSetting, changes: Sequence[NDArray[np.float64]]) -> list[float]:
    """Changes prompt by prompt as what is kept of them: their means, or one after the other."""
    if setting.by_prompt:
        return np.concatenate([*changes, np.zeros(0)]).tolist()  # type: ignore[no-any-return]
    return [float(change.mean()) for change in changes]


def _means(setting: ExplorationSetting, listed: NDArray[np.float64]) -> list[float]:
    """The means over the prompts that count, of what `_listed` keeps."""
    if not setting.by_prompt:
        return listed.tolist()  # type: ignore[no-any-return]
    changes = listed.reshape(-1, setting.runner.task.n)
    counted = changes if setting.counted is None else changes[:, setting.counted]
    return counted.mean(1).tolist()  # type: ignore[no-any-return]


def _known(
    setting: ExplorationSetting,
    question: tuple[Hashable, ...],
    of: Hashable,
    names: Callable[[], list[object]],
    compute: Callable[[Pieces], Mapping[str, Sequence[float]]],
) -> Mapping[str, NDArray[np.float64]]:
    """What was estimated before, or what is computed now; `names` say what the question is `of`."""
    if not setting.by_prompt:
        return setting.recalled.get([*question, names()], compute)
    if (question, of) not in setting.estimated:
        setting.estimated[question, of] = setting.recalled.get(["by prompt", *question, names()], compute)
    return setting.estimated[question, of]


def _mean(source: Source, runner: Runner) -> float:
    """The passes over all prompts that means take, if they are not known yet."""
    return runner.task.averaged.n / runner.task.n if source.is_mean else 0.0
