"""What is wrong with a templated task: every finding at once, each with its code."""

from __future__ import annotations

import pytest

from tests.tasks.support import ABBA, BABA, IOI, build, errors_of, one_error, plain, spec
from tests.tasks.test_drawing import landmarks


def test_exactly_one_origin() -> None:
    for task in (plain(), plain(templates=["a"], file="p.jsonl")):
        error = one_error(lambda task=task: build(task), "CS320")  # type: ignore[misc]
        assert "templates, file, generate" in error.hint


def test_template_keys_without_templates() -> None:
    found = errors_of(lambda: build(plain(file="p.jsonl", answer=" x", lists={"a": ["b"]})))
    assert [d.code for d in found] == ["CS320", "CS320"]
    assert "`lists`" in found[0].message
    assert "`answer`" in found[1].message


def test_names_that_do_not_exist_are_all_reported() -> None:
    task = spec(
        templates=[ABBA.replace("{IO}", "{I0}")],
        slots={**IOI["slots"], "place": "$place", "S2": "=S3"},  # type: ignore[dict-item]
        answer=" {Ios}",
        corruptions={"abc": {"S9": "$names", "IO": "$nams", "S1": "=X"}},
    )
    found = errors_of(lambda: build(task))
    assert [d.code for d in found].count("CS325") == 2
    assert [d.code for d in found].count("CS322") == 5
    by_message = {d.message: d.hint for d in found}
    assert by_message["there is no list place"] == "did you mean places?"
    assert by_message["there is no list nams"] == "did you mean names?"
    assert by_message["there is no slot I0"] == "did you mean IO?"
    assert by_message["there is no slot S3"] == "did you mean S2?"


def test_unknown_list_and_slot_of_a_comparison() -> None:
    found = errors_of(
        lambda: build(spec(answer={"from": "$year", "above": "IO"}, wrong={"from": "$names", "above": "YY"}))
    )
    assert sorted(d.code for d in found) == ["CS322", "CS325"]


def test_copies_in_a_circle() -> None:
    slots = {"IO": "$names", "S1": "=S2", "S2": "=S1", "place": "$places", "object": "$objects"}
    found = errors_of(lambda: build(spec(slots=slots)))
    assert {d.code for d in found} == {"CS326"}
    assert "S1 = S2 = S1" in found[0].message


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"templates": ["{C} is in"]}, "C.name, C.city"),
        ({"templates": ["{C.nam} is in"]}, "did you mean name?"),
        ({"answer": {"from": "$landmarks", "above": "C.city"}, "wrong": None}, "$landmarks.name, $landmarks.city"),
        ({"lists": {"landmarks": ["a", "b"]}}, "write C"),
    ],
)
def test_columns(changes: dict[str, object], hint: str) -> None:
    found = errors_of(lambda: build(plain(**{k: v for k, v in landmarks(**changes).items() if v is not None})))
    assert {d.code for d in found} == {"CS323"}
    assert hint in found[0].hint


def test_a_corruption_that_draws_rows_without_the_columns_needed() -> None:
    lists = {"landmarks": [{"name": "a", "city": "b"}, {"name": "c", "city": "d"}], "plain": ["x", "y"]}
    task = plain(**landmarks(lists=lists, corruptions={"swap": {"C": "$plain"}}))
    found = errors_of(lambda: build(task))
    assert {d.code for d in found} == {"CS323"}
    assert {d.message for d in found} == {
        "C is plain text and has no column name",
        "C is plain text and has no column city",
    }


def test_a_list_shorter_than_what_is_drawn_from_it() -> None:
    lists = {"names": ["Mary", "John", "Tom"], "places": ["store", "park"], "objects": ["ring", "kiss"]}
    error = one_error(lambda: build(spec(lists=lists)), "CS327")
    assert "3 entries, but 5" in error.message
    assert "abc" in error.label
    error = one_error(lambda: build(spec(lists={**lists, "names": ["Mary"]}, corruptions={})), "CS327")
    assert "1 entry, but 2" in error.message


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


def test_answer_of() -> None:
    error = one_error(lambda: build(spec(wrong={"answer_of": "filp"})), "CS333")
    assert error.hint == "did you mean flip?"
    error = one_error(lambda: build(spec(answer=None, wrong={"answer_of": "flip"})), "CS333")
    assert "`answer`" in error.message
