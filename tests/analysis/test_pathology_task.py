"""CS440 from made-up standings: the model does not do the task, or answers in another form."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import binom

from circuitspec.analysis.task_behaviour import AnswerStanding, Instead, other_form, standing, worth_a_look
from circuitspec.analysis.warnings.tasks.task_warnings import task_not_done
from circuitspec.engine.records import PromptValues
from circuitspec.prompts.prompt_set import Prompt, PromptSet, TokenizedTask
from circuitspec.prompts.tokens.answer_forms import AnswerForm

VOCABULARY = 50_000


def task_of(n: int, answers: int = 1, wrong: int = 1) -> TokenizedTask:
    texts = tuple(Prompt(i, 0, {"clean": f"x{i}"}, (" is",), (" are",)) for i in range(n))
    ids = tuple((i,) for i in range(n))
    return TokenizedTask(
        PromptSet(texts, (), ("t",)),
        {"clean": ids},
        {},
        (tuple(range(answers)),) * n,
        (tuple(range(100, 100 + wrong)),) * n,
    )


def clean(right: int, n: int, prob: float = 0.5, rank: float = 0.0) -> PromptValues:
    accuracy = np.array([1.0] * right + [0.0] * (n - right))
    return {"accuracy": accuracy, "prob": np.full(n, prob), "rank": np.full(n, rank)}


def stands(
    right: int, n: int, prob: float = 0.5, rank: float = 0.0, answers: int = 1, wrong: int = 1
) -> AnswerStanding:
    found = standing(clean(right, n, prob, rank), task_of(n, answers, wrong), VOCABULARY)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("answers", "wrong", "chance"), [(1, 1, 0.5), (1, 3, 0.25), (2, 6, 0.25), (5, 0, 5 / VOCABULARY)]
)
def test_chance_depends_on_how_many_answers_there_are(answers: int, wrong: int, chance: float) -> None:
    found = stands(12, 40, answers=answers, wrong=wrong)
    assert found.chance == pytest.approx(chance)
    assert found.p_value == pytest.approx(binom.sf(11, 40, chance), rel=1e-9)  # at least 12 of 40


@pytest.mark.parametrize(
    ("right", "n", "told", "why"),
    [
        (50, 100, True, "half right of two"),
        (58, 100, True, "58 or more come about by chance in 0.067 of all cases"),
        (59, 100, False, "59 or more in 0.044"),
        (10, 100, True, "worse than chance is no better"),
        (100, 100, False, "all right"),
        (4, 4, False, "four prompts cannot tell: all right has a chance of a sixteenth"),
        (2, 4, False, "nor can they tell that it is chance"),
        (6, 10, True, "ten could"),
    ],
)
def test_accuracy_against_chance(right: int, n: int, told: bool, why: str) -> None:
    assert stands(right, n).at_chance == told, why
    assert bool(task_not_done(stands(right, n), None)) == told


@pytest.mark.parametrize(
    ("prob", "rank", "told"),
    [(0.009, 10, True), (0.011, 10, False), (0.009, 9, False), (1e-6, 2_000, True), (0.3, 0, False)],
)
def test_an_unlikely_answer_is_told_by_probability_and_rank(prob: float, rank: float, told: bool) -> None:
    """Both: in a small vocabulary ten tokens are many, in a flat distribution a hundredth is much."""
    found = stands(40, 40, prob, rank)
    assert found.is_unlikely == told
    warnings = task_not_done(found, None)
    assert [w.code for w in warnings] == ["CS440"] * told
    if told:
        assert "on 40 of 40 prompts 10 tokens or more come before the right answer" in warnings[0].message


def form(texts: Sequence[str], name: str = "with the space before it") -> AnswerForm:
    return AnswerForm(name, name, tuple((text,) for text in texts), tuple((1,) for _ in texts))


def test_the_form_that_is_far_likelier_is_named_with_its_numbers() -> None:
    n = 34
    forms = [form([" is"] * n), form(["Is"] * n, "with a capital letter")]
    probabilities = np.stack([np.full(n, 0.14), np.full(n, 2e-5)])
    instead = Instead(forms, probabilities, np.full(n, 1e-5), [" is"] * 30 + [" of"] * 4)
    (warning,) = task_not_done(stands(33, n, 1e-5, 2_000), instead)
    assert "' is', with the space before it, is 10 times as likely or more on 34 of 34 prompts" in warning.message
    assert "the median rank is 2,000 and the median probability 1e-05, with the space before it 0.14" in warning.detail
    assert "the likeliest token is ' is' on 30 prompts" in warning.detail
    assert warning.help == "write the answers with the space before it"
    assert warning.data["form"] == {
        "name": "with the space before it",
        "prompts": 34,
        "median_probability": pytest.approx(0.14),
    }
    assert warning.data["likeliest"] == {" is": 30, " of": 4}


@pytest.mark.parametrize(("ratio", "told"), [(9.9, False), (10.1, True)])
def test_ten_times_as_likely_on_most_prompts(ratio: float, told: bool) -> None:
    n = 40
    instead = Instead([form([" is"] * n)], np.full((1, n), 0.05 * ratio), np.full(n, 0.05), [" is"] * n)
    assert (other_form(instead) is not None) == told
    few = Instead([form([" is"] * n)], np.array([[0.9] * 23 + [0.0] * 17]), np.full(n, 0.05), [" is"] * n)
    assert other_form(few) is None, "23 of 40 come about by chance"
    assert bool(task_not_done(stands(n, n, 0.05), instead)) == told


def test_nothing_is_run_for_a_model_that_gives_the_answers() -> None:
    """Above a probability of 1/11 nothing else can be ten times as likely."""
    assert not worth_a_look(stands(40, 40, 0.1), clean(40, 40, 0.1))
    assert worth_a_look(stands(40, 40, 0.09), clean(40, 40, 0.09))
    assert worth_a_look(stands(20, 40, 0.9), clean(20, 40, 0.9))


def test_without_answers_there_is_nothing_to_say() -> None:
    assert standing({"kl": np.zeros(5)}, task_of(5), VOCABULARY) is None
    assert task_not_done(None, None) == ()
