"""Hypothesis and model graph -> the experiments that test it. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from circuitspec.diagnostics import CircuitspecError, Diagnostic
from circuitspec.graph.circuit import CircuitGraph, NodeComponent
from circuitspec.graph.where import Where
from circuitspec.plan.experiment import Experiment, Site, Source
from circuitspec.spec.hypothesis import AblationSpec, Hypothesis, Necessary, Sufficient
from circuitspec.spec.source import Source as SourceText

CLEAN = Experiment("clean")


@dataclass(frozen=True)
class PlannedClaim:
    """A claim and the runs that decide it: recovered = (patched - corrupt) / (clean - corrupt)."""

    index: int  # its place in the file, from 0
    claim: Sufficient | Necessary
    patched: Experiment
    clean: Experiment
    corrupt: Experiment


@dataclass(frozen=True)
class Plan:
    """Every experiment once, with the names people know them by.

    `corrupt` is the anchor at recovered = 0: the corrupt prompts' own run under resample ablation, and
    under mean ablation the model with every component that is not free ablated everywhere.
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
    def source_prompts(self) -> str:
        """The prompts that patched values come from; "clean" where nothing is patched."""
        return self.circuit.source.prompts if self.circuit.source is not None else "clean"

    @property
    def experiments(self) -> tuple[Experiment, ...]:
        return tuple(self.labels)


def make_plan(hypothesis: Hypothesis, graph: CircuitGraph, text: SourceText) -> Plan:
    """The experiments of the hypothesis's claims, equal ones only once.

    Raises CS500, for all at once, where a claim, level or ablation value is one that is not run yet.
    """
    problems = list(_not_run(hypothesis, text))
    if problems:
        raise CircuitspecError(*problems)
    source = _source(hypothesis.ablation)
    kept = circuit_positions(hypothesis.ablation, graph)
    everything = {c: Where.everywhere() for c in graph.claimed}
    outside = {c: ~kept.get(c, Where.at()) for c in graph.claimed}
    corrupt = Experiment(source.prompts) if source.kind == "resample" else _noising(source, everything)
    circuit = _noising(source, outside)
    knocked_out = _noising(source, kept)
    labels = {CLEAN: "clean"}
    labels.setdefault(corrupt, "corrupt" if source.kind == "resample" else "all ablated")
    labels.setdefault(circuit, "circuit")  # may be one of the anchors: the whole model, or nothing
    claims = []
    for index, claim in enumerate(hypothesis.claims):
        match claim:
            case Sufficient():
                claims.append(PlannedClaim(index, claim, circuit, CLEAN, corrupt))
            case Necessary():
                labels.setdefault(knocked_out, "circuit ablated")
                claims.append(PlannedClaim(index, claim, knocked_out, CLEAN, corrupt))
    return Plan(labels, CLEAN, corrupt, circuit, tuple(claims))


def restored(experiment: Experiment, components: frozenset[NodeComponent]) -> Experiment:
    """The same run with these components no longer patched anywhere."""
    sites = frozenset(s for s in experiment.sites if s.component not in components)
    return Experiment(experiment.base, experiment.source if sites else None, sites)


def circuit_positions(ablation: AblationSpec, graph: CircuitGraph) -> Mapping[NodeComponent, Where]:
    """Where each declared component is kept: at its declared positions, or with `positions: all` everywhere."""
    if ablation.positions == "all":
        return {c: Where.everywhere() for c in graph.circuit}
    return graph.circuit


def _noising(source: Source, sites: Mapping[NodeComponent, Where]) -> Experiment:
    chosen = frozenset(Site(c, w) for c, w in sites.items() if not w.is_nowhere)
    return Experiment("clean", source if chosen else None, chosen)


def _source(ablation: AblationSpec) -> Source:
    if ablation.value == "zero" or ablation.value == "gaussian" or ablation.source is None:
        raise ValueError(f"ablation {ablation.value!r} from {ablation.source!r} should have been refused before")
    return Source(ablation.value, ablation.source)


def _not_run(hypothesis: Hypothesis, text: SourceText) -> list[Diagnostic]:
    found = []
    for index, claim in enumerate(hypothesis.claims):
        if not isinstance(claim, Sufficient | Necessary):
            found.append(
                Diagnostic(
                    "CS500",
                    f"claim `{claim.kind}` is checked but cannot be run yet",
                    text.span(("claims", index)),
                    hint="claims run now: sufficient, necessary; take this one out to verify the others",
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
    if hypothesis.ablation.value in ("zero", "gaussian"):
        found.append(
            Diagnostic(
                "CS500",
                f"ablation value `{hypothesis.ablation.value}` is checked but cannot be run yet",
                text.span(("ablation", "value")),
                hint="values run now: resample, mean, mean_per_template",
            )
        )
    return found
