"""A hypothesis and its prompts, laid out over a model, planned and tokenised: all that is known before a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from circuitspec.analysis.claims.registry import make_plan
from circuitspec.dictionaries.declared_dictionaries import read_declared
from circuitspec.experiments.internal_metric_plans import internal_metrics, measuring
from circuitspec.experiments.planner import Plan
from circuitspec.experiments.requirements import check_claimed, check_plan_fits, fitted, refused_runs
from circuitspec.experiments.subspaces.subspace_files import read_subspaces
from circuitspec.graph.circuit_graph import CircuitGraph, lay_out
from circuitspec.graph.shape import ModelShape
from circuitspec.hypothesis_file.grammar.internal_metric_names import Internal
from circuitspec.hypothesis_file.load_file import Document, with_source
from circuitspec.hypothesis_file.schema.blocks import Hypothesis
from circuitspec.models.load import LoadedModel
from circuitspec.models.storage.hub import fetch_folder
from circuitspec.pipelines.abstraction.pair_preparation import paired, pairs_of, with_all_drawn
from circuitspec.pipelines.session import tokens_of
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.pairs.pair_set import PairSet
from circuitspec.prompts.prompt_set import PromptSet, TokenizedTask

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from circuitspec.dictionaries.dictionary import Dictionary


def prompts_of(document: Document) -> tuple[PromptSet, Hypothesis]:
    """The prompts, and the hypothesis with what it leaves open filled in by them.

    Raises CircuitspecError for prompts that cannot be made, CS145, and CS350 for metrics that they have no answers for.
    """
    prompts = build_prompts(document.hypothesis.task, document.base_dir, document.source)
    hypothesis = with_source(document.hypothesis, prompts.corruptions, document.source)
    check_claimed(hypothesis, prompts, document.source)
    return prompts, hypothesis


@dataclass(frozen=True)
class Prepared:
    """What is made of a hypothesis before any weight is read."""

    internals: tuple[Internal, ...]
    graph: CircuitGraph
    plan: Plan
    task: TokenizedTask
    pairs: PairSet | None = None
    learned_on: Mapping[str, frozenset[str]] = field(default_factory=dict)  # words, by variables with subspaces
    dictionaries: Mapping[str, Dictionary] = field(default_factory=dict)  # on the CPU


def prepare(
    hypothesis: Hypothesis,
    document: Document,
    prompts: PromptSet,
    shape: ModelShape,
    tokenizer: PreTrainedTokenizerFast,
    *,
    features: bool = True,
) -> Prepared:
    """Lay out, plan and tokenise. Raises CircuitspecError for whatever does not fit the model or the prompts.

    With `features`, the dictionaries that the hypothesis declares are read.
    """
    text = document.source
    dictionaries: Mapping[str, Dictionary] = {}
    if features and hypothesis.dictionaries:
        shape, dictionaries = read_declared(hypothesis.dictionaries, document.base_dir, shape, text, fetch_folder)
    internals = internal_metrics(hypothesis, shape, text)
    graph = measuring(lay_out(hypothesis.circuit, shape, text), internals)
    pairs = pairs_of(hypothesis, prompts, document)
    subspaces = read_subspaces(document)
    plan = make_plan(hypothesis, graph, text, prompts.corruptions, pairs, subspaces)
    task = tokens_of(document, hypothesis, prompts, shape, tokenizer, unequal=True)
    task = paired(task, pairs, hypothesis, tokenizer, text)
    task = with_all_drawn(task, plan.drawn_prompts, document, tokenizer)
    plan = fitted(plan, refused_runs(plan.experiments, task), text)
    check_plan_fits(plan, task, text, internals)
    learned_on = {name: one.words for name, one in subspaces.items() if one.words}
    return Prepared(tuple(internals), graph, plan, task, pairs, learned_on, dictionaries)


def with_dictionaries(loaded: LoadedModel, prepared: Prepared) -> LoadedModel:
    """The model with the dictionaries beside it, on its device."""
    return beside(loaded, prepared.graph.shape, prepared.dictionaries)


def beside(loaded: LoadedModel, shape: ModelShape, dictionaries: Mapping[str, Dictionary]) -> LoadedModel:
    """The model with these dictionaries, whose places are in the shape; itself where there are none."""
    if not dictionaries:
        return loaded
    device = next(loaded.model.parameters()).device
    return replace(loaded, shape=shape, dictionaries={name: one.to(device) for name, one in dictionaries.items()})
