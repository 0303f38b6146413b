"""Hypothesis and model graph -> the experiments that test it. Imports no torch.

What is run for a claim its kind says, which is given from outside (`PlansClaims`): no kind is known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, TypeAlias

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.experiments.ablation_source import ablation_source, corrupt_prompts
from circuitspec.experiments.experiment import CLEAN_VALUES, Experiment, Reading, Site, Source, Variant
from circuitspec.experiments.levels import edge_level, node_level, path_level
from circuitspec.experiments.levels.path_entries import with_sources
from circuitspec.experiments.levels.whole_circuit import Whole, anchor_of, whole_circuit
from circuitspec.experiments.subspaces.subspace_files import StoredSubspace, check_vectors, fitting, not_learned
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.edge_circuit import EdgeCircuit, hopless
from circuitspec.graph.edges import no_plain_sum
from circuitspec.graph.nodes import NodeComponent
from circuitspec.graph.paths import DeclaredPath, Impossible, cuttable, edges_of, everywhere, merged, read_path
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.schema.abstraction.abstraction_block import AbstractionSpec, Alignment
from circuitspec.hypothesis_file.schema.blocks import AblationSpec, Hypothesis
from circuitspec.hypothesis_file.schema.claims.written_claim import Claim
from circuitspec.hypothesis_file.yaml.source import Path_, SourceText
from circuitspec.prompts.pairs.pair_set import PairSet
from circuitspec.prompts.scrubbing.drawn_prompts import DrawnPrompts

CLEAN = Experiment("clean")

Measure: TypeAlias = str
"""What a claim bounds, in the words of reports: recovered, drop, direct share, ... Its kind says which."""


@dataclass(frozen=True)
class PlannedClaim:
    """A claim and the runs that decide it: one patched run between two anchors, where its kind has no class of its own.

    `measure` says what the claim bounds: most often recovered performance, (patched - corrupt) / (clean - corrupt).
    A kind that needs more runs, or compares others, has a class of its own beside it, in the kind's module; `patched`,
    `clean` and `corrupt` are then the runs that stand for all of them.
    """

    index: int  # its place in the file, from 0
    claim: Claim
    patched: Experiment
    clean: Experiment
    corrupt: Experiment
    measure: Measure = "recovered"
    paths: tuple[DeclaredPath, ...] = ()  # that it is about

    between_behaviours: ClassVar[bool] = True
    """Whether its anchors are the behaviour whole and broken, as recovered performance has them."""
    holds_means: ClassVar[bool] = False
    """Whether its intervals hold the means fixed: so many runs are not made again with other means."""
    searches: ClassVar[bool] = False
    """Whether more runs are looked for once these are measured."""

    @property
    def anchored(self) -> Mapping[Experiment, tuple[Experiment, Experiment]]:
        """Every patched run of the claim, with its anchors: the clean one and the corrupt one."""
        return {self.patched: (self.clean, self.corrupt)}

    @property
    def more_runs(self) -> tuple[Experiment, ...]:
        """The runs that decide it beside patched ones and their anchors."""
        return ()

    @property
    def runs(self) -> tuple[Experiment, ...]:
        """Every run that decides the claim, its anchors first."""
        anchors = [run for pair in self.anchored.values() for run in pair]
        return tuple(dict.fromkeys((self.clean, self.corrupt, *anchors, *self.anchored, *self.more_runs)))

    @property
    def drawn(self) -> tuple[Experiment, ...]:
        """Those of its runs that are of circuits drawn at random: too many to name one by one."""
        return ()

    @property
    def drawn_prompts(self) -> tuple[DrawnPrompts, ...]:
        """The prompts that are drawn for its runs, beside those of the task."""
        return ()

    @property
    def most_searched(self) -> int:
        """How many more runs a search may take, at most."""
        return 0

    @property
    def still_drawn(self) -> int:
        """How many random circuits are drawn once the model is at hand."""
        return 0

    @property
    def falls(self) -> bool:
        """Whether it measures how far the score falls from the clean anchor, not how far it rises from the other."""
        return False

    @property
    def behaviour(self) -> tuple[Experiment, Experiment]:
        """The runs between which the behaviour is broken: a figure says something only of what that breaks."""
        return self.clean, self.corrupt

    @property
    def judged_in_range(self) -> bool:
        """Whether no verdict rests on it where a run lies out of all range of its anchors."""
        return self.between_behaviours

    def fitted(self, refused: Mapping[Experiment, str], text: SourceText) -> PlannedClaim:
        """The claim without other methods' runs that these prompts do not allow; `refused` says why.

        Raises CircuitspecError where the file itself asks for such a run.
        """
        return self

    def first(self, n: int) -> PlannedClaim:
        """The claim on the first `n` prompts alone."""
        return self

    def dead_hops(self, number: int, found: list[Diagnostic]) -> list[Diagnostic]:
        """What is `found` wrong with the path of this number among its `paths`, in words that fit the claim."""
        return found


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
    circuit: Experiment  # everything outside the circuit ablated
    claims: tuple[PlannedClaim, ...]
    edges: EdgeCircuit | None = None
    checks: tuple[PathCheck, ...] = ()
    overruled: tuple[str, ...] = ()  # path level: components into which paths lead that add nothing
    beside: Mapping[Experiment, tuple[Experiment, Experiment]] = field(default_factory=dict)  # anchors of other runs
    impossible: tuple[Impossible, ...] = ()  # neighbours on its paths, declared or claimed, between which is no edge

    def naming(self, labels: Mapping[Experiment, str]) -> Plan:
        """The plan with more experiments, which were found to be needed on the way."""
        return replace(self, labels={**self.labels, **{e: text for e, text in labels.items() if e not in self.labels}})

    def first(self, n: int) -> Plan:
        """The plan on the first `n` prompts alone."""
        return replace(self, claims=tuple(planned.first(n) for planned in self.claims))

    @property
    def variants(self) -> tuple[Variant, ...]:
        """All prompts that are run, the clean ones first."""
        return tuple(dict.fromkeys(("clean", *(v for e in self.labels for v in e.variants))))

    @property
    def experiments(self) -> tuple[Experiment, ...]:
        return tuple(self.labels)

    @property
    def drawn_prompts(self) -> tuple[DrawnPrompts, ...]:
        """The prompts that claims draw beside those of the task."""
        return tuple(dict.fromkeys(one for planned in self.claims for one in planned.drawn_prompts))


class PlansClaims(Protocol):
    """How claims of one kind are planned. Every kind has one (`analysis.claims.registry`)."""

    @property
    def needs_circuit(self) -> bool:
        """Whether its runs are those of the whole circuit, so that there are none where that cannot be patched."""
        ...

    def refused(
        self, claim: Any, place: Path_, ablation: AblationSpec, graph: CircuitGraph, text: SourceText
    ) -> Iterable[Diagnostic]:
        """What makes such a claim (at `place` in the file) impossible in this model, before any run is thought of."""
        ...

    def plan(self, claim: Any, planning: Planning) -> PlannedClaim:
        """The claim with its runs, which are given names (`Planning.name`). Raises CircuitspecError."""
        ...


Kinds: TypeAlias = Callable[[Claim], PlansClaims]
"""From a claim to its kind."""


@dataclass(frozen=True)
class Planning:
    """What a claim, the one numbered `index`, is planned with.

    `source` is what ablation patches in, `anchor` where ablation recovers nothing. `corruptions` are those of the
    prompts; None where these are not at hand. `labels` gathers the runs and their names.
    """

    hypothesis: Hypothesis
    graph: CircuitGraph
    text: SourceText
    corruptions: Sequence[str] | None
    index: int
    source: Source
    anchor: Experiment
    labels: dict[Experiment, str]
    circuit: Whole | None
    pairs: PairSet | None = None  # of the abstraction, where the prompts are at hand
    subspaces: Mapping[str, StoredSubspace] = field(default_factory=dict)  # by the variables whose files were read

    @property
    def whole(self) -> Whole:
        """The runs of the whole circuit; there for kinds that need it."""
        assert self.circuit is not None
        return self.circuit

    @property
    def ablation(self) -> AblationSpec:
        return self.hypothesis.ablation

    @property
    def place(self) -> Path_:
        """Where the claim's settings stand in the file."""
        return ("claims", self.index, self.hypothesis.claims[self.index].kind)

    @property
    def named_corruptions(self) -> tuple[str, ...]:
        """The corruptions of the prompts or, where these are not at hand, those that the file names."""
        return tuple(self.hypothesis.task.corruptions if self.corruptions is None else self.corruptions)

    def name(self, run: Experiment, label: str) -> None:
        """Give a run its name, unless it has one: it may be one of another claim, or an anchor."""
        self.labels.setdefault(run, label)

    def name_anchor(self, anchor: Experiment) -> None:
        """Name a run at which nothing is recovered."""
        self.name(anchor, _anchor_label(anchor))

    @property
    def abstraction(self) -> AbstractionSpec:
        """The high-level model; there for claims about its variables."""
        assert self.hypothesis.abstraction is not None
        return self.hypothesis.abstraction

    def aligned(self, variable: str) -> Mapping[NodeComponent, Where]:
        """Where the components are patched that are said to carry a variable; what is wrong with them is raised."""
        return aligned_with(self.abstraction.align[variable], variable, self.ablation, self.graph, self.text)

    def sites(self, variable: str) -> frozenset[Site]:
        """What is patched for a variable: `aligned` components, or one of them, as its file says, along its subspace.

        Raises as `aligned`, CS185 for a component whose value is no single vector, CS235 where no file is named, CS236
        where the file is of another site or rank.
        """
        section, spec = self.aligned(variable), self.abstraction.align[variable].subspace
        if spec is None:
            return frozenset(Site(component, where) for component, where in section.items())
        check_vectors(variable, section, self.text)
        if spec.file is None:
            raise CircuitspecError(not_learned(variable, self.text))
        if variable not in self.subspaces:
            raise ValueError(f"the subspace of {variable} was not read")
        return frozenset({Site(*fitting(self.subspaces[variable], section, spec, self.graph.shape, self.text))})

    def section(self, entries: Sequence[str], *, apart: bool = False) -> Mapping[NodeComponent, Where]:
        """Where the components that the claim names (`nodes`) are patched; what is wrong with them is raised."""
        problems: list[Diagnostic] = []
        listed = (*self.place, "nodes")
        section = node_level.section_of(entries, listed, self.ablation, self.graph, self.text, problems, apart=apart)
        if problems:
            raise CircuitspecError(*problems)
        return section

    def read(self, text: str, place: Path_, *, features: bool = True) -> DeclaredPath:
        """A claim's path in this model; what is wrong with it is raised, as `features` on it are where none may be."""
        problems: list[Diagnostic] = []
        path = read_path(text, self.graph.members, self.graph.shape, self.text, place, problems)
        if self.ablation.positions == "all":
            path = everywhere(path)
        shape = self.graph.shape
        problems = problems or cuttable(path, self.text, shape if features else None) or hopless(path, shape, self.text)
        if problems:
            raise CircuitspecError(*problems)
        return path

    def with_sources(self, readings: frozenset[Reading], sources: Mapping[str, str]) -> frozenset[Reading]:
        """What arrives along paths that have `sources` of their own, as the claim's settings say."""
        return with_sources(readings, sources, self.graph, self.text, (*self.place, "sources"))

    def corrupt(self) -> Variant:
        """The prompts into which the claim restores something; CS509 where there are none."""
        corrupt = corrupt_prompts(self.ablation)
        if corrupt is not None:
            return corrupt
        kind, value = self.hypothesis.claims[self.index].kind, self.ablation.value
        raise CircuitspecError(
            Diagnostic(
                "CS509",
                f"{kind} restores components in a corrupt run, and `{value}` ablation has no corrupt prompts",
                self.text.span(("claims", self.index)),
                hint="write `ablation: {value: resample, from: CORRUPTION}`",
            )
        )


