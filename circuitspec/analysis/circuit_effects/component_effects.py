"""What the parts of a declared circuit do by themselves, and whether that is what the hypothesis says they do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from circuitspec.analysis.circuit_effects.backup_behaviour import BackupCheck, Knockout
from circuitspec.analysis.statistics import stats
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.scores import MATERIAL
from circuitspec.analysis.statistics.stats import Values
from circuitspec.graph.members import Effect

SIGNIFICANT = 0.05  # false discovery rate over all groups, and over all components

Sign = Literal["helps", "hurts", "neither"]
Note = Literal["", "negative", "ablating it raises the metric", "none shown"]


@dataclass(frozen=True)
class ExaminedPart:
    """A group of the circuit, or a component of it; `declared` is what the hypothesis says it does.

    A component may play several roles: it is declared negative, or backup, where all of them are.
    """

    name: str
    declared: Effect
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Besides:
    """What else must be lost for the loss of a part to cost more than it does alone, and how much more (as a share)."""

    name: str
    further: Estimate


@dataclass(frozen=True)
class Ablated:
    """A part of the circuit ablated alone in the clean run, at its declared positions.

    `effect` is the mean change of the metric in its own units, `drop` what is lost as a share of clean - corrupt;
    `p_adjusted` is two-sided, of no effect, after correction over all parts of its kind. For components whose loss
    changes nothing, `rise` is what the component restored alone brings back, and `besides` the part besides whose loss
    its own costs most; both None where nothing was looked for or found.
    """

    part: ExaminedPart
    effect: float
    drop: Estimate
    p_adjusted: float
    rise: Estimate | None = None
    besides: Besides | None = None
    excused: bool = False  # the hypothesis says that another part does for it

    @property
    def sign(self) -> Sign:
        """What ablation shows: significantly, and by more than a hundredth of clean - corrupt."""
        if self.p_adjusted > SIGNIFICANT or abs(self.drop.value) < MATERIAL:
            return "neither"
        return "helps" if self.drop.value > 0 else "hurts"

    @property
    def is_doubtful(self) -> bool:
        """Whether it hurts, and the hypothesis does not say so."""
        return self.sign == "hurts" and self.part.declared == "positive"

    @property
    def is_silent(self) -> bool:
        """Whether ablating it surely changes next to nothing."""
        return surely_small(self.drop)


@dataclass(frozen=True)
class SetScore:
    """The circuit with its negative components as declared, all in, or all out; `kl` in nats, None where not measured.

    `negatives` are those that the set was changed by: components outside the circuit that CS401 names, put in, or
    groups declared negative and components that hurt in the circuit alone, taken out.
    """

    name: str
    negatives: tuple[str, ...]
    recovered: Estimate
    kl: float | None
    recovered_kl: Estimate | None


@dataclass(frozen=True)
class CircuitEffects:
    """The declared circuit part by part, by one metric that is linear in the logits.

    `direct_unknown` says why direct effects, and with them backups, were not looked at, and is empty where they were;
    `untaken` components were not ablated one by one, since there are many. `within` are parts ablated in the circuit
    alone, with everything outside it ablated too: groups declared negative that do not hurt in the model as a whole,
    and, where all parts were looked at, those that do; their `drop` is a share of clean - corrupt as well.
    `estimated` are the untaken components, ablated in the circuit alone to first order (none without a screen), and
    `joint` those of them that should hurt, all ablated at once, in the model and in the circuit alone (empty where
    their estimates come to little). By the claimed `second` metric, where that is another, `by_second` are the groups
    and components ablated in the clean run, `within_by_second` in the circuit alone.
    """

    metric: str
    groups: tuple[Ablated, ...]
    components: tuple[Ablated, ...]
    knockouts: tuple[Knockout, ...] = ()
    backups: tuple[BackupCheck, ...] = ()
    sets: tuple[SetScore, ...] = ()
    direct_unknown: str = ""
    untaken: int = 0
    within: tuple[Ablated, ...] = ()
    estimated: tuple[Ablated, ...] = ()
    joint: tuple[Ablated, ...] = ()
    second: str = ""
    by_second: tuple[Ablated, ...] = ()
    within_by_second: tuple[Ablated, ...] = ()

    def hurts_by_second(self, part: ExaminedPart) -> bool:
        """Whether ablating the part raises the claimed metric, in the model or in the circuit alone."""
        return any(one.part == part and one.sign == "hurts" for one in (*self.by_second, *self.within_by_second))

    def acts_by_second(self, part: ExaminedPart) -> bool:
        """Whether the part's loss may change the claimed metric, though it does not change the one gone by here."""
        return any(one.part == part and not one.is_silent for one in self.by_second)

    def helps_by_second(self, part: ExaminedPart) -> bool:
        """Whether the part's loss lowers the claimed metric in the model."""
        return any(one.part == part and one.sign == "helps" for one in self.by_second)

    @property
    def doubtful(self) -> tuple[Ablated, ...]:
        """Components that by their estimates are negative in the circuit, and not declared so."""
        return tuple(one for one in self.estimated if one.is_doubtful)

    def in_circuit(self, one: Ablated) -> Ablated | None:
        """The same part ablated in the circuit alone; None where that was not run."""
        return next((alone for alone in self.within if alone.part == one.part), None)

    def is_negative(self, one: Ablated) -> bool:
        """Whether ablating the part raises the metric in the model as a whole and in the circuit alone."""
        alone = self.in_circuit(one)
        return one.sign == "hurts" and alone is not None and alone.sign == "hurts"

    @property
    def standing_in(self) -> frozenset[str]:
        """The components that do nothing by themselves and were seen, or are claimed, to act where others are lost."""
        compensators = {c.component for out in self.knockouts for c in out.compensators}
        silent = [one for one in self.components if one.is_silent]
        return frozenset(compensators | {one.part.name for one in silent if one.besides or one.excused})

    def note(self, one: Ablated) -> Note:
        """What a table says of the part: that it is negative only where both runs show it."""
        if one.sign == "hurts":
            return "negative" if self.is_negative(one) else "ablating it raises the metric"
        return "" if one.sign == "helps" else "none shown"


