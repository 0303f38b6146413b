"""Figures that say nothing about the circuit: out of range, above the whole model, without anything patched."""

from __future__ import annotations

from circuitspec.analysis.claims.registry import kind_of
from circuitspec.analysis.statistics.out_of_range import TIMES, is_emptied
from circuitspec.analysis.statistics.plain_data import estimate_data
from circuitspec.analysis.statistics.scores import MATERIAL, Anchors, gap
from circuitspec.analysis.statistics.wording import number, with_interval
from circuitspec.analysis.warnings.evidence import CLAIMS, Evidence, EvidenceWarning, WarningKind


def over_recovery(evidence: Evidence) -> list[EvidenceWarning]:
    """CS402: a circuit that does the task better than the whole model is not a faithful one."""
    found = []
    for claim in evidence.claims:
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
                "the circuit alone does better than the whole model, which most often means that negative "
                "components were left out, or that the ablation breaks more than the corruption does",
                "include negative components (see CS401), compare another ablation, "
                "and set `at_most` so that too much counts as a failure",
                {"claim": claim.index, "metric": claim.metric, "recovered": estimate_data(estimate)},
            )
        )
    return found


OVER_RECOVERY = WarningKind(
    "CS402",
    CLAIMS,
    "recovery above 100 %",
    "The circuit alone does better than the whole model: the lower end of the confidence interval of recovered "
    "performance is above 1. This is a departure from the model, not a better circuit. It most often means "
    "that negative components were left out (see CS401), or that ablating the rest "
    "breaks more than the corruption does, as means over unrelated prompts can. Include the negative "
    "components, compare another ablation, and set `at_most` in the claim, such as `{metric: logit_diff, "
    "at_least: 0.8, at_most: 1.2}`, so that too much fails as too little does.",
    over_recovery,
)


def unbroken_behaviour(evidence: Evidence) -> list[EvidenceWarning]:
    """CS403: where the corruption does not break the behaviour, nothing can be recovered."""
    plan, records = evidence.plan, evidence.records
    pairs = dict.fromkeys(
        (planned.claim.metric, *planned.behaviour) for planned in plan.claims if not kind_of(planned).own_answers
    )
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


UNBROKEN_BEHAVIOUR = WarningKind(
    "CS403",
    ("ablation",),
    "the corruption does not break the behaviour",
    "Recovered performance is (patched - corrupt) / (clean - corrupt). Here the clean and the corrupt run do "
    "not differ by more than chance (the confidence interval of their difference contains zero), or the "
    "corrupt run does better than the clean one. A ratio over such a difference is noise, or runs backwards, "
    "so none is given and the claim is INCONCLUSIVE. Check that the model does the task on the clean prompts "
    "at all, take a corruption that changes what the right answer is, or a metric that tells the two runs "
    "apart: logit_diff does not see a corruption that moves both answers alike.",
    unbroken_behaviour,
)


def empty_patches(evidence: Evidence) -> list[EvidenceWarning]:
    """CS405: a claim whose experiment patches nothing holds whatever the circuit is."""
    pairs = zip(evidence.claims, evidence.plan.claims, strict=True)
    vacuous = [claim for claim, planned in pairs if planned.patched.source is None]
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


EMPTY_PATCHES = WarningKind(
    "CS405",
    CLAIMS,
    "a claim that patches nothing",
    "The circuit and the `free` components together are the whole model, so that `sufficient` ablates nothing "
    "(or `necessary` has nothing declared to ablate). Such a claim holds for any circuit. Declare a part of the "
    "model, or let `free` cover less.",
    empty_patches,
)


def out_of_range(evidence: Evidence) -> list[EvidenceWarning]:
    """CS436: a patched run so far from its anchors that no figure of it says anything about the circuit."""
    found = []
    for claim, planned in zip(evidence.claims, evidence.plan.claims, strict=True):
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


OUT_OF_RANGE = WarningKind(
    "CS436",
    CLAIMS,
    "a claim's figure out of all range",
    "The run that decides the claim is more than ten times as far from the corrupt anchor as the clean run is. No "
    "circuit recovers so much; the figure tells of what the ablation breaks. It is most common with zeros at edge "
    "and path level: everything that is not kept is zero, the embeddings included, and the final norm divides by "
    "what little is left of the residual stream, which magnifies it. The claim is INCONCLUSIVE, components are not "
    "called negative (CS401, CS433) for what they change in such a run, and the figure is printed with its reason. "
    "Keep the embeddings by a path `input -> logits`, ablate to means or resampled values, or write `level: node`.",
    out_of_range,
)


def another_circuit(evidence: Evidence) -> list[EvidenceWarning]:
    """CS475: another circuit meets the same bound, so that the claim does not single the declared one out."""
    found = []
    for other in evidence.alternatives:
        if other.status != "found" or other.recovered is None:
            continue
        shares = f"shares {', '.join(other.shared)} with the declared one" if other.shared else "shares nothing with it"
        found.append(
            EvidenceWarning(
                "CS475",
                f"another circuit meets the bound too: recovered {other.metric} {with_interval(other.recovered)}",
                f"{', '.join(other.nodes)}; it {shares}",
                "say which of the two is meant and why: claim `necessary`, or a second metric such as `kl`, by which "
                "they differ",
                {
                    "claim": other.claim,
                    "metric": other.metric,
                    "nodes": list(other.nodes),
                    "shared": list(other.shared),
                    "recovered": estimate_data(other.recovered),
                },
            )
        )
    return found


ANOTHER_CIRCUIT = WarningKind(
    "CS475",
    CLAIMS,
    "another circuit meets the bound too",
    "`verify --alternatives` found a circuit that meets the bound of a supported claim of sufficiency, and shares "
    "nothing (or no more than was allowed) with the declared one. It was chosen on one half of the prompts and judged "
    "on the other. So sufficiency alone does not say which of the two the model uses; it may use both (an OR, a "
    "backup). `necessary` tells whether the model can do without the declared one, a `gate` how the two work together, "
    "and `circuitspec compare --run` on what prompts their outputs differ.",
    another_circuit,
)


SCORE_WARNINGS = (OVER_RECOVERY, UNBROKEN_BEHAVIOUR, EMPTY_PATCHES, OUT_OF_RANGE, ANOTHER_CIRCUIT)
