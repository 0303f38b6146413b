"""Interchange interventions: components of the base run take the values that they have in sources. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.experiments.experiment import Experiment, Site, SourcedSites, values_in
from circuitspec.experiments.subspaces.subspace import Subspace, random_basis, random_name
from circuitspec.graph.nodes import NodeComponent
from circuitspec.graph.overlap import Declared, overlaps
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.yaml.source import SourceText
from circuitspec.prompts.pairs.settings import Setting, families_of, source_variant

WHOLE = "whole vector"
RANDOM = 3  # subspaces that are drawn beside each of a claim

Aligned = Mapping[str, Mapping[NodeComponent, Where]]
"""By variable, where the components are patched that carry it."""


def interchanging(setting: Setting, aligned: Mapping[str, frozenset[Site]]) -> Experiment:
    """The base run with each variable's sites at their values in the source of its family."""
    patches = []
    for family in families_of(setting):
        sites = {site for variable, own in setting if own == family for site in aligned[variable]}
        patches.append(SourcedSites(values_in(source_variant(family)), frozenset(sites)))
    first, *others = patches
    return Experiment("clean", first.source, first.sites, beside=frozenset(others))


def instead_of_subspaces(run: Experiment) -> dict[str, Experiment]:
    """By name the same run with whole components and with random subspaces of equal rank; none without subspaces."""
    if not run.patches_subspaces:
        return {}

    def changed(by: Callable[[Subspace], Subspace | None]) -> Experiment:
        def of(sites: frozenset[Site]) -> frozenset[Site]:
            return frozenset(s if s.subspace is None else replace(s, subspace=by(s.subspace)) for s in sites)

        return replace(run, sites=of(run.sites), beside=frozenset(replace(p, sites=of(p.sites)) for p in run.beside))

    drawn = {
        random_name(seed): changed(
            lambda own, seed=seed: Subspace.of(random_basis(own.width, own.rank, seed))  # type: ignore[misc]
        )
        for seed in range(RANDOM)
    }
    return {WHOLE: changed(lambda own: None), **drawn}


def check_apart(setting: Setting, aligned: Aligned, shape: ModelShape, text: SourceText) -> None:
    """Raises CS234 where variables that take values from different sources are aligned with one component."""
    problems: list[Diagnostic] = []
    for i, (one, family) in enumerate(setting):
        for other, source in setting[i + 1 :]:
            if family == source:
                continue
            declared = [
                Declared(component, where, name, ("abstraction", "align", name))
                for name in (one, other)
                for component, where in aligned[name].items()
            ]
            problems += [replace(found, code="CS234") for found in overlaps(declared, shape, text)]
    if problems:
        raise CircuitspecError(*problems)
