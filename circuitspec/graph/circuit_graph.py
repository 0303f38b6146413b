"""A hypothesis laid over a model: which components are declared where, which are free, which are the rest.

Everything here is arithmetic on names; nothing is run and no torch is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.graph.dictionary_nodes import in_universe, is_of_dictionary, takes_apart
from circuitspec.graph.edges import Writer
from circuitspec.graph.members import Effect, Member
from circuitspec.graph.nodes import (
    Ablatable,
    NodeComponent,
    Place,
    examples,
    expand,
    has_none,
    is_ablatable,
    wholes_with_outside,
)
from circuitspec.graph.overlap import Declared, overlaps
from circuitspec.graph.paths import DeclaredPath, read_paths
from circuitspec.graph.shape import ModelShape
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import (
    IN_LAYERS,
    Component,
    Feature,
    OtherFeatures,
    Pattern,
    sort_key,
    units_of,
    wholes_of,
)
from circuitspec.hypothesis_file.grammar.names import format_name, parse_name
from circuitspec.hypothesis_file.schema.blocks import CircuitSpec
from circuitspec.hypothesis_file.yaml.source import SourceText

__all__ = ["CircuitGraph", "Member", "NodeComponent", "Place", "lay_out"]


@dataclass(frozen=True)
class CircuitGraph:
    """The declared circuit within one model.

    `free` components are outside the claim: never ablated, always recomputed. `unmatched` are names under `free` of
    all MLPs, in a model that has none. `measured` are the heads and MLPs inside which claims measure something.
    """

    shape: ModelShape
    members: tuple[Member, ...]
    free: frozenset[Ablatable]
    paths: tuple[DeclaredPath, ...] = ()
    unmatched: tuple[str, ...] = ()
    measured: frozenset[Writer] = frozenset()

    @cached_property
    def universe(self) -> tuple[Ablatable, ...]:
        """What the model is made of, in model order: every head and MLP.

        An MLP of which the hypothesis names a neuron (in a group or as free) stands here as its neurons, so that its
        other neurons are ablated one by one and its biases stay; one of which it names an expert as its experts. What a
        dictionary takes apart, of which the hypothesis names a feature or the error, stands here as the features that
        are named, all others, and the error where it does not stay as it is.
        """
        named = {*self.free, *(m.component for m in self.members)}
        of = {component.dictionary for component in named if is_of_dictionary(component)}
        sites = [site for site in self.shape.dictionaries if site.name in of]
        split = {
            whole: unit.kind.unit_set
            for c in named
            for unit, whole in zip((c, *wholes_of(c)), wholes_of(c), strict=False)
        }
        found: list[Component] = []
        for component in wholes_with_outside(self.shape):
            if any(takes_apart(site, component) for site in sites):
                continue
            found += _taken_apart(component, split, self.shape)
        found += [part for site in sites for part in in_universe(site, named)]
        ablatable = tuple(c for c in found if is_ablatable(c))
        return tuple(sorted(ablatable, key=sort_key)) if sites else ablatable

    @cached_property
    def claimed(self) -> tuple[Ablatable, ...]:
        """The components about which the hypothesis claims something: all that are not free."""
        return tuple(c for c in self.universe if c not in self.free)

    @cached_property
    def circuit(self) -> Mapping[NodeComponent, Where]:
        """Where each declared component belongs to the circuit, in model order.

        Key-value heads, residual streams and `input` may be among them; they are no part of `universe`,
        so that nothing can be said to lie outside them.
        """
        declared: dict[NodeComponent, Where] = {}
        for member in sorted(self.members, key=lambda m: sort_key(m.component)):
            declared[member.component] = declared.get(member.component, Where.at()) | member.where
        return declared

    @cached_property
    def without_outside(self) -> tuple[NodeComponent, ...]:
        """The declared components of which nothing can be said to lie outside the circuit."""
        return tuple(c for c in self.circuit if not is_ablatable(c))

    def only(self, effect: Effect) -> frozenset[NodeComponent]:
        """The components of which every role is declared to have this effect."""
        others = {m.component for m in self.members if m.effect != effect}
        return frozenset(m.component for m in self.members if m.component not in others)

    def freed(self, component: NodeComponent) -> Ablatable | None:
        """The free component that is `component`, or its MLP, or a neuron of it; None where there is none."""
        all_features = OtherFeatures(component.dictionary) if isinstance(component, Feature) else component
        for one in (*wholes_of(component), all_features, component):
            if is_ablatable(one) and one in self.free:
                return one
        if not any(kind.part_of is component.kind for kind in IN_LAYERS):
            return None
        return min((c for c in self.free if component in wholes_of(c)), key=sort_key, default=None)


def _taken_apart(component: Component, split: Mapping[Component, str], shape: ModelShape) -> list[Component]:
    """The component, or the units of which some are named, and so on."""
    if component not in split:
        return [component]
    units = units_of(component, split[component], shape.counts)
    return [one for unit in units for one in _taken_apart(unit, split, shape)]


def lay_out(spec: CircuitSpec, shape: ModelShape, source: SourceText) -> CircuitGraph:
    """The circuit of a hypothesis in a model of this shape.

    Raises, all at once: CS220 for a component that the model does not have, CS221 for one that node
    level does not patch, CS222 for one that is both free and declared, CS223 for declarations that
    overlap, CS225 for a residual stream that the family does not compute. That a path leads from
    earlier to later components was checked when the file was read.
    """
    problems: list[Diagnostic] = []
    members: list[Member] = []
    declared: list[Declared] = []
    for group, block in spec.groups.items():
        at = (block.at,) if isinstance(block.at, str) else (block.at or ())
        for i, text in enumerate(block.nodes):
            place: Place = ("circuit", "groups", group, "nodes", i)
            name = parse_name(text)
            roles = name.positions or at
            where = Where.at(*roles) if roles else Where.everywhere()
            for component in expand(name, shape, source, place, problems):
                members.append(Member(component, where, group, block.effect))
                declared.append(Declared(component, where, text, place))
    problems += overlaps(declared, shape, source)
    free = _free(spec, shape, source, members, problems)
    texts: list[tuple[str, Place]] = [(text, ("circuit", "paths", i)) for i, text in enumerate(spec.paths)]
    paths = read_paths(texts, members, shape, source, problems)
    if problems:
        raise CircuitspecError(*problems)
    return CircuitGraph(shape, tuple(members), free, paths, tuple(t for t in spec.free if _matches_nothing(t, shape)))


def _matches_nothing(text: str, shape: ModelShape) -> bool:
    """Whether a wildcard under `free` stands for MLPs (or neurons) in a model without any: that frees nothing."""
    target = parse_name(text).target
    return isinstance(target, Pattern) and has_none(target, shape)


def _free(
    spec: CircuitSpec, shape: ModelShape, source: SourceText, members: list[Member], problems: list[Diagnostic]
) -> frozenset[Ablatable]:
    """The free components. A free MLP and a declared neuron of it contradict each other like the same name twice."""
    groups: dict[Component, str] = {m.component: m.group for m in members}
    units = {whole: m for m in members for whole in wholes_of(m.component)}
    free: set[Ablatable] = set()
    for i, text in enumerate(spec.free):
        if _matches_nothing(text, shape):
            continue
        place = ("circuit", "free", i)
        for component in sorted(set(expand(parse_name(text), shape, source, place, problems)), key=sort_key):
            if not is_ablatable(component):
                problems.append(
                    Diagnostic(
                        "CS221",
                        f"{format_name(component)} cannot be free: nothing ever ablates it",
                        source.span(place),
                        hint=f"`free` holds {examples(with_outside=True)}",
                    )
                )
                continue
            contradicted = None
            whole = next((one for one in wholes_of(component) if one in groups), None)
            if component in groups:
                contradicted = f"declared in group {groups[component]}"
            elif component in units:
                unit, group = units[component].component, units[component].group
                contradicted = f"its {unit.kind.singular} {format_name(unit)} is declared in group {group}"
            elif whole is not None:
                contradicted = f"its {whole.kind.singular} is declared in group {groups[whole]}"
            if contradicted is not None:
                problems.append(
                    Diagnostic(
                        "CS222",
                        f"{format_name(component)} is free here and {contradicted}",
                        source.span(place),
                        hint="a component is either part of the claim or outside it: remove it from one of the two",
                    )
                )
            free.add(component)
    halved = {whole: c.kind for c in free for whole in wholes_of(c) if whole in free}
    for whole, kind in sorted(halved.items(), key=lambda item: sort_key(item[0])):
        problems.append(
            Diagnostic(
                "CS223",
                f"declarations overlap: {format_name(whole)} is free, and {kind.plural} of it once more",
                source.span(("circuit", "free")),
                hint=f"keep one of the two: {kind.whole_or_units}",
            )
        )
    return frozenset(free)
