"""The internal metrics that claims are about, checked against the model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.edges import is_writer
from circuitspec.graph.nodes import Place, existing
from circuitspec.graph.shape import ModelShape
from circuitspec.hypothesis_file.grammar.component_kinds import ATTENTION_PATTERN
from circuitspec.hypothesis_file.grammar.components import Component, whole_of
from circuitspec.hypothesis_file.grammar.internal_metric_names import (
    Activation,
    Attention,
    Internal,
    Projection,
    RoutingWeight,
    is_internal,
    parse_internal,
)
from circuitspec.hypothesis_file.grammar.names import Name, format_name
from circuitspec.hypothesis_file.schema.blocks import Hypothesis
from circuitspec.hypothesis_file.yaml.source import SourceText


def internal_metrics(hypothesis: Hypothesis, shape: ModelShape, text: SourceText) -> tuple[Internal, ...]:
    """Each once, in the file's order. Raises CS220 for components that the model does not have, CS225 for a residual
    stream that it does not compute."""
    found: dict[Internal, None] = {}
    problems: list[Diagnostic] = []
    for index, claim in enumerate(hypothesis.claims):
        if not is_internal(claim.metric):
            continue
        metric, place = parse_internal(claim.metric), ("claims", index, claim.kind, "metric")
        problems += readable(metric, shape, text, place)
        found.setdefault(metric)
    if problems:
        raise CircuitspecError(*problems)
    return tuple(found)


def measuring(graph: CircuitGraph, internals: Iterable[Internal]) -> CircuitGraph:
    """The circuit, in which is known inside which heads and MLPs something is measured.

    Residual streams are none of these: at edge level, where it matters, nothing is projected.
    """
    wholes = (whole_of(component_of(metric)) for metric in internals)
    return replace(graph, measured=frozenset(whole for whole in wholes if is_writer(whole)))


def readable(metric: Internal, shape: ModelShape, text: SourceText, place: Place) -> list[Diagnostic]:
    """CS220 and CS225, as for `internal_metrics`, of one metric that stands at this place."""
    problems: list[Diagnostic] = []
    component = component_of(metric)
    existing(Name(component), shape, text, place, problems)
    kind = ATTENTION_PATTERN if isinstance(metric, Attention) else component.kind  # weights are read as patterns are
    absent = kind.why_absent(shape.counts, component.place[0])
    if absent is not None:
        reason, hint = absent
        said = f"the model has no {format_name(component)}: its {reason}"
        problems = [Diagnostic("CS225", said, text.span(place), hint=hint)]
    return problems


def component_of(metric: Internal) -> Component:
    """The component that a metric is read from."""
    match metric:
        case Attention(head):
            return head
        case Activation(neuron):
            return neuron
        case Projection(of):
            return of
        case RoutingWeight(expert):
            return expert


def positions_of(metric: Internal) -> tuple[str, ...]:
    """The positions that a metric names."""
    return (metric.source, metric.target) if isinstance(metric, Attention) else (metric.at,)