def aligned_with(
    spec: Alignment, variable: str, ablation: AblationSpec, graph: CircuitGraph, text: SourceText
) -> Mapping[NodeComponent, Where]:
    """Where the components of an alignment are patched. Raises CS220 to CS229 for what does not fit the model."""
    place = ("abstraction", "align", variable, "nodes")
    problems: list[Diagnostic] = []
    declared = ablation.model_copy(update={"positions": "declared"})
    section = node_level.section_of(spec.nodes, place, declared, graph, text, problems)
    problems = [problem for problem in problems if problem.code != "CS222"]  # nothing is ablated here
    if problems:
        raise CircuitspecError(*problems)
    if spec.at is None:
        return section
    at = Where.at(spec.at) if isinstance(spec.at, str) else Where.at(*spec.at)
    return dict.fromkeys(section, at)


def plan_claims(
    hypothesis: Hypothesis,
    graph: CircuitGraph,
    text: SourceText,
    kinds: Kinds,
    corruptions: Sequence[str] | None = None,
    pairs: PairSet | None = None,
    subspaces: Mapping[str, StoredSubspace] = MappingProxyType({}),
) -> Plan:
    """The experiments of the hypothesis's claims, equal ones only once, each claim planned as its kind says.

    `corruptions` are those of the prompts, `pairs` those of the abstraction; None where these are not at hand, so that
    only those corruptions are known that the file names. `subspaces` are those that variables are aligned with.

    Raises, all at once, what is wrong with claims, given the model: CS220 to CS229, CS224 for a claim of sufficiency
    about components without an outside, CS325 for edges or paths of a model that has none, CS185, CS235 and CS236 for
    subspaces, CS234 for variables that share
    components, CS508 for tracing a corruption that the prompts do not have, CS509 for denoising without
    corrupt prompts.
    """
    return _Planner(hypothesis, graph, text, kinds, corruptions, pairs, subspaces).plan()


