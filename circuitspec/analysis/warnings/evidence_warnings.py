"""The known ways in which such evidence misleads, each with the measured numbers and a remedy."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from circuitspec.analysis.circuit_effects.path_effects import PathEffect
from circuitspec.analysis.claims.registry import kind_of
from circuitspec.analysis.claims.verdict import ClaimResult
from circuitspec.analysis.statistics.estimate import Estimate
from circuitspec.analysis.statistics.out_of_range import TIMES, is_emptied
from circuitspec.analysis.statistics.plain_data import estimate_data
from circuitspec.analysis.statistics.scores import MATERIAL, Anchors, gap
from circuitspec.analysis.statistics.wording import falls, number, rises, with_interval
from circuitspec.engine.records import Records
from circuitspec.experiments.planner import Plan
from circuitspec.prompts.prompt_set import PromptsFile

_NAMED = 8  # components named in a message; all of them are in the data


@dataclass(frozen=True)
class EvidenceWarning:
    """A finding about the evidence: it stands whatever the verdict is.

    `detail` is a second line with the numbers, `help` what to do; `data` holds the numbers themselves.
    """

    code: str
    message: str
    detail: str = ""
    help: str = ""
    data: Mapping[str, object] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class NegativeComponent:
    """A noised component whose restoration, on top of the circuit, makes the metric worse.

    `effect` is the mean change of the metric in its own units; `recovered_with` the recovered
    performance with this component restored, `p_adjusted` its p-value after correction over all
    screened components, `mostly_at` the position role that carries most of the effect, if one does.
    """

    component: str
    effect: float
    recovered_with: Estimate
    p_adjusted: float
    mostly_at: str | None = None


@dataclass(frozen=True)
class NegativeFinding:
    """The outcome of the search for negative components outside the circuit.

    `screened` components were looked at, `tested` of them restored one by one; `components` are the
    significant ones. `recovered_restored` is with all of these restored, None where there are none; `kl_declared` and
    `kl_restored` the KL to the clean run of the circuit without and with them, in nats, None where not measured.
    """

    metric: str
    screened: int
    tested: int
    components: tuple[NegativeComponent, ...]
    recovered_declared: Estimate
    recovered_restored: Estimate | None
    kl_declared: float | None = None
    kl_restored: float | None = None


@dataclass(frozen=True)
class ModelNegative:
    """A component outside the circuit whose loss raises the metric in the whole model.

    `effect` is the mean change of the metric in its own units, `share` of clean less corrupt.
    """

    component: str
    effect: float
    share: float
    p_adjusted: float


@dataclass(frozen=True)
class ModelNegatives:
    """Such components, the largest first; of `screened` outside the circuit `tested` were ablated one by one."""

    metric: str
    screened: int
    tested: int
    components: tuple[ModelNegative, ...]


@dataclass(frozen=True)
class NegativeSearch:
    """How negative components were looked for, and what came of it (None: not looked for, or no ratio)."""

    search: Literal["screen", "exact", "off", "not along paths"]
    finding: NegativeFinding | None = None


def evidence_warnings(
    plan: Plan,
    records: Records,
    claims: Sequence[ClaimResult],
    negatives: Iterable[NegativeFinding] = (),
    paths: Sequence[PathEffect] = (),
    unfed: Sequence[str] = (),
    in_model: ModelNegatives | None = None,
) -> tuple[EvidenceWarning, ...]:
    """Every warning about the evidence behind `claims`, in order of code."""
    left_out = [finding for finding in negatives if finding.components]
    found = [negative_components(finding) for finding in left_out]
    found += negative_in_model(in_model, {one.component for finding in left_out for one in finding.components})
    found += over_recovery(claims)
    found += out_of_range(plan, claims)
    found += unbroken_behaviour(plan, records)
    found += empty_patches(claims, plan)
    found += idle_paths(paths)
    found += unfed_senders(unfed)
    found += edges_that_are_none(plan)
    found += overruled_paths(plan)
    return tuple(found)


def negative_components(finding: NegativeFinding) -> EvidenceWarning:
    """CS401: the circuit scores as it does because components that work against it were left out."""
    declared, restored = finding.recovered_declared, finding.recovered_restored
    named = [_named(component, declared) for component in finding.components[:_NAMED]]
    if len(finding.components) > _NAMED:
        named.append(f"and {len(finding.components) - _NAMED} more")
    detail = f"recovered {finding.metric} {number(declared.value)} as declared"
    if restored is not None:
        detail += f", {number(restored.value)} with all of them restored"
        if finding.kl_declared is not None and finding.kl_restored is not None and finding.metric != "kl":
            detail += f"; kl {number(finding.kl_declared)} and {number(finding.kl_restored)} nats"
    if finding.tested < finding.screened:
        detail += f" ({finding.tested} of {finding.screened} noised components were tried; --negatives exact tries all)"
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


def negative_in_model(found: ModelNegatives | None, named: Collection[str]) -> list[EvidenceWarning]:
    """CS437: components outside the circuit that work against the behaviour in the whole model alone.

    Without those that are `named` already since they do so on top of the circuit (CS401).
    """
    news = [] if found is None else [one for one in found.components if one.component not in named]
    if found is None or not news:
        return []
    said = [f"{one.component} (+{number(one.share)})" for one in news[:_NAMED]]
    said += [f"and {len(news) - _NAMED} more"] if len(news) > _NAMED else []
    tried = f"{found.tested} of {found.screened} components outside the circuit were ablated one by one"
    return [
        EvidenceWarning(
            "CS437",
            f"components outside the circuit work against the behaviour in the whole model: {', '.join(said)}",
            f"ablated alone in the clean run, each raises {found.metric} by that share of clean less corrupt; on top "
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


def _named(component: NegativeComponent, declared: Estimate) -> str:
    """`a3.h1 (-0.14)`: the change of recovered performance when it is restored."""
    change = number(component.recovered_with.value - declared.value)
    return (
        f"{component.component} ({change})"
        if component.mostly_at is None
        else (f"{component.component} ({change}, mostly at {component.mostly_at})")
    )


def over_recovery(claims: Iterable[ClaimResult]) -> list[EvidenceWarning]:
    """CS402: a circuit that does the task better than the whole model is not a faithful one."""
    found = []
    for claim in claims:
        estimate = claim.estimate
        if (
            not kind_of(claim).claims_sufficiency
            or estimate is None
            or estimate.low is None
            or estimate.low <= 1 + MATERIAL
        ):
            continue
        if claim.out_of_range:
            continue
        found.append(
            EvidenceWarning(
                "CS402",
                f"recovered {claim.metric} is above 100 %: {with_interval(estimate, bounds=(1.0,))}",
                "the circuit alone does better than the whole model, which most often means that components which "
                "work against the behaviour were left out, or that the ablation breaks more than the corruption does",
                "include negative components (see CS401), compare another ablation, "
                "and set `at_most` so that too much counts as a failure",
                {"claim": claim.index, "metric": claim.metric, "recovered": estimate_data(estimate)},
            )
        )
    return found


def out_of_range(plan: Plan, claims: Sequence[ClaimResult]) -> list[EvidenceWarning]:
    """CS436: a patched run so far from its anchors that no figure of it says anything about the circuit."""
    found = []
    for claim, planned in zip(claims, plan.claims, strict=True):
        if not claim.out_of_range:
            continue
        emptied = any(is_emptied(run) for run in planned.anchored)
        found.append(
            EvidenceWarning(
                "CS436",
                f"`{claim.kind}` is {claim.out_of_range}",
                f"a patched run more than {TIMES:g} times as far from the corrupt anchor as the clean run tells of "
                "what the ablation breaks, not of the circuit: no verdict rests on it, and components are not judged "
                "by what they change in it",
                "keep the embeddings, by a path `input -> logits`, or ablate to means or resampled values"
                if emptied
                else "ablate to means or resampled values, or claim a metric whose anchors lie further apart",
                {
                    "claim": claim.index,
                    "metric": claim.metric,
                    "value": None if claim.estimate is None else claim.estimate.value,
                    "times": TIMES,
                },
            )
        )
    return found


def unbroken_behaviour(plan: Plan, records: Records) -> list[EvidenceWarning]:
    """CS403: where the corruption does not break the behaviour, nothing can be recovered."""
    pairs = dict.fromkeys((planned.claim.metric, *planned.behaviour) for planned in plan.claims)
    found = []
    for metric, clean, corrupt in pairs:
        if records.n_prompts < 2:
            continue
        measured = gap(records, metric, Anchors(clean, corrupt))
        if measured.state == "sound":
            continue
        what = (
            "the corruption does not break the behaviour"
            if measured.state == "zero"
            else "the corruption improves the behaviour instead of breaking it"
        )
        found.append(
            EvidenceWarning(
                "CS403",
                f"{what}: {metric} is {number(measured.clean)} in `{plan.labels[clean]}` "
                f"and {number(measured.corrupt)} in `{plan.labels[corrupt]}`",
                f"difference {with_interval(measured.difference, bounds=(0.0,))}; recovered performance divides by it, "
                "so there is none",
                "corrupt the prompts so that the answer changes, check that the model does the task on the clean "
                "prompts, or take a metric that tells the two apart",
                {
                    "metric": metric,
                    "clean": measured.clean,
                    "corrupt": measured.corrupt,
                    "difference": estimate_data(measured.difference),
                    "state": measured.state,
                },
            )
        )
    return found


def lacking(file: PromptsFile | None, needed: int) -> str:
    """What must be done before so many prompts can be asked for, to be said before it; "" unless a file is short."""
    return f"add prompts to {file.name}, which holds {file.holds}, and " if file and file.holds < needed else ""


def empty_patches(claims: Iterable[ClaimResult], plan: Plan) -> list[EvidenceWarning]:
    """CS405: a claim whose experiment patches nothing holds whatever the circuit is."""
    vacuous = [claim for claim, planned in zip(claims, plan.claims, strict=True) if planned.patched.source is None]
    return [
        EvidenceWarning(
            "CS405",
            f"`{claim.kind}` patches nothing, so it says nothing about the circuit",
            kind_of(claim).nothing_patched,
            "declare a part of the model, or take components out of `free`",
            {"claim": claim.index, "kind": claim.kind},
        )
        for claim in vacuous
    ]


def idle_paths(paths: Sequence[PathEffect]) -> list[EvidenceWarning]:
    """CS406: declared paths that by themselves neither break the clean run nor restore anything in the corrupt one."""
    return [
        EvidenceWarning(
            "CS406",
            f"the path {effect.path} has no effect by itself",
            "; ".join(
                f"{done}, {effect.metric} {verb} by {with_interval(found, bounds=(-MATERIAL, MATERIAL))}"
                for done, verb, found in (
                    ("ablated", falls(effect.metric), effect.drop),
                    ("restored in the corrupt run", rises(effect.metric), effect.rise),
                )
                if found is not None
            ),
            "take it out, or say what makes up for it: paths in parallel (OR, backup) hide each other's effect",
            {
                "path": effect.path,
                "metric": effect.metric,
                "drop": None if effect.drop is None else estimate_data(effect.drop),
                "rise": None if effect.rise is None else estimate_data(effect.rise),
            },
        )
        for effect in paths
        if effect.is_idle(MATERIAL)
    ]


def unfed_senders(unfed: Sequence[str]) -> list[EvidenceWarning]:
    """CS407: components of the circuit into which no edge is kept give the source's values, declared or not."""
    if not unfed:
        return []
    named = ", ".join(unfed[:_NAMED]) + (f" and {len(unfed) - _NAMED} more" if len(unfed) > _NAMED else "")
    return [
        EvidenceWarning(
            "CS407",
            f"no kept edge leads into {named}",
            "at edge level a component computes from the edges that are kept; from none it computes what it does in "
            "the source's run, so that the edges that leave it carry nothing",
            "declare what feeds it, down to the embeddings: `input -> NAME<q,k,v>`",
            {"components": list(unfed)},
        )
    ]


