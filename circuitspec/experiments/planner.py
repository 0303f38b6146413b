"""Hypothesis and model graph -> the experiments that test it. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.experiments.ablation_source import ablation_source, corrupt_prompts
from circuitspec.experiments.circuits.method_grid import Methods
from circuitspec.experiments.circuits.random_circuits import RandomCircuits, random_circuits
from circuitspec.experiments.circuits.robust_methods import claimed_methods
from circuitspec.experiments.circuits.subset_runs import Trials, complete_trials, cuts_of, minimal_trials, refuse_parts
from circuitspec.experiments.experiment import Experiment, Source, Variant
from circuitspec.experiments.levels import edge_level, node_level, path_level
from circuitspec.experiments.levels.whole_circuit import Whole, anchor_of, whole_circuit
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.edge_circuit import EdgeCircuit, hopless
from circuitspec.graph.nodes import NodeComponent
from circuitspec.graph.paths import DeclaredPath, Impossible, cuttable, edges_of, everywhere, merged, read_path
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.schema.blocks import (
    Claim,
    CrossSection,
    Gate,
    Hypothesis,
    Mediation,
    Necessary,
    PathClaim,
    Sufficient,
    Traces,
)
from circuitspec.hypothesis_file.schema.tested_claims import BeatsRandom, Complete, Minimal
from circuitspec.hypothesis_file.yaml.source import Source as SourceText

CLEAN = Experiment("clean")

Measure = Literal[
    "recovered", "drop", "rise", "direct share", "interaction", "reaction", "incompleteness", "effect", "share beaten"
]


@dataclass(frozen=True)
class GateRuns:
    """Two parts of a circuit, named as in the claim, patched alone and together: first, second, both."""

    names: tuple[str, str]
    noised: tuple[Experiment, Experiment, Experiment]  # in the clean run
    denoised: tuple[Experiment, Experiment, Experiment]  # in the corrupt run


@dataclass(frozen=True)
class Traced:
    """Components noised with the values of one corruption, and that corruption's own run.

    `expected` says whether the claim has them react to it.
    """

    corruption: str
    expected: bool
    noised: Experiment
    corrupt: Experiment


@dataclass(frozen=True)
class PlannedClaim:
    """A claim and the runs that decide it.

    `measure` says what the claim bounds: recovered (or the rise that a restored path brings), which is
    (patched - corrupt) / (clean - corrupt); the drop, (clean - patched) / (clean - corrupt); or the direct share of
    a mediation, which is one or the other by its direction: the direct path is patched, and the far anchor is the
    run with both paths patched. Two kinds of claims are decided by several figures: the interaction of the parts of a
    gate (`gate`; `patched` has both noised), and the reaction to each corruption (`traced`; `patched` is the first of
    those to which there should be one, `corrupt` what a corruption that breaks nothing is measured against). A share
    says something only of an effect that is part of what breaks the behaviour as a whole: `broken`. Claims about
    subsets of the circuit have `trials`, those about random circuits `rivals`; `patched` is the circuit's own run. What
    is to hold under several methods has `methods`, the file's own (which the other fields are about) among them.
    """

    index: int  # its place in the file, from 0
    claim: Claim
    patched: Experiment
    clean: Experiment
    corrupt: Experiment
    measure: Measure = "recovered"
    gate: GateRuns | None = None
    traced: tuple[Traced, ...] = ()
    broken: Experiment | None = None  # mediation: the run with everything ablated, or on the corrupt prompts
    trials: Trials | None = None
    rivals: RandomCircuits | None = None
    methods: Methods | None = None
    paths: tuple[DeclaredPath, ...] = ()  # that it is about; of a mediation, the direct path first

    @property
    def anchored(self) -> Mapping[Experiment, tuple[Experiment, Experiment]]:
        """Every patched run of the claim, with its anchors: the clean one and the corrupt one."""
        if self.gate is not None:
            return dict.fromkeys((*self.gate.noised, *self.gate.denoised), (self.clean, self.corrupt))
        if self.traced:
            return {one.noised: (self.clean, one.corrupt) for one in self.traced}
        others = {} if self.methods is None else self.methods.anchored
        return {self.patched: (self.clean, self.corrupt), **others}

    @property
    def runs(self) -> tuple[Experiment, ...]:
        """Every run that decides the claim, its anchors first."""
        anchors = [run for pair in self.anchored.values() for run in pair]
        others = [] if self.broken is None else [self.broken]
        others += () if self.trials is None else self.trials.runs
        others += () if self.rivals is None else self.rivals.kept
        return tuple(dict.fromkeys((self.clean, self.corrupt, *anchors, *self.anchored, *others)))

    @property
    def falls(self) -> bool:
        """Whether it measures how far the score falls from the clean anchor, not how far it rises from the other."""
        return self.measure in ("drop", "reaction") or (self.measure == "direct share" and self.patched.base == "clean")


@dataclass(frozen=True)
class PathCheck:
    """A declared path by itself: the clean run with it ablated, and the corrupt run with it restored.

    `anchor` is the run with everything ablated; `restored` is None where there are no corrupt prompts (zero ablation).
    `sleeps` where it leads from or to components declared as backups, which do nothing while the others work. `joins`
    are the names of the components at each of its stops, where a part of the circuit may turn out to be one.
    """

    text: str
    ablated: Experiment
    anchor: Experiment
    restored: Experiment | None
    corrupt: Experiment | None
    sleeps: bool = False
    joins: tuple[frozenset[str], ...] = ()


@dataclass(frozen=True)
class Plan:
    """Every experiment once, with the names people know them by.

    `corrupt` is the anchor at recovered = 0 of noising claims: the corrupt prompts' own run under
    resample ablation and noise, and under mean and zero ablation the model with all ablated that the hypothesis does
    not leave free. Denoising claims have the corrupt prompts' run; where there are no
    others, it is the plan's. `circuit` is run only where a claim of sufficiency asks for it.
    `edges` are what edge level keeps (at path level: the edges along the paths), `checks` the declared paths one by
    one (edge and path level).
    """

    labels: Mapping[Experiment, str]  # in running order
    clean: Experiment
    corrupt: Experiment
    circuit: Experiment  # everything outside the circuit noised
    claims: tuple[PlannedClaim, ...]
    edges: EdgeCircuit | None = None
    checks: tuple[PathCheck, ...] = ()
    overruled: tuple[str, ...] = ()  # path level: components into which paths lead that add nothing
    beside: Mapping[Experiment, tuple[Experiment, Experiment]] = field(default_factory=dict)  # anchors of other runs
    impossible: tuple[Impossible, ...] = ()  # neighbours on its paths, declared or claimed, between which is no edge

    def naming(self, labels: Mapping[Experiment, str]) -> Plan:
        """The plan with more experiments, which were found to be needed on the way."""
        return replace(self, labels={**self.labels, **{e: text for e, text in labels.items() if e not in self.labels}})

    @property
    def variants(self) -> tuple[Variant, ...]:
        """All prompts that are run, the clean ones first."""
        return tuple(dict.fromkeys(("clean", *(v for e in self.labels for v in e.variants))))

    @property
    def experiments(self) -> tuple[Experiment, ...]:
        return tuple(self.labels)


def make_plan(
    hypothesis: Hypothesis, graph: CircuitGraph, text: SourceText, corruptions: Sequence[str] | None = None
) -> Plan:
    """The experiments of the hypothesis's claims, equal ones only once.

    `corruptions` are those of the prompts; None where these are not at hand, so that only those are known that the
    file names. Raises, all at once, what is wrong with claims, given the model: CS220 to CS229, CS224 for a claim of
    sufficiency about components without an outside, CS508 for tracing a corruption that the prompts do not have, CS509
    for denoising without corrupt prompts.
    """
    return _Planner(hypothesis, graph, text, corruptions).plan()


@dataclass
class _Planner:
    hypothesis: Hypothesis
    graph: CircuitGraph
    text: SourceText
    corruptions: Sequence[str] | None
    labels: dict[Experiment, str] = field(default_factory=lambda: {CLEAN: "clean"})
    problems: list[Diagnostic] = field(default_factory=list)

    def plan(self) -> Plan:
        ablation = self.hypothesis.ablation
        source = ablation_source(ablation)
        whole: Whole | None = None
        anchor = CLEAN
        checks: tuple[PathCheck, ...] = ()
        try:
            if ablation.level == "node":
                self.problems += node_level.without_outside(self.hypothesis, self.graph, self.text)
            whole = whole_circuit(ablation, self.graph, self.text)
            anchor = anchor_of(source, whole)
            checks = self._checks(source, anchor)
        except CircuitspecError as error:
            self.problems += error.diagnostics
        claims: list[PlannedClaim] = []
        for index, claim in enumerate(self.hypothesis.claims):
            try:
                claims += self._claim(index, claim, whole, source, anchor)
            except CircuitspecError as error:
                self.problems += error.diagnostics
        if self.problems or whole is None:
            raise CircuitspecError(*dict.fromkeys(self.problems))
        shown = anchor if anchor in self.labels else claims[0].corrupt
        for check in checks:
            self.labels.setdefault(check.anchor, _anchor_label(check.anchor))
            at_path_level = ablation.level == "path"  # where the same words as for a `path` claim are the same run
            passing = _passing(ablation.through)
            done = ("noised" + passing, "denoised" + passing) if at_path_level else ("ablated", "restored")
            self.labels.setdefault(check.ablated, f"{check.text} {done[0]}")
            if check.restored is not None and check.corrupt is not None:
                self.labels.setdefault(check.corrupt, "corrupt")
                self.labels.setdefault(check.restored, f"{check.text} {done[1]}")
        impossible = () if whole.edges is None else whole.edges.impossible
        named = [
            *impossible,
            *(pair for c in claims for path in c.paths for pair in edges_of(path, self.graph.shape)[1]),
        ]
        return Plan(
            self.labels,
            CLEAN,
            shown,
            whole.circuit,
            tuple(claims),
            whole.edges,
            checks,
            whole.overruled,
            impossible=tuple(dict.fromkeys(named)),
        )

    def _claim(
        self, index: int, claim: Claim, whole: Whole | None, source: Source, anchor: Experiment
    ) -> list[PlannedClaim]:
        """The claim's runs; none where what is wrong with the whole circuit leaves it without."""
        match claim:
            case Sufficient() if whole is not None:
                self.labels.setdefault(anchor, _anchor_label(anchor))
                self.labels.setdefault(
                    whole.circuit, "circuit"
                )  # may be one of the anchors: all of the model, or nothing
                return [PlannedClaim(index, claim, whole.circuit, CLEAN, anchor, methods=self._methods(index, claim))]
            case Necessary() if whole is not None:
                self.labels.setdefault(anchor, _anchor_label(anchor))
                self.labels.setdefault(whole.knocked_out, "circuit ablated")
                methods = self._methods(index, claim)
                return [PlannedClaim(index, claim, whole.knocked_out, CLEAN, anchor, methods=methods)]
            case CrossSection():
                return [self._cross_section(index, claim)]
            case PathClaim():
                return [self._path(index, claim, source, anchor)]
            case Mediation():
                return [self._mediation(index, claim, source, anchor)]
            case Gate():
                return [self._gate(index, claim, source)]
            case Traces() if whole is not None:
                return [self._traces(index, claim, whole)]
            case Complete() | Minimal() if whole is not None:
                return [self._subsets(index, claim, whole, source, anchor)]
            case BeatsRandom() if whole is not None:
                return [self._against_random(index, claim, whole, anchor)]
            case _:
                return []

    def _cross_section(self, index: int, claim: CrossSection) -> PlannedClaim:
        shape = self.graph.shape
        corrupt = self._corrupt(index)
        paths: list[DeclaredPath] = []
        if claim.paths is not None:
            paths = [self._read(text, ("claims", index, claim.kind, "paths", i)) for i, text in enumerate(claim.paths)]
            patched = edge_level.restoring(paths, corrupt, shape)
        else:
            patched = node_level.denoising(corrupt, self._section(index, claim.nodes or ()))
        self.labels.setdefault(Experiment(corrupt), "corrupt")
        self.labels.setdefault(patched, f"{', '.join(claim.nodes or claim.paths or ())} restored")
        return PlannedClaim(index, claim, patched, CLEAN, Experiment(corrupt), paths=tuple(paths))

    def _path(self, index: int, claim: PathClaim, source: Source, anchor: Experiment) -> PlannedClaim:
        path = self._read(claim.of, ("claims", index, claim.kind, "of"))
        readings = path_level.along([path], self.graph.shape, self.text)
        through = self._through(claim)
        if claim.direction == "noising":
            patched = path_level.travelling("clean", source, readings, [path], through=through)
            self.labels.setdefault(anchor, _anchor_label(anchor))
            self.labels.setdefault(patched, f"{claim.of} noised{_passing(through)}")
            return PlannedClaim(index, claim, patched, CLEAN, anchor, "drop", paths=(path,))
        corrupt = self._corrupt(index)
        clean = Source("resample", "clean")
        patched = path_level.travelling(corrupt, clean, readings, [path], through=through)
        self.labels.setdefault(Experiment(corrupt), "corrupt")
        self.labels.setdefault(patched, f"{claim.of} denoised{_passing(through)}")
        return PlannedClaim(index, claim, patched, CLEAN, Experiment(corrupt), "rise", paths=(path,))

    def _mediation(self, index: int, claim: Mediation, source: Source, anchor: Experiment) -> PlannedClaim:
        place = ("claims", index, claim.kind, "of")
        mediated = self._read(claim.of, place)
        start, _, end = mediated.hops
        direct = DeclaredPath(claim.of, place, (start, end))
        first, last = claim.of.partition(" -> ")[0], claim.of.rpartition(" -> ")[2]
        if problems := hopless(direct, self.graph.shape, self.text):
            raise CircuitspecError(*(without_direct(problem, first, last) for problem in problems))
        noising = claim.direction == "noising"
        base = "clean" if noising else self._corrupt(index)
        values = source if noising else Source("resample", "clean")
        through = self._through(claim)

        def run(*paths: DeclaredPath) -> Experiment:
            readings = path_level.along(paths, self.graph.shape, self.text)
            return path_level.travelling(base, values, readings, [mediated], through=through)

        alone, both = run(direct), run(direct, mediated)
        done = ("noised" if noising else "denoised") + _passing(through)
        broken = anchor if noising else Experiment(base)
        self.labels.setdefault(broken, _anchor_label(broken))
        self.labels.setdefault(alone, f"{first} -> {last} (not {claim.of}) {done}")
        self.labels.setdefault(both, f"{first} -> {last} and {claim.of} {done}")
        anchors = (CLEAN, both) if noising else (both, broken)
        return PlannedClaim(index, claim, alone, *anchors, "direct share", broken=broken, paths=(direct, mediated))

    def _gate(self, index: int, claim: Gate, source: Source) -> PlannedClaim:
        first, second = claim.nodes
        corrupt = self._corrupt(index)
        both = self._section(index, claim.nodes, apart=True)  # where they overlap, that is told first
        sections = (self._section(index, (first,)), self._section(index, (second,)), both)
        noised = [node_level.noising(source, section) for section in sections]
        denoised = [node_level.denoising(corrupt, section) for section in sections]
        self.labels.setdefault(Experiment(corrupt), "corrupt")
        for made, done in ((noised, "noised"), (denoised, "restored")):
            for run, name in zip(made, (first, second, f"{first}, {second}"), strict=True):
                self.labels.setdefault(run, f"{name} {done}")
        runs = GateRuns((first, second), (noised[0], noised[1], noised[2]), (denoised[0], denoised[1], denoised[2]))
        return PlannedClaim(index, claim, noised[2], CLEAN, Experiment(corrupt), "interaction", gate=runs)

    def _methods(self, index: int, claim: Sufficient | Necessary) -> Methods | None:
        """The methods under which the claim is to hold, if it says so."""
        if claim.robust_to is None:
            return None
        known = self.hypothesis.task.corruptions if self.corruptions is None else self.corruptions
        found = claimed_methods(claim, self.hypothesis.ablation, tuple(known), self.graph, self.text, index)
        for run, label in found.labels.items():
            self.labels.setdefault(run, label)
        return found

    def _subsets(
        self, index: int, claim: Complete | Minimal, whole: Whole, source: Source, anchor: Experiment
    ) -> PlannedClaim:
        refuse_parts(claim, index, self.graph, self.text)
        ablation = self.hypothesis.ablation
        kept = node_level.circuit_positions(ablation, self.graph)
        edges = None if whole.edges is None else whole.edges.kept
        cuts = cuts_of(self.graph, source, kept, edges, pinned=ablation.positions == "all")
        made = complete_trials if isinstance(claim, Complete) else minimal_trials
        trials = made(cuts, claim.subsets)
        self.labels.setdefault(anchor, _anchor_label(anchor))
        self.labels.setdefault(whole.circuit, "circuit")
        for run, label in trials.labels.items():
            self.labels.setdefault(run, label)
        measure: Measure = "incompleteness" if isinstance(claim, Complete) else "effect"
        return PlannedClaim(index, claim, whole.circuit, CLEAN, anchor, measure, trials=trials)

    def _against_random(self, index: int, claim: BeatsRandom, whole: Whole, anchor: Experiment) -> PlannedClaim:
        refuse_parts(claim, index, self.graph, self.text)
        place = ("claims", index, claim.kind)
        rivals = random_circuits(self.graph, whole, claim.circuits, claim.seed, self.text, place, knocked_out=False)
        self.labels.setdefault(anchor, _anchor_label(anchor))
        self.labels.setdefault(whole.circuit, "circuit")
        for i, run in enumerate(rivals.kept):
            self.labels.setdefault(run, f"random circuit {i + 1}")
        return PlannedClaim(index, claim, whole.circuit, CLEAN, anchor, "share beaten", rivals=rivals)

    def _traces(self, index: int, claim: Traces, whole: Whole) -> PlannedClaim:
        section = self._section(index, claim.nodes)
        corrupt = corrupt_prompts(self.hypothesis.ablation)
        reference = whole.all_ablated if corrupt is None else Experiment(corrupt)
        self.labels.setdefault(reference, _anchor_label(reference))
        traced = []
        for name in self._known_corruptions(index, claim):
            noised = node_level.noising(Source("resample", name), section)
            self.labels.setdefault(Experiment(name), name)
            self.labels.setdefault(noised, f"{', '.join(claim.nodes)} noised from {name}")
            traced.append(Traced(name, name in claim.to, noised, Experiment(name)))
        patched = next(one.noised for one in traced if one.expected)
        return PlannedClaim(index, claim, patched, CLEAN, reference, "reaction", traced=tuple(traced))

    def _known_corruptions(self, index: int, claim: Traces) -> Sequence[str]:
        """The task's corruptions, in its order; CS508 where one that the claim names is not among them."""
        if self.corruptions is None:
            return tuple(dict.fromkeys((*self.hypothesis.task.corruptions, *claim.to)))
        lacking = [(i, name) for i, name in enumerate(claim.to) if name not in self.corruptions]
        if lacking:
            raise CircuitspecError(
                *(
                    Diagnostic(
                        "CS508",
                        f"the prompts have no corruption `{name}`",
                        self.text.span(("claims", index, claim.kind, "to", i)),
                        hint=f"they have: {', '.join(self.corruptions) or 'none'}",
                    )
                    for i, name in lacking
                )
            )
        return self.corruptions

    def _section(self, index: int, entries: Sequence[str], *, apart: bool = False) -> Mapping[NodeComponent, Where]:
        """Where the components that claim `index` names are patched; what is wrong with them is raised."""
        problems: list[Diagnostic] = []
        listed = ("claims", index, self.hypothesis.claims[index].kind, "nodes")
        ablation = self.hypothesis.ablation
        section = node_level.section_of(entries, listed, ablation, self.graph, self.text, problems, apart=apart)
        if problems:
            raise CircuitspecError(*problems)
        return section

    def _checks(self, source: Source, anchor: Experiment) -> tuple[PathCheck, ...]:
        """Every declared path by itself, as the level of the hypothesis patches it."""
        ablation, shape = self.hypothesis.ablation, self.graph.shape
        if ablation.level == "node":
            return ()
        corrupt, found = corrupt_prompts(ablation), []
        pinned = ablation.positions == "all"
        for path in self.graph.paths:
            own = everywhere(path) if pinned else path
            restored = None
            if ablation.level == "edge":
                ablated = edge_level.ablating(merged(edges_of(own, shape)[0]), source, shape, self.graph.measured)
                if corrupt is not None:
                    restored = edge_level.restoring([own], corrupt, shape)
            else:
                readings = path_level.along([own], shape, self.text)
                ablated = path_level.travelling("clean", source, readings, [own], through=ablation.through)
                if corrupt is not None:
                    clean = Source("resample", "clean")
                    restored = path_level.travelling(corrupt, clean, readings, [own], through=ablation.through)
            before = None if corrupt is None else Experiment(corrupt)
            found.append(PathCheck(path.text, ablated, anchor, restored, before))
        return tuple(found)

    def _read(self, text: str, place: tuple[str | int, ...]) -> DeclaredPath:
        """A claim's path in this model; what is wrong with it is raised."""
        problems: list[Diagnostic] = []
        path = read_path(text, self.graph.members, self.graph.shape, self.text, place, problems)
        if self.hypothesis.ablation.positions == "all":
            path = everywhere(path)
        problems = problems or cuttable(path, self.text) or hopless(path, self.graph.shape, self.text)
        if problems:
            raise CircuitspecError(*problems)
        return path

    def _through(self, claim: PathClaim | Mediation) -> tuple[str, ...] | None:
        """What effects pass through on the claim's path: its own setting, else that of the ablation."""
        return self.hypothesis.ablation.through if claim.through is None else claim.through

    def _corrupt(self, index: int) -> Variant:
        """The prompts into which a claim restores something; CS509 where there are none."""
        corrupt = corrupt_prompts(self.hypothesis.ablation)
        if corrupt is not None:
            return corrupt
        kind, value = self.hypothesis.claims[index].kind, self.hypothesis.ablation.value
        raise CircuitspecError(
            Diagnostic(
                "CS509",
                f"{kind} restores components in a corrupt run, and `{value}` ablation has no corrupt prompts",
                self.text.span(("claims", index)),
                hint="write `ablation: {value: resample, from: CORRUPTION}`",
            )
        )


def _anchor_label(anchor: Experiment) -> str:
    return "corrupt" if anchor.source is None else "all ablated"


def without_direct(problem: Diagnostic, first: str, last: str) -> Diagnostic:
    """CS227 for a mediation whose direct path cannot exist, so that there is nothing to compare."""
    return replace(
        problem,
        message=f"mediation compares with the direct path {first} -> {last}, which cannot exist: {problem.message}",
        hint="that all goes through the middle then needs no claim: claim `path` of the whole path instead",
    )


def _passing(through: tuple[str, ...] | None) -> str:
    return "" if through is None or through else " (through nothing)"
