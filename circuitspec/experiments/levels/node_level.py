"""Experiments at node level: components' values are replaced for all that comes after them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from circuitspec.diagnostics.diagnostic import Diagnostic
from circuitspec.experiments.experiment import CLEAN_VALUES, Experiment, Site, Source, Variant
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.nodes import NodeComponent, Place, expand
from circuitspec.graph.overlap import Declared, overlaps
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import Feature, OtherFeatures
from circuitspec.hypothesis_file.grammar.names import format_name, is_group_name, parse_name
from circuitspec.hypothesis_file.schema.blocks import AblationSpec
from circuitspec.hypothesis_file.yaml.source import SourceText


def ablating(source: Source, sites: Mapping[NodeComponent, Where]) -> Experiment:
    """The clean run with the source's values at these sites."""
    chosen = frozenset(Site(c, w) for c, w in sites.items() if not w.is_nowhere)
    return Experiment("clean", source if chosen else None, chosen)


def denoising(corrupt: Variant, section: Mapping[NodeComponent, Where]) -> Experiment:
    """The corrupt run with the clean run's values at the section."""
    sites = frozenset(Site(c, w) for c, w in section.items())
    return Experiment(corrupt, CLEAN_VALUES, sites)


def restored(
    experiment: Experiment, components: frozenset[NodeComponent], shape: ModelShape | None = None
) -> Experiment:
    """The same run with these components no longer patched anywhere, nor features that were with all others.

    How many features a dictionary has is in the `shape`.
    """
    back: dict[str, set[int]] = {}
    for one in components:
        if isinstance(one, Feature):
            back.setdefault(one.dictionary, set()).add(one.index)
    left = (_but(site, back, shape) for site in experiment.sites if site.component not in components)
    sites = frozenset(site for site in left if site is not None)
    return Experiment(experiment.base, experiment.source if sites else None, sites)


def _but(site: Site, features: Mapping[str, Collection[int]], shape: ModelShape | None) -> Site | None:
    """The site, of all other features without these; None where no other is left."""
    others = site.component
    if not isinstance(others, OtherFeatures) or others.dictionary not in features:
        return site
    named = others.named.union(features[others.dictionary])
    own = None if shape is None else shape.dictionary(others.dictionary)
    if own is not None and len(named) == own.n_features:
        return None
    return replace(site, component=replace(others, named=named))


def circuit_positions(ablation: AblationSpec, graph: CircuitGraph) -> Mapping[NodeComponent, Where]:
    """Where each declared component is kept: at its declared positions, or with `positions: all` everywhere."""
    if ablation.positions == "all":
        return {c: Where.everywhere() for c in graph.circuit}
    return graph.circuit


def section_of(
    entries: Sequence[str],
    listed: Place,
    ablation: AblationSpec,
    graph: CircuitGraph,
    text: SourceText,
    problems: list[Diagnostic],
    *,
    apart: bool = False,
) -> Mapping[NodeComponent, Where]:
    """Where the components that a claim names are patched; the claim's `entries` stand in the file at `listed`.

    A group stands for its members at their positions, or with `positions: all` at all. A component named in the claim
    itself is patched at the positions written with it, or everywhere. What two entries declare is told (CS223); with
    `apart`, also what both patch because groups act everywhere.
    """
    found: list[Declared] = []
    section: dict[NodeComponent, Where] = {}

    def patch(component: NodeComponent, where: Where) -> None:
        section[component] = section.get(component, Where.at()) | where

    for i, entry in enumerate(entries):
        place: Place = (*listed, i)
        if is_group_name(entry):
            for member in (m for m in graph.members if m.group == entry):
                acting = Where.everywhere() if ablation.positions == "all" else member.where
                found.append(Declared(member.component, acting if apart else member.where, entry, place))
                patch(member.component, acting)
            continue
        name = parse_name(entry)
        where = Where.at(*name.positions) if name.positions else Where.everywhere()
        for component in expand(name, graph.shape, text, place, problems):
            found.append(Declared(component, where, entry, place))
            patch(component, where)
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
    return section


def without_outside(graph: CircuitGraph, place: Place, text: SourceText) -> list[Diagnostic]:
    """CS224: sufficiency ablates everything outside the circuit, so every member must have an outside."""
    others = graph.without_outside
    if not others:
        return []
    named = ", ".join(format_name(c) for c in others[:5]) + (", ..." if len(others) > 5 else "")
    return [
        Diagnostic(
            "CS224",
            f"the circuit holds {named}, of which nothing can be said to lie outside",
            text.span(place),
            hint="a claim of sufficiency is about heads, MLPs and neurons: name the others in `cross_section` "
            "instead of in a group",
        )
    ]
