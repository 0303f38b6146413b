"""Subsets of a circuit, taken out of the circuit and out of the model: completeness and minimality.

Wang et al. (2022), section 4: with F the score and a circuit C of a model M, C is complete if F(C without K) and
F(M without K) agree for every subset K of C, and minimal if every node v has some K within C without v such that
F(C without K and v) and F(C without K) differ. There are 2 ** |C| subsets, so some are drawn and some are searched for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import TypeAlias, TypeVar

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.experiments.experiment import Experiment, Source
from circuitspec.experiments.levels import edge_level, node_level
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.edge_circuit import Kept, named_in_paths
from circuitspec.graph.edges import Sender, Writer, is_writer, precedes, receivers
from circuitspec.graph.nodes import Ablatable, NodeComponent, is_ablatable
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import sort_key
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.hypothesis_file.schema.claim_block import SubsetSearch
from circuitspec.hypothesis_file.schema.claims.written_claim import Claim
from circuitspec.hypothesis_file.yaml.source import SourceText

_Key = TypeVar("_Key", bound=NodeComponent)


@dataclass(frozen=True)
class CutNode:
    """A component of the circuit at the positions at which it belongs to one of the groups."""

    component: Ablatable
    where: Where
    group: str

    @property
    def name(self) -> str:
        """`a9.h6@END`, or `a9.h6` where it acts everywhere."""
        return format_name(self.component) + ("" if self.where.is_everywhere else self.where.canonical())


Nodes: TypeAlias = tuple[CutNode, ...]


@dataclass(frozen=True)
class NodeCuts:
    """Nodes out of circuit and model at node level: `kept` is where the circuit keeps its components."""

    nodes: Nodes
    source: Source
    claimed: tuple[Ablatable, ...]
    kept: Mapping[NodeComponent, Where]

    def circuit_without(self, taken: Iterable[CutNode]) -> Experiment:
        """The run in which the circuit without these nodes is kept, and all else that is claimed ablated."""
        left = _less(self.kept, _places(taken))
        return node_level.ablating(self.source, {c: ~left.get(c, Where.at()) for c in self.claimed})

    def model_without(self, taken: Iterable[CutNode]) -> Experiment:
        """The run in which these nodes alone are ablated."""
        return node_level.ablating(self.source, _places(taken))


@dataclass(frozen=True)
class EdgeCuts:
    """The same at edge level, where a node goes with the edges that leave it; `kept` are those of the circuit."""

    nodes: Nodes
    source: Source
    kept: Kept
    shape: ModelShape
    measured: frozenset[Writer]
    _known: dict[frozenset[CutNode], Experiment] = field(default_factory=dict, compare=False, repr=False)

    def circuit_without(self, taken: Iterable[CutNode]) -> Experiment:
        key = frozenset(taken)
        if key not in self._known:  # tens of thousands of edges are gone through for each
            self._known[key] = self._circuit_without(key)
        return self._known[key]

    def _circuit_without(self, taken: Iterable[CutNode]) -> Experiment:
        out = _places(taken)
        kept = {receiver: _less(by_sender, out) for receiver, by_sender in self.kept.items()}
        return edge_level.keeping(kept, self.source, self.shape, self.measured)

    def model_without(self, taken: Iterable[CutNode]) -> Experiment:
        out: dict[Sender, Where] = {c: at for c, at in _places(taken).items() if is_writer(c)}
        edges = {r: {s: at for s, at in out.items() if precedes(s, r, self.shape)} for r in receivers(self.shape)}
        return edge_level.ablating(edges, self.source, self.shape, self.measured)


Cuts: TypeAlias = NodeCuts | EdgeCuts


@dataclass(frozen=True)
class Subset:
    """A subset K of the circuit, and the runs of circuit and model without it. `name` says where it comes from."""

    name: str
    taken: Nodes
    circuit: Experiment
    model: Experiment
    drawn: bool = False  # at random or by a search, so that the name does not say what is in it

    @property
    def spoken(self) -> str:
        return _listed(self.taken) if self.drawn else self.name


@dataclass(frozen=True)
class Removal:
    """A node and a subset K without it: the runs of the circuit without K, and without K and the node."""

    node: CutNode
    name: str  # of K
    taken: Nodes  # K
    before: Experiment
    after: Experiment
    drawn: bool = False  # K, at random or by a search


@dataclass(frozen=True)
class Trials:
    """What a claim of completeness or minimality tries: subsets that are known beforehand, and how more are found.

    Of `subsets` every one is judged. Of `removals` there are several a node, of which one is judged: the one that
    the search on other prompts prefers, once it is `settled`.
    """

    cuts: Cuts
    search: SubsetSearch
    subsets: tuple[Subset, ...] = ()
    removals: tuple[Removal, ...] = ()
    settled: bool = False

    @property
    def runs(self) -> tuple[Experiment, ...]:
        pairs = [(one.circuit, one.model) for one in self.subsets] + [(one.before, one.after) for one in self.removals]
        return tuple(dict.fromkeys(run for pair in pairs for run in pair))

    @property
    def labels(self) -> Mapping[Experiment, str]:
        """Names of the runs that have none yet."""
        found: dict[Experiment, str] = {}
        for one in self.subsets:
            found.setdefault(one.circuit, f"circuit without {one.spoken}")
            found.setdefault(one.model, f"model without {one.spoken}")
        for removed in self.removals:
            found.setdefault(removed.before, f"circuit without {_listed(removed.taken)}")
            found.setdefault(removed.after, f"circuit without {_listed((*removed.taken, removed.node))}")
        return found

    @property
    def most_runs(self) -> int:
        """How many more runs the search may take, at most."""
        search, n = self.search, len(self.cuts.nodes)
        greedy = 2 * search.greedy * min(search.candidates, n)
        if self.subsets:
            return greedy
        others = len({node.group for node in self.cuts.nodes}) - 1 if search.groups else 0
        return others + search.random + n * (others + search.random + greedy)  # without K, and without K and the node


def cuts_of(
    graph: CircuitGraph, source: Source, kept: Mapping[NodeComponent, Where], edges: Kept | None, *, pinned: bool
) -> Cuts:
    """How nodes are taken out at the level of the hypothesis: `edges` are those that edge level keeps.

    With `pinned` (`positions: all`) a component is one node, whatever groups it is in. At edge level components that
    paths alone name, or name at other positions, are nodes too, where something reads them.
    """
    nodes: dict[tuple[NodeComponent, Where], CutNode] = {}
    for member in sorted(graph.members, key=lambda m: sort_key(m.component)):
        if is_ablatable(member.component):
            where = Where.everywhere() if pinned else member.where
            nodes.setdefault((member.component, where), CutNode(member.component, where, member.group))
    found = tuple(nodes.values())
    if edges is None:
        return NodeCuts(found, source, graph.claimed, kept)
    sending = frozenset(sender for by_sender in edges.values() for sender in by_sender)
    found += tuple(node for node in _in_paths(graph, _places(found), pinned=pinned) if node.component in sending)
    return EdgeCuts(found, source, edges, graph.shape, graph.measured)


def _in_paths(graph: CircuitGraph, declared: Mapping[NodeComponent, Where], *, pinned: bool) -> list[CutNode]:
    """The nodes that paths name beside those of groups, which are `declared`, each a group by itself."""
    in_paths = named_in_paths(graph, everywhere=pinned).items()
    named = {c: where for c, where in in_paths if is_writer(c) and c not in graph.free}
    left = _less(named, declared)
    return [CutNode(component, left[component], format_name(component)) for component in sorted(left, key=sort_key)]


def refuse_parts(claim: Claim, index: int, graph: CircuitGraph, text: SourceText) -> None:
    """CS224 for a circuit with parts that cannot be taken out of it: what lies outside them is not defined."""
    others = [m for m in graph.members if not is_ablatable(m.component)]
    if others:
        named = ", ".join(dict.fromkeys(format_name(m.component) for m in others[:5]))
        raise CircuitspecError(
            Diagnostic(
                "CS224",
                f"the circuit holds {named}, and `{claim.kind}` is about heads, MLPs and neurons",
                text.span(("claims", index)),
                hint="name the heads that read a key-value head, and leave residual streams and input out of groups",
            )
        )


def complete_trials(cuts: Cuts, search: SubsetSearch) -> Trials:
    """Nothing, all of the circuit, each group, and random subsets: equal ones once."""
    taken: dict[str, Nodes] = {"nothing": (), "all of it": cuts.nodes}
    if search.groups:
        taken |= _groups(cuts)
    fixed = frozenset(taken)
    taken |= {f"random {i + 1}": nodes for i, nodes in enumerate(drawn(cuts.nodes, search.random, search.seed))}
    distinct = {frozenset(nodes): (name, nodes) for name, nodes in reversed(taken.items())}
    named = [(name, nodes) for name, nodes in taken.items() if distinct[frozenset(nodes)][0] == name]
    return Trials(cuts, search, tuple(subset(cuts, name, nodes, name not in fixed) for name, nodes in named))


def minimal_trials(cuts: Cuts, search: SubsetSearch) -> Trials:
    """Every node with nothing else taken out, and with the rest of its group; what more it takes is found by search."""
    groups = _groups(cuts)
    found: list[Removal] = []
    for node in cuts.nodes:
        found.append(removal(cuts, node, "nothing", ()))
        rest = tuple(other for other in groups[node.group] if other != node)
        if search.groups and rest:
            found.append(removal(cuts, node, f"rest of {node.group}", rest))
    return Trials(cuts, search, removals=tuple(found))


def other_groups(cuts: Cuts, node: CutNode) -> Mapping[str, Nodes]:
    """The groups to which the node does not belong."""
    return {name: nodes for name, nodes in _groups(cuts).items() if node not in nodes}


def subset(cuts: Cuts, name: str, taken: Nodes, drawn: bool = False) -> Subset:
    """A subset and its runs."""
    return Subset(name, taken, cuts.circuit_without(taken), cuts.model_without(taken), drawn)


def removal(cuts: Cuts, node: CutNode, name: str, taken: Nodes, drawn: bool = False) -> Removal:
    """A node on top of a subset, and the runs of it."""
    return Removal(node, name, taken, cuts.circuit_without(taken), cuts.circuit_without((*taken, node)), drawn)


def drawn(nodes: Nodes, count: int, seed: int) -> tuple[Nodes, ...]:
    """Random subsets: every node is in each with even odds (Wang et al. 2022, section 4.2)."""
    dice = Random(seed)
    return tuple(tuple(node for node in nodes if dice.random() < 0.5) for _ in range(count))


def some(nodes: Iterable[CutNode], count: int, dice: Random) -> Nodes:
    """At most `count` of the nodes, at random, in their order."""
    listed = tuple(nodes)
    chosen = sorted(range(len(listed)), key=lambda _: dice.random())[:count]
    return tuple(listed[i] for i in sorted(chosen))


def _groups(cuts: Cuts) -> dict[str, Nodes]:
    found: dict[str, Nodes] = {}
    for node in cuts.nodes:
        found[node.group] = (*found.get(node.group, ()), node)
    return found


def _places(taken: Iterable[CutNode]) -> dict[NodeComponent, Where]:
    found: dict[NodeComponent, Where] = {}
    for node in taken:
        found[node.component] = found.get(node.component, Where.at()) | node.where
    return found


def _less(kept: Mapping[_Key, Where], out: Mapping[NodeComponent, Where]) -> dict[_Key, Where]:
    """What is kept where, but for what is taken out there; components of which nothing is left are gone."""
    left = {c: where & ~out[c] if c in out else where for c, where in kept.items()}
    return {c: where for c, where in left.items() if not where.is_nowhere}


def _listed(taken: Nodes) -> str:
    return ", ".join(node.name for node in taken) or "nothing"
