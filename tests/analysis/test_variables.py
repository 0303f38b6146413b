from __future__ import annotations

import pytest

from circuitspec.analysis.variables import circuit_variables, kept_slots
from circuitspec.experiments.experiment import Noised
from circuitspec.graph.where import Where
from circuitspec.hypothesis_file.schema.blocks import TaskSpec
from circuitspec.prompts.prompt_set import Prompt, PromptSet

IOI = {
    "templates": ["Then, {IO} and {S1} went to the {place}. {S2} gave a {object} to"],
    "slots": {"IO": "$names", "S1": "$names", "S2": "=S1", "place": "$places", "object": "$objects"},
    "lists": {"names": ["Mary", "John"], "places": ["park"], "objects": ["ring"]},
    "answer": " {IO}",
    "wrong": " {S1}",
    "positions": {"S1+1": "S1 + 1", "END": "last"},
}


def task(**changes: object) -> TaskSpec:
    return TaskSpec.model_validate({**IOI, **changes})


@pytest.mark.parametrize(
    ("changes", "roles", "expected"),
    [
        ({}, [], {"IO", "S1"}),  # the answers
        ({}, ["END", "S2"], {"IO", "S1", "S2"}),  # and where components act
        ({"answer": " left", "wrong": " right"}, ["S1+1", "IO#2"], {"S1", "IO"}),  # next to a slot, at its second place
        ({"answer": {"from": "$years", "above": "S1"}, "wrong": {"answer_of": "abc"}}, [], {"S1"}),
        ({"corruptions": {"abc": {"IO": "$names", "S2": "$names"}}}, [], {"IO", "S1", "S2"}),
        ({"corruptions": {"scenery": {"place": "$places"}}}, [], {"IO", "S1"}),  # a control
        (
            {"answer": " left", "wrong": " right", "corruptions": {"scenery": {"place": "$places"}}},
            ["END"],
            {"place"},  # nothing else says what matters
        ),
    ],
)
def test_the_slots_that_a_circuit_is_about(changes: dict[str, object], roles: list[str], expected: set[str]) -> None:
    assert circuit_variables(task(**changes), roles) == expected


def test_without_templates_there_are_none() -> None:
    assert circuit_variables(TaskSpec(file="prompts.jsonl", positions={"END": "last"}), ["END"]) == frozenset()


def prompts(*pairs: tuple[str, str]) -> PromptSet:
    """`{A}-{B}-{A}` with these values of A, clean and corrupt; B is always b."""
    made = []
    for i, values in enumerate(pairs):
        texts = {v: f"{a}-b-{a}" for v, a in zip(("clean", "abc"), values, strict=True)}
        slots = {
            v: {"A": (0, len(a)), "B": (len(a) + 1, len(a) + 2), "A#2": (len(a) + 3, 2 * len(a) + 3)}
            for v, a in zip(("clean", "abc"), values, strict=True)
        }
        made.append(Prompt(i, 0, texts, (), (), slots))
    return PromptSet(tuple(made), ("abc",), ("{A}-{B}-{A}",))


def test_slots_are_compared_by_their_text() -> None:
    both = frozenset({"A", "B", "elsewhere"})
    assert kept_slots(prompts(("x", "yy"), ("x", "z")), "abc", both) == {"B"}
    assert kept_slots(prompts(("x", "x"), ("x", "z")), "abc", both) == {"A", "B"}  # in half of the prompts
    assert kept_slots(prompts(("x", "yy")), "abc", frozenset()) == frozenset()


def test_noise_changes_what_it_is_added_to() -> None:
    some = prompts(("x", "y"))
    for where, kept in (
        (Where.at("A"), {"B"}),
        (Where.at("A#2"), {"B"}),
        (Where.except_at("A"), {"A"}),
        (Where.everywhere(), set()),
    ):
        assert kept_slots(some, Noised(1.0, where, 1, 0), frozenset({"A", "B"})) == kept
