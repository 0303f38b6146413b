"""Cross-sections of a circuit, restored one by one in the corrupt run (seed, section 2.3).

Every path from the input to the logits passes a cross-section, so restoring one restores the behaviour, if the
circuit is whole. One that does not means that something is missing beside it; what that is shows when it is
restored on top.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import networkx as nx

from circuitspec.analysis import stats
from circuitspec.analysis.estimate import Estimate
from circuitspec.exploring.links import Link
from circuitspec.exploring.select import Entry
from circuitspec.exploring.setting import CLEAN, Setting
from circuitspec.exploring.sweep import MATERIAL
from circuitspec.graph.cuts import minimal_cuts
from circuitspec.graph.nodes import Ablatable
from circuitspec.graph.where import Where
from circuitspec.plan.experiment import Experiment
from circuitspec.plan.node_level import denoising
from circuitspec.spec.components import Head, Mlp, sort_key

RESTORES = 0.9  # recovered performance from which a cross-section is said to restore the behaviour
INPUT, LOGITS = "input", "logits"


@dataclass(frozen=True)
class Section:
    """A cross-section, what restoring it recovers, and what is missing: components that add to it, with how much."""

    components: tuple[Ablatable, ...]
    recovered: Estimate
    missing: tuple[tuple[Entry, float], ...]

    @property
    def restores(self) -> bool:
        return self.recovered.value >= RESTORES


def link_graph(links: Iterable[Link], least: float = MATERIAL) -> nx.DiGraph:
    """Components and the links between them that have an effect by themselves; the ends are "input" and "logits"."""
    graph = nx.DiGraph()
    for link in links:
        if link.size >= least:
            sender = link.sender if isinstance(link.sender, Head | Mlp) else INPUT
            graph.add_edge(sender, LOGITS if link.reader is None else link.reader)
    return graph


def cross_sections(
    setting: Setting, graph: nx.DiGraph, members: Mapping[Ablatable, Where], others: Sequence[Entry], most: int = 50
) -> tuple[Section, ...]:
    """Restore each minimal cross-section; on top of one that does not restore it all, each of `others` in turn."""
    cuts = [cut for cut in minimal_cuts(graph, INPUT, LOGITS, most) if all(c in members for c in cut)]
    runs = {cut: _restored(setting, {c: members[c] for c in cut}) for cut in cuts}
    setting.run(runs.values())
    found = []
    for cut, run in runs.items():
        estimate = _recovered(setting, run)
        missing: list[tuple[Entry, float]] = []
        if estimate.value < RESTORES:
            section = {c: members[c] for c in cut}
            more = {}
            for component, role in others:
                if not section.get(component, Where.at()).meets(Where.at(role)):
                    with_it = {**section, component: section.get(component, Where.at()) | Where.at(role)}
                    more[component, role] = _restored(setting, with_it)
            setting.run(more.values())
            gains = [(entry, _recovered(setting, one).value - estimate.value) for entry, one in more.items()]
            missing = sorted((pair for pair in gains if pair[1] >= MATERIAL), key=lambda pair: -pair[1])[:5]
        found.append(Section(tuple(sorted(cut, key=sort_key)), estimate, tuple(missing)))
    return tuple(found)


def _restored(setting: Setting, section: Mapping[Ablatable, Where]) -> Experiment:
    return denoising(setting.corrupt, dict(section.items()))


def _recovered(setting: Setting, run: Experiment) -> Estimate:
    corrupt = setting.values(Experiment(setting.corrupt))
    return stats.recovered(setting.values(run), corrupt, setting.values(CLEAN))
