"""A file with high-level variables in, where in the model one of them is out: IIA place by place."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.cache.stored_runner import StorePlace
from circuitspec.experiments.levels.patched_tokens import undefined_at
from circuitspec.exploration.request import Kind
from circuitspec.exploration.setting import distinct_roles
from circuitspec.exploration.variables.place_trials import (
    AlignedPlace,
    figures_at_places,
    place_trials,
    places_of_kinds,
    runs_of_trials,
)
from circuitspec.exploration.variables.variable_findings import VariableFindings
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.checks.scope import meant
from circuitspec.hypothesis_file.load_file import Study
from circuitspec.hypothesis_file.schema.abstraction.abstraction_block import AbstractionSpec
from circuitspec.models.load import LoadedModel
from circuitspec.pipelines.abstraction.place_subspaces import with_subspaces
from circuitspec.pipelines.abstraction.subspace_search import AlignOptions
from circuitspec.pipelines.session import Session, check_routing_free, from_file, from_memory, opened, tokens_of
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.pairs.pair_families import draw_pairs
from circuitspec.prompts.pairs.pair_set import PairSet
from circuitspec.prompts.pairs.pair_tokens import with_pairs
from circuitspec.prompts.pairs.settings import source_variant
from circuitspec.prompts.prompt_set import CLEAN, PromptSet, TokenizedTask
from circuitspec.runtime.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from circuitspec.graph.shape import ModelShape


@dataclass(frozen=True)
class VariableRequest:
    """Which variable is looked for, and where.

    kinds: of components. at: names of positions; all that every prompt has, unless given. layers: all unless given.
    rank: of subspaces that are learned too, at the first `most` of the places that are proposed (of the first kind).
    """

    variable: str
    kinds: tuple[Kind, ...] = ("resid",)
    at: tuple[str, ...] | None = None
    layers: tuple[int, ...] | None = None
    rows: int | None = None
    device: str = "cpu"
    store: StorePlace = None
    rank: int | None = None
    most: int = 2


def sweep_variable(
    study: Study, asked: VariableRequest, progress: Progress, *, loaded: LoadedModel | None = None
) -> VariableFindings:
    """Let each place take its value in the source of every pair, by itself, and score the answers.

    A place is run once a pair, from the first patched layer and token on. Where a rank is asked for, subspaces are
    learned at the places that are proposed. The model is the file's, or the one that is `loaded` already. Raises
    CircuitspecError as `verify` does, CS528 for a variable that the file does not have, CS233 where no position has its
    tokens in all bases and sources.
    """
    started = time.monotonic()
    subject, source = study.exploration, study.source
    check_routing_free(study)
    spec = _abstraction(study, asked.variable)
    prompts = build_prompts(subject.task, study.base_dir, source)
    pairs = draw_pairs(spec, subject.task, prompts, study.base_dir, source)
    loading = from_file(study, subject, asked.device, progress) if loaded is None else from_memory(loaded)
    model, about = opened(loading, partial(_prepare, study, asked, prompts, pairs))
    trials = place_trials(asked.variable, about.places, model.shape, pairs)
    session = Session(model, progress, rows=asked.rows, filled=True, store=asked.store)
    with session.tested(about.task) as (runner, _), session.kept(runner) as stored:
        progress.stage(f"interchanging {asked.variable}, one place at a time")
        records = stored.run(runs_of_trials(trials.values()))
        forwards, saved = runner.forwards, runner.forwards_saved
    found = VariableFindings(
        subject.name,
        model.provenance.id,
        asked.variable,
        about.task.n,
        model.shape.n_layers,
        about.positions,
        tuple(pairs.families),
        tuple(figures_at_places(trials, records)),
        about.misplaced,
        forwards,
        saved,
        time.monotonic() - started,
    )
    if asked.rank is None:
        return found
    options = AlignOptions(seeds=1, controls=False, device=asked.device, store=asked.store)
    options = options if asked.rows is None else replace(options, rows=asked.rows)
    found = with_subspaces(found, asked.rank, asked.most, study, options, progress, model)
    return replace(found, seconds=time.monotonic() - started)


@dataclass(frozen=True)
class _Prepared:
    """What a sweep is about, as far as it is known before any weight is read."""

    task: TokenizedTask
    places: tuple[AlignedPlace, ...]
    positions: tuple[str, ...]
    misplaced: Mapping[str, str]


def _abstraction(study: Study, variable: str) -> AbstractionSpec:
    spec = study.exploration.abstraction
    if spec is None:
        hint = "add abstraction: {variables: ..., output: ..., pairs: ...}; `align` may be left out"
        raise CircuitspecError(Diagnostic("CS528", f"{study.source.file} declares no variables", hint=hint))
    if variable not in spec.variables:
        where = study.source.span(("abstraction", "variables"), key=True)
        hint = meant(variable, spec.variables)
        raise CircuitspecError(Diagnostic("CS528", f"there is no variable {variable}", where, hint=hint))
    return spec


def _prepare(
    study: Study,
    asked: VariableRequest,
    prompts: PromptSet,
    pairs: PairSet,
    shape: ModelShape,
    tokenizer: PreTrainedTokenizerFast,
) -> _Prepared:
    """Tokenise, and see which positions can be patched. Raises CircuitspecError for what fits not the model."""
    subject, source = study.exploration, study.source
    task = tokens_of(study, subject, prompts, shape, tokenizer, unequal=True)
    settings = [((asked.variable, family),) for family in pairs.families]
    task = with_pairs(task, pairs, settings, subject.task.positions, tokenizer, source)
    named = _named(task, asked.at, study)
    moved = {
        role: family
        for role in named
        for family in pairs.families
        if undefined_at(task, CLEAN, source_variant(family), [Where.at(role)]) is not None
    }
    positions = tuple(role for role in named if role not in moved)
    if not positions:
        where = source.span(("abstraction", "pairs"), key=True)
        said = "no position has its tokens in all bases and sources" if moved else "no position has a name"
        hint = "let lists have entries of equally many tokens, or declare positions: {END: last}"
        raise CircuitspecError(Diagnostic("CS233", said, where, hint=hint))
    places = places_of_kinds(asked.kinds, shape, positions, asked.layers)
    return _Prepared(task, places, positions, moved)


def _named(task: TokenizedTask, at: Sequence[str] | None, study: Study) -> tuple[str, ...]:
    """The positions in the order of the prompt, one name for the same tokens; those asked `at` as they are."""
    if at is not None:
        if unknown := [name for name in at if name not in task.roles]:
            hint = f"positions that every prompt has: {', '.join(sorted(task.roles))}"
            where = study.source.span(("task",), key=True)
            raise CircuitspecError(
                Diagnostic("CS507", f"position `{unknown[0]}` is not in every prompt", where, hint=hint)
            )
        return tuple(dict.fromkeys(at))
    return tuple(sorted(distinct_roles(task), key=lambda role: (sum(task.roles[role]), role)))
