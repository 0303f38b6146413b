"""What causal scrubbing replaces, taken apart: runs with one part of it left out, or alone. Imports no torch.

A scrub replaces two things by what comes from other prompts: the values of which an entry of `carries` says what they
depend on, and all else that the components on the paths read. Each entry is a part, and so is all else that is read by
the values of one entry, or by the logits. With no part scrubbed, the run is the clean one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from circuitspec.diagnostics.diagnostic import Diagnostic
from circuitspec.experiments.levels.scrub_level import ScrubDraw
from circuitspec.experiments.levels.scrub_tree import ScrubTree, TreeInput, TreeNode
from circuitspec.hypothesis_file.schema.carries_block import NOTHING

LOGITS = "logits"
MOST = 48  # runs of one claim


@dataclass(frozen=True)
class ScrubPart:
    """What is not carried of the values of an entry, by its key; or (`others`) all else that they read.

    Values that no entry is about have the name of their path as their key.
    """

    key: str
    others: bool
    carried: tuple[str, ...] = ()

    @property
    def described(self) -> str:
        """`induction: B`, `all else that induction reads`."""
        return f"all else that {self.key} reads" if self.others else f"{self.key}: {', '.join(self.carried) or NOTHING}"


def key_of(node: TreeNode) -> str:
    """The entry that is about a node, or what stands for it in parts."""
    return node.key or node.name


def parts_of(tree: ScrubTree) -> tuple[ScrubPart, ...]:
    """The parts of scrubbing a tree, from the logits on."""
    found: dict[ScrubPart, None] = {ScrubPart(LOGITS, others=True): None}
    for node in tree.nodes:
        if node.carries is not None:
            found[ScrubPart(key_of(node), False, node.carries)] = None
        if node.inputs and node.tested and not node.whole:
            found[ScrubPart(key_of(node), others=True)] = None
    return tuple(found)


def scrubbing_only(tree: ScrubTree, parts: Collection[ScrubPart]) -> ScrubTree:
    """The tree in which these parts alone are scrubbed, and all else is of the prompt of whatever reads it."""
    kept = {(part.key, part.others) for part in parts}

    def changed(node: TreeNode) -> TreeNode:
        key = key_of(node)
        carries = node.carries if (key, False) in kept else None
        whole = (key, True) not in kept
        inputs = _mapped(node.inputs, changed)
        if whole and not any(child.carries is not None or child.inputs for one in inputs for child in one.nodes):
            inputs = ()  # what it computes from one prompt it has in the run on that prompt
        return replace(node, carries=carries, whole=whole, inputs=inputs)

    return replace(tree, inputs=_mapped(tree.inputs, changed), whole=(LOGITS, True) not in kept)


def carrying(tree: ScrubTree, key: str, carried: tuple[str, ...] | None) -> ScrubTree:
    """The tree with other things said to be carried by the values of an entry."""

    def changed(node: TreeNode) -> TreeNode:
        inputs = _mapped(node.inputs, changed)
        return replace(node, inputs=inputs, carries=carried if key_of(node) == key else node.carries)

    return replace(tree, inputs=_mapped(tree.inputs, changed))


def _mapped(inputs: tuple[TreeInput, ...], changed: Callable[[TreeNode], TreeNode]) -> tuple[TreeInput, ...]:
    """The inputs with every node that they read changed."""
    return tuple(replace(one, nodes=tuple(map(changed, one.nodes))) for one in inputs)


@dataclass(frozen=True)
class Narrowed:
    """An entry that carries one name less: its run, or why the file could not say so."""

    part: ScrubPart
    dropped: str
    draw: ScrubDraw | None
    why: str = ""


@dataclass(frozen=True)
class ScrubRuns:
    """The runs that take one draw of a claim apart; `left_out` of them are too many.

    `alone` is the run in which a part is scrubbed by itself, `without` that in which all others are.
    """

    together: ScrubDraw
    alone: Mapping[ScrubPart, ScrubDraw]
    without: Mapping[ScrubPart, ScrubDraw]
    narrowed: tuple[Narrowed, ...]
    left_out: int

    @property
    def draws(self) -> tuple[ScrubDraw, ...]:
        """All of them, each once."""
        found = (*self.alone.values(), *self.without.values(), *(one.draw for one in self.narrowed if one.draw))
        return tuple(dict.fromkeys(found))


def apart(
    tree: ScrubTree,
    drawing: Callable[[ScrubTree], ScrubDraw],
    uncomputable: Callable[[ScrubTree], list[Diagnostic]],
    *,
    thorough: bool,
) -> ScrubRuns:
    """The runs of each part alone and, if `thorough`, without each part and with one name less in each entry.

    `drawing` gives the runs of a tree; `uncomputable` says what in one cannot be written.
    """
    parts = parts_of(tree)
    room, left_out = MOST, 0
    alone: dict[ScrubPart, ScrubDraw] = {}
    without: dict[ScrubPart, ScrubDraw] = {}
    narrowed: list[Narrowed] = []
    for part in parts:
        if room:
            alone[part] = drawing(scrubbing_only(tree, [part]))
        room, left_out = max(0, room - 1), left_out + (not room)
    for part in parts if thorough else ():
        if room:
            without[part] = drawing(scrubbing_only(tree, [one for one in parts if one != part]))
        room, left_out = max(0, room - 1), left_out + (not room)
    for part in parts if thorough else ():
        for name in part.carried:
            less = carrying(tree, part.key, tuple(one for one in part.carried if one != name))
            if problems := uncomputable(less):
                narrowed.append(Narrowed(part, name, None, problems[0].message))
                continue
            if room:
                narrowed.append(Narrowed(part, name, drawing(less)))
            room, left_out = max(0, room - 1), left_out + (not room)
    return ScrubRuns(drawing(tree), alone, without, tuple(narrowed), left_out)


def labels_of(runs: ScrubRuns) -> dict[str, ScrubDraw]:
    """The runs by their names."""
    found = {f"scrubbed alone, {part.described}": draw for part, draw in runs.alone.items()}
    found |= {f"scrubbed without {part.described}": draw for part, draw in runs.without.items()}
    return found | {
        f"scrubbed, {one.part.key} without {one.dropped}": one.draw for one in runs.narrowed if one.draw is not None
    }
