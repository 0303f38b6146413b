"""The declared paths as a tree: every use of a component by itself, with what its value carries (Chan et al. 2022).

A node of the tree is a component on a path: it sends its value to one input of the next one, on one rest of the path. A
component that two paths use, or that two inputs read, is two nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.experiments.experiment import Reading, Sent
from circuitspec.experiments.levels import path_level
from circuitspec.experiments.levels.path_entries import PathEntry, PathLink, best_of, path_entry, split, two_entries
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.edge_circuit import hopless
from circuitspec.graph.edges import Receiver, Sender
from circuitspec.graph.paths import DeclaredPath, cuttable, everywhere
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import sort_key
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.hypothesis_file.schema.blocks import CircuitSpec
from circuitspec.hypothesis_file.schema.carries_block import EVERYTHING, NOTHING
from circuitspec.hypothesis_file.yaml.source import Path_, SourceText

MOST = 2_000  # nodes of a tree
_CARRIES: Final = ("circuit", "carries")


@dataclass(frozen=True)
class TreeNode:
    """A component on a path, and all that its value may depend on: slots and variables, or (None) everything.

    `inputs` are those of its inputs into which paths lead, each with the nodes that it reads and the positions at which
    it reads them. `name` is the path from it on. `key` is the entry of the file that says what it carries, empty where
    none does. A node is `tested` if it has such an entry, or one of the nodes before it. What no path leads to it
    comes from a random prompt or, with `whole`, from its own.
    """

    sender: Sender
    where: Where
    name: str
    carries: tuple[str, ...] | None
    key: str
    inputs: tuple[TreeInput, ...]
    whole: bool = False

    @property
    def tested(self) -> bool:
        return bool(self.key) or any(node.tested for one in self.inputs for node in one.nodes)

    @property
    def carried(self) -> str:
        """`S1, S2`, `everything`, `nothing`."""
        return EVERYTHING if self.carries is None else ", ".join(self.carries) or NOTHING

    @property
    def before(self) -> tuple[TreeNode, ...]:
        """The nodes whose values it reads."""
        return tuple(node for one in self.inputs for node in one.nodes)

    def all_nodes(self) -> Iterator[TreeNode]:
        """Itself, and all before it."""
        yield self
        for node in self.before:
            yield from node.all_nodes()


@dataclass(frozen=True)
class TreeInput:
    """An input of a node (or of the logits) and the nodes that it reads, at positions of its own."""

    receiver: Receiver
    where: Where
    nodes: tuple[TreeNode, ...]


@dataclass(frozen=True)
class ScrubTree:
    """What arrives at the logits; all else that they read is of random prompts or, with `whole`, of the clean ones."""

    inputs: tuple[TreeInput, ...]
    paths: tuple[DeclaredPath, ...]
    whole: bool = False

    @property
    def nodes(self) -> tuple[TreeNode, ...]:
        """All nodes, each before those that it reads."""
        return tuple(node for one in self.inputs for first in one.nodes for node in first.all_nodes())


def scrub_tree(
    circuit: CircuitSpec,
    graph: CircuitGraph,
    text: SourceText,
    *,
    all_positions: bool,
    variables: Mapping[str, frozenset[str]],
    roots: Mapping[str, str] | None,
) -> ScrubTree:
    """The tree of the file's paths, with what every node carries.

    `variables` are those of the abstraction, each with the names in its expression; `roots` gives for every slot the
    one that it copies, or itself (None: of a prompts file, whose columns are not known here).

    Raises CS226 and CS227 for paths on which nothing can be patched, CS228 and CS229 as `path_set`, CS237 for an entry
    that is about no value on a path, CS238 for a path that carries what its senders do not, CS239 for two entries that
    say as much about one value, CS240 for too large a tree.
    """
    paths = tuple(everywhere(path) if all_positions else path for path in graph.paths)
    impossible = [one for path in paths for one in cuttable(path, text) or hopless(path, graph.shape, text)]
    if impossible:
        raise CircuitspecError(*dict.fromkeys(impossible))
    readings = path_level.path_set(paths, graph.shape, text)
    count = _count(readings)
    if count > MOST:
        raise CircuitspecError(
            Diagnostic(
                "CS240",
                f"as a tree the paths have {count:,} nodes, and {MOST:,} are the most that are scrubbed",
                text.span(("circuit", "paths"), key=True),
                hint="declare fewer paths, or split the hypothesis",
            )
        )
    builder = _Builder(_entries(circuit, graph, text), circuit.unnamed != NOTHING, graph.shape, text)
    tree = ScrubTree(builder.inputs(readings, (), "logits"), paths)
    problems = [
        Diagnostic(
            "CS237",
            f"no value on the declared paths is that of {key}",
            text.span((*_CARRIES, key), key=True),
            hint="name a group or component on a path, at all of its positions there, or a path as `paths` has it",
        )
        for key in circuit.carries or {}
        if key not in builder.fitting
    ]
    problems += lacking(tree, text, variables, roots)
    if builder.problems or problems:
        raise CircuitspecError(*dict.fromkeys([*builder.problems, *problems]))
    return tree


def _count(readings: frozenset[Reading]) -> int:
    """How many nodes the tree of these readings has; values that stand in several places are counted once."""
    known: dict[Sent, int] = {}

    def of(sent: Sent) -> int:
        if sent not in known:
            known[sent] = 1 + sum(of(one) for reading in sent.inputs for one in reading.senders)
        return known[sent]

    return sum(of(sent) for reading in readings for sent in reading.senders)


def _entries(circuit: CircuitSpec, graph: CircuitGraph, text: SourceText) -> dict[PathEntry, tuple[str, ...] | None]:
    problems: list[Diagnostic] = []
    found: dict[PathEntry, tuple[str, ...] | None] = {}
    for key, said in (circuit.carries or {}).items():
        entry = path_entry(key, graph, text, (*_CARRIES, key), problems)
        found[entry] = None if said == EVERYTHING else () if said == NOTHING else tuple(said)
    if problems:
        raise CircuitspecError(*problems)
    return found


class _Builder:
    """Nodes from readings, each with the entry that says what it carries."""

    def __init__(
        self,
        entries: Mapping[PathEntry, tuple[str, ...] | None],
        everything: bool,
        shape: ModelShape,
        text: SourceText,
    ) -> None:
        self._entries, self._everything, self._shape, self._text = entries, everything, shape, text
        self.fitting: set[str] = set()
        self.problems: list[Diagnostic] = []

    def inputs(self, readings: frozenset[Reading], rest: tuple[PathLink, ...], name: str) -> tuple[TreeInput, ...]:
        """What is read before a rest of path (which `name` spells)."""
        ordered = sorted(readings, key=lambda r: (sort_key(r.receiver.component), r.receiver.port or "", str(r.where)))
        return tuple(
            TreeInput(
                reading.receiver,
                reading.where,
                tuple(
                    self._node(sent, reading.receiver, rest, name)
                    for sent in _ordered(
                        part
                        for whole in reading.senders
                        for part in split(whole, reading.receiver, rest, self._entries)
                    )
                ),
            )
            for reading in ordered
        )

    def _node(self, sent: Sent, receiver: Receiver, rest: tuple[PathLink, ...], name: str) -> TreeNode:
        chain = (PathLink(sent.component, sent.where, receiver), *rest)
        own = f"{format_name(sent.component)}{_at(sent.where)} -> {_entered(name, receiver, self._shape)}"
        entry = self._entry(chain)
        if entry is not None:
            carries, key = self._entries[entry], entry.key
        else:
            carries, key = None if self._everything else (), "" if self._everything else "unnamed"
        return TreeNode(sent.component, sent.where, own, carries, key, self.inputs(sent.inputs, chain, own))

    def _entry(self, chain: Sequence[PathLink]) -> PathEntry | None:
        self.fitting |= {entry.key for entry in self._entries if entry.fits(chain)}
        found = best_of(self._entries, chain)
        if len({self._entries[entry] for entry in found}) > 1:
            self.problems.append(two_entries(found[0].key, found[1].key, self._text, _CARRIES))
        return found[0] if found else None


def _ordered(senders: Iterable[Sent]) -> list[Sent]:
    return sorted(senders, key=lambda sent: (sort_key(sent.component), sent.where.canonical()))


def _at(where: Where) -> str:
    if where.is_everywhere or where.inverted:
        return "" if where.is_everywhere else f"@not {','.join(sorted(where.roles))}"
    roles = sorted(where.roles)
    return f"@{roles[0]}" if len(roles) == 1 else f"@{{{','.join(roles)}}}"


def _entered(name: str, receiver: Receiver, shape: ModelShape) -> str:
    """The rest of a path with the input by which it is entered: `a7.h3<v>@END -> logits`."""
    if receiver.port is None:
        return name
    first, arrow, rest = name.partition(" -> ")
    component, at, positions = first.partition("@")
    entered = f"{component}<{receiver.port}>{at}{positions}"
    return f"{entered}{arrow}{rest}"


def lacking(
    tree: ScrubTree, text: SourceText, variables: Mapping[str, frozenset[str]], roots: Mapping[str, str] | None
) -> list[Diagnostic]:
    """CS238 for what its nodes carry and nothing that they read does."""
    return [problem for node in tree.nodes for problem in _lacking(node, text, variables, roots)]


def _lacking(
    node: TreeNode, text: SourceText, variables: Mapping[str, frozenset[str]], roots: Mapping[str, str] | None
) -> list[Diagnostic]:
    """CS238 for what a node carries and nothing that it reads does."""
    found = _given(node, roots) if node.carries else None
    if not node.carries or found is None:
        return []
    given, said = found

    def known(name: str) -> bool:
        if name in given or (roots is not None and roots.get(name) in given):
            return True
        return bool(variables.get(name)) and all(map(known, variables[name]))

    lost = [name for name in node.carries if not known(name)]
    if not lost:
        return []
    place: Path_ = (*_CARRIES, node.key)
    return [
        Diagnostic(
            "CS238",
            f"{node.name} is said to carry {', '.join(lost)}, which cannot be computed from what leads there: {said}",
            text.span(place, key=True),
            hint=f"let something that leads to it carry {', '.join(lost)}, or leave it out here",
        )
    ]


def _given(node: TreeNode, roots: Mapping[str, str] | None) -> tuple[frozenset[str], str] | None:
    """What can be known of what a node reads, and in words what that is; None where it may be everything."""
    known = {} if roots is None else roots
    if node.before:
        names = {name for one in node.before for name in one.carries or ()}
        said = "; ".join(f"{one.name} carries {one.carried}" for one in node.before)
        whole = any(one.carries is None for one in node.before)
        return None if whole else (frozenset(names | {known.get(name, name) for name in names}), said)
    slots = {role.partition("#")[0] for role in node.where.roles}
    if node.sender.kind.in_layers or node.where.inverted or not slots <= known.keys():
        return None  # a head or MLP may read anything, and so it is with positions that are no slots
    at = ", ".join(sorted(node.where.roles))
    return frozenset(slots | {known[slot] for slot in slots}), f"the embeddings at {at}"
