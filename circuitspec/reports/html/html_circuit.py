"""A verification's circuit as nodes and edges to draw, and as a table of its groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from types import MappingProxyType

from circuitspec.analysis.circuit_effects.circuit_parts import COMPONENTS
from circuitspec.analysis.claims.registry import kind_of
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.wording import number
from circuitspec.analysis.verification_result import Verification
from circuitspec.experiments.follow_ups.reach import Reading, arrives
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.dictionary_nodes import is_of_dictionary
from circuitspec.graph.edges import stage_in
from circuitspec.graph.paths import DeclaredPath, edges_of, reaches, read_path
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.component_kinds import INPUT, LOGITS
from circuitspec.hypothesis_file.grammar.components import Component, Logits
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.hypothesis_file.yaml.source import SourceText
from circuitspec.prompts.prompt_set import TokenizedTask
from circuitspec.reports.figures import DrawnEdge, DrawnNode, circuit_graph
from circuitspec.reports.figures.layout import Effect
from circuitspec.reports.views import CircuitView, Table

_MOST_NODES, _MOST_EDGES = 300, 400  # more are not told apart
_EVERYWHERE = "every position"
_AND = ", "  # between the positions of a box
_LOGITS = "logits"


def circuit_view(
    found: Verification, source: SourceText, order: Mapping[str, float], task: TokenizedTask | None = None
) -> CircuitView | None:
    """The circuit of a verification, None where it has no graph or nothing is declared.

    `order` sorts positions from left to right; those that it lacks come after, as the file names them. With a `task`,
    edges are drawn only between positions that some prompt allows: to the logits from the last token alone.
    """
    if found.graph is None:
        return None
    return graph_view(found.graph, order, _measured(found, found.graph, source), task, _drops(found))


def graph_view(
    graph: CircuitGraph,
    order: Mapping[str, float],
    measured: Iterable[tuple[DeclaredPath, Estimate]] = (),
    task: TokenizedTask | None = None,
    drops: Mapping[str, float] = MappingProxyType({}),
) -> CircuitView | None:
    """The circuit as declared, with the effects of paths where they were `measured`; None where nothing is declared.

    A component is one box, in the column of all its positions; `drops` are what components do by themselves.
    """
    if not (graph.members or graph.paths):
        return None
    drawing = one_box_each(_drawing(graph, measured, task), order, drops)
    nodes, edges = drawing.nodes, drawing.edges
    columns = ("group", "effect", "components, and where they act")
    groups = Table("Groups of the circuit", columns, tuple(_groups(graph)), prose=(2,))
    if len(nodes) > _MOST_NODES:
        return CircuitView(None, f"The circuit has {len(nodes)} components and positions, too many to draw.", groups)
    shown = sorted(edges, key=lambda edge: -abs(edge.effect or 0.0))[:_MOST_EDGES]
    across = sorted(
        dict.fromkeys(node.column for node in nodes if node.column),
        key=lambda name: [_place(one, nodes, order) for one in name.split(_AND)],
    )
    picture = circuit_graph(nodes, shown, columns=across, title="The circuit as declared")
    sized = any(node.size is not None for node in nodes)
    return CircuitView(picture, _note(edges, shown, large=len(graph.circuit) > COMPONENTS, sized=sized), groups)


def _note(edges: Sequence[DrawnEdge], shown: Sequence[DrawnEdge], *, large: bool, sized: bool = False) -> str:
    said = "Layers upward, positions across"
    said += "; in a box, and the deeper its colour: what is lost when it is ablated alone" if sized else ""
    if any(edge.effect is not None for edge in edges):
        said += "; an edge is as wide as the effect of its path by itself, as a share of clean - corrupt"
        said += "" if all(edge.effect is not None for edge in edges) else " (thin where it was not measured)"
    elif edges:
        said += "; the effects of single paths were not measured, so all edges are drawn alike"
        said += f" (more than {COMPONENTS} components: verify --negatives exact measures them)" if large else ""
    if len(shown) < len(edges):
        said += f"; {len(shown)} of {len(edges)} edges are drawn"
    return said + "."


def _groups(graph: CircuitGraph) -> Iterator[tuple[str, str, str]]:
    for group in dict.fromkeys(member.group for member in graph.members):
        members = [member for member in graph.members if member.group == group]
        named = ", ".join(f"{format_name(m.component)}{m.where.canonical()}".removesuffix("*") for m in members)
        yield group, members[0].effect, named


def _measured(found: Verification, graph: CircuitGraph, source: SourceText) -> Iterator[tuple[DeclaredPath, Estimate]]:
    """Paths that were patched by themselves, and what that did: those of the file, and those of its claims."""
    declared = {path.text: path for path in graph.paths}
    for effect in found.paths:
        estimate = effect.drop if effect.drop is not None else effect.rise
        if estimate is None:
            continue
        if effect.path in declared:
            yield declared[effect.path], estimate
        else:  # what stands beside an arrow of a declared path
            yield read_path(effect.path, graph.members, graph.shape, source, ("circuit", "paths"), []), estimate
    for planned, claim in zip(found.plan.claims, found.claims, strict=True):
        own = kind_of(planned).own_path(planned)
        if own is not None and claim.estimate is not None:
            of, place = own
            yield read_path(of, graph.members, graph.shape, source, place, []), claim.estimate


@dataclass(frozen=True)
class _Drawing:
    """A circuit's components at their positions, one node each, and what its declared paths join."""

    nodes: tuple[DrawnNode, ...]
    edges: tuple[DrawnEdge, ...]


