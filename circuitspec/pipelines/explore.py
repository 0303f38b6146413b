"""A file with a model and a task in, what was found out: effects, frontiers, links, and drafts of a hypothesis."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from circuitspec.analysis.prompt_rows import RowFacts, row_facts
from circuitspec.analysis.statistics.looks import looks_of
from circuitspec.analysis.warnings.tasks.task_warnings import task_not_done
from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.dictionaries.declared_dictionaries import read_declared
from circuitspec.engine.cache.stored_estimates import Recalled, recalled_estimates
from circuitspec.engine.directions import read_directions
from circuitspec.engine.levels.refusals import no_edges
from circuitspec.engine.runner import Runner
from circuitspec.experiments.experiment import Experiment, Noised
from circuitspec.exploration.asked.held_out_prompts import PromptSplit, split_prompts
from circuitspec.exploration.asked.subject import (
    Patching,
    check_broken,
    check_inside,
    declared_circuit,
    free_components,
    metric_inside,
    patching_of,
    swept_noise,
    swept_series,
)
from circuitspec.exploration.asked.unnamed_positions import check_names, declaring_last, with_last_named
from circuitspec.exploration.asked.word_list_halves import divided_words, prompts_of_halves
from circuitspec.exploration.draft import Sizes, write_draft
from circuitspec.exploration.exploration_findings import Circuit, ExplorationFindings, ExploreOptions
from circuitspec.exploration.foreseen_cost import Extent, foreseen, spoken, spots_in
from circuitspec.exploration.forward_budget import Allowance, AllowanceSpent
from circuitspec.exploration.request import SWEPT, searched_for
from circuitspec.exploration.search.circuit_selection import Choice
from circuitspec.exploration.search.component_sweep import MATERIAL, ComponentSweep
from circuitspec.exploration.search.cross_sections import Sections
from circuitspec.exploration.search.estimable import ESTIMABLE, inestimable
from circuitspec.exploration.search.exact_sweeps import sweep_all, zoom
from circuitspec.exploration.search.feature_search import FeatureSearch, of_features
from circuitspec.exploration.search.neuron_search import Refined
from circuitspec.exploration.search.patching_series import PatchingSeries
from circuitspec.exploration.search.path_search import Link, Links
from circuitspec.exploration.search.reactions.corruption_traces import trace
from circuitspec.exploration.search.reactions.gate_search import Pair, scan_gates
from circuitspec.exploration.setting import CLEAN, ExplorationSetting, distinct_roles, matters_to, places_of
from circuitspec.exploration.stability.circuit_stability import Stability, stability
from circuitspec.exploration.stability.draft_remarks import Remarks, remarks_on
from circuitspec.exploration.stability.held_out_figures import JUDGING, HeldOutFigures, judged, on_other_prompts
from circuitspec.exploration.stability.repeated_search import Repetition
from circuitspec.exploration.stability.subsamples import FEWEST
from circuitspec.exploration.stages import HONEST, Stages
from circuitspec.graph.edges import is_writer, no_plain_sum
from circuitspec.graph.nodes import Ablatable, wholes_with_outside
from circuitspec.hypothesis_file.grammar.component_kinds import FEATURE, MLP, NEURON, ComponentKind
from circuitspec.hypothesis_file.grammar.components import DictionaryError, sort_key
from circuitspec.hypothesis_file.grammar.internal_metric_names import Internal
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.hypothesis_file.load_file import Study
from circuitspec.hypothesis_file.yaml.source import SourceText
from circuitspec.models.load import LoadedModel
from circuitspec.models.storage.hub import fetch_folder
from circuitspec.pipelines.preparation import beside
from circuitspec.pipelines.session import (
    Session,
    behaviour,
    check_routing_free,
    from_file,
    from_memory,
    opened,
    tokens_of,
)
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.output_metrics import check_metrics
from circuitspec.prompts.prompt_set import PromptSet, TokenizedTask
from circuitspec.prompts.reference_prompts import ReferencePrompts
from circuitspec.runtime.progress import Progress
from circuitspec.workers.shard_worker import LoadsWorkers, begin_workers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from circuitspec.dictionaries.dictionary import Dictionary
    from circuitspec.graph.circuit_graph import CircuitGraph
    from circuitspec.graph.shape import ModelShape

AVERAGED = 4  # times as many other prompts as are scored are averaged, where the file does not say how many, ..
FEWEST_AVERAGED = 200  # .. and at least so many
GATED = 6  # members that are patched two by two
SWEEPING = 2 / 3  # of the allowance, at most, for sweeps; what is left is for a circuit


def explore(
    study: Study,
    options: ExploreOptions,
    progress: Progress,
    command: str,
    task_of: Study | None = None,
    *,
    loaded: LoadedModel | None = None,
    workers: LoadsWorkers | None = None,
) -> ExplorationFindings:
    """Sweep, choose and draft.

    `command` is what is said to have made the drafts; their model and task are those of `task_of`, where one is
    given: fresh prompts for the same circuit. The model is the file's, or the one that is `loaded` already; `workers`
    are other processes that run experiments. Raises
    CircuitspecError as `verify` does, CS541 where nothing can be explored: no corruption, or none that breaks the
    behaviour; CS542 where the allowance is too small for anything.
    """
    subject, base_dir = study.exploration, study.base_dir
    started = time.monotonic()
    check_routing_free(study)
    inside = metric_inside(options.metric)
    if inside is not None:
        options = replace(options, metric=str(inside))
    if (refused := _refused(study, options, inside)) is not None:
        raise CircuitspecError(refused)
    prompts = build_prompts(subject.task, base_dir, study.source)
    loading = from_file(study, subject, options.device, progress) if loaded is None else from_memory(loaded)
    loaded, about = opened(loading, partial(_prepare, study, options, inside, prompts))
    begin_workers(workers, subject.model, base_dir, options.device, loaded)
    task, patching, series, declared, unnamed = about.task, about.patching, about.series, about.declared, about.unnamed
    free, claimed = about.free, about.claimed
    loaded = beside(loaded, about.shape, about.dictionaries)
    drafted_from = (task_of or study).source
    drafted_from = declaring_last(drafted_from) if unnamed else drafted_from
    corruptions = tuple(task.prompts.corruptions)
    shape = loaded.shape
    edges = options.patches_paths and not shape.dictionaries
    internals = () if inside is None else (inside,)
    directions = read_directions(internals, base_dir, shape.d_model)
    session = Session(
        loaded,
        progress,
        rows=options.rows,
        filled=True,
        internals=internals,
        directions=directions,
        store=options.store,
        workers=workers,
        keeps_clean=not options.thorough,
    )
    pathless = no_edges(loaded)
    with session.tested(task, edges=edges and not pathless) as (runner, _), ExitStack() as stack:
        stored = stack.enter_context(session.kept(runner))
        recalled = stack.enter_context(recalled_estimates(runner, options.store))
        held_out = about.split.held_out
        judging = None if held_out is None else session.runner(held_out)
        of_words: list[Runner] = []

        def forwards() -> float:
            beside = of_words if judging is None else [judging, *of_words]
            return runner.forwards + sum(one.forwards * one.task.n / task.n for one in beside)

        allowance = Allowance(options.max_forwards, forwards, stored.most_passes)
        roles = distinct_roles(task)
        raced = not options.thorough and not options.stability  # halves of the prompts need the values of all
        setting = ExplorationSetting(
            runner,
            stored,
            options.metric,
            claimed,
            roles,
            patching.source,
            patching.corrupt,
            allowance,
            recalled,
            inside,
            unnamed,
            shape.dictionaries,
            by_prompt=options.stability > 0,
            lots=looks_of(runner.templates) if raced else (),
        )
        features: FeatureSearch | None = None
        timed = _Timed(runner)
        try:
            check_broken(setting, study)
            anchors = _anchors(setting, corruptions)
            if setting.sites:
                progress.stage("finding the features that are active")
                features = FeatureSearch.begin(setting)
                _check_features(setting, study)
            extent = _extent(setting, series, corruptions, unnamed=unnamed, has_paths=declared is not None)
            progress.note(spoken(foreseen(extent, options), options.max_forwards, timed.seconds))
        except AllowanceSpent as spent:
            raise CircuitspecError(_too_little(options)) from spent
        done = task_not_done(*behaviour(runner, setting.records[CLEAN]))
        work = Stages(setting, options, progress, pathless, features)
        kept_back = stack.enter_context(ExitStack())
        if judging is not None:
            kept_back.enter_context(allowance.holding(min(JUDGING, (options.max_forwards or 0.0) / 10)))
        estimated = work.estimates()
        with allowance.holding((options.max_forwards or 0.0) * (1 - SWEEPING)):
            if options.sweeps and not options.sections_only:
                work.stage("sweeping", lambda: work.add(sweep_all(setting, series, options.sweeps)), None)
            if options.start == "resid" and not options.sections_only:
                zooming = "sweeping from the residual stream on"
                work.stage(zooming, lambda: work.add(zoom(setting, series, neurons=options.neurons)), None)
            found = work.effects(estimated)
            traced = () if options.sections_only else corruptions
            traces = work.stage(
                "noising the strongest from every corruption", lambda: trace(setting, found, traced), None
            )
        choices = work.choices(found)
        gates: tuple[Pair, ...] = ()
        sections: list[Sections] = []
        between = Links()
        if choices:
            whole = choices[0][1]
            strongest = _by_size(whole, found)
            gates = work.stage(
                "patching the strongest members two by two",
                lambda: scan_gates(setting, whole.kept, strongest, GATED),
                gates,
            )
            mlps = [one for one in wholes_with_outside(shape) if one.kind is MLP]
            between = work.links(whole, strongest, through_mlps=all(mlp in free for mlp in mlps))
            sections += work.sections(found, whole, between)
        if declared is not None:
            sections += work.declared(found, declared, all_positions=_all_positions(study))
        sizes = {
            (e.component, role): (e.drop_best, e.rise_best, e.drop is not None)
            for e in found.effects
            for role in places_of(e.where)
        }
        drafted = _Drafting(drafted_from, patching, options, command, sizes, features)
        refined = [(kind, work.refined(kind, choice)) for kind, choice in choices]
        kept_back.close()
        others = None
        if judging is not None and choices:
            others = on_other_prompts(setting, judging, stack.enter_context(session.kept(judging)))
        judged_by = _Judge(work, others, about.split.described)
        stable = None
        if options.stability and choices:
            repetition = Repetition(options, series, found.sample)
            for words in about.words:
                of_words.append(session.runner(words))
            kept = [stack.enter_context(session.kept(one)) for one in of_words]
            settings = [
                replace(on_other_prompts(setting, one, its), by_prompt=True, recalled=Recalled(None))
                for one, its in zip(of_words, kept, strict=True)
            ]
            stable = _stability(judged_by, repetition, choices, between, settings)
        circuits = tuple(
            drafted.circuit(
                kind,
                one,
                between.found,
                judged_by.circuit(kind, one.choice, between),
                None if stable is None else remarks_on(stable, kind),
            )
            for kind, one in refined
        )
    return ExplorationFindings(
        subject.name,
        loaded.provenance.id,
        options.metric,
        patching.written,
        task.n,
        shape.n_layers,
        shape.n_layers * shape.n_heads,
        setting.places,
        options.target,
        anchors,
        tuple(work.grids),
        found,
        traces,
        circuits,
        gates,
        tuple(sections),
        between,
        tuple(work.unseen),
        forwards(),
        time.monotonic() - started,
        done,
        unnamed,
        about.rows,
        () if features is None else features.searched,
        about.split.described if others is not None else "",
        about.split.why if choices else "",
        stable,
    )


@dataclass(frozen=True)
class _Judge:
    """Measures circuits on prompts that they were not chosen on (`others`; None: there are none)."""

    work: Stages
    others: ExplorationSetting | None
    described: str

    def circuit(self, kind: str, choice: Choice, between: Links) -> HeldOutFigures | None:
        others = self.others
        if others is None:
            return None
        what = f"measuring the circuit on prompts held out ({kind})"
        entries = list(choice.entries)
        strong = [link for link in between.found if link.size >= MATERIAL]
        return self.work.stage(what, lambda: judged(others, self.described, entries, strong), None)


def _stability(
    judge: _Judge,
    repetition: Repetition,
    choices: Sequence[tuple[str, Choice]],
    between: Links,
    words: Sequence[ExplorationSetting],
) -> Stability | None:
    """The search repeated on halves of the prompts, with one template held out, and on prompts of other words."""
    work, count = judge.work, repetition.options.stability
    setting = work.setting
    drafted = {kind: choice.entries for kind, choice in choices}
    what = f"repeating the search on {count} halves of the prompts"
    return work.stage(
        what,
        lambda: stability(setting, repetition, drafted, between.found, judge.others, judge.described, words),
        None,
    )


@dataclass(frozen=True)
class _Prepared:
    """What an exploration is about, as far as it is known before any weight is read."""

    task: TokenizedTask
    split: PromptSplit
    words: tuple[TokenizedTask, ...]  # prompts of one half of the words, and of the other
    rows: RowFacts | None
    patching: Patching
    series: tuple[PatchingSeries, ...]
    declared: CircuitGraph | None
    free: frozenset[Ablatable]
    claimed: tuple[Ablatable, ...]
    unnamed: bool
    shape: ModelShape  # with the places of dictionaries
    dictionaries: Mapping[str, Dictionary]  # on the CPU


def _prepare(
    study: Study,
    options: ExploreOptions,
    inside: Internal | None,
    prompts: PromptSet,
    shape: ModelShape,
    tokenizer: PreTrainedTokenizerFast,
) -> _Prepared:
    """Tokenise, and see what is patched where. Raises CircuitspecError for what fits neither model nor prompts."""
    task = tokens_of(study, study.exploration, prompts, shape, tokenizer)
    check_names(task)
    dictionaries: Mapping[str, Dictionary] = {}
    if study.exploration.dictionaries:
        shape, dictionaries = read_declared(
            study.exploration.dictionaries, study.base_dir, shape, study.source, fetch_folder
        )
    unnamed = not task.roles
    if unnamed:
        task = with_last_named(task)
    if inside is None:
        check_metrics([options.metric], prompts, [study.source.span(("task",))], among=ESTIMABLE)
    else:
        check_inside(inside, shape, task, study)
    declared = declared_circuit(study, shape, task)
    corruptions = tuple(task.prompts.corruptions)
    patching = patching_of(study, corruptions)
    series = swept_series(patching, options.values, corruptions, study, swept_noise(patching, options.noise_at, task))
    rows = row_facts(task.prompts)
    split = PromptSplit(task, None)
    if not (inestimable(options.metric) or options.sections_only):  # else nothing is chosen
        split = split_prompts(task, study.exploration.task, study.base_dir, study.source, tokenizer)
    task = _with_reference(split.searched, patching, series, study, tokenizer)
    if split.held_out is not None:
        split = replace(split, held_out=_with_reference(split.held_out, patching, series, study, tokenizer))
    words: tuple[TokenizedTask, ...] = ()
    if options.stability:
        if task.n < FEWEST:
            raise CircuitspecError(_too_few_prompts(task.n, study))
        halves = divided_words(study.exploration.task, study.base_dir, study.source)
        averaged = None if task.reference is None else task.reference.n
        words = prompts_of_halves(task, halves, study.base_dir, study.source, tokenizer, averaged)
    free = free_components(options.free, study, shape)
    claimed: tuple[Ablatable, ...] = ()
    if not dictionaries:
        searched = (c for c in wholes_with_outside(shape) if c not in free and matters_to(c, inside))
        claimed = tuple(sorted(searched, key=sort_key))
        if not claimed:
            raise CircuitspecError(_nothing_left(options))
    if bare := _nothing_to_sweep(options, {FEATURE} if dictionaries else {one.kind for one in claimed}):
        raise CircuitspecError(*bare)
    if lacking := _lacking(options, shape):
        raise CircuitspecError(*lacking)
    return _Prepared(task, split, words, rows, patching, series, declared, free, claimed, unnamed, shape, dictionaries)


@dataclass(frozen=True)
class _Drafting:
    """What all drafts of an exploration share."""

    source: SourceText
    patching: Patching
    options: ExploreOptions
    command: str
    sizes: Sizes
    features: FeatureSearch | None

    def circuit(
        self,
        kind: str,
        refined: Refined,
        between: Sequence[Link],
        held_out: HeldOutFigures | None,
        remarks: Remarks | None,
    ) -> Circuit:
        choice = refined.choice
        members = frozenset(choice.kept) | refined.neurons.keys()
        shape = choice.setting.runner.loaded.shape
        draft = write_draft(
            self.source,
            choice,
            [link for link in between if _inside(link, members)],
            shape,
            ablation=self.patching.written,
            free=self._free(choice),
            metric=self.options.metric,
            counted=self._counted(choice),
            sizes={**self.sizes, **{entry: (*pair, True) for entry, pair in refined.sizes.items()}},
            neurons=refined.neurons,
            command=self.command,
            target=None if self.options.knee else self.options.target,
            suffix="" if kind == HONEST else "-helpful",
            held_out=held_out,
            remarks=remarks,
        )
        estimate = choice.estimate()
        entries = sorted(choice.entries.items(), key=lambda pair: (sort_key(pair[0][0]), pair[0][1]))
        return Circuit(
            kind,
            estimate.value,
            estimate.interval,
            choice.knocked_out(),
            tuple((format_name(component), role, effect) for (component, role), effect in entries),
            choice.heads,
            choice.frontier,
            tuple((format_name(component), role) for component, role in choice.spared),
            tuple((format_name(component), role) for component, role in choice.unproven),
            draft,
            None if held_out is None else (held_out.recovered, held_out.left),
        )

    def _counted(self, choice: Choice) -> str:
        """`6 heads of 144 (4%)`; `6 features of 312 that are active on these prompts`."""
        if self.features is None:
            shape = choice.setting.runner.loaded.shape
            heads = shape.n_layers * shape.n_heads
            return f"{choice.heads} heads of {heads} ({choice.heads / heads:.0%})"
        active = sum(one.moving for one in self.features.searched)
        return f"{choice.heads} features of {active:,} that are active on these prompts"

    def _free(self, choice: Choice) -> tuple[str, ...]:
        """What the draft leaves free, so that it ablates what the search ablated.

        Of features: all heads and MLPs, and where a circuit has nothing of a dictionary, something of that which a
        circuit's outside leaves as it is, since a dictionary that a file does not name is not ablated.
        """
        if self.features is None:
            return self.options.free
        setting, named = choice.setting, of_features(choice.kept)
        free = ["a*", *(["m*"] if setting.runner.loaded.shape.has_mlps else [])]
        for site in setting.sites:
            if site.name not in named:
                error = DictionaryError(site.name, site.place.layer)
                one = error if site.error_stays else self.features.still(site)
                free += [] if one is None else [format_name(one)]
        return tuple(free)


class _Timed:
    """How long a whole forward took since this was made; None where none was run."""

    def __init__(self, runner: Runner) -> None:
        self._runner, self._started, self._before = runner, time.monotonic(), self._work(runner)

    @property
    def seconds(self) -> float | None:
        work = self._work(self._runner) - self._before
        return (time.monotonic() - self._started) / work if work > 0 else None

    @staticmethod
    def _work(runner: Runner) -> float:
        return runner.forwards - runner.forwards_saved


def _extent(
    setting: ExplorationSetting,
    series: Sequence[PatchingSeries],
    corruptions: Sequence[str],
    *,
    unnamed: bool,
    has_paths: bool,
) -> Extent:
    shape = setting.runner.loaded.shape
    return Extent(
        components=len(setting.claimed),
        spots=spots_in(setting.claimed, shape),
        layers=shape.n_layers,
        roles=len(setting.roles),
        unnamed=unnamed,
        corruptions=len(corruptions),
        series=len(series),
        draws=setting.corrupt.draws if isinstance(setting.corrupt, Noised) else 1,
        has_paths=has_paths,
    )


def _with_reference(
    task: TokenizedTask,
    patching: Patching,
    series: Sequence[PatchingSeries],
    study: Study,
    tokenizer: PreTrainedTokenizerFast,
) -> TokenizedTask:
    """The task with other prompts for means to go over, where any are taken."""
    if not any(source.is_mean for source in (patching.source, *(one.source for one in series))):
        return task
    subject = study.exploration
    others = ReferencePrompts(subject.task, subject.ablation, study.base_dir, study.source, tokenizer)
    return others.of(task, max(AVERAGED * task.n, FEWEST_AVERAGED))


def _refused(study: Study, options: ExploreOptions, inside: Internal | None) -> Diagnostic | None:
    """What cannot be explored, going by what is asked for alone: CS541."""
    why_not = inestimable(options.metric)
    exact = options.start == "resid" or options.sweeps or (options.sections_only and inside is None)
    if why_not and not exact:
        return Diagnostic(
            "CS541",
            f"--metric {options.metric}: nothing can be estimated of it, since {why_not}",
            hint=f"start from exact sweeps (--start resid, or --sweep heads), or take one of {', '.join(ESTIMABLE)}",
        )
    asked = {"--start resid": options.start == "resid", "--recompute-attention": options.recomputing}
    coarse = [option for option, given in asked.items() if given]
    if study.exploration.dictionaries and coarse:
        return Diagnostic(
            "CS544",
            f"{coarse[0]} is for heads and MLPs, and where a file has dictionaries their features are searched",
            study.source.span(("dictionaries",), key=True),
            hint=f"leave {coarse[0]} out, or explore a file without `dictionaries`",
        )
    circuit = study.exploration.circuit
    if options.sections_only and (circuit is None or not circuit.paths or inside is not None):
        said = "the metric is not read from the logits" if inside is not None else "the file declares no paths"
        return Diagnostic(
            "CS541",
            f"--sections-only: {said}",
            None if circuit is None else study.source.span(("circuit",)),
            hint="write circuit: {groups: ..., paths: [A -> B -> logits]}, or explore without --sections-only",
        )
    return None


def _too_few_prompts(n: int, study: Study) -> Diagnostic:
    return Diagnostic(
        "CS584",
        f"--stability repeats the search on halves of the prompts, and half of {n} is too few to choose a circuit on",
        study.source.span(("task",)),
        hint=f"take {FEWEST} prompts or more, besides those that are held out of the search",
    )


def _check_features(setting: ExplorationSetting, study: Study) -> None:
    """CS544 where no feature moves."""
    if not setting.claimed:
        raise CircuitspecError(
            Diagnostic(
                "CS544",
                "no feature has another weight in what is patched in, at any position: patching them changes nothing",
                study.source.span(("dictionaries",), key=True),
                hint="see what `circuitspec doctor FILE` says of the dictionaries, or name other positions",
            )
        )


def _nothing_left(options: ExploreOptions) -> Diagnostic:
    return Diagnostic(
        "CS541",
        f"no head and no MLP that is searched comes before {options.metric} is read",
        hint="take another metric, or leave fewer components free",
    )


def _nothing_to_sweep(options: ExploreOptions, there: Collection[ComponentKind]) -> list[Diagnostic]:
    """CS563 for every option that asks for a kind of component of which none is searched."""
    asked = {f"--sweep {name}": searched_for(SWEPT[name]) for name in options.sweeps}
    asked |= {"--neurons": searched_for(NEURON)} if options.neurons else {}
    instead = ", or leave less free (--free)"
    if FEATURE in there:
        instead = ": where a file has dictionaries, their features are searched, and heads and MLPs are free"
    return [
        Diagnostic(
            "CS563",
            f"{option}: there is nothing to look at: no {kind.singular} is searched",
            hint="declare dictionaries in the file: dictionaries: {NAME: {at: r8, from: DIR}}"
            if kind is FEATURE
            else f"leave {option} out{instead}",
        )
        for option, kind in asked.items()
        if kind is not None and kind not in there
    ]


def _lacking(options: ExploreOptions, shape: ModelShape) -> list[Diagnostic]:
    """CS325 for a search along a stream past which something comes, CS563 for sweeps of what no layer has."""
    found = [no_plain_sum(shape)] if shape.why_no_edges and options.start == "resid" else []
    for name in options.sweeps:
        kind, said = SWEPT[name], None
        for layer in range(shape.n_layers):
            said = kind.why_absent(shape.counts, layer)
            if said is None:
                break
        if said is not None:
            why = f"--sweep {name}: there is nothing to look at: the model has no {kind.plural}: its {said[0]}"
            found.append(Diagnostic("CS563", why, hint=f"leave --sweep {name} out"))
    return found


def _all_positions(study: Study) -> bool:
    ablation = study.exploration.ablation
    return ablation is not None and ablation.positions == "all"


def _anchors(setting: ExplorationSetting, corruptions: Sequence[str]) -> dict[str, tuple[float, float]]:
    """The metric's mean on the clean and on the corrupt prompts, by corruption."""
    named = {name: Experiment(name) for name in corruptions}
    if isinstance(setting.corrupt, Noised):
        named["noise"] = Experiment(setting.corrupt)
    setting.run([CLEAN, *named.values()])
    clean = float(setting.values(CLEAN).mean())
    return {name: (clean, float(setting.values(run).mean())) for name, run in named.items()}


def _too_little(options: ExploreOptions) -> Diagnostic:
    return Diagnostic(
        "CS542",
        f"{options.max_forwards:g} forwards are too few for the unpatched runs alone",
        hint="raise --max-forwards",
    )


def _by_size(choice: Choice, found: ComponentSweep) -> list[Ablatable]:
    """Members of the circuit, those with the largest effect first."""
    largest: dict[Ablatable, float] = dict.fromkeys(choice.kept, 0.0)
    for effect in found.effects:
        if effect.component in largest:
            largest[effect.component] = max(largest[effect.component], effect.size)
    return sorted(largest, key=lambda c: (-largest[c], sort_key(c)))


def _inside(link: Link, members: frozenset[Ablatable]) -> bool:
    """Whether both ends of a link belong to the circuit, the input and the logits counting as such."""
    sends = not is_writer(link.sender) or link.sender in members
    return sends and (link.reader is None or link.reader in members)
