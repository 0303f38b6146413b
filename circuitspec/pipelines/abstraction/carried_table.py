"""What every value on the paths of a circuit carries, as a table, before anything runs. Imports no torch."""

from __future__ import annotations

from circuitspec.analysis.claims.abstraction.scrubbed import PlannedScrub
from circuitspec.experiments.levels.scrub_tree import TreeNode
from circuitspec.experiments.planner import Plan
from circuitspec.runtime.text_columns import aligned


def carried_text(plan: Plan) -> str:
    """A line a value on the declared paths as a tree, with what it carries; empty without a claim that scrubs them."""
    tree = next((planned.tree for planned in plan.claims if isinstance(planned, PlannedScrub)), None)
    if tree is None:
        return ""
    rows = [["   value on a path", "carries", "by"]]
    rows += [[f"   {node.name}", node.carried, _said_by(node)] for node in tree.nodes]
    return f"what values on the paths carry, for `scrubbed`\n{aligned(rows)}"


def _said_by(node: TreeNode) -> str:
    if node.key:
        return node.key
    return "no entry" if node.tested else "no entry: not tested"
