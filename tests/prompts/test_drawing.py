"""Prompts drawn from templates: what is drawn, what is kept, and that a seed means the same everywhere."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuitspec.prompts.prompt_set import CLEAN, Prompt, PromptSet
from tests.prompts.support import ABBA, BABA, IOI, NAMES, build, plain, spec


def filled(prompt: Prompt, variant: str) -> dict[str, str]:
    text = prompt.texts[variant]
    return {slot: text[a:b] for slot, (a, b) in prompt.slots[variant].items()}


def test_a_prompt_says_what_its_template_and_slots_say() -> None:
    prompts = build(spec())
    for prompt in prompts.prompts:
        for variant in (CLEAN, "abc", "flip"):
            values = filled(prompt, variant)
            assert prompt.texts[variant] == (ABBA, BABA)[prompt.template].format(**values)
        clean = filled(prompt, CLEAN)
        assert prompt.answers == (f" {clean['IO']}",)
        assert prompt.wrong == (f" {clean['S1']}",)
        assert prompt.index == prompts.prompts.index(prompt)
        assert prompt.described() == f"prompt {prompt.index} (templates[{prompt.template}])"
    assert prompts.corruptions == ("abc", "flip")
    assert prompts.templates == (ABBA, BABA)
    assert prompts.lists == {"IO": "names", "S1": "names", "S2": "names", "place": "places", "object": "objects"}


@given(seed=st.integers(0, 2**40), n_names=st.integers(5, 40), n=st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_draws_differ_and_corruptions_keep_what_they_do_not_name(seed: int, n_names: int, n: int) -> None:
    names = [f"N{k}" for k in range(n_names)]
    task = spec(seed=seed, prompts=n, lists={"names": names, "places": ["store", "park"], "objects": ["ring", "kiss"]})
    prompts = build(task)
    assert len({p.texts[CLEAN] for p in prompts.prompts}) == n
    for prompt in prompts.prompts:
        clean, abc, flip = (filled(prompt, variant) for variant in (CLEAN, "abc", "flip"))
        assert clean["IO"] != clean["S1"] == clean["S2"]
        assert len({clean["IO"], clean["S1"], abc["IO"], abc["S1"], abc["S2"]}) == 5
        assert (flip["IO"], flip["S1"], flip["S2"]) == (clean["S1"], clean["IO"], clean["IO"])
        for kept in ("place", "object"):
            assert clean[kept] == abc[kept] == flip[kept]


def test_an_unnamed_copy_keeps_the_clean_value() -> None:
    prompts = build(spec(corruptions={"other": {"S1": "$names"}}))
    for prompt in prompts.prompts:
        clean, other = filled(prompt, CLEAN), filled(prompt, "other")
        assert other["S1"] not in (clean["S1"], clean["IO"])
        assert other["S2"] == clean["S2"]
        assert other["IO"] == clean["IO"]


def test_a_fresh_draw_from_another_list_still_differs_from_what_the_slot_held() -> None:
    lists = {
        "names": NAMES,
        "others": ["Mary", "John", "Zoe"],
        "places": ["store", "park"],
        "objects": ["ring", "kiss"],
    }
    prompts = build(spec(lists=lists, corruptions={"other": {"IO": "$others"}}, prompts=40))
    assert all(filled(p, "other")["IO"] != filled(p, CLEAN)["IO"] for p in prompts.prompts)


@pytest.mark.parametrize("n", [1, 2, 7, 20])
def test_templates_take_turns(n: int) -> None:
    three = [ABBA, BABA, "Later {IO} met {S1}, and {S2} showed the {place} and the {object} to"]
    counts = Counter(p.template for p in build(spec(templates=three, prompts=n)).prompts)
    shares = [counts[k] for k in range(3)]
    assert sum(shares) == n
    assert max(shares) - min(shares) <= 1


def digest(prompts: PromptSet) -> str:
    content = [[sorted(p.texts.items()), p.answers, p.wrong] for p in prompts.prompts]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def test_the_same_seed_gives_the_same_prompts_in_another_process() -> None:
    code = (
        "import sys; sys.path.insert(0, '.');"
        "from tests.prompts.test_drawing import digest; from tests.prompts.support import build, spec;"
        "print(digest(build(spec(seed=5))))"
    )
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": hash_seed}
        )
        assert done.stdout.strip() == digest(build(spec(seed=5)))
    assert digest(build(spec(seed=5))) != digest(build(spec(seed=6)))


def test_draws_come_from_the_documented_stream() -> None:
    # written out by hand: the stream of prompt i is Random("seed:i:clean"), and a choice is int(random() * n)
    prompts = build(
        plain(templates=["{X} {Y}"], slots={"X": "$l", "Y": "$l"}, lists={"l": list("abcdefgh")}, prompts=3, seed=9)
    )
    for prompt in prompts.prompts:
        stream, left = random.Random(f"9:{prompt.index}:clean"), list("abcdefgh")
        first = left.pop(int(stream.random() * 8))
        second = left.pop(int(stream.random() * 7))
        assert prompt.texts[CLEAN] == f"{first} {second}"


def test_more_prompts_or_another_corruption_leave_the_first_prompts_as_they_are() -> None:
    few, many = build(spec(prompts=5)), build(spec(prompts=30))
    fewer_corruptions = build(spec(prompts=5, corruptions={"abc": IOI["corruptions"]["abc"]}))  # type: ignore[index]
    assert many.prompts[:5] == few.prompts
    for one, other in zip(few.prompts, fewer_corruptions.prompts, strict=True):
        assert {**other.texts, "flip": one.texts["flip"]} == one.texts


def test_the_whole_space_can_be_drawn_without_a_repeat() -> None:
    names = ["A", "B", "C", "D"]
    task = plain(
        templates=["{X} to {Y}"],
        slots={"X": "$names", "Y": "$names", "hidden": "$names"},
        lists={"names": names},
        prompts=12,
    )
    drawn = [p.texts[CLEAN] for p in build(task).prompts]
    assert sorted(drawn) == sorted(f"{x} to {y}" for x, y in itertools.permutations(names, 2))


def test_choices_are_close_to_uniform() -> None:
    letters = [chr(97 + k) for k in range(10)]
    task = plain(
        templates=["{X} {N}"],
        slots={"X": "$l", "N": "$n"},
        lists={"l": letters, "n": [str(k) for k in range(1000)]},
        prompts=4000,
    )
    counts = Counter(p.texts[CLEAN][0] for p in build(task).prompts)
    # 4000 draws over 10 letters: standard deviation 19, so 5 of them is 95
    assert all(abs(counts[letter] - 400) < 95 for letter in letters)


LANDMARKS = [
    {"name": "The Colosseum", "city": "Rome"},
    {"name": "The Louvre", "city": "Paris"},
    {"name": "The Pantheon", "city": "Rome"},
    {"name": "Big Ben", "city": "London"},
]


def landmarks(**changes: object) -> dict[str, object]:
    task: dict[str, object] = {
        "templates": ["{C.name} is in the city of"],
        "slots": {"C": "$landmarks"},
        "lists": {"landmarks": LANDMARKS},
        "answer": " {C.city}",
        "wrong": {"answer_of": "swap"},
        "corruptions": {"swap": {"C": "$landmarks"}},
        "prompts": 4,
    }
    return {**task, **changes}


@pytest.mark.parametrize("seed", range(8))
def test_a_table_keeps_its_columns_together_and_wrong_is_the_answer_of_the_corruption(seed: int) -> None:
    city = {row["name"]: row["city"] for row in LANDMARKS}
    for prompt in build(plain(**landmarks(seed=seed))).prompts:
        clean, swap = filled(prompt, CLEAN)["C"], filled(prompt, "swap")["C"]
        assert prompt.answers == (f" {city[clean]}",)
        assert prompt.wrong == (f" {city[swap]}",)
        assert prompt.answers != prompt.wrong  # Rome against Rome is drawn again


def test_greater_than_answers_by_number() -> None:
    years = [f"{k:02}" for k in range(2, 99)]
    task = plain(
        templates=["The war lasted from the year 17{YY} to the year 17"],
        slots={"YY": "$years"},
        lists={"years": years},
        answer={"from": "$years", "above": "YY"},
        wrong={"from": "$years", "at_most": "YY"},
        corruptions={"one": {"YY": "$ones"}},
        prompts=96,
    )
    task = task.model_copy(update={"lists": {**task.lists, "ones": ("01",)}})
    prompts = build(task).prompts
    assert len(prompts) == 96  # 98 itself has no answer above it, so 02 to 97 are all there are
    for prompt in prompts:
        start = int(filled(prompt, CLEAN)["YY"])
        assert prompt.answers == tuple(f" {k:02}".strip() for k in range(start + 1, 99))
        assert prompt.wrong == tuple(f"{k:02}" for k in range(2, start + 1))
        assert filled(prompt, "one")["YY"] == "01"


def test_numbers_from_a_tables_column_and_between_two_slots() -> None:
    table = [{"year": str(k), "event": f"E{k}"} for k in (1, 5, 10, 20, 100)]
    task = plain(
        templates=["{low.event} {high.event}"],
        slots={"low": "$events", "high": "$events"},
        lists={"events": table},
        answer={"from": "$events.year", "above": "low.year", "at_most": "high.year"},
        prompts=10,
    )
    for prompt in build(task).prompts:
        low, high = (int(filled(prompt, CLEAN)[slot][1:]) for slot in ("low", "high"))
        assert low < high  # otherwise nothing lies between, and the draw is repeated
        assert prompt.answers == tuple(str(k) for k in (1, 5, 10, 20, 100) if low < k <= high)


def test_several_answers_and_none() -> None:
    several = build(spec(answer=[" {IO}", " the", " {IO}"], wrong=[" {S1}", " a"]))
    assert all(p.answers == (f" {filled(p, CLEAN)['IO']}", " the") for p in several.prompts)
    assert all(len(p.wrong) == 2 for p in several.prompts)
    none = build(spec(answer=None, wrong=None))
    assert all(p.answers == () == p.wrong for p in none.prompts)


def test_a_slot_that_occurs_twice_has_two_places() -> None:
    task = plain(
        templates=["{X} and {Y}; {X}"], slots={"X": "$l", "Y": "$l"}, lists={"l": ["aa", "b", "ccc"]}, prompts=3
    )
    for prompt in build(task).prompts:
        spans = prompt.slots[CLEAN]
        text = prompt.texts[CLEAN]
        assert list(spans) == ["X", "Y", "X#2"]
        assert text[slice(*spans["X"])] == text[slice(*spans["X#2"])] == text.partition(" ")[0]
        assert spans["X#2"][1] == len(text)
