"""Whether the model does the task that a circuit is said to do, in its clean run, and what it says instead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from circuitspec.analysis.statistics.wording import plural
from circuitspec.engine.records import PromptValues
from circuitspec.prompts.prompt_set import TokenizedTask
from circuitspec.prompts.tokens.answer_forms import AnswerForm

SURE = 0.05  # of the exact binomial tests
MOST = 0.5  # of the prompts
UNLIKELY = 0.01  # probability of the right answers together: a hundredth of what the model says
BEHIND = 10  # tokens that come before the best right answer
LIKELIER = 10  # times as likely as the right answers, or more: another form of them is what the model says


@dataclass(frozen=True)
class AnswerStanding:
    """How the right answers stand in the clean run; `p_value` is that of accuracy being chance, one-sided.

    `unlikely` counts the prompts on which they have less than UNLIKELY of the probability and BEHIND tokens or more
    before them.
    """

    n: int
    accuracy: float
    chance: float
    p_value: float
    rank: float  # median
    probability: float  # median
    unlikely: int

    @property
    def at_chance(self) -> bool:
        """Not told from chance, by prompts enough to tell."""
        return self.p_value > SURE and self.chance**self.n <= SURE

    @property
    def is_unlikely(self) -> bool:
        return _on_most(self.unlikely, self.n)


@dataclass(frozen=True)
class Instead:
    """What the model says where it hardly says the right answers.

    `probabilities[k]` are those of `forms[k]`, `right` those of the answers, prompt by prompt; `likeliest` the text of
    the first token.
    """

    forms: Sequence[AnswerForm]
    probabilities: NDArray[np.float64]
    right: NDArray[np.float64]
    likeliest: Sequence[str]


def standing(clean: PromptValues, task: TokenizedTask, n_vocab: int) -> AnswerStanding | None:
    """None where the task has no answers."""
    if not {"accuracy", "rank", "prob"} <= clean.keys():
        return None
    chance = float(np.mean([_chance(a, w, n_vocab) for a, w in zip(task.answers, task.wrong, strict=True)]))
    right, n = int(clean["accuracy"].sum()), task.n
    unlikely = int(((clean["prob"] < UNLIKELY) & (clean["rank"] >= BEHIND)).sum())
    return AnswerStanding(
        n,
        right / n,
        chance,
        float(scipy.stats.binomtest(right, n, chance, alternative="greater").pvalue),
        float(np.median(clean["rank"])),
        float(np.median(clean["prob"])),
        unlikely,
    )


def _chance(answers: Sequence[int], wrong: Sequence[int], n_vocab: int) -> float:
    """How often the best of these tokens is a right one, where all are alike: among the wrong ones, or all tokens."""
    return len(answers) / (len(answers) + len(wrong) if wrong else max(n_vocab, len(answers)))


def worth_a_look(found: AnswerStanding, clean: PromptValues) -> bool:
    """Whether something can be said of what the model says instead: other forms are no likelier by far elsewhere."""
    low = int((clean["prob"] * (1 + LIKELIER) < 1).sum())
    return found.at_chance or found.is_unlikely or _on_most(low, found.n)


def other_form(instead: Instead) -> tuple[AnswerForm, int, float] | None:
    """The likeliest form that on most prompts is far likelier than the answers: on how many, and its median."""
    far = [
        (form, int((own >= LIKELIER * instead.right)[own > 0].sum()), float(np.median(own)))
        for form, own in zip(instead.forms, instead.probabilities, strict=True)
    ]
    n = len(instead.right)
    found = [one for one in far if _on_most(one[1], n)]
    return max(found, key=lambda one: one[2], default=None)


def form_said(form: tuple[AnswerForm, int, float], n: int) -> str:
    """`' is', with the space before it, is 10 times as likely or more on 34 of 34 prompts`."""
    texts = Counter(text for own in form[0].texts for text in own)
    shown = f"{next(iter(texts))!r}" if len(texts) == 1 else f"the answer ({next(iter(texts))!r} and the like)"
    return f"{shown}, {form[0].name}, is {LIKELIER} times as likely or more on {form[1]} of {plural(n, 'prompt')}"


def form_advice(form: tuple[AnswerForm, int, float]) -> str:
    return f"write the answers {form[0].advice}"


def _on_most(count: int, n: int) -> bool:
    return bool(scipy.stats.binomtest(count, n, MOST, alternative="greater").pvalue <= SURE)