def edges_that_are_none(plan: Plan) -> list[EvidenceWarning]:
    """CS408: neighbours on a path, declared or claimed, that share no position.

    Pairs against the order of layers are no news: a group that leads to a group names all their pairs, and means
    those that the order allows.
    """
    apart = [pair for pair in plan.impossible if not pair.out_of_order]
    if not apart:
        return []
    named = list(dict.fromkeys(f"{pair.sender} -> {pair.receiver}" for pair in apart))
    claimed = any(pair.place[:1] == ("claims",) for pair in apart)
    frozen = "; at the end of a claim's path what nothing reaches reads what it does in the base run" if claimed else ""
    shown = ", ".join(named[:_NAMED]) + (f" and {len(named) - _NAMED} more" if len(named) > _NAMED else "")
    return [
        EvidenceWarning(
            "CS408",
            f"paths name what is no edge: {shown}",
            f"{apart[0].sender} {apart[0].reason}, so that nothing is kept between the two{frozen}",
            "give both ends a common position, or name only those that share one; `circuitspec plan` lists all",
            {"pairs": named},
        )
    ]


def overruled_paths(plan: Plan) -> list[EvidenceWarning]:
    """CS409: paths through a component from which another path starts, so that it has its whole value anyway."""
    if not plan.overruled:
        return []
    named = ", ".join(plan.overruled[:_NAMED])
    named += f" and {len(plan.overruled) - _NAMED} more" if len(plan.overruled) > _NAMED else ""
    return [
        EvidenceWarning(
            "CS409",
            f"paths into {named} add nothing",
            "another path starts there and goes on in the same way; a start has the component's whole value, whatever "
            "else leads to it",
            "take out the path that starts there, or those that lead into it",
            {"components": list(plan.overruled)},
        )
    ]
