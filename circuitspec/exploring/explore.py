"""A file with a model and a task in, what was found out: effects, frontiers, links, and drafts of a hypothesis."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TypeVar

from circuitspec.diagnostics import CircuitspecError, Diagnostic
from circuitspec.engine.budget import LARGEST, rows_per_batch
from circuitspec.engine.compile import borrowed
from circuitspec.engine.directions import read_directions
from circuitspec.engine.memory import budget_of
from circuitspec.engine.recalled import recalled_estimates
from circuitspec.engine.runner import Runner
from circuitspec.engine.selftest import self_test
from circuitspec.engine.stored import stored_runner
from circuitspec.exploring.allowance import Allowance, AllowanceSpent, Unseen
from circuitspec.exploring.draft import Sizes, write_draft
from circuitspec.exploring.estimating import Spot
from circuitspec.exploring.findings import Circuit, Findings, Options
from circuitspec.exploring.gates import Pair, scan_gates
from circuitspec.exploring.grid import Grid, sweep_all, zoom
from circuitspec.exploring.links import Link, Links, links
from circuitspec.exploring.neurons import Refined, refine
from circuitspec.exploring.sections import Sections, cross_sections, link_graph
from circuitspec.exploring.select import Choice, choose
from circuitspec.exploring.setting import CLEAN, Setting, distinct_roles, matters_to
from circuitspec.exploring.subject import (
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
from circuitspec.exploring.sweep import MATERIAL, Effect, Estimation, Sweep, estimates, exactly, sweep
from circuitspec.exploring.traces import trace
from circuitspec.graph.circuit import CircuitGraph
from circuitspec.graph.declared import declared_graph
from circuitspec.graph.nodes import Ablatable, NodeComponent
from circuitspec.graph.where import Where
from circuitspec.models.load import load_model
from circuitspec.plan.experiment import Experiment, Noised
from circuitspec.progress import Progress
from circuitspec.spec.components import Head, Mlp, sort_key
from circuitspec.spec.internal import Internal
from circuitspec.spec.load import Study
from circuitspec.spec.names import format_name
from circuitspec.tasks.build import build_prompts
from circuitspec.tasks.metrics import check_metrics
from circuitspec.tasks.tokenize import tokenize
from circuitspec.verification import check_length

HONEST, HELPFUL = "with negatives", "helpful only"
GATED = 6  # members that are patched two by two
SWEPT = 2 / 3  # of the allowance, at most, for sweeps; what is left is for a circuit

T = TypeVar("T")


def explore(study: Study, options: Options, progress: Progress, command: str, task_of: Study | None = None) -> Findings:
    """Sweep, choose and draft.

    `command` is what is said to have made the drafts; their model and task are those of `task_of`, where one is
    given: fresh prompts for the same circuit. Raises CircuitspecError as `verify` does, CS541 where nothing can be
    explored: no corruption, or none that breaks the behaviour; CS542 where the allowance is too small for anything.
    """
    subject, base_dir = study.exploration, study.base_dir
    started = time.monotonic()
    inside = metric_inside(options.metric)
    if inside is not None:
        options = replace(options, metric=str(inside))
    if (refused := _refused(study, options, inside)) is not None:
        raise CircuitspecError(refused)
    prompts = build_prompts(subject.task, base_dir, study.source)
    progress.stage(f"loading {subject.model.id}")
    with study.blamed_on("model", "id"):
        loaded = load_model(subject.model, base_dir, device=options.device, progress=progress.stage)
    task = tokenize(prompts, subject.task.positions, loaded.tokenizer, study.source)
    if inside is None:
        check_metrics([options.metric], prompts, [study.source.span(("task",))])
    else:
        check_inside(inside, loaded.shape, task, study)
    check_length(task, loaded)
    declared = declared_circuit(study, loaded.shape, task)
    corruptions = tuple(task.prompts.corruptions)
    patching = patching_of(study, corruptions)
    series = swept_series(patching, options.values, corruptions, study, swept_noise(patching, options.noise_at, task))
    shape = loaded.shape
    free = free_components(options.free, study, shape)
    mlps = [Mlp(layer) for layer in range(shape.n_layers)] if shape.has_mlps else []
    universe: list[Ablatable] = [Head(layer, head) for layer in range(shape.n_layers) for head in range(shape.n_heads)]
    searched = (c for c in (*universe, *mlps) if c not in free and matters_to(c, inside))
    claimed = tuple(sorted(searched, key=sort_key))
    if not claimed:
        raise CircuitspecError(_nothing_left(options))
    internals = () if inside is None else (inside,)
    directions = read_directions(internals, base_dir, shape.d_model)
    with borrowed(loaded.model), ExitStack() as stack:
        budget = budget_of(next(loaded.model.parameters()).device)
        rows = options.rows or rows_per_batch(shape, max(task.lengths), subject.model.dtype, budget)
        runner = Runner(loaded, task, rows=rows, progress=progress, internals=internals, directions=directions)
        if options.rows is None:
            runner.rows.budget = budget
            runner.rows.most_whole = LARGEST if runner.device.type == "cpu" else None
        progress.stage("testing that patching is exact on this model")
        self_test(runner, patching.corrupt)
        stored = stack.enter_context(stored_runner(runner, options.store, progress))
        recalled = stack.enter_context(recalled_estimates(runner, options.store))
        allowance = Allowance(options.max_forwards, lambda: runner.forwards)
        roles = distinct_roles(task.roles)
        setting = Setting(
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
        )
        try:
            check_broken(setting, study)
            anchors = _anchors(setting, corruptions)
        except AllowanceSpent as spent:
            raise CircuitspecError(_too_little(options)) from spent
        work = _Work(setting, options, progress)
        estimated = work.estimates()
        with allowance.holding((options.max_forwards or 0.0) * (1 - SWEPT)):
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
            between = work.links(whole, strongest, through_mlps=all(mlp in free for mlp in mlps))
            sections += work.sections(found, whole, between)
        if declared is not None:
            sections += work.declared(found, declared, all_positions=_all_positions(study))
        sizes = {
            (e.component, role): (e.drop_best, e.rise_best, e.drop is not None)
            for e in found.effects
            for role in e.where.roles
        }
        drafted = _Drafting(task_of or study, patching, options, command, sizes)
        refined = [(kind, work.refined(kind, choice)) for kind, choice in choices]
        circuits = tuple(drafted.circuit(kind, one, between.found) for kind, one in refined)
    return Findings(
        subject.name,
        loaded.provenance.id,
        options.metric,
        patching.written,
        task.n,
        shape.n_layers,
        shape.n_layers * shape.n_heads,
        setting.roles,
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
        runner.forwards,
        time.monotonic() - started,
    )


@dataclass
class _Work:
    """The stages of an exploration: each as far as the allowance goes, and what was left out."""

    setting: Setting
    options: Options
    progress: Progress
    grids: list[Grid] = field(default_factory=list)
    unseen: list[Unseen] = field(default_factory=list)

    def stage(self, what: str, work: Callable[[], T], otherwise: T) -> T:
        """What the work gives; where the allowance ends before it is done, something else, and it is noted."""
        self.progress.stage(what)
        try:
            return work()
        except AllowanceSpent as spent:
            self.unseen.append(Unseen(what, 0, 0, str(spent), spent=True))
            return otherwise

    def add(self, grid: Grid) -> None:
        self.grids.append(grid)
        self.unseen += grid.unseen

    @property
    def _how(self) -> Estimation:
        options = self.options
        return Estimation(options.exact, options.steps, options.drawn, options.dropping, options.recomputing)

    def estimates(self) -> list[Effect]:
        if self.setting.inside is not None or self.options.sections_only:
            return []
        what = "estimating the effect of every component"
        return self.stage(what, lambda: estimates(self.setting, self._how), [])

    def effects(self, estimated: Sequence[Effect]) -> Sweep:
        options = self.options
        chosen = None
        if options.start == "resid":
            fine = [spot for grid in self.grids if grid.coarse_to_fine for spot in _components(grid)]
            chosen = [spot for spot in fine if not spot[1].inverted]
        self.progress.stage("patching the strongest components")
        if self.setting.inside is not None:
            spots = [spot for grid in self.grids for spot in _components(grid)]
            return exactly(self.setting, [spot for spot in spots if not spot[1].inverted])
        found = sweep(self.setting, estimated, self._how, chosen)
        reason = self.setting.allowance.reason
        drawn = 0 if found.drawn is None else found.drawn.count
        wanted = len(chosen) if chosen is not None else min(options.exact, len(found.effects))
        patched = len(found.exact) - drawn
        if patched < wanted and found.effects:
            self.unseen.append(Unseen("effects to be patched exactly", wanted - patched, wanted, reason, spent=True))
        rest = len(found.effects) - patched
        asked = min(options.drawn, rest)
        if drawn < asked:
            self.unseen.append(Unseen("effects to be drawn at random", asked - drawn, asked, reason, spent=True))
        return found

    def choices(self, found: Sweep) -> list[tuple[str, Choice]]:
        """The circuits, each under its kind; none where the allowance ended before any."""
        target, made = self.options.target, []
        if self.options.sections_only:
            return []
        if self.setting.inside is not None:
            why = "it is chosen with estimates, which need a metric of the output"
            self.unseen.append(Unseen("a circuit for this metric", 0, 0, why))
            return []
        # of what is left a third for each circuit, and the rest for what is found out about them
        for kind, negatives, kept in ((HONEST, True, 2 / 3), (HELPFUL, False, 1 / 2)):

            def work(negatives: bool = negatives) -> Choice | None:
                choice = choose(self.setting, found, target, negatives=negatives, knee=self.options.knee)
                choice.knocked_out()
                return choice

            with self.setting.allowance.holding(kept * self.setting.allowance.left):
                choice = self.stage(f"choosing a circuit ({kind})", work, None)
            if choice is not None:
                made.append((kind, choice))
                if choice.stopped:
                    self.unseen.append(Unseen(f"better circuits ({kind})", 0, 0, choice.stopped, spent=True))
        return made if len(made) == 2 else []

    def refined(self, kind: str, choice: Choice) -> Refined:
        """With neurons for its MLPs, if that is asked for."""
        if not self.options.neurons:
            return Refined(choice)
        return self.stage(f"looking for neurons of the MLPs ({kind})", lambda: refine(choice), Refined(choice))

    def sections(self, found: Sweep, whole: Choice, between: Links) -> list[Sections]:
        """The cross-sections of the circuit that was chosen."""
        members: dict[NodeComponent, Where] = dict(whole.kept.items())
        graph = link_graph(between.found, members)
        on_a_path = set(graph)
        unlinked = [node for node in members.items() if node not in on_a_path]
        return self._restored(
            "the drafted circuit",
            lambda: cross_sections(
                self.setting,
                "the drafted circuit",
                graph,
                members,
                strong=_strong(found),
                unlinked=unlinked,
                most=self.options.sections,
            ),
        )

    def declared(self, found: Sweep, graph: CircuitGraph, *, all_positions: bool) -> list[Sections]:
        """The cross-sections of the circuit that the file declares."""
        what = "cross-sections of the file's circuit"
        if self.setting.inside is not None:
            self.unseen.append(Unseen(what, 0, 0, "they lie before the logits, not before this metric"))
            return []
        if not graph.paths:
            self.unseen.append(Unseen(what, 0, 0, "it declares no paths"))
            return []
        links = declared_graph(graph, all_positions=all_positions)
        whole = {c: Where.everywhere() if all_positions else where for c, where in graph.circuit.items()}
        free = graph.free
        return self._restored(
            "the file's circuit",
            lambda: cross_sections(
                self.setting,
                "the file's circuit",
                links.links,
                whole,
                strong=_strong(found),
                claimed=[c for c in self.setting.claimed if c not in free],
                unlinked=links.unlinked,
                most=self.options.sections,
            ),
        )

    def _restored(self, whose: str, work: Callable[[], Sections]) -> list[Sections]:
        if not self.options.sections:
            return []
        found = self.stage(f"restoring cross-sections of {whose}", work, None)
        if found is not None and found.left:
            reason = self.setting.allowance.reason
            of = found.left + len(found.found)
            self.unseen.append(Unseen(f"cross-sections of {whose}", found.left, of, reason, spent=True))
        return [] if found is None else [found]

    def links(self, whole: Choice, strongest: Sequence[Ablatable], *, through_mlps: bool) -> Links:
        options = self.options

        def work() -> Links:
            return links(
                self.setting,
                whole.kept,
                strongest,
                most=options.linked,
                exact=options.paths,
                drawn=options.drawn,
                steps=options.steps,
                recomputing=options.recomputing,
                through_mlps=through_mlps,
            )

        between = self.stage("patching paths between the members", work, Links())
        wanted = min(options.paths, between.candidates)
        if between.chosen < wanted:
            count = wanted - between.chosen
            reason = self.setting.allowance.reason
            self.unseen.append(Unseen("paths to be patched", count, wanted, reason, spent=True))
        if wanted < between.candidates:
            why = f"their estimates are smaller than those of the {wanted} that were patched"
            left = between.candidates - wanted - (0 if between.drawn is None else between.drawn.count)
            if left:
                self.unseen.append(Unseen("paths between members", left, between.candidates, why))
        return between


@dataclass(frozen=True)
class _Drafting:
    """What all drafts of an exploration share."""

    study: Study
    patching: Patching
    options: Options
    command: str
    sizes: Sizes

    def circuit(self, kind: str, refined: Refined, between: Sequence[Link]) -> Circuit:
        choice = refined.choice
        members = frozenset(choice.kept) | refined.neurons.keys()
        shape = choice.setting.runner.loaded.shape
        draft = write_draft(
            self.study.source,
            choice,
            [link for link in between if _inside(link, members)],
            shape,
            ablation=self.patching.written,
            free=self.options.free,
            metric=self.options.metric,
            head_share=choice.heads / (shape.n_layers * shape.n_heads),
            sizes={**self.sizes, **{entry: (*pair, True) for entry, pair in refined.sizes.items()}},
            neurons=refined.neurons,
            command=self.command,
            target=None if self.options.knee else self.options.target,
            suffix="" if kind == HONEST else "-helpful",
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
            draft,
        )


def _refused(study: Study, options: Options, inside: Internal | None) -> Diagnostic | None:
    """What cannot be explored, going by what is asked for alone: CS541."""
    if inside is not None and options.start != "resid" and not options.sweeps:
        return Diagnostic(
            "CS541",
            f"--metric {inside}: estimates need a metric of the output, and this one is read inside the model",
            hint="start from exact sweeps: --start resid, or --sweep heads",
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


def _nothing_left(options: Options) -> Diagnostic:
    return Diagnostic(
        "CS541",
        f"no head and no MLP that is searched comes before {options.metric} is read",
        hint="take another metric, or leave fewer components free",
    )


def _all_positions(study: Study) -> bool:
    ablation = study.exploration.ablation
    return ablation is not None and ablation.positions == "all"


def _strong(found: Sweep) -> list[tuple[NodeComponent, str]]:
    """Components and positions that do something by themselves, in either direction."""
    return [(e.component, role) for e in found.exact if e.size >= MATERIAL for role in e.where.roles]


def _components(grid: Grid) -> list[Spot]:
    """The heads and MLPs that were looked at, with where."""
    spots = [spot for kind in ("mlps", "heads") for spot in grid.spots(kind)]
    return [(spot.target, spot.where) for spot in spots if isinstance(spot.target, Head | Mlp)]


def _anchors(setting: Setting, corruptions: Sequence[str]) -> dict[str, tuple[float, float]]:
    """The metric's mean on the clean and on the corrupt prompts, by corruption."""
    named = {name: Experiment(name) for name in corruptions}
    if isinstance(setting.corrupt, Noised):
        named["noise"] = Experiment(setting.corrupt)
    setting.run([CLEAN, *named.values()])
    clean = float(setting.values(CLEAN).mean())
    return {name: (clean, float(setting.values(run).mean())) for name, run in named.items()}


def _too_little(options: Options) -> Diagnostic:
    return Diagnostic(
        "CS542",
        f"{options.max_forwards:g} forwards are too few for the unpatched runs alone",
        hint="raise --max-forwards",
    )


def _by_size(choice: Choice, found: Sweep) -> list[Ablatable]:
    """Members of the circuit, those with the largest effect first."""
    largest: dict[Ablatable, float] = dict.fromkeys(choice.kept, 0.0)
    for effect in found.effects:
        if effect.component in largest:
            largest[effect.component] = max(largest[effect.component], effect.size)
    return sorted(largest, key=lambda c: (-largest[c], sort_key(c)))


def _inside(link: Link, members: frozenset[Ablatable]) -> bool:
    """Whether both ends of a link belong to the circuit, the input and the logits counting as such."""
    sends = not isinstance(link.sender, Head | Mlp) or link.sender in members
    return sends and (link.reader is None or link.reader in members)
