"""Hypothesis and model graph -> the experiments that test it. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from circuitspec.diagnostics import CircuitspecError, Diagnostic
from circuitspec.graph.circuit import CircuitGraph, NodeComponent
from circuitspec.graph.nodes import Place, expand
from circuitspec.graph.overlap import Declared, overlaps
from circuitspec.graph.where import Where
from circuitspec.plan.experiment import ZEROS, Experiment, Noised, Site, Source, Variant
from circuitspec.spec.components import Head, Mlp, Neuron
from circuitspec.spec.hypothesis import AblationSpec, CrossSection, Hypothesis, Necessary, Sufficient
from circuitspec.spec.names import format_name, is_group_name, parse_name
from circuitspec.spec.source import Source as SourceText

CLEAN = Experiment("clean")
NOISE_STD = 3.0  # ROME's
NOISE_DRAWS = 10


@dataclass(frozen=True)
class PlannedClaim:
    """A claim and the runs that decide it: recovered = (patched - corrupt) / (clean - corrupt)."""

    index: int  # its place in the file, from 0
    claim: Sufficient | Necessary | CrossSection
    patched: Experiment
    clean: Experiment
    corrupt: Experiment


@dataclass(frozen=True)
class Plan:
    """Every experiment once, with the names people know them by.

    `corrupt` is the anchor at recovered = 0 of noising claims: the corrupt prompts' own run under
    resample ablation and noise, and under mean and zero ablation the model with every component that is
    not free ablated everywhere. Denoising claims have the corrupt prompts' run; where there are no
    others, it is the plan's. `circuit` is run only where a claim of sufficiency asks for it.
    """

    labels: Mapping[Experiment, str]  # in running order
    clean: Experiment
    corrupt: Experiment
    circuit: Experiment  # everything outside the circuit noised
    claims: tuple[PlannedClaim, ...]

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


def make_plan(hypothesis: Hypothesis, graph: CircuitGraph, text: SourceText) -> Plan:
    """The experiments of the hypothesis's claims, equal ones only once.

    Raises, all at once: CS500 where a claim or level is one that is not run yet, CS224 for a claim of
    sufficiency about components without an outside, CS509 for denoising without corrupt prompts, and
    CS220 to CS225 for what a cross-section names.
    """
    ablation = hypothesis.ablation
    problems = [*_not_run(hypothesis, text), *claim_problems(hypothesis, graph, text)]
    if problems:
        raise CircuitspecError(*problems)
    source = _source(ablation)
    kept = circuit_positions(ablation, graph)
    circuit = _noising(source, {c: ~kept.get(c, Where.at()) for c in graph.claimed})
    knocked_out = _noising(source, kept)
    all_ablated = _noising(source, {c: Where.everywhere() for c in graph.claimed})
    noised_prompts = source.prompts if source.kind == "resample" else None
    anchor = all_ablated if noised_prompts is None else Experiment(noised_prompts)
    anchor_label = "all ablated" if noised_prompts is None else "corrupt"
    labels = {CLEAN: "clean"}
    claims = []
    for index, claim in enumerate(hypothesis.claims):
        match claim:
            case Sufficient():
                labels.setdefault(anchor, anchor_label)
                labels.setdefault(circuit, "circuit")  # may be one of the anchors: the whole model, or nothing
                claims.append(PlannedClaim(index, claim, circuit, CLEAN, anchor))
            case Necessary():
                labels.setdefault(anchor, anchor_label)
                labels.setdefault(knocked_out, "circuit ablated")
                claims.append(PlannedClaim(index, claim, knocked_out, CLEAN, anchor))
            case CrossSection():
                corrupt, restored_section = _denoising(
                    ablation, _section(claim, index, ablation, graph, text, problems)
                )
                labels.setdefault(corrupt, "corrupt")
                labels.setdefault(restored_section, f"{', '.join(claim.nodes)} restored")
                claims.append(PlannedClaim(index, claim, restored_section, CLEAN, corrupt))
    return Plan(labels, CLEAN, anchor if anchor in labels else claims[0].corrupt, circuit, tuple(claims))


def claim_problems(hypothesis: Hypothesis, graph: CircuitGraph, text: SourceText) -> list[Diagnostic]:
    """What is wrong with claims of a kind that can be run, given the model: CS220 to CS225 and CS509."""
    problems = list(_without_outside(hypothesis, graph, text))
    for index, claim in enumerate(hypothesis.claims):
        if isinstance(claim, CrossSection):
            _section(claim, index, hypothesis.ablation, graph, text, problems)
            if corrupt_prompts(hypothesis.ablation) is None:
                problems.append(_no_corrupt_prompts(hypothesis.ablation, index, text))
    return problems


def restored(experiment: Experiment, components: frozenset[NodeComponent]) -> Experiment:
    """The same run with these components no longer patched anywhere."""
    sites = frozenset(s for s in experiment.sites if s.component not in components)
    return Experiment(experiment.base, experiment.source if sites else None, sites)


def circuit_positions(ablation: AblationSpec, graph: CircuitGraph) -> Mapping[NodeComponent, Where]:
    """Where each declared component is kept: at its declared positions, or with `positions: all` everywhere."""
    return _as_pinned(ablation, graph.circuit)


def corrupt_prompts(ablation: AblationSpec) -> Variant | None:
    """The prompts on which the behaviour is broken: a corruption, or the clean ones with noise. Zeros have none."""
    if ablation.value == "gaussian":
        at = (ablation.at,) if isinstance(ablation.at, str) else (ablation.at or ())
        return Noised(
            NOISE_STD if ablation.std is None else ablation.std,
            Where.at(*at),
            NOISE_DRAWS if ablation.draws is None else ablation.draws,
            ablation.seed or 0,
        )
    return ablation.source


def _as_pinned(ablation: AblationSpec, declared: Mapping[NodeComponent, Where]) -> Mapping[NodeComponent, Where]:
    return {c: Where.everywhere() for c in declared} if ablation.positions == "all" else declared


def _noising(source: Source, sites: Mapping[NodeComponent, Where]) -> Experiment:
    chosen = frozenset(Site(c, w) for c, w in sites.items() if not w.is_nowhere)
    return Experiment("clean", source if chosen else None, chosen)


def _denoising(ablation: AblationSpec, section: Mapping[NodeComponent, Where]) -> tuple[Experiment, Experiment]:
    """The corrupt run, and the same with the clean run's values at the section."""
    base = corrupt_prompts(ablation)
    if base is None:
        raise ValueError("denoising without corrupt prompts should have been refused before")
    sites = frozenset(Site(c, w) for c, w in section.items())
    return Experiment(base), Experiment(base, Source("resample", "clean"), sites)


