"""Warnings about the parts of a declared circuit: idle ones, backups, and declared effects that are not found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from circuitspec.analysis.circuit_effects.backup_behaviour import COMPENSATED, NAMED, Compensator, Knockout, Standing
from circuitspec.analysis.circuit_effects.component_effects import Ablated, CircuitEffects, surely_small
from circuitspec.analysis.circuit_effects.effects_so_far import CALLED_NEGATIVE
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.plain_data import estimate_data
from circuitspec.analysis.statistics.scores import MATERIAL
from circuitspec.analysis.statistics.wording import number, with_interval
from circuitspec.analysis.warnings.evidence import Evidence, EvidenceWarning, WarningKind

REDUNDANT = 0.05  # of clean - corrupt: what a component that can be lost must do elsewhere to be called redundant
_NAMED = 8  # components named in a message; all of them are in the data
_TOLD = 3  # of them with their figures in a detail, which is one paragraph

_UNDECLARED: tuple[Standing, ...] = ("in the circuit", "free")


def idle_components(evidence: Evidence) -> list[EvidenceWarning]:
    """CS415: declared components that make no difference, ablated or restored, alone or besides other parts.

    None where the ablation's corruption leaves slots as they are: components that carry these are given clean values,
    so that nothing is idle for certain (CS422 speaks of that).
    """
    found = evidence.effects
    if found is None or evidence.kept:
        return []
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
        f"{one.part.name}: ablated, {found.metric} falls by {with_interval(one.drop, bounds)} of clean - corrupt"
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


IDLE_COMPONENTS = WarningKind(
    "CS415",
    ("circuit", "groups"),
    "a declared component that makes no difference",
    "Ablated by itself in the clean run, the component does not change the score, and restored by itself in the "
    "corrupt run it brings nothing back (both surely within 0.01 of the difference between the two); nor does its "
    "loss matter where another group, another component of its own, or everything outside the circuit is ablated "
    "too. So nothing shows that it is part of the circuit. Take it out, or name the prompts or the metric by which "
    "it can be seen to act. Backups are no part of this: see CS426.",
    idle_components,
)


def backups(evidence: Evidence) -> list[EvidenceWarning]:
    """CS426: parts of the circuit that something stands in for, as knockouts show it, and as restoring them does."""
    found = evidence.effects
    return [] if found is None else [*_backups_suspected(found), *_redundant_components(found)]


def _backups_suspected(found: CircuitEffects) -> list[EvidenceWarning]:
    """The total effect is smaller than the direct one, since parts of the circuit, or free ones, compensate."""
    return [
        EvidenceWarning(
            "CS426",
            f"backup suspected: {_compensated(out, by)}",
            _knocked_out(out, found.metric),
            "declare them with `effect: backup`, or claim `gate: {nodes: [A, B], is: or, ...}`: by itself either looks "
            "less important than it is",
            _data(out, by, found.metric),
        )
        for out, by in _news(found.knockouts, _UNDECLARED)
    ]


def _redundant_components(found: CircuitEffects) -> list[EvidenceWarning]:
    """Declared components whose loss changes nothing, while alone they restore, or others are lost, they act."""
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
            f"backup suspected: something compensates for the loss of {_listed(one.part.name for one in redundant)}",
            f"shares of clean - corrupt by {found.metric}; {'; '.join(said)}{_beyond(redundant)}",
            "say so: `gate: {nodes: [A, B], is: or, ...}`, or `effect: backup` for the one that is only a backup",
            {"metric": found.metric, "components": [_ablated(one) for one in redundant]},
        )
    ]


BACKUPS = WarningKind(
    "CS426",
    ("circuit", "groups"),
    "backup suspected in the circuit",
    "What a part of the circuit adds to the answer by itself (its direct effect, through the final norm of the "
    "clean run) is more than the score loses when it is knocked out, since other components of the circuit, or "
    "free ones, then add more than before. Or a component can be lost without loss, and yet brings the behaviour "
    "back alone, or is missed where another one is lost too. (McGrath et al. 2023 found 0.7 of a direct effect "
    "compensated.) Both parts then look less important than they are. Say what the second one does:\n\n    "
    "backup_name_mover: {nodes: [a10.h10], at: END, effect: backup}\n\nor, where either does for the other, claim "
    "it:\n\n    - gate: {nodes: [A, B], is: or, metric: logit_diff}",
    backups,
)


def compensated_from_outside(evidence: Evidence) -> list[EvidenceWarning]:
    """CS427: components outside the circuit compensate for parts of it."""
    found = evidence.effects
    if found is None:
        return []
    return [
        EvidenceWarning(
            "CS427",
            f"components outside the circuit compensate for parts of it: {_compensated(out, by)}",
            _knocked_out(out, found.metric),
            "add them to a group with `effect: backup`: without them the circuit looks less necessary than it is",
            _data(out, by, found.metric),
        )
        for out, by in _news(found.knockouts, ("outside the circuit",))
    ]


COMPENSATED_FROM_OUTSIDE = WarningKind(
    "CS427",
    ("circuit", "groups"),
    "components outside the circuit compensate for it",
    "When a part of the circuit is knocked out, the direct effects of components outside the circuit grow, in the "
    "direction of what was lost: significantly (corrected over all components that come after). All components "
    "that are not declared as backups, in the circuit and outside, do so for a fifth of the direct effect knocked "
    "out or more, those outside for at least 0.05 of it. The circuit looks less necessary than it is, and the "
    "model does the task in another way without it. Add these components to a group with `effect: backup`; the "
    "claim `necessary` then ablates them too.",
    compensated_from_outside,
)


def negatives_that_are_none(evidence: Evidence) -> list[EvidenceWarning]:
    """CS428: groups declared negative that are so neither in the model nor in the circuit alone."""
    found = evidence.effects
    if found is None:
        return []
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


NEGATIVES_THAT_ARE_NONE = WarningKind(
    "CS428",
    ("circuit", "groups"),
    "a declared negative effect is not found",
    "Ablating a group with `effect: negative` must raise the score, "
    "significantly and by at least 0.01 of the difference between the clean and the corrupt run, in the clean run "
    "or in the circuit alone (with everything outside it ablated, which is where CS401 looks). Here it does not: "
    "it helps, or makes no difference that these prompts can show. Ablation is of the declared positions alone, "
    "with the values that the file's `ablation` says. Take `effect: negative` off, or take the group out of the "
    "circuit.",
    negatives_that_are_none,
)


def backups_that_are_none(evidence: Evidence) -> list[EvidenceWarning]:
    """CS429: groups declared backup that do no more when others are knocked out."""
    found = evidence.effects
    if found is None:
        return []
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


BACKUPS_THAT_ARE_NONE = WarningKind(
    "CS429",
    ("circuit", "groups"),
    "a declared backup does not take over",
    "A group with `effect: backup` must act when what it backs up fails: when another group (or a component of "
    "one, or all that act directly) is knocked out, its direct effect on the answer must grow, or its own loss "
    "must matter more than it does alone. Here neither was seen, so that nothing shows it to be a backup. Declare "
    "what it backs up as well, or take `effect: backup` off.",
    backups_that_are_none,
)


def undeclared_negatives(evidence: Evidence) -> list[EvidenceWarning]:
    """CS433: parts that are declared to help, whose ablation raises the metric in the model and in the circuit alone.

    Groups are named where none of their components is. A component that also plays a role declared negative is left to
    its groups.
    """
    found = evidence.effects
    if found is None:
        return []
    negative = {one.part.name for one in found.groups if one.part.declared == "negative"}
    components = [
        one for one in found.components if _found_negative(one, found) and negative.isdisjoint(one.part.groups)
    ]
    roles = {group for one in components for group in one.part.groups}
    groups = [one for one in found.groups if _found_negative(one, found) and one.part.name not in roles]
    against = [(one, alone) for one in (*groups, *components) if (alone := found.in_circuit(one)) is not None]
    names = [
        f"{one.part.name} ({', '.join(one.part.groups)})" if one in components else f"`{one.part.name}` as a whole"
        for one, _ in against
    ]
    if found.joint and all(one.sign == "hurts" and one.drop.value <= -CALLED_NEGATIVE for one in found.joint):
        against.append((found.joint[0], found.joint[1]))
        names.append(f"{found.joint[0].part.name} together")
    if not against:
        return []
    said = "; ".join(
        f"{one.part.name}: by {number(one.effect)} in the model, {with_interval(_rise(one.drop))} of clean - "
        f"corrupt, and by {number(alone.effect)} in the circuit alone, {with_interval(_rise(alone.drop))}"
        for one, alone in against[:_TOLD]
    )
    return [
        EvidenceWarning(
            "CS433",
            f"parts of the circuit are negative, and not declared so: {_listed(names)}",
            f"ablating them raises {found.metric}; {said}{_beyond(against)}",
            "declare them in a group of their own with `effect: negative`, or explain what they are in the circuit for",
            {
                "metric": found.metric,
                "parts": [{**_ablated(one), "in_circuit": _ablated(alone)} for one, alone in against],
            },
        )
    ]


UNDECLARED_NEGATIVES = WarningKind(
    "CS433",
    ("circuit", "groups"),
    "an undeclared negative component in the circuit",
    "Ablating a component of the circuit (or a whole group, where none of its components does so alone) raises the "
    "score: in the model as a whole and in the circuit alone, with everything outside it ablated too, both "
    "significantly (corrected over all components, and over all groups) and by 0.05 of the difference between the "
    "clean and the corrupt run or more. It is negative, and the hypothesis does not say so. What "
    "raises the score in the full model alone is not warned of: there it may stand against something that is not "
    "in the circuit. Declare it in a group of its own:\n\n    negative_name_mover: {nodes: [a10.h7], at: END, "
    "effect: negative}\n\nor say in the hypothesis's description what it is in the circuit for. Looked for in "
    "circuits of up to 16 components, and in all with `--negatives exact`.",
    undeclared_negatives,
)


def _found_negative(one: Ablated, found: CircuitEffects) -> bool:
    alone = found.in_circuit(one)
    return (
        one.part.declared == "positive"
        and alone is not None
        and found.is_negative(one)
        and max(one.drop.value, alone.drop.value) <= -CALLED_NEGATIVE
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
    """The knockouts that components not declared as backups compensate, and those of these standings among them
    with a share of their own, as far as no earlier knockout has named them all.

    Within the circuit, only where the total effect is small beside the direct one: what follows from a loss may
    otherwise outweigh what compensates for it. Where the score rises by as much as was lost none does: the loss set
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


