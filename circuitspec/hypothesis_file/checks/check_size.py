"""Checks of every name against the size that the file states, where the model itself may not be at hand."""

from __future__ import annotations

from circuitspec.hypothesis_file.checks.scope import Scope
from circuitspec.hypothesis_file.grammar.component_kinds import HEAD
from circuitspec.hypothesis_file.grammar.components import Component, Pattern, Range
from circuitspec.hypothesis_file.grammar.internal_metric_names import (
    Activation,
    Attention,
    Internal,
    RoutingWeight,
    is_internal,
    parse_internal,
)
from circuitspec.hypothesis_file.grammar.model_size import ModelSize
from circuitspec.hypothesis_file.grammar.names import Name, format_name, is_group_name, parse_name, parse_path
from circuitspec.hypothesis_file.yaml.source import Path_


def stated_size(written: object) -> ModelSize | None:
    """`model.size` as it is written; None where there is none, or none that can be read."""
    try:
        return ModelSize.parse(written) if isinstance(written, str) else None
    except ValueError:
        return None


def check_size(scope: Scope) -> None:
    """Note (CS170) components beyond the size that `model.size` states: in groups, free, paths, claims and metrics."""
    size = stated_size(scope.at("model", "size"))
    if size is None:
        return
    circuit = scope.parts.circuit
    if circuit is not None:
        for group, block in circuit.groups.items():
            for i, text in enumerate(block.nodes):
                _check(scope, size, parse_name(text).target, ("circuit", "groups", group, "nodes", i))
        for i, text in enumerate(circuit.free):
            _check(scope, size, parse_name(text).target, ("circuit", "free", i))
        for i, text in enumerate(circuit.paths):
            _check_path(scope, size, text, ("circuit", "paths", i))
    for i, claim in enumerate(scope.parts.claims):
        path: Path_ = ("claims", i, claim.kind)
        for place, text in claim.named_paths():
            _check_path(scope, size, text, (*path, *place))
        for place, text in claim.named_nodes():
            if not is_group_name(text):
                _check(scope, size, parse_name(text).target, (*path, *place))
        if is_internal(claim.metric):
            _check(scope, size, _read_from(parse_internal(claim.metric)), (*path, "metric"))


def _read_from(metric: Internal) -> Component:
    match metric:
        case Attention(head):
            return head
        case Activation(neuron):
            return neuron
        case RoutingWeight(expert):
            return expert
        case _:
            return metric.of


def _check_path(scope: Scope, size: ModelSize, text: str, path: Path_) -> None:
    written = scope.source.raw(scope.usable.path(path)) or ""
    for hop in parse_path(text).hops:
        for item in hop:
            if isinstance(item, Name):
                shown = format_name(item.target)
                start = written.find(shown)
                within = (start, len(shown)) if start >= 0 else (0, len(written))
                _check(scope, size, item.target, path, within)


def _check(
    scope: Scope, size: ModelSize, target: Component | Pattern, path: Path_, within: tuple[int, int] | None = None
) -> None:
    kind = target.kind
    if not kind.in_layers:
        return
    layer, member = (_end(target.layers), _end(target.members)) if isinstance(target, Pattern) else target.place
    count, at_most = kind.per_layer(size.counts), kind.at_most and kind.at_most(size.counts)
    most = at_most if count is None else count
    if layer is not None and layer >= size.n_layers:
        said = f"its {size.n_layers} layers are 0 to {size.n_layers - 1}"
    elif kind.has_members and member is not None and most is not None and member >= most:
        counted = HEAD.plural if count is None else kind.plural
        said = f"each layer has {most} {counted}, {kind.suffix}0 to {kind.suffix}{most - 1}"
        said += " at most" if count is None else ""
    else:
        return
    scope.add(
        "CS170",
        f"there is no {format_name(target)} in a model of the size {size}",
        path,
        hint=f"{said}, counted from 0; or correct `model.size`",
        within=within,
    )


def _end(indices: int | Range | None) -> int | None:
    if isinstance(indices, Range):
        return indices.last if indices.last is not None else indices.first
    return indices


def count_named(nodes: tuple[str, ...], size: ModelSize) -> int | None:
    """How many components these names stand for in a model of this size; None where it does not tell."""
    total = 0
    for text in nodes:
        target = parse_name(text).target
        if isinstance(target, Pattern):
            try:
                total += len(target.expand(size.counts))
            except ValueError:  # key-value heads and neurons: how many there are is not stated
                return None
        else:
            kind = target.kind.stands_for
            total += 1 if kind is None else kind.per_layer(size.counts) or 0
    return total
