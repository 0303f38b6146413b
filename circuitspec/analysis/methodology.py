"""How a run was made, as reports state it: the model, what was ablated and how, the prompts behind means."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from circuitspec.analysis.statistics.wording import plural
from circuitspec.analysis.verification_result import Methodology, ModelFacts, ReferenceFacts
from circuitspec.experiments.ablation_source import corrupt_prompts
from circuitspec.experiments.experiment import Noised
from circuitspec.experiments.planner import Plan
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.nodes import NodeComponent
from circuitspec.hypothesis_file.grammar.ablation_kinds import ABLATIONS
from circuitspec.hypothesis_file.grammar.component_kinds import OF_DICTIONARIES, ComponentKind
from circuitspec.hypothesis_file.grammar.components import IN_LAYERS, OF_DICTIONARY, DictionaryError
from circuitspec.hypothesis_file.schema.blocks import Hypothesis
from circuitspec.prompts.prompt_set import TokenizedTask, prompts_digest

if TYPE_CHECKING:
    from circuitspec.models.load import LoadedModel


def model_facts(loaded: LoadedModel) -> ModelFacts:
    """Which model was run, and its size."""
    known, shape = loaded.provenance, loaded.shape
    named = "" if known.description == known.id else f"{known.description}; "
    return ModelFacts(
        known.id,
        known.revision,
        known.dtype,
        known.family,
        shape.n_layers,
        shape.n_heads,
        f"{named}{loaded.architecture.title}, {shape.n_layers} layers x {shape.n_heads} heads",
    )


def methodology(hypothesis: Hypothesis, graph: CircuitGraph, plan: Plan, task: TokenizedTask) -> Methodology:
    """How everything outside the circuit was ablated, as reports state it."""
    kinds = [*(kind for kind in IN_LAYERS if kind.has_outside), *OF_DICTIONARIES]
    claimed, free = graph.claimed, graph.free
    named = {one.dictionary for one in graph.universe if isinstance(one, OF_DICTIONARY)}
    errors = {one.dictionary for one in graph.universe if isinstance(one, DictionaryError)}
    left_out = {one.name for one in graph.shape.dictionaries if one.error_left_out}
    stays = tuple(f"the error of {name}" for name in sorted(named - errors))

    def words(components: Collection[NodeComponent], kind: ComponentKind) -> str | None:
        everywhere = {c for c in graph.universe if c.kind is kind}
        here = [c for c in components if c in everywhere]
        if not here:
            return None
        return kind.plural if len(here) == len(everywhere) else f"{len(here)} of {len(everywhere)} {kind.plural}"

    corrupt = corrupt_prompts(hypothesis.ablation)
    return Methodology(
        hypothesis.ablation.level,
        tuple(word for kind in kinds if (word := words(claimed, kind))),
        (*(word for kind in kinds if (word := words(free, kind))), *stays),
        hypothesis.ablation.value,
        str(corrupt) if isinstance(corrupt, Noised) else hypothesis.ablation.source,
        hypothesis.ablation.positions,
        kept=_kept(plan, hypothesis),
        through=hypothesis.ablation.through,
        left_out=tuple(sorted(named & left_out)),
        averaged=_averaged(task) if ABLATIONS[hypothesis.ablation.value].averages else "",
        frozen=hypothesis.ablation.routing == "frozen",
        written=bool(plan.circuit.roles),
    )


def _averaged(task: TokenizedTask) -> str:
    """`800 reference prompts`, `the scored prompts`."""
    return "the scored prompts" if task.reference is None else plural(task.reference.n, "reference prompt")


def reference_facts(task: TokenizedTask) -> ReferenceFacts | None:
    """The prompts that means go over; None where these are the scored ones."""
    reference = task.reference
    return None if reference is None else ReferenceFacts(reference.n, prompts_digest(reference.prompts))


def _kept(plan: Plan, hypothesis: Hypothesis) -> str:
    """`182 of 32,491 edges kept`, `15 paths kept`; empty at node level."""
    if hypothesis.ablation.level == "path":
        return f"{plural(len(hypothesis.circuit.paths), 'declared path')} kept"
    edges = plan.edges
    return "" if edges is None else f"{edges.n_kept:,} of {edges.n_edges:,} edges kept"
