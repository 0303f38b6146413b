"""Metrics of the caller's own: functions of a run, measured beside those of the table. No file names one.

Importing this imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.prompts.output_metrics import METRICS, Scored

if TYPE_CHECKING:
    from torch import Tensor

OwnMetric: TypeAlias = "Callable[[Scored], Tensor]"
"""Of a run's logits `[batch, vocab]`, answers and wrong answers a number for each row, `[batch]`."""

UNNAMED = "own_metric"  # what a lambda's column is called


def named_metrics(metric: OwnMetric | Mapping[str, OwnMetric] | None) -> dict[str, OwnMetric]:
    """Metrics by name; a function by itself is called as it is defined, and a lambda `own_metric`.

    Raises TypeError for what cannot be called, ValueError for a name that one of the table's metrics has.
    """
    if metric is None:
        return {}
    if isinstance(metric, Mapping):
        found = dict(metric)
    else:
        name = getattr(metric, "__name__", UNNAMED)
        found = {name if name.isidentifier() else UNNAMED: metric}
    for name, function in found.items():
        if not callable(function):
            raise TypeError(f"metric {name!r} is a {type(function).__name__}: give a function of a run")
        if name in METRICS or not name.isidentifier():
            raise ValueError(
                f"a metric of your own cannot be called {name!r}: give another name, as in {{'mine': ...}}"
            )
    return found


def own_values(metrics: Mapping[str, OwnMetric], run: Scored, rows: int) -> dict[str, Tensor]:
    """Each metric of the run, `[rows]`. Raises CS517 where one gives something else, or fails."""
    return {name: _value(name, function, run, rows) for name, function in metrics.items()}


def refused_whole_answers(metrics: Iterable[str]) -> Diagnostic:
    """CS517: such metrics read one position, and answers that are scored whole are read at several."""
    return Diagnostic(
        "CS517",
        f"the metric {', '.join(metrics)} is a function of the logits at one token, and with `score: sum_logprob` "
        "answers are read at several",
        hint="take out `score: sum_logprob`, or claim logprob, prob or logprob_diff",
    )


def _value(name: str, function: OwnMetric, run: Scored, rows: int) -> Tensor:
    import torch

    try:
        value = torch.as_tensor(function(run))
    except Exception as error:
        said = f"the metric {name} failed: {type(error).__name__}: {error}"
        raise CircuitspecError(Diagnostic("CS517", said, hint=_HINT)) from error
    if value.shape != (rows,) or value.is_complex():
        said = f"the metric {name} gave a tensor {list(value.shape)} of {value.dtype} for {rows} prompts"
        raise CircuitspecError(Diagnostic("CS517", said, hint=_HINT))
    return value.detach().to(run.logits.dtype)


_HINT = "return one number for each row of run.logits, such as run.logits[:, 0] or run.logits.softmax(-1).amax(-1)"