def _compensated(out: Knockout, by: Sequence[Compensator]) -> str:
    said = [f"{c.component} ({number(c.share)}{', free' if c.standing == 'free' else ''})" for c in by[:_NAMED]]
    more = f" and {len(by) - _NAMED} more" if len(by) > _NAMED else ""
    return f"without {out.name}, {', '.join(said)}{more} of its direct effect"


def _knocked_out(out: Knockout, metric: str) -> str:
    share = "" if out.by_components is None else f", {with_interval(out.by_components)} by components that add more"
    return (
        f"direct effect of {out.name} on {metric} {number(out.direct)}, total effect "
        f"{with_interval(out.total, (0.0,))}: {with_interval(out.compensated)} of it is compensated{share}"
    )


def _ablating(one: Ablated, metric: str) -> str:
    return (
        f"ablating it changes {metric} by {number(one.effect)}, a loss of {with_interval(one.drop, (0.0,))} of clean - "
        f"corrupt (p = {one.p_adjusted:.2g})"
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


EFFECT_WARNINGS = (
    IDLE_COMPONENTS,
    BACKUPS,
    COMPENSATED_FROM_OUTSIDE,
    NEGATIVES_THAT_ARE_NONE,
    BACKUPS_THAT_ARE_NONE,
    UNDECLARED_NEGATIVES,
)