def _source(ablation: AblationSpec) -> Source:
    """What noising patches in."""
    if ablation.value == "zero":
        return ZEROS
    return Source("resample" if ablation.value == "gaussian" else ablation.value, corrupt_prompts(ablation))


def _section(
    claim: CrossSection,
    index: int,
    ablation: AblationSpec,
    graph: CircuitGraph,
    text: SourceText,
    problems: list[Diagnostic],
) -> Mapping[NodeComponent, Where]:
    """Where the components that a cross-section names are restored.

    A group stands for its members at their positions. A component named in the claim itself is restored
    at the positions written with it, or everywhere; `positions: all` holds here as it does for groups.
    """
    found: list[Declared] = []
    for i, entry in enumerate(claim.nodes):
        place: Place = ("claims", index, claim.kind, "nodes", i)
        if is_group_name(entry):
            found += [Declared(m.component, m.where, entry, place) for m in graph.members if m.group == entry]
            continue
        name = parse_name(entry)
        where = Where.at(*name.positions) if name.positions else Where.everywhere()
        for component in expand(name, graph.shape, text, place, problems):
            found.append(Declared(component, where, entry, place))
            free = graph.freed(component)
            if free is not None:
                problems.append(
                    Diagnostic(
                        "CS222",
                        f"{format_name(free)} is free, so it is never patched, and this claim patches "
                        f"{format_name(component)}",
                        text.span(place),
                        hint="a component is either part of the claim or outside it: remove it from one of the two",
                    )
                )
    problems += overlaps(found, graph.shape, text)
    section: dict[NodeComponent, Where] = {}
    for one in found:
        section[one.component] = section.get(one.component, Where.at()) | one.where
    return _as_pinned(ablation, section)


def _without_outside(hypothesis: Hypothesis, graph: CircuitGraph, text: SourceText) -> Iterator[Diagnostic]:
    """CS224: sufficiency ablates everything outside the circuit, so every member must have an outside."""
    others = [c for c in graph.circuit if not isinstance(c, Head | Mlp | Neuron)]
    if not others:
        return
    named = ", ".join(format_name(c) for c in others[:5]) + (", ..." if len(others) > 5 else "")
    for index, claim in enumerate(hypothesis.claims):
        if isinstance(claim, Sufficient):
            yield Diagnostic(
                "CS224",
                f"the circuit holds {named}, of which nothing can be said to lie outside",
                text.span(("claims", index)),
                hint="a claim of sufficiency is about heads, MLPs and neurons: name the others in `cross_section` "
                "instead of in a group",
            )


def _no_corrupt_prompts(ablation: AblationSpec, index: int, text: SourceText) -> Diagnostic:
    return Diagnostic(
        "CS509",
        f"cross_section restores components in a corrupt run, and `{ablation.value}` ablation has no corrupt prompts",
        text.span(("claims", index)),
        hint="write `ablation: {value: resample, from: CORRUPTION}`",
    )


def _not_run(hypothesis: Hypothesis, text: SourceText) -> list[Diagnostic]:
    found = []
    for index, claim in enumerate(hypothesis.claims):
        if not isinstance(claim, Sufficient | Necessary | CrossSection):
            found.append(
                Diagnostic(
                    "CS500",
                    f"claim `{claim.kind}` is checked but cannot be run yet",
                    text.span(("claims", index)),
                    hint="claims run now: sufficient, necessary, cross_section; take this one out to verify the others",
                )
            )
    if hypothesis.ablation.level != "node":
        found.append(
            Diagnostic(
                "CS500",
                f"level `{hypothesis.ablation.level}` is checked but cannot be run yet",
                text.span(("ablation", "level")),
                hint="write `level: node`",
            )
        )
    return found