def _drawing(
    graph: CircuitGraph, measured: Iterable[tuple[DeclaredPath, Estimate]], task: TokenizedTask | None
) -> _Drawing:
    joins = _Joins(graph.shape, task)
    nodes: dict[str, DrawnNode] = {}
    for member in graph.members:
        for node, _ in _nodes(member.component, member.where, graph.shape):
            nodes.setdefault(node.key, replace(node, group=member.group, effect=member.effect))
    joined: dict[tuple[str, str], None] = {}
    for path in graph.paths:
        for stop in (stop for hop in path.hops for stop in hop):
            for node, _ in _nodes(stop.component, stop.where, graph.shape):
                nodes.setdefault(node.key, node)
        joined |= dict.fromkeys(joins.of(path))
    effects: dict[tuple[str, str], Estimate] = {}
    for path, estimate in measured:  # an edge of several paths is shown by the one that does most
        for ends in joins.of(path):
            effects[ends] = max(effects.get(ends, estimate), estimate, key=lambda one: abs(one.value))
    edges = tuple(_edge(ends, effects.get(ends), nodes[ends[0]].effect) for ends in joined)
    return _Drawing(tuple(_above_its_feeders(nodes, edges)), edges)


def one_box_each(drawing: _Drawing, order: Mapping[str, float], drops: Mapping[str, float]) -> _Drawing:
    """Every component as one node, whatever groups and positions it is in; of edges that coincide the strongest."""
    together: dict[str, list[DrawnNode]] = {}
    for node in drawing.nodes:
        together.setdefault(node.label, []).append(node)
    nodes = []
    for label, own in together.items():
        columns = list(dict.fromkeys(node.column for node in own))
        columns.sort(key=lambda name: _place(name, drawing.nodes, order))
        groups = dict.fromkeys(node.group for node in own if node.group)
        effects = {node.effect for node in own}
        size = drops.get(label)
        told = f"{number(size)} is lost when it is ablated alone" if size is not None else ""
        nodes.append(
            replace(
                own[0],
                key=label,
                column=_AND.join(columns),
                group=_AND.join(groups),
                effect=own[0].effect if len(effects) == 1 else "positive",
                size=size,
                told=told,
            )
        )
    of = {node.key: node.label for node in drawing.nodes}
    strongest: dict[tuple[str, str], DrawnEdge] = {}
    for edge in drawing.edges:
        ends = of[edge.sender], of[edge.receiver]
        known = strongest.get(ends)
        if known is None or abs(edge.effect or 0.0) > abs(known.effect or 0.0):
            strongest[ends] = replace(edge, sender=ends[0], receiver=ends[1])
    return _Drawing(tuple(nodes), tuple(strongest.values()))


def _drops(found: Verification) -> Mapping[str, float]:
    """What is lost when a component is ablated alone, where that was run."""
    effects = found.effects
    return {} if effects is None else {one.part.name: one.drop.value for one in effects.components}


