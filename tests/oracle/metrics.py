"""The metrics of one prompt, in numpy, from the logits at the last position, and the recovered performance.

With answers A and wrong answers W (lists of token ids, several allowed on each side), logits l and probabilities p:

- ``logit_diff``: mean of l over A minus mean of l over W
- ``logit``: mean of l over A
- ``logprob``: log of the sum of p over A
- ``logprob_diff``: mean of log p over A minus mean of log p over W
- ``prob``: sum of p over A
- ``prob_diff``: sum of p over A minus sum of p over W
- ``accuracy``: 1 when the largest l in A is above the largest in W, else 0 (a tie is 0)
- ``rank``: how many vocabulary entries lie strictly above the largest l in A
- ``kl``: sum over the vocabulary of p_clean * (log p_clean - log p), in nats

Those that need W are nan when W is empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

NAMES = ("logit_diff", "logit", "logprob", "logprob_diff", "prob", "prob_diff", "accuracy", "rank", "kl")


def log_softmax(logits: Array) -> Array:
    """``logits - log(sum(exp(logits)))``, with the largest logit subtracted first."""
    shifted = logits - logits.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))


def metrics(logits: Array, answers: Sequence[int], wrong: Sequence[int], clean_logits: Array) -> dict[str, float]:
    """All metrics of one prompt from the ``[vocab]`` logits at its last position and those of the clean model."""
    logits, clean_logits = np.asarray(logits, dtype=np.float64), np.asarray(clean_logits, dtype=np.float64)
    logp, clean_logp = log_softmax(logits), log_softmax(clean_logits)
    p = np.exp(logp)
    a, w = list(answers), list(wrong)
    nan = float("nan")
    return {
        "logit_diff": float(logits[a].mean() - logits[w].mean()) if w else nan,
        "logit": float(logits[a].mean()),
        "logprob": float(np.log(p[a].sum())),
        "logprob_diff": float(logp[a].mean() - logp[w].mean()) if w else nan,
        "prob": float(p[a].sum()),
        "prob_diff": float(p[a].sum() - p[w].sum()) if w else nan,
        "accuracy": float(logits[a].max() > logits[w].max()) if w else nan,
        "rank": float(sum(1 for x in logits if x > logits[a].max())),
        "kl": float((np.exp(clean_logp) * (clean_logp - logp)).sum()),
    }


def columns(rows: Sequence[Mapping[str, float]]) -> dict[str, Array]:
    """Per-prompt metric dicts turned into one array per metric."""
    return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in NAMES}


def recovered(
    patched: Sequence[float] | Array, corrupt: Sequence[float] | Array, clean: Sequence[float] | Array
) -> float:
    """``(mean patched - mean corrupt) / (mean clean - mean corrupt)``: a ratio of means over prompts; nan for 0 / 0."""
    top = float(np.mean(patched)) - float(np.mean(corrupt))
    bottom = float(np.mean(clean)) - float(np.mean(corrupt))
    if bottom == 0.0:
        return float("nan") if top == 0.0 else float("inf") * (1.0 if top > 0 else -1.0)
    return top / bottom
