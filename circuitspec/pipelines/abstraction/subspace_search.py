"""`align`: subspaces for the variables of a file that name a rank and no file, learned, chosen and compared."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from circuitspec.analysis.statistics.proportions import share_of
from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.engine.attribution.subspace_training import (
    LearnedBasis,
    PairHits,
    SitePairs,
    TrainingSettings,
    learn_basis,
)
from circuitspec.engine.cache.store_keys import model_digest
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import Site
from circuitspec.experiments.planner import aligned_with
from circuitspec.experiments.subspaces.subspace import principal_angles
from circuitspec.experiments.subspaces.subspace_files import single, where_name, width_of, written
from circuitspec.graph.circuit_graph import lay_out
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.hypothesis_file.load_file import Document
from circuitspec.models.load import LoadedModel
from circuitspec.pipelines.abstraction.alignment_controls import (
    Control,
    hits_of,
    permuted_control,
    plain_controls,
    untrained,
    untrained_control,
)
from circuitspec.pipelines.abstraction.pair_splits import SPLITS, Splits, split_pairs
from circuitspec.pipelines.session import Session, from_file, from_memory, opened, tokens_of
from circuitspec.prompts.pairs.pair_tokens import with_pairs
from circuitspec.prompts.pairs.settings import Setting
from circuitspec.prompts.prompt_set import TokenizedTask, prompts_digest
from circuitspec.runtime.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from circuitspec.graph.shape import ModelShape


@dataclass(frozen=True)
class AlignOptions:
    """What is searched, and how. `ranks` and `sites` (by names such as r3) stand in for those of the file."""

    training: TrainingSettings = field(default_factory=TrainingSettings)
    seeds: int = 3
    seed: int = 0
    ranks: tuple[int, ...] = ()
    sites: tuple[str, ...] = ()
    rows: int = 32
    device: str = "cpu"
    controls: bool = True  # also those that take learning again


@dataclass(frozen=True)
class Tried:
    """A site and a rank, with what was learned there by the first seed."""

    site: Site
    rank: int
    learned: LearnedBasis


@dataclass(frozen=True)
class AlignedVariable:
    """What was learned for a variable: the site and rank that were chosen among those `tried`, with the test's figures.

    `angles` are the largest principal angles of the other seeds' subspaces with this one, in radians; `others` what
    these seeds score on the validation pairs.
    """

    variable: str
    site: Site
    rank: int
    basis: NDArray[np.float64]
    seed: int
    step: int
    tried: tuple[Tried, ...]
    validation: PairHits
    test: PairHits
    controls: tuple[Control, ...]
    angles: tuple[float, ...]
    others: tuple[float, ...]


@dataclass(frozen=True)
class Alignments:
    """All that was learned, what was split, and the file's content."""

    variables: tuple[AlignedVariable, ...]
    split: tuple[str, ...]
    content: bytes


def align(
    document: Document, options: AlignOptions, progress: Progress, *, loaded: LoadedModel | None = None
) -> Alignments:
    """Learn the subspace of every variable of the file that names a rank and no file.

    Raises CircuitspecError as `verify` does, and CS524 where there is nothing to learn, CS525 where the model answers
    no pair of a split right. The model is left as it was.
    """
    hypothesis, text = document.hypothesis, document.source
    variables = _wanted(document)
    assert hypothesis.abstraction is not None
    splits = split_pairs(hypothesis.task, hypothesis.abstraction, document.base_dir, text, options.seed)
    settings = {name: _settings(name, splits) for name in variables}

    def tasks(shape: ModelShape, tokenizer: PreTrainedTokenizerFast) -> dict[str, TokenizedTask]:
        asked = [one for own in settings.values() for one in own]
        found = {}
        for name, part in splits.parts.items():
            task = tokens_of(document, hypothesis, part.prompts, shape, tokenizer, unequal=True)
            found[name] = with_pairs(task, part.pairs, asked, hypothesis.task.positions, tokenizer, text)
        return found

    loading = from_file(document, hypothesis, options.device, progress) if loaded is None else from_memory(loaded)
    model, made = opened(loading, tasks)
    sites = {name: _sites(name, document, model.shape, options) for name in variables}
    if any(task.sequences is not None for task in made.values()):
        raise CircuitspecError(_nothing("answers of several tokens have no gradient here", document))
    session = Session(model, progress, rows=options.rows)
    digests = {name: prompts_digest(part.prompts) for name, part in splits.parts.items()}
    with session.tested(made[SPLITS[0]]) as (runner, _):
        runners = {name: runner if name == SPLITS[0] else session.runner(task) for name, task in made.items()}
        found = [
            _Search(name, settings[name], splits, runners, options, progress).run(sites[name], document)
            for name in variables
        ]
        about = {"model": model.provenance.id, "model_digest": model_digest(model.model), "prompts": digests}
    if options.controls:
        found = [_with_untrained(one, settings[one.variable], splits, model, made, options, progress) for one in found]
    told = {one.variable: {**about, **_provenance(one, options, splits)} for one in found}
    return Alignments(tuple(found), splits.told, written({one.variable: one.basis for one in found}, told))


