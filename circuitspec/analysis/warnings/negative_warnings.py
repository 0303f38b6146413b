"""Negative components that were left out of the circuit."""

from __future__ import annotations

from circuitspec.analysis.circuit_effects.negative_components import NegativeComponent, NegativeFinding
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.plain_data import estimate_data
from circuitspec.analysis.statistics.wording import number
from circuitspec.analysis.warnings.evidence import CLAIMS, Evidence, EvidenceWarning, WarningKind

_NAMED = 8  # components named in a message; all of them are in the data


def negative_components(evidence: Evidence) -> list[EvidenceWarning]:
    """CS401: the circuit scores as it does because negative components were left out."""
    finding = evidence.negatives
    return [_left_out(finding)] if finding is not None and finding.components else []


NEGATIVE_COMPONENTS = WarningKind(
    "CS401",
    ("circuit", "groups"),
    "negative components are left out of the circuit",
    "Negative components were left outside the circuit: restoring one of them on top of the circuit, "
    "while everything else outside stays ablated, makes the metric worse. A circuit that leaves them out looks "
    "better than it is, because recovered performance counts what helps and never sees what hurts. The figure "
    "in brackets is the change of recovered performance when that component alone is restored; the second line "
    "compares the circuit as declared with the circuit plus all of them. Half of the prompts choose the components and "
    "the other half give all figures, since what is picked as the largest looks larger than it is; so figures have the "
    "precision of half the prompts (intervals 1.4 times as wide), and that as declared differs a little from the "
    "claim's, which has all of them. With fewer than 20 prompts all of them do both. Named are only components whose "
    "effect is significant after correction over all the components that were screened, and 0.02 of the "
    "difference between the clean and the corrupt run or more. At edge level a component "
    "is outside where no kept edge leads away from it; restored, it has its edges from and to all that is kept. "
    "To mend it, put them "
    "into a group of their own:\n\n    negative_name_mover: {nodes: [a10.h7, a11.h10], at: END, effect: "
    "negative}\n\nor say in the hypothesis's description why they are not part of the circuit.",
    negative_components,
)


def _left_out(finding: NegativeFinding) -> EvidenceWarning:
    declared, restored = finding.recovered_declared, finding.recovered_restored
    named = [_named(component, declared) for component in finding.components[:_NAMED]]
    if len(finding.components) > _NAMED:
        named.append(f"and {len(finding.components) - _NAMED} more")
    detail = f"recovered {finding.metric} {number(declared.value)} as declared"
    if restored is not None:
        detail += f", {number(restored.value)} with all of them restored"
        if finding.kl_declared is not None and finding.kl_restored is not None and finding.metric != "kl":
            detail += f"; kl {number(finding.kl_declared)} and {number(finding.kl_restored)} nats"
    if finding.prompts is not None:
        chose, judged = finding.prompts
        detail += f" (on {judged} prompts; the other {chose} chose the components)"
    if finding.tested < finding.screened:
        detail += (
            f" ({finding.tested} of {finding.screened} ablated components were tried; --negatives exact tries all)"
        )
    return EvidenceWarning(
        "CS401",
        f"negative components are left out: {', '.join(named)}",
        detail,
        "add them to a group with `effect: negative`, or explain why they are not part of the circuit",
        {
            "metric": finding.metric,
            "screened": finding.screened,
            "tested": finding.tested,
            "recovered_declared": estimate_data(declared),
            "recovered_restored": None if restored is None else estimate_data(restored),
            "kl_declared": finding.kl_declared,
            "kl_restored": finding.kl_restored,
            "prompts": None if finding.prompts is None else {"chose": finding.prompts[0], "judged": finding.prompts[1]},
            "components": [
                {
                    "component": component.component,
                    "effect": component.effect,
                    "effect_on_recovered": component.recovered_with.value - declared.value,
                    "recovered_with": estimate_data(component.recovered_with),
                    "p_adjusted": component.p_adjusted,
                    "mostly_at": component.mostly_at,
                }
                for component in finding.components
            ],
        },
    )


def _named(component: NegativeComponent, declared: Estimate) -> str:
    """`a3.h1 (-0.14)`: the change of recovered performance when it is restored."""
    change = number(component.recovered_with.value - declared.value)
    return (
        f"{component.component} ({change})"
        if component.mostly_at is None
        else (f"{component.component} ({change}, mostly at {component.mostly_at})")
    )


def negative_in_model(evidence: Evidence) -> list[EvidenceWarning]:
    """CS437: components outside the circuit that are negative in the whole model alone.

    Without those that are named already since they do so on top of the circuit (CS401).
    """
    found, negatives = evidence.in_model, evidence.negatives
    named = {one.component for one in (() if negatives is None else negatives.components)}
    news = [] if found is None else [one for one in found.components if one.component not in named]
    if found is None or not news:
        return []
    said = [f"{one.component} (+{number(one.share)})" for one in news[:_NAMED]]
    said += [f"and {len(news) - _NAMED} more"] if len(news) > _NAMED else []
    tried = f"{found.tested} of {found.screened} components outside the circuit were ablated one by one"
    return [
        EvidenceWarning(
            "CS437",
            f"components outside the circuit are negative in the whole model: {', '.join(said)}",
            f"ablated alone in the clean run, each raises {found.metric} by that share of clean - corrupt; on top "
            f"of the circuit a component does only what the circuit feeds it, so that CS401 may miss it ({tried})",
            "add them, with what feeds them, in a group with `effect: negative`, or explain why they are not part of "
            "the circuit",
            {
                "metric": found.metric,
                "screened": found.screened,
                "tested": found.tested,
                "components": [
                    {
                        "component": one.component,
                        "effect": one.effect,
                        "share": one.share,
                        "p_adjusted": one.p_adjusted,
                    }
                    for one in news
                ],
            },
        )
    ]


NEGATIVE_IN_MODEL = WarningKind(
    "CS437",
    CLAIMS,
    "a negative component of the model outside the circuit",
    "A component outside the circuit is negative in the model as a whole: ablating it alone raises "
    "the score, significantly (corrected over all components outside) and by 0.1 of the difference between the "
    "clean and the corrupt run or more. CS401 restores such components on top of the circuit, where one does "
    "nothing if the circuit leaves out what feeds it; so it is named here. The circuit recovers what the model "
    "would do without it. Add it, with what feeds it, in a group with `effect: negative`, or say in the "
    "hypothesis's description why it is no part of the circuit (it may stand against something that is not). Of "
    "more than ten components outside, the five that an estimate puts first are ablated; `--negatives exact` takes "
    "all, `--negatives off` none.",
    negative_in_model,
)


NEGATIVE_WARNINGS = (NEGATIVE_COMPONENTS, NEGATIVE_IN_MODEL)
