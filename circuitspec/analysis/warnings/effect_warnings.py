"""Warnings about the parts of a declared circuit: idle ones, backups, and declared effects that are not found."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from circuitspec.analysis.circuit_effects.backup_behaviour import COMPENSATED, NAMED, Compensator, Knockout, Standing
from circuitspec.analysis.circuit_effects.component_effects import Ablated, CircuitEffects, surely_small
from circuitspec.analysis.circuit_effects.effects_so_far import AGAINST
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.plain_data import estimate_data
from circuitspec.analysis.statistics.scores import MATERIAL
from circuitspec.analysis.statistics.wording import number, with_interval
from circuitspec.analysis.warnings.evidence_warnings import EvidenceWarning

REDUNDANT = 0.05  # of clean less corrupt: what a component that can be lost must do elsewhere to be called redundant
_NAMED = 8  # components named in a message; all of them are in the data
_TOLD = 3  # of them with their figures in a detail, which is one paragraph

_UNDECLARED: tuple[Standing, ...] = ("in the circuit", "free")


def effect_warnings(found: CircuitEffects | None, kept: Collection[str] = ()) -> tuple[EvidenceWarning, ...]:
    """CS415, CS426 to CS429 and CS433, in order of code.

    `kept` are slots that the ablation's corruption leaves as they are: components that carry these are given clean
    values, so that nothing is idle for certain (CS422 speaks of that).
    """
    if found is None:
        return ()
    return (
        *(() if kept else idle_components(found)),
        *backups_suspected(found),
        *redundant_components(found),
        *compensated_from_outside(found),
        *negatives_that_are_none(found),
        *backups_that_are_none(found),
        *undeclared_negatives(found),
    )


def idle_components(found: CircuitEffects) -> list[EvidenceWarning]:
    """CS415: declared components that make no difference, ablated or restored, alone or besides other parts."""
    acting = {c.component for out in found.knockouts for c in out.compensators}
    idle = [
        one
        for one in _declared_to_help(found.components)
        if one.is_silent
        and one.besides is None
        and (one.rise is None or surely_small(one.rise))
        and one.part.name not in acting
        and not found.acts_by_second(one.part)
    ]
    if not idle:
        return []
    bounds = (-MATERIAL, MATERIAL)
    said = "; ".join(
        f"{one.part.name}: ablated, {found.metric} falls by {with_interval(one.drop, bounds)} of clean less corrupt"
        + ("" if one.rise is None else f"; restored, it brings back {with_interval(one.rise, bounds)}")
        for one in idle[:_TOLD]
    )
    return [
        EvidenceWarning(
            "CS415",
            f"declared components make no difference: {_listed(one.part.name for one in idle)}",
            f"{said}{_beyond(idle)}; nor do they matter where another part of the circuit, or all outside it, is "
            "ablated",
            "take them out of the circuit, or say by which prompts or which metric they can be seen to act",
            {"metric": found.metric, "components": [_ablated(one) for one in idle]},
        )
    ]


def backups_suspected(found: CircuitEffects) -> list[EvidenceWarning]:
    """CS426: the total effect is smaller than the direct one, since parts of the circuit, or free ones, make up."""
    return [
        EvidenceWarning(
            "CS426",
            f"backup suspected: {_made_up(out, by)}",
            _knocked_out(out, found.metric),
            "declare them with `effect: backup`, or claim `gate: {nodes: [A, B], is: or, ...}`: by itself either looks "
            "less important than it is",
            _data(out, by, found.metric),
        )
        for out, by in _news(found.knockouts, _UNDECLARED)
    ]


def redundant_components(found: CircuitEffects) -> list[EvidenceWarning]:
    """CS426: declared components whose loss changes nothing, while alone they restore, or others are lost, they act."""
    named = {c.component for out in found.knockouts for c in out.compensators}
    redundant = [
        one
        for one in _declared_to_help(found.components)
        if one.is_silent and not one.excused and one.part.name not in named and _acts_elsewhere(one)
    ]
    if not redundant:
        return []
    said = []
    for one in redundant[:_TOLD]:
        parts = [] if one.rise is None else [f"restored alone it brings back {with_interval(one.rise)}"]
        if one.besides is not None:
            further = with_interval(one.besides.further)
            parts.append(f"with {one.besides.name} ablated, its loss costs {further} more")
        said.append(f"{one.part.name}: ablated alone it costs {with_interval(one.drop)}, {', '.join(parts)}")
    return [
        EvidenceWarning(
            "CS426",
            f"backup suspected: something makes up for the loss of {_listed(one.part.name for one in redundant)}",
            f"shares of clean less corrupt by {found.metric}; {'; '.join(said)}{_beyond(redundant)}",
            "say so: `gate: {nodes: [A, B], is: or, ...}`, or `effect: backup` for the one that only stands in",
            {"metric": found.metric, "components": [_ablated(one) for one in redundant]},
        )
    ]


def compensated_from_outside(found: CircuitEffects) -> list[EvidenceWarning]:
    """CS427: components outside the circuit make up for parts of it."""
    return [
        EvidenceWarning(
            "CS427",
            f"components outside the circuit make up for parts of it: {_made_up(out, by)}",
            _knocked_out(out, found.metric),
            "add them to a group with `effect: backup`: without them the circuit looks less necessary than it is",
            _data(out, by, found.metric),
        )
        for out, by in _news(found.knockouts, ("outside the circuit",))
    ]


def negatives_that_are_none(found: CircuitEffects) -> list[EvidenceWarning]:
    """CS428: groups declared negative whose loss raises the metric neither in the model nor in the circuit alone."""
    within = {one.part.name: one for one in found.within}
    warnings = []
    for one in found.groups:
        alone = within.get(one.part.name)
        if one.part.declared != "negative" or one.sign == "hurts" or (alone is not None and alone.sign == "hurts"):
            continue
        if found.hurts_by_second(one.part):
            continue
        said = "helps" if one.sign == "helps" else "makes no difference that could be shown"
        in_circuit = "" if alone is None else f"; in the circuit alone by {number(alone.effect)}"
        warnings.append(
            EvidenceWarning(
                "CS428",
                f"`{one.part.name}` is declared `effect: negative`, and it {said}",
                _ablating(one, found.metric) + in_circuit,
                "take `effect: negative` off, or take the group out; a negative component's loss must raise the metric",
                {
                    "metric": found.metric,
                    "group": one.part.name,
                    **_ablated(one),
                    "in_circuit": None if alone is None else _ablated(alone),
                },
            )
        )
    return warnings


def backups_that_are_none(found: CircuitEffects) -> list[EvidenceWarning]:
    """CS429: groups declared backup that do no more when others are knocked out."""
    warnings = []
    for check in found.backups:
        if check.holds:
            continue
        if found.direct_unknown:
            why = f"direct effects are not known here: {found.direct_unknown}"
        elif check.growth is None:
            why = "no other group has a direct effect on the answer that could be knocked out"
        else:
            why = (
                f"where its direct effect on {found.metric} grows most, with {check.knocked_out} knocked out, it grows "
                f"by {with_interval(check.growth, (0.0,))}"
            )
        warnings.append(
            EvidenceWarning(
                "CS429",
                f"`{check.group}` is declared `effect: backup`, and it was not seen to take over",
                f"{why}; nor does its own loss matter more where another group is ablated",
                "take `effect: backup` off, or declare what it backs up",
                {
                    "metric": found.metric,
                    "group": check.group,
                    "knocked_out": check.knocked_out,
                    "growth": None if check.growth is None else estimate_data(check.growth),
                    "p_adjusted": check.p_adjusted,
                },
            )
        )
    return warnings


def undeclared_negatives(found: CircuitEffects) -> list[EvidenceWarning]:
    """CS433: parts that are declared to help, whose loss raises the metric in the model and in the circuit alone.

    Groups are named where none of their components is. A component that also plays a role declared negative is left to
    its groups.
    """
    negative = {one.part.name for one in found.groups if one.part.declared == "negative"}
    components = [
        one for one in found.components if _turned_against(one, found) and negative.isdisjoint(one.part.groups)
    ]
    roles = {group for one in components for group in one.part.groups}
    groups = [one for one in found.groups if _turned_against(one, found) and one.part.name not in roles]
    against = [(one, alone) for one in (*groups, *components) if (alone := found.in_circuit(one)) is not None]
    names = [
        f"{one.part.name} ({', '.join(one.part.groups)})" if one in components else f"`{one.part.name}` as a whole"
        for one, _ in against
    ]
    if found.joint and all(one.sign == "hurts" and one.drop.value <= -AGAINST for one in found.joint):
        against.append((found.joint[0], found.joint[1]))
        names.append(f"{found.joint[0].part.name} together")
    if not against:
        return []
    said = "; ".join(
        f"{one.part.name}: by {number(one.effect)} in the model, {with_interval(_rise(one.drop))} of clean less "
        f"corrupt, and by {number(alone.effect)} in the circuit alone, {with_interval(_rise(alone.drop))}"
        for one, alone in against[:_TOLD]
    )
    return [
        EvidenceWarning(
            "CS433",
            f"parts of the circuit work against the behaviour, and are not declared to: {_listed(names)}",
            f"ablating them raises {found.metric}; {said}{_beyond(against)}",
            "declare them in a group of their own with `effect: negative`, or explain what they are in the circuit for",
            {
                "metric": found.metric,
                "parts": [{**_ablated(one), "in_circuit": _ablated(alone)} for one, alone in against],
            },
        )
    ]


def _turned_against(one: Ablated, found: CircuitEffects) -> bool:
    alone = found.in_circuit(one)
    return (
        one.part.declared == "positive"
        and alone is not None
        and found.works_against(one)
        and max(one.drop.value, alone.drop.value) <= -AGAINST
        and not found.helps_by_second(one.part)
    )


def _rise(drop: Estimate) -> Estimate:
    """The same the other way round."""
    low, high = (None if end is None else -end for end in (drop.high, drop.low))
    return replace(drop, value=-drop.value, low=low, high=high)


def _declared_to_help(components: Iterable[Ablated]) -> list[Ablated]:
    return [one for one in components if one.part.declared == "positive"]


def _acts_elsewhere(one: Ablated) -> bool:
    """Whether a component does much alone, or where something else is lost."""
    found = [one.rise, None if one.besides is None else one.besides.further]
    return any(estimate is not None and estimate.low is not None and estimate.low >= REDUNDANT for estimate in found)


def _news(knockouts: Sequence[Knockout], standings: tuple[Standing, ...]) -> list[tuple[Knockout, list[Compensator]]]:
    """The knockouts for which components that are not declared to make up do, and those of these standings among them
    with a share of their own, as far as no earlier knockout has named them all.

    Within the circuit, only where the total effect is small beside the direct one: what follows from a loss may
    otherwise outweigh what makes up for it. Where the score rises by as much as was lost nobody makes up: the loss set
    something free.
    """
    found, named = [], set[str]()
    for out in knockouts:
        lost = out.total.value / out.direct  # the total effect as a share of the direct one
        if lost < COMPENSATED - 1 or (lost > 1 - COMPENSATED and standings == _UNDECLARED):
            continue
        undeclared = sum(c.share for c in out.compensators if c.standing != "backup")
        by = [c for c in out.compensators if c.standing in standings]
        own = sum(c.share for c in by)
        if undeclared >= COMPENSATED and own >= NAMED and not {c.component for c in by} <= named:
            found.append((out, by))
            named |= {c.component for c in by}
    return found


def _made_up(out: Knockout, by: Sequence[Compensator]) -> str:
    said = [f"{c.component} ({number(c.share)}{', free' if c.standing == 'free' else ''})" for c in by[:_NAMED]]
    more = f" and {len(by) - _NAMED} more" if len(by) > _NAMED else ""
    return f"without {out.name}, {', '.join(said)}{more} of its direct effect"


def _knocked_out(out: Knockout, metric: str) -> str:
    share = "" if out.by_components is None else f", {with_interval(out.by_components)} by components that add more"
    return (
        f"direct effect of {out.name} on {metric} {number(out.direct)}, total effect "
        f"{with_interval(out.total, (0.0,))}: {with_interval(out.compensated)} of it is made up for{share}"
    )


def _ablating(one: Ablated, metric: str) -> str:
    return (
        f"ablating it changes {metric} by {number(one.effect)}, a loss of {with_interval(one.drop, (0.0,))} of clean "
        f"less corrupt (p = {one.p_adjusted:.2g})"
    )


def _beyond(parts: Sequence[object]) -> str:
    """How many parts a detail does not tell the figures of."""
    return f"; and {len(parts) - _TOLD} more" if len(parts) > _TOLD else ""


def _listed(names: Iterable[str]) -> str:
    known = list(names)
    return ", ".join(known[:_NAMED]) + (f" and {len(known) - _NAMED} more" if len(known) > _NAMED else "")


def _ablated(one: Ablated) -> dict[str, object]:
    return {
        "name": one.part.name,
        "effect": one.effect,
        "drop": estimate_data(one.drop),
        "p_adjusted": one.p_adjusted,
        "rise": None if one.rise is None else estimate_data(one.rise),
        "besides": None if one.besides is None else one.besides.name,
        "drop_besides": None if one.besides is None else estimate_data(one.besides.further),
    }


def _data(out: Knockout, by: Sequence[Compensator], metric: str) -> dict[str, object]:
    return {
        "metric": metric,
        "knocked_out": out.name,
        "direct": out.direct,
        "total": estimate_data(out.total),
        "compensated": estimate_data(out.compensated),
        "by_components": None if out.by_components is None else estimate_data(out.by_components),
        "components": [
            {
                "component": c.component,
                "standing": c.standing,
                "growth": c.growth,
                "share": c.share,
                "p_adjusted": c.p_adjusted,
            }
            for c in by
        ],
    }
