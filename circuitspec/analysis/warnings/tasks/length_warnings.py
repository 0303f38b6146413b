"""Answers, and prompts, that are compared though they have different numbers of tokens: CS444 and CS445."""

from __future__ import annotations

from circuitspec.analysis.statistics.wording import plural
from circuitspec.analysis.warnings.evidence import Evidence, EvidenceWarning, WarningKind
from circuitspec.experiments.experiment import texts_of
from circuitspec.experiments.levels.patched_tokens import undefined

_COMPARING = ("logprob_diff", "prob_diff", "accuracy")


def unlike_answers(evidence: Evidence) -> tuple[EvidenceWarning, ...]:
    """CS444: right and wrong answers have different numbers of tokens, and a claim compares them."""
    sequences = None if evidence.task is None else evidence.task.sequences
    claimed = [claim.metric for claim in evidence.claims if claim.metric in _COMPARING]
    if sequences is None or not claimed:
        return ()
    longer = shorter = 0
    for right, wrong in zip(sequences.answers, sequences.wrong, strict=True):
        if not right or not wrong:
            continue
        mine, others = (sum(map(len, side)) / len(side) for side in (right, wrong))
        longer += mine > others
        shorter += mine < others
    n = len(sequences.answers)
    if not longer and not shorter:
        return ()
    return (
        EvidenceWarning(
            "CS444",
            f"answers of different numbers of tokens are compared: the right ones have more than the wrong ones on "
            f"{longer} of {plural(n, 'prompt')}, and fewer on {shorter}",
            "every further token makes a text less likely, whatever it says: a preference for the shorter answer is "
            "part of what is measured",
            "take right and wrong answers of equally many tokens, or `score: first_token`",
            {"longer": longer, "shorter": shorter, "n": n, "metrics": list(dict.fromkeys(claimed))},
        ),
    )


UNLIKE_ANSWERS = WarningKind(
    "CS444",
    ("task",),
    "answers of different numbers of tokens are compared",
    "`score: sum_logprob` gives an answer the summed log probability of its tokens. A longer answer has more factors, "
    "each at most 1, so that of two answers that the model likes equally well token by token the longer one is less "
    "likely. logprob_diff, prob_diff and accuracy then hold this difference besides what the task is about; it is in "
    "the clean and the corrupt run alike, and falls out of recovered performance only as far as it is equal in both. "
    "Told where the right answers of a prompt have more, or fewer, tokens than the wrong ones on the mean. Take "
    "answers of equally many tokens.",
    unlike_answers,
)


def unlike_prompts(evidence: Evidence) -> tuple[EvidenceWarning, ...]:
    """CS445: values of one run are patched into prompts of other lengths."""
    plan, task = evidence.plan, evidence.task
    if task is None or not any(own.pairs is not None for own in task.own.values()):
        return ()
    patched = [run for run in plan.experiments if run.source is not None and run.source.prompts is not None]
    used = {texts_of(v) for run in patched for v in run.variants}
    unlike = sorted({i for name in used for i in task.of(name).unlike})
    if not unlike:
        return ()
    piece = next(task.of(v).unlike[unlike[0]] for v in sorted(used) if unlike[0] in task.of(v).unlike)
    data = {"prompts": len(unlike), "n": task.n, "piece": piece}
    whole = undefined((plan.circuit,), task) is None
    of_pairs = all(name in task.prompts.beside for name in used if task.of(name).unlike)
    which = "bases and sources of pairs" if of_pairs else "clean and corrupted prompts"
    hint = "fill slots with words of equally many tokens, "
    hint += "" if of_pairs else "or leave the others out (`skip: [misaligned]`), "
    return (
        EvidenceWarning(
            "CS445",
            f"{which} have pieces of other lengths on {len(unlike)} of {plural(task.n, 'prompt')}: "
            f"values come from other places of their run ({piece})",
            "what is patched has been computed at its own position in its own prompt: where a component tells "
            "positions, it brings that with it"
            + ("" if whole else "; what is outside the circuit, and its parts one by one, were not looked at"),
            f"{hint}to patch the same positions",
            data,
        ),
    )


UNLIKE_PROMPTS = WarningKind(
    "CS445",
    ("task",),
    "prompts of unequal lengths that are compared",
    "Clean and corrupted prompts, or bases and sources of pairs, have other numbers of tokens. Values are patched "
    "where tokens correspond: at named positions, and between the pieces of a template. The k-th token of the one "
    "prompt is then not the k-th of the other, so that a value from the longer prompt was computed at a later "
    "position: its position embedding is part of a residual stream, and keys are rotated by where they stand "
    "(they are computed anew from what is patched, and not rotated back). A head that looks a fixed number of "
    "tokens back, or an early component that knows where it is, is then changed for a reason that is not the "
    "task's. Prompts of equal lengths have no such difference. Where values would be needed at tokens without a "
    "counterpart, nothing outside the circuit is looked at: neither negative components nor what the circuit's "
    "parts do one by one.",
    unlike_prompts,
)

LENGTH_WARNINGS = (UNLIKE_ANSWERS, UNLIKE_PROMPTS)
