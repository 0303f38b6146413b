"""Backup behaviour: components whose direct effect on the answer grows when others are knocked out.

Wang et al. (2022) call them backup heads, McGrath et al. (2023) the Hydra effect: what is knocked out looks less
important than it is, because others compensate for it. A component's *direct effect* is what it adds to the metric by
itself (`engine.attribution.direct_logit_attribution`); the *total effect* of a knockout is what the metric loses. The
share compensated is

    (direct effect knocked out - total effect) / direct effect knocked out,

a ratio of means over prompts. It is 0 where nothing reacts, and 0.7 in the Hydra paper (in the words of Heimersheim &
Nanda 2024, section 3.2: a component that adds X is compensated by 0.7 X). It counts the final norm's own reaction;
what components alone compensate for is the growth of their direct effects, as a share of the direct effect knocked
out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from circuitspec.analysis.statistics import stats
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.scores import MATERIAL
from circuitspec.analysis.statistics.stats import Values
from circuitspec.engine.attribution.direct_contributions import DirectRun, Part
from circuitspec.graph.circuit_graph import CircuitGraph
from circuitspec.graph.nodes import NodeComponent
from circuitspec.graph.paths import reaches
from circuitspec.hypothesis_file.grammar.components import Input, sort_key
from circuitspec.hypothesis_file.grammar.names import format_name

SIGNIFICANT = 0.05  # false discovery rate over all components that the knockout can reach
DIRECT = 0.05  # of clean - corrupt: direct effects below it are not worth a run of their own
NAMED = 0.05  # of the direct effect knocked out: growth below it is not named
COMPENSATED = 0.2  # of the direct effect knocked out: what undeclared components compensate for beyond it is warned of
KNOCKED_OUT = 8  # knockouts at most, those of the largest direct effects: one forward each

Standing: TypeAlias = Literal["backup", "in the circuit", "free", "outside the circuit"]
"""What the hypothesis says of a component; `backup` is also a component declared negative, or under an OR gate."""


@dataclass(frozen=True)
class Knockable:
    """What may be knocked out together: a group of the circuit, some of them, or one component."""

    name: str
    components: frozenset[NodeComponent]
    groups: frozenset[str]  # of the circuit, in which the components are


@dataclass(frozen=True)
class Compensator:
    """A component whose direct effect grew, by `growth` (in the metric's units), a `share` of what was knocked out."""

    component: str
    standing: Standing
    growth: float
    share: float
    p_adjusted: float


@dataclass(frozen=True)
class Knockout:
    """What was knocked out in the clean run, and who compensated for it.

    `direct` and `total` are in the metric's units, `compensated` the share defined above, `by_components` the share
    that the named components compensate for (None where none is named). `reached` components could have reacted.
    """

    name: str
    direct: float
    total: Estimate
    compensated: Estimate
    by_components: Estimate | None
    compensators: tuple[Compensator, ...]
    reached: int


def direct_effect(components: Collection[NodeComponent], clean: DirectRun, run: DirectRun) -> Values:
    """What these components add to the metric in the clean run and not in `run`, in which they are patched, `[prompt]`.

    Only what is patched at the answer itself counts: elsewhere a component acts through others alone.
    """
    lost = np.zeros_like(clean.metric)
    for part, where in run.patched.items():
        if part in components:
            lost += np.where(where, clean.effects[part] - run.effects[part], 0.0)
    return lost


def growth(part: Part, clean: DirectRun, run: DirectRun) -> Values:
    """How much more the part adds to the metric than in the clean run, by itself: 0 where it is patched, `[prompt]`."""
    change = run.effects[part] - clean.effects[part]
    return np.where(run.patched[part], 0.0, change) if part in run.patched else change


def worth_knocking_out(
    candidates: Sequence[Knockable], clean: DirectRun, all_out: DirectRun, difference: float
) -> tuple[Knockable, ...]:
    """The candidates with a direct effect that is there and not small, of these the `KNOCKED_OUT` largest.

    `all_out` is the run with all of them knocked out, `difference` the metric's mean in the clean run less the corrupt.
    """
    found = []
    for candidate in candidates:
        lost = direct_effect(candidate.components, clean, all_out)
        if abs(lost.mean()) >= DIRECT * abs(difference) and not stats.mean(lost).may_be(0.0):
            found.append((abs(float(lost.mean())), candidate))
    found.sort(key=lambda pair: -pair[0])
    largest = {candidate for _, candidate in found[:KNOCKED_OUT]}
    return tuple(candidate for candidate in candidates if candidate in largest)


def knockout(
    out: Knockable,
    clean: DirectRun,
    run: DirectRun,
    graph: CircuitGraph,
    difference: float,
    either: Collection[frozenset[str]] = (),
) -> Knockout | None:
    """Who compensates for what is knocked out in `run`; None where its direct effect there is no effect at all.

    A component is named where its direct effect grows, in the direction of what was lost, significantly (one-sided
    paired test, Benjamini-Hochberg over all components that come after one of those knocked out) and materially.
    `either` are pairs of groups or components of which the hypothesis says that one does for the other.
    """
    lost = direct_effect(out.components, clean, run)
    if len(lost) < 2 or not lost.mean():
        return None
    sign = float(np.sign(lost.mean()))
    reached = [part for part in clean.effects if part != Input() and _reached(part, out.components, run)]
    growths = {part: sign * growth(part, clean, run) for part in reached}
    adjusted = stats.adjust([stats.lowers(-growths[part]).p_value for part in reached], len(reached))
    least = max(NAMED * abs(float(lost.mean())), MATERIAL * abs(difference))
    named = [
        (part, p)
        for part, p in zip(reached, adjusted, strict=True)
        if p <= SIGNIFICANT and float(growths[part].mean()) >= least
    ]
    named.sort(key=lambda pair: (-float(growths[pair[0]].mean()), sort_key(pair[0])))
    total = clean.metric - run.metric
    nothing = np.zeros_like(lost)
    compensated = sum((growths[part] for part, _ in named), nothing)
    return Knockout(
        out.name,
        float(lost.mean()),
        stats.mean(total),
        stats.recovered(lost - total, nothing, lost),
        stats.recovered(sign * compensated, nothing, lost) if named else None,
        tuple(
            Compensator(
                format_name(part),
                standing(part, out, graph, either),
                sign * float(growths[part].mean()),
                float(growths[part].mean()) / abs(float(lost.mean())),
                p,
            )
            for part, p in named
        ),
        len(reached),
    )


@dataclass(frozen=True)
class BackupCheck:
    """A group declared as backup: under which knockout its direct effect grows most, and by how much.

    `growth` is in the metric's units, in the direction of what was lost, and `p_adjusted` over all knockouts tried;
    `grows` says whether that is significant and material. `besides` is a group besides whose loss that of the backup
    matters more than it does alone, whatever it acts through. All are None where there was nothing to try.
    """

    group: str
    knocked_out: str | None = None
    growth: Estimate | None = None
    p_adjusted: float | None = None
    grows: bool = False
    besides: str | None = None

    @property
    def holds(self) -> bool:
        return self.grows or self.besides is not None


def declared_backup(
    group: str,
    components: Collection[NodeComponent],
    clean: DirectRun,
    runs: Mapping[Knockable, DirectRun],
    difference: float,
) -> BackupCheck:
    """Whether the direct effect of a declared backup grows under one of the knockouts (one-sided paired tests)."""
    tried = []
    for out, run in runs.items():
        own = [part for part in clean.effects if part in components and part not in out.components]
        lost = direct_effect(out.components, clean, run)
        if own and lost.mean():
            grown = np.sign(lost.mean()) * sum((growth(part, clean, run) for part in own), np.zeros_like(lost))
            tried.append((out.name, grown))
    if not tried:
        return BackupCheck(group)
    adjusted = stats.adjust([stats.lowers(-grown).p_value for _, grown in tried], len(tried))
    most = max(range(len(tried)), key=lambda i: (adjusted[i] <= SIGNIFICANT, float(tried[i][1].mean())))
    name, grown = tried[most]
    grows = adjusted[most] <= SIGNIFICANT and float(grown.mean()) >= MATERIAL * abs(difference)
    return BackupCheck(group, name, stats.mean(grown), adjusted[most], grows)


def standing(part: Part, out: Knockable, graph: CircuitGraph, either: Collection[frozenset[str]] = ()) -> Standing:
    """What the hypothesis says of a component that compensates for others."""
    own = [member for member in graph.members if member.component == part]
    if any(member.effect in ("backup", "negative") for member in own):
        return "backup"
    names = {format_name(part), *(member.group for member in own)}
    others = {out.name, *out.groups, *(format_name(component) for component in out.components)}
    if any(one in names and pair - {one} <= others for pair in either for one in pair):
        return "backup"
    if own:
        return "in the circuit"
    return "free" if graph.freed(part) is not None else "outside the circuit"


def _reached(part: Part, components: Collection[NodeComponent], run: DirectRun) -> bool:
    everywhere = part in run.patched and bool(run.patched[part].all())
    return not everywhere and part not in components and any(reaches(component, part) for component in components)
