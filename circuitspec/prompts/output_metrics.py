"""What is read off the logits: every metric in one table, each per prompt. Importing this imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from circuitspec.diagnostics.diagnostic import Span
from circuitspec.hypothesis_file.grammar.internal_metric_names import is_internal
from circuitspec.prompts.prompt_set import PromptSet
from circuitspec.prompts.task_findings import TaskFindings, meant

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Targets:
    """Token ids of one side of every prompt, padded: `ids` and `mask` are [batch, k], `mask` true where an id counts.

    The ids that count differ within a row.
    """

    ids: Tensor
    mask: Tensor


def targets(rows: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> Targets | None:
    """Padded ids; None when no prompt has any. Raises ValueError when only some have."""
    import torch

    width = max(map(len, rows), default=0)
    if width == 0:
        return None
    if not all(rows):
        raise ValueError("some prompts have answers and others have none")
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return Targets(ids, torch.arange(width, device=device) < lengths[:, None])


@dataclass(frozen=True)
class Scored:
    """Logits [batch, n_vocab] at the answer position with everything that metrics share, computed once."""

    logits: Tensor
    answers: Targets | None = None
    wrong: Targets | None = None
    clean_logprobs: Tensor | None = None

    @cached_property
    def log_total(self) -> Tensor:
        """Log of the softmax's denominator, [batch]; NaN where any logit is."""
        return self.logits.logsumexp(-1)

    def of(self, side: Targets | None, fill: float) -> Tensor:
        """The logits of a side's tokens, [batch, k], with `fill` where there is none."""
        assert side is not None
        return self.logits.gather(-1, side.ids).masked_fill(~side.mask, fill)

    def mean(self, side: Targets | None) -> Tensor:
        assert side is not None
        return self.of(side, 0.0).sum(-1) / side.mask.sum(-1)

    def best(self, side: Targets | None) -> Tensor:
        return self.of(side, -float("inf")).amax(-1)

    def logprob(self, side: Targets | None) -> Tensor:
        """Log of the summed probability."""
        return self.of(side, -float("inf")).logsumexp(-1) - self.log_total

    def unless_nan(self, values: Tensor) -> Tensor:
        """`values`, but NaN in rows whose logits hold one: a comparison with NaN would look like an answer."""
        return values.to(self.logits.dtype).masked_fill(self.log_total.isnan(), float("nan"))


@dataclass(frozen=True)
class Metric:
    """A number per prompt, and what one has to know to use it as evidence."""

    name: str
    unit: str
    better: Literal["higher", "lower"]
    description: str
    function: Callable[[Scored], Tensor]
    needs_answers: bool = True
    needs_wrong: bool = False
    needs_clean: bool = False  # the clean run's log probabilities
    discrete: bool = False  # jumps: a small change of the logits may not show at all
    linear: bool = False  # in the logits

    def computable(self, answers: object, wrong: object, clean: object) -> bool:
        """Whether what it needs is there; each argument counts as present unless it is None or empty."""
        present = (answers is not None, wrong is not None, clean is not None)
        return all(
            has or not needs
            for has, needs in zip(present, (self.needs_answers, self.needs_wrong, self.needs_clean), strict=True)
        )


def _accuracy(run: Scored) -> Tensor:
    best = run.best(run.answers)
    if run.wrong is not None:
        return run.unless_nan(best > run.best(run.wrong))
    # with no wrong answers, the most likely tokens of the vocabulary must all be answers
    top = (run.logits >= best[:, None]).sum(-1)
    return run.unless_nan(top == (run.of(run.answers, -float("inf")) >= best[:, None]).sum(-1))


def _rank(run: Scored) -> Tensor:
    return run.unless_nan((run.logits > run.best(run.answers)[:, None]).sum(-1))


def _kl(run: Scored) -> Tensor:
    assert run.clean_logprobs is not None
    clean = run.clean_logprobs.to(run.logits.dtype)
    weights = clean.exp()
    terms = weights * (clean - (run.logits - run.log_total[:, None]))
    return terms.masked_fill(weights == 0, 0.0).sum(-1)  # 0 log 0 is 0


class _Metrics(dict[str, Metric]):
    """Those of the output by name; one inside the model is made when it is asked for, and not among them."""

    def __missing__(self, name: str) -> Metric:
        if not is_internal(name):
            raise KeyError(name)
        return Metric(name, "its own unit", "higher", "measured inside the model", _not_of_logits, needs_answers=False)


