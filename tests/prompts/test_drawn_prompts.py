"""Prompts for causal scrubbing: what is carried is the reference's, all else is drawn by the task or a corruption."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy

from circuitspec.hypothesis_file.schema.abstraction.abstraction_block import AbstractionSpec
from circuitspec.hypothesis_file.schema.blocks import TaskSpec
from circuitspec.prompts.build import build_prompts
from circuitspec.prompts.pairs.high_level_model import HighLevelModel
from circuitspec.prompts.scrubbing.agreeing_rows import AgreeingRows
from circuitspec.prompts.scrubbing.agreeing_slots import AgreeingSlots, NoneAgrees
from circuitspec.prompts.scrubbing.drawn_prompts import DrawnPrompts
from circuitspec.prompts.task_findings import TaskFindings
from circuitspec.prompts.templates.template_task import template_task
from tests.engine.support import task_of
from tests.oracle import node

NAMES = ["Mary", "John", "Tom", "Anna", "Paul"]
TASK = TaskSpec.model_validate(
    {
        "templates": ["{IO} and {S1} went. {S2} gave a ring to", "{S1} and {IO} went. {S2} gave a ring to"],
        "slots": {"IO": "$names", "S1": "$names", "S2": "=S1"},
        "lists": {"names": NAMES},
        "answer": " {IO}",
        "wrong": " {S1}",
        "corruptions": {"abc": {"S1": "$names", "S2": "$names"}, "flip": {"IO": "=S1", "S1": "=IO", "S2": "=IO"}},
        "prompts": 20,
    }
)
ABSTRACTION = AbstractionSpec.model_validate(
    {
        "variables": {"again": "S1 == S2", "short": "IO in ('Tom', 'Anna')"},
        "output": " {IO}",
        "pairs": {"any": {"permute": True}},
    }
)


def slots() -> AgreeingSlots:
    prompts = build_prompts(TASK, Path())
    drawing = template_task(TASK, {"names": tuple(NAMES)}, TaskFindings())
    return AgreeingSlots(drawing, prompts, HighLevelModel.of(ABSTRACTION, TASK))


def drawn(*carried: str, by: str = "clean", draw: int = 0, of: DrawnPrompts | None = None) -> DrawnPrompts:
    return DrawnPrompts(of, carried, (by,), "a node", draw, 0)


def test_carried_slots_stay_and_what_copies_them_follows() -> None:
    made = slots()
    for prompt, values in zip(made.prompts.prompts, made.of(drawn("S1")), strict=True):
        clean = prompt.fillings["clean"]
        assert values["S1"] == values["S2"] == clean["S1"] != values["IO"]
    for prompt, values in zip(made.prompts.prompts, made.of(drawn("S2")), strict=True):
        assert values["S1"] == values["S2"] == prompt.fillings["clean"]["S2"]


def test_a_corruption_draws_the_slots_that_it_names_and_are_not_carried() -> None:
    made = slots()
    for prompt, values in zip(made.prompts.prompts, made.of(drawn("S1", by="abc")), strict=True):
        assert values["S1"] == prompt.fillings["clean"]["S1"]
        assert len({values["IO"], values["S1"], values["S2"]}) == 3
    for prompt, values in zip(made.prompts.prompts, made.of(drawn("S2", "IO", by="abc")), strict=True):
        clean = prompt.fillings["clean"]
        assert (values["S2"], values["IO"]) == (clean["S2"], clean["IO"])
        assert values["S1"] not in (clean["S2"], clean["IO"])
    for values in made.of(drawn(by="flip")):
        assert values["S1"] == values["S2"] != values["IO"]


def test_every_way_to_fill_the_other_slots_is_equally_likely() -> None:
    made = slots()
    found = [made.of(drawn("S1", draw=draw)) for draw in range(400)]
    for number, prompt in list(enumerate(made.prompts.prompts))[:3]:
        counts = Counter(str(one[number]["IO"]) for one in found)
        others = [name for name in NAMES if name != prompt.fillings["clean"]["S1"]]
        assert counts.keys() == set(others)  # the reference's own among them
        assert scipy.stats.chisquare([counts[name] for name in others]).pvalue > 1e-3


def test_variables_agree_with_the_reference_which_may_be_drawn_itself() -> None:
    made = slots()
    parent = drawn("short")
    child = drawn("short", by="abc", of=parent)
    for prompt, first, second in zip(made.prompts.prompts, made.of(parent), made.of(child), strict=True):
        short = {one["IO"] in ("Tom", "Anna") for one in (prompt.fillings["clean"], first, second)}
        assert len(short) == 1
    kept = drawn("IO", of=parent)
    assert [one["IO"] for one in made.of(kept)] == [one["IO"] for one in made.of(parent)]
    with pytest.raises(NoneAgrees):  # where S2 is drawn anew, S1 does not stand twice
        made.of(drawn("again", by="abc"))


def test_draws_depend_on_their_numbers_alone() -> None:
    def texts(made: Any, one: DrawnPrompts) -> list[tuple[object, ...]]:
        return [tuple(values.values()) for values in made.of(one)]

    first, second = slots(), slots()
    second.of(drawn(draw=1))
    assert texts(first, drawn()) == texts(second, drawn()) != texts(first, drawn(draw=1))
    assert drawn().variant == drawn().variant != drawn(draw=1).variant
    assert drawn().variant != drawn("S1").variant != drawn("S1", by="abc").variant


def test_rows_stand_for_each_other_where_columns_and_tokens_agree() -> None:
    """Row 0's, and one row more that differs in one thing each: the column, the length, a position, the template."""
    ids, ends = [[7, 8, 9], [7, 5, 9], [7, 8, 9], [7, 8, 9, 6], [7, 8, 9], [7, 8, 9]], [2, 2, 2, 2, 1, 2]
    templates = [0, 0, 0, 0, 0, 1]
    prompts = [
        node.Prompt(own, own, template, [1], [2], {"END": end})
        for own, end, template in zip(ids, ends, templates, strict=True)
    ]
    task = task_of(prompts)
    told = [replace(one, metadata={"flows": "01"[i == 2]}) for i, one in enumerate(task.prompts.prompts)]
    task = replace(task, prompts=replace(task.prompts, prompts=tuple(told)))
    rows = AgreeingRows(task)
    made = [rows.of(drawn("flows", draw=draw)) for draw in range(200)]
    assert [set(one) for one in zip(*made, strict=True)] == [{0, 1}, {0, 1}, {2}, {3}, {4}, {5}]
    assert abs(sum(one[0] for one in made) - 100) < 4 * np.sqrt(50)  # of two rows each is as likely
    child = drawn("flows", draw=1, of=drawn(draw=3))
    assert all(
        told[a].metadata == told[b].metadata for a, b in zip(rows.of(child), rows.of(drawn(draw=3)), strict=True)
    )
