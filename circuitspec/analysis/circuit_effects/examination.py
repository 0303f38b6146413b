"""The runs that show what the parts of a declared circuit do, and what follows from them.

In passes over all prompts: one for each group and one for each component, ablated in the clean run, where there are no
more than `circuit_parts.COMPONENTS` (or all are asked for; otherwise one for each group that is declared negative, or
of many for all of them, and nothing knocked out, unless the hypothesis declares backups); for each of these that hurts
one more, ablated in the circuit alone, in circuits looked at in full (otherwise one for each declared negative that
does not hurt, one without all declared negatives, and two without all components that by their estimates hurt); for
direct effects five (the clean run twice, the source's twice, the whole circuit ablated) and one for each group or
component with a direct effect worth knocking out (`backup.KNOCKED_OUT` at most), and one for all such groups together;
for components that can be lost without loss one each, restored alone, and, as for declared backups, one for each other
part ablated besides (`PAIRS` at most) and one for everything outside the circuit ablated besides.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from circuitspec.analysis import metric_choice
from circuitspec.analysis.circuit_effects.backup_behaviour import (
    KNOCKED_OUT,
    BackupCheck,
    Knockable,
    Knockout,
    declared_backup,
    knockout,
    worth_knocking_out,
)
from circuitspec.analysis.circuit_effects.circuit_parts import CircuitParts, Section
from circuitspec.analysis.circuit_effects.component_effects import (
    Ablated,
    Besides,
    CircuitEffects,
    ExaminedPart,
    SetScore,
    ablation_effects,
    most_needed_besides,
)
from circuitspec.analysis.circuit_effects.effects_so_far import ESTIMATED_OUT, NEGATIVES_OUT, Known
from circuitspec.analysis.circuit_effects.negative_components import Estimates, NegativeFinding
from circuitspec.analysis.claims.registry import kind_of
from circuitspec.analysis.statistics import stats
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.out_of_range import run_out_of_range
from circuitspec.analysis.statistics.scores import Anchors, gap, mean_of
from circuitspec.analysis.statistics.stats import Values
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.engine.attribution.direct_contributions import DirectRun
from circuitspec.engine.records import Records, RunsExperiments
from circuitspec.experiments.experiment import Experiment
from circuitspec.experiments.follow_ups.restorations import Restorations
from circuitspec.experiments.planner import Plan
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.nodes import NodeComponent
from circuitspec.hypothesis_file.grammar.components import Neuron
from circuitspec.hypothesis_file.grammar.names import format_name
from circuitspec.hypothesis_file.schema.blocks import AblationSpec

PAIRS = 40  # runs with two parts ablated
OUTSIDE = "everything outside"
NEGATIVES_IN = "negatives from outside put in"

DirectEffects = Callable[[Sequence[Experiment], str, Collection[Neuron]], Mapping[Experiment, DirectRun]]
"""What `engine.attribution.direct_logit_attribution` offers; a type, so that reading results needs no torch."""


def examine(
    plan: Plan,
    records: Records,
    parts: CircuitParts,
    runner: RunsExperiments,
    direct: DirectEffects,
    negatives: NegativeFinding | None = None,
    outside: Restorations | None = None,
    screen: Estimates | None = None,
) -> tuple[CircuitEffects | None, Plan, Records]:
    """Ablate every part of the declared circuit, and see who compensates for it.

    `negatives` are those found `outside` the circuit. Of components that are not taken one by one, the `screen` says
    what ablating each in the circuit alone should change. Returns plan and records with the runs that it took; nothing
    is run, and None returned, where there is no metric that is linear in the logits, no difference between the anchors
    by it, or a single prompt.
    """
    metric = metric_choice.for_parts_between_anchors(plan, records)
    if metric is None:
        return None, plan, records
    work = _Examination(plan, records, parts, metric, runner, direct)
    return work.effects(negatives, outside, screen), work.plan, work.records


def foreseen(plan: Plan, records: Records, parts: CircuitParts, screen: Estimates | None) -> tuple[Experiment, ...]:
    """Runs that `examine` will want, whatever is found outside the circuit: run along with others they cost less."""
    metric = metric_choice.for_parts_between_anchors(plan, records)
    wanted = () if metric is None else Known(plan, records, parts, metric).first(screen)
    return tuple(experiment for experiment in wanted if experiment not in records.values)


@dataclass
class _Examination(Known):
    runner: RunsExperiments
    direct: DirectEffects

    def effects(
        self, negatives: NegativeFinding | None, outside: Restorations | None, screen: Estimates | None
    ) -> CircuitEffects:
        self._run(self.first(screen))
        groups, components = (
            ablation_effects({part: self._without(part) for part in kind}, self.clean, self.anchor)
            for kind in (self.parts.ablated, tuple(self.parts.components))
        )
        silent = {one.part for one in components if one.is_silent}
        besides = self._besides([*silent, *(part for part in self.parts.groups if part.declared == "backup")])
        rises = self._rises(silent)
        unknown, knockouts, backups = "", list[Knockout](), list[BackupCheck]()
        try:
            knockouts, backups = self._knockouts()
        except CircuitspecError as error:
            if not {d.code for d in error.diagnostics} <= {"CS325", "CS326", "CS368", "CS371"}:
                raise
            unknown = error.diagnostics[0].message
            backups = [BackupCheck(part.name) for part in self.parts.groups if part.declared == "backup"]
        in_place = {part.name: one.name for part, one in besides.items() if part in self.parts.groups}
        found = CircuitEffects(
            self.metric,
            groups,
            tuple(
                replace(
                    one,
                    rise=rises.get(one.part),
                    besides=besides.get(one.part),
                    excused=any({one.part.name, *one.part.groups} & pair for pair in self._either()),
                )
                for one in components
            ),
            tuple(knockouts),
            tuple(replace(check, besides=in_place.get(check.group)) for check in backups),
            direct_unknown=unknown,
            untaken=len(self.parts.whole) - len(self.parts.components),
            within=self._within(groups, components),
            estimated=self.estimated(screen),
        )
        found = replace(found, joint=self._joint(found), **self._by_second(found))
        return replace(found, sets=self._sets(found, negatives, outside))

    def _joint(self, found: CircuitEffects) -> tuple[Ablated, ...]:
        """All that should hurt by estimate, ablated at once: in the model, and in the circuit alone."""
        doubtful = self.worth_running(found.estimated) if self.has_sets else ()
        if not doubtful or self._astray:
            return ()
        part = ExaminedPart(
            ", ".join(one.name for one in doubtful),
            "positive",
            tuple(dict.fromkeys(g for p in doubtful for g in p.groups)),
        )
        circuit, whole = self.plan.circuit, self.clean - self.anchor
        alone, without = (self.records[run][self.metric] for run in (circuit, self.circuit_without(*doubtful)))
        return (
            *ablation_effects({part: self._without(*doubtful)}, self.clean, self.anchor),
            *ablation_effects({part: without}, alone, self.anchor, whole=whole),
        )

    def _by_second(self, found: CircuitEffects) -> dict[str, Any]:
        """The same runs by the claimed metric, where that is not the one gone by here."""
        second = metric_choice.for_parts_as_claimed(self.plan, self.records)
        between = Anchors(self.plan.clean, self.plan.corrupt)
        if second in (None, self.metric) or gap(self.records, str(second), between).state != "sound":
            return {}
        clean, anchor = (self.records[run][second] for run in (self.plan.clean, self.plan.corrupt))
        taken = [[one.part for one in kind] for kind in (found.groups, found.components)]
        within = [one.part for one in found.within]
        alone = self.records[self.plan.circuit][second] if within else anchor  # where none is, it may not have been run
        return {
            "second": second,
            "by_second": tuple(
                one
                for parts in taken
                for one in ablation_effects(
                    {p: self.records[self.parts.without(p)][second] for p in parts}, clean, anchor
                )
            ),
            "within_by_second": ablation_effects(
                {p: self.records[self.circuit_without(p)][second] for p in within}, alone, anchor, whole=clean - anchor
            ),
        }

    # -- runs -------------------------------------------------------------------------------------

    def _run(self, labels: Mapping[Experiment, str]) -> None:
        wanted = [run for run in labels if run not in self.records.values]
        if wanted:
            self.records = self.records.merged(self.runner.run(wanted))
        self.plan = self.plan.naming(labels)

    def _without(self, *parts: ExaminedPart) -> Values:
        return self.records[self.parts.without(*parts)][self.metric]

    # -- parts that can be lost -------------------------------------------------------------------

    def _besides(self, wanted: Sequence[ExaminedPart]) -> dict[ExaminedPart, Besides]:
        """For each part what else must be lost for its own loss to cost most; nothing where it never costs more."""
        pairs = {part: list(self.parts.besides(part)) for part in wanted}
        if sum(map(len, pairs.values())) > PAIRS:
            pairs = {part: [one for one in others if one in self.parts.groups] for part, others in pairs.items()}
        if sum(map(len, pairs.values())) > PAIRS:
            pairs = {part: [] for part in wanted}
        runs: dict[ExaminedPart, dict[str, tuple[Experiment, Experiment]]] = {}  # without the other, and without both
        labels: dict[Experiment, str] = {}
        for part, others in pairs.items():
            runs[part] = {one.name: (self.parts.without(one), self.parts.without(one, part)) for one in others}
            labels |= {self.parts.without(one): f"{one.name} ablated" for one in others}
            circuit = self.plan.circuit
            if circuit.level == "node" and circuit.source is not None:
                runs[part][OUTSIDE] = (circuit, self.parts.within(circuit, part))
                labels[circuit] = "circuit"
            labels |= {both: f"{name} and {part.name} ablated" for name, (_, both) in runs[part].items()}
        self._run(labels)
        found = {}
        for part, tried in runs.items():
            measured = self.records
            values = [
                (name, measured[one][self.metric], measured[both][self.metric]) for name, (one, both) in tried.items()
            ]
            most = most_needed_besides(self._without(part), values, self.clean, self.anchor) if values else None
            if most is not None:
                found[part] = most
        return found

    def _rises(self, wanted: Collection[ExaminedPart]) -> dict[ExaminedPart, Estimate]:
        """What each of these components brings back alone, where all is corrupt."""
        if self.parts.corrupt is None or not wanted:
            return {}
        base = Experiment(self.parts.corrupt)
        runs = {part: run for part in wanted if (run := self.parts.alone(part)) is not None}
        self._run({base: "corrupt", **{run: f"{part.name} restored" for part, run in runs.items()}})
        if gap(self.records, self.metric, Anchors(self.plan.clean, base)).state != "sound":
            return {}
        corrupt = self.records[base][self.metric]
        return {
            part: stats.recovered(self.records[run][self.metric], corrupt, self.clean) for part, run in runs.items()
        }

    # -- backups ----------------------------------------------------------------------------------

    def _knockouts(self) -> tuple[list[Knockout], list[BackupCheck]]:
        """Who compensates for what is knocked out, and whether the declared backups do. Raises CS368 and CS371."""
        sections = dict(self.parts.knockable())
        backups = {part: own for part, own in self.parts.groups.items() if part.declared == "backup"}
        chosen: list[Knockable] = []
        runs: Mapping[Experiment, DirectRun] = {}
        experiments: dict[Knockable, Experiment] = {}
        clean, difference = self.plan.clean, float((self.clean - self.anchor).mean())
        neurons = [component for component in self.parts.whole if isinstance(component, Neuron)]
        if sections:
            all_out = self.parts.ablating(*sections.values())
            first = self.direct([all_out], self.metric, neurons)
            chosen = list(worth_knocking_out(list(sections), first[clean], first[all_out], difference))
            together = self._together(chosen, sections)
            if together is not None:
                sections |= {together[0]: together[1]}
                chosen.append(together[0])
        if chosen:
            experiments = {out: self.parts.ablating(sections[out]) for out in chosen}
            runs = self.direct(list(experiments.values()), self.metric, neurons)
        graph, either = self.parts.graph, self._either()
        found = [knockout(out, runs[clean], runs[run], graph, difference, either) for out, run in experiments.items()]
        taken_apart = {out: runs[run] for out, run in experiments.items()}
        checks = [
            declared_backup(part.name, own, runs[clean], taken_apart, difference) if runs else BackupCheck(part.name)
            for part, own in backups.items()
        ]
        return [one for one in found if one is not None], checks

    def _together(
        self, chosen: Sequence[Knockable], sections: Mapping[Knockable, Section]
    ) -> tuple[Knockable, Section] | None:
        """All the chosen groups that help, if there are several: a backup may wait until the last one fails."""
        negative = {part.name for part in self.parts.groups if part.declared == "negative"}
        groups = [out for out in chosen if out.name in out.groups and out.name not in negative]
        if len(groups) < 2:
            return None
        joined = frozenset[NodeComponent]().union(*(out.components for out in groups))
        names = frozenset(out.name for out in groups)
        run = self.parts.ablating(*(sections[out] for out in groups))
        return Knockable(", ".join(out.name for out in groups), joined, names), {
            site.component: site.where for site in run.sites
        }

    def _either(self) -> list[frozenset[str]]:
        """Pairs of which the hypothesis says that one does for the other."""
        said = (kind_of(planned).interchangeable(planned.claim) for planned in self.plan.claims)
        return [pair for pair in said if pair]

    # -- negatives --------------------------------------------------------------------------------

    def _within(self, *kinds: Sequence[Ablated]) -> tuple[Ablated, ...]:
        """Parts ablated in the circuit alone, which is how CS401 finds negative components.

        These are groups declared negative that do not hurt in the model, and where all is looked at every part that
        does: it may be the ablation of something else that it stands against there. Significance is over all parts of
        the kind, of which these were picked.
        """
        circuit = self.plan.circuit
        chosen = [[one.part for one in kind if self._to_see_within(one)] for kind in kinds]
        if not any(chosen) or circuit.level == "path" or circuit.source is None:
            return ()
        runs = {part: self.circuit_without(part) for picked in chosen for part in picked}
        self._run({circuit: "circuit", **{run: f"circuit without {part.name}" for part, run in runs.items()}})
        alone = self.records[circuit][self.metric]
        if stats.mean_difference(alone, self.anchor).may_be(0.0) or self._astray:
            return ()
        return tuple(
            one
            for kind, picked in zip(kinds, chosen, strict=True)
            for one in ablation_effects(
                {part: self.records[runs[part]][self.metric] for part in picked},
                alone,
                self.anchor,
                among=len(kind),
                whole=self.clean - self.anchor,
            )
        )

    @property
    def _astray(self) -> bool:
        """Whether the circuit alone is out of all range, so that nothing that changes in it says anything."""
        circuit, between = self.plan.circuit, Anchors(self.plan.clean, self.plan.corrupt)
        return circuit in self.records.values and bool(run_out_of_range(circuit, self.records, self.metric, between))

    def _to_see_within(self, one: Ablated) -> bool:
        if one.sign == "hurts":
            return self.parts.thorough
        return one.part.declared == "negative" and one.part in self.parts.groups

    def _sets(
        self, effects: CircuitEffects, negatives: NegativeFinding | None, outside: Restorations | None
    ) -> tuple[SetScore, ...]:
        """The circuit alone as declared, with all negatives in, and with all out; none where there are no negatives.

        Those that hurt by estimate alone are taken out apart from the others.
        """
        circuit = self.plan.circuit
        if not self.has_sets or self._astray:
            return ()
        found = {c.component for c in (() if negatives is None else negatives.components)}
        left_out = frozenset(c for c in (() if outside is None else outside.components) if format_name(c) in found)
        hurting = [part for part in self.parts.groups if part.declared == "negative"]
        hurting += [one.part for one in effects.within if one.sign == "hurts" and one.part in self.parts.components]
        out = list(dict.fromkeys(c for part in hurting for c in self.parts.section(part)))
        doubtful = self.worth_running(effects.estimated)
        if not left_out and not out and not doubtful:
            return ()
        sets: list[tuple[str, Experiment, Collection[NodeComponent]]] = [("as declared", circuit, ())]
        if left_out and outside is not None:
            sets.append((NEGATIVES_IN, outside.with_back(left_out), left_out))
        if out:
            sets.append((NEGATIVES_OUT, self.circuit_without(*hurting), out))
        if doubtful:
            members = list(dict.fromkeys(c for part in doubtful for c in self.parts.section(part)))
            sets.append((ESTIMATED_OUT, self.circuit_without(*doubtful), members))
        self._run({run: f"circuit, {name}" for name, run, _ in sets})
        return tuple(self._score(run, name, changed) for name, run, changed in sets)

    def _score(self, run: Experiment, name: str, changed: Collection[NodeComponent]) -> SetScore:
        values = self.records[run]
        recovered = stats.recovered(values[self.metric], self.anchor, self.clean)
        by_kl = None
        between = Anchors(self.plan.clean, self.plan.corrupt)
        if "kl" in values and gap(self.records, "kl", between).state == "sound":
            by_kl = stats.recovered(*(self.records[one]["kl"] for one in (run, self.plan.corrupt, self.plan.clean)))
        kl = mean_of(values["kl"]) if "kl" in values else None
        return SetScore(name, tuple(sorted(map(format_name, changed))), recovered, kl, by_kl)


def examination_passes(graph: CircuitGraph, ablation: AblationSpec) -> int:
    """The most passes over all prompts that a look at the circuit's own parts takes, where not all are asked for."""
    parts = CircuitParts.of(graph, ablation)
    single = len(parts.ablated) + len(parts.components)
    direct = 5 + KNOCKED_OUT + 1 if parts.knockable() else 0
    beside = min(PAIRS, (len(parts.components) + 1) * (len(parts.groups) + len(parts.components)))
    backups = any(part.declared == "backup" for part in parts.groups)
    lost = len(parts.components) + (beside if parts.components or backups else 0)
    looked_at = len(parts.ablated) + len(parts.components)
    within = 1 + (looked_at if parts.thorough else sum(part.declared == "negative" for part in parts.groups))
    return single + lost + within + 5 + direct