class _Search:
    """The search for one variable."""

    def __init__(
        self,
        variable: str,
        settings: Sequence[Setting],
        splits: Splits,
        runners: Mapping[str, Runner],
        options: AlignOptions,
        progress: Progress,
    ) -> None:
        self._variable, self._settings, self._splits = variable, settings, splits
        self._runners, self._options, self._progress = runners, options, progress

    def run(self, sites: Sequence[tuple[Site, tuple[int, ...]]], document: Document) -> AlignedVariable:
        options, tried, kept = self._options, list[Tried](), dict[Site, tuple[SitePairs, SitePairs]]()
        for site, ranks in sites:
            kept[site] = (self._pairs("training", site), self._pairs("validation", site))
            for rank in ranks:
                learned = self._learned(*kept[site], site, rank, options.seed)
                if learned is None:
                    why = f"the model answers no pair for {self._variable} right, base and source alike"
                    raise CircuitspecError(_too_few(why, document))
                tried.append(Tried(site, rank, learned))
        chosen = earliest(tried)
        training, validation = kept[chosen.site]
        runs = [(options.seed, chosen.learned)]
        for seed in range(options.seed + 1, options.seed + options.seeds):
            again = self._learned(training, validation, chosen.site, chosen.rank, seed)
            assert again is not None
            runs.append((seed, again))
        seed, best = max(runs, key=lambda run: run[1].validation.score)
        others = [run for own, run in runs if own != seed]
        self._progress.stage(f"testing the subspace of {self._variable} on held-out pairs")
        test = self._pairs("test", chosen.site)
        if not test.hits(None).kept.any():
            why = f"the model answers no test pair for {self._variable} right, base and source alike"
            raise CircuitspecError(_too_few(why, document))
        pairs = self._splits.parts["training"].pairs
        controls = plain_controls(training, test, pairs, self._variable, chosen.rank, options.seed)
        if options.controls:
            self._progress.stage(f"learning on permuted labels of {self._variable}")
            null = permuted_control(training, validation, test, chosen.rank, options.seed, options.training)
            controls += [] if null is None else [null]
        return AlignedVariable(
            self._variable,
            chosen.site,
            chosen.rank,
            best.basis,
            seed,
            best.step,
            tuple(tried),
            best.validation,
            hits_of(best, test),
            tuple(controls),
            tuple(float(principal_angles(best.basis, other.basis)[-1]) for other in others),
            tuple(other.validation.score for other in others),
        )

    def _pairs(self, split: str, site: Site) -> SitePairs:
        own = self._splits.parts[split].pairs
        return SitePairs(self._runners[split], site, self._settings, [own.changed(one) for one in self._settings])

    def _learned(
        self, training: SitePairs, validation: SitePairs, site: Site, rank: int, seed: int
    ) -> LearnedBasis | None:
        at = f"{format_name(site.component)} at {where_name(site.where)}"
        self._progress.stage(f"learning {self._variable}: rank {rank} of {at}, seed {seed}")
        return learn_basis(training, validation, rank, seed, self._options.training)


def earliest(tried: Sequence[Tried]) -> Tried:
    """The earliest site and, there, the smallest rank that scores within the interval of the best on validation."""
    best = max(tried, key=lambda one: one.learned.validation.score)
    interval = share_of(best.learned.validation.hit[best.learned.validation.kept])
    low = 0.0 if interval is None or interval.low is None else interval.low
    good = [one for one in tried if _share(one.learned.validation) >= min(low, _share(best.learned.validation))]
    return min(good, key=lambda one: (_depth(one.site), one.rank))


def _share(hits: PairHits) -> float:
    return float(hits.hit[hits.kept].mean())


