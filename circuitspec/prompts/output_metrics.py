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
class Side:
    """How one side of every prompt is scored, padded: `scores` and `mask` are [batch, k], `mask` true where one counts.

    A score is the logit of an answer's token, or the log probability of a whole answer. `ids` are the tokens; None
    where whole answers are scored.
    """

    scores: Tensor
    mask: Tensor
    ids: Tensor | None = None


@dataclass(frozen=True)
class Scored:
    """Logits [batch, n_vocab] at the prompts' last token with everything that metrics share, computed once.

    With `sequences` the scores of a side are the log probabilities of whole answers, otherwise logits of tokens.
    """

    logits: Tensor
    answers: Side | None = None
    wrong: Side | None = None
    clean_logprobs: Tensor | None = None
    sequences: bool = False

    @cached_property
    def log_total(self) -> Tensor:
        """Log of the softmax's denominator, [batch]; NaN where any logit is."""
        return self.logits.logsumexp(-1)

    def of(self, side: Side | None, fill: float) -> Tensor:
        """The scores of a side, [batch, k], with `fill` where there is none."""
        assert side is not None
        return side.scores.masked_fill(~side.mask, fill)

    def mean(self, side: Side | None) -> Tensor:
        assert side is not None
        return self.of(side, 0.0).sum(-1) / side.mask.sum(-1)

    def best(self, side: Side | None) -> Tensor:
        return self.of(side, -float("inf")).amax(-1)

    def logprob(self, side: Side | None) -> Tensor:
        """Log of the summed probability."""
        total = self.of(side, -float("inf")).logsumexp(-1)
        return total if self.sequences else total - self.log_total

    def unless_nan(self, values: Tensor) -> Tensor:
        """`values`, but NaN in rows whose scores hold one: a comparison with NaN would look like an answer."""
        broken = self.log_total.isnan()
        for side in (self.answers, self.wrong):
            broken = broken if side is None else broken | self.of(side, 0.0).isnan().any(-1)
        return values.to(self.logits.dtype).masked_fill(broken, float("nan"))


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
    linear: bool = False  # in the logits, where answers are one token
    instead: str = ""  # what to use where whole answers of several tokens are scored, for which it is not defined
    whole_need_wrong: bool = False  # where they are scored, it needs wrong answers
    within: tuple[float, float] | None = None  # between which values it lies on every prompt
    same_as: str = ""  # another one, where answers are one token: reports have it beside that only where it is claimed

    @property
    def of_sequences(self) -> bool:
        """Whether it is defined for answers of several tokens, scored by their summed log probability."""
        return not self.instead

    def computable(self, answers: object, wrong: object, clean: object, *, sequences: bool = False) -> bool:
        """Whether what it needs is there; each argument counts as present unless it is None or empty.

        With `sequences`, for whole answers of several tokens.
        """
        if sequences and not self.of_sequences:
            return False
        present = (answers is not None, wrong is not None, clean is not None)
        needs_wrong = self.needs_wrong or (sequences and self.whole_need_wrong)
        return all(
            has or not needs
            for has, needs in zip(present, (self.needs_answers, needs_wrong, self.needs_clean), strict=True)
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
            instead="logprob_diff",
        ),
        Metric(
            "logit",
            "logits",
            "higher",
            "mean logit of the answers",
            lambda run: run.mean(run.answers),
            linear=True,
            instead="logprob",
        ),
        Metric(
            "logprob",
            "nats",
            "higher",
            "log of the answers' summed probability",
            lambda run: run.logprob(run.answers),
        ),
        Metric(
            "logprob_diff",
            "nats",
            "higher",
            "mean log probability of the answers minus mean log probability of the wrong answers (of single tokens: "
            "logit_diff)",
            lambda run: run.mean(run.answers) - run.mean(run.wrong),
            needs_wrong=True,
            linear=True,
            same_as="logit_diff",
        ),
        Metric(
            "prob",
            "probability",
            "higher",
            "summed probability of the answers",
            lambda run: run.logprob(run.answers).exp(),
            within=(0.0, 1.0),
        ),
        Metric(
            "prob_diff",
            "probability",
            "higher",
            "summed probability of the answers minus that of the wrong answers",
            lambda run: run.logprob(run.answers).exp() - run.logprob(run.wrong).exp(),
            needs_wrong=True,
            within=(-1.0, 1.0),
        ),
        Metric(
            "accuracy",
            "share",
            "higher",
            "1 where the best answer beats every wrong answer (without wrong answers: every other token), else 0",
            _accuracy,
            discrete=True,
            within=(0.0, 1.0),
            whole_need_wrong=True,
        ),
        Metric(
            "rank",
            "tokens",
            "lower",
            "how many tokens of the vocabulary have a higher logit than the best answer",
            _rank,
            discrete=True,
            instead="accuracy",
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


def scored(
    logits: Tensor, answers: Targets | None, wrong: Targets | None, clean_logprobs: Tensor | None = None
) -> Scored:
    """A run as metrics take it, from what `compute_metrics` is given."""
    values = upcast(logits)

    def side(of: Targets | None) -> Side | None:
        return None if of is None else Side(values.gather(-1, of.ids), of.mask, of.ids)

    return Scored(values, side(answers), side(wrong), clean_logprobs)


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
    return _computed(scored(logits, answers, wrong, clean_logprobs), names)


def compute_sequence_metrics(
    logits: Tensor,
    answers: Side | None,
    wrong: Side | None,
    clean_logprobs: Tensor | None = None,
    names: Collection[str] | None = None,
) -> dict[str, Tensor]:
    """As `compute_metrics`, of whole answers: `scores` are the summed log probabilities of their tokens.

    `logits` and `clean_logprobs` are those at the prompts' last token, which `kl` compares. A metric that is not
    defined for answers of several tokens is absent.
    """
    return _computed(Scored(upcast(logits), answers, wrong, clean_logprobs, sequences=True), names)


def _computed(run: Scored, names: Collection[str] | None) -> dict[str, Tensor]:
    wanted = METRICS.values() if names is None else [METRICS[name] for name in METRICS if name in names]
    present = (run.answers, run.wrong, run.clean_logprobs)
    return {m.name: m.function(run) for m in wanted if m.computable(*present, sequences=run.sequences)}


def available_metrics(task: PromptSet) -> tuple[str, ...]:
    """The metrics that the prompts have enough answers for, and that are defined for how these are scored."""
    answers = True if all(prompt.answers for prompt in task.prompts) else None
    wrong = True if all(prompt.wrong for prompt in task.prompts) else None
    whole = task.score == "sum_logprob"
    return tuple(m.name for m in METRICS.values() if m.computable(answers, wrong, True, sequences=whole))


def undefined_for_whole(name: str) -> str:
    """What is wrong with a metric that is not defined for whole answers of several tokens."""
    return f"{name} is not defined for answers of several tokens, which `score: sum_logprob` scores"


def instead_of(name: str) -> str:
    """What to write instead of it."""
    return f"use {METRICS[name].instead}, or `score: first_token`, which scores the first token of each answer alone"


def check_metrics(
    names: Sequence[str], task: PromptSet, spans: Sequence[Span | None] = (), *, among: Collection[str] = METRICS
) -> None:
    """Refuse metrics that the task has no answers for, or that are not defined for how it scores them.

    `spans` are the places of the names, if they come from a file; those `among` which are proposed instead are the
    ones that serve the same end. Raises CircuitspecError (CS350, CS365).
    """
    findings = TaskFindings()
    available = available_metrics(task)
    for name, span in zip(names, [*spans, *[None] * (len(names) - len(spans))], strict=True):
        if is_internal(name):
            continue
        if name not in METRICS:
            findings.add("CS350", f"there is no metric {name}", span, hint=meant(name, METRICS))
        elif task.score == "sum_logprob" and METRICS[name].instead:
            findings.add("CS365", undefined_for_whole(name), span, hint=instead_of(name))
        elif name not in available:
            lacking = "`wrong`" if "logprob" in available else "`answer`"
            others = ", ".join(metric for metric in available if metric in among)
            findings.add(
                "CS350",
                f"{name} cannot be computed: the task has no {lacking}",
                span,
                hint=f"add {lacking} to the task" + (f", or use one of {others}" if others else ""),
            )
    findings.check()
