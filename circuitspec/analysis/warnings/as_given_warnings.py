"""What was given beside the file: CS438 and CS446 (a model and metrics from Python), CS467 and CS469 (dictionaries)."""

from __future__ import annotations

from circuitspec.analysis.claims.kinds.beats_random import PlannedRivals
from circuitspec.analysis.dictionary_figures import little_explained
from circuitspec.analysis.statistics.wording import plural
from circuitspec.analysis.warnings.evidence import CLAIMS, Evidence, EvidenceWarning, WarningKind
from circuitspec.models.in_memory.foreign_hooks import Foreign

_NAMED = 8  # places named in a message; all of them are in the data


def beyond_weights(evidence: Evidence) -> tuple[EvidenceWarning, ...]:
    """CS438, once each: hooks (set aside or kept), replaced forwards, a tokenizer other than the model's files say."""
    return beyond_weights_of(evidence.foreign, evidence.other_tokens)


def beyond_weights_of(foreign: Foreign, other_tokens: str | None) -> tuple[EvidenceWarning, ...]:
    """As `beyond_weights`, of a model of which there is no other evidence."""
    found = []
    if foreign.hooks and not foreign.kept:
        found.append(
            EvidenceWarning(
                "CS438",
                f"hooks on the model were set aside: {_named(foreign.hooks)}",
                "every figure is that of the model without them",
                "remove them to say so; or run them in every forward, before what is patched: "
                "verify(..., keep_hooks=True)",
                {"hooks": list(foreign.hooks), "kept": False},
            )
        )
    if foreign.runs_hooks:
        found.append(
            EvidenceWarning(
                "CS438",
                f"hooks on the model took part in every forward: {_named(foreign.hooks)}",
                "every figure, clean ones too, is that of the model with them; at each place they ran first, and what "
                "they left was patched",
                "remove them for figures of the model itself",
                {"hooks": list(foreign.hooks), "kept": True},
            )
        )
    if foreign.replaced:
        found.append(
            EvidenceWarning(
                "CS438",
                f"{plural(len(foreign.replaced), 'module')} of the model "
                f"{'has' if len(foreign.replaced) == 1 else 'have'} a forward put in place of the class's own, which "
                f"took part: {_named(foreign.replaced)}",
                "every figure is that of the model as it computes with them",
                "give a model as it is loaded for figures of the model itself",
                {"replaced": list(foreign.replaced)},
            )
        )
    if other_tokens is not None:
        found.append(
            EvidenceWarning(
                "CS438",
                f"the tokenizer that was passed is not what the model's tokenizer.json says: {other_tokens}",
                "the model was trained on the tokens of that file; every figure is on those of the tokenizer passed",
                "load it with transformers.PreTrainedTokenizerFast.from_pretrained(...), which reads the file as it "
                "is; or go on, if the difference is meant",
                {"tokenizer": other_tokens},
            )
        )
    return tuple(found)


BEYOND_WEIGHTS = WarningKind(
    "CS438",
    CLAIMS,
    "a model in memory is more than its weights",
    "A model that is passed from Python may have more on it than what was loaded: forward hooks (steering, an "
    "ablation, a dictionary spliced in), forwards put in place of a module's own, a tokenizer that cuts text "
    "otherwise than the model's own tokenizer.json. Hooks are set aside for the run, so that every figure is the "
    "bare model's; with `verify(..., keep_hooks=True)` they take part in every forward, the clean ones too, and "
    "what they leave is patched. Replaced forwards and the tokenizer always take part. The warning says which of "
    "these there were.",
    beyond_weights,
)


def _named(places: tuple[str, ...]) -> str:
    more = f" and {len(places) - _NAMED} more" if len(places) > _NAMED else ""
    return ", ".join(places[:_NAMED]) + more


def not_in_the_file(evidence: Evidence) -> tuple[EvidenceWarning, ...]:
    """CS446: metrics of the caller's own."""
    if not evidence.own_metrics:
        return ()
    named = ", ".join(evidence.own_metrics)
    return (
        EvidenceWarning(
            "CS446",
            f"not in the file: {plural(len(evidence.own_metrics), 'metric')} of the caller's own ({named})",
            "what it computes stands in a Python program alone: this result cannot be locked, and no claim rests on it",
            "say in a paper what it computes, and claim something of a metric that a file can name",
            {"metrics": list(evidence.own_metrics)},
        ),
    )


OWN_METRICS = WarningKind(
    "CS446",
    CLAIMS,
    "a metric of the caller's own",
    "`circuitspec.verify(..., metric=function)` measures a function of the logits in every run, beside the metrics "
    "that there are. Its figures are in the tables and in the result's frames. The file does not say what it "
    "computes, so that nobody could check it later: claims do not rest on it, it is kept in no store, and `lock` "
    "refuses it (CS518).",
    not_in_the_file,
)


def explain_little(evidence: Evidence) -> tuple[EvidenceWarning, ...]:
    """CS467, once for each dictionary."""
    used = () if evidence.dictionaries is None else evidence.dictionaries.each
    return tuple(
        EvidenceWarning(
            "CS467",
            little[0],
            one.described(),
            little[1],
            {"dictionary": one.fit.name, "unexplained": one.fit.unexplained, "active": one.fit.active},
        )
        for one in used
        if (little := little_explained(one.fit)) is not None
    )


BAD_DICTIONARIES = WarningKind(
    "CS467",
    ("dictionaries",),
    "a dictionary that explains little",
    "A dictionary says of the values at its place that they are sums of features, up to an error. Here the error holds "
    "half of the values' variance or more, over all tokens of the prompts but each one's first. Mostly the dictionary "
    "is of another place (`blocks.7.hook_resid_post` is r8), of another model, or of values that were centred or "
    "scaled first; then its features are not those that its tool shows, and what is said of them says nothing. Rarely "
    "a dictionary is just small: then most of what the circuit does is in the error, which is a node too.",
    explain_little,
)


def unlike_features(evidence: Evidence) -> tuple[EvidenceWarning, ...]:
    """CS469, once for each claim: the features that were drawn are active at far fewer tokens, or at far more."""
    found = []
    for planned in evidence.plan.claims:
        if not isinstance(planned, PlannedRivals) or planned.rivals.active is None:
            continue
        own, others = planned.rivals.active
        if min(own, others) >= UNLIKE * max(own, others):
            continue
        few, many = (f"{100 * share:.3g} %" for share in (others, own))
        found.append(
            EvidenceWarning(
                "CS469",
                f"random circuits have features that are active at {few} of the tokens at their positions, where the "
                f"circuit's are at {many}",
                "no others are as active there, so that the circuit is compared with what has less to do with these "
                "prompts"
                if others < own
                else "so that it is compared with what has more to do with these prompts",
                "hold the circuit against `minimal` too, or take a dictionary with more features that are active here",
                {"claim": planned.index, "circuit": own, "random": others},
            )
        )
    return tuple(found)


UNLIKE = 0.5  # of the larger share of active tokens: what is below is no longer alike

UNLIKE_FEATURES = WarningKind(
    "CS469",
    CLAIMS,
    "random features that are not as active",
    "A circuit of features is held against random circuits in which each feature is exchanged for one of the same "
    "dictionary that is active at about as many tokens of its positions: most features of a dictionary are active at "
    "none, and any circuit beats those. Here those that are nearest are active at less than half as many tokens, on "
    "average over the circuit, or at more than twice as many. That the circuit beats them may be for that alone.",
    unlike_features,
)

AS_GIVEN_WARNINGS = (BEYOND_WEIGHTS, OWN_METRICS, BAD_DICTIONARIES, UNLIKE_FEATURES)
