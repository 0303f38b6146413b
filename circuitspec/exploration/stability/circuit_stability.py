"""How stable the circuits of an exploration are: how often a repeated search chose what, and what the rest is worth."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.exploration.search.circuit_selection import Entry, circuit_of
from circuitspec.exploration.search.component_sweep import MATERIAL
from circuitspec.exploration.search.path_search import Link, link_effects
from circuitspec.exploration.setting import ExplorationSetting
from circuitspec.exploration.stability.repeated_search import Repetition, Selection, repeated
from circuitspec.exploration.stability.selection_frequencies import (
    CORE,
    NOISE,
    Chosen,
    entries_chosen,
    false_choices,
    often,
)
from circuitspec.exploration.stability.subsamples import all_but_one_template, random_halves
from circuitspec.graph.edges import is_writer
from circuitspec.graph.nodes import Ablatable
from circuitspec.hypothesis_file.grammar.components import sort_key
from circuitspec.hypothesis_file.grammar.names import format_name


@dataclass(frozen=True)
class SubsetFigure:
    """What the often chosen entries recover as a circuit, and what is left with them ablated, on prompts held out."""

    what: str  # which of them: "core", "core and contingent", or "as drafted"
    entries: tuple[tuple[str, str], ...]  # component, position
    recovered: Estimate
    left: Estimate


@dataclass(frozen=True)
class CircuitStability:
    """Of one circuit: how often the search repeated on halves of the prompts chose what.

    `entries` are components at positions, `components` the same at any position, `edges` direct paths between members
    of the drafted circuit (chosen: both ends were, and the path does something by itself on that half). `by_template`
    is how many of the searches with one template held out chose an entry, out of `templates`. `sizes` are entries of
    each half's circuit, `overlap` the mean Jaccard index of two of them. `unseen` is what each half's circuit recovers
    on the other half. `false` bounds how many entries without effect are expected among those chosen `CORE` often.
    """

    kind: str
    entries: Mapping[tuple[str, str], Chosen]
    components: Mapping[str, Chosen]
    edges: Mapping[str, Chosen]
    by_template: Mapping[tuple[str, str], int]
    templates: tuple[str, ...]
    sizes: tuple[int, ...]
    overlap: float
    unseen: tuple[float, ...]
    by_template_unseen: tuple[float, ...]
    false: float
    subsets: tuple[SubsetFigure, ...] = ()


@dataclass(frozen=True)
class Stability:
    """How often what was chosen in `halves` searches on halves of the prompts, `counted` prompts each.

    `judged_on` says on which prompts subsets were measured; `forwards` are the passes over all prompts that it took.
    """

    halves: int
    counted: int
    n_prompts: int
    circuits: tuple[CircuitStability, ...]
    judged_on: str
    forwards: float


def stability(
    setting: ExplorationSetting,
    repetition: Repetition,
    drafted: Mapping[str, Mapping[Entry, str]],
    links: Sequence[Link],
    judged: ExplorationSetting | None,
    described: str,
) -> Stability:
    """The search repeated on halves of a setting's prompts, and on all but one template's where there are several.

    `drafted` are the circuits of all prompts, by kind, and `links` between members of the first of them. Subsets are
    measured on the prompts of `judged`, or where there are none on all that were searched on. Raises AllowanceSpent.
    """
    runner = setting.runner
    before = runner.forwards
    labels = runner.task.prompts.templates
    halves = random_halves(runner.templates, repetition.options.stability)
    selections: dict[str, list[Selection]] = {kind: [] for kind in drafted}
    for one in repeated(setting, (*halves, *all_but_one_template(runner.templates, labels)), repetition):
        selections[one.kind].append(one)
    circuits = tuple(
        with_subsets(
            circuit_stability(setting, kind, own, drafted[kind], links if kind == next(iter(drafted)) else ()),
            judged or setting,
            own,
            drafted[kind],
        )
        for kind, own in selections.items()
    )
    on = described if judged is not None else "the prompts that were searched on"
    counted = int(halves[0].counted.sum())
    return Stability(len(halves), counted, runner.task.n, circuits, on, runner.forwards - before)


def circuit_stability(
    setting: ExplorationSetting,
    kind: str,
    selections: Sequence[Selection],
    drafted: Mapping[Entry, str],
    links: Sequence[Link],
) -> CircuitStability:
    """Frequencies of one circuit, and what each selection recovers on the prompts that it was not chosen on."""
    on_halves = [one for one in selections if one.subsample.how == "half"]
    others = [one for one in selections if one.subsample.how != "half"]
    entries = entries_chosen(on_halves, drafted)
    whole = {component for component, _ in drafted}
    components = {
        component: often([any(c == component for c, _ in one.entries) for one in on_halves], drafted=component in whole)
        for component in dict.fromkeys(component for component, _ in entries)
    }
    edges = {_edge_name(setting, link): _edge(setting, link, on_halves) for link in links if link.size >= MATERIAL}
    pairs = [_jaccard(a.entries, b.entries) for a, b in combinations(on_halves, 2)]
    return CircuitStability(
        kind,
        {_named(entry): found for entry, found in entries.items()},
        {format_name(c): found for c, found in sorted(components.items(), key=lambda pair: _most(pair[1], pair[0]))},
        dict(sorted(edges.items(), key=lambda pair: (-pair[1].frequency.value, pair[0]))),
        {_named(entry): sum(entry in one.entries for one in others) for entry in entries},
        tuple(one.subsample.name for one in others),
        tuple(len(one.entries) for one in on_halves),
        float(np.mean(pairs)) if pairs else 1.0,
        _on_the_rest(setting, on_halves),
        _on_the_rest(setting, others),
        false_choices(on_halves, len(setting.claimed) * len(setting.places)),
    )


def with_subsets(
    found: CircuitStability, judged: ExplorationSetting, selections: Sequence[Selection], drafted: Mapping[Entry, str]
) -> CircuitStability:
    """With what core, core and contingent, and drafted entries do on the prompts of another setting."""
    entries = entries_chosen([one for one in selections if one.subsample.how == "half"], drafted)
    core = [entry for entry, one in entries.items() if one.frequency.value >= CORE]
    often_enough = [entry for entry, one in entries.items() if one.frequency.value >= NOISE]
    subsets = {"core": core, "core and contingent": often_enough, "as drafted": list(drafted)}
    runs = {what: circuit_of(own) for what, own in subsets.items()}
    judged.run(run for kept in runs.values() for run in (judged.sufficiency(kept), judged.necessity(kept)) if kept)
    figures = tuple(
        SubsetFigure(
            what,
            tuple(_named(entry) for entry in own),
            judged.recovered(judged.sufficiency(runs[what])),
            judged.recovered(judged.necessity(runs[what])),
        )
        for what, own in subsets.items()
        if own
    )
    return replace(found, subsets=figures)


def _on_the_rest(setting: ExplorationSetting, selections: Sequence[Selection]) -> tuple[float, ...]:
    """What each selection's circuit recovers on the prompts that it was not chosen on."""
    runs = [setting.sufficiency(circuit_of(one.entries)) for one in selections]
    setting.run([*runs, setting.anchor])
    return tuple(
        replace(setting, counted=one.subsample.held_out).share(run) for one, run in zip(selections, runs, strict=True)
    )


def _edge(setting: ExplorationSetting, link: Link, selections: Sequence[Selection]) -> Chosen:
    """Chosen where both ends are in and the path alone does something on these prompts."""
    chosen = []
    for one in selections:
        members = {component for component, _ in one.entries}
        ends = {end for end in (link.sender, link.reader) if end is not None and is_writer(end)}
        sizes = map(abs, link_effects(replace(setting, counted=one.subsample.counted), link))
        chosen.append(ends <= members and max(sizes) >= MATERIAL)
    return often(chosen, drafted=True)


def _edge_name(setting: ExplorationSetting, link: Link) -> str:
    return f"{format_name(link.sender)} -> {link.named(setting.runner.loaded.shape)}"


def _named(entry: Entry) -> tuple[str, str]:
    return format_name(entry[0]), entry[1]


def _most(found: Chosen, component: Ablatable) -> tuple[object, ...]:
    return -found.frequency.value, sort_key(component)


def _jaccard(one: Collection[Entry], other: Collection[Entry]) -> float:
    """Shared entries as a share of all that either has; of two empty circuits 1."""
    either = set(one) | set(other)
    return len(set(one) & set(other)) / len(either) if either else 1.0
