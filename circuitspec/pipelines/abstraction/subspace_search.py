"""`align`: subspaces for the variables of a file that name a rank and no file, learned, chosen and compared."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from circuitspec import __version__
from circuitspec.analysis.statistics.proportions import share_of
from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.dictionaries.declared_dictionaries import sites_declared
from circuitspec.engine.attribution.subspace_training import (
    LearnedBasis,
    PairHits,
    SitePairs,
    TrainingSettings,
    learn_basis,
)
from circuitspec.engine.cache.store_keys import model_digest
from circuitspec.engine.cache.stored_runner import StorePlace
from circuitspec.engine.cache.stored_subspaces import StoredSubspaces, stored_subspaces
from circuitspec.engine.execution.compiler import borrowed
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import Site
from circuitspec.experiments.planner import aligned_with
from circuitspec.experiments.subspaces.subspace import principal_angles
from circuitspec.experiments.subspaces.subspace_files import check_vectors, where_name, width_of, written
from circuitspec.graph.circuit_graph import lay_out
from circuitspec.hypothesis_file.grammar.components import sort_key
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.hypothesis_file.load_file import Document, Study
from circuitspec.hypothesis_file.schema.blocks import Exploration, Hypothesis, TaskSpec
from circuitspec.models.load import LoadedModel
from circuitspec.pipelines.abstraction.alignment_controls import (
    Control,
    HeldOutRows,
    Kept,
    held_out_rows,
    hits_of,
    parts_of,
    permuted_control,
    plain_controls,
    untrained,
    untrained_control,
)
from circuitspec.pipelines.abstraction.pair_splits import SPLITS, Splits, split_pairs
from circuitspec.pipelines.session import Session, check_routing_free, from_file, from_memory, opened, tokens_of
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
    store: StorePlace = None  # where what is learned is kept


Places: TypeAlias = tuple[tuple[Site, tuple[int, ...]], ...]
"""Where a subspace is looked for, each site with its ranks."""


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
    rows: HeldOutRows = field(default_factory=HeldOutRows)


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
    variables = _wanted(document)

    def wanted(shape: ModelShape) -> list[tuple[str, Places]]:
        return [(name, _places(name, document, shape, options)) for name in variables]

    learned = learn_subspaces(document, document.hypothesis, variables, wanted, options, progress, loaded=loaded)
    told = {one.variable: {**learned.about, **_provenance(one, options, learned.splits)} for one in learned.found}
    content = written({one.variable: one.basis for one in learned.found}, told)
    return Alignments(learned.found, learned.splits.told, content)


@dataclass(frozen=True)
class Learned:
    """What each search found, in the order in which they were asked for, and what of: words, model, prompts."""

    found: tuple[AlignedVariable, ...]
    splits: Splits
    about: Mapping[str, Any]


def learn_subspaces(
    file: Document | Study,
    subject: Hypothesis | Exploration,
    variables: Sequence[str],
    wanted: Callable[[ModelShape], Sequence[tuple[str, Places]]],
    options: AlignOptions,
    progress: Progress,
    *,
    loaded: LoadedModel | None = None,
) -> Learned:
    """Learn a subspace for each that is wanted: of one of the `variables`, at the best of the places to be tried.

    Every one that is learned is kept in the store, so that a search that is stopped goes on behind it. Raises as
    `align` does, where the subject has an abstraction.
    """
    task, spec = subject.task, subject.abstraction
    assert spec is not None
    check_routing_free(file)
    splits = split_pairs(task, spec, file.base_dir, file.source, options.seed)
    families = splits.parts[SPLITS[0]].pairs.families
    settings = {name: tuple(((name, family),) for family in families) for name in variables}

    def tasks(shape: ModelShape, tokenizer: PreTrainedTokenizerFast) -> dict[str, TokenizedTask]:
        every = [one for own in settings.values() for one in own]
        found = {}
        for name, part in splits.parts.items():
            tokens = tokens_of(file, subject, part.prompts, shape, tokenizer, unequal=True)
            found[name] = with_pairs(tokens, part.pairs, every, task.positions, tokenizer, file.source)
        return found

    loading = from_file(file, subject, options.device, progress) if loaded is None else from_memory(loaded)
    model, made = opened(loading, tasks)
    asked = wanted(model.shape)
    if any(one.sequences is not None for one in made.values()):
        raise CircuitspecError(_nothing("answers of several tokens have no gradient here", file))
    session = Session(model, progress, rows=options.rows)
    found = []
    with session.tested(made[SPLITS[0]]) as (runner, _):
        runners = {name: runner if name == SPLITS[0] else session.runner(one) for name, one in made.items()}
        with stored_subspaces([runners[name] for name in SPLITS[:2]], options.store) as kept:
            count = _Count(sum(_fits(places, options) for _, places in asked))
            for name, places in asked:
                search = _Search(name, settings[name], splits, runners, options, kept, count, progress)
                found.append(search.run(places, file, task))
                if options.controls:
                    found[-1] = _with_untrained(found[-1], search, model, made)
        digests = {name: prompts_digest(part.prompts) for name, part in splits.parts.items()}
        about = {"model": model.provenance.id, "model_digest": model_digest(model.model), "prompts": digests}
    return Learned(tuple(found), splits, about)


def _fits(places: Places, options: AlignOptions) -> int:
    """How many subspaces are learned for a variable, controls included."""
    return sum(len(ranks) for _, ranks in places) + options.seeds - 1 + 2 * options.controls


class _Search:
    """The search for one variable."""

    def __init__(
        self,
        variable: str,
        settings: Sequence[Setting],
        splits: Splits,
        runners: Mapping[str, Runner],
        options: AlignOptions,
        kept: StoredSubspaces,
        count: _Count,
        progress: Progress,
    ) -> None:
        self.variable, self.settings, self._splits = variable, settings, splits
        self._runners, self.options, self._kept, self._count = runners, options, kept, count
        self.progress = progress

    def run(self, places: Places, file: Document | Study, task: TaskSpec) -> AlignedVariable:
        options, tried = self.options, list[Tried]()
        for site, ranks in places:
            own = _SplitsAt(self._pairs, site)
            for rank in ranks:
                learned = self._learned(own, rank, options.seed)
                if learned is None:
                    why = f"the model answers no pair for {self.variable} right, base and source alike"
                    raise CircuitspecError(_too_few(why, file))
                tried.append(Tried(site, rank, learned))
        chosen = earliest(tried)
        own = own if own.site == chosen.site else _SplitsAt(self._pairs, chosen.site)
        runs = [(options.seed, chosen.learned)]
        for seed in range(options.seed + 1, options.seed + options.seeds):
            again = self._learned(own, chosen.rank, seed)
            assert again is not None
            runs.append((seed, again))
        seed, best = max(runs, key=lambda run: run[1].validation.score)
        others = [run for other, run in runs if other != seed]
        self.progress.stage(f"testing the subspace of {self.variable} on held-out pairs")
        test = own["test"]
        if not test.hits(None).kept.any():
            why = f"the model answers no test pair for {self.variable} right, base and source alike"
            raise CircuitspecError(_too_few(why, file))
        pairs = self._splits.parts["training"].pairs
        training, validation = own["training"], own["validation"]
        controls = plain_controls(training, test, pairs, self.variable, chosen.rank, options.seed)
        parts, alone = parts_of(training, test, pairs, self.variable, best.basis)
        rows = held_out_rows(test, self._splits.parts["test"].pairs, best.basis, parts)
        rows = replace(rows, shared=self._splits.shared_by(self.variable, task))
        controls += alone
        if options.controls:
            kept = self.keeping(chosen.site, f"permuted labels, rank {chosen.rank}")
            null = permuted_control(training, validation, test, chosen.rank, options.seed, options.training, kept)
            controls += [] if null is None else [null]
        return AlignedVariable(
            self.variable,
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
            rows,
        )

    def keeping(self, site: Site, words: str, *beside: object) -> Kept:
        """Learns at a site, or recalls, and counts; `beside` goes into every question."""
        options = self.options
        about = (self.variable, self.settings, _at(site), options.rows, options.training, *beside)

        def get(question: Sequence[object], learn: Callable[[], LearnedBasis | None]) -> LearnedBasis | None:
            self.progress.stage(f"learning {self.variable}, {self._count.next}: {words} of {_at(site)}")
            return self._kept.get((*about, *question), learn)

        return get

    def changed(self, split: str) -> list[list[bool]]:
        """For each setting, of which pairs of the split the answer must change."""
        own = self._splits.parts[split].pairs
        return [list(own.changed(one)) for one in self.settings]

    def _pairs(self, split: str, site: Site) -> SitePairs:
        return SitePairs(self._runners[split], site, self.settings, self.changed(split))

    def _learned(self, own: _SplitsAt, rank: int, seed: int) -> LearnedBasis | None:
        def learn() -> LearnedBasis | None:
            return learn_basis(own["training"], own["validation"], rank, seed, self.options.training)

        return self.keeping(own.site, f"rank {rank}, seed {seed},")((rank, seed), learn)


class _SplitsAt:
    """The pairs of each split at one site, made when they are asked for first: what is recalled needs none."""

    def __init__(self, make: Callable[[str, Site], SitePairs], site: Site) -> None:
        self._make, self.site = make, site
        self._made: dict[str, SitePairs] = {}

    def __getitem__(self, split: str) -> SitePairs:
        if split not in self._made:
            self._made[split] = self._make(split, self.site)
        return self._made[split]


class _Count:
    """How many subspaces were asked for, of how many: `3 of 12`."""

    def __init__(self, total: int) -> None:
        self._numbers, self._total = itertools.count(1), total

    @property
    def next(self) -> str:
        return f"{next(self._numbers)} of {self._total}"


def earliest(tried: Sequence[Tried]) -> Tried:
    """The earliest site and, there, the smallest rank that scores within the interval of the best on validation."""
    best = max(tried, key=lambda one: one.learned.validation.score)
    interval = share_of(best.learned.validation.hit[best.learned.validation.kept])
    low = 0.0 if interval is None or interval.low is None else interval.low
    good = [one for one in tried if _share(one.learned.validation) >= min(low, _share(best.learned.validation))]
    return min(good, key=lambda one: (sort_key(one.site.component), one.rank))


def _share(hits: PairHits) -> float:
    return float(hits.hit[hits.kept].mean())


def _wanted(document: Document) -> tuple[str, ...]:
    """The variables that name a rank and no file. Raises CS524."""
    spec = document.hypothesis.abstraction
    aligned = {} if spec is None else spec.align
    found = tuple(name for name, one in aligned.items() if one.subspace is not None and one.subspace.file is None)
    if not found:
        raise CircuitspecError(_nothing("no variable is aligned with a subspace that has a rank and no file", document))
    return found


def _places(variable: str, document: Document, shape: ModelShape, options: AlignOptions) -> Places:
    """Every site that is tried, with the ranks that it has room for: each component that `nodes` names.

    The circuit may have features of dictionaries, of which none is read: they have no subspaces (CS185).
    """
    hypothesis, text = document.hypothesis, document.source
    assert hypothesis.abstraction is not None
    spec = hypothesis.abstraction.align[variable]
    assert spec.subspace is not None
    own = spec.model_copy(update={"nodes": options.sites}) if options.sites else spec
    graph = lay_out(hypothesis.circuit, sites_declared(hypothesis.dictionaries, shape, text), text)
    section = aligned_with(own, variable, hypothesis.ablation, graph, text)
    check_vectors(variable, section, text)
    ranks = sorted(set(options.ranks)) or spec.subspace.ranks
    found = []
    for component, where in section.items():
        width = width_of(component, shape)
        fit = tuple(rank for rank in ranks if rank <= width)
        if not fit:
            said = f"{format_name(component)} has {width} numbers a token, fewer than {min(ranks)}"
            raise CircuitspecError(_nothing(said, document))
        found.append((Site(component, where), fit))
    return tuple(found)


def _with_untrained(
    one: AlignedVariable, search: _Search, model: LoadedModel, tasks: Mapping[str, TokenizedTask]
) -> AlignedVariable:
    """With the same search on a model of the same config that was never trained."""
    options = search.options
    other = untrained(model, options.seed)
    session = Session(other, search.progress, rows=options.rows)
    with borrowed(other.model):

        def pairs(split: str) -> SitePairs:
            return SitePairs(session.runner(tasks[split]), one.site, search.settings, search.changed(split), every=True)

        kept = search.keeping(one.site, f"an untrained model, rank {one.rank}", model_digest(other.model))
        found = untrained_control(pairs, one.rank, options.seed, options.training, kept)
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
        "versions": {
            "circuitspec": __version__,
            **{name: version(name) for name in ("torch", "transformers", "pyvene", "numpy")},
        },
    }


def _word(row: str | Mapping[str, str]) -> str | dict[str, str]:
    return row if isinstance(row, str) else dict(row)


def _at(site: Site) -> str:
    return f"{format_name(site.component)} at {where_name(site.where)}"


def _nothing(message: str, file: Document | Study) -> Diagnostic:
    subject = file.hypothesis if isinstance(file, Document) else file.exploration
    place = file.source.span(("abstraction",)) if subject.abstraction is not None else None
    hint = "write align: {VARIABLE: {nodes: [r3], at: END, subspace: {rank: 2}}}"
    return Diagnostic("CS524", message, place, hint=hint)


def _too_few(message: str, file: Document | Study) -> Diagnostic:
    hint = "take prompts that the model does, or another model"
    return Diagnostic("CS525", message, file.source.span(("abstraction", "pairs")), hint=hint)
