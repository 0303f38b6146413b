"""Whether the model does the task that a circuit is said to do, in its clean run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from circuitspec.analysis.statistics.wording import number, plural
from circuitspec.analysis.warnings.evidence_warnings import EvidenceWarning
from circuitspec.engine.records import PromptValues
from circuitspec.prompts.prompt_set import TokenizedTask
from circuitspec.prompts.tokens.answer_forms import AnswerForm

SURE = 0.05  # of the exact binomial tests
MOST = 0.5  # of the prompts
UNLIKELY = 0.01  # probability of the right answers together: a hundredth of what the model says
BEHIND = 10  # tokens that come before the best right answer
LIKELIER = 10  # times as likely as the right answers, or more: another form of them is what the model says


@dataclass(frozen=True)
class Standing:
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


def standing(clean: PromptValues, task: TokenizedTask, n_vocab: int) -> Standing | None:
    """None where the task has no answers."""
    if not {"accuracy", "rank", "prob"} <= clean.keys():
        return None
    chance = float(np.mean([_chance(a, w, n_vocab) for a, w in zip(task.answers, task.wrong, strict=True)]))
    right, n = int(clean["accuracy"].sum()), task.n
    unlikely = int(((clean["prob"] < UNLIKELY) & (clean["rank"] >= BEHIND)).sum())
    return Standing(
        n,
        right / n,
        chance,
        float(scipy_stats.binomtest(right, n, chance, alternative="greater").pvalue),
        float(np.median(clean["rank"])),
        float(np.median(clean["prob"])),
        unlikely,
    )


def _chance(answers: Sequence[int], wrong: Sequence[int], n_vocab: int) -> float:
    """How often the best of these tokens is a right one, where all are alike: among the wrong ones, or all tokens."""
    return len(answers) / (len(answers) + len(wrong) if wrong else max(n_vocab, len(answers)))


def worth_a_look(found: Standing, clean: PromptValues) -> bool:
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


def task_not_done(found: Standing | None, instead: Instead | None) -> tuple[EvidenceWarning, ...]:
    """CS440: the model does not do the task, or does it with answers of another form."""
    form = None if instead is None else other_form(instead)
    if found is None or not (found.at_chance or found.is_unlikely or form is not None):
        return ()
    said = []
    if found.at_chance:
        said.append(f"its accuracy of {number(found.accuracy)} is not told from chance, {number(found.chance)}")
    if found.is_unlikely:
        said.append(
            f"on {found.unlikely} of {plural(found.n, 'prompt')} {BEHIND} tokens or more come before the right answer, "
            f"which has less than {UNLIKELY:.0%} of the probability"
        )
    if form is not None:
        said.append(form_said(form, found.n))
    title = "the model does not do the task" if found.at_chance or found.is_unlikely else "the model answers otherwise"
    data: dict[str, object] = {
        "accuracy": found.accuracy,
        "chance": found.chance,
        "p_value": found.p_value,
        "median_rank": found.rank,
        "median_probability": found.probability,
        "unlikely": found.unlikely,
        "n": found.n,
        "form": None if form is None else {"name": form[0].name, "prompts": form[1], "median_probability": form[2]},
    }
    return (EvidenceWarning("CS440", f"{title}: {'; '.join(said)}", _detail(found, instead, data), _help(form), data),)


def form_said(form: tuple[AnswerForm, int, float], n: int) -> str:
    """`' is', with the space before it, is 10 times as likely or more on 34 of 34 prompts`."""
    texts = Counter(text for own in form[0].texts for text in own)
    shown = f"{next(iter(texts))!r}" if len(texts) == 1 else f"the answer ({next(iter(texts))!r} and the like)"
    return f"{shown}, {form[0].name}, is {LIKELIER} times as likely or more on {form[1]} of {plural(n, 'prompt')}"


def form_advice(form: tuple[AnswerForm, int, float]) -> str:
    return f"write the answers {form[0].advice}"


def _detail(found: Standing, instead: Instead | None, data: dict[str, object]) -> str:
    chance = f"chance {number(found.chance)}" if found.chance >= 0.005 else f"chance {found.chance:.1g}"
    detail = (
        f"in the clean run: accuracy {number(found.accuracy)} ({chance}), and of the right answer the median rank is "
        f"{found.rank:,.0f} and the median probability {found.probability:.2g}"
    )
    form = None if instead is None else other_form(instead)
    if form is not None:
        detail += f", {form[0].name} {form[2]:.2g}"
    if instead is not None:
        (text, count), *_ = Counter(instead.likeliest).most_common(1)
        data["likeliest"] = dict(Counter(instead.likeliest).most_common(5))
        if count > 1 or found.n == 1:
            detail += f"; the likeliest token is {text!r} on {plural(count, 'prompt')}"
    return detail


def _help(form: tuple[AnswerForm, int, float] | None) -> str:
    if form is not None:
        return form_advice(form)
    return (
        "take prompts that the model does, or a model that does them; `checks: {accuracy: 0.9}` in the task makes it "
        "an error"
    )


def _on_most(count: int, n: int) -> bool:
    return bool(scipy_stats.binomtest(count, n, MOST, alternative="greater").pvalue <= SURE)
