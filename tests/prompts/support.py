"""Tasks to start from, and a way to look at errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from circuitspec.diagnostics.diagnostic import CircuitspecError, Diagnostic
from circuitspec.hypothesis_file.schema.blocks import TaskSpec
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.prompt_set import PromptSet

NAMES = ["Mary", "John", "Tom", "Anna", "Paul", "Kate"]
ABBA = "Then, {IO} and {S1} went to the {place}. {S2} gave a {object} to"
BABA = "Then, {S1} and {IO} went to the {place}. {S2} gave a {object} to"

IOI: dict[str, object] = {
    "templates": [ABBA, BABA],
    "slots": {"IO": "$names", "S1": "$names", "S2": "=S1", "place": "$places", "object": "$objects"},
    "lists": {"names": NAMES, "places": ["store", "park"], "objects": ["ring", "kiss"]},
    "answer": " {IO}",
    "wrong": " {S1}",
    "corruptions": {
        "abc": {"IO": "$names", "S1": "$names", "S2": "$names"},
        "flip": {"IO": "=S1", "S1": "=IO", "S2": "=IO"},
    },
    "prompts": 12,
}


def spec(**changes: object) -> TaskSpec:
    """The IOI task with some keys replaced; None removes a key."""
    return TaskSpec.model_validate({k: v for k, v in {**IOI, **changes}.items() if v is not None})


def plain(**keys: object) -> TaskSpec:
    return TaskSpec.model_validate(keys)


def build(task: TaskSpec, base_dir: Path = Path()) -> PromptSet:
    return build_prompts(task, base_dir, None)


def errors_of(action: Callable[[], object]) -> tuple[Diagnostic, ...]:
    """The diagnostics that an action is refused with."""
    with pytest.raises(CircuitspecError) as caught:
        action()
    return caught.value.diagnostics


def one_error(action: Callable[[], object], code: str) -> Diagnostic:
    found = errors_of(action)
    assert [d.code for d in found] == [code], found
    return found[0]
