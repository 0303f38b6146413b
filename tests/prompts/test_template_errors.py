"""What is wrong with a templated task: every finding at once, each with its code."""

from __future__ import annotations

import pytest

from tests.prompts.support import ABBA, BABA, build, errors_of, one_error, plain, spec
from tests.prompts.test_drawing import landmarks


def test_nothing_different_left_for_a_slot_from_another_list() -> None:
    lists = {"names": ["Mary", "John"], "others": ["Mary"], "places": ["store", "park"], "objects": ["ring", "kiss"]}
    error = one_error(lambda: build(spec(lists=lists, corruptions={"c": {"IO": "$others"}}, prompts=16)), "CS327")
    assert "others" in error.message


def test_more_prompts_than_there_are() -> None:
    # template 0 has 3 * 2 texts, template 1 has 3: of 20 prompts, 10 fall to each
    task = plain(
        templates=["{X} to {Y}", "only {X}"], slots={"X": "$l", "Y": "$l"}, lists={"l": ["a", "b", "c"]}, prompts=20
    )
    error = one_error(lambda: build(task), "CS328")
    assert "3 different prompts, but 10" in error.message
    assert "`prompts: 6`" in error.hint
    assert len(build(task.model_copy(update={"prompts": 6})).prompts) == 6


def test_a_comparison_that_never_has_an_answer() -> None:
    task = plain(
        templates=["{Y}"],
        slots={"Y": "$l"},
        lists={"l": ["9"], "m": ["1", "2"]},
        answer={"from": "$m", "above": "Y"},
        prompts=1,
    )
    error = one_error(lambda: build(task), "CS329")
    assert "`answer`" in error.message
    task = task.model_copy(update={"answer": "x", "wrong": task.answer})
    assert "`wrong`" in one_error(lambda: build(task), "CS329").message


def test_an_answer_that_is_always_wrong() -> None:
    error = one_error(lambda: build(spec(wrong=" {IO}")), "CS330")
    assert "corruption" in error.hint
    same_city = [{"name": "Colosseum", "city": "Rome"}, {"name": "Pantheon", "city": "Rome"}]
    one_error(lambda: build(plain(**landmarks(lists={"landmarks": same_city}, prompts=2))), "CS330")


def test_a_corruption_that_changes_nothing_in_a_template() -> None:
    task = spec(
        templates=[ABBA, "Then, {IO} met {S1}. {S2} gave a {object} to"], corruptions={"where": {"place": "$places"}}
    )
    error = one_error(lambda: build(task), "CS331")
    assert "where leaves this template" in error.message
    assert one_error(lambda: build(spec(templates=[BABA], corruptions={"same": {"IO": "=IO"}})), "CS331")


def test_words_compared_as_numbers() -> None:
    task = spec(answer={"from": "$places", "above": "IO"}, wrong=None)
    found = errors_of(lambda: build(task))
    assert {d.code for d in found} == {"CS332"}
    assert "'store', 'park'" in found[0].message
    assert "and 1 more" in found[1].message  # six names, five shown


def test_words_compared_as_numbers_in_a_corruption() -> None:
    task = plain(
        templates=["{Y}"],
        slots={"Y": "$l"},
        lists={"l": ["1", "2"], "w": ["three"], "n": ["5"]},
        answer={"from": "$n", "above": "Y"},
        wrong={"answer_of": "c"},
        corruptions={"c": {"Y": "$w"}},
        prompts=1,
    )
    assert "three" in one_error(lambda: build(task), "CS332").message


@pytest.mark.parametrize("text", ["nan", "inf", "1e", "", "0x10"])
def test_what_is_no_number(text: str) -> None:
    task = plain(
        templates=["{Y}"],
        slots={"Y": "$l"},
        lists={"l": ["1", text or " "]},
        answer={"from": "$l", "above": "Y"},
        prompts=1,
    )
    one_error_codes = {d.code for d in errors_of(lambda: build(task))}
    assert one_error_codes == {"CS332"}
