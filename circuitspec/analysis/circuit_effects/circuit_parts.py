"""The parts of a declared circuit, its groups and its components, and the runs without them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from circuitspec.analysis.circuit_effects.backup_behaviour import Knockable
from circuitspec.analysis.circuit_effects.component_effects import ExaminedPart
from circuitspec.experiments.ablation_source import ablation_source, corrupt_prompts
from circuitspec.experiments.experiment import Experiment, Source, Variant
from circuitspec.experiments.levels.node_level import ablating, circuit_positions, denoising
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.dictionary_nodes import is_of_dictionary
from circuitspec.graph.nodes import NodeComponent
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.grammar.components import sort_key
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.hypothesis_file.schema.blocks import AblationSpec

JOINED = 2  # groups declared negative, of a larger circuit: of more, all together are one part
COMPONENTS = 16  # of a circuit of more, only what it says of groups is checked, unless all is asked for

Section: TypeAlias = Mapping[NodeComponent, Where]


@dataclass(frozen=True)
class CircuitParts:
    """Every part of a circuit with where it is in it.

    Where not all is looked at (`thorough`), `components`, those that are taken one by one, is empty (`members` has all
    in any case); and of more than `JOINED` groups that are declared negative all are one part, unless backups are
    declared too, which takes all groups anyway.
    """

    graph: CircuitGraph
    source: Source  # of the values that ablated components are given
    corrupt: Variant | None  # the prompts on which the behaviour is broken; zeros have none
    whole: Section
    groups: Mapping[ExaminedPart, Section]
    components: Mapping[ExaminedPart, Section]
    members: Mapping[ExaminedPart, Section]
    thorough: bool = True

    @classmethod
    def of(cls, graph: CircuitGraph, ablation: AblationSpec, *, every: bool = False) -> CircuitParts:
        """The parts of a laid-out circuit; `every` component one by one, however many there are."""
        whole = circuit_positions(ablation, graph)
        groups: dict[ExaminedPart, dict[NodeComponent, Where]] = {}
        for m in graph.members:
            section = groups.setdefault(ExaminedPart(m.group, m.effect, (m.group,)), {})
            where = whole[m.component] if ablation.positions == "all" else m.where
            section[m.component] = section.get(m.component, Where.at()) | where
        members: dict[ExaminedPart, Section] = {}
        for component, where in whole.items():
            own = [m for m in graph.members if m.component == component]
            declared = own[0].effect if len({m.effect for m in own}) == 1 else "positive"
            part = ExaminedPart(format_name(component), declared, tuple(dict.fromkeys(m.group for m in own)))
            members[part] = {component: where}
        thorough = every or len(members) <= COMPONENTS
        single = members if thorough else {}
        negative = [part for part in groups if part.declared == "negative"]
        if not thorough and len(negative) > JOINED and all(part.declared != "backup" for part in groups):
            joint = ExaminedPart(
                ", ".join(part.name for part in negative), "negative", tuple(part.name for part in negative)
            )
            section = groups.setdefault(joint, {})
            for part in negative:
                for component, where in groups.pop(part).items():
                    section[component] = section.get(component, Where.at()) | where
        source, corrupt = ablation_source(ablation), corrupt_prompts(ablation)
        return cls(graph, source, corrupt, whole, groups, single, members, thorough)

    @property
    def ablated(self) -> tuple[ExaminedPart, ...]:
        """The groups that are ablated: all, or else those of which the hypothesis says what they do."""
        return tuple(part for part in self.groups if self.thorough or part.declared != "positive")

    def section(self, part: ExaminedPart) -> Section:
        return self.groups[part] if part in self.groups else self.members[part]

    def without(self, *parts: ExaminedPart) -> Experiment:
        """The clean run with these parts ablated."""
        return self.ablating(*(self.section(part) for part in parts))

    def ablating(self, *sections: Section) -> Experiment:
        joined: dict[NodeComponent, Where] = {}
        for section in sections:
            for component, where in section.items():
                joined[component] = joined.get(component, Where.at()) | where
        return ablating(self.source, joined)

    def within(self, circuit: Experiment, *parts: ExaminedPart) -> Experiment:
        """The circuit alone without these parts: all that `circuit` ablates, and they at their positions too."""
        outside = {site.component: site.where for site in circuit.sites}
        return self.ablating(outside, *(self.section(part) for part in parts))

    def with_all(self, circuit: Experiment) -> Experiment:
        """Everything ablated: what `circuit` ablates, and all of the circuit at its positions."""
        return self.within(circuit, *self.members)

    def alone(self, part: ExaminedPart) -> Experiment | None:
        """The component restored in the run on the corrupt prompts; None where there are none."""
        return None if self.corrupt is None else denoising(self.corrupt, self.components[part])

    def besides(self, part: ExaminedPart) -> Sequence[ExaminedPart]:
        """The other groups, and the other components of its own: what a part is ablated together with."""
        groups = [group for group in self.groups if group.name not in part.groups]
        if part in self.groups:
            return groups
        return [*groups, *(one for one in self.components if one != part and set(part.groups) & set(one.groups))]

    def knockable(self) -> list[tuple[Knockable, Section]]:
        """Every group, and every component of a group of several; not backups, which should be seen to act.

        Residual streams, which hold what all earlier components add, are left out, and so are parts of what
        dictionaries take apart: direct effects are told by heads and MLPs, which do not add up to the stream where
        features were moved. Of a circuit that is not looked at
        in full nothing is knocked out, unless it declares backups.
        """
        found: dict[str, tuple[Knockable, Section]] = {}
        if not self.thorough and all(group.declared != "backup" for group in self.groups):
            return []
        for group, section in self.groups.items():
            own: dict[NodeComponent, Where] = {
                c: w for c, w in section.items() if not c.kind.is_stream and not is_of_dictionary(c)
            }
            if group.declared == "backup" or not own:
                continue
            names = frozenset({group.name})
            found[group.name] = (Knockable(group.name, frozenset(own), names), own)
            if len(own) > 1 and self.components:
                for c in sorted(own, key=sort_key):
                    found[format_name(c)] = (Knockable(format_name(c), frozenset({c}), names), {c: self.whole[c]})
        return list(found.values())
