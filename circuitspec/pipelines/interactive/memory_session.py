"""A model in memory and prompts in any form, ready to run experiments on: what every call from Python begins with."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from circuitspec.analysis.warnings.as_given_warnings import beyond_weights_of
from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.dictionaries.declared_dictionaries import read_declared
from circuitspec.engine.cache.stored_runner import StoredRunner
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import CLEAN_VALUES, Experiment, Source
from circuitspec.experiments.levels.node_level import ablating
from circuitspec.experiments.requirements import check_length
from circuitspec.graph.nodes import NodeComponent, wholes_with_outside
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.ablation_kinds import ABLATIONS, RESAMPLE
from circuitspec.models.adopt import adopt_model
from circuitspec.models.load import LoadedModel
from circuitspec.models.storage.hub import fetch_folder
from circuitspec.models.tokenizers.tokenizer_files import other_than_filed
from circuitspec.pipelines.interactive.given_prompts import PromptsLike, given_dictionaries, given_task
from circuitspec.pipelines.interactive.named_sites import check_named, with_end
from circuitspec.pipelines.preparation import beside
from circuitspec.pipelines.session import Session
from circuitspec.prompts.own_metrics import OwnMetric, named_metrics
from circuitspec.prompts.prompt_set import CLEAN, PromptSet, TokenizedTask
from circuitspec.prompts.tokens.tokenize import tokenize
from circuitspec.runtime.progress import Progress, for_callers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

How: TypeAlias = str
"""What patching does. noising: the clean run with values of the corrupt one; denoising: the corrupt run with values of
the clean one; an ablation's name: the clean run with zeros, with means over the corrupt prompts, or (resample, which is
noising) with the corrupt run's values."""

HOWS: tuple[str, ...] = ("noising", "denoising", *(name for name, row in ABLATIONS.items() if not row.noise))


@dataclass(frozen=True)
class Laboratory:
    """A tested model with prompts: runs experiments, and knows what it runs them on."""

    runner: Runner
    stored: StoredRunner
    task: TokenizedTask
    progress: Progress

    @property
    def loaded(self) -> LoadedModel:
        return self.runner.loaded


@dataclass(frozen=True)
class Manner:
    """One way of patching: what is done, and with which corrupt prompts (None: with zeros)."""

    how: str
    corruption: str | None

    @property
    def source(self) -> Source:
        if self.how == "denoising":
            return CLEAN_VALUES
        value = RESAMPLE.name if self.how == "noising" else self.how
        return Source(ABLATIONS[value].source, self.corruption)

    @property
    def base(self) -> str:
        return self.corruption if self.how == "denoising" and self.corruption is not None else CLEAN

    def patched(self, sites: Mapping[NodeComponent, Where]) -> Experiment:
        """The base run with these sites patched."""
        return Experiment(self.base, self.source, ablating(self.source, sites).sites)

    def anchor(self, loaded: LoadedModel) -> Experiment:
        """Where nothing is recovered: the corrupt run; with means and zeros, every head and MLP ablated."""
        if self.corruption is not None and (self.how == "denoising" or self.source.is_run):
            return Experiment(self.corruption)
        return ablating(self.source, dict.fromkeys(wholes_with_outside(loaded.shape), Where.everywhere()))