@dataclass
class _Planner:
    hypothesis: Hypothesis
    graph: CircuitGraph
    text: SourceText
    kinds: Kinds
    corruptions: Sequence[str] | None
    pairs: PairSet | None = None
    subspaces: Mapping[str, StoredSubspace] = field(default_factory=dict)
    labels: dict[Experiment, str] = field(default_factory=lambda: {CLEAN: "clean"})
    problems: list[Diagnostic] = field(default_factory=list)

    def plan(self) -> Plan:
        ablation = self.hypothesis.ablation
        source = ablation_source(ablation)
        whole: Whole | None = None
        anchor = CLEAN
        checks: tuple[PathCheck, ...] = ()
        shape = self.graph.shape
        if shape.why_no_edges and ablation.level != "node":
            raise CircuitspecError(no_plain_sum(shape, self.text.span(("ablation", "level"))))
        try:
            for index, claim in enumerate(self.hypothesis.claims):
                place = ("claims", index)
                self.problems += self.kinds(claim).refused(claim, place, ablation, self.graph, self.text)
            whole = whole_circuit(ablation, self.graph, self.text)
            anchor = anchor_of(source, whole)
            checks = self._checks(source, anchor)
        except CircuitspecError as error:
            self.problems += error.diagnostics
        claims: list[PlannedClaim] = []
        for index, claim in enumerate(self.hypothesis.claims):
            kind = self.kinds(claim)
            if kind.needs_circuit and whole is None:  # what is wrong with the whole circuit leaves it without runs
                continue
            planning = Planning(
                self.hypothesis,
                self.graph,
                self.text,
                self.corruptions,
                index,
                source,
                anchor,
                self.labels,
                whole,
                self.pairs,
                self.subspaces,
            )
            try:
                claims.append(kind.plan(claim, planning))
                if shape.why_no_edges and any(run.level != "node" for run in claims[-1].runs):
                    self.problems.append(no_plain_sum(shape, self.text.span(("claims", index))))
            except CircuitspecError as error:
                self.problems += error.diagnostics
        if self.problems or whole is None:
            raise CircuitspecError(*dict.fromkeys(self.problems))
        shown = anchor if anchor in self.labels else claims[0].corrupt
        for check in checks:
            self.labels.setdefault(check.anchor, _anchor_label(check.anchor))
            at_path_level = ablation.level == "path"  # where the same words as for a `path` claim are the same run
            passing = passing_label(ablation.through)
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
                edges = merged(edges_of(own, shape)[0])
                ablated = edge_level.ablating(edges, source, shape, self.graph.measured)
                if corrupt is not None and 0 < len(ablated.readings) == len(edges):
                    restored = replace(ablated, base=corrupt, source=CLEAN_VALUES)
                elif corrupt is not None:
                    restored = edge_level.restoring([own], corrupt, shape)
            else:
                readings = path_level.along([own], shape, self.text)
                ablated = path_level.travelling("clean", source, readings, [own], through=ablation.through)
                if corrupt is not None:
                    restored = path_level.travelling(corrupt, CLEAN_VALUES, readings, [own], through=ablation.through)
            before = None if corrupt is None else Experiment(corrupt)
            found.append(PathCheck(path.text, ablated, anchor, restored, before))
        return tuple(found)


def _anchor_label(anchor: Experiment) -> str:
    return "corrupt" if anchor.source is None else "all ablated"


def passing_label(through: tuple[str, ...] | None) -> str:
    """What a run's name says of `through`, where it lets nothing pass."""
    return "" if through is None or through else " (through nothing)"


def sources_in_words(sources: Mapping[str, str]) -> str:
    """`input@S1 from abc, input@S2 from flip`."""
    return ", ".join(f"{key} from {name}" for key, name in sources.items())