def surely_small(estimate: Estimate) -> bool:
    """Whether the whole interval is closer to zero than `MATERIAL`."""
    return estimate.interval is not None and all(abs(end) < MATERIAL for end in estimate.interval)


def ablation_effects(
    runs: Mapping[ExaminedPart, Values],
    clean: Values,
    corrupt: Values,
    *,
    among: int | None = None,
    whole: Values | None = None,
) -> tuple[Ablated, ...]:
    """The effect of ablating each part, from the metric in the run without it, `[prompt]`, and in both anchors.

    More of the metric is better. Significance as `two_sided` has it, over all the parts, or over the `among` of which
    these were picked. `whole` is what a drop is a share of, `[prompt]`: clean - corrupt unless given.
    """
    adjusted = two_sided([run - clean for run in runs.values()], among)

    def drop(run: Values) -> Estimate:
        if whole is None:
            return stats.recovered(run, clean, corrupt)
        return stats.recovered(clean - run, np.zeros_like(whole), whole)

    return tuple(
        Ablated(part, float((run - clean).mean()), drop(run), p)
        for (part, run), p in zip(runs.items(), adjusted, strict=True)
    )


def two_sided(changes: Sequence[Values], among: int | None = None) -> tuple[float, ...]:
    """P-values that each of several paired changes, `[prompt]`, is no change in the mean: twice the smaller of the
    one-sided ones (`stats.lowers`), Benjamini-Hochberg over all of them, or over `among` of which they were picked."""
    tests = [(stats.lowers(change).p_value, stats.lowers(-change).p_value) for change in changes]
    return stats.adjust([min(1.0, 2 * min(pair)) for pair in tests], len(tests) if among is None else among)


def most_needed_besides(
    without: Values, others: Sequence[tuple[str, Values, Values]], clean: Values, corrupt: Values
) -> Besides | None:
    """The one of `others` besides whose loss that of a part matters most; None where it matters besides none.

    `without` is the metric without the part, `[prompt]`; each of `others` a name, the metric without it, and the
    metric without it and the part. The further loss that the part then makes is compared with what its loss alone
    makes: it matters where it is larger, significantly (Benjamini-Hochberg over all `others`) and by more
    than `MATERIAL` of clean - corrupt.
    """
    further = [(name, (alone - both) - (clean - without)) for name, alone, both in others]
    adjusted = stats.adjust([stats.lowers(-more).p_value for _, more in further], len(further))
    whole = float((clean - corrupt).mean())
    mattering = [
        (float(more.mean()) / whole, name, more)
        for (name, more), p in zip(further, adjusted, strict=True)
        if p <= SIGNIFICANT and float(more.mean()) / whole >= MATERIAL
    ]
    if not mattering:
        return None
    _, name, more = max(mattering, key=lambda one: one[0])
    return Besides(name, stats.recovered(more, np.zeros_like(more), clean - corrupt))