def manners(how: str, corruption: str | Sequence[str] | None, task: TokenizedTask) -> tuple[Manner, ...]:
    """A way of patching for each corruption that is named, or that the prompts have.

    Means may be over the clean prompts too (`corruption="clean"`, and where there is no corruption). Raises ValueError
    for another `how`, CircuitspecError (CS508) for a corruption that the prompts do not have, or where one is needed.
    """
    if how in ABLATIONS and ABLATIONS[how].noise:
        raise ValueError(
            f"how={how!r}: noise goes on the embeddings of the prompts, not into a component: verify a hypothesis "
            f'with ablation("{how}", at=[...]), or give one of {", ".join(HOWS)}'
        )
    if how not in HOWS:
        raise ValueError(f"how={how!r}: give one of {', '.join(HOWS)}")
    if how in ABLATIONS and not ABLATIONS[how].takes_prompts:
        return (Manner(how, None),)
    averages = how in ABLATIONS and ABLATIONS[how].averages
    known = task.prompts.corruptions
    named = known if corruption is None else (corruption,) if isinstance(corruption, str) else tuple(corruption)
    if corruption is None and averages and not known:
        named = (CLEAN,)
    wrong = [name for name in named if name not in known and not (averages and name == CLEAN)]
    if wrong or not named:
        said = f"the prompts have no corruption `{wrong[0]}`" if wrong else f"{how} needs prompts with a corruption"
        hint = f"they have: {', '.join(known) or 'none'}" + ("" if known else '; give every prompt a "corrupt" text')
        raise CircuitspecError(Diagnostic("CS508", said, hint=hint))
    return tuple(Manner(how, name) for name in dict.fromkeys(named))


class ModelWarning(UserWarning):
    """CS438: a model in memory is more than its weights, and figures are with or without the rest."""


def tell_what_is_on(loaded: LoadedModel, prompts: PromptSet | None = None) -> None:
    """Warn (`ModelWarning`) of hooks, replaced forwards and another tokenizer, as reports of `verify` do."""
    texts = () if prompts is None else tuple(text for one in prompts.prompts for text in one.texts.values())
    other_tokens = other_than_filed(loaded.tokenizer, tuple(dict.fromkeys(texts))) if texts else None
    for found in beyond_weights_of(loaded.foreign, other_tokens):
        warnings.warn(f"{found.code}: {found.message}; {found.detail}", ModelWarning, stacklevel=2)


@contextmanager
def laboratory(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: PromptsLike,
    *,
    positions: Mapping[str, str | int] | None = None,
    metric: OwnMetric | Mapping[str, OwnMetric] | None = None,
    store: str | PathLike[str] | None = None,
    batch_size: int | None = None,
    keep_hooks: bool = False,
    merge_adapters: bool = False,
    edges: bool = False,
    dictionaries: Mapping[str, Mapping[str, Any]] | None = None,
    check: Callable[[LoadedModel, TokenizedTask], Sequence[Experiment]] = lambda loaded, task: (),
) -> Iterator[Laboratory]:
    """The model borrowed and tested, with these prompts; it is given back as it came, also after an exception.

    `check` says what will be run, before anything is: positions that are not in the prompts are told (CS507). Raises
    CircuitspecError as `adopt_model`, tokenising and the self-tests do, CS373 to CS377 for dictionaries, TypeError
    where arguments do not go together.
    """
    import torch

    if keep_hooks and batch_size is not None:
        raise TypeError("keep_hooks goes without batch_size: the batch size is then 1")
    own = named_metrics(metric)
    if own and store is not None:
        raise TypeError("a metric of your own goes without a store: nobody could tell later what it computed")
    with torch.inference_mode(False):  # whatever holds around the call
        loaded = adopt_model(model, tokenizer, keep_hooks=keep_hooks, merge_adapters=merge_adapters)
        given = given_task(prompts, positions)
        named = given.dictionaries if dictionaries is None else given_dictionaries(dictionaries)
        if named is not None:
            loaded = beside(loaded, *read_declared(named.specs, named.base_dir, loaded.shape, named.text, fetch_folder))
        places = with_end(given.positions, given.prompts)
        task = tokenize(given.prompts, places, loaded.tokenizer, given.source, unequal=True)
        tell_what_is_on(loaded, given.prompts)
        check_length(task, loaded.shape)
        check_named(check(loaded, task), task)
        with for_callers() as progress:
            session = Session(
                loaded,
                progress,
                rows=batch_size,
                edges=edges,
                filled=True,
                own=own,
                store=None if store is None else Path(store),
            )
            with session.tested(task, edges=edges) as (runner, _), session.kept(runner) as stored:
                progress.stage("patching")
                yield Laboratory(runner, stored, task, progress)
