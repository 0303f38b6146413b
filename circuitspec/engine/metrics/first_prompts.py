"""Which of the first prompts reports show, at which positions, and the attention of which heads."""

from __future__ import annotations

from circuitspec.engine.forward import Forward
from circuitspec.engine.metrics.shown_prompts import ShownPrompts, shown_prompts
from circuitspec.experiments.ablation_source import ablation_source
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.hypothesis_file.grammar.components import Head
from circuitspec.hypothesis_file.schema.blocks import Hypothesis
from circuitspec.prompts.prompt_set import CLEAN


def shown_first(runner: Forward, graph: CircuitGraph, hypothesis: Hypothesis) -> ShownPrompts:
    """The first prompts, clean and as values that are patched in come from, with the circuit's positions marked.

    Without such prompts (zeros are patched in) the file's first corruption, if it has one, stands beside the clean one.
    """
    task = runner.task
    named = (ablation_source(hypothesis.ablation).prompts, *task.prompts.corruptions)
    other = next((str(name) for name in named if name is not None and name != CLEAN and str(name) in task.ids), None)
    used = {role for member in graph.members for role in member.where.roles}
    positions = [role for role in sorted(task.roles, key=lambda role: task.roles[role][0]) if role in used]
    heads = [
        (member.component, role)
        for member in graph.members
        if isinstance(member.component, Head)
        for role in ([""] if member.where.inverted else [one for one in positions if one in member.where.roles])
    ]
    return shown_prompts(runner, (CLEAN,) if other is None else (CLEAN, other), positions, heads)