def _not_of_logits(run: Scored) -> Tensor:
    raise ValueError("this metric is measured inside the model, not from its logits")


METRICS: Mapping[str, Metric] = _Metrics(
    (metric.name, metric)
    for metric in (
        Metric(
            "logit_diff",
            "logits",
            "higher",
            "mean logit of the answers minus mean logit of the wrong answers",
            lambda run: run.mean(run.answers) - run.mean(run.wrong),
            needs_wrong=True,
            linear=True,
        ),
        Metric(
            "logit",
            "logits",
            "higher",
            "mean logit of the answers",
            lambda run: run.mean(run.answers),
            linear=True,
        ),
        Metric(
            "logprob",
            "nats",
            "higher",
            "log of the answers' summed probability",
            lambda run: run.logprob(run.answers),
        ),
        Metric(
            "prob",
            "probability",
            "higher",
            "summed probability of the answers",
            lambda run: run.logprob(run.answers).exp(),
        ),
        Metric(
            "prob_diff",
            "probability",
            "higher",
            "summed probability of the answers minus that of the wrong answers",
            lambda run: run.logprob(run.answers).exp() - run.logprob(run.wrong).exp(),
            needs_wrong=True,
        ),
        Metric(
            "accuracy",
            "share",
            "higher",
            "1 where the best answer beats every wrong answer (without wrong answers: every other token), else 0",
            _accuracy,
            discrete=True,
        ),
        Metric(
            "rank",
            "tokens",
            "lower",
            "how many tokens of the vocabulary have a higher logit than the best answer",
            _rank,
            discrete=True,
        ),
        Metric(
            "kl",
            "nats",
            "lower",
            "Kullback-Leibler divergence of this run's next-token distribution from the clean run's",
            _kl,
            needs_answers=False,
            needs_clean=True,
        ),
    )
)


def upcast(logits: Tensor) -> Tensor:
    """At least float32: a softmax over a vocabulary in half precision loses the tail."""
    import torch

    return logits if logits.dtype == torch.float64 else logits.float()


def compute_metrics(
    logits: Tensor,
    answers: Targets | None,
    wrong: Targets | None,
    clean_logprobs: Tensor | None = None,
    names: Collection[str] | None = None,
) -> dict[str, Tensor]:
    """All metrics (or those in `names`) that can be computed, each [batch], one value per prompt.

    `logits` is [batch, n_vocab] at the answer position; anything narrower than float64 is computed in
    float32. `clean_logprobs`, [batch, n_vocab], is the log softmax of the clean run of the same prompts.
    A metric that lacks what it needs is absent from the result.
    """

    run = Scored(upcast(logits), answers, wrong, clean_logprobs)
    wanted = METRICS.values() if names is None else [METRICS[name] for name in METRICS if name in names]
    return {m.name: m.function(run) for m in wanted if m.computable(answers, wrong, clean_logprobs)}


def available_metrics(task: PromptSet) -> tuple[str, ...]:
    """The metrics that the prompts have enough answers for."""
    answers = True if all(prompt.answers for prompt in task.prompts) else None
    wrong = True if all(prompt.wrong for prompt in task.prompts) else None
    return tuple(metric.name for metric in METRICS.values() if metric.computable(answers, wrong, True))


def check_metrics(
    names: Sequence[str], task: PromptSet, spans: Sequence[Span | None] = (), *, among: Collection[str] = METRICS
) -> None:
    """Refuse metrics that the task has no answers for.

    `spans` are the places of the names, if they come from a file; those `among` which are proposed instead are the
    ones that serve the same end. Raises CircuitspecError (CS350).
    """
    findings = TaskFindings()
    available = available_metrics(task)
    for name, span in zip(names, [*spans, *[None] * (len(names) - len(spans))], strict=True):
        if is_internal(name):
            continue
        if name not in METRICS:
            findings.add("CS350", f"there is no metric {name}", span, hint=meant(name, METRICS))
        elif name not in available:
            lacking = "`wrong`" if "logit" in available else "`answer`"
            others = ", ".join(metric for metric in available if metric in among)
            findings.add(
                "CS350",
                f"{name} cannot be computed: the task has no {lacking}",
                span,
                hint=f"add {lacking} to the task" + (f", or use one of {others}" if others else ""),
            )
    findings.check()
