"""Metrics of made-up runs, computed from three numbers a prompt: the right answer, the wrong one, and all the rest."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from circuitspec.engine.records import Records
from circuitspec.experiments.experiment import Experiment
from tests.analysis.support import make_records

Logits = tuple[ArrayLike, ArrayLike, ArrayLike]  # right, wrong, and log of the others' summed exponentials


def run(right: ArrayLike, wrong: ArrayLike, rest: ArrayLike, clean: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Every metric but rank; `clean` are the clean run's log probabilities, [3, prompt]."""
    logits = np.stack(np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (right, wrong, rest))))
    log = logits - np.log(np.exp(logits).sum(axis=0))
    reference = log if clean is None else clean
    return {
        "logit_diff": logits[0] - logits[1],
        "logit": logits[0],
        "logprob": log[0],
        "prob": np.exp(log[0]),
        "prob_diff": np.exp(log[0]) - np.exp(log[1]),
        "accuracy": (logits[0] > logits[1]).astype(np.float64),
        "kl": (np.exp(reference) * (reference - log)).sum(axis=0),
    }


def records(clean: Logits, runs: dict[Experiment, Logits], of: Experiment) -> Records:
    """Records of the clean run `of` and the others, KL to it included."""
    logits = np.stack(np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in clean)))
    log = logits - np.log(np.exp(logits).sum(axis=0))
    return make_records({of: run(*clean), **{e: run(*values, clean=log) for e, values in runs.items()}})
