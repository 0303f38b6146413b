"""Several right answers of which the model gives one: what metrics then are about."""

from __future__ import annotations

from collections import Counter

import numpy as np
import scipy

from circuitspec.analysis.statistics.wording import number, plural
from circuitspec.analysis.warnings.evidence import Evidence, EvidenceWarning, WarningKind
from circuitspec.prompts.output_metrics import METRICS
from circuitspec.prompts.prompt_set import GivenAnswer

DOMINATES = 0.9  # of the answers' summed probability: the others together have at most a ninth of that
MOST = 0.5  # of the prompts with several answers
SURE = 0.05  # of the exact binomial test that on most prompts one dominates

_ALIKE = ("logit_diff", "logit", "logprob_diff")  # metrics in which all answers count alike


def dominating_answer(evidence: Evidence) -> tuple[EvidenceWarning, ...]:
    """CS425: on most prompts with several answers, one has nearly all of their probability in the clean run.

    Mean logits (logit_diff, logit) then move with answers that the model does not give, and all other metrics are about
    the one answer alone.
    """
    shares, prompts, claims = evidence.shares, evidence.prompts, evidence.claims
    claimed = [c.metric for c in claims if c.metric in METRICS and METRICS[c.metric].needs_answers]
    several = [] if shares is None else [(i, own) for i, own in enumerate(shares) if len(own) > 1]
    if not claimed or not several or prompts is None:
        return ()
    dominated = [(i, own) for i, own in several if own.max() > DOMINATES]
    test = scipy.stats.binomtest(len(dominated), len(several), MOST, alternative="greater")
    if test.pvalue > SURE:
        return ()
    texts = Counter(
        _named(prompts.prompts[i].answers[int(own.argmax())], evidence)
        for i, own in dominated
        if len(prompts.prompts[i].answers) == len(own)  # two answers may be one token
    )
    most = texts.most_common(1)
    same = f", on {plural(most[0][1], 'prompt')} {most[0][0]!r}" if most and most[0][1] > 1 else ""
    alike = [metric for metric in dict.fromkeys(claimed) if metric in _ALIKE]
    others = [metric for metric in dict.fromkeys(claimed) if metric not in _ALIKE]
    said = [f"{' and '.join(alike)} averages over answers that the model does not give"] if alike else []
    said += [f"{' and '.join(others)} is about that one answer alone"] if others else []
    median = float(np.median([own.max() for _, own in several]))
    return (
        EvidenceWarning(
            "CS425",
            f"one of several answers dominates on {len(dominated)} of {plural(len(several), 'prompt')}: it has more "
            f"than {DOMINATES:.0%} of the probability of all right answers{same}",
            f"half of the prompts have a share of {number(median)} or more in the clean run; so {', and '.join(said)}",
            "give the one answer that the model is asked for, or verify each kind of answer in a file of its own",
            {
                "prompts": len(dominated),
                "n": len(several),
                "median_share": median,
                "p_value": float(test.pvalue),
                "answers": dict(texts),
                "metrics": list(dict.fromkeys(claimed)),
            },
        ),
    )


def _named(answer: GivenAnswer, evidence: Evidence) -> str:
    """The answer's text; of a token id, what it decodes to."""
    if isinstance(answer, str):
        return answer
    return str(answer) if evidence.task is None else evidence.task.decoded.get(answer, str(answer))


DOMINATING_ANSWER = WarningKind(
    "CS425",
    ("task",),
    "one of several answers dominates",
    "Prompts have several right answers, and on most of them (an exact binomial test rejects one half) the clean "
    "run gives more than 0.9 of their summed probability to one. Summed metrics (prob, logprob, accuracy, rank) "
    "are then about that answer alone, and mean logits (logit_diff, logit) count the others just as much: a "
    "circuit may recover them, or lose them, without any effect on what the model says. Give the one answer that "
    "is meant, or verify each kind of answer in a file of its own.",
    dominating_answer,
)

ANSWER_WARNINGS = (DOMINATING_ANSWER,)
