"""Cross-sections of a circuit, restored one by one in the corrupt run (Heimersheim & Nanda 2024, section 2.3).

Every path from the input to the logits passes a cross-section, so restoring one restores the behaviour, if the
circuit is whole. One that does not means that something is missing beside it; what that is shows when it is
restored on top. What does nothing by itself (half of an AND, a backup) shows there too.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import networkx as nx

from circuitspec.analysis.statistics import stats
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.levels.node_level import denoising
from circuitspec.exploration.search.circuit_selection import EXHAUSTIVE, SCREENED
from circuitspec.exploration.search.component_sweep import MATERIAL
from circuitspec.exploration.search.effect_estimates import estimate_noising
from circuitspec.exploration.search.estimable import inestimable
from circuitspec.exploration.search.path_search import Link
from circuitspec.exploration.search.prompt_race import Racer, race
from circuitspec.exploration.setting import CLEAN, EVERYWHERE, ExplorationSetting, where_of
from circuitspec.graph.cuts import minimal_cuts
from circuitspec.graph.declared import INPUT, LOGITS, Node
from circuitspec.graph.edges import is_writer
from circuitspec.graph.nodes import NodeComponent
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Input, sort_key, whole_of
from circuitspec.hypothesis_file.grammar.names import format_name

RESTORES = (0.9, 1.1)  # recovered performance that is called the behaviour of the clean run
RACED = 20  # candidates beside a cross-section that are taken by their estimates where prompts are raced
LOOKED_BESIDE = 5  # cross-sections that do not restore it, beside which it is looked for what is missing
NAMED = 5

Membership = Literal["member", "member elsewhere", "member in part", "no member", "input"]
_SAID: Mapping[Membership, str] = {
    "member": "a member: a link from it is missing",
    "member elsewhere": "a member, but not there",
    "member in part": "a neuron of it is a member: another one or a link is missing",
    "no member": "not a member",
    "input": "the embeddings: what a member reads of them directly is missing",
}


@dataclass(frozen=True)
class Missing:
    """What changes the behaviour when it is restored beside a cross-section, by how much (of clean - corrupt)."""

    component: NodeComponent
    role: str
    change: float
    standing: Membership

    @property
    def name(self) -> str:
        return f"{format_name(self.component)}@{self.role}"

    @property
    def said(self) -> str:
        """What being missing means for it."""
        return _SAID[self.standing]


@dataclass(frozen=True)
class Section:
    """A cross-section, what restoring it recovers, and what is missing beside it, the most first.

    `tried` is how many components at positions were restored on top of it; None where it was not looked for any.
    """

    nodes: tuple[Node, ...]
    recovered: Estimate
    missing: tuple[Missing, ...] = ()
    tried: int | None = None

    @property
    def components(self) -> tuple[NodeComponent, ...]:
        return tuple(dict.fromkeys(component for component, _ in self.nodes))

    @property
    def name(self) -> str:
        """`a0.h0@END, m1@END`."""
        return ", ".join(named(node) for node in self.nodes)

    @property
    def restores(self) -> bool:
        return RESTORES[0] <= self.recovered.value <= RESTORES[1]

    @property
    def exceeds(self) -> bool:
        """Whether it recovers more than there is: negative components are missing."""
        return self.recovered.value > RESTORES[1]


@dataclass(frozen=True)
class Sections:
    """The minimal cross-sections of a circuit, the nearest to the input first.

    `more`: there are others, which were not restored. `left`: how many were not for want of forwards. `whole` is what
    restoring all members at once recovers. `assumed`: no links are known that lead from the input to the logits, so
    that members without any were taken to read the one and write to the other. `unlinked` members are on no path.
    """

    circuit: str  # whose they are
    found: tuple[Section, ...]
    whole: Estimate | None = None
    more: bool = False
    left: int = 0
    assumed: bool = False
    unlinked: tuple[Node, ...] = ()
    direct: bool = False  # a link leads from the input to the logits themselves: there are no cross-sections

    @property
    def broken(self) -> tuple[Section, ...]:
        """Those that do not restore the behaviour."""
        return tuple(one for one in self.found if not one.restores)


def named(node: Node) -> str:
    """`a0.h0@END`; without positions where it is meant everywhere."""
    component, where = node
    return format_name(component) + ("" if where.is_everywhere else where.canonical())


def link_graph(links: Iterable[Link], members: Mapping[NodeComponent, Where], least: float = MATERIAL) -> nx.DiGraph:
    """Members at their positions, and the links between them that have an effect by themselves."""
    graph = nx.DiGraph()
    for link in links:
        if link.size < least:
            continue
        sender: Hashable = INPUT
        if is_writer(link.sender):
            if link.sender not in members:
                continue
            sender = (link.sender, members[link.sender])
        if link.reader is not None and link.reader not in members:
            continue
        graph.add_edge(sender, LOGITS if link.reader is None else (link.reader, members[link.reader]))
    return graph


def cross_sections(
    setting: ExplorationSetting,
    circuit: str,
    graph: nx.DiGraph,
    members: Mapping[NodeComponent, Where],
    *,
    strong: Sequence[tuple[NodeComponent, str]] = (),
    claimed: Sequence[NodeComponent] | None = None,
    unlinked: Sequence[Node] = (),
    most: int = 50,
) -> Sections:
    """Restore each minimal cross-section of a graph of links, at most so many; look for what is missing beside some.

    Candidates are all `claimed` components (by default the setting's) at all positions but those that the section's
    own members reach by links: they would restore the behaviour in its stead. Of very many, those are tried
    that are members, `strong` by themselves, or estimated to do most beside the section; last, the embeddings, where
    they do nothing alone. Raises AllowanceSpent where not even one cross-section can be restored.
    """
    graph = graph.copy()
    assumed = not _joined(graph) and not (graph.has_edge(INPUT, LOGITS))
    if assumed:
        _assume(graph, members)
    cuts = list(islice(minimal_cuts(graph, INPUT, LOGITS, most + 1), most + 1))
    more, cuts = len(cuts) > most, cuts[:most]
    runs = {cut: _restored(setting, cut) for cut in cuts}
    whole = denoising(setting.corrupt, dict(members.items()))
    left = frozenset(setting.run_some([Experiment(setting.corrupt), CLEAN, *runs.values(), whole]))
    if cuts and len(left.intersection(runs.values())) == len(set(runs.values())):
        setting.run(runs.values())
    sections = []
    for cut, run in runs.items():
        if run not in left:
            sections.append(Section(tuple(sorted(cut, key=_order)), _recovered(setting, run)))
    broken = sorted((s for s in sections if not s.restores), key=lambda s: -abs(1 - s.recovered.value))
    components = tuple(setting.claimed if claimed is None else claimed)
    looked = {}
    for section in broken[:LOOKED_BESIDE]:
        found = _beside(setting, graph, section, members, components, strong)
        if found is not None:
            looked[section.nodes] = found
    return Sections(
        circuit,
        tuple(looked.get(section.nodes, section) for section in sections),
        _recovered(setting, whole) if members and whole not in left else None,
        more,
        len(left.intersection(runs.values())),
        assumed,
        tuple(unlinked) if not assumed else (),
        graph.has_edge(INPUT, LOGITS),
    )


def _joined(graph: nx.DiGraph) -> bool:
    return INPUT in graph and LOGITS in graph and nx.has_path(graph, INPUT, LOGITS)


def _assume(graph: nx.DiGraph, members: Mapping[NodeComponent, Where]) -> None:
    """Members that no link enters read the input, and those that none leaves write to the logits."""
    graph.add_nodes_from(members.items())
    for node in members.items():
        if not graph.in_degree(node):
            graph.add_edge(INPUT, node)
        if not graph.out_degree(node):
            graph.add_edge(node, LOGITS)


def _beside(
    setting: ExplorationSetting,
    graph: nx.DiGraph,
    section: Section,
    members: Mapping[NodeComponent, Where],
    claimed: Sequence[NodeComponent],
    strong: Sequence[tuple[NodeComponent, str]],
) -> Section | None:
    """The section with what is missing beside it; None where the allowance ends before anything was tried."""
    own = _at(section.nodes)
    behind = _at(node for inner in section.nodes for node in nx.descendants(graph, inner) if node != LOGITS)
    entries = [
        (component, role)
        for component in claimed
        for role in setting.places
        if not _covers(setting, own, component, role) and not _covers(setting, behind, component, role)
    ]
    if len(entries) > EXHAUSTIVE:
        entries = _screened(setting, section, entries, members, claimed, strong)
    embedded = [(Input(), role) for role in setting.places if not _covers(setting, own, Input(), role)]
    start = section.recovered.value
    zero = Experiment(setting.corrupt)
    racers = {e: Racer(_with(setting, own, e), _restored(setting, section.nodes), zero) for e in entries}
    stands = race(setting, racers.values(), MATERIAL, settling=True)

    def change(entry: tuple[NodeComponent, str]) -> float:
        if entry in racers:
            return stands[racers[entry]].effect
        return _share(setting, _with(setting, own, entry)) - start

    def helps(entry: tuple[NodeComponent, str]) -> bool:
        return change(entry) >= MATERIAL if not section.exceeds else change(entry) <= -MATERIAL

    tried = [entry for entry in entries if racers[entry] in stands]
    if entries and not tried:
        return None
    found = [entry for entry in tried if helps(entry)]
    if setting.unnamed:
        found = [entry for entry in found if _is_the_place(setting, entry, frozenset(found), change)]
    if not found and embedded:
        alone = {entry: denoising(setting.corrupt, {entry[0]: where_of(entry[1])}) for entry in embedded}
        beside = {entry: _with(setting, own, entry) for entry in embedded}
        if not setting.run_some([*alone.values(), *beside.values()]):
            tried += embedded
            found = [e for e in embedded if helps(e) and abs(change(e) - _share(setting, alone[e])) >= MATERIAL]
    missing = [Missing(c, role, change((c, role)), _standing(setting, members, c, role)) for c, role in found]
    missing.sort(key=lambda one: (-abs(one.change), *_order((one.component, where_of(one.role)))))
    return Section(section.nodes, section.recovered, tuple(missing[:NAMED]), len(tried))


def _is_the_place(
    setting: ExplorationSetting,
    entry: tuple[NodeComponent, str],
    found: frozenset[tuple[NodeComponent, str]],
    change: Callable[[tuple[NodeComponent, str]], float],
) -> bool:
    """Of a component that was found at all tokens and at the last one: whether this is the place to name."""
    component, place = entry
    (role,) = setting.roles
    at_role, anywhere = (component, role), (component, EVERYWHERE)
    if not {at_role, anywhere} <= found:
        return True
    return (abs(change(at_role) - change(anywhere)) < MATERIAL) == (place == role)


def _screened(
    setting: ExplorationSetting,
    section: Section,
    entries: Sequence[tuple[NodeComponent, str]],
    members: Mapping[NodeComponent, Where],
    claimed: Sequence[NodeComponent],
    strong: Sequence[tuple[NodeComponent, str]],
) -> list[tuple[NodeComponent, str]]:
    """The candidates with the largest estimates beside the section; members and what is strong alone in any case.

    Of a metric that nothing can be estimated of, these alone.
    """
    wanted = set(strong)
    if not inestimable(setting.metric):
        run = _restored(setting, section.nodes)
        wider = denoising(setting.corrupt, {**_at(section.nodes), **dict.fromkeys(claimed, Where.everywhere())})
        screen: Mapping[tuple[NodeComponent, str], float] = estimate_noising(setting, run, wider)  # type: ignore[assignment]
        most = min(RACED, SCREENED) if setting.lots else SCREENED
        wanted |= set(sorted(entries, key=lambda e: (-abs(screen.get(e, 0.0)), sort_key(e[0]), e[1]))[:most])
    return [e for e in entries if e in wanted or _covers(setting, members, *e)]


def _with(
    setting: ExplorationSetting, own: Mapping[NodeComponent, Where], entry: tuple[NodeComponent, str]
) -> Experiment:
    component, role = entry
    return denoising(setting.corrupt, {**own, component: own.get(component, Where.at()) | where_of(role)})


def _standing(
    setting: ExplorationSetting, members: Mapping[NodeComponent, Where], component: NodeComponent, role: str
) -> Membership:
    if component == Input():
        return "input"
    if component in members:
        return "member" if _covers(setting, members, component, role) else "member elsewhere"
    return "member in part" if _covers(setting, members, component, role) else "no member"


def _covers(
    setting: ExplorationSetting, sites: Mapping[NodeComponent, Where], component: NodeComponent, role: str
) -> bool:
    """Whether the component, or a unit of it, stands there at this place; roles on the same tokens are one."""
    wheres = [where for one, where in sites.items() if component in (one, whole_of(one))]
    if role == EVERYWHERE:
        return any(where.inverted for where in wheres)
    task = setting.runner.task

    def same(one: str) -> bool:
        return task.roles[one] == task.roles[role] and task.spans.get(one) == task.spans.get(role)

    return any(where.inverted or any(map(same, where.roles)) for where in wheres)


def _at(nodes: Iterable[Node]) -> dict[NodeComponent, Where]:
    found: dict[NodeComponent, Where] = {}
    for component, where in nodes:
        found[component] = found.get(component, Where.at()) | where
    return found


def _restored(setting: ExplorationSetting, nodes: Iterable[Node]) -> Experiment:
    return denoising(setting.corrupt, _at(nodes))


def _recovered(setting: ExplorationSetting, run: Experiment) -> Estimate:
    corrupt = setting.values(Experiment(setting.corrupt))
    return stats.recovered(setting.values(run), corrupt, setting.values(CLEAN))


def _share(setting: ExplorationSetting, run: Experiment) -> float:
    """What a run that starts from the corrupt prompts recovers: the value alone."""
    clean, corrupt = (float(setting.values(one).mean()) for one in (CLEAN, Experiment(setting.corrupt)))
    return (float(setting.values(run).mean()) - corrupt) / (clean - corrupt)


def _order(node: Node) -> tuple[object, ...]:
    return (*sort_key(node[0]), node[1].canonical())
