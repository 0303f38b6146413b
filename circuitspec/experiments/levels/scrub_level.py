"""Causal scrubbing as path-level experiments: one for each draw, with prompts of its own for every node of the tree.

With reference x at the logits, node n of the tree has the prompt x_n, drawn so that it agrees on what n carries with
the prompt of the node that reads it (at the logits: with x). The value of a node that reads no other is that of the run
on x_n; any other computes it from the values of the nodes that it reads, and from the run on a random prompt z_n of its
own for everything else that it reads. So do the logits, with a random prompt z.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from circuitspec.experiments.experiment import CLEAN_VALUES, Experiment, Reading, Sent, values_in
from circuitspec.experiments.levels.path_level import travelling
from circuitspec.experiments.levels.scrub_tree import ScrubTree, TreeInput, TreeNode
from circuitspec.prompts.scrubbing.drawn_prompts import DrawnPrompts, variant_of


@dataclass(frozen=True)
class NodeDraw:
    """The prompts of a node in one draw, and those that they agree with: both None where they are the clean ones."""

    node: TreeNode
    prompts: DrawnPrompts | None
    reference: DrawnPrompts | None


@dataclass(frozen=True)
class ScrubDraw:
    """One draw: the scrubbed run, and the run with nothing kept, on `random` prompts; both are scored by the reference.

    `drawn` are the prompts of the nodes, `rests` those from which all else is taken that nodes read.
    """

    scrubbed: Experiment
    nothing_kept: Experiment
    drawn: tuple[NodeDraw, ...]
    rests: tuple[DrawnPrompts, ...]

    @property
    def prompts(self) -> tuple[DrawnPrompts, ...]:
        """All that are to be drawn, each after those that it agrees with."""
        named = (one.prompts for one in self.drawn if one.prompts is not None)
        return tuple(dict.fromkeys((*self.rests, *named)))


def scrub_draw(
    tree: ScrubTree, draw: int, *, by: tuple[str, ...], seed: int, through: Sequence[str] | None
) -> ScrubDraw:
    """The runs of one draw, whose prompts are drawn `by` these rules."""
    drawn: list[NodeDraw] = []
    rests: list[DrawnPrompts] = []

    def rest(name: str) -> DrawnPrompts:
        found = DrawnPrompts(None, (), by, f"all else that is read by {name}", draw, seed)
        rests.append(found)
        return found

    def readings(inputs: tuple[TreeInput, ...], reference: DrawnPrompts | None) -> Iterator[Reading]:
        for one in inputs:
            yield Reading(one.receiver, frozenset(sent(node, reference) for node in one.nodes), one.where)

    def sent(node: TreeNode, reference: DrawnPrompts | None) -> Sent:
        own = reference
        if node.carries is not None:
            own = DrawnPrompts(reference, tuple(sorted(node.carries)), by, node.name, draw, seed)
        drawn.append(NodeDraw(node, own, reference))
        if not node.inputs or not node.tested:
            return Sent(node.sender, node.where, prompts=variant_of(own))
        others = own if node.whole else rest(node.name)
        return Sent(node.sender, node.where, frozenset(readings(node.inputs, own)), variant_of(others))

    random = rest("logits")
    arriving = frozenset(readings(tree.inputs, None))
    source = CLEAN_VALUES if tree.whole else values_in(random.variant)
    scrubbed = travelling("clean", source, arriving, tree.paths, through=through, keep=True)
    return ScrubDraw(scrubbed, Experiment(random.variant), tuple(drawn), tuple(rests))