def _depth(site: Site) -> tuple[int, str]:
    return (site.component.place[0], format_name(site.component))


def _wanted(document: Document) -> tuple[str, ...]:
    """The variables that name a rank and no file. Raises CS524."""
    spec = document.hypothesis.abstraction
    aligned = {} if spec is None else spec.align
    found = tuple(name for name, one in aligned.items() if one.subspace is not None and one.subspace.file is None)
    if not found:
        raise CircuitspecError(_nothing("no variable is aligned with a subspace that has a rank and no file", document))
    return found


def _settings(variable: str, splits: Splits) -> tuple[Setting, ...]:
    return tuple(((variable, family),) for family in splits.parts[SPLITS[0]].pairs.families)


def _sites(
    variable: str, document: Document, shape: ModelShape, options: AlignOptions
) -> tuple[tuple[Site, tuple[int, ...]], ...]:
    """Every site that is tried, with the ranks that it has room for."""
    hypothesis, text = document.hypothesis, document.source
    assert hypothesis.abstraction is not None
    spec = hypothesis.abstraction.align[variable]
    assert spec.subspace is not None
    graph = lay_out(hypothesis.circuit, shape, text)
    ranks = options.ranks or (spec.subspace.rank,)
    found = []
    tried: list[tuple[str, ...]] = [(name,) for name in options.sites] or [spec.nodes]
    for nodes in tried:
        own = spec.model_copy(update={"nodes": nodes})
        site = Site(*single(variable, aligned_with(own, variable, hypothesis.ablation, graph, text), text))
        width = width_of(site.component, shape)
        fit = tuple(rank for rank in sorted(set(ranks)) if rank <= width)
        if not fit:
            said = f"{format_name(site.component)} has {width} numbers a token, fewer than {min(ranks)}"
            raise CircuitspecError(_nothing(said, document))
        found.append((site, fit))
    return tuple(found)


def _with_untrained(
    one: AlignedVariable,
    settings: Sequence[Setting],
    splits: Splits,
    model: LoadedModel,
    tasks: Mapping[str, TokenizedTask],
    options: AlignOptions,
    progress: Progress,
) -> AlignedVariable:
    """With the same search on a model of the same config that was never trained."""
    progress.stage(f"learning {one.variable} on an untrained model")
    other = untrained(model, options.seed)
    session = Session(other, progress, rows=options.rows)
    with borrowed(other.model):

        def pairs(split: str) -> SitePairs:
            own = splits.parts[split].pairs
            changed = [own.changed(setting) for setting in settings]
            return SitePairs(session.runner(tasks[split]), one.site, settings, changed, every=True)

        found = untrained_control(pairs, one.rank, options.seed, options.training)
    return one if found is None else replace(one, controls=(*one.controls, found))


def _provenance(one: AlignedVariable, options: AlignOptions, splits: Splits) -> dict[str, Any]:
    """What the file says of a tensor."""
    training = options.training
    return {
        "component": format_name(one.site.component),
        "where": where_name(one.site.where),
        "rank": one.rank,
        "seed": one.seed,
        "seeds": options.seeds,
        "step": one.step,
        "steps": training.steps,
        "lr": training.lr,
        "loss": "vocabulary" if training.vocabulary else "candidates",
        "rows": options.rows,
        "tried": [[format_name(t.site.component), t.rank, t.learned.validation.score] for t in one.tried],
        "training_words": {name: [_word(row) for row in rows] for name, rows in splits.parts["training"].words.items()},
        "basis_sha256": hashlib.sha256(np.ascontiguousarray(one.basis, "<f8").tobytes()).hexdigest(),
        "versions": {name: version(name) for name in ("circuitspec", "torch", "transformers", "pyvene", "numpy")},
    }


def _word(row: str | Mapping[str, str]) -> str | dict[str, str]:
    return row if isinstance(row, str) else dict(row)


def _nothing(message: str, document: Document) -> Diagnostic:
    place = document.source.span(("abstraction",)) if document.hypothesis.abstraction is not None else None
    hint = "write align: {VARIABLE: {nodes: [r3], at: END, subspace: {rank: 2}}}"
    return Diagnostic("CS524", message, place, hint=hint)


def _too_few(message: str, document: Document) -> Diagnostic:
    hint = "take prompts that the model does, or another model"
    return Diagnostic("CS525", message, document.source.span(("abstraction", "pairs")), hint=hint)