def _edge(ends: tuple[str, str], effect: Estimate | None, declared: Effect) -> DrawnEdge:
    """An edge is negative where its sender is declared so, or no effect in its interval is of use."""
    interval = None if effect is None else effect.interval
    against = declared == "negative" or (interval is not None and interval[1] < 0)
    return DrawnEdge(*ends, None if effect is None else effect.value, against)


def _above_its_feeders(nodes: Mapping[str, DrawnNode], edges: Iterable[DrawnEdge]) -> Iterator[DrawnNode]:
    """The nodes, the logits above the position at which most of the components are that feed them."""
    columns = [nodes[edge.sender].column for edge in edges if edge.receiver == _LOGITS]
    column = max(dict.fromkeys(columns), key=columns.count, default="")
    for key, node in nodes.items():
        yield replace(node, column="" if column == _EVERYWHERE else column) if key == _LOGITS else node


class _Joins:
    """The nodes between which a path has edges: where the reader reads at its own position, and what arrives there."""

    def __init__(self, shape: ModelShape, task: TokenizedTask | None) -> None:
        self._shape, self._task = shape, task
        self._known: dict[tuple[Where, Where, Reading], bool] = {}

    def of(self, path: DeclaredPath) -> Iterator[tuple[str, str]]:
        for senders, readers in pairwise(path.hops):
            for sender in senders:
                for reader in readers:
                    own = _at_its_own(DeclaredPath(path.text, path.place, ((sender,), (reader,))), self._shape)
                    if own is None:
                        continue
                    to_logits = reader.component == Logits()
                    reading: Reading = "last" if to_logits else "own" if own else "past"
                    for first, written in _nodes(sender.component, sender.where, self._shape):
                        for last, acting in _nodes(reader.component, reader.where, self._shape):
                            if self._arrives(written, acting, reading):
                                yield first.key, last.key

    def _arrives(self, written: Where, acting: Where, reading: Reading) -> bool:
        if written.is_everywhere or (acting.is_everywhere and reading != "last"):
            return True
        if self._task is None:
            return reading != "own" or written.meets(acting)
        asked = written, acting, reading
        if asked not in self._known:
            self._known[asked] = arrives(written, acting, reading, self._task)
        return self._known[asked]


def _nodes(component: Component, where: Where, shape: ModelShape) -> Iterator[tuple[DrawnNode, Where]]:
    """A component at each of its positions."""
    name, (row, label) = format_name(component), _row(component, shape)
    for column, here in _columns(component, where):
        key = name if name == _LOGITS else f"{name}@{column}"
        yield DrawnNode(key, name, row, label, column), here


def _at_its_own(pair: DeclaredPath, shape: ModelShape) -> bool | None:
    """Whether the reader of a path of two stops reads at its own positions alone; None where there is no edge."""
    sender, reader = pair.hops[0][0], pair.hops[1][0]
    edges, impossible = edges_of(pair, shape)
    if edges:
        return all(edge.receiver.reads_where_it_acts for edge in edges)
    return None if impossible or not reaches(sender.component, reader.component) else True


def _columns(component: Component, where: Where) -> list[tuple[str, Where]]:
    if component.kind is LOGITS or (component.kind is INPUT and where.is_everywhere):
        return [("", Where.everywhere())]
    if where.is_everywhere:
        return [(_EVERYWHERE, where)]
    names = sorted(where.roles)
    return [(f"not {' or '.join(names)}", where)] if where.inverted else [(name, Where.at(name)) for name in names]


def _row(component: Component, shape: ModelShape) -> tuple[int, str]:
    """Its place in the order of computation, and what the row is called; features are above what they are parts of."""
    own, label = stage_in(component, shape), component.kind.drawn_in.format(layer=component.place[0])
    if not is_of_dictionary(component):
        return 2 * (own or 0), label
    site = shape.dictionary(component.dictionary)
    if own is None or site is None:
        return 2 * (stage_in(Logits(), shape) or 0) - 1, label
    return 2 * own + 1, f"{label} of {site.place}"


def _place(column: str, nodes: Sequence[DrawnNode], order: Mapping[str, float]) -> tuple[int, float]:
    if column in order:
        return 1, order[column]
    names = list(dict.fromkeys(one for node in nodes for one in node.column.split(_AND)))
    return (0 if column == _EVERYWHERE else 2), float(names.index(column))
