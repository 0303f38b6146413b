"""What every value on the paths of a circuit carries, as a table, before anything runs. Imports no torch."""

from __future__ import annotations

from circuitspec.analysis.claims.abstraction.scrubbed import PlannedScrub
from circuitspec.experiments.levels.scrub_tree import TreeNode
from circuitspec.experiments.planner import Plan
from circuitspec.runtime.visible_text import visible


def carried_text(plan: Plan) -> str:
    """A line a value on the declared paths as a tree, with what it carries; empty without a claim that scrubs them."""
    tree = next((planned.tree for planned in plan.claims if isinstance(planned, PlannedScrub)), None)
    if tree is None:
        return ""
    rows = [["   value on a path", "carries", "by"]]
    rows += [[f"   {visible(node.name)}", visible(node.carried), visible(_said_by(node))] for node in tree.nodes]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = ("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(["what values on the paths carry, for `scrubbed`", *lines])


def _said_by(node: TreeNode) -> str:
    if node.key:
        return node.key
    return "no entry" if node.tested else "no entry: not tested"
